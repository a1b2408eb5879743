//! One host: drives the engine over the simulated network, as `node/driver.rs` and `master/server.rs` drive it over
//! real sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::content::{Image, Misuse, Record};
use super::network::{End, HostId, LinkId, Network, PORT, Piece, Ready};
use crate::conn::Conn;
use crate::engine::{Action, Engine, Event};
use crate::fetch::{self, Fault, Fetch, Incoming, Patience};
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::Manifest;
use crate::limits::{MASTER_CONNECTIONS, NODE_CONNECTIONS};
use crate::p9::message::RREAD_HEADER_BYTES;
use crate::serve::admission::{Admission, Allowed};
use crate::serve::hub::Hub;
use crate::serve::server::{self, Reason};
use crate::serve::session::Output;
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
    engine: Engine,
    links: BTreeMap<Conn, Link>,
    conns: BTreeMap<(LinkId, End), Conn>,
    /// What a node has fetched; None for the master, which has all.
    store: Option<Store>,
    lies: bool,
    messages: u64,
    buffer: Vec<u8>,
    /// What has happened of late.
    ready: Vec<Ready>,
    faults: Vec<(SocketAddr, String)>,
}

/// What travels, and the rules by which it does.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) manifest: Arc<Manifest>,
    pub(super) image: Image,
    pub(super) rules: Rules,
}

/// A connection.
#[derive(Debug)]
struct Link {
    id: LinkId,
    end: End,
    /// It is made.
    open: bool,
    outgoing: Option<Outgoing>,
}

/// One output on its way.
#[derive(Debug)]
struct Outgoing {
    head: Option<Piece>,
    body: Option<Piece>,
}

#[derive(Debug)]
struct Store {
    record: Record,
    keeps: Option<Box<dyn Keep>>,
    finished: bool,
}

impl Host {
    pub(super) fn master(served: &Served, slots: usize, seed: u64) -> Host {
        let tree = Arc::new(Tree::new(served.manifest.clone()));
        let hub = Hub::master(tree, slots, served.rules, seed);
        let admission = Admission::new(MASTER_CONNECTIONS, Allowed::default());
        Host::new(HostId::MASTER, served, Engine::master(hub, admission, false), None)
    }

    /// A node that fetches from `origin`.
    pub(super) fn node(
        id: HostId,
        origin: SocketAddr,
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
        let record = Record::new(manifest, *image).holding(held.clone());
        let admission = Admission::new(NODE_CONNECTIONS, Allowed::default());
        let start = fetch::Start {
            manifest: manifest.clone(),
            wanted,
            held,
            origin: vec![origin],
            port: PORT,
            serves_files: false,
            rules: *rules,
            patience: Patience::default(),
            seed,
            traces: false,
        };
        let store = Store { record, keeps, finished: false };
        let engine = Engine::node(tree, admission, start);
        Host { lies, ..Host::new(id, served, engine, Some(store)) }
    }

