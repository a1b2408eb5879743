//! A node's side: which chunk to ask of whom, and until when to wait for it.
//!
//! The scheduler is told what happened and answers [`Scheduler::poll`] with what to ask next. It
//! knows nothing of connections, messages or files, so that a simulator runs the very same lines.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::control::Role;
use crate::image::chunks::{ChunkId, ChunkSet, Layout};
use crate::random::next_random;
use crate::swarm::meter::smooth;
use crate::swarm::ring::Ring;
use crate::swarm::rules::Rules;

/// So many chunks have to come from near before it is said whether others come as fast.
const FEW_MEASURED: u32 = 8;
/// Distance matters once so many more far chunks were late than not.
const LATE_ENOUGH: i32 = 3;
/// What was in time counts up to so many.
const MOST_IN_TIME: i32 = 16;
/// Patience doubles at most so often.
const MOST_SETBACKS: u32 = 6;

/// What to do.
#[allow(missing_docs, reason = "each field is the source or the chunk that the text names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask `source` for `chunk`.
    Fetch { source: Conn, chunk: ChunkId },
    /// Ask a master for another grant.
    AskNext { source: Conn },
    /// The chunk is not needed from this source any more.
    Abandon { source: Conn, chunk: ChunkId },
    /// The source does not answer; end the connection.
    Drop { source: Conn },
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    chunk: ChunkId,
    since: Instant,
    /// When bytes of it last came.
    progress: Instant,
}

#[derive(Debug)]
struct View {
    role: Role,
    /// It is of this node's subnet.
    near: bool,
    has: ChunkSet,
    asked: Vec<Asked>,
    /// Granted and not asked for yet.
    granted: Vec<ChunkId>,
    /// Reads of `next` that wait.
    asking: usize,
    /// Nothing more is asked of it before then.
    rest_until: Option<Instant>,
    last_heard: Instant,
}

/// The choice of chunks and sources of one node.
#[derive(Debug)]
pub struct Scheduler {
    rules: Rules,
    /// Wanted, not verified.
    missing: ChunkSet,
    /// Missing, and asked of nobody.
    unasked: ChunkSet,
    /// How many requests are out for each chunk.
    in_flight: Vec<u8>,
    /// How many requests are out to peers.
    asked_of_peers: usize,
    sources: BTreeMap<Conn, View>,
    /// How many peers hold each chunk, and how many of those that are near.
    copies: Vec<u32>,
    near_copies: Vec<u32>,
    /// Since when each is known to be with a peer that is not near.
    far_since: Vec<Option<Instant>>,
    /// What this node is to bring into its subnet.
    ring: Ring,
    /// How long a chunk usually takes from a peer that is near, and how many that was learned from.
    usual_near: (Option<Duration>, u32),
    /// How many more chunks from peers that are not near were late than were not.
    far_late: i32,
    /// What is not near has been found to come slowly.
    far_is_dear: bool,
    layout: Layout,
    /// How long a chunk usually takes from request to end.
    usual: Option<Duration>,
    /// How often in a row nothing came for as long as this node was patient.
    setbacks: u32,
    set_back: Option<Instant>,
    random: u64,
    /// Something has happened that may change what to ask.
    changed: bool,
    /// When there may be something to ask though nothing happens.
    due: Option<Instant>,
    /// When it was last found that nothing is to be done.
    looked: Option<Instant>,
}

impl Scheduler {
    /// Fetches the chunks in `missing`; `seed` drives the choice among equals.
    pub fn new(layout: Layout, missing: ChunkSet, rules: Rules, seed: u64) -> Scheduler {
        Scheduler {
            rules,
            unasked: missing.clone(),
            missing,
            in_flight: vec![0; layout.count() as usize],
            asked_of_peers: 0,
            sources: BTreeMap::new(),
            copies: vec![0; layout.count() as usize],
            near_copies: vec![0; layout.count() as usize],
            far_since: vec![None; layout.count() as usize],
            ring: Ring::default(),
            usual_near: (None, 0),
            far_late: 0,
            far_is_dear: false,
            layout,
            usual: None,
            setbacks: 0,
            set_back: None,
            random: seed | 1,
            changed: true,
            due: None,
            looked: None,
        }
    }

    /// What is wanted and not verified yet.
    pub fn missing(&self) -> &ChunkSet {
        &self.missing
    }

    /// A source can be asked from now on.
    pub fn add(&mut self, source: Conn, role: Role, near: bool, now: Instant) {
        self.changed = true;
        let source_state = View {
            role,
            near,
            has: ChunkSet::empty(&self.layout),
            asked: Vec::new(),
            granted: Vec::new(),
            asking: 0,
            rest_until: None,
            last_heard: now,
        };
        self.sources.insert(source, source_state);
    }

