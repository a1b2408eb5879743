//! Who is in the swarm, where they serve, and whom to send a newcomer to.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::rules::Rules;
use crate::chunks::{ChunkId, ChunkSet, Layout};
use crate::p9::server::Conn;

/// A connection that takes part.
#[derive(Debug)]
pub struct Member {
    /// The other side's address on this connection.
    pub peer: SocketAddr,
    /// Where it serves others; None until it has joined, and again when it has left.
    pub serves: Option<SocketAddr>,
    /// Chunks that it said it wants and does not have.
    pub lacks: ChunkSet,
    /// Chunks that it said it has.
    pub held: ChunkSet,
    /// When it came.
    pub since: Instant,
    /// When `held` last grew.
    pub progress: Instant,
    /// Image bytes sent to it from here.
    pub sent_bytes: u64,
    /// How often it was named to others: its load, as far as is known here.
    named: u32,
}

impl Member {
    /// How much of what it wants it lacks, in thousandths.
    pub fn lack_permille(&self) -> u32 {
        let (lacks, held) = (u64::from(self.lacks.len()), u64::from(self.held.len()));
        (lacks * 1000).div_ceil((lacks + held).max(1)) as u32
    }

    /// Whether news of these chunks are of use to it: it lacks one, or does not say what it lacks.
    pub fn lacks_any(&self, chunks: &[ChunkId]) -> bool {
        let silent = self.lacks.is_empty() && self.held.is_empty();
        silent || chunks.iter().any(|chunk| self.lacks.contains(*chunk))
    }
}

/// All connections that take part, by number.
#[derive(Debug)]
pub struct Members {
    rules: Rules,
    layout: Layout,
    members: BTreeMap<Conn, Member>,
    /// State of the random choice among equals.
    random: u64,
}

impl Members {
    /// Nobody yet; `seed` drives the random choice among equals.
    pub fn new(layout: Layout, rules: Rules, seed: u64) -> Members {
        Members { rules, layout, members: BTreeMap::new(), random: seed | 1 }
    }

    /// A connection was made.
    pub fn connected(&mut self, conn: Conn, peer: SocketAddr, now: Instant) {
        let member = Member {
            peer,
            serves: None,
            lacks: ChunkSet::default(),
            held: ChunkSet::default(),
            since: now,
            progress: now,
            sent_bytes: 0,
            named: 0,
        };
        self.members.insert(conn, member);
    }

    /// A connection ended; what was known of it.
    pub fn disconnected(&mut self, conn: Conn) -> Option<Member> {
        self.members.remove(&conn)
    }

    /// It serves on `port` of the address that it called from.
    pub fn joined(&mut self, conn: Conn, port: u16) -> Option<SocketAddr> {
        let member = self.members.get_mut(&conn)?;
        let address = SocketAddr::new(member.peer.ip(), port);
        member.serves = Some(address);
        Some(address)
    }

    /// It does not serve any longer.
    pub fn left(&mut self, conn: Conn) {
        if let Some(member) = self.members.get_mut(&conn) {
            member.serves = None;
        }
    }

    /// It wants these chunks as well, and has none of them.
    pub fn wants(&mut self, conn: Conn, chunks: impl Iterator<Item = ChunkId>) {
        let Some(member) = self.members.get_mut(&conn) else { return };
        if member.lacks == ChunkSet::default() {
            member.lacks = ChunkSet::empty(&self.layout);
        }
        for chunk in chunks.filter(|chunk| !member.held.contains(*chunk)) {
            member.lacks.insert(chunk);
        }
    }

    /// It has these chunks; returns those that are news.
    pub fn has(
        &mut self,
        conn: Conn,
        chunks: impl Iterator<Item = ChunkId>,
        now: Instant,
    ) -> Vec<ChunkId> {
        let Some(member) = self.members.get_mut(&conn) else { return Vec::new() };
        if member.held == ChunkSet::default() {
            member.held = ChunkSet::empty(&self.layout);
        }
        let new: Vec<ChunkId> = chunks.filter(|chunk| member.held.insert(*chunk)).collect();
        for chunk in &new {
            member.lacks.remove(*chunk);
        }
        if !new.is_empty() {
            member.progress = now;
        }
        new
    }

    /// What is known of a connection.
    pub fn get(&self, conn: Conn) -> Option<&Member> {
        self.members.get(&conn)
    }

