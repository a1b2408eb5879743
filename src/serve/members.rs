//! The connections that take part in the swarm: where they serve, what they hold, and which of them are
//! named as sources to others.

#[cfg(feature = "classic")]
mod whole;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use super::departed::Departed;
use crate::conn::Conn;
use crate::image::chunks::{ChunkId, ChunkSet, Layout};
use crate::network::{Subnet, host, subnet};
use crate::random::next_random;
use crate::swarm::meter::Meter;
use crate::swarm::ring::{Position, position_of};
use crate::swarm::rules::Rules;

/// A connection that takes part.
#[derive(Debug)]
pub(crate) struct Member {
    /// The other side's address on this connection.
    pub(crate) peer: SocketAddr,
    /// Where it serves others; None until it has joined, and again when it has left.
    pub(crate) serves: Option<SocketAddr>,
    /// Chunks that it said it wants and does not have.
    pub(crate) lacks: ChunkSet,
    /// Chunks that it said it has.
    pub(crate) held: ChunkSet,
    /// When it came.
    pub(crate) since: Instant,
    /// When `held` last grew.
    pub(crate) progress: Instant,
    /// Image bytes sent to it from here.
    pub(crate) sent_bytes: u64,
    /// How fast `held` grows, in bytes.
    pub(crate) income: Meter,
    /// What it says of its own sending.
    pub(crate) passes_on: PassesOn,
    /// Where it stands among those who serve.
    turn: Option<Turn>,
}

/// What a node says of what it sends, and of whom it fetches from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassesOn {
    /// Image bytes that it has sent to others.
    pub(crate) bytes: u64,
    /// How fast that grows.
    pub(crate) rate: Meter,
    /// How many it fetches from, this server included.
    pub(crate) sources: u32,
}

/// How often somebody was named to others, which is its load as far as is known here, and a random
/// number that decides among equals.
type Turn = (u32, u64, Conn);

impl Member {
    /// Whether news of these chunks are of use to it: it lacks one, or does not say what it lacks.
    pub(crate) fn lacks_any(&self, chunks: &[ChunkId]) -> bool {
        let silent = self.lacks.is_empty() && self.held.is_empty();
        silent || chunks.iter().any(|chunk| self.lacks.contains(*chunk))
    }
}

/// All connections that take part, by number.
#[derive(Debug)]
pub(crate) struct Members {
    rules: Rules,
    layout: Layout,
    members: BTreeMap<Conn, Member>,
    /// Those who serve, the least named first.
    turns: BTreeSet<Turn>,
    /// The same for each subnet, so that nobody has to look for those near to it.
    near: BTreeMap<Subnet, BTreeSet<Turn>>,
    /// How many serve on each host.
    hosts: HashMap<IpAddr, u32>,
    /// Those who serve by their places on the ring of their subnet.
    rings: BTreeMap<Subnet, BTreeMap<Position, Conn>>,
    /// Nodes that departed before they were whole.
    departed: Departed,
    /// Image bytes that came to nodes while they were connected, as they say.
    received_bytes: u64,
    /// State of the random choice among equals.
    random: u64,
}

impl Members {
    /// Nobody yet; `seed` drives the random choice among equals.
    pub(crate) fn new(layout: Layout, rules: Rules, seed: u64) -> Members {
        Members {
            rules,
            layout,
            members: BTreeMap::new(),
            turns: BTreeSet::new(),
            near: BTreeMap::new(),
            hosts: HashMap::new(),
            rings: BTreeMap::new(),
            departed: Departed::default(),
            received_bytes: 0,
            random: seed | 1,
        }
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self, conn: Conn, peer: SocketAddr, now: Instant) {
        let member = Member {
            peer,
            serves: None,
            lacks: ChunkSet::default(),
            held: ChunkSet::default(),
            since: now,
            progress: now,
            sent_bytes: 0,
            income: Meter::default(),
            passes_on: PassesOn::default(),
            turn: None,
        };
        self.members.insert(conn, member);
    }

    /// A connection ended; what was known of it.
    pub(crate) fn disconnected(&mut self, conn: Conn, now: Instant) -> Option<Member> {
        self.left(conn, now);
        self.members.remove(&conn)
    }

    /// It serves on `port` of the address that it called from.
    pub(crate) fn joined(&mut self, conn: Conn, port: u16) -> Option<SocketAddr> {
        self.step_down(conn);
        let member = self.members.get_mut(&conn)?;
        let address = SocketAddr::new(member.peer.ip(), port);
        member.serves = Some(address);
        let ring = self.rings.entry(subnet(address.ip())).or_default();
        ring.insert(position_of(address), conn);
        self.departed.is_back(address);
        // As often as the others, or everybody would be sent to those who have come last. Many on one host are named
        // by turns, together as often as one on another.
        let named = self.turns.first().map_or(0, |(named, ..)| *named);
        let on_host = self.hosts.entry(host(address.ip())).or_default();
        let named = named.saturating_add(*on_host);
        *on_host += 1;
        self.line_up(conn, named);
        Some(address)
    }

