//! The answering side of one process: everybody who is connected to it.
//!
//! A [`Server`] joins the sessions, the [`Hub`] that they share, and [`Admission`]. It is told of connections
//! and of bytes that arrive, and says by [`Server::poll`] what its driver has to do. The driver owns the
//! sockets and decides nothing: the master's, the node's and the simulator's are three of a kind.
//!
//! One thread does the work of all. What a connection asks for is done in turns, each of them short, and
//! [`Server::next_turn`] is that of the host whose turns took least time so far: whoever asks for much work waits for
//! it alone.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::admission::{Admission, Refusal, Wait};
use super::fair::FairQueue;
use super::hub::Hub;
use super::intake::Intake;
use super::session::{At, Data, Hangup, Host as _, Output, Session};
use crate::conn::Conn;
use crate::level::Level;
use crate::network::host;
use crate::p9::errno::Errno;

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the connection, which is forgotten here.
    Close(Conn),
    /// Nothing more will be sent on this connection. Shut down its sending half, and read until the other
    /// side closes it: what is unread when a socket is closed takes sent bytes with it (RFC 1122, 4.2.2.13).
    Finish(Conn),
    /// Log this.
    Report(Event),
}

/// Something that an administrator may want to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was not taken.
    Refused(SocketAddr, Refusal),
    /// A connection was ended by this side.
    Closed(SocketAddr, Reason),
    /// A connection broke.
    Broken(SocketAddr, String),
    /// A file cannot be read, or is not what it was.
    Unreadable(SocketAddr, String),
    /// A node has written this into the log.
    Reported(SocketAddr, String),
    /// A node serves others, at this address.
    Joined(SocketAddr),
    /// A 9P message, both ways.
    Message(SocketAddr, String),
}

/// Why a connection was ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another needs its place, or it kept this side waiting.
    Refused(Refusal),
    /// It broke the protocol, or cannot be answered otherwise.
    Hangup(Hangup),
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Event::Reported(..) => Level::Warning,
            Event::Message(..) => Level::Debug,
            _ => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Refused(peer, refusal) | Event::Closed(peer, Reason::Refused(refusal)) => {
                write!(f, "{peer}: {refusal}")
            }
            Event::Closed(peer, Reason::Hangup(hangup)) => write!(f, "{peer}: {hangup}"),
            Event::Broken(peer, why) => write!(f, "{peer}: {why}"),
            Event::Unreadable(peer, error) => write!(f, "{peer}: cannot send a file: {error}"),
            Event::Reported(peer, line) => write!(f, "{peer} reports: {line}"),
            Event::Joined(node) => write!(f, "{node} joined"),
            Event::Message(peer, line) => write!(f, "{peer} {line}"),
        }
    }
}

/// What a client speaks.
#[derive(Debug)]
enum Protocol {
    NineP(Box<Session>),
    /// The driver parses it, and asks for turns by [`Server::hub`].
    Http,
}

/// The output that the driver is sending on a connection.
#[derive(Debug)]
enum Sending {
    Nothing,
    Reply,
    /// A part of the image; paced ones hold a turn until they have left.
    Image(Data),
}

#[derive(Debug)]
struct Client {
    address: SocketAddr,
    protocol: Protocol,
    sending: Sending,
    /// The socket takes no more at present.
    blocked: bool,
    /// Requests that had come when it was last looked at.
    requests: u64,
    /// What its parked requests wait for may be there.
    resumes: bool,
    /// How much it may still be sent in this turn.
    left: u32,
    /// There is more to do for it than was done in this turn.
    has_more: bool,
}

impl Client {
    fn host(&self) -> IpAddr {
        host(self.address.ip())
    }
}

/// Replies that a connection is sent in one turn.
const TURN_REPLIES: u32 = 4;
/// What the shortest turn is taken to have taken, in nanoseconds.
const SHORTEST_TURN_NS: u64 = 5_000;

/// Everybody who is connected, and what they are told.
#[derive(Debug)]
pub struct Server {
    hub: Hub,
    admission: Admission,
    intake: Intake,
    clients: HashMap<Conn, Client>,
    /// The last connection that was accepted.
    last: Conn,
    /// Connections for which there may be something to do. What their hosts have had is time, in nanoseconds.
    turns: FairQueue,
    /// The connection whose turn it is.
    turn: Option<Conn>,
    /// Who had the last turn, and whose time it took, even if it has ended in it.
    last_turn: Option<(Conn, IpAddr)>,
    actions: VecDeque<Action>,
    traces: bool,
    stopping: bool,
}

