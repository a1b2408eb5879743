//! Keeps chunks from coming into the subnet many times over, where far peers are slow, as behind a rack's
//! narrow uplink.
//!
//! *Near* peers are in this node's subnet, *far* ones are not. Once far peers are found to be slow, a chunk
//! that no near peer holds is *imported*, fetched from a far peer, by one node: the first after the chunk
//! on the [`Ring`]. The others wait for it. If it does not come, since that node has died or knows nobody
//! that holds the chunk, the second on the ring may import it too, then four, then eight, and so on.

use std::time::{Duration, Instant};

use crate::image::chunks::{ChunkId, ChunkSet, Layout};
use crate::swarm::meter::smooth;
use crate::swarm::ring::Ring;
use crate::swarm::rules::Rules;

/// Chunks from near peers needed before far peers are compared with them.
pub(super) const MIN_NEAR_SAMPLES: u32 = 8;
/// Far peers are slow once this many more of their chunks were late than not.
const SLOW_AT: i32 = 3;
/// Chunks in time count up to this many, so that an uplink that fills up later is noticed.
const MAX_IN_TIME: i32 = 16;

#[derive(Debug)]
pub(super) struct Locality {
    rules: Rules,
    ring: Ring,
    /// How many near peers hold each chunk.
    near_copies: Vec<u32>,
    /// Since when each chunk is known to be held by a far peer.
    far_since: Vec<Option<Instant>>,
    /// Average time for a chunk from a near peer.
    near_chunk_time: Option<Duration>,
    near_samples: u32,
    /// Chunks from far peers: those that were late minus those that were not.
    late_balance: i32,
    far_is_slow: bool,
}

impl Locality {
    pub(super) fn new(layout: &Layout, rules: Rules) -> Locality {
        Locality {
            rules,
            ring: Ring::default(),
            near_copies: vec![0; layout.count() as usize],
            far_since: vec![None; layout.count() as usize],
            near_chunk_time: None,
            near_samples: 0,
            late_balance: 0,
            far_is_slow: false,
        }
    }

    pub(super) fn far_is_slow(&self) -> bool {
        self.far_is_slow
    }

    pub(super) fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    pub(super) fn add_copy(&mut self, chunk: ChunkId, near: bool, now: Instant) {
        if near && let Some(copies) = self.near_copies.get_mut(chunk.index()) {
            *copies = copies.saturating_add(1);
        }
        if !near && let Some(since) = self.far_since.get_mut(chunk.index()) {
            since.get_or_insert(now);
        }
    }

    pub(super) fn remove_copy(&mut self, chunk: ChunkId, near: bool) {
        if near && let Some(copies) = self.near_copies.get_mut(chunk.index()) {
            *copies = copies.saturating_sub(1);
        }
    }

    /// A whole chunk from a peer took this long.
    pub(super) fn measured(&mut self, near: bool, took: Duration) {
        if near {
            smooth(&mut self.near_chunk_time, took);
            self.near_samples = self.near_samples.saturating_add(1);
            return;
        }
        let Some(usual) = self.near_chunk_time else { return };
        if self.near_samples < MIN_NEAR_SAMPLES {
            return;
        }
        // Any chunk may be late; over a narrow uplink most are.
        let factor = self.rules.far_factor;
        let late = factor > 0 && took > usual.saturating_mul(factor);
        self.late_balance = (self.late_balance + if late { 1 } else { -1 }).max(-MAX_IN_TIME);
        self.far_is_slow |= self.late_balance >= SLOW_AT;
    }

    /// Whether this node may fetch a chunk from a far peer. `chunk_time` is how long a chunk usually takes.
    pub(super) fn may_import(&self, chunk: ChunkId, chunk_time: Duration, now: Instant) -> bool {
        if !self.limits_imports() {
            return true;
        }
        if self.near_copies.get(chunk.index()).is_some_and(|copies| *copies > 0) {
            return false;
        }
        let since = self.far_since.get(chunk.index()).copied().flatten();
        let waited = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let doublings = waited.div_duration_f64(self.import_patience(chunk_time)) as u32;
        let importers = 1usize.checked_shl(doublings).unwrap_or(usize::MAX);
        self.ring.nodes_before(chunk) < importers
    }

    /// When one more of the `unrequested` chunks may be imported, by more nodes than at the last poll.
    pub(super) fn next_import(
        &self,
        unrequested: &ChunkSet,
        chunk_time: Duration,
        polled: Instant,
    ) -> Option<Instant> {
        if !self.limits_imports() {
            return None;
        }
        let patience = self.import_patience(chunk_time);
        let far_only =
            unrequested.iter().filter(|chunk| self.near_copies.get(chunk.index()) == Some(&0));
        let since =
            far_only.filter_map(|chunk| self.far_since.get(chunk.index()).copied().flatten());
        let doublings = since.map(|since| {
            let waited = polled.saturating_duration_since(since).div_duration_f64(patience);
            since + patience * (waited as u32).saturating_add(1)
        });
        doublings.min()
    }

    /// Whether far peers are slow, and there is a near node to wait for.
    fn limits_imports(&self) -> bool {
        self.far_is_slow && self.ring.others() > 0
    }

    /// After this time twice as many nodes may import a chunk.
    fn import_patience(&self, chunk_time: Duration) -> Duration {
        let rules = &self.rules;
        chunk_time.saturating_mul(rules.import_patience_factor).max(rules.min_patience)
    }
}
