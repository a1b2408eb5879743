//! Getting the manifest and its signature, which a node needs before anything else.
//!
//! They come from the server that was named, the origin. But that sends the manifest to few nodes at a time, and lets
//! few wait, or a whole cluster that starts at once would get nothing else for a while. A node that is refused asks
//! others that have the manifest already: the origin's word for the generation, which is the manifest's hash, makes
//! that safe. The signature is small, and comes from the origin itself.
//!
//! Several hosts may be named, any of which will do, and each may have several addresses: all are tried in turn. Once
//! all have failed, their names are looked up again after a while.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::control_client::{CallError, ControlClient};
use super::hearsay::is_plausible;
use super::retry::{Retry, jittered};
use super::{Action, Event};
use crate::conn::Conn;
use crate::control::{Control, HaveHeader, SourceAddress};
use crate::error::Error;
use crate::limits::{
    CONNECTING, MAX_MANIFEST_BYTES, MAX_MUTE_DOUBLINGS, MAX_SIGNATURE_BYTES, MIN_NODE_SILENCE,
    NODE_SILENCE, SILENCE,
};
use crate::p9::errno::Errno;
use crate::random::next_random;
use crate::serve::admission::Allowed;
use crate::units::quantity;

/// First and longest wait before an origin that is busy is asked again.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_MOST: Duration = Duration::from_secs(1);
/// How many nodes are asked before the origin is again.
const NODES_A_TURN: usize = 2;
/// A node may be silent for this many times as long as the origin took for its last answer.
const NODE_SILENCE_TIMES: u32 = 8;
/// After this long an origin is at fault that sends the manifest to nobody, or has always another signature.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The server that was named, or several, any of which will do.
#[derive(Clone, Debug)]
pub struct ManifestStart {
    /// As the user wrote it.
    pub name: String,
    /// Whether it names more than one host.
    pub several: bool,
    /// How long it is tried for.
    pub retry: Retry,
    /// The networks in which nodes are dialed that it names.
    pub allowed: Allowed,
    /// Drives all random choices.
    pub seed: u64,
}

/// The addresses that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// In the order to try them.
    pub addresses: Vec<SocketAddr>,
    /// Why other hosts that were named have none.
    pub missing: Vec<String>,
}

/// A manifest and the signature that came with it, neither of them looked into.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The manifest.
    pub text: Vec<u8>,
    /// Its signature, if the origin has one.
    pub signature: Option<Vec<u8>>,
    /// The addresses of the origin, first the one that has answered.
    pub origin: Vec<SocketAddr>,
    /// Why it took more than one attempt.
    pub late: Option<String>,
}

/// What is waited for.
#[derive(Debug)]
enum Step {
    /// The names are looked up.
    Resolve,
    /// The origin's answer.
    Origin(Question),
    /// A node's answer.
    Node,
    /// The time to ask a busy origin again.
    Again,
    /// The time for another attempt.
    Retry,
}

#[derive(Clone, Copy, Debug)]
enum Question {
    SignatureBefore,
    Manifest,
    Nodes,
    Generation,
    SignatureAfter,
}

#[derive(Debug)]
struct Call {
    conn: Conn,
    client: ControlClient,
    /// How long it may be silent.
    patience: Duration,
}

/// The search for the manifest.
#[derive(Debug)]
pub struct ManifestFetch {
    start: ManifestStart,
    resolved: Resolved,
    /// The address that is tried.
    turn: usize,
    /// What was wrong with those before it.
    failures: Vec<(SocketAddr, CallError)>,
    /// How often all addresses have failed.
    rounds: u32,
    /// How often an origin was silent for too long.
    timeouts: u32,
    late: Option<String>,
    step: Step,
    /// When what is waited for has to be over.
    due: Option<Instant>,
    origin: Option<Call>,
    node: Option<Call>,
    /// The host of the node that was asked last.
    node_host: Option<IpAddr>,
    /// Since when this origin is asked.
    since: Option<Instant>,
    /// When it was asked last, and how long its last answer took.
    asked: Option<Instant>,
    took: Duration,
    /// The wait before it is asked again.
    again: Duration,
    /// Nodes that may have the manifest, how many more of them are asked, and the hash that it has to have.
    nodes: Vec<SocketAddr>,
    nodes_left: usize,
    /// Hosts that have not answered as a node does: others are asked first.
    mute: BTreeSet<IpAddr>,
    generation: Option<blake3::Hash>,
    signature: Option<Vec<u8>>,
    text: Vec<u8>,
    last: Conn,
    actions: std::collections::VecDeque<Action>,
    result: Option<Result<Found, Error>>,
    random: u64,
}

