//! What all tasks of a master share: the [`Engine`], the files, and what each connection's task is told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::connection::Peer;
use super::files::ServedFiles;
use super::proofs::Proofs;
use super::watch::Orders;
use crate::conn::Conn;
use crate::control::WrongChunk;
use crate::engine::{Action, Engine, Event};
use crate::process::notify::Manager;
use crate::process::report::Reporter;
use crate::serve::server;
use crate::units::{bytes, quantity};

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 16 << 10;
/// How long turns are given before those who have come meanwhile are heard.
const TURNS: Duration = Duration::from_micros(500);

/// What all tasks share.
pub(super) struct Shared {
    pub(super) engine: RefCell<Engine>,
    pub(super) files: RefCell<ServedFiles>,
    /// What is sent over HTTP is compared with these.
    pub(super) proofs: RefCell<Proofs>,
    /// What the watcher is asked for.
    pub(super) orders: Orders,
    /// How many nodes may take from the master at a time.
    pub(super) slots: usize,
    clients: RefCell<HashMap<Conn, Rc<Client>>>,
    /// Something is due earlier than what the task that keeps time sleeps for.
    pub(super) earlier: Notify,
    /// Until when it sleeps; None is for good.
    pub(super) asleep_until: Cell<Option<Instant>>,
    /// Somebody waits for a turn.
    work: Notify,
    /// Clients of 2009 wait for checksums.
    pub(super) checksums: Notify,
    pub(super) buffer: RefCell<Vec<u8>>,
    /// A connection has ended.
    pub(super) ended: Notify,
    /// There are other nodes, or other files.
    pub(super) nodes: Notify,
    pub(super) manager: Manager,
    pub(super) report: Reporter,
}

/// A connection: what its task is told, and what is done in its turns.
pub(super) struct Client {
    order: Cell<Order>,
    news: Notify,
    turn: Cell<Turn>,
    /// None: it speaks HTTP, and its task does what is to be done itself.
    pub(super) peer: Option<Peer>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Serve,
    Finish,
    Close,
}

/// How a connection stands to its next turn.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    #[default]
    Unasked,
    Asked,
    /// Its task has it.
    Given,
}

impl Client {
    fn new(peer: Option<Peer>) -> Client {
        Client { order: Cell::default(), news: Notify::new(), turn: Cell::default(), peer }
    }

    fn tell(&self, order: Order) {
        self.order.set(order);
        self.news.notify_one();
    }

    pub(super) fn order(&self) -> Order {
        self.order.get()
    }

    pub(super) fn has_to_close(&self) -> bool {
        self.order.get() == Order::Close
    }

    pub(super) fn waits_for_turn(&self) -> bool {
        self.turn.get() == Turn::Asked
    }

    /// Whether this task has the turn; asked once each time.
    pub(super) fn takes_turn(&self) -> bool {
        let given = self.turn.get() == Turn::Given;
        if given {
            self.turn.set(Turn::Unasked);
        }
        given
    }

    /// Ready once the engine has said anything about this connection.
    pub(super) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }
}

impl Shared {
    pub(super) fn new(
        engine: Engine,
        files: ServedFiles,
        slots: usize,
        orders: Orders,
        manager: Manager,
        report: Reporter,
    ) -> Shared {
        Shared {
            engine: RefCell::new(engine),
            files: RefCell::new(files),
            proofs: RefCell::default(),
            orders,
            slots,
            clients: RefCell::new(HashMap::new()),
            earlier: Notify::new(),
            asleep_until: Cell::new(None),
            work: Notify::new(),
            checksums: Notify::new(),
            buffer: RefCell::new(vec![0; READ_BYTES]),
            ended: Notify::new(),
            nodes: Notify::new(),
            manager,
            report,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Does what the engine says.
    pub(super) fn act(&self) {
        loop {
            let Some(action) = self.engine.borrow_mut().poll(Instant::now()) else { break };
            match action {
                Action::Finish(conn) => self.tell(conn, Order::Finish),
                Action::Close(conn) => self.tell(conn, Order::Close),
                Action::Report(event) => {
                    match &event {
                        Event::Serve(server::Event::Joined(_)) => self.nodes.notify_one(),
                        Event::Serve(server::Event::Reported(peer, line)) => {
                            self.doubt(peer.ip(), line);
                        }
                        _ => {}
                    }
                    self.report.say(event.level(), &event);
                }
                // A master asks nobody.
                Action::Dial(..) | Action::Send(_) | Action::Resolve => {}
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
        if engine.has_turns() {
            self.work.notify_one();
        }
    }

    /// There is something to do for a connection.
    pub(super) fn ready(&self, conn: Conn, client: &Client) {
        if client.turn.get() == Turn::Unasked {
            client.turn.set(Turn::Asked);
            self.engine.borrow_mut().ready(conn);
            self.act();
        }
    }

    /// Does what connections ask for, each in its turn.
    pub(super) async fn work(self: Rc<Self>) {
        loop {
            self.work.notified().await;
            let began = Instant::now();
            let mut now = began;
            while now.saturating_duration_since(began) < TURNS {
                let Some(conn) = self.engine.borrow_mut().next_turn() else { break };
                let Some(client) = self.clients.borrow().get(&conn).cloned() else { break };
                match &client.peer {
                    Some(peer) => {
                        client.turn.set(Turn::Unasked);
                        peer.turn(&self, conn);
                        let before = std::mem::replace(&mut now, Instant::now());
                        self.turn_ended(conn, now.saturating_duration_since(before));
                    }
                    None => client.turn.set(Turn::Given),
                }
                client.news.notify_one();
            }
            // Meanwhile others want to be heard.
            tokio::task::yield_now().await;
        }
    }

    /// A connection has had its turn.
    pub(super) fn turn_ended(&self, conn: Conn, took: Duration) {
        self.engine.borrow_mut().turn_ended(conn, took);
        self.act();
    }

    /// A chunk that a node says is wrong is read again; nothing else follows from what it says.
    fn doubt(&self, host: IpAddr, line: &str) {
        if let Some(wrong) = WrongChunk::parse(line) {
            self.orders.doubt(host, wrong.chunk);
        }
    }

    fn tell(&self, conn: Conn, order: Order) {
        if let Some(client) = self.clients.borrow().get(&conn) {
            client.tell(order);
        }
    }

    /// A connection that the engine has taken.
    pub(super) fn add(&self, conn: Conn, peer: Option<Peer>) -> Rc<Client> {
        let client = Rc::new(Client::new(peer));
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
    pub(super) fn status(&self) -> String {
        let engine = self.engine.borrow();
        let hub = engine.hub();
        let files = quantity(self.files.borrow().count(), "file");
        let (size, nodes) =
            (bytes(hub.layout().image_bytes()), quantity(hub.members().serving() as u64, "node"));
        format!("serving {files}, {size}; {nodes} serving others")
    }
}
