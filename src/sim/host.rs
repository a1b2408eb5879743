//! One host: drives the engine over the simulated network, as `node/driver.rs` and `master/server.rs` drive it over
//! real sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::content::{Image, Misuse, Record};
use super::network::{End, HostId, LinkId, Network, PORT, Piece, Ready, dead_address};
use crate::conn::Conn;
use crate::control::{Control, Join};
use crate::engine::{Action, Engine, Event};
use crate::fetch::manifest::{ManifestFetch, ManifestStart, Resolved};
use crate::fetch::retry::Retry;
use crate::fetch::{self, Fault, Fetch, Incoming, Patience};
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::Manifest;
use crate::limits::{MASTER_CONNECTIONS, NODE_CONNECTIONS};
use crate::p9::errno::Errno;
use crate::p9::message::RREAD_HEADER_BYTES;
use crate::serve::admission::{Admission, Allowed};
use crate::serve::hub::Hub;
use crate::serve::server::{self, Reason};
use crate::serve::session::{At, Host as _, Output};
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;

/// The longest wait of a node between two attempts to get the manifest.
const LONGEST_RETRY_WAIT: Duration = Duration::from_secs(8);
/// A node never has more requests than this waiting for one connection, in bytes.
const MOST_UNSENT_BYTES: usize = 256 << 10;

/// The numbers of connections that a host claims to have are from here on.
const FIRST_DEAD_CONN: u64 = 1 << 40;

/// What the pure half must never do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It does not get the manifest, or gets another.
    Manifest(String),
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
    /// The master refuses what a greedy host asks for, so that it takes nothing from others.
    Attack(Errno),
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
    phase: Phase,
    links: BTreeMap<Conn, Link>,
    conns: BTreeMap<(LinkId, End), Conn>,
    /// What a node has fetched; None for the master, which has all.
    store: Option<Store>,
    lies: bool,
    dead_addresses: usize,
    messages: u64,
    buffer: Vec<u8>,
    /// What has happened of late.
    ready: Vec<Ready>,
    faults: Vec<(SocketAddr, String)>,
}