impl ManifestFetch {
    /// Nobody was asked yet; the first action is [`Action::Resolve`].
    pub fn new(start: ManifestStart) -> ManifestFetch {
        ManifestFetch {
            random: start.seed | 1,
            start,
            resolved: Resolved::default(),
            turn: 0,
            failures: Vec::new(),
            rounds: 0,
            timeouts: 0,
            late: None,
            step: Step::Resolve,
            due: None,
            origin: None,
            node: None,
            node_host: None,
            since: None,
            asked: None,
            took: Duration::ZERO,
            again: AGAIN_FIRST,
            nodes: Vec::new(),
            nodes_left: 0,
            mute: BTreeSet::new(),
            generation: None,
            signature: None,
            text: Vec::new(),
            last: Conn::DIALED,
            actions: [Action::Resolve].into(),
            result: None,
        }
    }

    /// What has come of the manifest so far, in bytes.
    pub fn bytes(&self) -> u64 {
        let call = self.node.as_ref().or(self.origin.as_ref());
        call.map_or(0, |call| call.client.bytes())
    }

    /// The manifest, or why it cannot be had; once.
    pub fn take_result(&mut self) -> Option<Result<Found, Error>> {
        self.result.take()
    }

    /// The names were looked up.
    pub fn resolved(&mut self, resolved: Result<Resolved, Error>, now: Instant) {
        match resolved {
            Ok(resolved) => {
                self.resolved = resolved;
                self.turn = 0;
                self.failures.clear();
                self.try_origin(now);
            }
            // A name that does not exist will hardly come to exist.
            Err(error) if self.start.retry.times.is_some() => self.result = Some(Err(error)),
            Err(error) => self.retry(error, now),
        }
    }

    /// A connection was made.
    pub fn connected(&mut self, conn: Conn, now: Instant) {
        if let Some(call) = self.call(conn) {
            call.client.connected();
            let patience = call.patience;
            self.due = Some(now + patience);
            self.actions.push_back(Action::Send(conn));
        }
    }

    /// A connection has ended, or could not be made. Without a reason the other side has closed it.
    pub fn closed(&mut self, conn: Conn, why: Option<&str>, now: Instant) {
        let error = why.map_or(CallError::Closed, |why| CallError::Network(why.to_owned()));
        if self.node.take_if(|node| node.conn == conn).is_some() {
            self.node_is_mute(now);
        } else if self.origin.take_if(|origin| origin.conn == conn).is_some() {
            self.origin_failed(error, now);
        }
    }

    /// Bytes came on a connection.
    pub fn receive(&mut self, conn: Conn, bytes: &[u8], now: Instant) {
        let is_waited_for = match self.step {
            Step::Origin(_) => self.node.is_none(),
            Step::Node => self.node.as_ref().is_some_and(|node| node.conn == conn),
            _ => false,
        };
        let Some(call) = self.call(conn) else { return };
        let answer = call.client.receive(bytes);
        let patience = call.patience;
        self.actions.push_back(Action::Send(conn));
        if is_waited_for {
            self.due = Some(now + patience);
        }
        if let Some(answer) = answer {
            match self.step {
                Step::Node => self.node_answered(answer, now),
                Step::Origin(question) => self.origin_answered(question, answer, now),
                // It says more than it was asked.
                Step::Resolve | Step::Again | Step::Retry => {
                    if let Err(error) = answer {
                        self.origin_failed(error, now);
                    }
                }
            }
        }
    }

    /// What is to be sent on a connection.
    pub fn next_output(&mut self, conn: Conn) -> Option<Vec<u8>> {
        let requests = std::mem::take(self.call(conn)?.client.output());
        (!requests.is_empty()).then_some(requests)
    }

