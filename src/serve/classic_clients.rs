//! Classic clients (the xget of 2009): who they are, which files they serve, and to whom the next one
//! is sent.
//!
//! A file's classic clients form a tree: a client is sent to the least burdened of those that serve
//! the file, where every step away from a whole copy counts as one client more. Nodes that hold the
//! whole image and stay while they are drawn from count as well, and so does this server. No node
//! ever fetches from a classic client, whose bytes nobody has verified.
//!
//! `classic_clients_off` takes the place of this module in a build without the feature `classic`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::control::status::ClassicLine;
use crate::image::manifest::Entry;
use crate::p9::errno::Errno;
use crate::serve::session::Answer;
use crate::serve::tree::{Node, Tree};

/// Whether this program serves clients of 2009.
pub(crate) const SERVES_CLASSIC: bool = true;
/// Most offers to serve a file that are remembered, of all files together.
const MAX_OFFERS: usize = 1 << 16;
/// How many files one client is sent to one address for.
const MAX_SENT: u32 = 10;
/// A client that has read nothing for this long is not waited for.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// The Adler-32 of no bytes.
const ADLER32_OF_NOTHING: u32 = 1;

#[derive(Debug, Default)]
pub(super) struct ClassicClients {
    clients: BTreeMap<Conn, Client>,
    /// Nodes that serve all files and stay while a classic client reads one.
    nodes: BTreeSet<Conn>,
    /// Who serves a file, by its entry.
    offers: BTreeMap<usize, Vec<Offer>>,
    offered: usize,
    /// How many were sent to an address.
    named: BTreeMap<SocketAddr, u32>,
    /// How many were told to fetch from here.
    kept: u32,
    sums: BTreeMap<usize, Sum>,
    /// Entries whose checksum is to be computed.
    wanted: VecDeque<usize>,
    /// Who waits for a checksum.
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
    /// How many files it was sent to an address for: it keeps a connection open for each.
    sent_to: BTreeMap<SocketAddr, u32>,
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

impl ClassicClients {
    /// What stays known when another tree is served: the clients, but nothing that they serve.
    pub(super) fn after_change(mut self, old: &Tree, new: &Tree) -> ClassicClients {
        for (entry, offers) in std::mem::take(&mut self.offers) {
            let node = Node::Entry(entry);
            let state = |tree: &Tree, node| {
                let entry = tree.entry(node)?;
                Some((entry.mtime, size(&entry)))
            };
            if new.same_place(old, node).and_then(|node| state(new, node)) != state(old, node) {
                let fetching = offers.iter().filter(|offer| offer.depth > 0);
                self.lost.extend(fetching.map(|offer| offer.conn));
            }
        }
        for client in self.clients.values_mut() {
            client.files = 0;
        }
        let ClassicClients { clients, named, kept, lost, last_read, .. } = self;
        ClassicClients { clients, named, kept, lost, last_read, ..ClassicClients::default() }
    }

    pub(super) fn disconnected(&mut self, conn: Conn) {
        self.nodes.remove(&conn);
        self.waiting.remove(&conn);
        self.lost.remove(&conn);
        let Some(client) = self.clients.remove(&conn) else { return };
        if client.files > 0 {
            for offers in self.offers.values_mut() {
                offers.retain(|offer| offer.conn != conn);
            }
            self.offers.retain(|_, offers| !offers.is_empty());
            self.offered = self.offers.values().map(Vec::len).sum();
        }
        if let Some(address) = client.serves {
            self.named.remove(&address);
        }
    }

    /// A node serves others. With `all_files` clients can be sent to it once it is whole.
    pub(super) fn node_joined(&mut self, conn: Conn, all_files: bool) {
        if all_files {
            self.nodes.insert(conn);
        } else {
            self.nodes.remove(&conn);
        }
    }

    /// Whether a client can be sent to this node once it is whole.
    pub(super) fn may_name(&self, node: Conn) -> bool {
        self.nodes.contains(&node)
    }

    pub(super) fn seen(&mut self, conn: Conn, now: Instant) {
        let client = Client { since: now, serves: None, files: 0, sent_to: BTreeMap::new() };
        self.clients.entry(conn).or_insert(client);
    }

    /// The client reads bytes of a file.
    pub(super) fn reads(&mut self, conn: Conn, now: Instant) {
        self.seen(conn, now);
        self.last_read = Some(now);
    }

    /// Whether some client read a file a short while ago.
    pub(super) fn is_drawn_from(&self, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < GIVEN_UP;
        !self.clients.is_empty() && self.last_read.is_some_and(recent)
    }

    /// Whether the client fetches from another client what is no longer served here.
    pub(super) fn is_lost(&self, conn: Conn) -> bool {
        self.lost.contains(&conn)
    }