    /// A source is gone; what was asked of it is to be had elsewhere.
    pub fn remove(&mut self, source: Conn) {
        self.changed = true;
        let Some(gone) = self.sources.remove(&source) else { return };
        if gone.role == Role::Node {
            self.asked_of_peers = self.asked_of_peers.saturating_sub(gone.asked.len());
        }
        for asked in &gone.asked {
            self.count_in_flight(asked.chunk, false);
        }
        for chunk in gone.has.iter() {
            let near = self.near_copies.get_mut(chunk.index()).filter(|_| gone.near);
            for copies in self.copies.get_mut(chunk.index()).into_iter().chain(near) {
                *copies = copies.saturating_sub(1);
            }
        }
    }

    /// Whether what comes from outside of the subnet comes slowly, as over a rack's narrow uplink.
    pub fn far_is_dear(&self) -> bool {
        self.far_is_dear
    }

    /// Who is near, this node among them.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// A peer has said that it holds a chunk.
    pub fn has(&mut self, source: Conn, chunk: ChunkId, now: Instant) {
        let window = self.peer_window();
        let Some(peer) = self.sources.get_mut(&source) else { return };
        if peer.has.insert(chunk) {
            let near = self.near_copies.get_mut(chunk.index()).filter(|_| peer.near);
            for copies in self.copies.get_mut(chunk.index()).into_iter().chain(near) {
                *copies = copies.saturating_add(1);
            }
            if let Some(since) = self.far_since.get_mut(chunk.index()).filter(|_| !peer.near) {
                since.get_or_insert(now);
            }
            // Whoever is busy is looked at when it no longer is; and nobody is asked for what is on
            // its way, unless all is.
            let of_use = self.unasked.contains(chunk)
                || self.unasked.is_empty() && self.missing.contains(chunk);
            if of_use && peer.asked.len() < window {
                self.changed = true;
            }
        }
    }

    /// A master has granted a chunk.
    pub fn granted(&mut self, source: Conn, chunk: ChunkId, now: Instant) {
        let Some(master) = self.sources.get_mut(&source) else { return };
        master.asking = master.asking.saturating_sub(1);
        master.last_heard = now;
        master.granted.push(chunk);
        self.changed = true;
    }

    /// Bytes of a chunk have come.
    pub fn progressed(&mut self, source: Conn, chunk: ChunkId, now: Instant) {
        let Some(source) = self.sources.get_mut(&source) else { return };
        source.last_heard = now;
        if let Some(asked) = source.asked.iter_mut().find(|asked| asked.chunk == chunk) {
            asked.progress = now;
        }
    }

    /// A request ended: with a verified chunk, or with none.
    pub fn ended(&mut self, source: Conn, chunk: ChunkId, verified: bool, now: Instant) {
        self.changed = true;
        self.forget(source, chunk);
        let Some(source) = self.sources.get_mut(&source) else { return };
        source.last_heard = now;
        if verified {
            self.missing.remove(chunk);
            self.unasked.remove(chunk);
            self.setbacks = 0;
        } else {
            source.rest_until = Some(now + self.usual.unwrap_or(self.rules.min_patience));
        }
    }

    /// A chunk came whole from a source after this time.
    pub fn measured(&mut self, source: Conn, took: Duration) {
        smooth(&mut self.usual, took);
        // What a master sends says nothing of the way: it comes when it is the node's turn.
        let peer = self.sources.get(&source).filter(|source| source.role == Role::Node);
        let Some(near) = peer.map(|source| source.near) else { return };
        if near {
            smooth(&mut self.usual_near.0, took);
            self.usual_near.1 = self.usual_near.1.saturating_add(1);
            return;
        }
        let (Some(usual), FEW_MEASURED..) = self.usual_near else { return };
        // Any chunk may be late; over a narrow uplink most are.
        let factor = self.rules.far_factor;
        let late = factor > 0 && took > usual.saturating_mul(factor);
        self.far_late = (self.far_late + if late { 1 } else { -1 }).max(-MOST_IN_TIME);
        self.far_is_dear |= self.far_late >= LATE_ENOUGH;
    }

    /// When a chunk was asked of a source.
    pub fn asked_since(&self, source: Conn, chunk: ChunkId) -> Option<Instant> {
        let source = self.sources.get(&source)?;
        source.asked.iter().find(|asked| asked.chunk == chunk).map(|asked| asked.since)
    }

