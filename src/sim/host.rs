//! One host: drives the pure half over the simulated network, step by step as `node.rs` and
//! `master/server.rs` drive it over real sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::content::{Image, Misuse, Record};
use super::network::{End, HostId, LinkId, Network, PORT, Piece, Ready};
use crate::fetch::scheduler::SourceId;
use crate::fetch::{Fault, Fetch, Incoming, Output as Order};
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::Manifest;
use crate::limits::CONNECTING;
use crate::p9::errno::Errno;
use crate::p9::message::RREAD_HEADER_BYTES;
use crate::serve::hub::Hub;
use crate::serve::session::{At, Conn, Data, Host as _, Output, Session};
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;

/// A node never has more requests than this waiting for one connection, in bytes.
const MOST_UNSENT_BYTES: usize = 256 << 10;

/// What the pure half must never do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It misuses what it stores.
    Store(ChunkId, Misuse),
    /// Requests pile up for one connection: this many bytes.
    Piled(usize),
    /// It wants to be called again at once, over and over.
    Spins,
    /// A session does not understand what a client sends.
    Hangup(String),
    /// A node says of another, which is honest, that it breaks the protocol or lies.
    Accuses(SocketAddr, String),
    /// What it has on its disk is not what it should be.
    Disk(String),
    /// Its disk is full or broken, or it was killed: the program ends, and is started again.
    Ended,
}

/// Where a node keeps what it fetches, and sends it from. Nobody needs that but tests: elsewhere its
/// bytes are made where they are looked at.
pub(super) trait Keep: fmt::Debug {
    /// What is to be fetched.
    fn wanted(&self) -> &ChunkSet;
    /// What was there and right before.
    fn held(&self) -> &ChunkSet;
    fn write(&mut self, image_offset: u64, bytes: &[u8]) -> Result<(), Wrong>;
    fn verified(&mut self, chunk: ChunkId) -> Result<(), Wrong>;
    /// All that is wanted is verified.
    fn finish(&mut self) -> Result<(), Wrong>;
    /// Bytes of verified chunks; None if they cannot be read.
    fn read(&mut self, range: &Range<u64>) -> Result<Option<Vec<u8>>, Wrong>;
}

/// The program on one host, from its start to its end.
#[derive(Debug)]
pub(super) struct Host {
    id: HostId,
    served: Served,
    hub: Hub,
    peers: BTreeMap<Conn, Peer>,
    /// A node's fetching; None for the master.
    fetcher: Option<Fetcher>,
    /// When a node's fetch has something to do by itself.
    fetch_at: Option<Instant>,
    /// When the master's hub is due, as its ticker has understood it.
    tick_at: Option<Instant>,
    lies: bool,
    messages: u64,
    buffer: Vec<u8>,
    /// What has happened of late.
    ready: Vec<Ready>,
    /// Sources to which there may be something to say.
    heard: Vec<LinkId>,
}

/// What travels, and the rules by which it does.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) manifest: Arc<Manifest>,
    pub(super) image: Image,
    pub(super) rules: Rules,
}

/// Somebody who fetches from here.
#[derive(Debug)]
struct Peer {
    session: Session,
    sending: Option<Sending>,
}

/// One output on its way.
#[derive(Debug)]
struct Sending {
    head: Option<Piece>,
    body: Option<Piece>,
    data: Option<Data>,
}

#[derive(Debug)]
struct Fetcher {
    fetch: Fetch,
    sources: BTreeMap<LinkId, Upstream>,
    record: Record,
    keeps: Option<Box<dyn Keep>>,
    finished: bool,
    faults: Vec<(SocketAddr, String)>,
}

#[derive(Debug)]
struct Upstream {
    source: SourceId,
    connecting: Option<Instant>,
    blocked: bool,
}

impl Host {
    pub(super) fn master(served: &Served, slots: usize, seed: u64) -> Host {
        let tree = Arc::new(Tree::new(served.manifest.clone()));
        let hub = Hub::master(tree, slots, served.rules, seed);
        Host::new(HostId::MASTER, served, hub, None)
    }

