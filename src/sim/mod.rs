//! A whole cluster in one thread under a virtual clock. The same seed has the same outcome.
//!
//! Master and nodes run the program's own [`crate::fetch::manifest`] and [`crate::engine`], driven as the
//! real drivers drive them. Only what is below is simulated: links of a given rate and delay, connections
//! that share them, and faults of hosts. Every byte travels and is hashed; what a node reports as
//! verified is compared with what it should be.
//!
//! A [`Scenario`] describes a cluster and its faults; [`Scenario::run`] returns the [`Outcome`], or the
//! [`Violation`] that was found.
//!
//! What it leaves out: the headers of TCP and its slow start, lost packets, and the time that programs
//! take to compute.

mod cluster;
mod content;
mod greedy;
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
pub use greedy::{Greed, Greedy};
pub use host::Wrong;
pub use network::{HostId, HostLink, Racks};

/// Most hosts that the text of a [`Violation`] names.
const MAX_SHOWN: usize = 10;

/// A cluster and its faults.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Drives every random choice.
    pub seed: u64,
    /// Size of the image.
    pub image_bytes: u64,
    /// The image is all zeros. That takes less time to simulate, since its bytes need not be generated,
    /// moved and compared; they are hashed all the same. Bytes that a node stores at a wrong offset go
    /// unnoticed.
    pub blank: bool,
    /// The rules of the swarm.
    pub rules: Rules,
    /// How many nodes the master feeds at a time.
    pub master_slots: usize,
    /// The master's link.
    pub master: HostLink,
    /// The master loses its power once every chunk is held by an honest node.
    pub master_leaves: bool,
    /// The nodes, [`HostId`] 1 and up.
    pub nodes: Vec<NodePlan>,
    /// The racks that they are in.
    pub racks: Racks,
    /// Faults, each with the time from the beginning at which it happens.
    pub events: Vec<(Duration, ScenarioEvent)>,
    /// When all nodes have to be whole.
    pub limit: Duration,
}

/// A node of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct NodePlan {
    /// Its link.
    pub link: HostLink,
    /// When its program starts, counted from the beginning.
    pub starts: Duration,
    /// It serves every chunk with a wrong byte.
    pub lies: bool,
    /// If not 0, it wants nothing and holds nothing, and names so many addresses to others at which there is no host.
    pub dead_addresses: usize,
    /// If there is this, it is no node: it wants nothing but to take more than its share.
    pub greedy: Option<Greedy>,
}

/// A fault, or a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScenarioEvent {
    /// The program ends, and its connections with it.
    Kill(HostId),
    /// The host loses its power: the other sides of its connections are told nothing.
    PowerOff(HostId),
    /// The program starts again: a node with what is on its disk, if it has one, the master with all.
    Start(HostId),
    /// The program does nothing for this long, as under a debugger.
    Stall(HostId, Duration),
    /// The rate of the host's link is divided by this.
    DivideRate(HostId, u64),
    /// One of the host's connections breaks.
    Cut(HostId),
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For each node, from its start until it was whole; None if it was killed before.
    pub times: Vec<Option<Duration>>,
    /// When the last node was whole, counted from the beginning.
    pub end: Duration,
    /// Image bytes that the master sent.
    pub master_bytes: u64,
    /// Requests that the master read, in each second from the beginning.
    pub master_requests: Vec<u64>,
    /// For each rack, the bytes of the image that came from outside of it.
    pub image_bytes_into_racks: Vec<u64>,
    /// Verified bytes by the host that sent them.
    pub bytes_from: BTreeMap<HostId, u64>,
    /// Image bytes that all hosts sent.
    pub sent_bytes: u64,
    /// Events of the network.
    pub steps: u64,
    /// Calls of hosts.
    pub turns: u64,
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    /// The image has no manifest.
    Image(Problem),
    /// A host's engine did something wrong.
    Host {
        /// When.
        at: Duration,
        /// Who.
        host: HostId,
        /// What.
        wrong: Wrong,
    },
    /// Not all nodes were whole in time, though each chunk was held by somebody.
    Late {
        /// When the run ended.
        at: Duration,
        /// The nodes that were not whole, and how many chunks each missed.
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
                let mut shown = missing.iter().take(MAX_SHOWN);
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
    /// Runs the scenario. `origin` is any instant, from which virtual time is counted.
    pub fn run(&self, origin: Instant) -> Result<Outcome, Violation> {
        Cluster::new(self, None, origin)?.run()
    }
}

#[cfg(test)]
mod tests;