    /// The host that a connection is of.
    pub(crate) fn host(&self, conn: Conn) -> IpAddr {
        let unknown = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        self.members.get(&conn).map_or(unknown, |member| host(member.peer.ip()))
    }

    /// It does not serve any longer.
    pub(crate) fn left(&mut self, conn: Conn, now: Instant) {
        if let Some(served) = self.step_down(conn)
            && let Some(member) = self.members.get(&conn)
        {
            self.departed.add(served, member.held.len(), member.lacks.len(), now);
        }
    }

    /// Where it has served until now, unless it does so still by another connection.
    fn step_down(&mut self, conn: Conn) -> Option<SocketAddr> {
        self.step_out(conn);
        let address = self.members.get_mut(&conn)?.serves.take()?;
        if let Some(on_host) = self.hosts.get_mut(&host(address.ip())) {
            *on_host -= 1;
            if *on_host == 0 {
                self.hosts.remove(&host(address.ip()));
            }
        }
        let ring = self.rings.get_mut(&subnet(address.ip()))?;
        if *ring.get(&position_of(address))? != conn {
            return None;
        }
        ring.remove(&position_of(address));
        if ring.is_empty() {
            self.rings.remove(&subnet(address.ip()));
        }
        Some(address)
    }

    fn line_up(&mut self, conn: Conn, named: u32) {
        let turn = (named, next_random(&mut self.random), conn);
        if let Some(member) = self.members.get_mut(&conn) {
            member.turn = Some(turn);
            self.turns.insert(turn);
            self.near.entry(subnet(member.peer.ip())).or_default().insert(turn);
        }
    }

    fn step_out(&mut self, conn: Conn) -> Option<Turn> {
        let member = self.members.get_mut(&conn)?;
        let turn = member.turn.take()?;
        self.turns.remove(&turn);
        let subnet = subnet(member.peer.ip());
        let near = self.near.get_mut(&subnet)?;
        near.remove(&turn);
        if near.is_empty() {
            self.near.remove(&subnet);
        }
        Some(turn)
    }

    /// It wants these chunks as well, and has none of them.
    pub(crate) fn wants(&mut self, conn: Conn, chunks: impl Iterator<Item = ChunkId>) {
        let Some(member) = self.members.get_mut(&conn) else { return };
        if member.lacks == ChunkSet::default() {
            member.lacks = ChunkSet::empty(&self.layout);
        }
        for chunk in chunks.filter(|chunk| !member.held.contains(*chunk)) {
            member.lacks.insert(chunk);
        }
    }

    /// It has these chunks; returns those that are news.
    pub(crate) fn has(
        &mut self,
        conn: Conn,
        chunks: impl Iterator<Item = ChunkId>,
        now: Instant,
    ) -> Vec<ChunkId> {
        let Some(member) = self.members.get_mut(&conn) else { return Vec::new() };
        // What it reports first, before it asks for chunks, it had before it came: that is no income.
        let first = member.held == ChunkSet::default();
        if first {
            member.held = ChunkSet::empty(&self.layout);
        }
        let new: Vec<ChunkId> = chunks.filter(|chunk| member.held.insert(*chunk)).collect();
        for chunk in &new {
            member.lacks.remove(*chunk);
        }
        if !new.is_empty() {
            member.progress = now;
        }
        if !first {
            let bytes = |chunk: &ChunkId| {
                let range = self.layout.range(*chunk);
                range.end.saturating_sub(range.start)
            };
            let came = new.iter().map(bytes).sum();
            member.income.add(came, now);
            self.received_bytes = self.received_bytes.saturating_add(came);
        }
        new
    }

    /// It asks for chunks: what it reports from now on has come since it was connected.
    pub(crate) fn asks(&mut self, conn: Conn) {
        if let Some(member) = self.members.get_mut(&conn)
            && member.held == ChunkSet::default()
        {
            member.held = ChunkSet::empty(&self.layout);
        }
    }

    /// It has sent so many bytes to others so far, and fetches from so many.
    pub(crate) fn passes_on(&mut self, conn: Conn, bytes: u64, sources: u32, now: Instant) {
        let Some(member) = self.members.get_mut(&conn) else { return };
        let PassesOn { bytes: before, rate, sources: known } = &mut member.passes_on;
        // What it had sent before it came to this server is no rate.
        if *known > 0 {
            rate.add(bytes.saturating_sub(*before), now);
        }
        (*before, *known) = (bytes, sources);
    }

