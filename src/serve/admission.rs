//! Which connections are taken, and which have to end: connections in all, fairness between hosts, and time
//! limits for those that keep a server waiting.
//!
//! A connection may be silent between two requests for as long as it likes, as a kernel's mount is for days: dead
//! peers are found by TCP's keepalive. But one that says nothing at first, leaves a message unfinished, or reads
//! none of its replies, is closed after a while. Where all places are taken, a new connection displaces one of the
//! host that has most of them, so that no host can shut out the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::conn::Conn;
use crate::limits::{GREETING, MESSAGE, REQUEST, TAKING};
use crate::network::host;

/// How often the connections that keep the server waiting are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What a connection keeps the server waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The first 9P message.
    Greeting,
    /// The rest of a message.
    Message,
    /// That it reads its replies.
    Taking,
    /// An HTTP request.
    Request,
}

impl Wait {
    /// How long it may last.
    fn limit(self) -> Duration {
        match self {
            Wait::Greeting => GREETING,
            Wait::Message => MESSAGE,
            Wait::Taking => TAKING,
            Wait::Request => REQUEST,
        }
    }
}

/// Why a connection is not taken, or is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No allowed network contains its address.
    NotAllowed,
    /// All places are taken, and its host has as many as any other.
    Full,
    /// Another host gets its place.
    Displaced,
    /// It has kept the server waiting.
    Overdue(Wait),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotAllowed => {
                write!(f, "refused: its address is not in any network of --allow")
            }
            Refusal::Full => write!(f, "refused: too many connections"),
            Refusal::Displaced => {
                write!(f, "closed: too many connections, and this host has the most")
            }
            Refusal::Overdue(wait) => {
                let secs = wait.limit().as_secs();
                match wait {
                    Wait::Greeting => write!(f, "closed: sent no 9P message for {secs} s"),
                    Wait::Message => write!(f, "closed: sent only part of a message for {secs} s"),
                    Wait::Taking => write!(f, "closed: read none of its replies for {secs} s"),
                    Wait::Request => {
                        write!(f, "closed: sent no complete HTTP request for {secs} s")
                    }
                }
            }
        }
    }
}

/// The networks whose hosts may connect; if there are none, all may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(pub Vec<IpNet>);

impl Allowed {
    pub(crate) fn allows(&self, ip: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&ip))
    }
}

#[derive(Debug)]
struct Client {
    host: IpAddr,
    /// When it last did something, give or take [`CHECK_EVERY`].
    active: Instant,
}

/// The places for connections, and who has them.
#[derive(Debug)]
pub struct Admission {
    most: usize,
    allowed: Allowed,
    clients: HashMap<Conn, Client>,
    /// The connections of each host, the one that has been inactive longest first.
    hosts: HashMap<IpAddr, BTreeSet<(Instant, Conn)>>,
    /// How many connections each host has, in order.
    counts: BTreeSet<(usize, IpAddr)>,
    /// Those that keep the server waiting, how, and since when.
    waiting: BTreeMap<Conn, (Wait, Instant)>,
    next_check: Option<Instant>,
}

impl Admission {
    /// At most `most` connections at a time.
    pub fn new(most: usize, allowed: Allowed) -> Admission {
        Admission {
            most,
            allowed,
            clients: HashMap::new(),
            hosts: HashMap::new(),
            counts: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_check: None,
        }
    }

    /// Takes a new connection, or says why not. It may displace another, which is named and has to be closed.
    pub fn admit(&mut self, conn: Conn, ip: IpAddr, now: Instant) -> Result<Option<Conn>, Refusal> {
        let ip = ip.to_canonical();
        if !self.allowed.allows(ip) {
            return Err(Refusal::NotAllowed);
        }
        let host = host(ip);
        let displaced = if self.clients.len() < self.most {
            None
        } else {
            Some(self.displaced_by(host).ok_or(Refusal::Full)?)
        };
        if let Some(conn) = displaced {
            self.release(conn);
        }
        self.change(host, |its| _ = its.insert((now, conn)));
        self.clients.insert(conn, Client { host, active: now });
        self.observe(conn, true, Some(Wait::Greeting), now);
        Ok(displaced)
    }

