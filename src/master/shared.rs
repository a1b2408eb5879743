//! What all tasks of a master share: the [`Engine`], the files, and what each connection's task is told.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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
const READ_BYTES: usize = 64 << 10;

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

/// What the task of a connection is told.
#[derive(Default)]
pub(super) struct Client {
    order: Cell<Order>,
    news: Notify,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
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

    pub(super) fn order(&self) -> Order {
        self.order.get()
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
                Action::Send(conn) => self.tell(conn, Order::Send),
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
    pub(super) fn status(&self) -> String {
        let engine = self.engine.borrow();
        let hub = engine.hub();
        let files = quantity(self.files.borrow().count(), "file");
        let (size, nodes) =
            (bytes(hub.layout().image_bytes()), quantity(hub.members().serving() as u64, "node"));
        format!("serving {files}, {size}; {nodes} serving others")
    }
}