    /// The next thing to do, until there is none: then something has to happen, or the time of
    /// [`ManifestFetch::next_timeout`] to come.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            match self.step {
                Step::Again => self.ask(Question::Manifest, now),
                Step::Retry => {
                    self.step = Step::Resolve;
                    self.actions.push_back(Action::Resolve);
                }
                Step::Node => self.node_is_mute(now),
                Step::Origin(_) => {
                    self.timeouts = self.timeouts.saturating_add(1);
                    self.origin_failed(CallError::TimedOut, now);
                }
                Step::Resolve => {}
            }
        }
        self.actions.pop_front()
    }

    /// When to call [`ManifestFetch::poll`], though nothing happens until then.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn call(&mut self, conn: Conn) -> Option<&mut Call> {
        self.origin.iter_mut().chain(&mut self.node).find(|call| call.conn == conn)
    }

    fn dial(&mut self, address: SocketAddr, patience: Duration, now: Instant) -> Call {
        self.last = self.last.next();
        self.due = Some(now + patience.min(CONNECTING));
        self.actions.push_back(Action::Dial(self.last, address));
        Call { conn: self.last, client: ControlClient::new(), patience }
    }

    // ---- the origin

    /// Dials the address whose turn it is; if none is left, all have failed.
    fn try_origin(&mut self, now: Instant) {
        let Some(address) = self.resolved.addresses.get(self.turn).copied() else {
            let failures = std::mem::take(&mut self.failures);
            let error = unanswered(&self.start, &failures, &self.resolved.missing);
            return if matches!(error, Error::Connect { .. }) {
                self.retry(error, now);
            } else {
                self.result = Some(Err(error));
            };
        };
        // Behind a very slow link, or in a storm, nobody answers in time, and to hang up and ask again only makes it
        // worse: each time there is twice the time.
        let patience = SILENCE.saturating_mul(1 << self.timeouts.min(MAX_MUTE_DOUBLINGS));
        let mut call = self.dial(address, patience, now);
        call.client.read(Control::Signature, MAX_SIGNATURE_BYTES);
        self.origin = Some(call);
        self.since = Some(now);
        self.again = AGAIN_FIRST;
        self.step = Step::Origin(Question::SignatureBefore);
    }

    fn ask(&mut self, question: Question, now: Instant) {
        let Some(origin) = &mut self.origin else { return };
        match question {
            Question::SignatureBefore | Question::SignatureAfter => {
                origin.client.read(Control::Signature, MAX_SIGNATURE_BYTES);
            }
            Question::Manifest => origin.client.read(Control::Manifest, MAX_MANIFEST_BYTES),
            Question::Nodes => origin.client.read(Control::Redir, MAX_MANIFEST_BYTES),
            Question::Generation => origin.client.read_first_line(Control::Have),
        }
        self.step = Step::Origin(question);
        self.asked = Some(now);
        self.due = Some(now + origin.patience);
        self.actions.push_back(Action::Send(origin.conn));
    }

    fn origin_answered(
        &mut self,
        question: Question,
        answer: Result<Vec<u8>, CallError>,
        now: Instant,
    ) {
        let in_time = self.since.is_none_or(|since| now < since + REFUSED_FOR);
        self.took = self.asked.map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        match (question, answer) {
            (Question::SignatureBefore, answer) => match signature(answer) {
                Ok(signature) => {
                    self.signature = signature;
                    self.ask(Question::Manifest, now);
                }
                Err(error) => self.origin_failed(error, now),
            },
            (Question::Manifest, Err(CallError::Refused(Errno::EBUSY | Errno::ESTALE)))
                if in_time =>
            {
                self.ask(Question::Nodes, now);
            }
            (Question::Manifest, Ok(text)) => {
                self.text = text;
                self.ask(Question::SignatureAfter, now);
            }
            (Question::Nodes, Ok(redir)) => {
                self.learn_nodes(&String::from_utf8_lossy(&redir));
                self.nodes_left = NODES_A_TURN;
                if self.nodes.is_empty() {
                    self.ask_again_later(now);
                } else {
                    self.ask(Question::Generation, now);
                }
            }
            (Question::Generation, Ok(line)) => {
                let header = HaveHeader::parse(&String::from_utf8_lossy(&line));
                self.generation = header.map(|header| header.generation);
                self.ask_a_node(now);
            }
            (Question::SignatureAfter, answer) => match signature(answer) {
                // Else the origin may have gone over to another generation between the two.
                Ok(signature) if signature != self.signature && in_time => {
                    self.signature = signature;
                    self.ask(Question::Manifest, now);
                }
                Ok(signature) => self.found(signature),
                Err(error) => self.origin_failed(error, now),
            },
            (_, Err(error)) => self.origin_failed(error, now),
        }
    }

    fn ask_again_later(&mut self, now: Instant) {
        let part = (next_random(&mut self.random) % 1024) as f64 / 1024.0;
        self.step = Step::Again;
        self.due = Some(now + self.again.mul_f64(0.5 + part));
        self.again = (self.again * 3 / 2).min(AGAIN_MOST);
    }

    /// The address that is tried is given up for the next one.
    fn origin_failed(&mut self, error: CallError, now: Instant) {
        for call in self.node.take().into_iter().chain(self.origin.take()) {
            self.actions.push_back(Action::Close(call.conn));
        }
        let Some(address) = self.resolved.addresses.get(self.turn).copied() else { return };
        self.turn += 1;
        let next = self.resolved.addresses.get(self.turn).filter(|_| self.start.several);
        let event = match next {
            Some(next) => Event::TryingNext(address, error.clone(), *next),
            None => Event::Unanswered(address, error.clone()),
        };
        self.actions.push_back(Action::Report(event));
        self.failures.push((address, error));
        self.try_origin(now);
    }

    /// All have failed: another attempt after a while, unless it was the last.
    fn retry(&mut self, error: Error, now: Instant) {
        self.rounds = self.rounds.saturating_add(1);
        let Some(wait) = self.start.retry.wait(self.rounds, now) else {
            self.result = Some(Err(error));
            return;
        };
        self.late = Some(format!(
            "connected only after {}; the last one: {error}",
            quantity(self.rounds.into(), "failure")
        ));
        self.actions.push_back(Action::Report(Event::Retrying(error.to_string(), wait)));
        self.step = Step::Retry;
        self.due = Some(now + jittered(wait, next_random(&mut self.random)));
    }

    fn found(&mut self, signature: Option<Vec<u8>>) {
        let mut origin = self.resolved.addresses.clone();
        let answered = self.turn.min(origin.len());
        origin.rotate_left(answered);
        let (text, late) = (std::mem::take(&mut self.text), self.late.take());
        self.due = None;
        self.result = Some(Ok(Found { text, signature, origin, late }));
    }

    // ---- nodes that have the manifest

    fn learn_nodes(&mut self, redir: &str) {
        let origin = self.resolved.addresses.get(self.turn);
        let is_plausible = |node: &SocketAddr| {
            origin.is_some_and(|origin| is_plausible(*node, origin.ip(), &self.start.allowed))
        };
        let named = redir.lines().filter_map(SourceAddress::parse).map(|named| named.0);
        let (mute, others): (Vec<_>, Vec<_>) =
            named.filter(is_plausible).partition(|node| self.mute.contains(&node.ip()));
        self.nodes = if others.is_empty() { mute } else { others };
    }

    fn ask_a_node(&mut self, now: Instant) {
        if self.nodes.is_empty() || self.nodes_left == 0 || self.generation.is_none() {
            return self.ask_again_later(now);
        }
        self.nodes_left -= 1;
        let chosen = next_random(&mut self.random) as usize % self.nodes.len();
        let address = self.nodes.swap_remove(chosen);
        // The origin can be asked again: a node that says nothing is not waited for much longer than the origin took.
        let patience = (self.took * NODE_SILENCE_TIMES).clamp(MIN_NODE_SILENCE, NODE_SILENCE);
        let mut call = self.dial(address, patience, now);
        call.client.read(Control::Manifest, MAX_MANIFEST_BYTES);
        self.node_host = Some(address.ip());
        self.node = Some(call);
        self.step = Step::Node;
    }

    fn node_answered(&mut self, answer: Result<Vec<u8>, CallError>, now: Instant) {
        match answer {
            Ok(text) if self.generation == Some(blake3::hash(&text)) => {
                self.text = text;
                self.hang_up_on_node();
                self.ask(Question::SignatureAfter, now);
            }
            // It has too much to do, or goes over to another generation.
            Err(CallError::Refused(_)) => self.node_failed(now),
            _ => self.node_is_mute(now),
        }
    }

    fn node_is_mute(&mut self, now: Instant) {
        self.mute.extend(self.node_host);
        self.node_failed(now);
    }

    fn node_failed(&mut self, now: Instant) {
        self.hang_up_on_node();
        self.ask_a_node(now);
    }

    fn hang_up_on_node(&mut self) {
        if let Some(node) = self.node.take() {
            self.actions.push_back(Action::Close(node.conn));
        }
    }
}

