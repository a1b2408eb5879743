//! The whole of what a process does in the swarm, without sockets, files and clock.
//!
//! An [`Engine`] joins the answering side ([`Server`]) and the asking side ([`Fetch`]). It is told what happens:
//! connections, bytes that arrive, chunks that are stored, the time. [`Engine::poll`] then says what to do: dial,
//! send, close, report. Its drivers own sockets and files and decide nothing; the master's, the node's and the
//! simulator's drive the same code.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::fetch::{self, Fetch, Incoming};
use crate::image::chunks::ChunkId;
use crate::level::Level;
use crate::limits::{MASTER_REQUEST_BYTES_PER_S, NODE_REQUEST_BYTES_PER_S};
use crate::serve::admission::Admission;
use crate::serve::hub::Hub;
use crate::serve::server::{self, Server};
use crate::serve::session::{Host as _, Output};
use crate::serve::tree::Tree;

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the address; then [`Engine::connected`] or [`Engine::closed`].
    Dial(Conn, SocketAddr),
    /// There may be something to send on this connection, which was dialed: see [`Engine::next_output`].
    Send(Conn),
    /// Close the connection, which is forgotten here.
    Close(Conn),
    /// Nothing more will be sent on this connection. Shut down its sending half, and read until the other side
    /// closes it: what is unread when a socket is closed takes sent bytes with it (RFC 1122, section 4.2.2.13).
    Finish(Conn),
    /// Look the name of the origin up again; then [`Engine::set_origin`].
    Resolve,
    /// Log this.
    Report(Event),
}

impl From<server::Action> for Action {
    fn from(action: server::Action) -> Action {
        match action {
            server::Action::Close(conn) => Action::Close(conn),
            server::Action::Finish(conn) => Action::Finish(conn),
            server::Action::Report(event) => Action::Report(Event::Serve(event)),
        }
    }
}

impl From<fetch::Action> for Action {
    fn from(action: fetch::Action) -> Action {
        match action {
            fetch::Action::Dial(conn, address) => Action::Dial(conn, address),
            fetch::Action::Send(conn) => Action::Send(conn),
            fetch::Action::Close(conn) => Action::Close(conn),
            fetch::Action::Resolve => Action::Resolve,
            fetch::Action::Report(event) => Action::Report(Event::Fetch(event)),
        }
    }
}

/// Something that an administrator may want to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Of the answering side.
    Serve(server::Event),
    /// Of the asking side.
    Fetch(fetch::Event),
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Event::Serve(event) => event.level(),
            Event::Fetch(event) => event.level(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Serve(event) => event.fmt(f),
            Event::Fetch(event) => event.fmt(f),
        }
    }
}

/// What one process does in the swarm.
#[derive(Debug)]
pub struct Engine {
    server: Server,
    /// A master's wants nothing.
    fetch: Fetch,
}

impl Engine {
    /// A master.
    pub fn master(hub: Hub, admission: Admission, traces: bool) -> Engine {
        let fetch = Fetch::of_nothing(hub.tree().manifest().clone());
        let server = Server::new(hub, admission, MASTER_REQUEST_BYTES_PER_S, traces);
        Engine { server, fetch }
    }

    /// A node that shows `tree` to others. Nobody was asked yet.
    pub fn node(tree: Arc<Tree>, admission: Admission, start: fetch::Start) -> Engine {
        let (wanted, held) = (start.wanted.clone(), start.held.clone());
        let hub = Hub::node(tree, wanted, held, start.rules, start.seed);
        let server = Server::new(hub, admission, NODE_REQUEST_BYTES_PER_S, start.traces);
        Engine { server, fetch: Fetch::new(start) }
    }

    /// The answering side.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The same, to be changed.
    pub fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    /// What is served, and who takes part.
    pub fn hub(&self) -> &Hub {
        self.server.hub()
    }

    /// The same, to be changed.
    pub fn hub_mut(&mut self) -> &mut Hub {
        self.server.hub_mut()
    }

    /// The asking side.
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// A connection came in. Its number, or None if it is not taken: close it.
    pub fn accept(&mut self, address: SocketAddr, now: Instant) -> Option<Conn> {
        self.server.accept(address, now)
    }

