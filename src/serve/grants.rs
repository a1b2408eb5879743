//! The master's side: which chunk goes to whom next.
//!
//! Each chunk is put into the swarm once, and nodes trade from there. A chunk of which nobody else
//! holds a copy goes first. Once all are out, those of which there is only one copy go out again: its
//! holder may be slow, lie, or be gone. Any other goes only to a node that has starved for a while,
//! since whoever is fed by others can wait for them.

mod copies;
mod line;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::members::{Member, Members};
use crate::conn::Conn;
use crate::image::chunks::{ChunkId, ChunkSet, Layout};
use crate::swarm::meter::{Meter, smooth};
use crate::swarm::rules::Rules;
use copies::Copies;
use line::{Line, Place};

#[derive(Debug)]
struct Asker {
    host: IpAddr,
    /// How many of its reads of `next` wait, those that `ready` will answer included.
    asks: usize,
    /// Chunks promised and not yet reported as held.
    granted: Vec<Grant>,
    /// Chunks that it was granted, and holds.
    got: ChunkSet,
    /// Grants it has not been told of.
    ready: Vec<ChunkId>,
    /// Since when it waits.
    since: Option<Instant>,
    /// When others last brought it a chunk; before the first, when it first asked.
    fed: Option<Instant>,
    /// How long it takes until it holds what it was granted.
    usual: Option<Duration>,
    /// A grant was taken back from it, and nothing was heard of it since.
    silent: bool,
    stand: Stand,
}

/// Where an asker stands.
#[derive(Clone, Copy, Debug, Default)]
enum Stand {
    /// It does not wait, or all that it lacks was granted to it.
    #[default]
    Nowhere,
    /// It may be next.
    InLine(Place),
    /// There is nothing for it unless it starves.
    PassedOver(Instant),
}

impl Asker {
    fn new(host: IpAddr, layout: &Layout) -> Asker {
        Asker {
            host,
            asks: 0,
            granted: Vec::new(),
            got: ChunkSet::empty(layout),
            ready: Vec::new(),
            since: None,
            fed: None,
            usual: None,
            silent: false,
            stand: Stand::Nowhere,
        }
    }

    fn waits(&self) -> bool {
        self.asks > self.ready.len() && !self.silent
    }

    fn place(&self, conn: Conn) -> Place {
        (self.granted.len(), self.since, conn)
    }

    /// How many of its grants have not left.
    fn unsent(&self) -> usize {
        self.granted.iter().filter(|grant| !grant.sent).count()
    }

    fn was_granted(&self, chunk: ChunkId) -> bool {
        self.granted.iter().any(|grant| grant.chunk == chunk)
    }
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    chunk: ChunkId,
    since: Instant,
    sent: bool,
}

/// How long something took of late, with whomever.
#[derive(Debug, Default)]
struct Times {
    last: VecDeque<Duration>,
    /// How long it takes with the faster nodes: three quarters of the last ones took longer. Even if
    /// most nodes are slow, they do not pass for the usual.
    fast: Option<Duration>,
}

impl Times {
    const REMEMBERED: usize = 64;

    fn add(&mut self, took: Duration) {
        self.last.truncate(Times::REMEMBERED - 1);
        self.last.push_front(took);
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        self.fast = sorted.get(sorted.len() / 4).copied();
    }

    /// Whatever takes longer than this is late.
    fn patience(&self) -> Duration {
        self.fast.unwrap_or_default().saturating_mul(4)
    }
}

/// A grant to somebody, in the order of age.
type Aged = (Instant, Conn, ChunkId);

/// What the master has handed out, and who waits for more.
///
/// No call looks at all nodes: those that may be given something stand in a line that is kept in
/// order, and whoever is found to have no use for anything leaves it until that may be otherwise.
#[derive(Debug)]
pub(crate) struct Grants {
    rules: Rules,
    layout: Layout,
    /// Grants on their way at a time.
    most: usize,
    askers: BTreeMap<Conn, Asker>,
    line: Line,
    /// Those that were passed over, by when others last brought them a chunk.
    passed_over: BTreeSet<(Instant, Conn)>,
    /// Grants that are not yet reported as held.
    granted: BTreeSet<Aged>,
    /// Those of them that have not left.
    unsent: BTreeSet<Aged>,
    /// For each chunk, that nodes hold or were granted.
    copies: Copies,
    /// What left of it.
    sent: Meter,
    /// How long it takes until a grant has left.
    leaving: Times,
    /// How long it takes until it is held.
    arriving: Times,
    /// When [`Grants::assign`] was last called.
    assigned_at: Option<Instant>,
}

