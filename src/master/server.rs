//! The async driver: one task a connection on one thread, all over the same hub.
//!
//! A task holds its session and little else; the buffer that bytes are read into is shared, so that
//! an idle connection costs about two kilobytes.
//!
//! SIGHUP has the whole tree looked at, SIGTERM and SIGINT let every client have what it is being sent.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::diff::Change;
use super::files::ServedFiles;
use super::http;
use super::watch::{News, State, Watcher};
use crate::cli;
use crate::error::Error;
use crate::image::manifest::Content;
use crate::limits::MASTER_CONNECTIONS;
use crate::net::adler32;
use crate::net::send::{Files, Progress, Sending};
use crate::net::tcp;
use crate::p9::errno::Errno;
use crate::process::notify::{self, Manager};
use crate::process::report::Reporter;
use crate::serve::admission::Door;
use crate::serve::hub::Hub;
use crate::serve::session::{At, Conn, Host, Session, Wait};
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;
use crate::sys::process;
use crate::sys::signals::{Signal, Signals};
use crate::units::{bytes, quantity};

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 64 << 10;
/// Wait after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long clients may take for what they are being sent when this process is told to end.
const LEAVE: Duration = Duration::from_secs(5);
/// Between two messages to the service manager about the nodes.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
pub(super) fn run(
    listeners: Vec<TcpListener>,
    http: http::Listeners,
    first: State,
    watcher: Watcher,
    options: &cli::ServeOptions,
    report: Reporter,
    manager: Manager,
) -> Result<(), Error> {
    let (publish, news) = mpsc::unbounded_channel();
    let (rescan, orders) = std_mpsc::channel();
    let tree = Arc::new(Tree::new(first.manifest.clone()));
    let mut files = ServedFiles::default();
    files.publish(tree.clone(), first.scan.clone());
    let signature = first.signature.clone();
    let interval = options.rescan;
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || watcher.watch(&first, interval, &orders, |news| publish.send(news).is_ok()))
        .map_err(Error::system("start a thread"))?;
    let slots = options.max_fed.get();
    let mut hub = Hub::master(tree, slots, Rules::default(), process::seed());
    options.max_upload.into_iter().for_each(|most| hub.limit_upload(most));
    hub.sign(signature);
    http::equip(&mut hub);
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
        last_conn: Cell::new(0),
        leaving: Cell::new(false),
        left: Bell::default(),
        nodes: Bell::default(),
        manager,
        report,
    });
    let signals = Signals::watch(true).map_err(Error::system("wait for signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::system("start the event loop"))?;
    let served: Result<(), Error> = LocalSet::new().block_on(&runtime, async {
        let unusable = Error::system("use the listening socket");
        let listeners: io::Result<Vec<_>> =
            listeners.into_iter().map(tokio::net::TcpListener::from_std).collect();
        let listeners = listeners.map_err(unusable)?;
        let signals = UnixStream::from_std(signals.into_stream())
            .map_err(Error::system("wait for signals"))?;
        spawn_local(hear(shared.clone(), news));
        spawn_local(tick(shared.clone()));
        spawn_local(find_checksums(shared.clone()));
        spawn_local(tell_manager(shared.clone()));
        spawn_local(feed_watchdog(shared.clone()));
        let enter = |listener| spawn_local(accept(shared.clone(), listener));
        let mut entrances: Vec<JoinHandle<()>> = listeners.into_iter().map(enter).collect();
        entrances.extend(http.open(&shared)?);
        shared.manager.ready(&shared.status());
        serve_until_the_end(&shared, &signals, &rescan).await;
        leave(&shared, &signals, &entrances).await;
        Ok(())
    });
    // Nobody waits for a checksum any more.
    runtime.shutdown_background();
    served
}

/// What all tasks share.
pub(super) struct Shared {
    pub(super) hub: RefCell<Hub>,
    pub(super) files: RefCell<ServedFiles>,
    slots: usize,
    pub(super) door: RefCell<Door>,
    last_conn: Cell<u64>,
    pub(super) bells: RefCell<HashMap<Conn, Rc<Bell>>>,
    ticker: Bell,
    /// Until when the ticker sleeps; None is for good.
    asleep_until: Cell<Option<Instant>>,
    /// Rung when classic clients wait for checksums.
    sums: Bell,
    buffer: RefCell<Vec<u8>>,
    /// Requests are not taken any more.
    pub(super) leaving: Cell<bool>,
    /// Rung when a connection has ended.
    pub(super) left: Bell,
    /// Rung when there are other nodes, or other files.
    nodes: Bell,
    manager: Manager,
    pub(super) report: Reporter,
}

impl Shared {
    /// Wakes whom the hub wants woken.
    pub(super) fn distribute(&self) {
        let (wakes, log, joined) = {
            let mut hub = self.hub.borrow_mut();
            (hub.take_wakes(), hub.take_log(), hub.take_joined())
        };
        let bells = self.bells.borrow();
        wakes.iter().filter_map(|conn| bells.get(conn)).for_each(|bell| bell.ring());
        log.iter()
            .for_each(|(peer, line)| self.report.warning(format_args!("{peer} reports: {line}")));
        if !joined.is_empty() {
            self.nodes.ring();
        }
        joined.iter().for_each(|node| self.report.info(format_args!("{node} joined")));
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

    /// What is served, and to how many, in a line.
    fn status(&self) -> String {
        let hub = self.hub.borrow();
        let files = hub.tree().manifest().listing().entries().iter();
        let files = files.filter(|e| matches!(e.content, Content::File { .. })).count();
        let files = quantity(files as u64, "file");
        let (size, nodes) =
            (bytes(hub.layout().image_bytes()), quantity(hub.members().serving() as u64, "node"));
        format!("serving {files}, {size}; {nodes} serving others")
    }

    fn ring(&self, conn: Conn) {
        self.bells.borrow().get(&conn).into_iter().for_each(|bell| bell.ring());
    }
}

/// Wakes one task, and remembers it if the task is busy.
#[derive(Default)]
pub(super) struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ready if it was rung since the last time it was ready.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.rung.take() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Does what signals ask for, until one asks for the end.
async fn serve_until_the_end(shared: &Shared, signals: &UnixStream, rescan: &std_mpsc::Sender<()>) {
    // A terminal that goes sends this signal as well.
    let had_terminal = io::stdin().is_terminal();
    loop {
        match next_signal(signals).await {
            Signal::Reload if !had_terminal || io::stdin().is_terminal() => {
                shared.manager.reloading("rescanning the tree");
                // Without a watcher nothing would be served any more.
                let _ = rescan.send(());
            }
            Signal::Reload | Signal::End => return,
        }
    }
}

async fn next_signal(signals: &UnixStream) -> Signal {
    poll_fn(|cx| {
        loop {
            let mut byte = [0];
            match signals.try_read(&mut byte) {
                Ok(1) => return Poll::Ready(Signal::read_as(byte[0])),
                // To wait anew, unless one has come in between.
                _ if signals.poll_read_ready(cx).is_pending() => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await
}

/// Takes nobody in and no request from now on. Every client gets what it is being sent, as far as there
/// is time and no further signal.
async fn leave(shared: &Shared, signals: &UnixStream, entrances: &[JoinHandle<()>]) {
    entrances.iter().for_each(JoinHandle::abort);
    shared.leaving.set(true);
    let n = shared.bells.borrow().len();
    let text = format!(
        "stopping: finishing the replies of {} for at most {} s",
        quantity(n as u64, "connection"),
        LEAVE.as_secs()
    );
    shared.report.notice(&text);
    shared.manager.stopping(&text);
    shared.bells.borrow().values().for_each(|bell| bell.ring());
    let mut signal = std::pin::pin!(next_signal(signals));
    let all_have_left = poll_fn(|cx| {
        // Each time it is rung another one is gone.
        while shared.left.poll(cx).is_ready() {}
        match shared.bells.borrow().is_empty() || signal.as_mut().poll(cx).is_ready() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    // What is not sent by then is not sent.
    let _ = tokio::time::timeout(LEAVE, all_have_left).await;
}

/// Tells the service manager how many nodes there are, when that changes.
async fn tell_manager(shared: Rc<Shared>) {
    loop {
        poll_fn(|cx| shared.nodes.poll(cx)).await;
        shared.manager.status(&shared.status());
        tokio::time::sleep(STATUS_PAUSE).await;
    }
}

/// Tells the service manager again and again that this thread, which does everything for clients, goes on.
async fn feed_watchdog(shared: Rc<Shared>) {
    let Some(pause) = notify::watchdog() else { return };
    loop {
        shared.manager.alive();
        tokio::time::sleep(pause).await;
    }
}

async fn accept(shared: Rc<Shared>, listener: tokio::net::TcpListener) {
    loop {
        let (stream, peer, conn) = next_guest(&shared, &listener).await;
        spawn_local(connection(shared.clone(), stream, peer, conn));
    }
}

/// The next connection that is let in.
pub(super) async fn next_guest(
    shared: &Shared,
    listener: &tokio::net::TcpListener,
) -> (TcpStream, SocketAddr, Conn) {
    let mut fails = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Once: it is tried again and again.
                if !std::mem::replace(&mut fails, true) {
                    let why = crate::error::reason(&error);
                    shared.report.warning(format_args!("cannot accept connections: {why}"));
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        fails = false;
        let last = shared.last_conn.get() + 1;
        shared.last_conn.set(last);
        let (peer, conn) = (tcp::canonical(peer), Conn(last));
        let knocked = shared.door.borrow_mut().knock(conn, peer.ip(), Instant::now());
        match knocked {
            Ok(gives_way) => {
                gives_way.into_iter().for_each(|conn| shared.ring(conn));
                return (stream, peer, conn);
            }
            Err(refusal) => shared.report.info(format_args!("{peer}: {refusal}")),
        }
    }
}

/// Publishes what the watcher finds.
async fn hear(shared: Rc<Shared>, mut news: mpsc::UnboundedReceiver<News>) {
    while let Some(news) = news.recv().await {
        match news {
            News::State(state) => publish(&shared, state),
            News::Looked { changed } => {
                if !changed {
                    shared.report.notice("rescan finished: nothing has changed");
                }
                shared.manager.ready(&shared.status());
            }
        }
    }
}

fn publish(shared: &Shared, State { manifest, signature, scan }: State) {
    let served = shared.hub.borrow().tree().clone();
    if manifest.generation() == served.manifest().generation() {
        shared.files.borrow_mut().publish(served, scan);
        shared.hub.borrow_mut().sign(signature);
        return;
    }
    let (generation, change) =
        (manifest.generation().to_hex(), Change::between(served.manifest(), &manifest));
    shared.report.notice(format_args!("the tree has changed: generation {generation} ({change})"));
    let tree = Arc::new(Tree::new(manifest));
    shared.files.borrow_mut().publish(tree.clone(), scan);
    let seed = process::seed();
    let mut hub = shared.hub.borrow_mut();
    hub.publish(tree, shared.slots, seed, Instant::now());
    hub.sign(signature);
    drop(hub);
    shared.distribute();
    shared.nodes.ring();
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
    shared.left.ring();
    shared.nodes.ring();
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
            if shared.leaving.get() && !blocked {
                return say_goodbye(stream).await;
            }
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
                                "{}: cannot send a file: {}",
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

/// Ends a connection on this side, and waits for the other. What still comes is read all the same, or
/// the end of the connection would take what was sent last with it.
async fn say_goodbye(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(Shutdown::Write)?;
    let mut unheard = [0; 512];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut unheard) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}