    /// A connection that was dialed is made; `own` is this node's address on it.
    pub fn connected(&mut self, conn: Conn, own: IpAddr, now: Instant) {
        self.fetch.connected(conn, own, now);
    }

    /// A connection has ended, or could not be made. Without a reason the other side has closed it.
    pub fn closed(&mut self, conn: Conn, why: Option<&str>, now: Instant) {
        if conn.is_dialed() {
            self.fetch.closed(conn, why, now);
        } else {
            self.server.closed(conn, why, now);
        }
    }

    /// Whether bytes of this connection should be read at present.
    pub fn wants_input(&self, conn: Conn) -> bool {
        conn.is_dialed() || self.server.wants_input(conn)
    }

    /// Takes bytes that arrived, and gives what of them is to be stored, one thing after the other; None when all of
    /// them are used up.
    pub fn receive<'a>(
        &mut self,
        conn: Conn,
        bytes: &mut &'a [u8],
        now: Instant,
    ) -> Option<Incoming<'a>> {
        if conn.is_dialed() {
            self.fetch.receive(conn, bytes, now)
        } else {
            self.server.receive(conn, std::mem::take(bytes), now);
            None
        }
    }

    /// A chunk that was [`Incoming::Verified`] can be read from where it is stored: others may have it.
    pub fn stored(&mut self, chunk: ChunkId, now: Instant) {
        self.server.hub_mut().holds(chunk, now);
    }

    /// There is something to read from a connection that was accepted, or it takes bytes again.
    pub fn ready(&mut self, conn: Conn) {
        self.server.ready(conn);
    }

    /// Of the connections that were accepted, the one whose turn it is: see [`Server::next_turn`].
    pub fn next_turn(&mut self) -> Option<Conn> {
        self.server.next_turn()
    }

    /// All was done in a connection's turn, which took so long.
    pub fn turn_ended(&mut self, conn: Conn, took: Duration) {
        self.server.turn_ended(conn, took);
    }

    /// Whether there is a turn to be had at once.
    pub fn has_turns(&self) -> bool {
        self.server.has_turns()
    }

    /// The next thing to send on a connection, once the one before has left ([`Engine::output_left`]).
    pub fn next_output(&mut self, conn: Conn, now: Instant) -> Option<Output> {
        if conn.is_dialed() {
            self.fetch.next_output(conn).map(Output::Reply)
        } else {
            self.server.next_output(conn, now)
        }
    }

    /// The last output has left as a whole.
    pub fn output_left(&mut self, conn: Conn, now: Instant) {
        self.server.output_left(conn, now);
    }

    /// The last output cannot be sent, since its file cannot be read. Nothing of it may have been sent.
    pub fn output_is_unreadable(&mut self, conn: Conn, why: String, now: Instant) {
        self.server.output_is_unreadable(conn, why, now);
    }

    /// The socket takes no more of the last output at present; with `progress` it has taken some bytes since this was
    /// last said.
    pub fn output_is_blocked(&mut self, conn: Conn, progress: bool, now: Instant) {
        self.server.output_is_blocked(conn, progress, now);
    }

    /// The origin was looked up again.
    pub fn set_origin(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.fetch.set_origin(addresses, now);
    }

    /// Something has gone wrong at this node that the origin's log should have; see [`Fetch::trouble`].
    pub fn trouble(&mut self, line: &str) {
        self.fetch.trouble(line);
    }

    /// Takes no requests from now on. Every client gets the replies that are made, then [`Action::Finish`].
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// The next thing to do, until there is none: then something has to happen, or the time of
    /// [`Engine::next_timeout`] to come.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if self.server.next_timeout(now).is_some_and(|at| at <= now) {
            self.server.timeout(now);
        }
        if let Some(action) = self.server.poll() {
            if let server::Action::Report(server::Event::Joined(node)) = &action {
                self.fetch.called_by(*node);
            }
            return Some(action.into());
        }
        self.fetch.has_sent(self.server.hub().sent_bytes(), now);
        self.fetch.poll(now).map(Action::from)
    }

    /// When to call [`Engine::poll`], though nothing happens until then.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        [self.server.next_timeout(now), self.fetch.next_timeout()].into_iter().flatten().min()
    }
}
