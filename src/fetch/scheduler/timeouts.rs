//! How long requests may take, given how long chunks usually take.

use std::time::{Duration, Instant};

use crate::swarm::meter::smooth;
use crate::swarm::rules::Rules;

/// The time limits double at most this many times.
const MAX_BACKOFFS: u32 = 6;

#[derive(Debug)]
pub(super) struct Timeouts {
    rules: Rules,
    /// Average time from the request for a chunk to its last byte.
    chunk_time: Option<Duration>,
    /// How many times in a row the limits were doubled.
    backoffs: u32,
    backed_off_at: Option<Instant>,
}

impl Timeouts {
    pub(super) fn new(rules: Rules) -> Timeouts {
        Timeouts { rules, chunk_time: None, backoffs: 0, backed_off_at: None }
    }

    /// A whole chunk took this long.
    pub(super) fn measured(&mut self, took: Duration) {
        smooth(&mut self.chunk_time, took);
    }

    /// How long a chunk usually takes; before the first, a guess.
    pub(super) fn chunk_time(&self) -> Duration {
        self.chunk_time.unwrap_or(self.rules.min_patience)
    }

    /// How long a request may go without progress.
    pub(super) fn stall(&self) -> Duration {
        let rules = &self.rules;
        let stall = self.chunk_time.map_or(rules.first_patience, |usual| {
            usual.saturating_mul(rules.patience_factor).max(rules.min_patience)
        });
        stall.saturating_mul(1 << self.backoffs)
    }

    /// How long a source may send nothing at all.
    pub(super) fn silence(&self) -> Duration {
        self.rules.silence.saturating_mul(1 << self.backoffs).max(self.stall())
    }

    /// How long a chunk may be in flight near the end before it is requested a second time.
    pub(super) fn late(&self) -> Option<Duration> {
        self.chunk_time.map(|usual| usual.max(self.rules.min_patience / 4))
    }

    /// A request was given up: doubles the limits until a chunk arrives. Behind a link so slow that each of
    /// many sources seems silent, nothing but giving up would ever happen otherwise.
    pub(super) fn back_off(&mut self, now: Instant) {
        let stall = self.stall();
        if self.backed_off_at.is_none_or(|last| now.saturating_duration_since(last) >= stall) {
            self.backed_off_at = Some(now);
            self.backoffs = (self.backoffs + 1).min(MAX_BACKOFFS);
        }
    }

    /// A chunk has arrived.
    pub(super) fn reset_backoff(&mut self) {
        self.backoffs = 0;
    }
}
