//! Whose turn it is to read the manifest.
//!
//! Everybody needs it before anything else. A few read at a time, so that the first of them soon
//! have it and can send it on; some more wait in line, which costs them no further question; the
//! others are refused, and ask elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::conn::Conn;
use crate::swarm::rules::Rules;

/// What becomes of a wish to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is granted.
    Now,
    /// It waits in line; [`Readers::next`] says when its turn has come.
    Wait,
    /// The line is too long.
    Elsewhere,
}

/// Those who read the manifest of one node, and those who wait for it.
#[derive(Debug)]
pub struct Readers {
    rules: Rules,
    /// Since when each reads; its turn is offered or taken.
    reading: BTreeMap<Conn, Instant>,
    /// In the order of asking, each once.
    waiting: VecDeque<Conn>,
}

impl Readers {
    /// Nobody reads yet.
    pub fn new(rules: Rules) -> Readers {
        Readers { rules, reading: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// May `conn` read now? A turn lasts until [`Readers::done`], or for [`Rules::manifest_turn`]
    /// if others wait.
    pub fn ask(&mut self, conn: Conn, now: Instant) -> Turn {
        let free = self.reading.len() < self.rules.manifest_readers && self.waiting.is_empty();
        if free || self.reading.contains_key(&conn) {
            self.reading.entry(conn).or_insert(now);
            return Turn::Now;
        }
        if self.waiting.contains(&conn) {
            return Turn::Wait;
        }
        if self.waiting.len() >= self.rules.manifest_line {
            return Turn::Elsewhere;
        }
        self.waiting.push_back(conn);
        Turn::Wait
    }

    /// `conn` has read all of it, or has gone.
    pub fn done(&mut self, conn: Conn) {
        self.reading.remove(&conn);
        self.cancel(conn);
    }

    /// `conn` does not wait any longer; a turn that it has goes on.
    pub fn cancel(&mut self, conn: Conn) {
        self.waiting.retain(|waiting| *waiting != conn);
    }

    /// Who is to be woken, since its turn has come.
    pub fn next(&mut self, now: Instant) -> Option<Conn> {
        self.waiting.front()?;
        self.reading.retain(|_, since| now < *since + self.rules.manifest_turn);
        if self.reading.len() >= self.rules.manifest_readers {
            return None;
        }
        let conn = self.waiting.pop_front()?;
        self.reading.insert(conn, now);
        Some(conn)
    }

    /// When [`Readers::next`] may have somebody by the passing of time.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front()?;
        self.reading.values().min().map(|since| *since + self.rules.manifest_turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two read at a time, and one waits.
    fn readers() -> (Readers, Instant) {
        let rules = Rules { manifest_readers: 2, manifest_line: 1, ..Rules::default() };
        (Readers::new(rules), Instant::now())
    }

    fn asks(readers: &mut Readers, now: Instant) -> Vec<Turn> {
        (1..=4).map(|n| readers.ask(Conn(n), now)).collect()
    }

    #[test]
    fn few_read_at_a_time_some_wait_and_others_go_elsewhere() {
        let (mut readers, now) = readers();
        assert_eq!(asks(&mut readers, now), [Turn::Now, Turn::Now, Turn::Wait, Turn::Elsewhere]);
    }

    #[test]
    fn who_has_a_turn_or_a_place_keeps_it() {
        let (mut readers, now) = readers();
        asks(&mut readers, now);
        assert_eq!(asks(&mut readers, now), [Turn::Now, Turn::Now, Turn::Wait, Turn::Elsewhere]);
    }

    #[test]
    fn who_waits_gets_the_turn_of_one_that_is_done() {
        let (mut readers, now) = readers();
        asks(&mut readers, now);
        assert_eq!(readers.next(now), None);
        readers.done(Conn(1));
        assert_eq!(readers.next(now), Some(Conn(3)));
        assert_eq!(readers.ask(Conn(3), now), Turn::Now);
    }

    #[test]
    fn who_dawdles_keeps_it_from_nobody() {
        let (mut readers, now) = readers();
        asks(&mut readers, now);
        let due = readers.deadline().expect("one waits");
        assert_eq!(readers.next(due), Some(Conn(3)));
    }

    #[test]
    fn who_gives_up_waiting_gets_no_turn() {
        let (mut readers, now) = readers();
        asks(&mut readers, now);
        readers.cancel(Conn(3));
        readers.done(Conn(1));
        assert_eq!(readers.next(now), None);
    }
}
