//! Nodes that departed before they were whole: `status` shows them until they are back.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use crate::control::status::{DepartedLine, Progress};
use crate::limits::MAX_GONE;

/// The last [`MAX_GONE`] of them.
#[derive(Debug, Default)]
pub(super) struct Departed(VecDeque<Node>);

#[derive(Debug)]
struct Node {
    served: SocketAddr,
    held: u32,
    wanted: u32,
    at: Instant,
}

impl Departed {
    /// A node no longer serves at this address. One that lacks nothing is not remembered.
    pub(super) fn add(&mut self, served: SocketAddr, held: u32, lacks: u32, now: Instant) {
        if lacks == 0 {
            return;
        }
        self.is_back(served);
        if self.0.len() >= MAX_GONE {
            self.0.pop_front();
        }
        self.0.push_back(Node { served, held, wanted: held.saturating_add(lacks), at: now });
    }

    /// It has joined again.
    pub(super) fn is_back(&mut self, served: SocketAddr) {
        self.0.retain(|node| node.served != served);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The lines of `status` that tell of them.
    pub(super) fn status(&self, now: Instant) -> String {
        let mut text = String::new();
        for Node { served, held, wanted, at } in &self.0 {
            let line = DepartedLine {
                address: *served,
                held: Progress { held: (*held).into(), wanted: (*wanted).into() },
                quiet: Some(now.saturating_duration_since(*at)),
            };
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_that_departed_first_is_forgotten_first() {
        let now = Instant::now();
        let mut departed = Departed::default();
        for n in 0..=MAX_GONE as u8 {
            departed.add(([10, 0, 0, n], 20_004).into(), 1, 15, now);
        }
        let status = departed.status(now);
        assert_eq!(status.lines().count(), MAX_GONE);
        assert!(!status.contains("gone=10.0.0.0:"), "{status}");
    }

    #[test]
    fn a_node_that_was_whole_is_not_remembered() {
        let mut departed = Departed::default();
        departed.add(([10, 0, 0, 1], 20_004).into(), 16, 0, Instant::now());
        assert_eq!(departed.len(), 0);
    }
}
