//! Which chunk to request from which source, and when to give a request up.
//!
//! The scheduler is told what happened, and [`Scheduler::poll`] says what to do next. It knows nothing
//! of connections, messages or files.
//!
//! A chunk that a master grants is requested at once. From peers, the least busy one first, each is
//! requested that the fewest peers hold ([`Scheduler::rarest_chunk`]); once every missing chunk is
//! requested, a late one is requested a second time ([`Scheduler::late_chunk`]).

mod locality;
#[cfg(test)]
mod tests;
mod timeouts;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::control::Role;
use crate::image::chunks::{ChunkId, ChunkSet, Layout};
use crate::random::next_random;
use crate::swarm::ring::Ring;
use crate::swarm::rules::Rules;
use locality::Locality;
use timeouts::Timeouts;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Request a chunk.
    Fetch { source: Conn, chunk: ChunkId },
    /// Ask a master for another grant.
    AskNext { source: Conn },
    /// The chunk is not needed from this source any more.
    Abandon { source: Conn, chunk: ChunkId },
    /// A master has sent nothing for a while: find out whether it answers at all.
    Probe { source: Conn },
    /// The source does not answer; end the connection.
    Drop { source: Conn },
}

/// The choice of chunks and sources of one node.
#[derive(Debug)]
pub(crate) struct Scheduler {
    rules: Rules,
    layout: Layout,
    /// Wanted, not verified.
    missing: ChunkSet,
    /// Missing, and requested from nobody.
    unrequested: ChunkSet,
    /// Requests in flight for each chunk.
    in_flight: Vec<u8>,
    /// Requests in flight to peers.
    in_flight_to_peers: usize,
    sources: BTreeMap<Conn, SourceState>,
    /// How many peers hold each chunk.
    copies: Vec<u32>,
    locality: Locality,
    timeouts: Timeouts,
    random: u64,
    /// Something has happened since the last poll that may change what to do.
    changed: bool,
    /// When there may be something to do though nothing happens.
    deadline: Option<Instant>,
    /// The last poll that found nothing to do.
    idle_at: Option<Instant>,
}

#[derive(Debug)]
struct SourceState {
    role: Role,
    /// It is in this node's subnet.
    near: bool,
    held: ChunkSet,
    requests: Vec<ChunkRequest>,
    /// Granted, not requested yet.
    granted: Vec<ChunkId>,
    /// Requests for a grant that the master has not answered.
    grant_requests: usize,
    /// Nothing more is requested from it before then.
    paused_until: Option<Instant>,
    last_heard: Instant,
    /// It was asked for a sign of life since.
    probed: bool,
}

impl SourceState {
    fn heard(&mut self, now: Instant) {
        (self.last_heard, self.probed) = (now, false);
    }

    /// A master whose rate is limited, or that has others to serve, may send nothing for long, and is not given up as
    /// long as it answers.
    fn is_probed_after(&self, silence: Duration) -> Option<Instant> {
        let asks = self.role == Role::Master && !self.probed && !self.requests.is_empty();
        asks.then(|| self.last_heard + silence / 2)
    }
}

#[derive(Clone, Copy, Debug)]
struct ChunkRequest {
    chunk: ChunkId,
    sent_at: Instant,
    /// When bytes of the chunk last arrived; at first, when it was requested.
    progress_at: Instant,
}

impl Scheduler {
    /// Fetches the chunks in `missing`; `seed` drives the choice among equals.
    pub(crate) fn new(layout: Layout, missing: ChunkSet, rules: Rules, seed: u64) -> Scheduler {
        Scheduler {
            rules,
            layout,
            unrequested: missing.clone(),
            missing,
            in_flight: vec![0; layout.count() as usize],
            in_flight_to_peers: 0,
            sources: BTreeMap::new(),
            copies: vec![0; layout.count() as usize],
            locality: Locality::new(&layout, rules),
            timeouts: Timeouts::new(rules),
            random: seed | 1,
            changed: true,
            deadline: None,
            idle_at: None,
        }
    }

    /// What is wanted and not verified yet.
    pub(crate) fn missing(&self) -> &ChunkSet {
        &self.missing
    }