    /// A node that fetches from `home`.
    pub(super) fn node(
        id: HostId,
        home: SocketAddr,
        served: &Served,
        lies: bool,
        keeps: Option<Box<dyn Keep>>,
        seed: u64,
    ) -> Host {
        let Served { manifest, image, rules } = served;
        let tree = Arc::new(Tree::new(manifest.clone()));
        let (wanted, held) = match &keeps {
            Some(keeps) => (keeps.wanted().clone(), keeps.held().clone()),
            None => (ChunkSet::full(manifest.layout()), ChunkSet::empty(manifest.layout())),
        };
        let home = vec![home];
        let fetcher = Fetcher {
            fetch: Fetch::new(manifest.clone(), wanted.clone(), &held, home, PORT, *rules, seed),
            sources: BTreeMap::new(),
            record: Record::new(manifest, *image).holding(held.clone()),
            keeps,
            finished: false,
            faults: Vec::new(),
        };
        let hub = Hub::node(tree, wanted, held, *rules, seed);
        Host { lies, ..Host::new(id, served, hub, Some(fetcher)) }
    }

    fn new(id: HostId, served: &Served, hub: Hub, fetcher: Option<Fetcher>) -> Host {
        Host {
            id,
            served: served.clone(),
            hub,
            peers: BTreeMap::new(),
            fetcher,
            fetch_at: None,
            tick_at: None,
            lies: false,
            messages: 0,
            buffer: Vec::new(),
            ready: Vec::new(),
            heard: Vec::new(),
        }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Requests that it has read.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// A node's fetch.
    pub(super) fn fetch(&self) -> Option<&Fetch> {
        self.fetcher.as_ref().map(|fetcher| &fetcher.fetch)
    }

    /// Verified chunks; None for the master, which has all.
    pub(super) fn held(&self) -> Option<&ChunkSet> {
        self.fetcher.as_ref().map(|fetcher| fetcher.record.held())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.fetch().is_none_or(Fetch::is_whole)
    }

    /// Sources that it has given up since the last call, and why.
    pub(super) fn take_faults(&mut self) -> Vec<(SocketAddr, String)> {
        self.fetcher.as_mut().map(|f| std::mem::take(&mut f.faults)).unwrap_or_default()
    }

    /// Does what can be done at this moment; when it wants to be called again.
    ///
    /// Where nothing has happened to its fetch that matters, and nothing is due, that is not asked: it
    /// would have nothing to say.
    pub(super) fn turn(&mut self, net: &mut Network) -> Result<Option<Instant>, Wrong> {
        let now = net.now();
        let mut ready = std::mem::take(&mut self.ready);
        net.take_ready(self.id, &mut ready);
        ready.iter().try_for_each(|ready| self.react(*ready, net, now))?;
        self.ready = ready;
        for address in self.hub.take_joined() {
            self.fetcher.iter_mut().for_each(|fetcher| fetcher.fetch.called_by(address));
        }
        let idle = self.fetch().is_none_or(|fetch| fetch.is_idle(now));
        let fetches = !idle || self.fetch_at.is_some_and(|at| at <= now);
        if fetches {
            self.follow_orders(net, now);
        }
        if self.fetcher.is_some() || self.tick_at.is_some_and(|at| at <= now) {
            self.tick_at = None;
            self.hub.tick(now);
        }
        self.serve_the_woken(net, now)?;
        self.finish()?;
        self.send_requests(fetches, net)?;
        if fetches {
            self.fetch_at = self.fetcher.as_ref().and_then(Fetcher::deadline);
        }
        Ok(self.deadline(now))
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.fetcher.is_none() {
            self.tick_at = self.tick_at.or_else(|| self.hub.deadline(now));
            return self.tick_at;
        }
        [self.fetch_at, self.hub.deadline(now)].into_iter().flatten().min()
    }

    fn react(&mut self, ready: Ready, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        match ready {
            Ready::Accepted(link, address) => {
                let conn = Conn(link.0);
                let peer = Peer { session: Session::new(conn, false), sending: None };
                self.peers.insert(conn, peer);
                self.hub.connected(conn, address, now);
            }
            Ready::Connected(link) => {
                let ip = net.racks().ip(self.id);
                if let Some(fetcher) = &mut self.fetcher
                    && let Some(source) = fetcher.sources.get_mut(&link)
                {
                    source.connecting = None;
                    fetcher.fetch.connected(source.source, ip, now);
                }
            }
            Ready::Readable(link, End::Client) => self.read_source(link, net, now)?,
            Ready::Writable(link, End::Client) => {
                let sources = self.fetcher.as_mut().map(|fetcher| &mut fetcher.sources);
                if let Some(source) = sources.and_then(|sources| sources.get_mut(&link)) {
                    source.blocked = false;
                    self.heard.push(link);
                }
            }
            Ready::Closed(link, End::Client) => self.lose(link, net, now),
            Ready::Readable(link, End::Server) | Ready::Writable(link, End::Server) => {
                self.read_peer(Conn(link.0), net, now)?;
            }
            Ready::Closed(link, End::Server) => self.disconnect(Conn(link.0), net, now),
        }
        Ok(())
    }

    fn follow_orders(&mut self, net: &mut Network, now: Instant) {
        let Some(fetcher) = &self.fetcher else { return };
        let overdue = |source: &Upstream| source.connecting.is_some_and(|until| until <= now);
        let late: Vec<LinkId> =
            fetcher.sources.iter().filter(|(_, s)| overdue(s)).map(|(link, _)| *link).collect();
        late.into_iter().for_each(|link| self.lose(link, net, now));
        let Some(fetcher) = &mut self.fetcher else { return };
        while let Some(order) = fetcher.fetch.poll(now) {
            match order {
                Order::Dial { source, address } => match net.dial(self.id, address) {
                    Some(link) => {
                        let connecting = Some(now + CONNECTING);
                        let upstream = Upstream { source, connecting, blocked: false };
                        fetcher.sources.insert(link, upstream);
                    }
                    None => fetcher.fetch.closed(source, now),
                },
                Order::Close { source } => {
                    let found = fetcher.sources.iter().find(|(_, s)| s.source == source);
                    if let Some(link) = found.map(|(link, _)| *link) {
                        fetcher.sources.remove(&link);
                        net.close(link, End::Client);
                    }
                }
            }
        }
        // To have nothing sent is no lie.
        let faults = fetcher.fetch.take_faults().into_iter().filter(|(_, f)| *f != Fault::Silent);
        fetcher.faults.extend(faults.map(|(who, fault)| (who, fault.to_string())));
    }

    fn read_source(&mut self, link: LinkId, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        let Some(fetcher) = &mut self.fetcher else { return Ok(()) };
        let Some(id) = fetcher.sources.get(&link).map(|source| source.source) else {
            return Ok(());
        };
        self.heard.push(link);
        let stored = |(chunk, misuse)| Wrong::Store(chunk, misuse);
        let Served { manifest, image, .. } = &self.served;
        while let Some(piece) = net.read(link, End::Client) {
            let mut bytes = match &piece {
                Piece::Bytes(bytes) => bytes.as_slice(),
                Piece::Image { range, spoilt } => {
                    image.bytes(range.clone(), *spoilt, &mut self.buffer)
                }
            };
            while let Some(incoming) = fetcher.fetch.receive(id, &mut bytes, now) {
                match incoming {
                    Incoming::Bytes { image_offset, bytes } => {
                        fetcher.record.write(manifest, image_offset, &bytes).map_err(stored)?;
                        if let Some(keeps) = &mut fetcher.keeps {
                            keeps.write(image_offset, &bytes)?;
                        }
                    }
                    Incoming::Verified(chunk) => {
                        fetcher.record.verified(manifest, chunk).map_err(stored)?;
                        if let Some(keeps) = &mut fetcher.keeps {
                            keeps.verified(chunk)?;
                        }
                        self.hub.holds(chunk, now);
                    }
                    Incoming::Wrong { .. } | Incoming::Stale => {}
                }
            }
        }
        Ok(())
    }

    /// Gives what is whole to the user, once.
    fn finish(&mut self) -> Result<(), Wrong> {
        let Some(fetcher) = &mut self.fetcher else { return Ok(()) };
        if fetcher.fetch.is_whole() && !std::mem::replace(&mut fetcher.finished, true) {
            return fetcher.keeps.as_mut().map_or(Ok(()), |keeps| keeps.finish());
        }
        Ok(())
    }

    /// Sends what there is for `all` sources, or else for those that were heard of.
    fn send_requests(&mut self, all: bool, net: &mut Network) -> Result<(), Wrong> {
        let Some(Fetcher { fetch, sources, .. }) = &mut self.fetcher else { return Ok(()) };
        if all {
            self.heard.clear();
            return sources
                .iter_mut()
                .try_for_each(|(link, source)| source.send(*link, fetch, net));
        }
        for link in self.heard.drain(..) {
            if let Some(source) = sources.get_mut(&link) {
                source.send(link, fetch, net)?;
            }
        }
        Ok(())
    }

    fn lose(&mut self, link: LinkId, net: &mut Network, now: Instant) {
        net.close(link, End::Client);
        let Some(fetcher) = &mut self.fetcher else { return };
        if let Some(source) = fetcher.sources.remove(&link) {
            fetcher.fetch.closed(source.source, now);
        }
    }

    fn read_peer(&mut self, conn: Conn, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        let link = LinkId(conn.0);
        loop {
            self.serve(conn, net, now)?;
            let Some(peer) = self.peers.get_mut(&conn) else { break };
            if !peer.session.wants_input() {
                break;
            }
            // A client sends nothing but requests.
            let Some(Piece::Bytes(bytes)) = net.read(link, End::Server) else { break };
            self.messages += frames(&bytes);
            peer.session.receive(&bytes);
        }
        self.serve_the_woken(net, now)
    }

    fn serve_the_woken(&mut self, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        loop {
            let wakes = self.hub.take_wakes();
            if wakes.is_empty() {
                return Ok(());
            }
            for conn in wakes {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.session.resume(&mut self.hub, now);
                    self.serve(conn, net, now)?;
                }
            }
        }
    }

