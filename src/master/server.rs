//! The async driver of a master: one task a connection, all on one thread and with the same [`Engine`].
//!
//! A task holds its socket and little else; the buffer that bytes are read into is shared, so that an idle
//! connection costs about two kilobytes.
//!
//! SIGHUP has the whole tree looked at, SIGTERM and SIGINT let every client have what it is being sent.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::io::{self, IsTerminal};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::diff::Change;
use super::files::ServedFiles;
use super::http;
use super::watch::{News, State, Watcher};
use crate::cli;
use crate::conn::Conn;
use crate::engine::{Action, Engine, Event};
use crate::error::{Error, reason};
use crate::image::manifest::Content;
use crate::limits::MASTER_CONNECTIONS;
use crate::net::adler32;
use crate::net::send::{Files, Outgoing, Progress};
use crate::net::tcp;
use crate::process::notify::{self, Manager};
use crate::process::report::Reporter;
use crate::serve::admission::Admission;
use crate::serve::hub::Hub;
use crate::serve::server;
use crate::serve::session::Host as _;
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
    if let Some(most) = options.max_upload {
        hub.limit_upload(most);
    }
    hub.sign(signature);
    http::equip(&mut hub);
    let admission = Admission::new(MASTER_CONNECTIONS, options.allowed.clone());
    let shared = Rc::new(Shared {
        engine: RefCell::new(Engine::master(hub, admission, report.traces())),
        files: RefCell::new(files),
        slots,
        clients: RefCell::new(HashMap::new()),
        earlier: Notify::new(),
        asleep_until: Cell::new(None),
        checksums: Notify::new(),
        buffer: RefCell::new(vec![0; READ_BYTES]),
        ended: Notify::new(),
        nodes: Notify::new(),
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
        spawn_local(keep_time(shared.clone()));
        spawn_local(find_checksums(shared.clone()));
        spawn_local(tell_manager(shared.clone()));
        spawn_local(feed_watchdog(shared.clone()));
        let accept = |listener| spawn_local(accept(shared.clone(), listener));
        let mut acceptors: Vec<JoinHandle<()>> = listeners.into_iter().map(accept).collect();
        acceptors.extend(http.open(&shared)?);
        shared.manager.ready(&shared.status());
        serve_until_the_end(&shared, &signals, &rescan).await;
        stop(&shared, &signals, &acceptors).await;
        Ok(())
    });
    // Nobody waits for a checksum any more.
    runtime.shutdown_background();
    served
}

/// What all tasks share.
pub(super) struct Shared {
    pub(super) engine: RefCell<Engine>,
    pub(super) files: RefCell<ServedFiles>,
    slots: usize,
    clients: RefCell<HashMap<Conn, Rc<Client>>>,
    /// Something is due earlier than what [`keep_time`] sleeps for.
    earlier: Notify,
    /// Until when it sleeps; None is for good.
    asleep_until: Cell<Option<Instant>>,
    /// Clients of 2009 wait for checksums.
    checksums: Notify,
    buffer: RefCell<Vec<u8>>,
    /// A connection has ended.
    ended: Notify,
    /// There are other nodes, or other files.
    nodes: Notify,
    manager: Manager,
    pub(super) report: Reporter,
}

/// What the task of a connection is told.
#[derive(Default)]
pub(super) struct Client {
    order: Cell<Order>,
    news: Notify,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Send,
    Finish,
    Close,
}

impl Client {
    fn tell(&self, order: Order) {
        self.order.set(order);
        self.news.notify_one();
    }

    pub(super) fn has_to_close(&self) -> bool {
        self.order.get() == Order::Close
    }

    /// Ready once the engine has said anything about this connection.
    pub(super) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }
}

impl Shared {
    /// Does what the engine says.
    pub(super) fn act(&self) {
        loop {
            let Some(action) = self.engine.borrow_mut().poll(Instant::now()) else { break };
            match action {
                Action::Send(conn) => self.tell(conn, Order::Send),
                Action::Finish(conn) => self.tell(conn, Order::Finish),
                Action::Close(conn) => self.tell(conn, Order::Close),
                Action::Report(event) => {
                    if let Event::Serve(server::Event::Joined(_)) = event {
                        self.nodes.notify_one();
                    }
                    self.report.say(event.level(), &event);
                }
                // A master asks nobody.
                Action::Dial(..) | Action::Resolve => {}
            }
        }
        let engine = self.engine.borrow();
        let asleep = self.asleep_until.get();
        let due = engine.next_timeout(Instant::now());
        if due.is_some_and(|due| asleep.is_none_or(|until| due < until)) {
            self.earlier.notify_one();
        }
        if engine.hub().wants_checksum() {
            self.checksums.notify_one();
        }
    }

