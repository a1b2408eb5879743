//! The master's side: which chunk goes to whom next.
//!
//! Each chunk is put into the swarm once, and nodes trade from there. A chunk of which nobody else
//! holds a copy goes first. Once all are out, those of which there is only one copy go out again: its
//! holder may be slow, lie, or be gone. Any other goes only to a node that has starved for a while,
//! since whoever is fed by others can wait for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::members::Members;
use crate::chunks::{ChunkId, ChunkSet, Layout};
use crate::p9::server::Conn;

/// Grants in flight to one node while others wait as well.
const SHARED_WINDOW: usize = 2;
/// Grants in flight to one node that is alone.
const LONE_WINDOW: usize = 6;
/// A node that got nothing for this long, or for four times the usual chunk time, starves.
const STARVED_AFTER: Duration = Duration::from_millis(200);
/// A grant that is not fetched within this time, or ten times the usual one, is taken back.
const GRANT_LIFETIME: Duration = Duration::from_secs(1);
/// A node is slow if its chunks take this many times as long as everybody's.
const SLOW_FACTOR: u32 = 4;

#[derive(Debug, Default)]
struct Asker {
    /// How many of its reads of `next` wait, those that `ready` will answer included.
    asks: usize,
    /// Chunks promised and not yet reported as held.
    granted: Vec<Grant>,
    /// Grants it has not been told of.
    ready: Vec<ChunkId>,
    /// Since when it waits.
    since: Option<Instant>,
    /// When others last brought it a chunk; before the first, when it first asked.
    fed: Option<Instant>,
    /// How long its grants take.
    usual: Option<Duration>,
    /// A grant was taken back from it, and nothing was heard of it since.
    silent: bool,
}

impl Asker {
    fn waits(&self) -> bool {
        self.asks > self.ready.len() && !self.silent
    }

    /// How many of its grants have not left, not counting those from before `prompt`.
    fn on_the_way(&self, prompt: Option<Instant>) -> usize {
        let counts = |grant: &&Grant| !grant.sent && prompt.is_none_or(|at| grant.since >= at);
        self.granted.iter().filter(counts).count()
    }
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    chunk: ChunkId,
    since: Instant,
    sent: bool,
}

/// What the master has handed out, and who waits for more.
#[derive(Debug)]
pub struct Grants {
    /// Grants on their way at a time.
    slots: usize,
    askers: BTreeMap<Conn, Asker>,
    /// For each chunk the nodes that hold it or were granted it.
    copies: Vec<u32>,
    /// Chunks of which there is no copy, in the order in which they go out.
    fresh: ChunkSet,
    /// How long a grant usually takes.
    usual: Option<Duration>,
}

impl Grants {
    /// Nothing is handed out yet; at most `slots` grants are on their way at a time.
    pub fn new(layout: Layout, slots: usize) -> Grants {
        Grants {
            slots,
            askers: BTreeMap::new(),
            copies: vec![0; layout.count() as usize],
            fresh: ChunkSet::full(&layout),
            usual: None,
        }
    }

    /// A read of `next`: a grant if there is one for `conn`, else it waits for [`Grants::assign`].
    pub fn ask(&mut self, conn: Conn, now: Instant) -> Option<ChunkId> {
        let asker = self.askers.entry(conn).or_default();
        asker.silent = false;
        if asker.ready.is_empty() {
            asker.asks += 1;
            asker.since.get_or_insert(now);
            asker.fed.get_or_insert(now);
            return None;
        }
        Some(asker.ready.remove(0))
    }

    /// None of its reads waits any longer; they were given up, or are about to ask again.
    pub fn cancel(&mut self, conn: Conn) {
        if let Some(asker) = self.askers.get_mut(&conn) {
            asker.asks = 0;
        }
    }

    /// All bytes of a granted chunk have left.
    pub fn sent(&mut self, conn: Conn, chunk: ChunkId, now: Instant) {
        let Some(asker) = self.askers.get_mut(&conn) else { return };
        asker.silent = false;
        let Some(grant) = asker.granted.iter_mut().find(|grant| grant.chunk == chunk) else {
            return;
        };
        if !std::mem::replace(&mut grant.sent, true) {
            let took = now.saturating_duration_since(grant.since);
            smooth(&mut asker.usual, took);
            smooth(&mut self.usual, took);
        }
    }