impl Server {
    /// Nobody is connected yet. Of each host's requests so many bytes are read in a second. With `traces` every message
    /// is reported.
    pub fn new(hub: Hub, admission: Admission, request_bytes_per_s: u64, traces: bool) -> Server {
        Server {
            hub,
            admission,
            intake: Intake::new(request_bytes_per_s),
            clients: HashMap::new(),
            last: Conn::ACCEPTED,
            turns: FairQueue::default(),
            turn: None,
            last_turn: None,
            actions: VecDeque::new(),
            traces,
            stopping: false,
        }
    }

    /// What is served, and who takes part.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The same, to be changed. [`Server::poll`] afterwards says what comes of it.
    pub fn hub_mut(&mut self) -> &mut Hub {
        &mut self.hub
    }

    /// Whether anybody is connected.
    pub fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Whether [`Server::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// A connection came in, on which 9P is spoken. Its number, or None if it is not taken: close it.
    pub fn accept(&mut self, address: SocketAddr, now: Instant) -> Option<Conn> {
        let conn = self.admit(address, now)?;
        let session = Box::new(Session::new(conn, host(address.ip()), self.traces));
        self.add(conn, address, Protocol::NineP(session), now);
        Some(conn)
    }

    /// The same of one on which HTTP is spoken.
    pub fn accept_http(&mut self, address: SocketAddr, now: Instant) -> Option<Conn> {
        let conn = self.admit(address, now)?;
        self.add(conn, address, Protocol::Http, now);
        Some(conn)
    }

    fn admit(&mut self, address: SocketAddr, now: Instant) -> Option<Conn> {
        let conn = self.last.next();
        match self.admission.admit(conn, address.ip(), now) {
            Ok(displaced) => {
                self.last = conn;
                if let Some(displaced) = displaced {
                    self.end(displaced, Reason::Refused(Refusal::Displaced), now);
                }
                Some(conn)
            }
            Err(refusal) => {
                self.actions.push_back(Action::Report(Event::Refused(address, refusal)));
                None
            }
        }
    }

    fn add(&mut self, conn: Conn, address: SocketAddr, protocol: Protocol, now: Instant) {
        let client = Client {
            address,
            protocol,
            sending: Sending::Nothing,
            blocked: false,
            requests: 0,
            resumes: false,
            left: 0,
            has_more: false,
        };
        self.clients.insert(conn, client);
        self.hub.connected(conn, address, now);
    }

    /// Whether bytes of this connection should be read at present.
    pub fn wants_input(&self, conn: Conn) -> bool {
        self.clients.get(&conn).is_some_and(|client| {
            let has_room = match &client.protocol {
                Protocol::NineP(session) => session.wants_input(),
                Protocol::Http => true,
            };
            has_room && !self.intake.waits(client.host())
        })
    }

    /// So many bytes came on a connection that speaks HTTP.
    pub fn took_in(&mut self, conn: Conn, bytes: usize, now: Instant) {
        if let Some(client) = self.clients.get(&conn).filter(|_| bytes > 0) {
            self.intake.take(client.host(), bytes, now);
        }
    }

    /// Bytes came on a connection, in its turn.
    pub fn receive(&mut self, conn: Conn, bytes: &[u8], now: Instant) {
        if self.stopping {
            return;
        }
        if let Some(Client { address, protocol: Protocol::NineP(session), .. }) =
            self.clients.get_mut(&conn)
        {
            session.receive(bytes);
            self.intake.take(host(address.ip()), bytes.len(), now);
        }
    }

    /// There is something to read from this connection, or it takes bytes again: it wants a turn.
    pub fn ready(&mut self, conn: Conn) {
        if let Some(client) = self.clients.get(&conn) {
            self.turns.push(conn, client.host());
        }
    }

    /// All was done that a connection may do in its turn, which took so long.
    pub fn turn_ended(&mut self, conn: Conn, took: Duration) {
        self.turn.take_if(|turn| *turn == conn);
        let Some((_, host)) = self.last_turn.take_if(|(last, _)| *last == conn) else { return };
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(SHORTEST_TURN_NS);
        self.turns.spend(host, took);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if std::mem::take(&mut client.has_more) {
            self.ready(conn);
        }
    }

    /// Whether a connection waits for its turn, and may have it now.
    pub fn has_turns(&self) -> bool {
        self.turn.is_none() && !self.turns.is_empty()
    }

    /// The next thing to send on a connection, once the one before has left ([`Server::output_left`]); None
    /// until its next turn.
    pub fn next_output(&mut self, conn: Conn, now: Instant) -> Option<Output> {
        let client = self.clients.get_mut(&conn)?;
        let Protocol::NineP(session) = &mut client.protocol else { return None };
        if !matches!(client.sending, Sending::Nothing) {
            return None;
        }
        if client.left == 0 {
            client.has_more = true;
            return None;
        }
        if std::mem::take(&mut client.resumes) {
            session.resume(&mut self.hub, now);
        }
        let processed = if self.stopping { Ok(()) } else { session.process(&mut self.hub, now) };
        let address = client.address;
        for line in session.take_trace() {
            self.actions.push_back(Action::Report(Event::Message(address, line)));
        }
        if let Err(hangup) = processed {
            self.end(conn, Reason::Hangup(hangup), now);
            return None;
        }
        client.has_more |= !self.stopping && session.has_more();
        let output = session.next_output();
        match &output {
            Some(Output::Reply(_)) => {
                client.left -= 1;
                client.sending = Sending::Reply;
            }
            Some(Output::Data(data)) => {
                client.left = 0;
                client.sending = Sending::Image(data.clone());
            }
            None if self.stopping => self.actions.push_back(Action::Finish(conn)),
            None => {}
        }
        self.observe(conn, false, now);
        output
    }

    /// The last output has left as a whole.
    pub fn output_left(&mut self, conn: Conn, now: Instant) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.blocked = false;
        if let Sending::Image(data) = std::mem::replace(&mut client.sending, Sending::Nothing) {
            self.hub.sent(At { conn, now }, &data);
        }
        self.observe(conn, true, now);
    }

    /// The last output cannot be sent, since its file cannot be read: an error takes its place. Nothing of it
    /// may have been sent.
    pub fn output_is_unreadable(&mut self, conn: Conn, why: String, now: Instant) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        self.actions.push_back(Action::Report(Event::Unreadable(client.address, why)));
        if let (Protocol::NineP(session), Sending::Image(data)) =
            (&mut client.protocol, std::mem::replace(&mut client.sending, Sending::Nothing))
        {
            // Not ESTALE: the tree may well turn out to be the same.
            session.refuse(&data, Errno::EIO);
            self.hub.sent(At { conn, now }, &data);
        }
    }

    /// The socket takes no more of the last output at present; with `progress` it has taken some bytes since
    /// this was last said.
    pub fn output_is_blocked(&mut self, conn: Conn, progress: bool, now: Instant) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.blocked = true;
            self.observe(conn, progress, now);
        }
    }

    /// What a connection that speaks HTTP keeps this side waiting for, and whether it did anything.
    pub fn observe_http(&mut self, conn: Conn, active: bool, waits: Option<Wait>, now: Instant) {
        self.admission.observe(conn, active, waits, now);
    }

    /// A connection has ended. Without a reason the other side has closed it.
    pub fn closed(&mut self, conn: Conn, why: Option<&str>, now: Instant) {
        if let Some((client, why)) = self.clients.get(&conn).zip(why) {
            let event = Event::Broken(client.address, why.to_owned());
            self.actions.push_back(Action::Report(event));
        }
        self.forget(conn, now);
    }

    fn forget(&mut self, conn: Conn, now: Instant) {
        self.admission.release(conn);
        self.turns.remove(conn);
        self.turn.take_if(|turn| *turn == conn);
        let Some(client) = self.clients.remove(&conn) else { return };
        if let Sending::Image(data) = client.sending {
            self.hub.sent(At { conn, now }, &data);
        }
        if let Protocol::NineP(mut session) = client.protocol {
            session.close(&mut self.hub, now);
        }
        self.hub.disconnected(conn, now);
    }

    /// Takes no requests from now on. Every client gets the replies that are made, then [`Action::Finish`].
    pub fn stop(&mut self) {
        self.stopping = true;
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.ready(conn);
        }
    }

    /// Does what is due by now.
    pub fn timeout(&mut self, now: Instant) {
        self.hub.tick(now);
        for host in self.intake.tick(now) {
            for conn in self.admission.connections_of(host) {
                self.turns.push(conn, host);
            }
        }
        for (conn, wait) in self.admission.overdue(now) {
            self.end(conn, Reason::Refused(Refusal::Overdue(wait)), now);
        }
    }

    /// Who a connection is with.
    #[cfg(feature = "master")]
    pub(crate) fn peer(&self, conn: Conn) -> Option<SocketAddr> {
        self.clients.get(&conn).map(|client| client.address)
    }

    /// When to call [`Server::timeout`], though nothing happens until then.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let deadlines = [self.hub.deadline(now), self.admission.deadline(), self.intake.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The next thing to do, until there is none; then see [`Server::next_turn`].
    pub fn poll(&mut self) -> Option<Action> {
        for conn in self.hub.take_wakes() {
            if let Some(client) = self.clients.get_mut(&conn) {
                client.resumes = true;
                self.ready(conn);
            }
        }
        for node in self.hub.take_joined() {
            self.actions.push_back(Action::Report(Event::Joined(node)));
        }
        for (peer, line) in self.hub.take_log() {
            self.actions.push_back(Action::Report(Event::Reported(peer, line)));
        }
        self.actions.pop_front()
    }

    /// Whose turn it is: read from that connection once, if it is wanted ([`Server::wants_input`]), and send what there
    /// is ([`Server::next_output`]); one that speaks HTTP goes on with what it does. Then [`Server::turn_ended`], before
    /// which nobody else has a turn.
    pub fn next_turn(&mut self) -> Option<Conn> {
        if self.turn.is_some() {
            return None;
        }
        let conn = self.turns.pop()?;
        // Who has left does not wait for a turn.
        let client = self.clients.get_mut(&conn)?;
        client.left = TURN_REPLIES;
        self.turn = Some(conn);
        self.last_turn = Some((conn, client.host()));
        self.turn
    }

    /// Tells admission what the connection keeps this side waiting for; `sent` says that bytes have left.
    fn observe(&mut self, conn: Conn, sent: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let Protocol::NineP(session) = &client.protocol else { return };
        let requests = session.requests_so_far();
        let active = sent || std::mem::replace(&mut client.requests, requests) != requests;
        let waits = if client.blocked { Some(Wait::Taking) } else { session.waits() };
        self.admission.observe(conn, active, waits, now);
    }

    fn end(&mut self, conn: Conn, reason: Reason, now: Instant) {
        if let Some(client) = self.clients.get(&conn) {
            self.actions.push_back(Action::Report(Event::Closed(client.address, reason)));
            self.actions.push_back(Action::Close(conn));
        }
        self.forget(conn, now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limits::MASTER_REQUEST_BYTES_PER_S;
    use crate::serve::admission::Allowed;
    use crate::serve::session::testing::tree;
    use crate::swarm::rules::Rules;

    fn server() -> Server {
        let hub = Hub::master(Arc::clone(&tree()), 4, Rules::default(), 1);
        let admission = Admission::new(100, Allowed::default());
        Server::new(hub, admission, MASTER_REQUEST_BYTES_PER_S, false)
    }

    fn address(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 5000).into()
    }

    /// Gives a turn, which takes a millisecond; whose it was. All but `honest` break the protocol in it.
    fn turn(server: &mut Server, honest: Conn, now: Instant) -> Conn {
        let conn = server.next_turn().unwrap();
        server.receive(conn, if conn == honest { &[] } else { &[3, 0, 0, 0] }, now);
        while server.next_output(conn, now).is_some() {
            server.output_left(conn, now);
        }
        server.turn_ended(conn, Duration::from_millis(1));
        conn
    }

    #[test]
    fn a_host_whose_connections_end_in_their_turns_gets_no_more_of_them() {
        let (mut server, now) = (server(), Instant::now());
        let honest = server.accept(address(1), now).unwrap();
        let mut turns = 0;
        for _ in 0..100 {
            // Another one calls as soon as one was hung up on, and has a turn if it is the next.
            let greedy = server.accept(address(2), now).unwrap();
            server.ready(greedy);
            server.ready(honest);
            let next = turn(&mut server, honest, now);
            turns += u32::from(next == honest);
            while server.poll().is_some() {}
            if next == honest {
                server.closed(greedy, None, now);
            }
        }
        assert!((45..=55).contains(&turns), "{turns} of 100 turns");
    }
}