    /// A source is connected.
    pub(crate) fn add(&mut self, source: Conn, role: Role, near: bool, now: Instant) {
        self.changed = true;
        let source_state = SourceState {
            role,
            near,
            held: ChunkSet::empty(&self.layout),
            requests: Vec::new(),
            granted: Vec::new(),
            grant_requests: 0,
            paused_until: None,
            last_heard: now,
            probed: false,
        };
        self.sources.insert(source, source_state);
    }

    /// A source has disconnected; what was requested from it can be requested from others.
    pub(crate) fn remove(&mut self, source: Conn) {
        self.changed = true;
        let Some(removed) = self.sources.remove(&source) else { return };
        if removed.role == Role::Node {
            self.in_flight_to_peers =
                self.in_flight_to_peers.saturating_sub(removed.requests.len());
        }
        for request in &removed.requests {
            self.count_in_flight(request.chunk, false);
        }
        for chunk in removed.held.iter() {
            if let Some(copies) = self.copies.get_mut(chunk.index()) {
                *copies = copies.saturating_sub(1);
            }
            self.locality.remove_copy(chunk, removed.near);
        }
    }

    /// Whether chunks from outside of the subnet arrive slowly, as over a rack's narrow uplink.
    pub(crate) fn far_is_slow(&self) -> bool {
        self.locality.far_is_slow()
    }

    /// The nodes of the subnet, this one among them.
    pub(crate) fn ring(&mut self) -> &mut Ring {
        self.locality.ring()
    }

    /// A peer has said that it holds a chunk.
    pub(crate) fn has(&mut self, source: Conn, chunk: ChunkId, now: Instant) {
        let window = self.peer_window();
        let Some(peer) = self.sources.get_mut(&source) else { return };
        if !peer.held.insert(chunk) {
            return;
        }
        if let Some(copies) = self.copies.get_mut(chunk.index()) {
            *copies = copies.saturating_add(1);
        }
        self.locality.add_copy(chunk, peer.near, now);
        // A busy peer is looked at again when a request to it ends. A chunk in flight is of use only
        // when all others are, too.
        let useful = self.unrequested.contains(chunk)
            || self.unrequested.is_empty() && self.missing.contains(chunk);
        self.changed |= useful && peer.requests.len() < window;
    }

    /// A master has granted a chunk.
    pub(crate) fn granted(&mut self, source: Conn, chunk: ChunkId, now: Instant) {
        let Some(master) = self.sources.get_mut(&source) else { return };
        master.grant_requests = master.grant_requests.saturating_sub(1);
        master.heard(now);
        master.granted.push(chunk);
        self.changed = true;
    }

    /// A source has answered something.
    pub(crate) fn answered(&mut self, source: Conn, now: Instant) {
        if let Some(source) = self.sources.get_mut(&source) {
            source.heard(now);
            self.changed = true;
        }
    }

    /// Bytes of a chunk have arrived.
    pub(crate) fn progressed(&mut self, source: Conn, chunk: ChunkId, now: Instant) {
        let Some(source) = self.sources.get_mut(&source) else { return };
        source.heard(now);
        if let Some(request) = source.requests.iter_mut().find(|request| request.chunk == chunk) {
            request.progress_at = now;
        }
    }

    /// A request ended: with a verified chunk, or with none.
    pub(crate) fn ended(&mut self, source: Conn, chunk: ChunkId, verified: bool, now: Instant) {
        self.changed = true;
        self.forget_request(source, chunk);
        let Some(source) = self.sources.get_mut(&source) else { return };
        source.heard(now);
        if verified {
            self.missing.remove(chunk);
            self.unrequested.remove(chunk);
            self.timeouts.reset_backoff();
        } else {
            source.paused_until = Some(now + self.timeouts.chunk_time());
        }
    }

    /// A whole chunk took this long, from its request to its last byte.
    pub(crate) fn measured(&mut self, source: Conn, took: Duration) {
        self.timeouts.measured(took);
        // A master's chunks say nothing of the way: they come when it is the node's turn.
        let peer = self.sources.get(&source).filter(|source| source.role == Role::Node);
        if let Some(peer) = peer {
            self.locality.measured(peer.near, took);
        }
    }