    fn new(id: HostId, served: &Served, engine: Engine, store: Option<Store>) -> Host {
        Host {
            id,
            served: served.clone(),
            engine,
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            store,
            lies: false,
            messages: 0,
            buffer: Vec::new(),
            ready: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn hub(&self) -> &Hub {
        self.engine.hub()
    }

    /// Requests that it has read.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// A node's fetch.
    pub(super) fn fetch(&self) -> Option<&Fetch> {
        self.store.as_ref().map(|_| self.engine.fetch())
    }

    /// Verified chunks; None for the master, which has all.
    pub(super) fn held(&self) -> Option<&ChunkSet> {
        self.store.as_ref().map(|store| store.record.held())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.engine.fetch().is_whole()
    }

    /// Sources that it has given up since the last call, and why.
    pub(super) fn take_faults(&mut self) -> Vec<(SocketAddr, String)> {
        std::mem::take(&mut self.faults)
    }

    /// Does what can be done at this moment; when it wants to be called again.
    pub(super) fn turn(&mut self, net: &mut Network) -> Result<Option<Instant>, Wrong> {
        let now = net.now();
        let mut ready = std::mem::take(&mut self.ready);
        net.take_ready(self.id, &mut ready);
        for ready in &ready {
            self.react(*ready, net, now)?;
        }
        self.ready = ready;
        self.act(net, now)?;
        self.finish()?;
        Ok(self.engine.next_timeout(now))
    }

    fn react(&mut self, ready: Ready, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        let conn_of = |link, end| self.conns.get(&(link, end)).copied();
        match ready {
            Ready::Accepted(link, address) => match self.engine.accept(address, now) {
                Some(conn) => self.add(conn, link, End::Server),
                None => net.close(link, End::Server),
            },
            Ready::Connected(link) => {
                let Some(conn) = conn_of(link, End::Client) else { return Ok(()) };
                if let Some(link) = self.links.get_mut(&conn) {
                    link.open = true;
                }
                self.engine.connected(conn, net.racks().ip(self.id), now);
            }
            Ready::Readable(link, end) => {
                let Some(conn) = conn_of(link, end) else { return Ok(()) };
                match end {
                    End::Client => self.read_source(conn, net, now)?,
                    End::Server => self.read_client(conn, net, now)?,
                }
            }
            Ready::Writable(link, end) => {
                let Some(conn) = conn_of(link, end) else { return Ok(()) };
                self.send(conn, net, now)?;
                if end == End::Server {
                    self.read_client(conn, net, now)?;
                }
            }
            Ready::Closed(link, end) => {
                net.close(link, end);
                if let Some(conn) = self.conns.remove(&(link, end)) {
                    self.links.remove(&conn);
                    self.engine.closed(conn, None, now);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, conn: Conn, id: LinkId, end: End) {
        self.conns.insert((id, end), conn);
        self.links.insert(conn, Link { id, end, open: end == End::Server, outgoing: None });
    }

    /// Does what the engine says.
    fn act(&mut self, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        while let Some(action) = self.engine.poll(now) {
            match action {
                Action::Dial(conn, address) => match net.dial(self.id, address) {
                    Some(link) => self.add(conn, link, End::Client),
                    None => self.engine.closed(conn, Some("no such host"), now),
                },
                Action::Send(conn) => {
                    self.send(conn, net, now)?;
                    if !conn.is_dialed() {
                        self.read_client(conn, net, now)?;
                    }
                }
                Action::Close(conn) => {
                    if let Some(link) = self.links.remove(&conn) {
                        self.conns.remove(&(link.id, link.end));
                        net.close(link.id, link.end);
                    }
                }
                // Nobody stops in an orderly way, and addresses stay what they are.
                Action::Finish(_) | Action::Resolve => {}
                Action::Report(event) => self.report(event)?,
            }
        }
        Ok(())
    }

    fn report(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            // To have nothing sent is no lie.
            Event::Fetch(fetch::Event::Dropped(address, fault)) if fault != Fault::Silent => {
                self.faults.push((address, fault.to_string()));
            }
            Event::Serve(server::Event::Closed(_, Reason::Hangup(hangup))) => {
                return Err(Wrong::Hangup(hangup.to_string()));
            }
            _ => {}
        }
        Ok(())
    }

    fn read_source(&mut self, conn: Conn, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let Served { manifest, image, .. } = &self.served;
        while let Some(link) = self.links.get(&conn)
            && let Some(piece) = net.read(link.id, link.end)
        {
            let mut bytes = match &piece {
                Piece::Bytes(bytes) => bytes.as_slice(),
                Piece::Image { range, spoilt } => {
                    image.bytes(range.clone(), *spoilt, &mut self.buffer)
                }
            };
            while let Some(incoming) = self.engine.receive(conn, &mut bytes, now) {
                match incoming {
                    Incoming::Bytes { image_offset, bytes } => {
                        store.write(manifest, image_offset, &bytes)?;
                    }
                    Incoming::Verified(chunk) => {
                        store.verified(manifest, chunk)?;
                        self.engine.stored(chunk, now);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_client(&mut self, conn: Conn, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        while self.engine.wants_input(conn)
            && let Some(link) = self.links.get(&conn)
            // A client sends nothing but requests.
            && let Some(Piece::Bytes(bytes)) = net.read(link.id, link.end)
        {
            self.messages += frames(&bytes);
            self.engine.receive(conn, &mut bytes.as_slice(), now);
            self.send(conn, net, now)?;
        }
        Ok(())
    }

    /// Sends what there is for a connection, until there is nothing more or it takes no more.
    fn send(&mut self, conn: Conn, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        while let Some(link) = self.links.get_mut(&conn)
            && link.open
        {
            let mut outgoing = match link.outgoing.take() {
                Some(outgoing) => outgoing,
                None => {
                    let Some(output) = self.engine.next_output(conn, now) else { return Ok(()) };
                    let Some(outgoing) = self.outgoing(conn, output, now)? else { continue };
                    outgoing
                }
            };
            let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
            if !net.write(link.id, link.end, &mut outgoing.head)
                || !net.write(link.id, link.end, &mut outgoing.body)
            {
                link.outgoing = Some(outgoing);
                self.engine.output_is_blocked(conn, true, now);
                return Ok(());
            }
            self.engine.output_left(conn, now);
        }
        Ok(())
    }

    /// What an output is here; None if it cannot be read, which the engine then knows.
    fn outgoing(
        &mut self,
        conn: Conn,
        output: Output,
        now: Instant,
    ) -> Result<Option<Outgoing>, Wrong> {
        let data = match output {
            Output::Reply(bytes) => {
                if conn.is_dialed() && bytes.len() > MOST_UNSENT_BYTES {
                    return Err(Wrong::Piled(bytes.len()));
                }
                return Ok(Some(Outgoing { head: Some(Piece::Bytes(bytes)), body: None }));
            }
            Output::Data(data) => data,
        };
        let keeps = self.store.as_mut().and_then(|store| store.keeps.as_mut());
        let body = match keeps {
            Some(keeps) if !self.lies => match keeps.read(&data.range)? {
                Some(bytes) => Piece::Bytes(bytes),
                None => {
                    self.engine.output_is_unreadable(conn, "unreadable".to_owned(), now);
                    return Ok(None);
                }
            },
            _ => Piece::Image { range: data.range.clone(), spoilt: self.lies },
        };
        let head: [u8; RREAD_HEADER_BYTES] = data.header();
        Ok(Some(Outgoing { head: Some(Piece::Bytes(head.to_vec())), body: Some(body) }))
    }

    /// Gives what is whole to the user, once.
    fn finish(&mut self) -> Result<(), Wrong> {
        let whole = self.is_whole();
        let Some(store) = &mut self.store else { return Ok(()) };
        if whole && !std::mem::replace(&mut store.finished, true) {
            return store.keeps.as_mut().map_or(Ok(()), |keeps| keeps.finish());
        }
        Ok(())
    }
}

impl Store {
    fn write(&mut self, manifest: &Manifest, image_offset: u64, bytes: &[u8]) -> Result<(), Wrong> {
        let misused = |(chunk, misuse)| Wrong::Store(chunk, misuse);
        self.record.write(manifest, image_offset, bytes).map_err(misused)?;
        self.keeps.as_mut().map_or(Ok(()), |keeps| keeps.write(image_offset, bytes))
    }

    fn verified(&mut self, manifest: &Manifest, chunk: ChunkId) -> Result<(), Wrong> {
        let misused = |(chunk, misuse)| Wrong::Store(chunk, misuse);
        self.record.verified(manifest, chunk).map_err(misused)?;
        self.keeps.as_mut().map_or(Ok(()), |keeps| keeps.verified(chunk))
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