    /// The next thing to do, or None until something happens or [`Scheduler::deadline`] comes.
    pub fn poll(&mut self, now: Instant) -> Option<Command> {
        if self.is_idle(now) {
            return None;
        }
        let Some(command) = self.give_up(now).or_else(|| self.ask(now)) else {
            self.looked = Some(now);
            self.changed = false;
            self.due = self.next_due();
            return None;
        };
        match command {
            Command::Fetch { source, chunk } => {
                self.count_in_flight(chunk, true);
                if let Some(source) = self.sources.get_mut(&source) {
                    source.granted.retain(|granted| *granted != chunk);
                    if source.asked.is_empty() {
                        source.last_heard = now;
                    }
                    let asked = Asked { chunk, since: now, progress: now };
                    source.asked.push(asked);
                    self.asked_of_peers += usize::from(source.role == Role::Node);
                }
            }
            Command::AskNext { source } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.asking += 1;
                }
            }
            Command::Abandon { source, chunk } => self.forget(source, chunk),
            Command::Drop { source } => self.remove(source),
        }
        Some(command)
    }

    /// Whether [`Scheduler::poll`] has nothing to do at present.
    pub fn is_idle(&self, now: Instant) -> bool {
        !self.changed && self.due.is_none_or(|due| now < due)
    }

    /// When [`Scheduler::poll`] may have something new to say by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn next_due(&self) -> Option<Instant> {
        let (patience, silence) = (self.patience(), self.silence());
        let requests = self.sources.values().flat_map(|source| {
            let silent = source.asked.first().map(|_| source.last_heard + silence);
            let impatient = source.asked.iter().map(move |asked| asked.progress + patience);
            let rested = source.rest_until.filter(|_| !self.missing.is_empty());
            let doubled = self.unasked.is_empty().then_some(self.doubling()).flatten();
            let doubled = doubled
                .into_iter()
                .flat_map(move |after| source.asked.iter().map(move |asked| asked.since + after));
            impatient.chain(silent).chain(rested).chain(doubled)
        });
        let imports = self.next_import();
        let requests = requests.chain(imports);
        // What was due at the last look and did not lead to anything is not due again.
        let looked = self.looked;
        requests.filter(|at| looked.is_none_or(|looked| *at > looked)).min()
    }

    /// How long a request may go without progress.
    fn patience(&self) -> Duration {
        let rules = &self.rules;
        let patience = self.usual.map_or(rules.first_patience, |usual| {
            usual.saturating_mul(rules.patience_factor).max(rules.min_patience)
        });
        patience.saturating_mul(1 << self.setbacks)
    }

    /// How long a source may be silent.
    fn silence(&self) -> Duration {
        self.rules.silence.saturating_mul(1 << self.setbacks).max(self.patience())
    }

    /// Something was given up. Twice the time is waited from now on, until a chunk comes: where a link is
    /// so slow that each of many sources seems silent, giving up would else be all that ever happens.
    fn set_back(&mut self, now: Instant) {
        let patience = self.patience();
        if self.set_back.is_none_or(|last| now.saturating_duration_since(last) >= patience) {
            self.set_back = Some(now);
            self.setbacks = (self.setbacks + 1).min(MOST_SETBACKS);
        }
    }

    /// Ends what takes too long, and what another source has brought meanwhile.
    fn give_up(&mut self, now: Instant) -> Option<Command> {
        let (patience, silence) = (self.patience(), self.silence());
        for (&id, source) in &mut self.sources {
            if !source.asked.is_empty()
                && now.saturating_duration_since(source.last_heard) >= silence
            {
                self.set_back(now);
                return Some(Command::Drop { source: id });
            }
            for asked in &source.asked {
                let late = now.saturating_duration_since(asked.progress) >= patience;
                if !self.missing.contains(asked.chunk) {
                    return Some(Command::Abandon { source: id, chunk: asked.chunk });
                }
                // A master's grant is kept: it goes on until the silence is too long.
                if late && source.role == Role::Node {
                    source.rest_until = Some(now + patience);
                    let chunk = asked.chunk;
                    self.set_back(now);
                    return Some(Command::Abandon { source: id, chunk });
                }
            }
        }
        None
    }

    fn ask(&mut self, now: Instant) -> Option<Command> {
        if self.missing.is_empty() {
            return None;
        }
        // What was granted is fetched without delay, since nobody else gets it meanwhile.
        for (&id, source) in &mut self.sources {
            while let Some(&chunk) = source.granted.first() {
                if self.missing.contains(chunk) && source.asked.iter().all(|a| a.chunk != chunk) {
                    return Some(Command::Fetch { source: id, chunk });
                }
                source.granted.remove(0);
            }
            let busy = source.asked.len() + source.asking;
            if source.role == Role::Master && busy < self.rules.master_window {
                return Some(Command::AskNext { source: id });
            }
        }
        let random = next_random(&mut self.random);
        let peers = self.sources.iter().filter(|(_, s)| s.role == Role::Node);
        let window = self.peer_window();
        let mut idle: Vec<(usize, u64, Conn)> = peers
            .filter(|(_, s)| s.asked.len() < window)
            .filter(|(_, s)| s.rest_until.is_none_or(|until| until <= now))
            .map(|(id, s)| (s.asked.len(), id.0.wrapping_mul(random), *id))
            .collect();
        idle.sort_unstable();
        idle.iter().find_map(|&(_, _, id)| self.choose(id, now))
    }

    /// How many requests may be out to one peer.
    fn peer_window(&self) -> usize {
        let peers = self.sources.values().filter(|source| source.role == Role::Node).count();
        let enough = self.rules.enough_in_flight;
        if self.asked_of_peers.max(peers) >= enough { 1 } else { self.rules.peer_window }
    }

    /// The rarest chunk that `id` has and nobody was asked for, so that no chunk stays with a few nodes that all others
    /// have to wait for; near the end, one that somebody else was asked for and does not bring.
    fn choose(&self, id: Conn, now: Instant) -> Option<Command> {
        let source = self.sources.get(&id)?;
        let requests = |chunk: ChunkId| self.in_flight.get(chunk.index()).copied().unwrap_or(0);
        let spread = self.random;
        let choosy = !source.near && self.is_choosy();
        let here = source.has.common(&self.unasked);
        let here = here.filter(|chunk| !choosy || self.imports(*chunk, now));
        let first = here.min_by_key(|chunk| {
            let mixed = u64::from(chunk.get()).wrapping_add(1).wrapping_mul(spread);
            (self.copies.get(chunk.index()).copied().unwrap_or(0), mixed)
        });
        if let Some(chunk) = first {
            return Some(Command::Fetch { source: id, chunk });
        }
        if !source.asked.is_empty() || !self.unasked.is_empty() {
            return None;
        }
        let overdue = now.checked_sub(self.doubling()?)?;
        let useful = source.has.common(&self.missing);
        let useful = useful.filter(|chunk| !choosy || self.imports(*chunk, now));
        let doubled = useful.filter(|chunk| requests(*chunk) == 1).find(|chunk| {
            let others = self.sources.values().flat_map(|source| &source.asked);
            others.filter(|asked| asked.chunk == *chunk).all(|asked| asked.since <= overdue)
        })?;
        Some(Command::Fetch { source: id, chunk: doubled })
    }

    /// Whether this node may take a chunk from a peer that is not near, where that is dear.
    fn imports(&self, chunk: ChunkId, now: Instant) -> bool {
        if self.near_copies.get(chunk.index()).is_some_and(|copies| *copies > 0) {
            return false;
        }
        let since = self.far_since.get(chunk.index()).copied().flatten();
        let waited = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let doublings = waited.div_duration_f64(self.import_patience()) as u32;
        let turns = 1usize.checked_shl(doublings).unwrap_or(usize::MAX);
        self.ring.before(chunk) < turns
    }

    /// When the next chunk may be taken from a peer that is not near.
    fn next_import(&self) -> Option<Instant> {
        let idle = |source: &View| !source.near && source.asked.is_empty();
        if !self.is_choosy() || !self.sources.values().any(idle) {
            return None;
        }
        let looked = self.looked?;
        let patience = self.import_patience();
        let elsewhere =
            self.unasked.iter().filter(|chunk| self.near_copies.get(chunk.index()) == Some(&0));
        let since =
            elsewhere.filter_map(|chunk| self.far_since.get(chunk.index()).copied().flatten());
        let doubles = since.map(|since| {
            let waited = looked.saturating_duration_since(since).div_duration_f64(patience);
            since + patience * (waited as u32).saturating_add(1)
        });
        doubles.min()
    }

    fn import_patience(&self) -> Duration {
        let usual = self.usual.unwrap_or(self.rules.min_patience);
        usual.saturating_mul(self.rules.import_patience_factor).max(self.rules.min_patience)
    }

    /// Whether it matters who is near, and somebody is.
    fn is_choosy(&self) -> bool {
        self.far_is_dear && self.ring.others() > 0
    }

    /// How long a chunk may be on its way near the end before it is asked of another as well.
    fn doubling(&self) -> Option<Duration> {
        self.usual.map(|usual| usual.max(self.rules.min_patience / 4))
    }

    fn forget(&mut self, source: Conn, chunk: ChunkId) {
        let Some(source) = self.sources.get_mut(&source) else { return };
        let before = source.asked.len();
        source.asked.retain(|asked| asked.chunk != chunk);
        if source.asked.len() < before {
            self.asked_of_peers -= usize::from(source.role == Role::Node);
            self.count_in_flight(chunk, false);
        }
    }

    fn count_in_flight(&mut self, chunk: ChunkId, more: bool) {
        if let Some(count) = self.in_flight.get_mut(chunk.index()) {
            *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
            match *count {
                0 if self.missing.contains(chunk) => self.unasked.insert(chunk),
                _ => self.unasked.remove(chunk),
            };
        }
    }
}

#[cfg(test)]
mod tests;
