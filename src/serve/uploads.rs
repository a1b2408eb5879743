//! Whose turn it is to be sent a chunk.
//!
//! Few uploads at a time, each at a high rate, bring whole chunks into the swarm sooner than many slow ones. A free
//! slot goes to the host that had fewest turns, and there to the connection that has waited longest.
//!
//! No host keeps the others from the slots: however many of them it has, it counts once for a host that has none. A
//! turn that takes too long does not count any more, since whoever takes its chunk slowly leaves the link to others.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::fair::FairQueue;
use super::lately::Lately;
use crate::conn::Conn;

/// The turns of one server's uploads.
#[derive(Debug)]
pub(crate) struct Uploads {
    slots: usize,
    /// Who is being sent a chunk.
    active: BTreeMap<Conn, Turn>,
    /// The turns of each host that count.
    hosts: HashMap<IpAddr, usize>,
    /// Who waits; what their hosts have had is turns.
    waiting: FairQueue,
    /// To whom anything was sent of late, chunks or not.
    lately: Lately,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    host: IpAddr,
    since: Instant,
    state: State,
    /// The same connection waits for another one.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The slot is reserved; the connection has been woken to use it.
    Offered,
    /// Its bytes are on their way.
    Sending,
    /// They have been for too long.
    Overdue,
}

