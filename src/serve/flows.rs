//! How many connections of a host are sent files at a time, by 9P or HTTP, and how fast; chunks that nodes are granted
//! have [`super::uploads`].
//!
//! A link is shared by connections. So that it is shared by hosts, only one connection of each is sent something at a
//! time where others want something as well, and the others of that host wait. A host that is alone may use several.
//!
//! How connections share a link depends on how much of each is on its way, and may be far from equal. Beside nodes a
//! host therefore pauses after each piece, so that it gets no more than is said.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::fair::FairQueue;
use crate::conn::Conn;
use crate::limits::{MAX_FLOW_BYTES, MAX_FLOWS};

/// Who has asked for nothing for so long gives way to another connection of its host.
const IDLE: Duration = Duration::from_millis(100);
/// How often those that wait are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Who was sent something for so long does, too.
const TURN: Duration = Duration::from_millis(200);
/// The longest pause after so many bytes or fewer: however slow the nodes are, others get something.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_BYTES: u64 = 64 << 10;
/// A piece that is on its way for so long leaves the link to others, and does not count.
const SLOW: Duration = Duration::from_secs(1);

/// What a host may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// No other is sent anything.
    pub(super) alone: bool,
    /// No more than this, beside nodes.
    pub(super) bytes_per_s: Option<u64>,
}

impl Share {
    /// Whether a host that has these flows may have another one.
    fn has_place<'a>(&self, flows: impl Iterator<Item = &'a Flow>, now: Instant) -> bool {
        let (mut count, mut bytes) = (0, 0u64);
        for flow in flows.filter(|flow| flow.counts(now)) {
            count += 1;
            bytes = bytes.saturating_add(flow.bytes);
        }
        let most = if self.alone { MAX_FLOWS } else { 1 };
        count < most && bytes < MAX_FLOW_BYTES
    }

    /// How long it takes until it has as much as this.
    fn time(&self, bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_s else { return Duration::ZERO };
        let longest = LONGEST_PAUSE.saturating_mul(bytes.div_ceil(PAUSE_BYTES) as u32);
        let micros = bytes.saturating_mul(1_000_000).checked_div(rate);
        micros.map_or(longest, |micros| Duration::from_micros(micros).min(longest))
    }
}

/// The connections that are sent files.
#[derive(Debug, Default)]
pub(super) struct Flows {
    hosts: HashMap<IpAddr, Vec<Flow>>,
    /// Until when hosts have had their share.
    paused: HashMap<IpAddr, Instant>,
    waiting: FairQueue,
    /// When those that wait are looked at next.
    look_at: Option<Instant>,
}

#[derive(Debug)]
struct Flow {
    conn: Conn,
    since: Instant,
    last: Instant,
    /// A piece is on its way.
    sending: bool,
    /// The size of the last one.
    bytes: u64,
    /// Another one is wanted.
    again: bool,
}

impl Flow {
    fn new(conn: Conn, now: Instant) -> Flow {
        Flow { conn, since: now, last: now, sending: false, bytes: 0, again: false }
    }

    fn sends(&mut self, bytes: u64, now: Instant) {
        (self.last, self.sending, self.bytes) = (now, true, bytes);
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.sending || now.saturating_duration_since(self.last) < IDLE
    }

    fn counts(&self, now: Instant) -> bool {
        let time = now.saturating_duration_since(self.last);
        if self.sending { time < SLOW } else { time < IDLE }
    }
}

impl Flows {
    /// May `conn` be sent a piece of so many bytes? One at a time; if not, it waits.
    pub(super) fn ask(
        &mut self,
        conn: Conn,
        host: IpAddr,
        bytes: u64,
        share: Share,
        now: Instant,
    ) -> bool {
        let may = self.may_send(conn, host, bytes, share, now);
        if may && share.bytes_per_s.is_some() {
            self.paused.insert(host, now + share.time(bytes));
        }
        may
    }

