//! The blocking driver of a node: fetches, and serves what it has to others. Only the writing of what comes fast is
//! another thread's.
//!
//! It waits in poll(2) for all of its sockets, hands bytes to the [`Engine`] and does what that says.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::conn::Conn;
use crate::engine::{Action, Engine};
use crate::error::{Error, reason};
use crate::fetch::{self, Fetch, Incoming, Outcome, Patience};
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Manifest, Segment};
use crate::limits::{self, NODE_CONNECTIONS};
use crate::net::adler32;
use crate::net::send::{Files, Outgoing, Progress};
use crate::net::tcp::is_passing;
use crate::net::transport::{Listener, Transport};
use crate::node::store::Store;
use crate::process::report::Reporter;
use crate::serve::admission::{Admission, Allowed};
use crate::serve::hub::Hub;
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;
use crate::sys::poll::{self, PollFd};
use crate::sys::process::descriptor_limit;

/// Bytes read from a source at a time.
const READ_BYTES: usize = 256 << 10;
/// Buffers of that size: one is filled and hashed while the bytes of the others are written.
const BUFFERS: usize = 8;
/// Bytes read from a client at a time.
const REQUEST_BYTES: usize = 64 << 10;
/// Reads from one socket before the others have their turn.
const READS_A_TURN: usize = 4;
/// How long clients have their turns before the sockets are looked at again.
const TURNS: Duration = Duration::from_millis(1);
/// How often it is looked whether a checksum is known.
const CHECKSUM_PAUSE: Duration = Duration::from_millis(10);

/// One fetch of one generation, and the serving that goes with it.
#[derive(Debug)]
pub struct Node {
    engine: Engine,
    files: StoredFiles,
    transport: Transport,
    listener: Option<Listener>,
    sockets: BTreeMap<Conn, Socket>,
    buffers: Vec<Arc<Vec<u8>>>,
    requests: Vec<u8>,
    /// Verified chunks that may not be in their files yet, each with the store's ticket for that.
    unwritten: VecDeque<(u64, ChunkId)>,
    /// The origin's name should be looked up again.
    wants_origin: bool,
    /// The Adler-32 that is being computed, on a thread.
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

/// A connection, accepted or dialed.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    state: State,
    outgoing: Option<Outgoing>,
    /// The socket takes no more at present.
    blocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is being made.
    Connecting,
    Open,
    /// Nothing is sent any more.
    Finished,
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
    pub origin: Vec<SocketAddr>,
    /// How long the fetch goes on without success.
    pub patience: Patience,
    /// Whose network it is.
    pub transport: Transport,
    /// Where others are served; None serves nobody.
    pub listener: Option<Listener>,
    /// Drives all random choices.
    pub seed: u64,
    /// Most bytes a second that are sent to others.
    pub max_upload: Option<NonZeroU64>,
    /// Who may fetch from here, and be fetched from when somebody names it.
    pub allowed: Allowed,
    /// Whether all files are shown and whoever reads one is waited for.
    pub serves_files: bool,
}

impl Node {
    /// A node that has not asked anybody yet.
    pub fn new(start: Start, report: Reporter) -> Node {
        let connections = limits::connections(descriptor_limit(), NODE_CONNECTIONS);
        let admission = Admission::new(connections, start.allowed.clone());
        let fetch = fetch::Start {
            manifest: start.manifest,
            wanted: start.store.wanted().clone(),
            held: start.held,
            origin: start.origin,
            port: start.listener.as_ref().map_or(0, Listener::port),
            allowed: start.allowed,
            serves_files: start.serves_files,
            rules: Rules::default(),
            patience: start.patience,
            seed: start.seed,
            traces: report.traces(),
        };
        let mut engine = Engine::node(Arc::new(start.tree), admission, fetch);
        if let Some(most) = start.max_upload {
            engine.hub_mut().limit_upload(most);
        }
        engine.hub_mut().sign(start.signature);
        Node {
            engine,
            files: StoredFiles(start.store),
            transport: start.transport,
            listener: start.listener,
            sockets: BTreeMap::new(),
            buffers: (0..BUFFERS).map(|_| Arc::new(vec![0; READ_BYTES])).collect(),
            requests: vec![0; REQUEST_BYTES],
            unwritten: VecDeque::new(),
            wants_origin: false,
            checksum: None,
            report,
        }
    }