    /// When a chunk was requested from a source.
    pub(crate) fn asked_since(&self, source: Conn, chunk: ChunkId) -> Option<Instant> {
        let source = self.sources.get(&source)?;
        let request = source.requests.iter().find(|request| request.chunk == chunk)?;
        Some(request.sent_at)
    }

    /// The next thing to do, or None until something happens or [`Scheduler::deadline`] comes.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Command> {
        if self.is_idle(now) {
            return None;
        }
        let Some(command) = self.give_up(now).or_else(|| self.request(now)) else {
            self.idle_at = Some(now);
            self.changed = false;
            self.deadline = self.next_deadline();
            return None;
        };
        self.record(command, now);
        Some(command)
    }

    /// Whether [`Scheduler::poll`] has nothing to do at present.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        !self.changed && self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// When [`Scheduler::poll`] may have something to do though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn record(&mut self, command: Command, now: Instant) {
        match command {
            Command::Fetch { source, chunk } => {
                self.count_in_flight(chunk, true);
                if let Some(source) = self.sources.get_mut(&source) {
                    source.granted.retain(|granted| *granted != chunk);
                    if source.requests.is_empty() {
                        source.heard(now);
                    }
                    source.requests.push(ChunkRequest { chunk, sent_at: now, progress_at: now });
                    self.in_flight_to_peers += usize::from(source.role == Role::Node);
                }
            }
            Command::AskNext { source } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.grant_requests += 1;
                }
            }
            Command::Abandon { source, chunk } => self.forget_request(source, chunk),
            Command::Probe { source } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.probed = true;
                }
            }
            Command::Drop { source } => self.remove(source),
        }
    }

    /// Ends requests that take too long, and those for chunks that another source has brought meanwhile.
    fn give_up(&mut self, now: Instant) -> Option<Command> {
        let (stall, silence) = (self.timeouts.stall(), self.timeouts.silence());
        for (&id, source) in &mut self.sources {
            if !source.requests.is_empty()
                && now.saturating_duration_since(source.last_heard) >= silence
            {
                self.timeouts.back_off(now);
                return Some(Command::Drop { source: id });
            }
            if source.is_probed_after(silence).is_some_and(|at| at <= now) {
                return Some(Command::Probe { source: id });
            }
            for request in &source.requests {
                let chunk = request.chunk;
                if !self.missing.contains(chunk) {
                    return Some(Command::Abandon { source: id, chunk });
                }
                let stalled = now.saturating_duration_since(request.progress_at) >= stall;
                // A granted chunk is kept until its master is silent for too long: nobody else has it.
                if stalled && source.role == Role::Node {
                    source.paused_until = Some(now + stall);
                    self.timeouts.back_off(now);
                    return Some(Command::Abandon { source: id, chunk });
                }
            }
        }
        None
    }

    fn request(&mut self, now: Instant) -> Option<Command> {
        if self.missing.is_empty() {
            return None;
        }
        if let Some(command) = self.request_from_masters() {
            return Some(command);
        }
        let random = next_random(&mut self.random);
        let window = self.peer_window();
        let mut free: Vec<(usize, u64, Conn)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.role == Role::Node && source.requests.len() < window)
            .filter(|(_, source)| source.paused_until.is_none_or(|until| until <= now))
            .map(|(id, source)| (source.requests.len(), id.0.wrapping_mul(random), *id))
            .collect();
        free.sort_unstable();
        free.iter().find_map(|&(_, _, id)| {
            let source = self.sources.get(&id)?;
            let chunk = self.rarest_chunk(source, now).or_else(|| self.late_chunk(source, now))?;
            Some(Command::Fetch { source: id, chunk })
        })
    }

    /// Requests what was granted without delay, since nobody else gets it meanwhile.
    fn request_from_masters(&mut self) -> Option<Command> {
        for (&id, source) in &mut self.sources {
            while let Some(&chunk) = source.granted.first() {
                let requested = source.requests.iter().any(|request| request.chunk == chunk);
                if self.missing.contains(chunk) && !requested {
                    return Some(Command::Fetch { source: id, chunk });
                }
                source.granted.remove(0);
            }
            let busy = source.requests.len() + source.grant_requests;
            if source.role == Role::Master && busy < self.rules.master_window {
                return Some(Command::AskNext { source: id });
            }
        }
        None
    }

    /// How many requests may be in flight to one peer.
    fn peer_window(&self) -> usize {
        let peers = self.sources.values().filter(|source| source.role == Role::Node).count();
        let enough = self.rules.enough_in_flight;
        if self.in_flight_to_peers.max(peers) >= enough { 1 } else { self.rules.peer_window }
    }

    /// Of the chunks that are requested from nobody, the one that the fewest peers hold, so that no chunk
    /// stays with a few nodes that all others have to wait for. Among equals any.
    fn rarest_chunk(&self, source: &SourceState, now: Instant) -> Option<ChunkId> {
        let chunks = source.held.common(&self.unrequested);
        chunks.filter(|chunk| self.may_come_from(source, *chunk, now)).min_by_key(|chunk| {
            let mixed = u64::from(chunk.get()).wrapping_add(1).wrapping_mul(self.random);
            (self.copies.get(chunk.index()).copied().unwrap_or(0), mixed)
        })
    }

    /// Once every missing chunk is requested, one that does not come in the usual time is requested a
    /// second time, from an idle peer: the node waits for nothing else, and the first source may be
    /// gone.
    fn late_chunk(&self, source: &SourceState, now: Instant) -> Option<ChunkId> {
        if !source.requests.is_empty() || !self.unrequested.is_empty() {
            return None;
        }
        let late = now.checked_sub(self.timeouts.late()?)?;
        let all_late = |chunk: ChunkId| {
            let requests = self.sources.values().flat_map(|source| &source.requests);
            requests.filter(|request| request.chunk == chunk).all(|request| request.sent_at <= late)
        };
        let mut chunks = source.held.common(&self.missing);
        chunks.find(|chunk| {
            self.in_flight.get(chunk.index()) == Some(&1)
                && self.may_come_from(source, *chunk, now)
                && all_late(*chunk)
        })
    }

    fn may_come_from(&self, source: &SourceState, chunk: ChunkId, now: Instant) -> bool {
        source.near || self.locality.may_import(chunk, self.timeouts.chunk_time(), now)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let (stall, silence) = (self.timeouts.stall(), self.timeouts.silence());
        let late = self.timeouts.late().filter(|_| self.unrequested.is_empty());
        let of_sources = self.sources.values().flat_map(|source| {
            let silent = source.requests.first().map(|_| source.last_heard + silence);
            let stalled = source.requests.iter().map(move |request| request.progress_at + stall);
            let resumed = source.paused_until.filter(|_| !self.missing.is_empty());
            let late = late.into_iter().flat_map(move |late| {
                source.requests.iter().map(move |request| request.sent_at + late)
            });
            let probed = source.is_probed_after(silence);
            stalled.chain(silent).chain(probed).chain(resumed).chain(late)
        });
        let idle_far = |source: &SourceState| !source.near && source.requests.is_empty();
        let polled = self.idle_at.filter(|_| self.sources.values().any(idle_far));
        let import = polled.and_then(|polled| {
            self.locality.next_import(&self.unrequested, self.timeouts.chunk_time(), polled)
        });
        // What was due at the last idle poll, and led to nothing, is not due again.
        let past = |at: &Instant| self.idle_at.is_none_or(|idle_at| *at > idle_at);
        of_sources.chain(import).filter(past).min()
    }

    fn forget_request(&mut self, source: Conn, chunk: ChunkId) {
        let Some(source) = self.sources.get_mut(&source) else { return };
        let before = source.requests.len();
        source.requests.retain(|request| request.chunk != chunk);
        if source.requests.len() < before {
            self.in_flight_to_peers -= usize::from(source.role == Role::Node);
            self.count_in_flight(chunk, false);
        }
    }

    fn count_in_flight(&mut self, chunk: ChunkId, more: bool) {
        if let Some(count) = self.in_flight.get_mut(chunk.index()) {
            *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
            if *count == 0 && self.missing.contains(chunk) {
                self.unrequested.insert(chunk);
            } else {
                self.unrequested.remove(chunk);
            }
        }
    }
}
