//! The blocking driver of a node: fetches, and serves what it has to others. Only the writing of
//! what comes fast is another thread's.
//!
//! It waits in poll(2) for all of its sockets, hands bytes to the pure half ([`Fetch`] for what it
//! asks of others, [`Hub`] and [`Session`] for what others ask of it) and does what that says.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::error::{Error, reason};
use crate::fetch::scheduler::SourceId;
use crate::fetch::{Fetch, Incoming, Output};
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Manifest, Segment};
use crate::limits::{CONNECTING, NODE_CONNECTIONS};
use crate::net::adler32;
use crate::net::send::{Files, Progress, Sending};
use crate::net::transport::{Listener, Transport};
use crate::node::store::Store;
use crate::p9::errno::Errno;
use crate::process::report::Reporter;
use crate::serve::admission::{Allowed, Door};
use crate::serve::hub::Hub;
use crate::serve::session::{At, Conn, Host, Session, Wait};
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;
use crate::sys::poll::{self, PollFd};

/// Bytes read from a source at a time.
const READ_BYTES: usize = 256 << 10;
/// Buffers of that size: one is filled and hashed while the bytes of the others are written.
const BUFFERS: usize = 8;
/// Bytes read from a client at a time.
const REQUEST_BYTES: usize = 64 << 10;
/// Reads from one socket before the others have their turn.
const READS_A_TURN: usize = 4;
/// How often it is looked whether a checksum is known.
const CHECKSUM_PAUSE: Duration = Duration::from_millis(10);

/// One fetch of one generation, and the serving that goes with it.
#[derive(Debug)]
pub struct Node {
    fetch: Fetch,
    hub: Hub,
    files: StoredFiles,
    transport: Transport,
    listener: Option<Listener>,
    door: Door,
    clients: BTreeMap<Conn, Peer>,
    sources: BTreeMap<SourceId, Upstream>,
    last_conn: u64,
    buffers: Vec<Arc<Vec<u8>>>,
    requests: Vec<u8>,
    /// Verified chunks that may not be in their files yet, each with the store's ticket for that.
    unwritten: VecDeque<(u64, ChunkId)>,
    stale: bool,
    leaving: bool,
    /// The Adler-32 that is being found out, on a thread.
    checksum: Option<(Arc<Tree>, Segment, JoinHandle<io::Result<u32>>)>,
    report: Reporter,
}

/// The store, as the place that replies are sent from.
#[derive(Debug)]
struct StoredFiles(Store);

impl Files for StoredFiles {
    fn source(&mut self, _: &Tree, segment: &Segment) -> io::Result<(Arc<File>, u64)> {
        let (file, base) = self.0.source(segment.entry)?;
        Ok((file, base.saturating_add(segment.offset)))
    }
}

/// Somebody who fetches from here.
#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    address: SocketAddr,
    session: Session,
    sending: Option<Sending>,
    blocked: bool,
}

/// Somebody to fetch from.
#[derive(Debug)]
struct Upstream {
    stream: TcpStream,
    address: SocketAddr,
    /// Until when the connection has to be made; None once it is.
    connecting: Option<Instant>,
    blocked: bool,
}

/// Whose turn it is.
struct Ready {
    sources: Vec<(SourceId, PollFd)>,
    clients: Vec<(Conn, PollFd)>,
    newcomers: bool,
}

/// What a node starts with.
#[derive(Debug)]
pub struct Start {
    /// What is fetched.
    pub manifest: Arc<Manifest>,
    /// Its signature, for those who fetch from here.
    pub signature: Option<Arc<[u8]>>,
    /// What of it is shown to 9P clients.
    pub tree: Tree,
    /// Where it is kept.
    pub store: Store,
    /// What is there and verified already.
    pub held: ChunkSet,
    /// Addresses of the server that was named.
    pub home: Vec<SocketAddr>,
    /// Whose network it is.
    pub transport: Transport,
    /// Where others are served; None serves nobody.
    pub listener: Option<Listener>,
    /// Drives all random choices.
    pub seed: u64,
    /// Most bytes a second that are sent to others.
    pub max_upload: Option<NonZeroU64>,
    /// Who may fetch from here.
    pub allowed: Allowed,
    /// Whether all files are shown and whoever reads one is waited for.
    pub serves_files: bool,
}