    /// What is fetched, and from whom.
    pub fn fetch(&self) -> &Fetch {
        self.engine.fetch()
    }

    /// How far the fetch is.
    pub fn outcome(&self) -> Outcome {
        self.fetch().outcome(Instant::now())
    }

    /// Whether the name of the origin should be looked up again ([`Node::set_origin`]), once each time.
    pub fn wants_origin(&mut self) -> bool {
        std::mem::take(&mut self.wants_origin)
    }

    /// The origin was looked up again.
    pub fn set_origin(&mut self, addresses: Vec<SocketAddr>) {
        self.engine.set_origin(addresses, Instant::now());
    }

    /// Who fetches from here.
    pub fn hub(&self) -> &Hub {
        self.engine.hub()
    }

    /// Something has gone wrong here that the origin's log should have; see [`Fetch::trouble`].
    pub fn trouble(&mut self, line: &str) {
        self.engine.trouble(line);
    }

    /// Where it is kept.
    pub fn store(&mut self) -> &mut Store {
        &mut self.files.0
    }

    /// The listening socket, for a node of the next generation.
    pub fn into_listener(self) -> Option<Listener> {
        self.listener
    }

    /// Where others are served.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Accepts no more connections.
    pub fn stop_listening(&mut self) {
        self.listener = None;
    }

    /// Takes no requests from now on. Every client gets what is being sent to it, and then the end of the connection.
    pub fn stop(&mut self) {
        self.engine.stop();
    }

    /// Whether anybody is connected who fetches from here, or did.
    pub fn has_clients(&self) -> bool {
        self.engine.server().has_clients()
    }

    /// Does all that can be done, waits once, at most until `deadline` or until there is something to read from one of
    /// `others`, and does what came of it.
    ///
    /// An error is one of the store; those of the network are dealt with.
    pub fn turn(
        &mut self,
        deadline: Option<Instant>,
        others: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let now = Instant::now();
        self.find_checksums();
        self.act(now);
        let checksum = self.checksum.as_ref().map(|_| now + CHECKSUM_PAUSE);
        let deadlines = [deadline, self.engine.next_timeout(now), checksum];
        let timeout = deadlines.into_iter().flatten().min();
        let timeout = timeout.map(|at| at.saturating_duration_since(Instant::now()));
        // What is to be written is waited for only while there is nothing else to do.
        let waits = self.unwritten.is_empty() && !self.engine.has_turns();
        let timeout = if waits { timeout } else { Some(Duration::ZERO) };
        let Ready { sockets, listener } = self.wait(timeout, others)?;

        let now = Instant::now();
        if sockets.is_empty() && !self.engine.has_turns() {
            self.pass_on(true, now)?;
        }
        for (conn, fd) in sockets {
            self.ready(conn, &fd, now)?;
        }
        if listener {
            self.accept(now);
        }
        self.pass_on(self.fetch().is_whole(), now)?;
        self.act(now);
        self.give_turns(Instant::now());
        Ok(())
    }

    /// Does for clients what they ask for, each in its turn, for a while.
    fn give_turns(&mut self, began: Instant) {
        let mut now = began;
        while now.saturating_duration_since(began) < TURNS
            && let Some(conn) = self.engine.next_turn()
        {
            self.send(conn, now);
            self.read_client(conn, now);
            self.send(conn, now);
            let before = std::mem::replace(&mut now, Instant::now());
            self.engine.turn_ended(conn, now.saturating_duration_since(before));
            self.act(now);
        }
    }

    /// Ends all connections, in order that the other sides learn of it at once.
    pub fn close(&mut self) {
        let now = Instant::now();
        for conn in std::mem::take(&mut self.sockets).into_keys() {
            self.engine.closed(conn, None, now);
        }
    }