/// How far a program is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a host has one")]
enum Phase {
    /// It gets the manifest from the origin; what it begins with then.
    Manifest(ManifestFetch, Option<fetch::Start>),
    /// It fetches and serves.
    Swarm(Engine),
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
        let engine = Engine::master(hub, admission, false);
        Host::new(HostId::MASTER, served, Phase::Swarm(engine), None)
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
        let (wanted, held) = match &keeps {
            Some(keeps) => (keeps.wanted().clone(), keeps.held().clone()),
            None => (ChunkSet::full(manifest.layout()), ChunkSet::empty(manifest.layout())),
        };
        let record = Record::new(manifest, *image).holding(held.clone());
        let start = fetch::Start {
            manifest: manifest.clone(),
            wanted,
            held,
            origin: vec![origin],
            port: PORT,
            allowed: Allowed::default(),
            serves_files: false,
            rules: *rules,
            patience: Patience::default(),
            seed,
            traces: false,
        };
        let store = Store { record, keeps, finished: false };
        let retry = Retry { times: None, longest_wait: LONGEST_RETRY_WAIT, end: None };
        let named = ManifestStart {
            name: "master".to_owned(),
            several: false,
            retry,
            allowed: Allowed::default(),
            seed,
        };
        let phase = Phase::Manifest(ManifestFetch::new(named), Some(start));
        Host { lies, ..Host::new(id, served, phase, Some(store)) }
    }

    /// A node that wants nothing and names so many addresses to others at which there is no host, all at once.
    pub(super) fn misleading(
        id: HostId,
        origin: SocketAddr,
        served: &Served,
        dead_addresses: usize,
        seed: u64,
    ) -> Host {
        let rules = Rules { max_sources: dead_addresses, ..served.rules };
        let served = Served { rules, ..served.clone() };
        let mut host = Host::node(id, origin, &served, false, None, seed);
        if let Phase::Manifest(_, Some(start)) = &mut host.phase {
            start.wanted = ChunkSet::empty(served.manifest.layout());
        }
        Host { dead_addresses, ..host }
    }

    fn new(id: HostId, served: &Served, phase: Phase, store: Option<Store>) -> Host {
        Host {
            id,
            served: served.clone(),
            phase,
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            store,
            lies: false,
            dead_addresses: 0,
            messages: 0,
            buffer: Vec::new(),
            ready: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Image bytes that it has sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.engine().map_or(0, |engine| engine.hub().sent_bytes())
    }

    fn engine(&self) -> Option<&Engine> {
        match &self.phase {
            Phase::Swarm(engine) => Some(engine),
            Phase::Manifest(..) => None,
        }
    }

    /// Requests that it has read.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// The fetch of a node that has the manifest.
    pub(super) fn fetch(&self) -> Option<&Fetch> {
        self.store.as_ref().and(self.engine()).map(Engine::fetch)
    }

    /// What a node wants and has not verified yet.
    pub(super) fn missing(&self) -> Option<&ChunkSet> {
        match &self.phase {
            Phase::Manifest(_, start) => start.as_ref().map(|start| &start.wanted),
            Phase::Swarm(_) => self.fetch().map(Fetch::missing),
        }
    }

    /// Whether it has the manifest, without which it can ask nobody but the master.
    pub(super) fn has_manifest(&self) -> bool {
        self.engine().is_some()
    }

    /// Verified chunks; None for the master, which has all.
    pub(super) fn held(&self) -> Option<&ChunkSet> {
        self.store.as_ref().map(|store| store.record.held())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.engine().is_some_and(|engine| engine.fetch().is_whole())
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
        Ok(match &self.phase {
            Phase::Manifest(search, _) => search.next_timeout(),
            Phase::Swarm(engine) => engine.next_timeout(now),
        })
    }

    fn react(&mut self, ready: Ready, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        let conn_of = |link, end| self.conns.get(&(link, end)).copied();
        match ready {
            Ready::Accepted(link, address) => {
                let conn = match &mut self.phase {
                    Phase::Manifest(..) => None,
                    Phase::Swarm(engine) => engine.accept(address, now),
                };
                match conn {
                    Some(conn) => self.add(conn, link, End::Server),
                    None => net.close(link, End::Server),
                }
            }
            Ready::Connected(link) => {
                let Some(conn) = conn_of(link, End::Client) else { return Ok(()) };
                if let Some(link) = self.links.get_mut(&conn) {
                    link.open = true;
                }
                match &mut self.phase {
                    Phase::Manifest(search, _) => search.connected(conn, now),
                    Phase::Swarm(engine) => engine.connected(conn, net.racks().ip(self.id), now),
                }
            }
            Ready::Readable(link, end) => {
                let Some(conn) = conn_of(link, end) else { return Ok(()) };
                match end {
                    End::Client => self.read_source(conn, net, now)?,
                    End::Server => self.wants_turn(conn),
                }
            }
            Ready::Writable(link, end) => {
                let Some(conn) = conn_of(link, end) else { return Ok(()) };
                match end {
                    End::Client => self.send(conn, net, now)?,
                    End::Server => self.wants_turn(conn),
                }
            }
            Ready::Closed(link, end) => {
                net.close(link, end);
                if let Some(conn) = self.conns.remove(&(link, end)) {
                    self.links.remove(&conn);
                    self.closed(conn, None, now);
                }
            }
        }
        Ok(())
    }

    fn wants_turn(&mut self, conn: Conn) {
        if let Phase::Swarm(engine) = &mut self.phase {
            engine.ready(conn);
        }
    }

    fn add(&mut self, conn: Conn, id: LinkId, end: End) {
        self.conns.insert((id, end), conn);
        self.links.insert(conn, Link { id, end, open: end == End::Server, outgoing: None });
    }

    fn closed(&mut self, conn: Conn, why: Option<&str>, now: Instant) {
        match &mut self.phase {
            Phase::Manifest(search, _) => search.closed(conn, why, now),
            Phase::Swarm(engine) => engine.closed(conn, why, now),
        }
    }

    fn close(&mut self, conn: Conn, net: &mut Network) {
        if let Some(link) = self.links.remove(&conn) {
            self.conns.remove(&(link.id, link.end));
            net.close(link.id, link.end);
        }
    }

    /// Does what the pure half says.
    fn act(&mut self, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        loop {
            let action = match &mut self.phase {
                Phase::Manifest(search, _) => search.poll(now).map(Action::from),
                Phase::Swarm(engine) => engine.poll(now),
            };
            let Some(action) = action else {
                if self.begin(net)? || self.give_turn(net, now)? {
                    continue;
                }
                return Ok(());
            };
            match action {
                Action::Dial(conn, address) => match net.dial(self.id, address) {
                    Some(link) => self.add(conn, link, End::Client),
                    None => self.closed(conn, Some("no such host"), now),
                },
                Action::Send(conn) => self.send(conn, net, now)?,
                Action::Close(conn) => self.close(conn, net),
                Action::Resolve => {
                    // Addresses stay what they are.
                    if let Phase::Manifest(search, _) = &mut self.phase {
                        let master = net.racks().address(HostId::MASTER);
                        let resolved = Resolved { addresses: vec![master], ..Resolved::default() };
                        search.resolved(Ok(resolved), now);
                    }
                }
                // Nobody stops in an orderly way.
                Action::Finish(_) => {}
                Action::Report(event) => self.report(event)?,
            }
        }
    }

    /// Does what one client asks for; whether there was one.
    fn give_turn(&mut self, net: &mut Network, now: Instant) -> Result<bool, Wrong> {
        let Phase::Swarm(engine) = &mut self.phase else { return Ok(false) };
        let Some(conn) = engine.next_turn() else { return Ok(false) };
        self.send(conn, net, now)?;
        while self.read_client(conn, net, now) {
            self.send(conn, net, now)?;
        }
        if let Phase::Swarm(engine) = &mut self.phase {
            // Work takes no time here.
            engine.turn_ended(conn, Duration::ZERO);
        }
        Ok(true)
    }

    /// Begins to fetch the image once the manifest is here; whether it did.
    fn begin(&mut self, net: &mut Network) -> Result<bool, Wrong> {
        let Phase::Manifest(search, start) = &mut self.phase else { return Ok(false) };
        let Some(result) = search.take_result() else { return Ok(false) };
        let found = result.map_err(|error| Wrong::Manifest(error.to_string()))?;
        let Some(start) = start.take() else { return Ok(false) };
        if found.text[..] != self.served.manifest.text()[..] {
            return Err(Wrong::Manifest("it is another".to_owned()));
        }
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.close(conn, net);
        }
        let tree = Arc::new(Tree::new(start.manifest.clone()));
        let admission = Admission::new(NODE_CONNECTIONS, Allowed::default());
        let mut engine = Engine::node(tree, admission, start);
        self.have_joined(engine.hub_mut(), net.now());
        self.phase = Phase::Swarm(engine);
        Ok(true)
    }

    /// As if nodes had joined from the dead addresses that this host names.
    fn have_joined(&self, hub: &mut Hub, now: Instant) {
        let generation = self.served.manifest.generation();
        let join = Join { port: PORT, generation, all_files: false }.to_string();
        for n in 0..self.dead_addresses {
            let conn = Conn(FIRST_DEAD_CONN + 2 * n as u64);
            hub.connected(conn, dead_address(self.id.0 * self.dead_addresses + n), now);
            // A node that has too much to do would say so; this one does nothing.
            let _ = hub.write(At { conn, now }, Control::Avail, join.as_bytes());
        }
        hub.take_joined();
    }

    fn report(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            // To have nothing sent is no lie.
            Event::Fetch(
                fetch::Event::Dropped(address, fault) | fetch::Event::NoNode { address, fault, .. },
            ) if fault != Fault::Silent => {
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
            let engine = match &mut self.phase {
                Phase::Manifest(search, _) => {
                    search.receive(conn, bytes, now);
                    continue;
                }
                Phase::Swarm(engine) => engine,
            };
            while let Some(incoming) = engine.receive(conn, &mut bytes, now) {
                match incoming {
                    Incoming::Bytes { image_offset, bytes } => {
                        store.write(manifest, image_offset, &bytes)?;
                    }
                    Incoming::Verified(chunk) => {
                        store.verified(manifest, chunk)?;
                        engine.stored(chunk, now);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there was anything to read, and room for it.
    fn read_client(&mut self, conn: Conn, net: &mut Network, now: Instant) -> bool {
        let before = self.messages;
        while let Phase::Swarm(engine) = &mut self.phase
            && engine.wants_input(conn)
            && let Some(link) = self.links.get(&conn)
            // A client sends nothing but requests.
            && let Some(Piece::Bytes(bytes)) = net.read(link.id, link.end)
        {
            self.messages += frames(&bytes);
            engine.receive(conn, &mut bytes.as_slice(), now);
        }
        self.messages != before
    }

    /// Sends what there is for a connection, until there is nothing more or it takes no more.
    fn send(&mut self, conn: Conn, net: &mut Network, now: Instant) -> Result<(), Wrong> {
        while let Some(link) = self.links.get_mut(&conn)
            && link.open
        {
            let mut outgoing = match link.outgoing.take() {
                Some(outgoing) => outgoing,
                None => {
                    let output = match &mut self.phase {
                        Phase::Manifest(search, _) => search.next_output(conn).map(Output::Reply),
                        Phase::Swarm(engine) => engine.next_output(conn, now),
                    };
                    let Some(output) = output else { return Ok(()) };
                    let Some(outgoing) = self.outgoing(conn, output, now)? else { continue };
                    outgoing
                }
            };
            let Some(link) = self.links.get_mut(&conn) else { return Ok(()) };
            let done = net.write(link.id, link.end, &mut outgoing.head)
                && net.write(link.id, link.end, &mut outgoing.body);
            if !done {
                link.outgoing = Some(outgoing);
            }
            if let Phase::Swarm(engine) = &mut self.phase {
                if done {
                    engine.output_left(conn, now);
                } else {
                    engine.output_is_blocked(conn, true, now);
                }
            }
            if !done {
                return Ok(());
            }
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
        let body = match (keeps, &mut self.phase) {
            (Some(keeps), Phase::Swarm(engine)) if !self.lies => match keeps.read(&data.range)? {
                Some(bytes) => Piece::Bytes(bytes),
                None => {
                    engine.output_is_unreadable(conn, "unreadable".to_owned(), now);
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