    /// What a connection keeps the server waiting for; `active` if it has done something since.
    pub fn observe(&mut self, conn: Conn, active: bool, waits: Option<Wait>, now: Instant) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if active && now.saturating_duration_since(client.active) >= CHECK_EVERY {
            let before = std::mem::replace(&mut client.active, now);
            if let Some(its) = self.hosts.get_mut(&client.host) {
                its.remove(&(before, conn));
                its.insert((now, conn));
            }
        }
        match (waits, self.waiting.get(&conn)) {
            (None, _) => _ = self.waiting.remove(&conn),
            (Some(wait), Some((same, _))) if wait == *same && !active => {}
            (Some(wait), _) => {
                self.waiting.insert(conn, (wait, now));
                self.next_check.get_or_insert(now + CHECK_EVERY);
            }
        }
    }

    /// A connection has ended.
    pub fn release(&mut self, conn: Conn) {
        self.waiting.remove(&conn);
        let Some(Client { host, active }) = self.clients.remove(&conn) else { return };
        self.change(host, |its| _ = its.remove(&(active, conn)));
    }

    fn change(&mut self, host: IpAddr, change: impl FnOnce(&mut BTreeSet<(Instant, Conn)>)) {
        let its = self.hosts.entry(host).or_default();
        self.counts.remove(&(its.len(), host));
        change(its);
        if its.is_empty() {
            self.hosts.remove(&host);
        } else {
            self.counts.insert((its.len(), host));
        }
    }

    /// The connections that have kept the server waiting for too long: each has to be closed now.
    pub fn overdue(&mut self, now: Instant) -> Vec<(Conn, Wait)> {
        if self.next_check.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let is_overdue =
            |wait: Wait, since: Instant| now.saturating_duration_since(since) >= wait.limit();
        let overdue: Vec<(Conn, Wait)> = self
            .waiting
            .iter()
            .filter(|(_, (wait, since))| is_overdue(*wait, *since))
            .map(|(&conn, &(wait, _))| (conn, wait))
            .collect();
        for &(conn, _) in &overdue {
            self.release(conn);
        }
        self.next_check = (!self.waiting.is_empty()).then(|| now + CHECK_EVERY);
        overdue
    }

    /// The connections of a host.
    pub fn connections_of(&self, host: IpAddr) -> impl Iterator<Item = Conn> + '_ {
        self.hosts.get(&host).into_iter().flatten().map(|(_, conn)| *conn)
    }

    /// When to ask [`Admission::overdue`] next; None while nobody keeps the server waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_check
    }

    /// Of the host with the most places, if it has more than the newcomer's would have, the connection
    /// that has been inactive for the longest time.
    fn displaced_by(&self, newcomer: IpAddr) -> Option<Conn> {
        let (most, host) = self.counts.last()?;
        let own = self.hosts.get(&newcomer).map_or(0, BTreeSet::len);
        if *most <= own + 1 {
            return None;
        }
        self.hosts.get(host)?.first().map(|(_, conn)| *conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Connections 1, 2, ... from these hosts, a second apart.
    fn admission(most: usize, hosts: &[u8]) -> (Admission, Instant) {
        let mut admission = Admission::new(most, Allowed::default());
        let mut now = Instant::now();
        for (conn, &host) in (1..).zip(hosts) {
            admission.admit(Conn(conn), ip(host), now).unwrap();
            admission.observe(Conn(conn), true, None, now);
            now += Duration::from_secs(1);
        }
        (admission, now)
    }

    #[test]
    fn only_hosts_of_an_allowed_network_are_admitted() {
        let networks = ["10.0.0.0/30", "fd00::/64"].map(|network| network.parse().unwrap());
        let mut admission = Admission::new(9, Allowed(networks.to_vec()));
        let now = Instant::now();
        assert_eq!(admission.admit(Conn(1), ip(3), now), Ok(None));
        assert_eq!(admission.admit(Conn(2), ip(4), now), Err(Refusal::NotAllowed));
        assert_eq!(admission.admit(Conn(3), "fd00::7".parse().unwrap(), now), Ok(None));
        // As an IPv6 socket tells of an IPv4 peer.
        assert_eq!(admission.admit(Conn(4), "::ffff:10.0.0.1".parse().unwrap(), now), Ok(None));
    }

    #[test]
    fn one_host_alone_may_take_all_places_but_no_more() {
        let (mut admission, now) = admission(3, &[1, 1, 1]);
        assert_eq!(admission.admit(Conn(4), ip(1), now), Err(Refusal::Full));
    }

    #[test]
    fn a_new_connection_displaces_one_of_the_host_that_has_most() {
        let (mut admission, now) = admission(4, &[2, 1, 1, 1]);
        admission.observe(Conn(2), true, None, now);
        // Of host 1 the one that was silent for the longest time.
        assert_eq!(admission.admit(Conn(5), ip(3), now), Ok(Some(Conn(3))));
    }

    #[test]
    fn hosts_with_equally_many_connections_keep_them() {
        let (mut admission, now) = admission(4, &[1, 1, 2, 2]);
        assert_eq!(admission.admit(Conn(5), ip(1), now), Err(Refusal::Full));
        // A new host gets its first, for another's second.
        assert!(admission.admit(Conn(6), ip(3), now).unwrap().is_some());
        assert_eq!(admission.admit(Conn(7), ip(3), now), Err(Refusal::Full));
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_host() {
        let mut admission = Admission::new(2, Allowed::default());
        let now = Instant::now();
        for (conn, text) in [(1, "fd00::1"), (2, "fd00::2")] {
            assert_eq!(admission.admit(Conn(conn), text.parse().unwrap(), now), Ok(None));
        }
        assert_eq!(admission.admit(Conn(3), "fd00::3".parse().unwrap(), now), Err(Refusal::Full));
        assert!(admission.admit(Conn(4), "fd00:1::1".parse().unwrap(), now).unwrap().is_some());
    }

    #[test]
    fn a_place_is_free_when_its_connection_has_ended() {
        let (mut admission, now) = admission(1, &[1]);
        admission.release(Conn(1));
        assert_eq!(admission.admit(Conn(2), ip(1), now), Ok(None));
    }

    #[test]
    fn a_connection_without_a_first_message_is_overdue() {
        let mut admission = Admission::new(9, Allowed::default());
        let now = Instant::now();
        admission.admit(Conn(1), ip(1), now).unwrap();
        assert!(admission.overdue(now + GREETING - Duration::from_millis(1)).is_empty());
        assert_eq!(admission.overdue(now + 2 * GREETING), [(Conn(1), Wait::Greeting)]);
    }

    #[test]
    fn a_connection_that_trickles_a_message_is_overdue() {
        let (mut admission, mut now) = admission(9, &[1]);
        let until = now + MESSAGE + 2 * CHECK_EVERY;
        let mut late = Vec::new();
        while late.is_empty() && now < until {
            // A byte came; no message has become whole.
            admission.observe(Conn(1), false, Some(Wait::Message), now);
            now += Duration::from_secs(1);
            late = admission.overdue(now);
        }
        assert_eq!(late, [(Conn(1), Wait::Message)]);
    }

    #[test]
    fn a_connection_that_reads_slowly_is_not_overdue() {
        let (mut admission, mut now) = admission(9, &[1]);
        for _ in 0..10 {
            admission.observe(Conn(1), true, Some(Wait::Taking), now);
            now += TAKING / 2;
            assert!(admission.overdue(now).is_empty());
        }
        assert_eq!(admission.overdue(now + TAKING), [(Conn(1), Wait::Taking)]);
    }

    #[test]
    fn a_connection_that_is_silent_between_requests_is_never_overdue() {
        let (mut admission, now) = admission(9, &[1]);
        let day = Duration::from_secs(86_400);
        assert!(admission.overdue(now + day).is_empty());
        assert_eq!(admission.deadline(), None);
        assert!(admission.overdue(now + 2 * day).is_empty());
    }
}