/// What counts while the line is looked through once.
struct Look {
    now: Instant,
    /// Only one waits.
    alone: bool,
    /// Grants in flight to one.
    window: usize,
    /// Who was last fed before this starves.
    starved_at: Option<Instant>,
}

impl Grants {
    /// Nothing is handed out yet; `slots` chunks are sent at a time.
    pub(crate) fn new(layout: Layout, slots: usize, rules: Rules) -> Grants {
        Grants {
            rules,
            layout,
            most: slots.saturating_mul(rules.grants_a_slot),
            askers: BTreeMap::new(),
            line: Line::default(),
            passed_over: BTreeSet::new(),
            granted: BTreeSet::new(),
            unsent: BTreeSet::new(),
            copies: Copies::new(layout),
            sent: Meter::default(),
            leaving: Times::default(),
            arriving: Times::default(),
            assigned_at: None,
        }
    }

    fn asker(&mut self, conn: Conn, host: IpAddr) -> &mut Asker {
        self.askers.entry(conn).or_insert_with(|| {
            self.copies.connected(host);
            Asker::new(host, &self.layout)
        })
    }

    /// A read of `next`: a grant if there is one for `conn`, else it waits for [`Grants::assign`].
    pub(crate) fn ask(&mut self, conn: Conn, host: IpAddr, now: Instant) -> Option<ChunkId> {
        let asker = self.asker(conn, host);
        asker.silent = false;
        let ready = (!asker.ready.is_empty()).then(|| asker.ready.remove(0));
        if ready.is_none() {
            asker.asks += 1;
            asker.since.get_or_insert(now);
            asker.fed.get_or_insert(now);
        }
        self.line_up(conn);
        ready
    }

    /// None of its reads waits any longer; they were given up, or are about to ask again.
    pub(crate) fn cancel(&mut self, conn: Conn) {
        if let Some(asker) = self.askers.get_mut(&conn) {
            asker.asks = 0;
            self.line_up(conn);
        }
    }

    /// All bytes of a granted chunk have left.
    pub(crate) fn sent(&mut self, conn: Conn, chunk: ChunkId, now: Instant) {
        let Some(asker) = self.askers.get_mut(&conn) else { return };
        asker.silent = false;
        let granted = asker.granted.iter_mut().find(|grant| grant.chunk == chunk);
        if let Some(grant) = granted.filter(|grant| !grant.sent) {
            grant.sent = true;
            self.unsent.remove(&(grant.since, conn, chunk));
            self.leaving.add(now.saturating_duration_since(grant.since));
            let range = self.layout.range(chunk);
            self.sent.add(range.end - range.start, now);
        }
        self.line_up(conn);
    }

    /// Whether `conn` was granted this chunk, and it has not left.
    pub(crate) fn expects(&self, conn: Conn, chunk: Option<ChunkId>) -> bool {
        let mut granted = self.askers.get(&conn).into_iter().flat_map(|asker| &asker.granted);
        granted.any(|grant| Some(grant.chunk) == chunk && !grant.sent)
    }

    /// Whether another host than this was granted something that has not left.
    pub(crate) fn feeds_others(&self, host: IpAddr) -> bool {
        let is_other = |conn| self.askers.get(conn).is_some_and(|asker| asker.host != host);
        self.unsent.iter().any(|(_, conn, _)| is_other(conn))
    }

    /// What leaves of that which was granted, in bytes a second.
    pub(crate) fn rate(&self, now: Instant) -> u64 {
        self.sent.rate(now)
    }

    /// `conn` has said that it holds these chunks.
    pub(crate) fn held(&mut self, conn: Conn, host: IpAddr, chunks: &[ChunkId], now: Instant) {
        self.asker(conn, host);
        for &chunk in chunks {
            match self.end_grant(conn, chunk) {
                // It counts as a copy already.
                Some(since) => self.arrived(conn, chunk, now.saturating_duration_since(since)),
                None => {
                    self.asker(conn, host).fed = Some(now);
                    if self.copies.claimed(host, chunk) {
                        self.look_again();
                    }
                }
            }
        }
        self.line_up(conn);
    }

