//! The queue of those who read the manifest.
//!
//! Every node needs the manifest first. A few read it at a time, so that they soon have it and can
//! send it on. A bounded number waits for a turn; all others are refused and ask another node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::conn::Conn;
use crate::swarm::rules::Rules;

/// The answer to a request for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Granted.
    Now,
    /// Queued: [`ManifestQueue::next`] says when its turn has come.
    Wait,
    /// Refused: the queue is full.
    Refused,
}

/// The readers of one server, and the queue behind them.
#[derive(Debug)]
pub(super) struct ManifestQueue {
    rules: Rules,
    /// When each reader's turn began, whether or not it has read anything.
    reading: BTreeMap<Conn, Instant>,
    /// First come, first served; each once.
    waiting: VecDeque<Conn>,
}

impl ManifestQueue {
    pub(super) fn new(rules: Rules) -> ManifestQueue {
        ManifestQueue { rules, reading: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// May `conn` read now? A turn lasts until [`ManifestQueue::done`], or for [`Rules::manifest_turn`]
    /// if others wait.
    pub(super) fn ask(&mut self, conn: Conn, now: Instant) -> Turn {
        let free = self.reading.len() < self.rules.manifest_readers && self.waiting.is_empty();
        if free || self.reading.contains_key(&conn) {
            self.reading.entry(conn).or_insert(now);
            return Turn::Now;
        }
        if self.waiting.contains(&conn) {
            return Turn::Wait;
        }
        if self.waiting.len() >= self.rules.manifest_line {
            return Turn::Refused;
        }
        self.waiting.push_back(conn);
        Turn::Wait
    }

    /// `conn` has read all of it, or was closed.
    pub(super) fn done(&mut self, conn: Conn) {
        self.reading.remove(&conn);
        self.cancel(conn);
    }

    /// `conn` no longer waits. A turn that it has goes on.
    pub(super) fn cancel(&mut self, conn: Conn) {
        self.waiting.retain(|waiting| *waiting != conn);
    }

    /// The next connection to wake, whose turn begins now. Turns that have timed out end.
    pub(super) fn next(&mut self, now: Instant) -> Option<Conn> {
        self.waiting.front()?;
        self.reading.retain(|_, since| now < *since + self.rules.manifest_turn);
        if self.reading.len() >= self.rules.manifest_readers {
            return None;
        }
        let conn = self.waiting.pop_front()?;
        self.reading.insert(conn, now);
        Some(conn)
    }

    /// When a turn times out while others wait.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front()?;
        self.reading.values().min().map(|since| *since + self.rules.manifest_turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two read at a time, and one waits.
    fn queue_of_one() -> (ManifestQueue, Instant) {
        let rules = Rules { manifest_readers: 2, manifest_line: 1, ..Rules::default() };
        (ManifestQueue::new(rules), Instant::now())
    }

    fn asks(queue: &mut ManifestQueue, now: Instant) -> Vec<Turn> {
        (1..=4).map(|n| queue.ask(Conn(n), now)).collect()
    }

    #[test]
    fn a_few_read_some_wait_and_the_others_are_refused() {
        let (mut queue, now) = queue_of_one();
        assert_eq!(asks(&mut queue, now), [Turn::Now, Turn::Now, Turn::Wait, Turn::Refused]);
    }

    #[test]
    fn asking_again_keeps_a_turn_or_a_position_in_the_queue() {
        let (mut queue, now) = queue_of_one();
        asks(&mut queue, now);
        assert_eq!(asks(&mut queue, now), [Turn::Now, Turn::Now, Turn::Wait, Turn::Refused]);
    }

    #[test]
    fn a_finished_reader_passes_its_turn_to_the_first_in_the_queue() {
        let (mut queue, now) = queue_of_one();
        asks(&mut queue, now);
        assert_eq!(queue.next(now), None);
        queue.done(Conn(1));
        assert_eq!(queue.next(now), Some(Conn(3)));
        assert_eq!(queue.ask(Conn(3), now), Turn::Now);
    }

    #[test]
    fn a_turn_that_times_out_passes_to_the_next() {
        let (mut queue, now) = queue_of_one();
        asks(&mut queue, now);
        let due = queue.deadline().expect("one waits");
        assert_eq!(queue.next(due), Some(Conn(3)));
    }

    #[test]
    fn a_connection_that_no_longer_waits_gets_no_turn() {
        let (mut queue, now) = queue_of_one();
        asks(&mut queue, now);
        queue.cancel(Conn(3));
        queue.done(Conn(1));
        assert_eq!(queue.next(now), None);
    }
}
