//! Who may come in, and who has to leave: connections in all, fairness between hosts, and patience with
//! those who keep a server waiting.
//!
//! Pure: it is told who knocks and what connections do, and says what to do. The master and the node
//! serve through the same door.
//!
//! Silence is no offence, as a kernel's mount may be silent for days: dead peers are found by TCP's
//! keepalive. But who says nothing at first, leaves a message unfinished, or takes nothing of what it
//! has asked for, has to leave after a while. Where all places are taken, a newcomer gets one of the
//! host that has most of them, so that no host can shut out the others.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::{GREETING, MESSAGE, REQUEST, TAKING};
use crate::network::IpNetwork;
use crate::serve::session::{Conn, Wait};

/// How often those who keep the server waiting are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it may last.
fn patience(wait: Wait) -> Duration {
    match wait {
        Wait::Greeting => GREETING,
        Wait::Message => MESSAGE,
        Wait::Taking => TAKING,
        Wait::Request => REQUEST,
    }
}

/// Why a connection is ended, or not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No network that is allowed has its address.
    NotAllowed,
    /// All places are taken, and its host has as many as any other.
    Full,
    /// Its place is another host's turn.
    GivesWay,
    /// It has kept the server waiting.
    Late(Wait),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotAllowed => {
                write!(f, "refused: its address is not in any network of --allow")
            }
            Refusal::Full => write!(f, "refused: too many connections"),
            Refusal::GivesWay => {
                write!(f, "closed: too many connections, and this host has the most")
            }
            Refusal::Late(wait) => {
                let secs = patience(*wait).as_secs();
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

impl std::error::Error for Refusal {}

/// The networks whose hosts may connect; without any, all may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(pub Vec<IpNetwork>);

impl Allowed {
    fn allows(&self, ip: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|network| network.contains(ip))
    }
}

#[derive(Debug)]
struct Guest {
    host: IpAddr,
    /// When it last did something.
    active: Instant,
}

/// The connections that there are.
#[derive(Debug)]
pub struct Door {
    most: usize,
    allowed: Allowed,
    guests: BTreeMap<Conn, Guest>,
    /// How many of the guests each host has.
    hosts: HashMap<IpAddr, usize>,
    /// Who keeps the server waiting, how, and since when.
    waiting: BTreeMap<Conn, (Wait, Instant)>,
    /// Who is no guest any more, though the connection has not ended yet.
    dismissed: BTreeMap<Conn, Refusal>,
    next_look: Option<Instant>,
}

impl Door {
    /// At most `most` connections at a time.
    pub fn new(most: usize, allowed: Allowed) -> Door {
        Door {
            most,
            allowed,
            guests: BTreeMap::new(),
            hosts: HashMap::new(),
            waiting: BTreeMap::new(),
            dismissed: BTreeMap::new(),
            next_look: None,
        }
    }

    /// Somebody knocks. Who is let in may take the place of another, who is named then and has to
    /// leave ([`Door::refusal`] says why).
    pub fn knock(&mut self, conn: Conn, ip: IpAddr, now: Instant) -> Result<Option<Conn>, Refusal> {
        let ip = ip.to_canonical();
        if !self.allowed.allows(ip) {
            return Err(Refusal::NotAllowed);
        }
        let host = host_of(ip);
        let gives_way = match self.guests.len() < self.most {
            true => None,
            false => Some(self.who_gives_way(host).ok_or(Refusal::Full)?),
        };
        gives_way.into_iter().for_each(|conn| self.dismiss(conn, Refusal::GivesWay));
        *self.hosts.entry(host).or_default() += 1;
        self.guests.insert(conn, Guest { host, active: now });
        self.observe(conn, true, Some(Wait::Greeting), now);
        Ok(gives_way)
    }

    /// A connection has done something, if it is `active`, and keeps the server waiting like this.
    pub fn observe(&mut self, conn: Conn, active: bool, waits: Option<Wait>, now: Instant) {
        let Some(guest) = self.guests.get_mut(&conn) else { return };
        if active {
            guest.active = now;
        }
        match (waits, self.waiting.get(&conn)) {
            (None, _) => _ = self.waiting.remove(&conn),
            (Some(wait), Some((same, _))) if wait == *same && !active => {}
            (Some(wait), _) => {
                self.waiting.insert(conn, (wait, now));
                self.next_look.get_or_insert(now + LOOK_EVERY);
            }
        }
    }

    /// A connection has ended.
    pub fn left(&mut self, conn: Conn) {
        self.waiting.remove(&conn);
        self.dismissed.remove(&conn);
        let Some(Guest { host, .. }) = self.guests.remove(&conn) else { return };
        if let Some(count) = self.hosts.get_mut(&host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.hosts.remove(&host);
            }
        }
    }

    /// Why a connection has to end, if it has to.
    pub fn refusal(&self, conn: Conn) -> Option<Refusal> {
        self.dismissed.get(&conn).copied()
    }

    /// Who has kept the server waiting for too long, and has to leave now.
    pub fn late(&mut self, now: Instant) -> Vec<Conn> {
        if self.next_look.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let late: Vec<(Conn, Wait)> = self
            .waiting
            .iter()
            .filter(|(_, (wait, since))| now.saturating_duration_since(*since) >= patience(*wait))
            .map(|(&conn, &(wait, _))| (conn, wait))
            .collect();
        for &(conn, wait) in &late {
            self.dismiss(conn, Refusal::Late(wait));
        }
        self.next_look = (!self.waiting.is_empty()).then(|| now + LOOK_EVERY);
        late.into_iter().map(|(conn, _)| conn).collect()
    }

    /// When to ask [`Door::late`] next; None while nobody keeps the server waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Of the host with the most places, if it has more than the newcomer's would have, the guest
    /// that has been silent for the longest time.
    fn who_gives_way(&self, newcomer: IpAddr) -> Option<Conn> {
        let (host, most) = self.hosts.iter().max_by_key(|&(host, count)| (count, host))?;
        let own = self.hosts.get(&newcomer).copied().unwrap_or(0);
        if *most <= own + 1 {
            return None;
        }
        let its = self.guests.iter().filter(|(_, guest)| guest.host == *host);
        its.min_by_key(|(conn, guest)| (guest.active, **conn)).map(|(conn, _)| *conn)
    }

    fn dismiss(&mut self, conn: Conn, refusal: Refusal) {
        self.left(conn);
        self.dismissed.insert(conn, refusal);
    }
}