    /// `conn` has reported what it lacks, holds or has sent, so that there may be something for it.
    pub(crate) fn reported(&mut self, conn: Conn, host: IpAddr) {
        self.asker(conn, host);
        self.line_up(conn);
    }

    /// `conn` is gone, and with it the chunks that it held.
    pub(crate) fn gone(&mut self, conn: Conn) {
        self.step_out(conn);
        let Some(Asker { host, granted, got, .. }) = self.askers.remove(&conn) else { return };
        for Grant { chunk, since, .. } in granted {
            self.line.ended(host);
            self.granted.remove(&(since, conn, chunk));
            self.unsent.remove(&(since, conn, chunk));
            self.drop_copy(chunk);
        }
        for chunk in got.iter() {
            self.drop_copy(chunk);
        }
        if self.copies.disconnected(host) {
            self.look_again();
        }
    }

    /// Hands out what can be handed out; returns whom to wake.
    pub(crate) fn assign(&mut self, members: &Members, now: Instant) -> Vec<Conn> {
        self.assigned_at = Some(now);
        self.take_back_the_overdue(now);
        let mut woken = Vec::new();
        while let Some((conn, chunk)) = self.best(members, now) {
            if self.copies.add(chunk) {
                self.look_again();
            }
            if let Some(asker) = self.askers.get_mut(&conn) {
                asker.granted.push(Grant { chunk, since: now, sent: false });
                asker.ready.push(chunk);
                asker.since = asker.waits().then_some(now);
                self.line.granted(asker.host);
            }
            self.granted.insert((now, conn, chunk));
            self.unsent.insert((now, conn, chunk));
            self.line_up(conn);
            if !woken.contains(&conn) {
                woken.push(conn);
            }
        }
        woken
    }