    fn serve(&mut self, conn: Conn, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        let Some(peer) = self.peers.get_mut(&conn) else { return Ok(()) };
        loop {
            let hangup = peer.session.process(&mut self.hub, now);
            hangup.map_err(|hangup| Wrong::Hangup(hangup.to_string()))?;
            let sending = match &mut peer.sending {
                Some(sending) => sending,
                None => {
                    let Some(output) = peer.session.next_output() else { return Ok(()) };
                    let mut sending = Sending::new(output, self.lies);
                    let keeps = self.fetcher.as_mut().and_then(|fetcher| fetcher.keeps.as_mut());
                    if let Some(keeps) = keeps
                        && let Some(data) = &sending.data
                        && !self.lies
                    {
                        let Some(bytes) = keeps.read(&data.range)? else {
                            peer.session.refuse(data, Errno::EIO);
                            if data.paced {
                                self.hub.sent(At { conn, now }, &data.range);
                            }
                            continue;
                        };
                        sending.body = Some(Piece::Bytes(bytes));
                    }
                    peer.sending.insert(sending)
                }
            };
            let link = LinkId(conn.0);
            if !net.write(link, End::Server, &mut sending.head)
                || !net.write(link, End::Server, &mut sending.body)
            {
                return Ok(());
            }
            let sent = peer.sending.take().and_then(|sending| sending.data);
            if let Some(data) = sent.filter(|data| data.paced) {
                self.hub.sent(At { conn, now }, &data.range);
            }
        }
    }

