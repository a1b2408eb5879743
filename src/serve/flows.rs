//! How many connections of a host are sent files at a time, by 9P or HTTP; the chunks of the image have
//! [`super::uploads`].
//!
//! A link is shared by connections. So that it is shared by hosts, only one connection of each is sent something at a
//! time where others want something as well, and the others of that host wait. A host that is alone may use several.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::fair::FairQueue;
use crate::conn::Conn;
use crate::limits::MAX_FLOWS;

/// Who has asked for nothing for so long gives way to another connection of its host.
const IDLE: Duration = Duration::from_millis(100);
/// How often those that wait are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Who was sent something for so long does, too.
const TURN: Duration = Duration::from_millis(200);
/// A piece that is on its way for so long leaves the link to others, and does not count.
const SLOW: Duration = Duration::from_secs(1);

/// The connections that are sent files.
#[derive(Debug, Default)]
pub(super) struct Flows {
    hosts: HashMap<IpAddr, Vec<Flow>>,
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
    /// Another one is wanted.
    again: bool,
}

impl Flow {
    fn new(conn: Conn, sending: bool, now: Instant) -> Flow {
        Flow { conn, since: now, last: now, sending, again: false }
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
    /// May `conn` be sent a piece of a file? One at a time; if not, it waits. `shared` says that other hosts are sent
    /// something.
    pub(super) fn ask(&mut self, conn: Conn, host: IpAddr, shared: bool, now: Instant) -> bool {
        let waits = self.waiting.waiting_of(host) > 0;
        let flows = self.hosts.entry(host).or_default();
        flows.retain(|flow| flow.conn == conn || flow.is_busy(now));
        let most = most_flows(shared);
        let earlier = flows.iter().take_while(|flow| flow.conn != conn);
        let earlier = earlier.filter(|flow| flow.counts(now)).count();
        let own = flows.iter().position(|flow| flow.conn == conn);
        if let Some(own) = own
            && let Some(flow) = flows.get_mut(own)
        {
            if flow.sending {
                flow.again = true;
                return false;
            }
            if earlier < most && !(waits && now.saturating_duration_since(flow.since) >= TURN) {
                (flow.last, flow.sending) = (now, true);
                return true;
            }
            flows.remove(own);
        } else if !waits && earlier < most {
            flows.push(Flow::new(conn, true, now));
            return true;
        }
        self.waiting.push(conn, host);
        self.look_at.get_or_insert(now + LOOK_EVERY);
        false
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

    /// Who may go on in the place of those who were idle, and is to be woken; `shared` says of a host whether others
    /// are sent something.
    pub(super) fn tick(&mut self, shared: impl Fn(IpAddr) -> bool, now: Instant) -> Vec<Conn> {
        let Flows { hosts, waiting, look_at } = self;
        let mut woken = Vec::new();
        if look_at.is_none_or(|at| now < at) {
            return woken;
        }
        hosts.retain(|host, flows| {
            flows.retain(|flow| flow.is_busy(now));
            !flows.is_empty() || waiting.waiting_of(*host) > 0
        });
        let has_place = |hosts: &HashMap<IpAddr, Vec<Flow>>, host: IpAddr| {
            let flows = hosts.get(&host).into_iter().flatten();
            flows.filter(|flow| flow.counts(now)).count() < most_flows(shared(host))
        };
        while let Some((conn, host)) = waiting.pop_of(|host| has_place(hosts, host)) {
            hosts.entry(host).or_default().push(Flow::new(conn, false, now));
            woken.push(conn);
        }
        *look_at = (!waiting.is_empty()).then(|| now + LOOK_EVERY);
        woken
    }

    /// When [`Flows::tick`] has something to do, if it ever has.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }
}

fn most_flows(shared: bool) -> usize {
    if shared { 1 } else { MAX_FLOWS }
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
            self.flows.ask(Conn(conn), host(1), shared, self.now)
        }

        fn sent(&mut self, conn: u64) -> bool {
            self.flows.sent(Conn(conn), host(1), self.now)
        }

        fn woken_after(&mut self, time: Duration) -> Vec<u64> {
            self.now += time;
            self.flows.tick(|_| true, self.now).into_iter().map(|conn| conn.0).collect()
        }
    }

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn where_others_want_something_one_connection_of_a_host_is_sent_files() {
        let mut server = Server::new();
        assert!(server.ask(1, true) && !server.ask(2, true));
        assert!(server.flows.ask(Conn(9), host(2), true, server.now));
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
