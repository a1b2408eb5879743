//! The async driver: one task a connection on one thread, all over the same hub.
//!
//! A task holds its session and little else; the buffer that bytes are read into is shared, so that
//! an idle connection costs about two kilobytes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::files::ServedFiles;
use super::watch::{State, Watcher};
use crate::cli;
use crate::door::Door;
use crate::error::Error;
use crate::limits::MASTER_CONNECTIONS;
use crate::net::adler32;
use crate::net::send::{Files, Progress, Sending};
use crate::net::tcp;
use crate::p9::errno::Errno;
use crate::p9::server::{At, Conn, Host, Session, Wait};
use crate::report::Reporter;
use crate::swarm::hub::Hub;
use crate::swarm::rules::Rules;
use crate::sys::process;
use crate::tree::Tree;

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 64 << 10;
/// Wait after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the process is ended.
pub(super) fn run(
    listener: TcpListener,
    first: State,
    watcher: Watcher,
    options: &cli::Serve,
    report: Reporter,
) -> Result<(), Error> {
    let (publish, states) = mpsc::unbounded_channel();
    let tree = Arc::new(Tree::new(first.manifest.clone()));
    let mut files = ServedFiles::default();
    files.publish(tree.clone(), first.scan.clone());
    let signature = first.signature.clone();
    if let Some(interval) = options.rescan {
        thread::Builder::new()
            .name("watch".into())
            .spawn(move || watcher.watch(&first, interval, |state| publish.send(state).is_ok()))
            .map_err(Error::system("start a thread"))?;
    }
    let slots = options.max_fed.get();
    let mut hub = Hub::master(tree, slots, Rules::default(), process::seed());
    options.max_upload.into_iter().for_each(|most| hub.limit_upload(most));
    hub.sign(signature);
    let shared = Rc::new(Shared {
        hub: RefCell::new(hub),
        files: RefCell::new(files),
        slots,
        door: RefCell::new(Door::new(MASTER_CONNECTIONS, options.allowed.clone())),
        bells: RefCell::new(HashMap::new()),
        ticker: Bell::default(),
        asleep_until: Cell::new(None),
        sums: Bell::default(),
        buffer: RefCell::new(vec![0; READ_BYTES]),
        report,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::system("start the runtime"))?;
    LocalSet::new().block_on(&runtime, async {
        spawn_local(publish_states(shared.clone(), states));
        spawn_local(tick(shared.clone()));
        spawn_local(find_checksums(shared.clone()));
        accept(shared, listener).await
    })
}

/// What all tasks share.
struct Shared {
    hub: RefCell<Hub>,
    files: RefCell<ServedFiles>,
    slots: usize,
    door: RefCell<Door>,
    bells: RefCell<HashMap<Conn, Rc<Bell>>>,
    ticker: Bell,
    /// Until when the ticker sleeps; None is for good.
    asleep_until: Cell<Option<Instant>>,
    /// Rung when classic clients wait for checksums.
    sums: Bell,
    buffer: RefCell<Vec<u8>>,
    report: Reporter,
}

impl Shared {
    /// Wakes whom the hub wants woken.
    fn distribute(&self) {
        let (wakes, log, joined) = {
            let mut hub = self.hub.borrow_mut();
            (hub.take_wakes(), hub.take_log(), hub.take_joined())
        };
        let bells = self.bells.borrow();
        wakes.iter().filter_map(|conn| bells.get(conn)).for_each(|bell| bell.ring());
        log.iter().for_each(|(peer, line)| self.report.notice(format_args!("{peer} says: {line}")));
        joined.iter().for_each(|node| self.report.info(format_args!("{node} has joined")));
        let asleep = self.asleep_until.get();
        if self.deadline().is_some_and(|due| asleep.is_none_or(|until| due < until)) {
            self.ticker.ring();
        }
        if self.hub.borrow().wants_checksum() {
            self.sums.ring();
        }
    }

    /// When something is due by the clock.
    fn deadline(&self) -> Option<Instant> {
        let hub = self.hub.borrow().deadline(Instant::now());
        [hub, self.door.borrow().deadline()].into_iter().flatten().min()
    }

    fn ring(&self, conn: Conn) {
        self.bells.borrow().get(&conn).into_iter().for_each(|bell| bell.ring());
    }
}

/// Wakes one task, and remembers it if the task is busy.
#[derive(Default)]
struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ready if it was rung since the last time it was ready.
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.rung.take() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

async fn accept(shared: Rc<Shared>, listener: TcpListener) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener)
        .map_err(Error::system("use the listening socket"))?;
    let mut last = 0;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let why = crate::error::reason(&error);
                shared.report.warning(format_args!("cannot accept a connection: {why}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        last += 1;
        let (peer, conn) = (tcp::canonical(peer), Conn(last));
        let knocked = shared.door.borrow_mut().knock(conn, peer.ip(), Instant::now());
        match knocked {
            Ok(gives_way) => {
                gives_way.into_iter().for_each(|conn| shared.ring(conn));
                spawn_local(connection(shared.clone(), stream, peer, conn));
            }
            Err(refusal) => shared.report.info(format_args!("{peer}: {refusal}")),
        }
    }
}

