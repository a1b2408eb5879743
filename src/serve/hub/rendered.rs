//! What `status` and `metrics` read.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Hub;
use crate::control::status::{NodeLine, Progress, ServerLine};
use crate::image::chunks::ChunkSet;
use crate::serve::members::Member;

/// How long a status is shared for each of its bytes: about twenty times as long as it takes to make.
const STATUS_LASTS_A_BYTE: Duration = Duration::from_nanos(200);
/// A status that is no longer than this is made for each who asks.
const SHORT_STATUS_BYTES: usize = 8 << 10;

/// What several may read until a new one is made.
#[derive(Debug)]
pub(super) struct Rendered {
    until: Instant,
    status: Arc<str>,
    /// Made of it once somebody asks for them.
    metrics: Option<Arc<str>>,
}

impl Hub {
    /// What `status` reads. All who ask share it for a while, a longer one where it is long: to make it never takes more
    /// than a small part of the time.
    pub(crate) fn shared_status(&mut self, now: Instant) -> Arc<str> {
        self.render(now).status.clone()
    }

    /// What `metrics` reads, where there is such a file; it is shared likewise.
    pub(crate) fn shared_metrics(&mut self, now: Instant) -> Option<Arc<str>> {
        let metrics = self.metrics?;
        let Rendered { status, metrics: made, .. } = self.render(now);
        Some(made.get_or_insert_with(|| metrics(status).into()).clone())
    }

    fn render(&mut self, now: Instant) -> &mut Rendered {
        let fresh = self.rendered.take().filter(|rendered| now < rendered.until);
        let rendered = fresh.unwrap_or_else(|| {
            let status: Arc<str> = self.status(now).into();
            let bytes = status.len().saturating_sub(SHORT_STATUS_BYTES);
            let lasts = STATUS_LASTS_A_BYTE.saturating_mul(bytes as u32);
            Rendered { until: now + lasts, status, metrics: None }
        });
        self.rendered.insert(rendered)
    }

    /// What `status` reads: a line for this server, then one for each node.
    pub(crate) fn status(&self, now: Instant) -> String {
        let server = ServerLine {
            generation: Some(&self.tree.manifest().generation().to_hex()),
            image_bytes: self.layout().image_bytes(),
            chunk_bytes: self.layout().chunk_bytes(),
            held: progress(self.held.len(), self.layout().count()),
            serving_nodes: self.members.serving() as u64,
            sent_bytes: self.sent_bytes,
            sent_bytes_per_s: self.sent_rate.rate(now),
            plain_bytes: self.plain_bytes,
            only_here: self.grants.as_ref().map(|_| u64::from(self.only_here())),
        };
        let mut text = format!("{server}\n");
        for (_, member) in self.members.iter() {
            let Some(address) = member.serves else { continue };
            let Member { held, lacks, passes_on, .. } = member;
            let node = NodeLine {
                address,
                held: progress(held.len(), held.len() + lacks.len()),
                sent_bytes: Some(member.sent_bytes),
                age: Some(now.saturating_duration_since(member.since)),
                quiet: Some(now.saturating_duration_since(member.progress)),
                in_bytes_per_s: Some(member.income.rate(now)),
                out_bytes_per_s: Some(passes_on.rate.rate(now)),
                out_bytes: Some(passes_on.bytes),
                sources: Some(u64::from(passes_on.sources)),
            };
            let _ = writeln!(text, "{node}");
        }
        // Those that leave a node most likely fetch from others.
        if self.grants.is_some() {
            text += &self.members.status_of_departed(now);
        }
        text += &self.classic.status(|conn| Some(self.members.get(conn)?.peer), now);
        text + &self.log.status(now)
    }

    /// How many chunks no node has.
    pub(super) fn only_here(&self) -> u32 {
        let mut elsewhere = ChunkSet::empty(self.layout());
        for (_, member) in self.members.iter() {
            elsewhere.add_all(&member.held);
            if elsewhere.len() >= self.held.len() {
                break;
            }
        }
        self.held.len().saturating_sub(elsewhere.len())
    }
}

fn progress(held: u32, wanted: u32) -> Progress {
    Progress { held: held.into(), wanted: wanted.into() }
}