    /// `conn` has said that it holds these chunks.
    pub fn held(&mut self, conn: Conn, chunks: &[ChunkId], now: Instant) {
        for &chunk in chunks {
            let mut granted_here = false;
            if let Some(asker) = self.askers.get_mut(&conn) {
                granted_here = asker.granted.iter().any(|grant| grant.chunk == chunk);
                asker.granted.retain(|grant| grant.chunk != chunk);
                if !granted_here {
                    asker.fed = Some(now);
                }
            }
            // A chunk that was granted counts as a copy already.
            if !granted_here {
                self.add_copy(chunk);
            }
        }
    }

    /// `conn` is gone, and with it the chunks that it held.
    pub fn gone<'a>(&mut self, conn: Conn, held: impl Iterator<Item = ChunkId> + 'a) {
        held.for_each(|chunk| self.drop_copy(chunk));
        for grant in self.askers.remove(&conn).map(|asker| asker.granted).unwrap_or_default() {
            self.drop_copy(grant.chunk);
        }
    }

    /// Hands out what can be handed out; returns whom to wake.
    pub fn assign(&mut self, members: &Members, now: Instant) -> Vec<Conn> {
        self.take_back_the_overdue(now);
        let mut woken = Vec::new();
        while let Some((conn, chunk)) = self.best(members, now) {
            self.add_copy(chunk);
            if let Some(asker) = self.askers.get_mut(&conn) {
                asker.granted.push(Grant { chunk, since: now, sent: false });
                asker.ready.push(chunk);
                asker.since = asker.waits().then_some(now);
            }
            if !woken.contains(&conn) {
                woken.push(conn);
            }
        }
        woken
    }

    /// When [`Grants::assign`] should be called again though nothing has happened.
    ///
    /// Nodes that lack nothing leave their reads of `next` waiting, and are no reason.
    pub fn deadline(&self, members: &Members, now: Instant) -> Option<Instant> {
        let lacks = |conn| members.get(conn).is_some_and(|member| !member.lacks.is_empty());
        let waits = |(conn, asker): (&Conn, &Asker)| {
            asker.granted.iter().any(|g| !g.sent) || (asker.waits() && lacks(*conn))
        };
        self.askers.iter().any(waits).then(|| now + STARVED_AFTER / 2)
    }

    fn best(&self, members: &Members, now: Instant) -> Option<(Conn, ChunkId)> {
        let patience = self.usual.unwrap_or_default().saturating_mul(4).max(STARVED_AFTER);
        // Whoever takes too long to fetch must not keep a slot from the others.
        let prompt = now.checked_sub(patience);
        let taken: usize = self.askers.values().map(|asker| asker.on_the_way(prompt)).sum();
        if taken >= self.slots {
            return None;
        }
        let waiting = || self.askers.iter().filter(|(_, asker)| asker.waits());
        let alone = waiting().count() == 1;
        let window = if alone { LONE_WINDOW } else { SHARED_WINDOW };
        let mut candidates: Vec<_> = waiting()
            .filter(|(_, asker)| asker.on_the_way(None) < window)
            .filter_map(|(conn, asker)| Some((*conn, asker, members.get(*conn)?)))
            .filter(|(_, _, member)| !member.lacks.is_empty())
            .collect();
        candidates.sort_by_key(|(conn, asker, member)| {
            (asker.on_the_way(None), std::cmp::Reverse(member.lack_permille()), asker.since, *conn)
        });
        candidates.iter().find_map(|(conn, asker, member)| {
            let lacks = |chunk: &ChunkId| {
                member.lacks.contains(*chunk) && asker.granted.iter().all(|g| g.chunk != *chunk)
            };
            let starves = now.saturating_duration_since(asker.fed?) >= patience;
            let fed = alone || starves || !self.is_slow(asker);
            if let Some(chunk) = self.fresh.iter().find(lacks).filter(|_| fed) {
                return Some((*conn, chunk));
            }
            let others = members.serving() - usize::from(member.serves.is_some());
            let rarest = member.lacks.iter().filter(lacks).min_by_key(|c| self.copies_of(*c))?;
            // Once all is out, nobody waits for the only copy: its holder may be slow, or gone.
            let single = self.fresh.is_empty() && self.copies_of(rarest) <= 1;
            (starves || others == 0 || single).then_some((*conn, rarest))
        })
    }

    fn is_slow(&self, asker: &Asker) -> bool {
        match (asker.usual, self.usual) {
            (Some(own), Some(all)) => own > all.saturating_mul(SLOW_FACTOR),
            _ => false,
        }
    }

    /// A grant that was never fetched must not keep its chunk from the others.
    fn take_back_the_overdue(&mut self, now: Instant) {
        let lifetime = self.usual.unwrap_or_default().saturating_mul(10).max(GRANT_LIFETIME);
        let overdue = |grant: &Grant| now.saturating_duration_since(grant.since) > lifetime;
        let mut lost = Vec::new();
        for asker in self.askers.values_mut() {
            lost.extend(asker.granted.iter().filter(|g| overdue(g)).map(|grant| grant.chunk));
            let before = asker.granted.len();
            asker.granted.retain(|grant| !overdue(grant));
            asker.silent |= asker.granted.len() < before;
        }
        lost.into_iter().for_each(|chunk| self.drop_copy(chunk));
    }

    fn copies_of(&self, chunk: ChunkId) -> u32 {
        self.copies.get(chunk.index()).copied().unwrap_or(0)
    }

    fn add_copy(&mut self, chunk: ChunkId) {
        if let Some(copies) = self.copies.get_mut(chunk.index()) {
            *copies = copies.saturating_add(1);
            self.fresh.remove(chunk);
        }
    }

    fn drop_copy(&mut self, chunk: ChunkId) {
        if let Some(copies) = self.copies.get_mut(chunk.index()) {
            *copies = copies.saturating_sub(1);
            if *copies == 0 {
                self.fresh.insert(chunk);
            }
        }
    }
}

