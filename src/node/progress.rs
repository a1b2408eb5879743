//! What a fetch says of how far it is.

use std::time::Instant;

use crate::image::chunks::ChunkSet;
use crate::image::manifest::Manifest;
use crate::node::driver::Node;
use crate::node::store::Store;
use crate::process::report::Reporter;
use crate::units::{bytes, quantity, rate};

/// Progress, rates and the summary.
pub(super) struct Meter {
    started: Instant,
    /// Bytes of all chunks that are wanted.
    pub(super) wanted: u64,
    /// Bytes that were there before.
    pub(super) before: u64,
    files: u64,
    recent: (Instant, u64),
}

impl Meter {
    pub(super) fn new(manifest: &Manifest, store: &Store, held: &ChunkSet) -> Meter {
        let size = |set: &ChunkSet| {
            let ranges = set.iter().map(|chunk| manifest.layout().range(chunk));
            ranges.map(|range| range.end - range.start).sum()
        };
        let now = Instant::now();
        Meter {
            started: now,
            wanted: size(store.wanted()),
            before: size(held),
            files: store.counts().files,
            recent: (now, 0),
        }
    }

    /// Bytes that are here and verified.
    pub(super) fn here(&self, node: &Node) -> u64 {
        self.before + self.fetched(node)
    }

    fn fetched(&self, node: &Node) -> u64 {
        node.fetch().shares().values().map(|share| share.bytes).sum()
    }

    pub(super) fn line(&mut self, node: &Node) -> String {
        let now = Instant::now();
        let fetched = self.fetched(node);
        let (since, then) = self.recent;
        let (time, came) = (now.saturating_duration_since(since), fetched.saturating_sub(then));
        self.recent = (now, fetched);
        let here = self.before + fetched;
        let percent = here as f64 * 100.0 / self.wanted.max(1) as f64;
        let left = self.wanted.saturating_sub(here) as f64;
        let average = fetched as f64 / now.saturating_duration_since(self.started).as_secs_f64();
        let left = match fetched {
            0 => "waiting".to_owned(),
            _ => format!("{:.0} s left", left / average.max(1.0)),
        };
        format!(
            "{percent:.1} % of {}, {}, {left}, {}",
            bytes(self.wanted),
            rate(came, time),
            quantity(node.fetch().sources() as u64, "source"),
        )
    }

    pub(super) fn summary(&self, node: &Node, report: &Reporter) {
        let time = self.started.elapsed();
        let (mut origin, mut nodes, mut others) = (0, 0, 0u32);
        for (address, share) in node.fetch().shares() {
            report.info(format_args!("{} from {address}", bytes(share.bytes)));
            if node.fetch().origin().contains(address) {
                origin += share.bytes;
            } else {
                nodes += share.bytes;
                others += u32::from(share.bytes > 0);
            }
        }
        let fetched = origin + nodes;
        let reused = match self.before {
            0 => String::new(),
            n => format!(", {} already here", bytes(n)),
        };
        report.notice(format_args!(
            "fetched {}: {} in {:.2} s ({}), {} from the server, {} from {}{reused}",
            quantity(self.files, "file"),
            bytes(fetched),
            time.as_secs_f64(),
            rate(fetched, time),
            bytes(origin),
            bytes(nodes),
            quantity(others.into(), "node"),
        ));
    }
}