    fn may_send(
        &mut self,
        conn: Conn,
        host: IpAddr,
        bytes: u64,
        share: Share,
        now: Instant,
    ) -> bool {
        let waits = self.waiting.waiting_of(host) > 0;
        let paused = self.pause(host, share, now);
        let flows = self.hosts.entry(host).or_default();
        flows.retain(|flow| flow.conn == conn || flow.is_busy(now));
        let earlier = flows.iter().take_while(|flow| flow.conn != conn);
        let has_place = paused.is_none() && share.has_place(earlier, now);
        let own = flows.iter().position(|flow| flow.conn == conn);
        if let Some(own) = own
            && let Some(flow) = flows.get_mut(own)
        {
            if flow.sending {
                flow.again = true;
                return false;
            }
            if has_place && !(waits && now.saturating_duration_since(flow.since) >= TURN) {
                flow.sends(bytes, now);
                return true;
            }
            flows.remove(own);
        } else if !waits && has_place {
            let mut flow = Flow::new(conn, now);
            flow.sends(bytes, now);
            flows.push(flow);
            return true;
        }
        self.waiting.push(conn, host);
        let look_at = paused.map_or(now + LOOK_EVERY, |until| until.min(now + LOOK_EVERY));
        self.look_at = Some(self.look_at.map_or(look_at, |at| at.min(look_at)));
        false
    }

    /// Until when a host pauses, if it does.
    fn pause(&self, host: IpAddr, share: Share, now: Instant) -> Option<Instant> {
        share.bytes_per_s?;
        self.paused.get(&host).copied().filter(|until| *until > now)
    }

    /// The piece that `conn` was sent has left; whether it is to be woken for another one.
    pub(super) fn sent(&mut self, conn: Conn, host: IpAddr, now: Instant) -> bool {
        let flows = self.hosts.get_mut(&host).into_iter().flatten();
        let Some(flow) = flows.into_iter().find(|flow| flow.conn == conn) else { return false };
        (flow.last, flow.sending) = (now, false);
        std::mem::take(&mut flow.again)
    }

    /// `conn` does not wait any longer. What is on its way to it goes on.
    pub(super) fn cancel(&mut self, conn: Conn, host: IpAddr) {
        self.waiting.remove(conn);
        for flow in self.hosts.get_mut(&host).into_iter().flatten() {
            flow.again &= flow.conn != conn;
        }
    }

    /// Nothing is on its way to `conn`, and it wants nothing more.
    pub(super) fn ended(&mut self, conn: Conn, host: IpAddr) {
        self.waiting.remove(conn);
        if let Some(flows) = self.hosts.get_mut(&host) {
            flows.retain(|flow| flow.conn != conn);
            if flows.is_empty() {
                self.hosts.remove(&host);
            }
        }
    }

    /// Who may go on, now that others were idle or a pause is over, and is to be woken; `share` says what a host may
    /// have.
    pub(super) fn tick(&mut self, share: impl Fn(IpAddr) -> Share, now: Instant) -> Vec<Conn> {
        let mut woken = Vec::new();
        if self.look_at.is_none_or(|at| now < at) {
            return woken;
        }
        let Flows { hosts, paused, waiting, look_at } = self;
        paused.retain(|_, until| *until > now);
        hosts.retain(|host, flows| {
            flows.retain(|flow| flow.is_busy(now));
            !flows.is_empty() || waiting.waiting_of(*host) > 0
        });
        let has_place = |hosts: &HashMap<IpAddr, Vec<Flow>>, host: IpAddr| {
            let share = share(host);
            let pauses = share.bytes_per_s.is_some() && paused.contains_key(&host);
            !pauses && share.has_place(hosts.get(&host).into_iter().flatten(), now)
        };
        while let Some((conn, host)) = waiting.pop_of(|host| has_place(hosts, host)) {
            hosts.entry(host).or_default().push(Flow::new(conn, now));
            woken.push(conn);
        }
        let over = paused.values().copied().min();
        let look = over.map_or(now + LOOK_EVERY, |over| over.min(now + LOOK_EVERY));
        *look_at = (!waiting.is_empty()).then_some(look);
        woken
    }