/// Folds a measurement into a running mean that forgets (weight 1/8, as TCP's round-trip time).
pub fn smooth(mean: &mut Option<Duration>, measured: Duration) {
    *mean = Some(match *mean {
        None => measured,
        Some(mean) => mean.saturating_mul(7).saturating_add(measured) / 8,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Master {
        members: Members,
        grants: Grants,
        layout: Layout,
        now: Instant,
    }

    impl Master {
        fn new(nodes: u64, chunks: u64, slots: usize) -> Master {
            let layout = Layout::new(chunks << 16, 1 << 16).unwrap();
            let mut master = Master {
                members: Members::new(layout, 1),
                grants: Grants::new(layout, slots),
                layout,
                now: Instant::now(),
            };
            for n in 0..nodes {
                master.node(n, layout.iter());
            }
            master
        }

        fn node(&mut self, n: u64, wants: impl Iterator<Item = ChunkId>) {
            let address = format!("10.0.0.{}:5000", n + 1).parse().unwrap();
            self.members.connected(Conn(n), address, self.now);
            self.members.joined(Conn(n), 20_004);
            self.members.wants(Conn(n), wants);
        }

        fn ask(&mut self, conn: u64) -> Option<u32> {
            self.grants.ask(Conn(conn), self.now).map(ChunkId::get)
        }

        fn assign(&mut self) -> Vec<u64> {
            self.grants.assign(&self.members, self.now).into_iter().map(|conn| conn.0).collect()
        }

        fn holds(&mut self, conn: u64, chunk: u32) {
            let new = self.members.has(Conn(conn), self.layout.chunk(chunk).into_iter(), self.now);
            self.grants.held(Conn(conn), &new, self.now);
        }

        /// A read that waits, and is tried again once something was handed out.
        fn serve(&mut self, conn: u64) -> Option<u32> {
            self.grants.cancel(Conn(conn));
            let chunk = self.ask(conn).or_else(|| {
                self.assign();
                self.grants.cancel(Conn(conn));
                self.ask(conn)
            });
            if let Some(chunk) = chunk.and_then(|chunk| self.layout.chunk(chunk)) {
                self.grants.sent(Conn(conn), chunk, self.now);
            }
            chunk
        }
    }

    #[test]
    fn nothing_goes_out_twice_before_all_is_out_once() {
        let mut master = Master::new(2, 4, 8);
        let mut out: Vec<u32> = (0..4).filter_map(|i| master.serve(i % 2)).collect();
        out.sort_unstable();
        assert_eq!(out, [0, 1, 2, 3]);
    }

    #[test]
    fn once_all_is_out_what_only_one_node_holds_goes_out_again() {
        let mut master = Master::new(3, 2, 4);
        assert_eq!((master.serve(0), master.serve(1)), (Some(0), Some(1)));
        assert_eq!((master.serve(2), master.serve(2)), (Some(0), Some(1)));
        assert_eq!(master.serve(0), None, "of each there are two copies to draw from");
    }

    #[test]
    fn a_node_that_lacks_more_goes_first() {
        let mut master = Master::new(2, 8, 1);
        master.holds(0, 5);
        assert_eq!((master.ask(0), master.ask(1)), (None, None));
        assert_eq!(master.assign(), [1]);
    }

    #[test]
    fn slots_limit_what_is_on_its_way() {
        let mut master = Master::new(3, 8, 2);
        for conn in 0..3 {
            master.ask(conn);
        }
        assert_eq!(master.assign().len(), 2);
        assert_eq!(master.assign(), [] as [u64; 0]);
    }

    #[test]
    fn a_lone_node_gets_everything_without_waiting() {
        let mut master = Master::new(1, 4, 4);
        let out: Vec<u32> = (0..4).filter_map(|_| master.serve(0)).collect();
        assert_eq!(out, [0, 1, 2, 3]);
    }

    #[test]
    fn what_only_a_dead_node_held_goes_out_again() {
        let mut master = Master::new(2, 2, 4);
        assert_eq!(master.serve(0), Some(0));
        master.holds(0, 0);
        assert_eq!(master.serve(1), Some(1));
        let held = master.members.disconnected(Conn(0)).unwrap().held;
        master.grants.gone(Conn(0), held.iter());
        assert_eq!(master.serve(1), Some(0));
    }

    #[test]
    fn a_starving_node_gets_another_copy() {
        let mut master = Master::new(3, 1, 4);
        assert_eq!((master.serve(0), master.serve(1)), (Some(0), Some(0)));
        assert_eq!(master.serve(2), None);
        master.now += STARVED_AFTER * 2;
        assert_eq!(master.assign(), [2]);
    }

    #[test]
    fn a_slow_node_is_fed_when_it_starves_though_others_wait_too() {
        let mut master = Master::new(2, 8, 4);
        master.grants.usual = Some(Duration::from_millis(1));
        for conn in 0..2 {
            master.grants.askers.entry(Conn(conn)).or_default().usual = Some(STARVED_AFTER);
            assert_eq!(master.ask(conn), None);
        }
        assert_eq!(master.assign(), [] as [u64; 0], "fresh chunks are for the others");
        master.now += STARVED_AFTER;
        assert_eq!(master.assign(), [0, 1]);
    }

    #[test]
    fn a_node_that_gets_nothing_from_others_starves_once_not_for_each_chunk() {
        let mut master = Master::new(3, 8, 4);
        for chunk in 0..8 {
            master.holds(0, chunk);
            master.holds(2, chunk);
        }
        assert_eq!(master.serve(1), None, "the other nodes have all of it");
        master.now += STARVED_AFTER * 2;
        assert!((0..8).all(|_| {
            let chunk = master.serve(1);
            chunk.into_iter().for_each(|chunk| master.holds(1, chunk));
            chunk.is_some()
        }));
    }

    #[test]
    fn a_grant_that_is_never_fetched_is_taken_back() {
        let mut master = Master::new(2, 1, 1);
        master.ask(0);
        master.assign();
        master.now += GRANT_LIFETIME * 2;
        master.ask(1);
        assert_eq!(master.assign(), [1]);
    }

    #[test]
    fn a_node_that_fetches_nothing_keeps_no_slot_from_the_others() {
        let mut master = Master::new(2, 8, 2);
        assert_eq!((master.ask(0), master.ask(0), master.ask(0)), (None, None, None));
        assert_eq!(master.assign(), [0]);
        assert_eq!((master.ask(1), master.ask(1), master.ask(1)), (None, None, None));
        assert_eq!(master.assign(), [] as [u64; 0]);
        master.now += STARVED_AFTER * 2;
        assert_eq!(master.assign(), [1]);
        master.now += GRANT_LIFETIME * 2;
        assert_eq!(master.assign(), [] as [u64; 0], "it was silent for too long");
        assert_eq!(master.ask(0), Some(0));
        assert_eq!(master.assign(), [0], "it is there again");
    }

    #[test]
    fn only_what_a_node_wants_is_granted() {
        let mut master = Master::new(0, 4, 4);
        let third = master.layout.chunk(2);
        master.node(0, third.into_iter());
        assert_eq!(master.serve(0), Some(2));
        master.holds(0, 2);
        assert_eq!(master.serve(0), None);
    }

    #[test]
    fn nodes_that_lack_nothing_keep_nobody_awake() {
        let mut master = Master::new(1, 1, 4);
        let is_due =
            |master: &Master| master.grants.deadline(&master.members, master.now).is_some();
        assert_eq!(master.serve(0), Some(0));
        assert_eq!(master.ask(0), None);
        assert!(is_due(&master), "it may starve");
        master.holds(0, 0);
        assert!(!is_due(&master), "its read of `next` waits all the same");
    }
}