    fn disconnect(&mut self, conn: Conn, net: &mut Network, now: Instant) {
        net.close(LinkId(conn.0), End::Server);
        let Some(mut peer) = self.peers.remove(&conn) else { return };
        if let Some(data) = peer.sending.and_then(|s| s.data).filter(|data| data.paced) {
            self.hub.sent(At { conn, now }, &data.range);
        }
        peer.session.close(&mut self.hub, now);
        self.hub.disconnected(conn, now);
    }
}

impl Fetcher {
    fn deadline(&self) -> Option<Instant> {
        let connecting = self.sources.values().filter_map(|source| source.connecting).min();
        [self.fetch.deadline(), connecting].into_iter().flatten().min()
    }
}

impl Upstream {
    fn send(&mut self, link: LinkId, fetch: &mut Fetch, net: &mut Network) -> Result<(), Wrong> {
        let Some(out) = fetch.output(self.source) else { return Ok(()) };
        if out.len() > MOST_UNSENT_BYTES {
            return Err(Wrong::Piled(out.len()));
        }
        if self.connecting.is_some() || self.blocked || out.is_empty() {
            return Ok(());
        }
        let mut rest = Some(Piece::Bytes(std::mem::take(out)));
        self.blocked = !net.write(link, End::Client, &mut rest);
        if let Some(Piece::Bytes(rest)) = rest {
            *out = rest;
        }
        Ok(())
    }
}

impl Sending {
    fn new(output: Output, lies: bool) -> Sending {
        match output {
            Output::Reply(head) => {
                Sending { head: Some(Piece::Bytes(head)), body: None, data: None }
            }
            Output::Data(data) => {
                let head: [u8; RREAD_HEADER_BYTES] = data.header();
                Sending {
                    head: Some(Piece::Bytes(head.to_vec())),
                    body: Some(Piece::Image { range: data.range.clone(), spoilt: lies }),
                    data: Some(data),
                }
            }
        }
    }
}

/// How many messages begin here, given that `bytes` holds whole ones as clients write them.
fn frames(bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    let mut count = 0;
    while let Some(size) = rest.first_chunk() {
        count += 1;
        let size = u32::from_le_bytes(*size).max(4) as usize;
        rest = rest.get(size..).unwrap_or_default();
    }
    count
}