    /// When [`Flows::tick`] has something to do, if it ever has.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server {
        flows: Flows,
        now: Instant,
    }

    impl Server {
        fn new() -> Server {
            Server { flows: Flows::default(), now: Instant::now() }
        }

        /// All of them are of the same host.
        fn ask(&mut self, conn: u64, shared: bool) -> bool {
            self.flows.ask(Conn(conn), host(1), 1, share(shared), self.now)
        }

        fn sent(&mut self, conn: u64) -> bool {
            self.flows.sent(Conn(conn), host(1), self.now)
        }

        fn woken_after(&mut self, time: Duration) -> Vec<u64> {
            self.now += time;
            self.flows.tick(|_| share(true), self.now).into_iter().map(|conn| conn.0).collect()
        }
    }

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn share(shared: bool) -> Share {
        Share { alone: !shared, bytes_per_s: None }
    }

    #[test]
    fn where_others_want_something_one_connection_of_a_host_is_sent_files() {
        let mut server = Server::new();
        assert!(server.ask(1, true) && !server.ask(2, true));
        assert!(server.flows.ask(Conn(9), host(2), 1, share(true), server.now));
    }

    #[test]
    fn one_connection_is_sent_one_piece_at_a_time() {
        let mut server = Server::new();
        assert!(server.ask(1, true) && !server.ask(1, true));
        assert!(server.sent(1), "it wants another one");
        assert!(server.ask(1, true) && !server.sent(1));
    }

    #[test]
    fn a_request_that_is_given_up_does_not_free_the_place_of_what_is_on_its_way() {
        let mut server = Server::new();
        server.ask(1, true);
        server.ask(1, true);
        server.flows.cancel(Conn(1), host(1));
        assert!(!server.ask(2, true) && !server.sent(1));
        server.flows.ended(Conn(1), host(1));
        assert_eq!(server.woken_after(IDLE), [2]);
    }

    #[test]
    fn beside_nodes_a_host_has_its_share_however_many_connections_it_has() {
        let mut server = Server::new();
        let share = Share { alone: false, bytes_per_s: Some(1_000_000) };
        let (mut pieces, began) = (0, server.now);
        while server.now < began + Duration::from_secs(1) {
            for n in 0..4 {
                let may = server.flows.ask(Conn(n), host(1), 10_000, share, server.now);
                if may {
                    server.sent(n);
                }
                pieces += u32::from(may);
            }
            server.now += Duration::from_millis(1);
            server.flows.tick(|_| share, server.now);
        }
        assert!((95..=101).contains(&pieces), "{pieces} of 10 KB");
    }

    #[test]
    fn beside_slow_nodes_a_host_is_sent_something_all_the_same() {
        let mut server = Server::new();
        let share = Share { alone: false, bytes_per_s: Some(0) };
        assert!(server.flows.ask(Conn(1), host(1), PAUSE_BYTES, share, server.now));
        server.sent(1);
        assert!(!server.flows.ask(Conn(1), host(1), PAUSE_BYTES, share, server.now));
        server.now += LONGEST_PAUSE;
        assert_eq!(server.flows.tick(|_| share, server.now), [Conn(1)]);
        assert!(server.flows.ask(Conn(1), host(1), PAUSE_BYTES, share, server.now));
    }

    #[test]
    fn a_connection_that_takes_nothing_does_not_keep_others_of_its_host_waiting() {
        let mut server = Server::new();
        server.ask(1, true);
        server.ask(2, true);
        assert_eq!(server.woken_after(SLOW), [2]);
        assert!(server.ask(2, true));
    }

    #[test]
    fn a_host_that_is_alone_uses_several() {
        let mut server = Server::new();
        assert_eq!((0..1000).filter(|n| server.ask(*n, false)).count(), MAX_FLOWS);
        server.sent(0);
        server.sent(7);
        assert!(!server.ask(7, true), "until others come");
        assert!(server.ask(0, true));
    }

    #[test]
    fn a_host_that_is_alone_has_little_on_its_way_when_others_come() {
        let mut server = Server::new();
        let mut ask = |n| server.flows.ask(Conn(n), host(1), 1 << 20, share(false), server.now);
        assert_eq!((0..1000).filter(|n| ask(*n)).count(), 2);
    }

    #[test]
    fn all_connections_of_a_host_have_their_turn() {
        let mut server = Server::new();
        for n in 1..=3 {
            server.ask(n, true);
        }
        let (mut next, mut seen) = (1, Vec::new());
        for _ in 0..6 {
            seen.push(next);
            server.now += TURN;
            server.sent(next);
            assert!(!server.ask(next, true), "it has been sent something for long");
            next = server.woken_after(LOOK_EVERY)[0];
            assert!(server.ask(next, true));
        }
        assert_eq!(seen, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn one_that_asks_for_nothing_gives_way_and_one_that_takes_its_piece_slowly_does_not() {
        let mut server = Server::new();
        server.ask(1, true);
        server.ask(2, true);
        assert!(server.woken_after(IDLE).is_empty());
        server.sent(1);
        assert!(server.woken_after(LOOK_EVERY).is_empty());
        assert_eq!(server.woken_after(IDLE), [2]);
        assert!(server.ask(2, true));
    }
}