impl Uploads {
    /// Turns for this many uploads at a time.
    pub(crate) fn new(slots: usize) -> Uploads {
        Uploads {
            slots,
            active: BTreeMap::new(),
            hosts: HashMap::new(),
            waiting: FairQueue::default(),
            lately: Lately::default(),
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// May `conn` send a chunk at once? If not, it waits in line.
    pub(crate) fn ask(&mut self, conn: Conn, host: IpAddr, now: Instant) -> bool {
        if let Some(turn) = self.active.get_mut(&conn) {
            let offered = turn.state == State::Offered;
            if offered {
                (turn.state, turn.since) = (State::Sending, now);
            } else {
                turn.again = true;
            }
            return offered;
        }
        // Those that wait have no slot of their own.
        let free = self.waiting.waiting_of(host) == 0 && self.has_slot(host, now);
        if free {
            self.begin(conn, host, State::Sending, now);
        } else {
            self.waiting.push(conn, host);
        }
        free
    }

    /// A turn ended, or `conn` gave up what it was offered. Returns who is to be woken.
    pub(crate) fn done(&mut self, conn: Conn, now: Instant) -> Vec<Conn> {
        if let Some(turn) = self.active.remove(&conn) {
            if turn.state != State::Overdue {
                self.free(turn.host);
            }
            if turn.again {
                self.waiting.push(conn, turn.host);
            }
        }
        self.offer(now)
    }

    /// `conn` no longer waits. Returns who is to be woken.
    pub(crate) fn cancel(&mut self, conn: Conn, now: Instant) -> Vec<Conn> {
        self.waiting.remove(conn);
        match self.active.get_mut(&conn) {
            Some(turn) if turn.state == State::Offered => {
                turn.again = false;
                self.done(conn, now)
            }
            Some(turn) => {
                turn.again = false;
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Turns that take longer than `limit` while others wait give up their slots. Returns who is to be woken.
    pub(crate) fn tick(&mut self, limit: Duration, now: Instant) -> Vec<Conn> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut freed = Vec::new();
        self.active.retain(|_, turn| {
            let late = now.saturating_duration_since(turn.since) >= limit;
            let before = turn.state;
            if late && before != State::Overdue {
                turn.state = State::Overdue;
                freed.push(turn.host);
            }
            // Who has not used its offer asks again.
            !(late && before == State::Offered)
        });
        for host in freed {
            self.free(host);
        }
        self.offer(now)
    }

    /// When [`Uploads::tick`] has something to do, if it ever has.
    pub(crate) fn deadline(&self, limit: Duration) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let counts = self.active.values().filter(|turn| turn.state != State::Overdue);
        counts.map(|turn| turn.since).min().map(|since| since + limit)
    }

    /// Something else than a chunk is sent to a host.
    pub(crate) fn note(&mut self, host: IpAddr, now: Instant) {
        self.lately.note(host, now);
    }

    /// Whether another host than this was sent something of late.
    pub(crate) fn has_others(&self, host: IpAddr, now: Instant) -> bool {
        self.lately.has_others(host, now)
    }

    /// How many are being sent to.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    /// Is there a slot for a host? For its first one the others count once each, and a second one it has only while it
    /// is alone: a link is shared by connections.
    fn has_slot(&self, host: IpAddr, now: Instant) -> bool {
        match self.hosts.get(&host) {
            Some(own) => *own < self.slots && !self.has_others(host, now),
            None => self.hosts.len() < self.slots,
        }
    }

    fn begin(&mut self, conn: Conn, host: IpAddr, state: State, now: Instant) {
        self.active.insert(conn, Turn { host, since: now, state, again: false });
        *self.hosts.entry(host).or_default() += 1;
        self.waiting.spend(host, 1);
        self.lately.note(host, now);
    }

    fn free(&mut self, host: IpAddr) {
        if let Some(count) = self.hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }

    fn offer(&mut self, now: Instant) -> Vec<Conn> {
        let mut woken = Vec::new();
        loop {
            let mut waiting = std::mem::take(&mut self.waiting);
            let next = waiting.pop_of(|host| self.has_slot(host, now));
            self.waiting = waiting;
            let Some((conn, host)) = next else { return woken };
            self.begin(conn, host, State::Offered, now);
            woken.push(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// Turns whose connections are each of the host of that number.
    struct Server {
        uploads: Uploads,
        now: Instant,
    }

    impl Server {
        fn new(slots: usize) -> Server {
            Server { uploads: Uploads::new(slots), now: Instant::now() }
        }

        fn ask(&mut self, conn: u64) -> bool {
            self.ask_from(conn, conn as u8)
        }

        fn ask_from(&mut self, conn: u64, host: u8) -> bool {
            self.uploads.ask(Conn(conn), [10, 0, 0, host].into(), self.now)
        }

        fn done(&mut self, conn: u64) -> Vec<u64> {
            self.uploads.done(Conn(conn), self.now).into_iter().map(|conn| conn.0).collect()
        }

        fn tick(&mut self) -> Vec<u64> {
            self.uploads.tick(LIMIT, self.now).into_iter().map(|conn| conn.0).collect()
        }
    }

    #[test]
    fn slots_are_given_until_they_are_used_up() {
        let mut server = Server::new(2);
        assert!(server.ask(1) && server.ask(2) && !server.ask(3));
    }

    #[test]
    fn a_free_slot_goes_to_the_connection_that_has_waited_longest() {
        let mut server = Server::new(1);
        assert!(server.ask(1) && !server.ask(9) && !server.ask(2));
        assert_eq!(server.done(1), [9]);
        assert!(!server.ask(2), "the slot is reserved for the one that was woken");
        assert!(server.ask(9));
    }

    #[test]
    fn one_connection_is_sent_one_chunk_at_a_time() {
        let mut server = Server::new(4);
        assert!(server.ask(1) && !server.ask(1));
        assert_eq!(server.done(1), [1], "its queued request goes next");
    }

    #[test]
    fn an_offer_that_is_given_up_passes_to_the_next() {
        let mut server = Server::new(1);
        server.ask(1);
        server.ask(2);
        server.ask(3);
        assert_eq!(server.done(1), [2]);
        assert_eq!(server.uploads.cancel(Conn(2), server.now), [Conn(3)]);
    }

    #[test]
    fn a_connection_that_ends_frees_its_slot() {
        let mut server = Server::new(1);
        assert!(server.ask(1));
        assert_eq!(server.done(1), [0; 0]);
        assert!(server.ask(2));
    }

    #[test]
    fn a_host_that_has_all_slots_keeps_nobody_waiting() {
        let mut server = Server::new(4);
        assert_eq!((0..12).filter(|n| server.ask_from(100 + n, 1)).count(), 4);
        assert!(server.ask(2) && server.ask(3) && server.ask(4));
        assert!(!server.ask(5), "each of four hosts has a slot");
        assert_eq!(server.done(3), [5]);
    }

    #[test]
    fn all_hosts_have_as_many_turns() {
        let mut server = Server::new(1);
        for n in 0..100 {
            server.ask_from(100 + n, 1);
        }
        server.ask(2);
        server.ask(3);
        let mut turns = [0; 4];
        let mut next = 100;
        for _ in 0..30 {
            let woken = server.done(next);
            next = woken[0];
            let host = if next >= 100 { 1 } else { next as u8 };
            turns[usize::from(host)] += 1;
            assert!(server.ask_from(next, host));
            server.ask_from(next, host);
        }
        assert_eq!(turns[1..], [10, 10, 10]);
    }

    #[test]
    fn an_offer_that_is_not_used_passes_to_the_next_and_may_be_asked_for_again() {
        let mut server = Server::new(1);
        for conn in 1..=3 {
            server.ask(conn);
        }
        assert_eq!(server.done(1), [2]);
        server.now += LIMIT;
        assert_eq!(server.tick(), [3]);
        assert!(!server.ask(2) && server.ask(3));
        assert_eq!(server.done(3), [2]);
        assert!(server.ask(2));
    }

    #[test]
    fn a_turn_that_takes_too_long_keeps_nobody_waiting() {
        let mut server = Server::new(1);
        server.ask(1);
        assert_eq!(server.uploads.deadline(LIMIT), None, "nobody waits");
        server.ask(2);
        server.now = server.uploads.deadline(LIMIT).unwrap();
        assert_eq!(server.tick(), [2]);
        assert!(server.ask(2) && !server.ask(3));
        assert_eq!(server.done(1), [0; 0], "its slot is another's by now");
    }
}
