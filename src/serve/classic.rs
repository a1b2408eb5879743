//! Classic clients (the xget of 2009) at a hub: who they are, which files they serve, and to whom
//! the next one is sent.
//!
//! A file's classic clients form a tree: who asks is sent to the least burdened of those that serve
//! the file, where every step away from a whole copy counts as one client more. Nodes that hold the
//! whole image and stay while they are drawn from count as well, and so does this server. No node
//! ever fetches from a classic client, whose bytes nobody has verified.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hub::Hub;
use crate::conn::Conn;
use crate::control::SourceAddress;
use crate::image::manifest::{Entry, Segment};
use crate::p9::errno::Errno;
use crate::serve::session::{Answer, At, ClassicHost};
use crate::serve::tree::{Node, Tree};
use crate::units::seconds;

/// Most offers to serve a file that are remembered, of all files together.
const MAX_OFFERS: usize = 1 << 16;
/// What a client is told that should fetch from here.
const ME: &str = "me";
/// A client that has read nothing for this long is not waited for.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// The Adler-32 of no bytes.
const ADLER32_OF_NOTHING: u32 = 1;

/// What a hub knows of classic clients.
#[derive(Debug, Default)]
pub(super) struct Classics {
    clients: BTreeMap<Conn, Client>,
    /// Who serves a file, by its entry.
    offers: BTreeMap<usize, Vec<Offer>>,
    offered: usize,
    /// How many were sent to an address.
    named: BTreeMap<SocketAddr, u32>,
    /// How many were told to fetch from here.
    kept: u32,
    sums: BTreeMap<usize, Sum>,
    /// Entries whose checksum is to be found.
    wanted: VecDeque<usize>,
    /// Who waits for one.
    waiting: BTreeSet<Conn>,
    /// Who is fetching from other clients what is no longer served.
    lost: BTreeSet<Conn>,
    last_read: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    since: Instant,
    serves: Option<SocketAddr>,
    files: u32,
}

#[derive(Debug)]
struct Offer {
    conn: Conn,
    address: SocketAddr,
    /// Steps to a whole copy; 0 is one.
    depth: u32,
}

#[derive(Clone, Copy, Debug)]
enum Sum {
    Wanted,
    Known(u32),
    Failed,
}

impl Classics {
    /// What stays known when another tree is served: the clients, but nothing that they serve.
    pub(super) fn after_change(mut self, old: &Tree, new: &Tree) -> Classics {
        for (entry, offers) in std::mem::take(&mut self.offers) {
            let node = Node::Entry(entry);
            let state = |tree: &Tree, node| {
                let entry = tree.entry(node)?;
                Some((entry.mtime, size(entry)))
            };
            if new.same_place(old, node).and_then(|node| state(new, node)) != state(old, node) {
                let fetching = offers.iter().filter(|offer| offer.depth > 0);
                self.lost.extend(fetching.map(|offer| offer.conn));
            }
        }
        self.clients.values_mut().for_each(|client| client.files = 0);
        let Classics { clients, named, kept, lost, last_read, .. } = self;
        Classics { clients, named, kept, lost, last_read, ..Classics::default() }
    }

    pub(super) fn disconnected(&mut self, conn: Conn) {
        self.waiting.remove(&conn);
        self.lost.remove(&conn);
        let Some(client) = self.clients.remove(&conn) else { return };
        if client.files > 0 {
            self.offers.values_mut().for_each(|offers| offers.retain(|offer| offer.conn != conn));
            self.offers.retain(|_, offers| !offers.is_empty());
            self.offered = self.offers.values().map(Vec::len).sum();
        }
        if let Some(address) = client.serves {
            self.named.remove(&address);
        }
    }

    /// Whether some client read a file a short while ago.
    pub(super) fn is_drawn_from(&self, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < GIVEN_UP;
        !self.clients.is_empty() && self.last_read.is_some_and(recent)
    }

    /// A line for each client.
    pub(super) fn status(&self, peer: impl Fn(Conn) -> Option<SocketAddr>, now: Instant) -> String {
        let mut text = String::new();
        for (conn, client) in &self.clients {
            let Some(peer) = peer(*conn) else { continue };
            let _ = write!(text, "classic={peer} serves_files={}", client.files);
            if let Some(address) = client.serves {
                let _ = write!(text, " serves={address}");
            }
            let age = seconds(now.saturating_duration_since(client.since));
            let _ = writeln!(text, " seconds={age}");
        }
        text
    }

    /// How many were sent to an address. A new one is put beside the others, or everybody would be
    /// sent to those who have come last.
    fn burden(&mut self, address: SocketAddr) -> u32 {
        let least = self.named.values().copied().min().unwrap_or(self.kept).min(self.kept);
        *self.named.entry(address).or_insert(least.saturating_sub(1))
    }

    /// Where `asker` is sent for a file; None keeps it here.
    fn choose(
        &mut self,
        entry: usize,
        conn: Conn,
        asker: IpAddr,
        whole: Vec<SocketAddr>,
    ) -> Option<SocketAddr> {
        let offers = self.offers.get(&entry).map_or(&[][..], Vec::as_slice);
        // It tries again: who draws from it must not be its source.
        if offers.iter().any(|offer| offer.conn == conn) {
            return None;
        }
        let offers = offers.iter().map(|offer| (offer.address, offer.depth));
        let all: Vec<_> = offers.chain(whole.into_iter().map(|address| (address, 0))).collect();
        // A classic client knows IPv4 alone, and another machine's loopback is no use to it.
        let fits = |ip: IpAddr| ip.is_ipv4() && (!ip.is_loopback() || asker.is_loopback());
        let best = all
            .into_iter()
            .filter(|(address, _)| fits(address.ip()))
            .map(|(address, depth)| (self.burden(address).saturating_add(depth), address))
            .min()?;
        (best.0 <= self.kept).then_some(best.1)
    }