impl Node {
    /// A node that has not asked anybody yet.
    pub fn new(start: Start, report: Reporter) -> Node {
        let Start {
            manifest,
            signature,
            tree,
            store,
            held,
            home,
            transport,
            listener,
            seed,
            max_upload,
            allowed,
            serves_files,
        } = start;
        let wanted = store.wanted().clone();
        let rules = Rules::default();
        let port = listener.as_ref().map_or(0, Listener::port);
        let mut fetch = Fetch::new(manifest, wanted.clone(), &held, home, port, rules, seed);
        if report.traces() {
            fetch.trace();
        }
        if serves_files {
            fetch.serve_files();
        }
        let mut hub = Hub::node(Arc::new(tree), wanted, held, rules, seed);
        max_upload.into_iter().for_each(|most| hub.limit_upload(most));
        hub.sign(signature);
        Node {
            fetch,
            hub,
            files: StoredFiles(store),
            transport,
            listener,
            door: Door::new(NODE_CONNECTIONS, allowed),
            clients: BTreeMap::new(),
            sources: BTreeMap::new(),
            last_conn: 0,
            buffers: (0..BUFFERS).map(|_| Arc::new(vec![0; READ_BYTES])).collect(),
            requests: vec![0; REQUEST_BYTES],
            unwritten: VecDeque::new(),
            stale: false,
            leaving: false,
            checksum: None,
            report,
        }
    }

    /// What is fetched, and from whom.
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// The named server was looked up again ([`Fetch::found_home`]).
    pub fn found_home(&mut self, home: Vec<SocketAddr>, now: Instant) {
        self.fetch.found_home(home, now);
    }

    /// Who fetches from here.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Something has gone wrong here that the server's log should have; see [`Fetch::trouble`].
    pub fn trouble(&mut self, line: &str) {
        self.fetch.trouble(line);
    }

    /// Where it is kept.
    pub fn store(&mut self) -> &mut Store {
        &mut self.files.0
    }

    /// Whether the server that was named serves another generation by now.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The listening socket, for a node of the next generation.
    pub fn into_listener(self) -> Option<Listener> {
        self.listener
    }

    /// Where others are served.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Takes no newcomers from now on.
    pub fn stop_listening(&mut self) {
        self.listener = None;
    }

    /// Takes no requests from now on. Every client gets what is being sent to it, and then the end of
    /// the connection.
    pub fn leave(&mut self) {
        self.leaving = true;
        for peer in self.clients.values() {
            peer.leave_if_done();
        }
    }

    /// Whether anybody is connected who fetches from here, or did.
    pub fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Does all that can be done, waits once, at most until `deadline` or until there is something to
    /// read from one of `others`, and does what came of it.
    ///
    /// An error is one of the store; those of the network are dealt with.
    pub fn turn(
        &mut self,
        deadline: Option<Instant>,
        others: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let now = Instant::now();
        self.fetch.has_sent(self.hub.sent_bytes(), now);
        self.follow_orders(now);
        self.hub.tick(now);
        for conn in self.door.late(now) {
            self.dismiss(conn, now);
        }
        self.find_checksums();
        self.serve_the_woken(now);
        self.send_requests(now);
        self.tell();

        let deadlines = [
            deadline,
            self.fetch.deadline(),
            self.hub.deadline(now),
            self.door.deadline(),
            self.sources.values().filter_map(|source| source.connecting).min(),
            self.checksum.as_ref().map(|_| now + CHECKSUM_PAUSE),
        ];
        let timeout = deadlines.into_iter().flatten().min();
        let timeout = timeout.map(|at| at.saturating_duration_since(Instant::now()));
        // What is to be written is waited for only while there is nothing else to do.
        let timeout = if self.unwritten.is_empty() { timeout } else { Some(Duration::ZERO) };
        let ready = self.wait(timeout, others)?;

        let now = Instant::now();
        if ready.sources.is_empty() && ready.clients.is_empty() {
            self.pass_on(true, now)?;
        }
        for (id, fd) in ready.sources {
            self.source_ready(id, &fd, now)?;
        }
        for (conn, fd) in ready.clients {
            self.client_ready(conn, &fd, now);
        }
        if ready.newcomers {
            self.accept(now);
        }
        self.pass_on(self.fetch.is_whole(), now)
    }