/// What counts as one host: an IPv6 host has all addresses of a /64 to choose from.
fn host_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// A door with connections 1, 2, ... from these hosts, a second apart.
    fn door(most: usize, hosts: &[u8]) -> (Door, Instant) {
        let mut door = Door::new(most, Allowed::default());
        let mut now = Instant::now();
        for (conn, &host) in (1..).zip(hosts) {
            door.knock(Conn(conn), ip(host), now).unwrap();
            door.observe(Conn(conn), true, None, now);
            now += Duration::from_secs(1);
        }
        (door, now)
    }

    #[test]
    fn only_hosts_of_an_allowed_network_come_in() {
        let networks = ["10.0.0.0/30", "fd00::/64"].map(|network| network.parse().unwrap());
        let mut door = Door::new(9, Allowed(networks.to_vec()));
        let now = Instant::now();
        assert_eq!(door.knock(Conn(1), ip(3), now), Ok(None));
        assert_eq!(door.knock(Conn(2), ip(4), now), Err(Refusal::NotAllowed));
        assert_eq!(door.knock(Conn(3), "fd00::7".parse().unwrap(), now), Ok(None));
        // As an IPv6 socket tells of an IPv4 peer.
        assert_eq!(door.knock(Conn(4), "::ffff:10.0.0.1".parse().unwrap(), now), Ok(None));
    }

    #[test]
    fn one_host_alone_may_take_all_places_but_no_more() {
        let (mut door, now) = door(3, &[1, 1, 1]);
        assert_eq!(door.knock(Conn(4), ip(1), now), Err(Refusal::Full));
    }

    #[test]
    fn a_newcomer_gets_a_place_of_the_host_that_has_most_of_them() {
        let (mut door, now) = door(4, &[2, 1, 1, 1]);
        door.observe(Conn(2), true, None, now);
        // Of host 1 the one that was silent for the longest time.
        assert_eq!(door.knock(Conn(5), ip(3), now), Ok(Some(Conn(3))));
        assert_eq!(door.refusal(Conn(3)), Some(Refusal::GivesWay));
        assert_eq!(door.refusal(Conn(2)), None);
    }

    #[test]
    fn hosts_that_have_as_many_places_keep_them() {
        let (mut door, now) = door(4, &[1, 1, 2, 2]);
        assert_eq!(door.knock(Conn(5), ip(1), now), Err(Refusal::Full));
        // A new host gets its first, for another's second.
        assert!(door.knock(Conn(6), ip(3), now).unwrap().is_some());
        assert_eq!(door.knock(Conn(7), ip(3), now), Err(Refusal::Full));
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_host() {
        let mut door = Door::new(2, Allowed::default());
        let now = Instant::now();
        for (conn, text) in [(1, "fd00::1"), (2, "fd00::2")] {
            assert_eq!(door.knock(Conn(conn), text.parse().unwrap(), now), Ok(None));
        }
        assert_eq!(door.knock(Conn(3), "fd00::3".parse().unwrap(), now), Err(Refusal::Full));
        assert!(door.knock(Conn(4), "fd00:1::1".parse().unwrap(), now).unwrap().is_some());
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let (mut door, now) = door(1, &[1]);
        door.left(Conn(1));
        assert_eq!(door.knock(Conn(2), ip(1), now), Ok(None));
    }

    #[test]
    fn who_does_not_greet_has_to_leave() {
        let mut door = Door::new(9, Allowed::default());
        let now = Instant::now();
        door.knock(Conn(1), ip(1), now).unwrap();
        assert!(door.late(now + GREETING - Duration::from_millis(1)).is_empty());
        assert_eq!(door.late(now + 2 * GREETING), [Conn(1)]);
        assert_eq!(door.refusal(Conn(1)), Some(Refusal::Late(Wait::Greeting)));
    }

    #[test]
    fn who_trickles_a_message_has_to_leave() {
        let (mut door, mut now) = door(9, &[1]);
        let until = now + MESSAGE + 2 * LOOK_EVERY;
        let mut late = Vec::new();
        while late.is_empty() && now < until {
            // A byte came; no message has become whole.
            door.observe(Conn(1), false, Some(Wait::Message), now);
            now += Duration::from_secs(1);
            late = door.late(now);
        }
        assert_eq!(late, [Conn(1)]);
    }

    #[test]
    fn who_takes_what_is_sent_stays_however_long_it_takes() {
        let (mut door, mut now) = door(9, &[1]);
        for _ in 0..10 {
            door.observe(Conn(1), true, Some(Wait::Taking), now);
            now += TAKING / 2;
            assert!(door.late(now).is_empty());
        }
        assert_eq!(door.late(now + TAKING), [Conn(1)]);
    }

    #[test]
    fn who_is_silent_in_between_stays_and_nobody_wakes_up_for_that() {
        let (mut door, now) = door(9, &[1]);
        let day = Duration::from_secs(86_400);
        assert!(door.late(now + day).is_empty());
        assert_eq!(door.deadline(), None);
        assert!(door.late(now + 2 * day).is_empty());
    }
}