    fn withdraw(&mut self, conn: Conn, entry: usize) {
        let Some(offers) = self.offers.get_mut(&entry) else { return };
        let before = offers.len();
        offers.retain(|offer| offer.conn != conn);
        let gone = before - offers.len();
        self.offered = self.offered.saturating_sub(gone);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.files = client.files.saturating_sub(gone as u32);
        }
    }
}

/// Bytes of a file.
fn size(entry: &Entry) -> u64 {
    let range = entry.image_range();
    range.end.saturating_sub(range.start)
}

/// What the driver does for classic clients.
impl Hub {
    /// A file whose Adler-32 is wanted; its driver finds it out and reports
    /// [`Hub::checksum_found`].
    pub fn next_checksum(&mut self) -> Option<(Arc<Tree>, Segment)> {
        let entry = self.classic.wanted.pop_front()?;
        let len = self.tree.entry(Node::Entry(entry)).map_or(0, size);
        Some((self.tree.clone(), Segment { entry, offset: 0, len }))
    }

    /// Whether [`Hub::next_checksum`] has something to find out.
    pub fn wants_checksum(&self) -> bool {
        !self.classic.wanted.is_empty()
    }

    /// The Adler-32 of a file of `tree`, or None if the file cannot be read or has changed.
    pub fn checksum_found(&mut self, tree: &Arc<Tree>, entry: usize, sum: Option<u32>) {
        if Arc::ptr_eq(tree, &self.tree) {
            self.classic.sums.insert(entry, sum.map_or(Sum::Failed, Sum::Known));
            self.wakes.append(&mut self.classic.waiting);
        }
    }
}

impl ClassicHost for Hub {
    fn classic_seen(&mut self, at: At) {
        let client = Client { since: at.now, serves: None, files: 0 };
        self.classic.clients.entry(at.conn).or_insert(client);
    }

    fn classic_redirect(&mut self, at: At, entry: usize) -> String {
        let Some(asker) = self.members.get(at.conn).map(|member| member.peer.ip()) else {
            return ME.to_owned();
        };
        let whole = self.members.whole(self.held.len());
        match self.classic.choose(entry, at.conn, asker, whole) {
            Some(address) => {
                let named = self.classic.named.entry(address).or_default();
                *named = named.saturating_add(1);
                SourceAddress(address).to_string()
            }
            None => {
                self.classic.kept = self.classic.kept.saturating_add(1);
                ME.to_owned()
            }
        }
    }

    fn classic_offer(&mut self, at: At, entry: usize, text: &[u8]) -> Result<(), Errno> {
        let text = text.split(|&b| b == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim();
        let (port, source) = text.split_once(' ').unwrap_or((text, ME));
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(Errno::EINVAL)?;
        let peer = self.members.get(at.conn).ok_or(Errno::EIO)?.peer;
        let address = SocketAddr::new(peer.ip(), port);
        self.classic_seen(at);
        let classic = &mut self.classic;
        classic.withdraw(at.conn, entry);
        if classic.offered >= MAX_OFFERS {
            return Ok(());
        }
        classic.burden(address);
        let offers = classic.offers.entry(entry).or_default();
        let source = SourceAddress::parse(source.trim()).map(|source| source.0);
        let above = offers.iter().find(|offer| Some(offer.address) == source);
        let depth = above.map_or(0, |offer| offer.depth).saturating_add(1);
        offers.push(Offer { conn: at.conn, address, depth });
        classic.offered += 1;
        if let Some(client) = classic.clients.get_mut(&at.conn) {
            client.serves = Some(address);
            client.files += 1;
        }
        Ok(())
    }

    fn classic_withdraw(&mut self, at: At, entry: usize) {
        self.classic.withdraw(at.conn, entry);
    }

    fn classic_checksum(&mut self, at: At, entry: usize) -> Answer<u32> {
        let Some(range) = self.tree.entry(Node::Entry(entry)).map(|entry| entry.image_range())
        else {
            return Answer::Error(Errno::ESTALE);
        };
        if self.layout().covering(range.clone()).any(|chunk| !self.held.contains(chunk)) {
            // A node that does not have the file yet.
            let tree = self.tree.clone();
            return self.wait_for_chunks(at, &tree, &range);
        }
        let nothing = range.is_empty().then_some(Sum::Known(ADLER32_OF_NOTHING));
        match nothing.or(self.classic.sums.get(&entry).copied()) {
            Some(Sum::Known(sum)) => {
                // Who asks has the whole file.
                let offers = self.classic.offers.get_mut(&entry).into_iter().flatten();
                offers.filter(|offer| offer.conn == at.conn).for_each(|offer| offer.depth = 0);
                return Answer::Now(sum);
            }
            Some(Sum::Failed) => {
                self.classic.sums.remove(&entry);
                return Answer::Error(Errno::EIO);
            }
            Some(Sum::Wanted) => {}
            None => {
                self.classic.sums.insert(entry, Sum::Wanted);
                self.classic.wanted.push_back(entry);
            }
        }
        self.classic.waiting.insert(at.conn);
        Answer::Wait
    }

    fn classic_reads(&mut self, at: At) {
        self.classic_seen(at);
        self.classic.last_read = Some(at.now);
    }

    fn classic_is_lost(&self, at: At) -> bool {
        self.classic.lost.contains(&at.conn)
    }
}

#[cfg(test)]
mod tests;