    fn tell(&self, conn: Conn, order: Order) {
        if let Some(client) = self.clients.borrow().get(&conn) {
            client.tell(order);
        }
    }

    /// A connection that the engine has taken.
    pub(super) fn add(&self, conn: Conn) -> Rc<Client> {
        let client = Rc::new(Client::default());
        self.clients.borrow_mut().insert(conn, client.clone());
        client
    }

    /// A connection has ended; the error is None if the other side has closed it.
    pub(super) fn end(&self, conn: Conn, error: Option<String>) {
        self.clients.borrow_mut().remove(&conn);
        self.engine.borrow_mut().closed(conn, error.as_deref(), Instant::now());
        self.act();
        self.ended.notify_one();
        self.nodes.notify_one();
    }

    /// What is served, and to how many, in a line.
    fn status(&self) -> String {
        let engine = self.engine.borrow();
        let hub = engine.hub();
        let files = hub.tree().manifest().listing().entries().iter();
        let files = files.filter(|e| matches!(e.content, Content::File { .. })).count();
        let files = quantity(files as u64, "file");
        let (size, nodes) =
            (bytes(hub.layout().image_bytes()), quantity(hub.members().serving() as u64, "node"));
        format!("serving {files}, {size}; {nodes} serving others")
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

/// Accepts no connection and no request from now on. Every client gets what it is being sent, as far as there
/// is time and no further signal.
async fn stop(shared: &Shared, signals: &UnixStream, acceptors: &[JoinHandle<()>]) {
    for acceptor in acceptors {
        acceptor.abort();
    }
    let n = shared.clients.borrow().len();
    let text = format!(
        "stopping: finishing the replies of {} for at most {} s",
        quantity(n as u64, "connection"),
        LEAVE.as_secs()
    );
    shared.report.notice(&text);
    shared.manager.stopping(&text);
    shared.engine.borrow_mut().stop();
    shared.act();
    let mut all_have_ended = pin!(async {
        while !shared.clients.borrow().is_empty() {
            shared.ended.notified().await;
        }
    });
    let mut signal = pin!(next_signal(signals));
    let end = poll_fn(|cx| {
        let ended = all_have_ended.as_mut().poll(cx).is_ready();
        if ended || signal.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    // What is not sent by then is not sent.
    let _ = tokio::time::timeout(LEAVE, end).await;
}

/// Tells the service manager how many nodes there are, when that changes.
async fn tell_manager(shared: Rc<Shared>) {
    loop {
        shared.nodes.notified().await;
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
    let mut acceptor = Acceptor::new(listener);
    loop {
        let (stream, peer) = acceptor.next(&shared).await;
        let conn = shared.engine.borrow_mut().accept(peer, Instant::now());
        if let Some(conn) = conn {
            spawn_local(connection(shared.clone(), stream, conn, shared.add(conn)));
        }
        shared.act();
    }
}

/// Takes connections from a listening socket.
pub(super) struct Acceptor {
    listener: tokio::net::TcpListener,
    fails: bool,
}

impl Acceptor {
    pub(super) fn new(listener: tokio::net::TcpListener) -> Acceptor {
        Acceptor { listener, fails: false }
    }

    pub(super) async fn next(&mut self, shared: &Shared) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.fails = false;
                    return (stream, tcp::canonical(peer));
                }
                Err(error) => {
                    // Once: it is tried again and again.
                    if !std::mem::replace(&mut self.fails, true) {
                        let why = reason(&error);
                        shared.report.warning(format_args!("cannot accept connections: {why}"));
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
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
    let served = shared.engine.borrow().hub().tree().clone();
    if manifest.generation() == served.manifest().generation() {
        shared.files.borrow_mut().publish(served, scan);
        shared.engine.borrow_mut().hub_mut().sign(signature);
        return;
    }
    let (generation, change) =
        (manifest.generation().to_hex(), Change::between(served.manifest(), &manifest));
    shared.report.notice(format_args!("the tree has changed: generation {generation} ({change})"));
    let tree = Arc::new(Tree::new(manifest));
    shared.files.borrow_mut().publish(tree.clone(), scan);
    let seed = process::seed();
    let mut engine = shared.engine.borrow_mut();
    engine.hub_mut().publish(tree, shared.slots, seed, Instant::now());
    engine.hub_mut().sign(signature);
    drop(engine);
    shared.act();
    shared.nodes.notify_one();
}

/// Does what is due by the clock. Sleeps for good while nobody waits for anything; is woken when
/// something is due earlier than what it sleeps for.
async fn keep_time(shared: Rc<Shared>) {
    loop {
        let due = shared.engine.borrow().next_timeout(Instant::now());
        shared.asleep_until.set(due);
        let earlier = shared.earlier.notified();
        match due {
            None => earlier.await,
            Some(due) => _ = tokio::time::timeout_at(due.into(), earlier).await,
        }
        // Awake: what comes of this is looked at before it sleeps again.
        shared.asleep_until.set(Some(Instant::now()));
        shared.act();
    }
}

/// Finds out the checksums that classic clients wait for, one at a time and on another thread.
async fn find_checksums(shared: Rc<Shared>) {
    loop {
        shared.checksums.notified().await;
        loop {
            let next = shared.engine.borrow_mut().hub_mut().next_checksum();
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
            shared.engine.borrow_mut().hub_mut().checksum_found(&tree, segment.entry, sum);
            shared.act();
        }
    }
}

async fn connection(shared: Rc<Shared>, stream: TcpStream, conn: Conn, client: Rc<Client>) {
    let chunk_bytes = shared.engine.borrow().hub().layout().chunk_bytes();
    let tuned = tcp::tune(&stream).and_then(|()| tcp::limit_queue(&stream, chunk_bytes));
    let end = match tuned {
        Ok(()) => Connection { conn, outgoing: None }.serve(&shared, &stream, &client).await,
        Err(error) => Err(error),
    };
    shared.end(conn, end.err().map(|error| reason(&error)));
}

/// One client.
struct Connection {
    conn: Conn,
    /// What the socket has not taken as a whole.
    outgoing: Option<Outgoing>,
}

impl Connection {
    /// Answers until either side closes the connection (Ok) or something goes wrong.
    async fn serve(
        &mut self,
        shared: &Shared,
        stream: &TcpStream,
        client: &Client,
    ) -> io::Result<()> {
        loop {
            let reads = shared.engine.borrow().wants_input(self.conn);
            let mut news = pin!(client.news());
            let (sends, readable) = poll_fn(|cx| {
                let told = news.as_mut().poll(cx).is_ready();
                let readable = reads && stream.poll_read_ready(cx).is_ready();
                let blocked = self.outgoing.is_some();
                let writable = blocked && stream.poll_write_ready(cx).is_ready();
                if told || readable || writable {
                    Poll::Ready((writable || told && !blocked, readable))
                } else {
                    Poll::Pending
                }
            })
            .await;
            match client.order.get() {
                Order::Close => return Ok(()),
                Order::Finish if self.outgoing.is_none() => return drain(stream).await,
                Order::Send | Order::Finish => {}
            }
            if sends {
                self.send(shared, stream)?;
            }
            if readable && self.read(shared, stream)? == 0 {
                return Ok(());
            }
            shared.act();
        }
    }

    /// Reads what there is; 0 when the other side has closed the connection.
    fn read(&self, shared: &Shared, stream: &TcpStream) -> io::Result<usize> {
        let mut buffer = shared.buffer.borrow_mut();
        match stream.try_read(&mut buffer) {
            Ok(n) => {
                let mut bytes = buffer.get(..n).unwrap_or_default();
                // A client sends requests alone, of which nothing is to be stored.
                let now = Instant::now();
                while shared.engine.borrow_mut().receive(self.conn, &mut bytes, now).is_some() {}
                Ok(n)
            }
            // Ready it seemed, and was not: as good as one byte more of nothing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// Sends what there is until there is nothing more or the socket is full.
    fn send(&mut self, shared: &Shared, stream: &TcpStream) -> io::Result<()> {
        let mut engine = shared.engine.borrow_mut();
        let mut files = shared.files.borrow_mut();
        loop {
            let now = Instant::now();
            let mut outgoing = match self.outgoing.take() {
                Some(outgoing) => outgoing,
                None => {
                    let Some(output) = engine.next_output(self.conn, now) else { return Ok(()) };
                    match Outgoing::new(output, &mut *files) {
                        Ok(outgoing) => outgoing,
                        Err(error) => {
                            engine.output_is_unreadable(self.conn, reason(&error), now);
                            continue;
                        }
                    }
                }
            };
            let before = outgoing.sent();
            let sent = stream.try_io(Interest::WRITABLE, || {
                match outgoing.advance(&SockRef::from(stream), &mut *files)? {
                    Progress::Done => Ok(()),
                    Progress::Blocked => Err(io::ErrorKind::WouldBlock.into()),
                }
            });
            match sent {
                Ok(()) => engine.output_left(self.conn, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let progress = outgoing.sent() != before;
                    self.outgoing = Some(outgoing);
                    engine.output_is_blocked(self.conn, progress, now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Ends a connection on this side, and waits for the other. What still comes is read all the same, or
/// the end of the connection would take what was sent last with it.
async fn drain(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(Shutdown::Write)?;
    let mut unread = [0; 512];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut unread) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}