    /// When [`Grants::assign`] should be called again though nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let idle = self.line.is_empty() && self.passed_over.is_empty() && self.unsent.is_empty();
        self.assigned_at.filter(|_| !idle).map(|at| at + self.rules.starved_after / 2)
    }

    /// Whom to grant what.
    fn best(&mut self, members: &Members, now: Instant) -> Option<(Conn, ChunkId)> {
        let starved_after = self.rules.starved_after;
        let starved_at = now.checked_sub(self.leaving.patience().max(starved_after));
        // Whoever takes too long to fetch must not keep a slot from the others.
        let late = now.checked_sub(self.leaving.patience().max(starved_after / 4));
        let prompt = self.unsent.iter().rev().take_while(|(since, ..)| Some(*since) >= late);
        if prompt.take(self.most).count() >= self.most {
            return None;
        }
        let alone = self.line.len() + self.passed_over.len() == 1;
        let window = if alone { self.rules.lone_window } else { self.rules.shared_window };
        let look = Look { now, alone, window, starved_at };
        while let Some(&(fed, conn)) = self.passed_over.first()
            && Some(fed) <= starved_at
        {
            self.line_up(conn);
        }
        let mut after = Bound::Unbounded;
        while let Some(host) = self.line.host_after(after) {
            after = Bound::Excluded(host);
            let (.., ip) = host;
            let mut within = Bound::Unbounded;
            while let Some(place) = self.line.place_after(ip, within) {
                within = Bound::Excluded(place);
                let (.., conn) = place;
                if let Some(chunk) = self.chunk_of(conn, &look, members) {
                    return Some((conn, chunk));
                }
            }
        }
        None
    }

    /// What to grant to one that waits. If there is nothing for it, it leaves the line.
    fn chunk_of(&mut self, conn: Conn, look: &Look, members: &Members) -> Option<ChunkId> {
        let Some((asker, member)) = self.askers.get(&conn).zip(members.get(conn)) else {
            self.step_out(conn);
            return None;
        };
        if asker.unsent() >= look.window {
            return None;
        }
        let starves = asker.fed <= look.starved_at;
        let feeds_alone = members.serving() == usize::from(member.serves.is_some());
        let fed = asker.fed.unwrap_or(look.now);
        let hungry = look.alone || starves || !self.is_slow(asker, look.now);
        let chunk = self.chunk_for(asker, member, hungry, starves || feeds_alone);
        if chunk.is_none() {
            self.pass_over(conn, (!starves).then_some(fed));
        }
        chunk
    }

    /// What to grant: to the `hungry` what is scarce, and to those for whom there is `nobody_else`
    /// anything.
    fn chunk_for(
        &self,
        asker: &Asker,
        member: &Member,
        hungry: bool,
        nobody_else: bool,
    ) -> Option<ChunkId> {
        let lacks = |chunk: &ChunkId| !asker.was_granted(*chunk);
        // Once all is out, nobody waits for the only copy: its holder may be slow, or gone.
        let scarce = self.copies.scarce();
        let scarce = if hungry { member.lacks.common(scarce).find(lacks) } else { None };
        let rarest = || member.lacks.iter().filter(lacks).min_by_key(|c| self.copies.of(*c));
        scarce.or_else(|| if nobody_else { rarest() } else { None })
    }

    /// A grant was held after this time.
    fn arrived(&mut self, conn: Conn, chunk: ChunkId, took: Duration) {
        if let Some(asker) = self.askers.get_mut(&conn) {
            asker.got.insert(chunk);
            smooth(&mut asker.usual, took);
        }
        self.arriving.add(took);
    }

    /// Whether it takes many times as long as others, or has taken so long already.
    fn is_slow(&self, asker: &Asker, now: Instant) -> bool {
        let oldest = asker.granted.first();
        let waited = oldest.map(|grant| now.saturating_duration_since(grant.since));
        let own = asker.usual.max(waited);
        let factor = self.rules.slow_factor;
        own.zip(self.arriving.fast).is_some_and(|(own, fast)| own > fast.saturating_mul(factor))
    }

    /// A grant that was never fetched must not keep its chunk from the others.
    fn take_back_the_overdue(&mut self, now: Instant) {
        let lifetime = self.arriving.patience().saturating_mul(3).max(self.rules.grant_lifetime);
        while let Some(&(since, conn, chunk)) = self.granted.first()
            && now.saturating_duration_since(since) > lifetime
        {
            self.end_grant(conn, chunk);
            self.drop_copy(chunk);
            if let Some(asker) = self.askers.get_mut(&conn) {
                asker.silent = true;
                smooth(&mut asker.usual, lifetime);
            }
            self.line_up(conn);
        }
    }

    /// A grant was used, or is taken back; since when there was one, if there was.
    fn end_grant(&mut self, conn: Conn, chunk: ChunkId) -> Option<Instant> {
        let granted = self.askers.get_mut(&conn).map(|asker| &mut asker.granted);
        let place = granted.as_ref().and_then(|all| all.iter().position(|g| g.chunk == chunk));
        let (granted, place) = granted.zip(place)?;
        let since = granted.remove(place).since;
        self.line.ended(self.askers.get(&conn)?.host);
        self.granted.remove(&(since, conn, chunk));
        self.unsent.remove(&(since, conn, chunk));
        Some(since)
    }

    /// Something has changed for `conn`: if it waits, there may be something for it.
    fn line_up(&mut self, conn: Conn) {
        self.step_out(conn);
        if let Some(asker) = self.askers.get_mut(&conn).filter(|asker| asker.waits()) {
            let place = asker.place(conn);
            asker.stand = Stand::InLine(place);
            self.line.insert(asker.host, place);
        }
    }

    fn step_out(&mut self, conn: Conn) {
        let Some(asker) = self.askers.get_mut(&conn) else { return };
        match std::mem::take(&mut asker.stand) {
            Stand::Nowhere => {}
            Stand::InLine(place) => {
                self.line.remove(asker.host, &place);
            }
            Stand::PassedOver(fed) => {
                self.passed_over.remove(&(fed, conn));
            }
        }
    }

    /// There is nothing for `conn`, until something changes or it starves; if it does so already, that
    /// makes no difference.
    fn pass_over(&mut self, conn: Conn, fed: Option<Instant>) {
        self.step_out(conn);
        if let Some((asker, fed)) = self.askers.get_mut(&conn).zip(fed) {
            asker.stand = Stand::PassedOver(fed);
            self.passed_over.insert((fed, conn));
        }
    }

    /// There is something that may be for those who were passed over.
    fn look_again(&mut self) {
        for (_, conn) in std::mem::take(&mut self.passed_over) {
            self.line_up(conn);
        }
    }

    fn drop_copy(&mut self, chunk: ChunkId) {
        if self.copies.drop(chunk) {
            self.look_again();
        }
    }
}

#[cfg(test)]
mod tests;