/// None if there is no signature, or if the server knows of none.
fn signature(answer: Result<Vec<u8>, CallError>) -> Result<Option<Vec<u8>>, CallError> {
    match answer {
        Ok(signature) => Ok(Some(signature)),
        Err(CallError::NotXget) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why no address has answered, where `missing` are the hosts without one.
///
/// It is [`Error::Connect`] if a network error was among the reasons, since that may pass; but a 9P server that is not
/// xget's is one that can be fetched from.
pub fn unanswered(
    start: &ManifestStart,
    failures: &[(SocketAddr, CallError)],
    missing: &[String],
) -> Error {
    let host = start.name.clone();
    if failures.iter().any(|(_, error)| matches!(error, CallError::NotXget)) {
        return Error::NotXget { host };
    }
    let mut reasons: Vec<String> = failures.iter().map(|(_, e)| e.to_string()).collect();
    reasons.dedup();
    if start.several || reasons.len() > 1 {
        let each = failures.iter().map(|(address, error)| format!("{address}: {error}"));
        reasons = each.chain(missing.iter().cloned()).collect();
    }
    let why = reasons.join(", ");
    let may_pass = failures.iter().any(|(_, error)| error.may_pass());
    if may_pass { Error::Connect { host, why } } else { Error::Peer { host, why } }
}

#[cfg(test)]
mod tests;