    /// What is known of a connection.
    pub(crate) fn get(&self, conn: Conn) -> Option<&Member> {
        self.members.get(&conn)
    }

    /// Image bytes were sent to it.
    pub(crate) fn sent(&mut self, conn: Conn, bytes: u64) {
        if let Some(member) = self.members.get_mut(&conn) {
            member.sent_bytes = member.sent_bytes.saturating_add(bytes);
        }
    }

    /// All of them, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Conn, &Member)> {
        self.members.iter().map(|(conn, member)| (*conn, member))
    }

    /// Image bytes that came to nodes while they were connected, from anybody. Never falls: a node that
    /// leaves takes nothing away.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Counts on from what came to nodes of the generation before.
    pub(crate) fn count_on(&mut self, before: &Members) {
        self.received_bytes = before.received_bytes;
    }

    /// How many left before they were whole, of those that are remembered.
    pub(crate) fn left_unfinished(&self) -> usize {
        self.departed.len()
    }

    /// How many serve others.
    pub(crate) fn serving(&self) -> usize {
        self.turns.len()
    }

    /// Whether fewer than `most` hosts have joined and still lack something, `conn`'s not counted, and fewer than
    /// `most` connections of that.
    pub(crate) fn has_place_for_fetcher(&self, conn: Conn, most: usize) -> bool {
        let fetches = |m: &&Member| m.serves.is_some() && !m.lacks.is_empty();
        let fetching = self.members.values().filter(fetches).map(|m| host(m.peer.ip()));
        let own = self.host(conn);
        let (same, others): (Vec<_>, Vec<_>) = fetching.partition(|host| *host == own);
        same.len() < most && others.into_iter().collect::<BTreeSet<_>>().len() < most
    }

    /// Lines of `status` about nodes that departed before they were whole.
    pub(crate) fn status_of_departed(&self, now: Instant) -> String {
        self.departed.status(now)
    }

    /// Who comes before `address` on the ring of its subnet.
    fn before(&self, address: SocketAddr) -> Option<SocketAddr> {
        let ring = self.rings.get(&subnet(address.ip()))?;
        let before =
            ring.range(..position_of(address)).next_back().or_else(|| ring.iter().next_back());
        let (_, conn) = before?;
        self.members.get(conn)?.serves.filter(|before| *before != address)
    }

    /// Sources for whoever asks on `conn`: the least named first, half of them near it, and the one
    /// before it on the ring of its subnet.
    pub(crate) fn sources(&mut self, conn: Conn) -> Vec<SocketAddr> {
        let Some(asker) = self.members.get(&conn) else { return Vec::new() };
        let Rules { max_sources, near_sources, .. } = self.rules;
        let other = |turn: &&Turn| {
            let serves = self.members.get(&turn.2).and_then(|member| member.serves);
            turn.2 != conn && serves != asker.serves
        };
        let near = self.near.get(&subnet(asker.peer.ip()));
        let near: BTreeSet<Turn> =
            near.into_iter().flatten().filter(other).take(near_sources).copied().collect();
        let anywhere = self.turns.iter().filter(other).filter(|turn| !near.contains(turn));
        let far: Vec<Turn> =
            anywhere.take(max_sources.saturating_sub(near.len())).copied().collect();
        let before = asker.serves.filter(|_| near_sources > 0).and_then(|own| self.before(own));
        let mut sources = Vec::new();
        for (named, _, conn) in near.into_iter().chain(far) {
            self.step_out(conn);
            let on_host = self.hosts.get(&self.host(conn)).copied().unwrap_or(1);
            self.line_up(conn, named.saturating_add(on_host));
            sources.extend(self.members.get(&conn).and_then(|member| member.serves));
        }
        sources.extend(before.filter(|before| !sources.contains(before)));
        sources
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn members(addresses: &[&str]) -> Members {
        let mut members = Members::new(Layout::for_image(1 << 20), Rules::default(), 7);
        for (i, address) in addresses.iter().enumerate() {
            let peer = SocketAddr::new(address.parse().unwrap(), 50_000 + i as u16);
            members.connected(Conn(i as u64), peer, Instant::now());
            members.joined(Conn(i as u64), 20_004);
        }
        members
    }

    #[test]
    fn a_node_is_not_named_to_itself() {
        let mut members = members(&["10.0.0.1", "10.0.0.2"]);
        assert_eq!(members.sources(Conn(0)), ["10.0.0.2:20004".parse().unwrap()]);
    }

    #[test]
    fn a_node_that_has_left_is_not_named() {
        let mut members = members(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        members.left(Conn(1), Instant::now());
        members.disconnected(Conn(2), Instant::now());
        assert!(members.sources(Conn(0)).is_empty());
    }

    #[test]
    fn half_of_the_sources_are_near_and_the_others_anywhere() {
        let mut addresses: Vec<String> = (1..=40).map(|i| format!("10.0.0.{i}")).collect();
        addresses.extend((1..=40).map(|i| format!("10.0.9.{i}")));
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let sources = members(&addresses).sources(Conn(0));
        let near = sources.iter().filter(|a| a.ip().to_string().starts_with("10.0.0.")).count();
        assert!((16..=17).contains(&sources.len()), "and the one before it on the ring");
        assert!((8..=16).contains(&near), "{near} of them are near");
    }

    #[test]
    fn the_least_named_come_first() {
        let addresses: Vec<String> = (1..=33).map(|i| format!("10.0.0.{i}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut members = members(&addresses);
        let first = members.sources(Conn(0));
        let second = members.sources(Conn(0));
        let again = second.iter().filter(|source| first.contains(source)).count();
        assert!(again <= 1, "all others get a turn; one is told who comes before it each time");
    }

    #[test]
    fn a_node_is_told_its_predecessor_on_the_ring_of_its_subnet() {
        let addresses: Vec<String> = (1..=60).map(|i| format!("10.0.{}.{i}", i % 2)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut members = members(&addresses);
        let serves = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 20_004);
        let near = addresses.iter().skip(1).step_by(2);
        let mut ring: Vec<SocketAddr> = near.map(|ip| serves(ip)).collect();
        ring.sort_unstable_by_key(|address| position_of(*address));
        for (before, own) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            let conn = addresses.iter().position(|ip| serves(ip) == *own).unwrap();
            assert!(members.sources(Conn(conn as u64)).contains(before));
        }
    }

    #[test]
    fn a_node_that_has_joined_again_stays_on_the_ring_when_its_first_connection_ends() {
        let mut members = members(&["10.0.0.1", "10.0.0.2"]);
        let [one, other] = [1, 2].map(|n| SocketAddr::new([10, 0, 0, n].into(), 20_004));
        members.connected(Conn(2), other, Instant::now());
        members.joined(Conn(2), 20_004);
        members.disconnected(Conn(1), Instant::now());
        assert_eq!(members.before(one), Some(other));
        members.disconnected(Conn(2), Instant::now());
        assert_eq!(members.before(one), None);
    }

    #[test]
    fn a_node_that_departs_unfinished_is_remembered_until_it_is_back() {
        let mut members = members(&["10.0.0.1", "10.0.0.2"]);
        let chunks = || Layout::for_image(1 << 20).iter();
        let now = Instant::now();
        for conn in [Conn(0), Conn(1)] {
            members.wants(conn, chunks());
            members.has(conn, chunks().take(4), now);
        }
        members.has(Conn(1), chunks(), now);
        members.disconnected(Conn(1), now);
        assert_eq!(members.status_of_departed(now), "", "it is whole");
        members.disconnected(Conn(0), now);
        let later = now + Duration::from_secs(3);
        let line = "gone=10.0.0.1:20004 held=4/16 quiet_seconds=3.0\n";
        assert_eq!(members.status_of_departed(later), line);
        let peer = SocketAddr::new([10, 0, 0, 1].into(), 50_001);
        members.connected(Conn(2), peer, later);
        members.joined(Conn(2), 20_004);
        assert_eq!(members.status_of_departed(later), "");
    }

    #[test]
    fn a_node_that_has_joined_again_has_not_departed_when_its_first_connection_ends() {
        let mut members = members(&["10.0.0.1"]);
        let now = Instant::now();
        members.wants(Conn(0), Layout::for_image(1 << 20).iter());
        let peer = SocketAddr::new([10, 0, 0, 1].into(), 50_001);
        members.connected(Conn(1), peer, now);
        members.joined(Conn(1), 20_004);
        members.disconnected(Conn(0), now);
        assert_eq!(members.status_of_departed(now), "");
    }

    #[test]
    fn a_late_node_is_not_named_to_all_others() {
        let addresses: Vec<String> = (1..=33).map(|i| format!("10.0.0.{i}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut members = members(&addresses);
        for n in 0..20 {
            members.sources(Conn(n));
        }
        let late = SocketAddr::new("10.0.0.200".parse().unwrap(), 50_000);
        members.connected(Conn(99), late, Instant::now());
        let serves = members.joined(Conn(99), 20_004).unwrap();
        let named = (0..20).filter(|n| members.sources(Conn(*n)).contains(&serves)).count();
        assert!(named <= 11, "to {named} of 20, though there are 33 others for 16 places");
    }
}