async fn publish_states(shared: Rc<Shared>, mut states: mpsc::UnboundedReceiver<State>) {
    while let Some(State { manifest, signature, scan }) = states.recv().await {
        let served = shared.hub.borrow().tree().clone();
        if manifest.generation() == served.manifest().generation() {
            shared.files.borrow_mut().publish(served, scan);
            shared.hub.borrow_mut().sign(signature);
            continue;
        }
        let generation = manifest.generation().to_hex();
        shared.report.notice(format_args!("the tree has changed: generation {generation}"));
        let tree = Arc::new(Tree::new(manifest));
        shared.files.borrow_mut().publish(tree.clone(), scan);
        let seed = process::seed();
        let mut hub = shared.hub.borrow_mut();
        hub.publish(tree, shared.slots, seed, Instant::now());
        hub.sign(signature);
        drop(hub);
        shared.distribute();
    }
}

/// Does what is due by the clock. Sleeps for good while nobody waits for anything; is woken when
/// something is due earlier than what it sleeps for.
async fn tick(shared: Rc<Shared>) {
    loop {
        let deadline = shared.deadline();
        shared.asleep_until.set(deadline);
        let rung = poll_fn(|cx| shared.ticker.poll(cx));
        match deadline {
            None => rung.await,
            Some(due) => _ = tokio::time::timeout_at(due.into(), rung).await,
        }
        let now = Instant::now();
        // Awake: what comes of this is looked at before it sleeps again.
        shared.asleep_until.set(Some(now));
        shared.hub.borrow_mut().tick(now);
        let late = shared.door.borrow_mut().late(now);
        late.into_iter().for_each(|conn| shared.ring(conn));
        shared.distribute();
    }
}

/// Finds out the checksums that classic clients wait for, one at a time and on another thread.
async fn find_checksums(shared: Rc<Shared>) {
    loop {
        poll_fn(|cx| shared.sums.poll(cx)).await;
        loop {
            let next = shared.hub.borrow_mut().next_checksum();
            let Some((tree, segment)) = next else { break };
            let source = |shared: &Shared| shared.files.borrow_mut().source(&tree, &segment);
            let sum = match source(&shared) {
                Ok((file, offset)) => {
                    let read = move || adler32::of_file(&file, offset, segment.len);
                    tokio::task::spawn_blocking(read).await.ok().and_then(Result::ok)
                }
                Err(_) => None,
            };
            // The file is still what was read, or the sum is of no use.
            let sum = sum.filter(|_| source(&shared).is_ok());
            shared.hub.borrow_mut().checksum_found(&tree, segment.entry, sum);
            shared.distribute();
        }
    }
}

async fn connection(shared: Rc<Shared>, stream: TcpStream, peer: SocketAddr, conn: Conn) {
    let bell = Rc::new(Bell::default());
    shared.bells.borrow_mut().insert(conn, bell.clone());
    shared.hub.borrow_mut().connected(conn, peer, Instant::now());
    let mut connection = Connection {
        session: Session::new(conn, shared.report.traces()),
        conn,
        peer,
        sending: None,
    };
    let chunk_bytes = shared.hub.borrow().layout().chunk_bytes();
    let tuned = tcp::tune(&stream).and_then(|()| tcp::limit_queue(&stream, chunk_bytes));
    let end = match tuned {
        Ok(()) => connection.serve(&shared, &stream, &bell).await,
        Err(error) => Err(error),
    };
    match end {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            shared.report.info(format_args!("{peer}: {}", crate::error::reason(&error)));
        }
        _ => {}
    }
    shared.bells.borrow_mut().remove(&conn);
    shared.door.borrow_mut().left(conn);
    connection.end(&shared);
    shared.distribute();
}