    /// Ends all connections, in order that the other sides learn of it at once.
    pub fn close(&mut self) {
        let now = Instant::now();
        self.sources.clear();
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.disconnect(conn, now);
        }
    }

    fn wait(&self, timeout: Option<Duration>, others: &[BorrowedFd<'_>]) -> Result<Ready, Error> {
        let listener = self.listener.iter().map(|l| PollFd::new(l.as_fd(), true, false));
        let sources = self.sources.values().map(|source| match source.connecting {
            Some(_) => self.transport.awaits(&source.stream),
            None => PollFd::new(source.stream.as_fd(), true, source.blocked),
        });
        let clients = self
            .clients
            .values()
            .map(|peer| PollFd::new(peer.stream.as_fd(), peer.session.wants_input(), peer.blocked));
        let others = others.iter().map(|other| PollFd::new(*other, true, false));
        let mut fds: Vec<PollFd> = listener.chain(sources).chain(clients).chain(others).collect();
        poll::wait(&mut fds, timeout).map_err(Error::system("wait for the network"))?;
        let mut fds = fds.into_iter();
        let newcomers = self.listener.is_some() && fds.next().is_some_and(|fd| fd.readable());
        let sources = self.sources.keys().copied().zip(fds.by_ref().take(self.sources.len()));
        let sources = sources.filter(|(_, fd)| fd.readable() || fd.writable()).collect();
        let clients = self.clients.keys().copied().zip(fds);
        let clients = clients.filter(|(_, fd)| fd.readable() || fd.writable()).collect();
        Ok(Ready { sources, clients, newcomers })
    }

    /// Dials and hangs up as the fetch says.
    fn follow_orders(&mut self, now: Instant) {
        let overdue = |source: &Upstream| source.connecting.is_some_and(|until| until <= now);
        let late: Vec<SourceId> =
            self.sources.iter().filter(|(_, s)| overdue(s)).map(|(id, _)| *id).collect();
        for id in late {
            self.lose(id, "connection timed out", now);
        }
        for address in self.hub.take_joined() {
            self.report.info(format_args!("{address} fetches from this node"));
            self.fetch.called_by(address);
        }
        while let Some(order) = self.fetch.poll(now) {
            match order {
                Output::Dial { source, address } => match self.transport.connect(address) {
                    Ok(stream) => {
                        let connecting = Some(now + CONNECTING);
                        let upstream = Upstream { stream, address, connecting, blocked: false };
                        self.sources.insert(source, upstream);
                    }
                    Err(error) => {
                        self.report.info(format_args!("{address}: {}", reason(&error)));
                        self.fetch.closed(source, now);
                    }
                },
                Output::Close { source } => drop(self.sources.remove(&source)),
            }
        }
    }

    /// Finds out the checksums that classic clients wait for, one at a time.
    fn find_checksums(&mut self) {
        if let Some((tree, segment, thread)) =
            self.checksum.take_if(|(.., thread)| thread.is_finished())
        {
            let sum = thread.join().ok().and_then(Result::ok);
            self.hub.checksum_found(&tree, segment.entry, sum);
        }
        while self.checksum.is_none()
            && let Some((tree, segment)) = self.hub.next_checksum()
        {
            let reading = self.files.source(&tree, &segment).and_then(|(file, offset)| {
                let read = move || adler32::of_file(&file, offset, segment.len);
                thread::Builder::new().name("checksum".into()).spawn(read)
            });
            match reading {
                Ok(thread) => self.checksum = Some((tree, segment, thread)),
                Err(_) => self.hub.checksum_found(&tree, segment.entry, None),
            }
        }
    }

    fn source_ready(&mut self, id: SourceId, fd: &PollFd, now: Instant) -> Result<(), Error> {
        let Some(source) = self.sources.get_mut(&id) else { return Ok(()) };
        if source.connecting.is_some() {
            match self.transport.made(&source.stream) {
                Ok(own) => {
                    source.connecting = None;
                    self.fetch.connected(id, own, now);
                }
                Err(error) => self.lose(id, &reason(&error), now),
            }
            return Ok(());
        }
        if fd.writable() {
            source.blocked = false;
        }
        match fd.readable() {
            true => self.read_source(id, now),
            false => Ok(()),
        }
    }

    fn read_source(&mut self, id: SourceId, now: Instant) -> Result<(), Error> {
        for _ in 0..READS_A_TURN {
            let free = self.free_buffer();
            let space = self.buffers.get_mut(free).and_then(Arc::get_mut);
            let Some((source, space)) = self.sources.get_mut(&id).zip(space) else { return Ok(()) };
            let read = source.stream.read(space);
            if let Ok(n @ 1..) = read {
                self.take_in(id, free, n, now)?;
            }
            match read {
                Ok(READ_BYTES) => {}
                Ok(0) => {
                    self.lose(id, "connection closed by the other side", now);
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(error) => {
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) {
                        self.lose(id, &reason(&error), now);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The index of a buffer of which nothing is to be written any more.
    fn free_buffer(&mut self) -> usize {
        loop {
            let is_free = |buffer: &mut Arc<_>| Arc::get_mut(buffer).is_some();
            if let Some(free) = self.buffers.iter_mut().position(is_free) {
                return free;
            }
            self.files.0.wait_for_writing();
        }
    }

    /// Takes the first `n` bytes of a buffer, which came from a source.
    fn take_in(&mut self, id: SourceId, from: usize, n: usize, now: Instant) -> Result<(), Error> {
        let Some(buffer) = self.buffers.get(from) else { return Ok(()) };
        let mut rest = buffer.get(..n).unwrap_or_default();
        while let Some(incoming) = self.fetch.receive(id, &mut rest, now) {
            match incoming {
                Incoming::Bytes { image_offset, bytes: Cow::Borrowed(bytes) } => {
                    // They are what was taken off last.
                    let end = n - rest.len();
                    self.files.0.write(image_offset, buffer, end - bytes.len()..end)?;
                }
                Incoming::Bytes { image_offset, bytes: Cow::Owned(bytes) } => {
                    let all = 0..bytes.len();
                    self.files.0.write(image_offset, &Arc::new(bytes), all)?;
                }
                Incoming::Verified(chunk) => {
                    self.unwritten.push_back((self.files.0.ticket(), chunk));
                }
                Incoming::Wrong { address, chunk } => {
                    let text = format!("{address} sent chunk {chunk} with a wrong hash");
                    self.fetch.trouble(&text);
                    self.report.warning(format_args!("{text}; fetching it from another source"));
                }
                Incoming::Stale => self.stale = true,
            }
        }
        Ok(())
    }

    /// Tells the others of the verified chunks that are in their files by now; if it has to, it
    /// waits until all of them are.
    fn pass_on(&mut self, all: bool, now: Instant) -> Result<(), Error> {
        while let Some(&(ticket, chunk)) = self.unwritten.front() {
            if self.files.0.is_written(ticket)? {
                self.unwritten.pop_front();
                self.files.0.verified(chunk)?;
                self.hub.holds(chunk, now);
            } else if all {
                self.files.0.wait_for_writing();
            } else {
                break;
            }
        }
        Ok(())
    }

    fn send_requests(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for (&id, source) in &mut self.sources {
            let Some(out) = self.fetch.output(id) else { continue };
            if source.connecting.is_some() || source.blocked || out.is_empty() {
                continue;
            }
            match source.stream.write(out) {
                Ok(n) => {
                    out.drain(..n);
                    source.blocked = !out.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.blocked = true,
                Err(error) => lost.push((id, reason(&error))),
            }
        }
        for (id, why) in lost {
            self.lose(id, &why, now);
        }
    }

    fn lose(&mut self, id: SourceId, why: &str, now: Instant) {
        if let Some(source) = self.sources.remove(&id) {
            self.report.info(format_args!("{}: {why}", source.address));
            self.fetch.closed(id, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        loop {
            let chunk_bytes = self.hub.layout().chunk_bytes();
            let next = self.listener.as_ref().and_then(|listener| listener.accept(chunk_bytes));
            let Some(accepted) = next else { return };
            let Ok((stream, address)) = accepted else { continue };
            self.last_conn += 1;
            let conn = Conn(self.last_conn);
            match self.door.knock(conn, address.ip(), now) {
                Ok(gives_way) => gives_way.into_iter().for_each(|conn| self.dismiss(conn, now)),
                Err(refusal) => {
                    self.report.info(format_args!("{address}: {refusal}"));
                    continue;
                }
            }
            let session = Session::new(conn, self.report.traces());
            let peer = Peer { stream, address, session, sending: None, blocked: false };
            self.clients.insert(conn, peer);
            self.hub.connected(conn, address, now);
        }
    }

    fn client_ready(&mut self, conn: Conn, fd: &PollFd, now: Instant) {
        let Some(peer) = self.clients.get_mut(&conn) else { return };
        if fd.writable() {
            peer.blocked = false;
        }
        if fd.readable() && peer.session.wants_input() {
            match peer.stream.read(&mut self.requests) {
                Ok(0) => return self.disconnect(conn, now),
                // It is read all the same, or the end of the connection would take what was sent
                // last with it.
                Ok(_) if self.leaving => {}
                Ok(n) => peer.session.receive(self.requests.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.disconnect(conn, now),
            }
        }
        self.serve(conn, now);
        self.serve_the_woken(now);
    }

    fn serve_the_woken(&mut self, now: Instant) {
        loop {
            let wakes = self.hub.take_wakes();
            if wakes.is_empty() {
                return;
            }
            for conn in wakes {
                if let Some(peer) = self.clients.get_mut(&conn) {
                    peer.session.resume(&mut self.hub, now);
                    self.serve(conn, now);
                }
            }
        }
    }

    /// Answers a client's requests and sends replies until neither is possible.
    fn serve(&mut self, conn: Conn, now: Instant) {
        let Some(peer) = self.clients.get_mut(&conn) else { return };
        let before = peer.progress();
        let result = peer.advance(&mut self.hub, &mut self.files, At { conn, now });
        let waits = if peer.blocked { Some(Wait::Taking) } else { peer.session.waits() };
        self.door.observe(conn, peer.progress() != before, waits, now);
        for line in peer.session.take_trace() {
            self.report.trace(peer.address, &line);
        }
        if let Err(error) = result {
            self.report.info(format_args!("{}: {}", peer.address, reason(&error)));
            self.disconnect(conn, now);
        } else if self.leaving {
            peer.leave_if_done();
        }
    }

    /// Ends a connection that the door wants to be ended.
    fn dismiss(&mut self, conn: Conn, now: Instant) {
        if let Some((peer, refusal)) = self.clients.get(&conn).zip(self.door.refusal(conn)) {
            self.report.info(format_args!("{}: {refusal}", peer.address));
        }
        self.disconnect(conn, now);
    }

    fn disconnect(&mut self, conn: Conn, now: Instant) {
        self.door.left(conn);
        let Some(mut peer) = self.clients.remove(&conn) else { return };
        if let Some(range) = peer.sending.take().and_then(|sending| sending.paced_range()) {
            self.hub.sent(At { conn, now }, &range);
        }
        peer.session.close(&mut self.hub, now);
        self.hub.disconnected(conn, now);
    }

    /// Passes on what the pure half has to say.
    fn tell(&mut self) {
        for (address, fault) in self.fetch.take_faults() {
            self.report.info(format_args!("{address}: {fault}; no longer used as a source"));
        }
        for (peer, line) in self.hub.take_log() {
            self.report.notice(format_args!("{peer} reports: {line}"));
        }
        if self.report.traces() {
            for (address, line) in self.fetch.take_trace() {
                self.report.trace(address, &line);
            }
        }
    }
}

impl Peer {
    /// Changes with every request that comes and every byte that leaves.
    fn progress(&self) -> (u64, Option<u64>) {
        (self.session.requests_so_far(), self.sending.as_ref().map(Sending::sent))
    }

    /// Ends the connection on this side if nothing is being sent.
    fn leave_if_done(&self) {
        if self.sending.is_none() {
            // Where that fails there is no connection any more.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn advance(&mut self, hub: &mut Hub, files: &mut StoredFiles, at: At) -> io::Result<()> {
        loop {
            self.session.process(hub, at.now).map_err(io::Error::other)?;
            let mut sending = match self.sending.take() {
                Some(sending) => sending,
                None => {
                    let Some(output) = self.session.next_output() else { return Ok(()) };
                    match Sending::new(output, files) {
                        Ok(sending) => sending,
                        Err((data, _)) => {
                            self.session.refuse(&data, Errno::EIO);
                            if data.paced {
                                hub.sent(at, &data.range);
                            }
                            continue;
                        }
                    }
                }
            };
            match sending.advance(&SockRef::from(&self.stream), files) {
                Ok(Progress::Done(None)) => {}
                Ok(Progress::Done(Some(range))) => hub.sent(at, &range),
                Ok(Progress::Blocked) => {
                    self.blocked = true;
                    self.sending = Some(sending);
                    return Ok(());
                }
                Err(error) => {
                    self.sending = Some(sending);
                    return Err(error);
                }
            }
        }
    }
}