    /// Image bytes were sent to it.
    pub fn sent(&mut self, conn: Conn, bytes: u64) {
        if let Some(member) = self.members.get_mut(&conn) {
            member.sent_bytes = member.sent_bytes.saturating_add(bytes);
        }
    }

    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (Conn, &Member)> {
        self.members.iter().map(|(conn, member)| (*conn, member))
    }

    /// How many serve others.
    pub fn serving(&self) -> usize {
        self.members.values().filter(|member| member.serves.is_some()).count()
    }

    /// How many have joined and still lack something.
    pub fn fetching(&self) -> usize {
        let fetches = |m: &&Member| m.serves.is_some() && !m.lacks.is_empty();
        self.members.values().filter(fetches).count()
    }

    /// Sources for whoever asks on `conn`: the least named first, half of them near it.
    pub fn sources(&mut self, conn: Conn) -> Vec<SocketAddr> {
        let Some(asker) = self.members.get(&conn) else { return Vec::new() };
        let (home, own) = (asker.peer.ip(), asker.serves);
        let Rules { max_sources, near_sources, .. } = self.rules;
        let mut random = self.random;
        let mut candidates: Vec<(bool, u32, u64, Conn, SocketAddr)> = Vec::new();
        for (&other, member) in &self.members {
            let Some(address) = member.serves.filter(|_| other != conn && member.serves != own)
            else {
                continue;
            };
            let distant = near_sources > 0 && !is_near(home, address.ip());
            candidates.push((distant, member.named, next_random(&mut random), other, address));
        }
        self.random = random;
        candidates.sort_unstable();
        let near = candidates.iter().take_while(|(distant, ..)| !distant).count();
        let far = candidates.split_off(near.min(candidates.len()));
        let near_share = near_sources.max(max_sources.saturating_sub(far.len()));
        candidates.truncate(near_share);
        let room = max_sources.saturating_sub(candidates.len());
        candidates.extend(far.into_iter().take(room));
        for (.., other, _) in &candidates {
            if let Some(member) = self.members.get_mut(other) {
                member.named = member.named.saturating_add(1);
            }
        }
        candidates.into_iter().map(|(.., address)| address).collect()
    }
}

/// One step of xorshift64*: enough to spread choices, and replayable from its seed.
pub fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

/// In the same /24 or /64: as good a guess at "same rack" as an address allows.
fn is_near(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets().first_chunk::<3>() == b.octets().first_chunk(),
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets().first_chunk::<8>() == b.octets().first_chunk(),
        _ => false,
    }
}

/// A moment's distance as status lines write it, in seconds.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
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
    fn nobody_is_sent_to_itself() {
        let mut members = members(&["10.0.0.1", "10.0.0.2"]);
        assert_eq!(members.sources(Conn(0)), ["10.0.0.2:20004".parse().unwrap()]);
    }

    #[test]
    fn who_has_left_is_not_named() {
        let mut members = members(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        members.left(Conn(1));
        members.disconnected(Conn(2));
        assert!(members.sources(Conn(0)).is_empty());
    }

    #[test]
    fn half_of_the_sources_are_near_and_half_anywhere() {
        let mut addresses: Vec<String> = (1..=40).map(|i| format!("10.0.0.{i}")).collect();
        addresses.extend((1..=40).map(|i| format!("10.0.9.{i}")));
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let sources = members(&addresses).sources(Conn(0));
        let near = sources.iter().filter(|a| a.ip().to_string().starts_with("10.0.0.")).count();
        assert_eq!((sources.len(), near), (16, 8));
    }

    #[test]
    fn the_least_named_come_first() {
        let addresses: Vec<String> = (1..=33).map(|i| format!("10.0.0.{i}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut members = members(&addresses);
        let first = members.sources(Conn(0));
        let second = members.sources(Conn(0));
        assert!(second.iter().all(|source| !first.contains(source)), "all others get a turn");
    }

    #[test]
    fn lack_is_a_share_of_what_is_wanted() {
        let mut members = members(&["10.0.0.1"]);
        let layout = Layout::for_image(1 << 20);
        members.wants(Conn(0), layout.iter());
        assert_eq!(members.get(Conn(0)).unwrap().lack_permille(), 1000);
        members.has(Conn(0), layout.iter().take(4), Instant::now());
        assert_eq!(members.get(Conn(0)).unwrap().lack_permille(), 750);
    }
}
