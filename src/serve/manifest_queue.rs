//! The queue of those who read the manifest.
//!
//! Every node needs the manifest first. A few read it at a time, so that they soon have it and can
//! send it on. A bounded number waits for a turn; all others are refused and ask another node.
//!
//! No host keeps the others from it: however many of its connections read, they count once for a host of which none
//! does, and where the queue is full one of the host of which most wait gives way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::fair::FairQueue;
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
    /// When each reader's turn began, whether or not it has read anything, and of which host it is.
    reading: BTreeMap<Conn, (Instant, IpAddr)>,
    /// What their hosts have had is turns.
    waiting: FairQueue,
    /// It has given way to another, and is to be woken to learn of it.
    displaced: Option<Conn>,
}

impl ManifestQueue {
    pub(super) fn new(rules: Rules) -> ManifestQueue {
        ManifestQueue {
            rules,
            reading: BTreeMap::new(),
            waiting: FairQueue::default(),
            displaced: None,
        }
    }

    /// May `conn` read now? A turn lasts until [`ManifestQueue::done`], or for [`Rules::manifest_turn`]
    /// if others wait.
    pub(super) fn ask(&mut self, conn: Conn, host: IpAddr, now: Instant) -> Turn {
        if self.reading.contains_key(&conn) {
            return Turn::Now;
        }
        // Those that wait have no place of their own.
        if self.waiting.waiting_of(host) == 0 && self.has_place(host) {
            self.begin(conn, host, now);
            return Turn::Now;
        }
        if self.waiting.contains(conn) {
            return Turn::Wait;
        }
        if self.waiting.len() >= self.rules.manifest_line {
            let own = self.waiting.waiting_of(host);
            let Some(greedy) = self.waiting.last_of_the_greediest(own + 1) else {
                return Turn::Refused;
            };
            self.waiting.remove(greedy);
            self.displaced = Some(greedy);
        }
        self.waiting.push(conn, host);
        Turn::Wait
    }

    /// `conn` has read all of it, or was closed.
    pub(super) fn done(&mut self, conn: Conn) {
        self.reading.remove(&conn);
        self.cancel(conn);
    }

    /// `conn` no longer waits. A turn that it has goes on.
    pub(super) fn cancel(&mut self, conn: Conn) {
        self.waiting.remove(conn);
    }

    /// The next connection to wake: its turn begins now, or it has lost its place. Turns that have timed out end.
    pub(super) fn next(&mut self, now: Instant) -> Option<Conn> {
        if self.displaced.is_some() {
            return self.displaced.take();
        }
        if self.waiting.is_empty() {
            return None;
        }
        self.reading.retain(|_, (since, _)| now < *since + self.rules.manifest_turn);
        let ManifestQueue { waiting, reading, rules, .. } = self;
        let (conn, host) =
            waiting.pop_of(|host| has_place(reading, host, rules.manifest_readers))?;
        self.begin(conn, host, now);
        Some(conn)
    }

    /// When [`ManifestQueue::next`] has somebody to name.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.displaced.is_some() {
            return Some(now);
        }
        if self.waiting.is_empty() {
            return None;
        }
        self.reading.values().map(|(since, _)| *since + self.rules.manifest_turn).min()
    }

    fn has_place(&self, host: IpAddr) -> bool {
        has_place(&self.reading, host, self.rules.manifest_readers)
    }

    fn begin(&mut self, conn: Conn, host: IpAddr, now: Instant) {
        self.reading.insert(conn, (now, host));
        self.waiting.spend(host, 1);
    }
}

/// Is there a place for a host? For its first one the others count once each.
fn has_place(reading: &BTreeMap<Conn, (Instant, IpAddr)>, host: IpAddr, most: usize) -> bool {
    let mut hosts: Vec<IpAddr> = reading.values().map(|(_, host)| *host).collect();
    if hosts.contains(&host) {
        return hosts.len() < most;
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len() < most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u64) -> IpAddr {
        [10, 0, 0, n as u8].into()
    }

    /// Two read at a time, and one waits.
    fn queue_of_one() -> (ManifestQueue, Instant) {
        let rules = Rules { manifest_readers: 2, manifest_line: 1, ..Rules::default() };
        (ManifestQueue::new(rules), Instant::now())
    }

    fn asks(queue: &mut ManifestQueue, now: Instant) -> Vec<Turn> {
        (1..=4).map(|n| queue.ask(Conn(n), host(n), now)).collect()
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
        assert_eq!(queue.ask(Conn(3), host(3), now), Turn::Now);
    }

    #[test]
    fn a_turn_that_times_out_passes_to_the_next() {
        let (mut queue, now) = queue_of_one();
        asks(&mut queue, now);
        let due = queue.deadline(now).expect("one waits");
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

    #[test]
    fn a_host_that_reads_and_waits_with_many_connections_keeps_nobody_from_it() {
        let (mut queue, now) = (ManifestQueue::new(Rules::default()), Instant::now());
        for n in 100..400 {
            queue.ask(Conn(n), host(1), now);
        }
        assert_eq!(queue.ask(Conn(2), host(2), now), Turn::Now);
        assert_eq!(queue.ask(Conn(3), host(3), now), Turn::Now);
        assert_eq!(queue.ask(Conn(4), host(4), now), Turn::Wait);
        assert_eq!(queue.next(now), Some(Conn(108)), "it has lost its place in the queue");
        queue.done(Conn(2));
        assert_eq!(queue.next(now), Some(Conn(4)));
        assert_eq!(queue.next(now), None);
    }
}