    /// Does what the engine says.
    fn act(&mut self, now: Instant) {
        while let Some(action) = self.engine.poll(now) {
            match action {
                Action::Dial(conn, address) => match self.transport.connect(address) {
                    Ok(stream) => self.add(conn, stream, State::Connecting),
                    Err(error) => self.engine.closed(conn, Some(&reason(&error)), now),
                },
                Action::Send(conn) => self.send(conn, now),
                Action::Close(conn) => drop(self.sockets.remove(&conn)),
                Action::Finish(conn) => self.finish(conn),
                Action::Resolve => self.wants_origin = true,
                Action::Report(event) => self.report.say(event.level(), &event),
            }
        }
    }

    fn add(&mut self, conn: Conn, stream: TcpStream, state: State) {
        self.sockets.insert(conn, Socket { stream, state, outgoing: None, blocked: false });
    }

    fn wait(&self, timeout: Option<Duration>, others: &[BorrowedFd<'_>]) -> Result<Ready, Error> {
        let listener = self.listener.iter().map(|l| PollFd::new(l.as_fd(), true, false));
        let sockets = self.sockets.iter().map(|(conn, socket)| match socket.state {
            State::Connecting => self.transport.awaits(&socket.stream),
            State::Open | State::Finished => {
                let reads = self.engine.wants_input(*conn);
                PollFd::new(socket.stream.as_fd(), reads, socket.blocked)
            }
        });
        let others = others.iter().map(|other| PollFd::new(*other, true, false));
        let mut fds: Vec<PollFd> = listener.chain(sockets).chain(others).collect();
        poll::wait(&mut fds, timeout).map_err(Error::system("wait for the network"))?;
        let mut fds = fds.into_iter();
        let listener = self.listener.is_some() && fds.next().is_some_and(|fd| fd.readable());
        let sockets = self.sockets.keys().copied().zip(fds);
        let sockets = sockets.filter(|(_, fd)| fd.readable() || fd.writable()).collect();
        Ok(Ready { sockets, listener })
    }

    fn ready(&mut self, conn: Conn, fd: &PollFd, now: Instant) -> Result<(), Error> {
        let Some(socket) = self.sockets.get_mut(&conn) else { return Ok(()) };
        if socket.state == State::Connecting {
            match self.transport.made(&socket.stream) {
                Ok(own) => {
                    socket.state = State::Open;
                    self.engine.connected(conn, own, now);
                }
                Err(error) => self.lose(conn, Some(&reason(&error)), now),
            }
            return Ok(());
        }
        if fd.writable() {
            socket.blocked = false;
        }
        if !conn.is_dialed() {
            self.engine.ready(conn);
            return Ok(());
        }
        if fd.writable() {
            self.send(conn, now);
        }
        if fd.readable() { self.read_source(conn, now) } else { Ok(()) }
    }

    fn read_client(&mut self, conn: Conn, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        if !self.engine.wants_input(conn) {
            return;
        }
        match socket.stream.read(&mut self.requests) {
            Ok(0) => self.lose(conn, None, now),
            Ok(n) => {
                let mut bytes = self.requests.get(..n).unwrap_or_default();
                // A client sends requests alone, of which nothing is to be stored.
                while self.engine.receive(conn, &mut bytes, now).is_some() {}
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => self.lose(conn, Some(&reason(&error)), now),
        }
    }

    fn read_source(&mut self, conn: Conn, now: Instant) -> Result<(), Error> {
        for _ in 0..READS_A_TURN {
            let free = self.free_buffer();
            let space = self.buffers.get_mut(free).and_then(Arc::get_mut);
            let Some((socket, space)) = self.sockets.get_mut(&conn).zip(space) else {
                return Ok(());
            };
            let read = socket.stream.read(space);
            if let Ok(n @ 1..) = read {
                self.store_from(conn, free, n, now)?;
            }
            match read {
                Ok(READ_BYTES) => {}
                Ok(0) => {
                    self.lose(conn, None, now);
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(error) => {
                    if !is_passing(&error) {
                        self.lose(conn, Some(&reason(&error)), now);
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

    /// Stores what is to be stored of the first `n` bytes of a buffer, which came from a source.
    fn store_from(&mut self, conn: Conn, from: usize, n: usize, now: Instant) -> Result<(), Error> {
        let Some(buffer) = self.buffers.get(from) else { return Ok(()) };
        let mut rest = buffer.get(..n).unwrap_or_default();
        while let Some(incoming) = self.engine.receive(conn, &mut rest, now) {
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
            }
        }
        Ok(())
    }

    /// Tells the others of the verified chunks that are in their files by now; if it has to, it waits until all of them
    /// are.
    fn pass_on(&mut self, all: bool, now: Instant) -> Result<(), Error> {
        while let Some(&(ticket, chunk)) = self.unwritten.front() {
            if self.files.0.is_written(ticket)? {
                self.unwritten.pop_front();
                self.files.0.verified(chunk)?;
                self.engine.stored(chunk, now);
            } else if all {
                self.files.0.wait_for_writing();
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Sends what there is for a connection, until there is nothing more or its socket is full.
    fn send(&mut self, conn: Conn, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        if socket.blocked || socket.state == State::Connecting {
            return;
        }
        loop {
            let mut outgoing = match socket.outgoing.take() {
                Some(outgoing) => outgoing,
                None => {
                    let Some(output) = self.engine.next_output(conn, now) else { return };
                    match Outgoing::new(output, &mut self.files) {
                        Ok(outgoing) => outgoing,
                        Err(error) => {
                            self.engine.output_is_unreadable(conn, reason(&error), now);
                            continue;
                        }
                    }
                }
            };
            let before = outgoing.sent();
            match outgoing.advance(&SockRef::from(&socket.stream), &mut self.files) {
                Ok(Progress::Done) => self.engine.output_left(conn, now),
                Ok(Progress::Paused) => {
                    socket.outgoing = Some(outgoing);
                    return self.engine.ready(conn);
                }
                Ok(Progress::Blocked) => {
                    socket.blocked = true;
                    let progress = outgoing.sent() != before;
                    socket.outgoing = Some(outgoing);
                    self.engine.output_is_blocked(conn, progress, now);
                    return;
                }
                Err(error) => return self.lose(conn, Some(&reason(&error)), now),
            }
        }
    }

    fn finish(&mut self, conn: Conn) {
        if let Some(socket) = self.sockets.get_mut(&conn)
            && socket.state == State::Open
        {
            socket.state = State::Finished;
            // Where that fails there is no connection any more.
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
    }

    fn lose(&mut self, conn: Conn, why: Option<&str>, now: Instant) {
        if self.sockets.remove(&conn).is_some() {
            self.engine.closed(conn, why, now);
        }
    }

    fn accept(&mut self, now: Instant) {
        loop {
            let chunk_bytes = self.hub().layout().chunk_bytes();
            let next = self.listener.as_ref().and_then(|listener| listener.accept(chunk_bytes));
            let Some(accepted) = next else { return };
            let Ok((stream, address)) = accepted else { continue };
            if let Some(conn) = self.engine.accept(address, now) {
                self.add(conn, stream, State::Open);
            }
        }
    }

    /// Computes the checksums that 2009 clients wait for, one at a time.
    fn find_checksums(&mut self) {
        if let Some((tree, segment, thread)) =
            self.checksum.take_if(|(.., thread)| thread.is_finished())
        {
            let sum = thread.join().ok().and_then(Result::ok);
            self.engine.hub_mut().checksum_found(&tree, segment.entry, sum);
        }
        while self.checksum.is_none()
            && let Some((tree, segment)) = self.engine.hub_mut().next_checksum()
        {
            let reading = self.files.source(&tree, &segment).and_then(|(file, offset)| {
                let read = move || adler32::of_file(&file, offset, segment.len);
                thread::Builder::new().name("checksum".into()).spawn(read)
            });
            match reading {
                Ok(thread) => self.checksum = Some((tree, segment, thread)),
                Err(_) => self.engine.hub_mut().checksum_found(&tree, segment.entry, None),
            }
        }
    }
}

/// Which sockets there is something to do on.
struct Ready {
    sockets: Vec<(Conn, PollFd)>,
    listener: bool,
}