/// One client.
struct Connection {
    session: Session,
    conn: Conn,
    peer: SocketAddr,
    sending: Option<Sending>,
}

impl Connection {
    /// Answers until the other side hangs up (Ok) or something goes wrong.
    async fn serve(&mut self, shared: &Shared, stream: &TcpStream, bell: &Bell) -> io::Result<()> {
        loop {
            let before = self.progress();
            let blocked = self.advance(shared, stream)?;
            let waits = if blocked { Some(Wait::Taking) } else { self.session.waits() };
            {
                let mut door = shared.door.borrow_mut();
                door.observe(self.conn, self.progress() != before, waits, Instant::now());
                door.refusal(self.conn).map_or(Ok(()), |why| Err(io::Error::other(why)))?;
            }
            shared.distribute();
            let reads = self.session.wants_input();
            let (woken, readable) = poll_fn(|cx| {
                let woken = bell.poll(cx).is_ready();
                let readable = reads && stream.poll_read_ready(cx).is_ready();
                let writable = blocked && stream.poll_write_ready(cx).is_ready();
                match woken || readable || writable {
                    true => Poll::Ready((woken, readable)),
                    false => Poll::Pending,
                }
            })
            .await;
            if woken {
                self.session.resume(&mut *shared.hub.borrow_mut(), Instant::now());
            }
            if readable && self.read(shared, stream)? == 0 {
                return Ok(());
            }
        }
    }

    /// Changes with every request that comes and every byte that leaves.
    fn progress(&self) -> (u64, Option<u64>) {
        (self.session.requests_so_far(), self.sending.as_ref().map(Sending::sent))
    }

    /// Reads what there is; 0 when the other side has hung up.
    fn read(&mut self, shared: &Shared, stream: &TcpStream) -> io::Result<usize> {
        let mut buffer = shared.buffer.borrow_mut();
        match stream.try_read(&mut buffer) {
            Ok(n) => {
                self.session.receive(buffer.get(..n).unwrap_or_default());
                Ok(n)
            }
            // Ready it seemed, and was not: as good as one byte more of nothing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// Answers requests and sends replies until neither is possible; true if the socket is full.
    fn advance(&mut self, shared: &Shared, stream: &TcpStream) -> io::Result<bool> {
        loop {
            let now = Instant::now();
            let result = self.session.process(&mut *shared.hub.borrow_mut(), now);
            for line in self.session.take_trace() {
                shared.report.trace(self.peer, &line);
            }
            result.map_err(io::Error::other)?;
            let mut files = shared.files.borrow_mut();
            let mut sending = match self.sending.take() {
                Some(sending) => sending,
                None => {
                    let Some(output) = self.session.next_output() else { return Ok(false) };
                    match Sending::new(output, &mut *files) {
                        Ok(sending) => sending,
                        Err((data, error)) => {
                            // Not ESTALE: the tree may well turn out to be the same.
                            self.session.refuse(&data, Errno::EIO);
                            shared.report.info(format_args!(
                                "{}: a file cannot be sent: {}",
                                self.peer,
                                crate::error::reason(&error)
                            ));
                            if data.paced {
                                let at = At { conn: self.conn, now };
                                shared.hub.borrow_mut().sent(at, &data.range);
                            }
                            continue;
                        }
                    }
                }
            };
            let progress = stream.try_io(Interest::WRITABLE, || {
                match sending.advance(&SockRef::from(stream), &mut *files)? {
                    Progress::Done(range) => Ok(range),
                    Progress::Blocked => Err(io::ErrorKind::WouldBlock.into()),
                }
            });
            match progress {
                Ok(Some(range)) => {
                    shared.hub.borrow_mut().sent(At { conn: self.conn, now }, &range);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sending = Some(sending);
                    return Ok(true);
                }
                Err(error) => {
                    self.sending = Some(sending);
                    return Err(error);
                }
            }
        }
    }

    fn end(&mut self, shared: &Shared) {
        let now = Instant::now();
        let mut hub = shared.hub.borrow_mut();
        if let Some(range) = self.sending.take().and_then(|sending| sending.paced_range()) {
            hub.sent(At { conn: self.conn, now }, &range);
        }
        self.session.close(&mut *hub, now);
        hub.disconnected(self.conn, now);
    }
}
