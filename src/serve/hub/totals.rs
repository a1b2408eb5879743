//! All nodes of a server in a few figures, which cost far less than its status.

use std::time::{Duration, Instant};

use blake3::Hash;

use super::Hub;
use crate::serve::members::Member;

/// A node that lacks something and has received nothing for this long counts as stalled.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(10);

/// The nodes that have joined, at one moment, and what is served.
///
/// Each node is whole, stalled or fetching. `left` counts those that left before they were whole, as far as
/// they are remembered ([`crate::limits::MAX_GONE`]). `held_chunks` and `wanted_chunks` are sums over all
/// nodes; `only_here` of the `chunks` are with no node. `seconds_left` is how long the slowest of those that
/// fetch still takes at its present rate. `received_bytes` came to nodes from anybody, `sent_bytes` were sent
/// from here to nodes: both only grow, whatever nodes leave and whatever is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub(crate) generation: Hash,
    pub(crate) image_bytes: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) chunks: u32,
    pub(crate) only_here: u32,
    pub(crate) nodes: usize,
    pub(crate) whole: usize,
    pub(crate) stalled: usize,
    pub(crate) left: usize,
    pub(crate) held_chunks: u64,
    pub(crate) wanted_chunks: u64,
    pub(crate) seconds_left: Option<u64>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl Hub {
    /// The totals by `now`. Takes time in proportion to the connections.
    pub fn totals(&self, now: Instant) -> Totals {
        let mut totals = Totals {
            generation: self.tree.manifest().generation(),
            image_bytes: self.layout().image_bytes(),
            chunk_bytes: self.layout().chunk_bytes(),
            chunks: self.layout().count(),
            only_here: self.only_here(),
            nodes: 0,
            whole: 0,
            stalled: 0,
            left: self.members.left_unfinished(),
            held_chunks: 0,
            wanted_chunks: 0,
            seconds_left: None,
            received_bytes: self.members.received_bytes(),
            sent_bytes: self.sent_bytes,
        };
        for (_, node) in self.members.iter().filter(|(_, member)| member.serves.is_some()) {
            totals.add(node, now);
        }
        totals
    }
}

impl Totals {
    fn add(&mut self, node: &Member, now: Instant) {
        let (held, lacks) = (node.held.len(), node.lacks.len());
        self.nodes += 1;
        self.held_chunks += u64::from(held);
        self.wanted_chunks += u64::from(held) + u64::from(lacks);
        if lacks == 0 && held > 0 {
            self.whole += 1;
        } else if now.saturating_duration_since(node.progress) >= STALLED_AFTER {
            self.stalled += 1;
        } else {
            let lacks_bytes = u64::from(lacks).saturating_mul(self.chunk_bytes);
            let left = lacks_bytes.checked_div(node.income.rate(now));
            self.seconds_left = self.seconds_left.max(left);
        }
    }
}
