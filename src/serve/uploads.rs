//! Whose turn it is to be sent a chunk.
//!
//! Few uploads at a time, each at a high rate, bring whole chunks into the swarm sooner than many
//! slow ones. A free slot goes to whoever has waited longest, each connection in its turn.

use std::collections::{BTreeMap, VecDeque};

use crate::conn::Conn;

/// The turns of one node's uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    slots: usize,
    /// Who is being sent a chunk.
    active: BTreeMap<Conn, Turn>,
    /// Who waits, in the order of asking, each at most once.
    waiting: VecDeque<Conn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The slot is reserved; the connection has been woken to use it.
    Offered,
    /// Its bytes are on their way.
    Sending,
}

impl Uploads {
    /// Turns for this many uploads at a time.
    pub(crate) fn new(slots: usize) -> Uploads {
        Uploads { slots, active: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// May `conn` send a chunk at once? If not, it waits in line.
    pub(crate) fn ask(&mut self, conn: Conn) -> bool {
        let free = self.active.len() < self.slots && self.waiting.is_empty();
        match self.active.get(&conn) {
            Some(Turn::Offered) => {}
            None if free => {}
            _ => {
                if !self.waiting.contains(&conn) {
                    self.waiting.push_back(conn);
                }
                return false;
            }
        }
        self.waiting.retain(|waiting| *waiting != conn);
        self.active.insert(conn, Turn::Sending);
        true
    }

    /// A turn ended, or `conn` gave up what it was offered. Returns who is to be woken.
    pub(crate) fn done(&mut self, conn: Conn) -> Option<Conn> {
        self.active.remove(&conn);
        self.offer()
    }

    /// `conn` no longer waits. Returns who is to be woken.
    pub(crate) fn cancel(&mut self, conn: Conn) -> Option<Conn> {
        self.waiting.retain(|waiting| *waiting != conn);
        match self.active.get(&conn) {
            Some(Turn::Offered) => self.done(conn),
            _ => None,
        }
    }

    /// How many are being sent to.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    fn offer(&mut self) -> Option<Conn> {
        if self.active.len() >= self.slots {
            return None;
        }
        let index = self.waiting.iter().position(|conn| !self.active.contains_key(conn))?;
        let conn = self.waiting.remove(index)?;
        self.active.insert(conn, Turn::Offered);
        Some(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_until_they_are_used_up() {
        let mut uploads = Uploads::new(2);
        assert!(uploads.ask(Conn(1)));
        assert!(uploads.ask(Conn(2)));
        assert!(!uploads.ask(Conn(3)));
    }

    #[test]
    fn a_free_slot_goes_to_the_connection_that_has_waited_longest() {
        let mut uploads = Uploads::new(1);
        assert!(uploads.ask(Conn(1)));
        assert!(!uploads.ask(Conn(9)));
        assert!(!uploads.ask(Conn(2)));
        assert_eq!(uploads.done(Conn(1)), Some(Conn(9)));
        assert!(!uploads.ask(Conn(2)), "the slot is reserved for the one that was woken");
        assert!(uploads.ask(Conn(9)));
    }

    #[test]
    fn one_connection_is_sent_one_chunk_at_a_time() {
        let mut uploads = Uploads::new(4);
        assert!(uploads.ask(Conn(1)));
        assert!(!uploads.ask(Conn(1)));
        assert_eq!(uploads.done(Conn(1)), Some(Conn(1)), "its queued request goes next");
    }

    #[test]
    fn an_offer_that_is_given_up_passes_to_the_next() {
        let mut uploads = Uploads::new(1);
        assert!(uploads.ask(Conn(1)));
        uploads.ask(Conn(2));
        uploads.ask(Conn(3));
        assert_eq!(uploads.done(Conn(1)), Some(Conn(2)));
        assert_eq!(uploads.cancel(Conn(2)), Some(Conn(3)));
    }

    #[test]
    fn a_connection_that_ends_frees_its_slot() {
        let mut uploads = Uploads::new(1);
        assert!(uploads.ask(Conn(1)));
        assert_eq!(uploads.done(Conn(1)), None);
        assert!(uploads.ask(Conn(2)));
    }
}