    /// A line for each client.
    pub(super) fn status(&self, peer: impl Fn(Conn) -> Option<SocketAddr>, now: Instant) -> String {
        let mut text = String::new();
        for (conn, client) in &self.clients {
            let Some(peer) = peer(*conn) else { continue };
            let line = ClassicLine {
                peer,
                serves_files: client.files,
                serves: client.serves,
                age: Some(now.saturating_duration_since(client.since)),
            };
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Where a client is sent for a file, with `whole` nodes to choose from as well; None keeps it here.
    pub(super) fn redirect(
        &mut self,
        entry: usize,
        conn: Conn,
        asker: IpAddr,
        whole: Vec<SocketAddr>,
    ) -> Option<SocketAddr> {
        let chosen = self.choose(entry, conn, asker, whole);
        let count = match chosen {
            Some(address) => self.named.entry(address).or_default(),
            None => &mut self.kept,
        };
        *count = count.saturating_add(1);
        if let Some((address, client)) = chosen.zip(self.clients.get_mut(&conn)) {
            *client.sent_to.entry(address).or_default() += 1;
        }
        chosen
    }

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
        let sent_to = self.clients.get(&conn).map(|client| &client.sent_to);
        let has_room = |(address, _): &(SocketAddr, u32)| {
            sent_to.and_then(|sent| sent.get(address)).is_none_or(|files| *files < MAX_SENT)
        };
        let whole = whole.into_iter().map(|address| (address, 0));
        let all: Vec<_> = offers.chain(whole).filter(has_room).collect();
        // A classic client knows IPv4 alone, and another machine's loopback is no use to it.
        let fits = |ip: IpAddr| ip.is_ipv4() && (!ip.is_loopback() || asker.is_loopback());
        let best = all
            .into_iter()
            .filter(|(address, _)| fits(address.ip()))
            .map(|(address, depth)| (self.burden(address).saturating_add(depth), address))
            .min()?;
        (best.0 <= self.kept).then_some(best.1)
    }

    /// How many were sent to an address. A new one is put beside the others, or everybody would be
    /// sent to those who have come last.
    fn burden(&mut self, address: SocketAddr) -> u32 {
        let least = self.named.values().copied().min().unwrap_or(self.kept).min(self.kept);
        *self.named.entry(address).or_insert(least.saturating_sub(1))
    }

    /// A client serves a file at `address`, and was told to fetch it from `source`.
    pub(super) fn offer(
        &mut self,
        entry: usize,
        conn: Conn,
        address: SocketAddr,
        source: Option<SocketAddr>,
    ) {
        self.withdraw(entry, conn);
        if self.offered >= MAX_OFFERS {
            return;
        }
        self.burden(address);
        let offers = self.offers.entry(entry).or_default();
        let above = offers.iter().find(|offer| Some(offer.address) == source);
        let depth = above.map_or(0, |offer| offer.depth).saturating_add(1);
        offers.push(Offer { conn, address, depth });
        self.offered += 1;
        if let Some(client) = self.clients.get_mut(&conn) {
            client.serves = Some(address);
            client.files += 1;
        }
    }

    pub(super) fn withdraw(&mut self, entry: usize, conn: Conn) {
        let Some(offers) = self.offers.get_mut(&entry) else { return };
        let before = offers.len();
        offers.retain(|offer| offer.conn != conn);
        let withdrawn = before - offers.len();
        self.offered = self.offered.saturating_sub(withdrawn);
        if let Some(client) = self.clients.get_mut(&conn) {
            client.files = client.files.saturating_sub(withdrawn as u32);
        }
    }

    /// The Adler-32 of a file that is held here as a whole.
    pub(super) fn checksum(&mut self, entry: usize, is_empty: bool, conn: Conn) -> Answer<u32> {
        let nothing = is_empty.then_some(Sum::Known(ADLER32_OF_NOTHING));
        match nothing.or(self.sums.get(&entry).copied()) {
            Some(Sum::Known(sum)) => {
                // A client that asks has the whole file.
                let offers = self.offers.get_mut(&entry).into_iter().flatten();
                for offer in offers.filter(|offer| offer.conn == conn) {
                    offer.depth = 0;
                }
                return Answer::Now(sum);
            }
            Some(Sum::Failed) => {
                self.sums.remove(&entry);
                return Answer::Error(Errno::EIO);
            }
            Some(Sum::Wanted) => {}
            None => {
                self.sums.insert(entry, Sum::Wanted);
                self.wanted.push_back(entry);
            }
        }
        self.waiting.insert(conn);
        Answer::Wait
    }

    /// An entry whose checksum is to be computed.
    pub(super) fn next_checksum(&mut self) -> Option<usize> {
        self.wanted.pop_front()
    }

    pub(super) fn wants_checksum(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The checksum of an entry, or None if it cannot be computed; who waited for one.
    pub(super) fn checksum_found(&mut self, entry: usize, sum: Option<u32>) -> BTreeSet<Conn> {
        self.sums.insert(entry, sum.map_or(Sum::Failed, Sum::Known));
        std::mem::take(&mut self.waiting)
    }
}

/// Bytes of a file.
fn size(entry: &Entry) -> u64 {
    let range = entry.image_range();
    range.end.saturating_sub(range.start)
}
