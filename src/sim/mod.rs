//! A whole cluster in one thread, with a clock of its own: seeded, and the same every time.
//!
//! Master and nodes are the pure half of the program as it is: [`crate::fetch`],
//! [`crate::swarm`] and the sessions of [`crate::p9`], driven as the real drivers drive them. Only
//! what is below them is imitated: links of a given rate and delay, connections that share them, and
//! whatever goes wrong with hosts. Every byte travels and is hashed; what a node reports as verified
//! is compared with what is true.
//!
//! A [`Scenario`] says what there is and what happens; [`Scenario::run`] gives the [`Outcome`], or
//! the [`Violation`] that was found.
//!
//! What it leaves out: the reading of the manifest before a fetch, the headers of TCP and its slow
//! start, lost packets, and the time that programs take to compute.

mod cluster;
mod content;
mod host;
mod network;
mod queue;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::image::manifest::Problem;
use crate::swarm::rules::Rules;
use cluster::Cluster;
pub use content::Misuse;
pub use host::Wrong;
pub use network::{HostId, Link, Racks};

/// Hosts that a [`Violation`] names.
const MOST_SHOWN: usize = 10;

/// A cluster, and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Drives every choice; the same scenario with the same seed has the same outcome.
    pub seed: u64,
    /// Size of what is served.
    pub image_bytes: u64,
    /// It is all zeros. That takes less time to simulate, since its bytes need not be made, moved and
    /// compared; they are hashed all the same. But nobody sees it if a node puts them into a wrong
    /// place.
    pub blank: bool,
    /// The rules that everybody follows.
    pub rules: Rules,
    /// How many nodes the master feeds at a time.
    pub master_slots: usize,
    /// The master's link.
    pub master: Link,
    /// It loses its power once every chunk is with some node that serves it rightly.
    pub master_leaves: bool,
    /// The nodes, [`HostId`] 1 and up.
    pub nodes: Vec<NodePlan>,
    /// Where they stand.
    pub racks: Racks,
    /// What goes wrong, and when, counted from the beginning.
    pub events: Vec<(Duration, Event)>,
    /// By then everybody has to be whole.
    pub limit: Duration,
}

/// A node to be.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// Its link.
    pub link: Link,
    /// When it starts to fetch.
    pub starts: Duration,
    /// It serves every chunk with a wrong byte.
    pub lies: bool,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program ends, and its connections with it.
    Kill(HostId),
    /// The host loses its power: the others are told nothing.
    PowerOff(HostId),
    /// The program starts again, with nothing (master: with everything).
    Start(HostId),
    /// The program does nothing for this long, as under a debugger.
    Stall(HostId, Duration),
    /// The link carries a fraction of what it did.
    DivideRate(HostId, u64),
    /// One of the host's connections is cut.
    Cut(HostId),
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// From a node's start until it was whole; None if it was killed before.
    pub times: Vec<Option<Duration>>,
    /// When the last of them was whole.
    pub end: Duration,
    /// Image bytes that the master sent.
    pub master_bytes: u64,
    /// Requests that the master read, in each second from the beginning.
    pub master_requests: Vec<u64>,
    /// For each rack, the bytes of the image that came into it from elsewhere.
    pub image_bytes_into_racks: Vec<u64>,
    /// Verified bytes by who sent them.
    pub bytes_from: BTreeMap<HostId, u64>,
    /// Image bytes that were sent by anybody.
    pub sent_bytes: u64,
    /// Steps of the network, and turns that hosts took.
    pub steps: u64,
    /// See `steps`.
    pub turns: u64,
}

impl Outcome {
    /// The median of the nodes' times.
    pub fn median(&self) -> Duration {
        let mut times: Vec<Duration> = self.times.iter().flatten().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    /// The image cannot be described.
    Image(Problem),
    /// A host's pure half went wrong.
    Host {
        /// When.
        at: Duration,
        /// Who.
        host: HostId,
        /// What.
        wrong: Wrong,
    },
    /// Not everybody was whole in time, though a whole copy was within reach.
    Late {
        /// When it was given up.
        at: Duration,
        /// Who was not whole, and how many chunks each missed.
        missing: Vec<(HostId, u32)>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Image(problem) => write!(f, "the image: {problem}"),
            Violation::Host { at, host, wrong } => {
                write!(f, "at {at:?} host {}: {wrong:?}", host.0)
            }
            Violation::Late { at, missing } => {
                let hosts = missing.len();
                write!(f, "at {at:?} {hosts} hosts miss chunks, among them (host, how many):")?;
                let mut shown = missing.iter().take(MOST_SHOWN);
                shown.try_for_each(|(host, count)| write!(f, " ({}, {count})", host.0))
            }
        }
    }
}

impl std::error::Error for Violation {}

impl From<Problem> for Violation {
    fn from(problem: Problem) -> Violation {
        Violation::Image(problem)
    }
}

impl Scenario {
    /// Lets it happen. `origin` is any moment, to count virtual time from.
    pub fn run(&self, origin: Instant) -> Result<Outcome, Violation> {
        Cluster::new(self, None, origin)?.run()
    }
}

#[cfg(test)]
mod tests;
