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

mod content;
mod host;
mod network;
mod queue;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use content::Image;
pub use content::Misuse;
pub use host::Wrong;
use host::{Host, Keep, Served};
pub use network::{HostId, Link, Racks};
use network::{Network, Step};

use crate::image::chunks::ChunkSet;
use crate::image::manifest::Problem;
use crate::random::next_random;
use crate::swarm::rules::Rules;

/// Turns that a host may take without any time passing.
const MOST_TURNS: u32 = 10_000;
/// The longest time after which a program is started again that has ended by itself.
const RESTARTED_AFTER: Duration = Duration::from_secs(2);
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

/// What a node that starts has on its disk.
type Disks<'s> = Box<dyn FnMut(HostId, &Served) -> Result<Box<dyn Keep>, Wrong> + 's>;

/// One host's place: what runs there, and when it wants a turn.
#[derive(Debug, Default)]
struct Place {
    host: Option<Host>,
    /// It was killed, and has not started again.
    ended: bool,
    started: Duration,
    whole: Option<Duration>,
    deadline: Option<Instant>,
    /// The earliest timer that is set.
    timer: Option<Instant>,
    stalled_until: Option<Instant>,
    last_turn: Option<Instant>,
    turns_since: u32,
    lies: bool,
}

struct Cluster<'s> {
    scenario: &'s Scenario,
    served: Served,
    origin: Instant,
    net: Network,
    disks: Option<Disks<'s>>,
    places: Vec<Place>,
    /// No place before this one keeps the run from being over.
    first_unfinished: usize,
    random: u64,
    outcome: Outcome,
}

/// What a timer of the network stands for.
enum Timer {
    Turn(HostId),
    Event(usize),
}

impl Timer {
    fn number(self) -> u64 {
        match self {
            Timer::Turn(host) => host.0 as u64 * 2,
            Timer::Event(index) => index as u64 * 2 + 1,
        }
    }

    fn of(number: u64) -> Timer {
        match number % 2 {
            0 => Timer::Turn(HostId((number / 2) as usize)),
            _ => Timer::Event((number / 2) as usize),
        }
    }
}

impl<'s> Cluster<'s> {
    fn new(
        scenario: &'s Scenario,
        disks: Option<Disks<'s>>,
        origin: Instant,
    ) -> Result<Cluster<'s>, Violation> {
        let image = if scenario.blank { Image::Blank } else { Image::Varied };
        let links = scenario.nodes.iter().map(|node| node.link);
        let mut net =
            Network::new(std::iter::once(scenario.master).chain(links), scenario.racks, origin);
        let mut places = vec![Place::default()];
        for (index, (at, _)) in scenario.events.iter().enumerate() {
            net.set_timer(origin + *at, Timer::Event(index).number());
        }
        for (id, node) in (1..).map(HostId).zip(&scenario.nodes) {
            let starts = Some(origin + node.starts);
            places.push(Place {
                lies: node.lies,
                deadline: starts,
                timer: starts,
                ..Place::default()
            });
            net.set_timer(origin + node.starts, Timer::Turn(id).number());
        }
        Ok(Cluster {
            scenario,
            served: Served {
                manifest: image.manifest(scenario.image_bytes)?,
                image,
                rules: scenario.rules,
            },
            origin,
            net,
            disks,
            places,
            first_unfinished: 1,
            random: scenario.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            outcome: Outcome::default(),
        })
    }

    fn run(mut self) -> Result<Outcome, Violation> {
        self.start(HostId::MASTER)?;
        let limit = self.origin + self.scenario.limit;
        while !self.is_over() {
            let step = self.net.step().filter(|_| self.net.now() <= limit);
            self.outcome.steps += 1;
            match step {
                None => return self.late(),
                Some(Step::Timer(timer)) => match Timer::of(timer) {
                    Timer::Event(index) => self.happen(index)?,
                    Timer::Turn(host) => self.time_has_come(host)?,
                },
                Some(Step::Moved) => {}
            }
            while let Some(host) = self.net.next_woken() {
                self.turn(host)?;
            }
        }
        self.outcome()
    }

    /// Every node that has not been killed is whole, and nothing more is to happen to them.
    fn is_over(&mut self) -> bool {
        let whole = |place: &Place| place.ended || place.host.as_ref().is_some_and(Host::is_whole);
        while self.places.get(self.first_unfinished).is_some_and(whole) {
            self.first_unfinished += 1;
        }
        self.first_unfinished >= self.places.len()
    }

    fn elapsed(&self) -> Duration {
        self.net.now().saturating_duration_since(self.origin)
    }

    fn start(&mut self, id: HostId) -> Result<(), Violation> {
        let seed = next_random(&mut self.random);
        let now = self.elapsed();
        let disk = self.disks.as_mut().filter(|_| id != HostId::MASTER);
        let keeps = match disk.map(|disk| disk(id, &self.served)).transpose() {
            Err(Wrong::Ended) => {
                self.start_later(id);
                return Ok(());
            }
            keeps => keeps.map_err(|wrong| Violation::Host { at: now, host: id, wrong })?,
        };
        let Some(place) = self.places.get_mut(id.0) else { return Ok(()) };
        let home = self.net.racks().address(HostId::MASTER);
        place.host = Some(match id {
            HostId::MASTER => Host::master(&self.served, self.scenario.master_slots, seed),
            _ => Host::node(id, home, &self.served, place.lies, keeps, seed),
        });
        self.first_unfinished = self.first_unfinished.min(id.0.max(1));
        place.ended = false;
        place.started = now;
        place.whole = None;
        place.stalled_until = None;
        self.net.start(id);
        Ok(())
    }

    /// A program that has come to its end by itself is started again soon.
    fn start_later(&mut self, id: HostId) {
        self.end(id, true);
        let wait = RESTARTED_AFTER.mul_f64((next_random(&mut self.random) % 1024) as f64 / 1024.0);
        let at = self.net.now() + wait;
        if let Some(place) = self.places.get_mut(id.0) {
            place.ended = false;
            place.whole = None;
            place.deadline = Some(at);
            self.first_unfinished = self.first_unfinished.min(id.0);
        }
        self.set_timer(id);
    }

    fn happen(&mut self, index: usize) -> Result<(), Violation> {
        let Some((_, event)) = self.scenario.events.get(index) else { return Ok(()) };
        match *event {
            Event::Kill(host) => self.end(host, true),
            Event::PowerOff(host) => self.end(host, false),
            Event::Start(host) => {
                self.end(host, true);
                self.start(host)?;
                self.turn(host)?;
            }
            Event::Stall(host, time) => {
                let until = self.net.now() + time;
                if let Some(place) = self.places.get_mut(host.0) {
                    place.stalled_until = Some(until);
                    place.deadline = Some(until);
                }
                self.set_timer(host);
            }
            Event::DivideRate(host, by) => self.net.divide_rate(host, by),
            Event::Cut(host) => {
                let random = next_random(&mut self.random);
                self.net.cut(host, random);
            }
        }
        Ok(())
    }

    fn end(&mut self, id: HostId, notice: bool) {
        self.net.stop(id, notice);
        let Some(place) = self.places.get_mut(id.0) else { return };
        place.ended = true;
        place.deadline = None;
        if let Some(host) = place.host.take() {
            self.count(id, &host);
        }
    }

    fn time_has_come(&mut self, id: HostId) -> Result<(), Violation> {
        let now = self.net.now();
        let Some(place) = self.places.get_mut(id.0) else { return Ok(()) };
        if place.timer.is_some_and(|timer| timer <= now) {
            place.timer = None;
        }
        if place.deadline.is_none_or(|deadline| deadline > now) {
            self.set_timer(id);
            return Ok(());
        }
        if place.host.is_none() {
            self.start(id)?;
        }
        self.turn(id)
    }

    fn turn(&mut self, id: HostId) -> Result<(), Violation> {
        let now = self.net.now();
        let at = self.elapsed();
        let Some(place) = self.places.get_mut(id.0) else { return Ok(()) };
        if place.stalled_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        let Some(host) = &mut place.host else { return Ok(()) };
        let wrong = |wrong| Violation::Host { at, host: id, wrong };
        self.outcome.turns += 1;
        place.turns_since = if place.last_turn == Some(now) { place.turns_since + 1 } else { 0 };
        place.last_turn = Some(now);
        if place.turns_since > MOST_TURNS {
            return Err(wrong(Wrong::Spins));
        }
        let before = host.messages();
        place.deadline = match host.turn(&mut self.net) {
            Err(Wrong::Ended) => {
                self.start_later(id);
                return Ok(());
            }
            deadline => deadline.map_err(wrong)?,
        };
        if id == HostId::MASTER {
            let (second, seconds) = (at.as_secs() as usize, &mut self.outcome.master_requests);
            seconds.resize(seconds.len().max(second + 1), 0);
            if let Some(count) = seconds.get_mut(second) {
                *count += host.messages() - before;
            }
        }
        let leaves = id == HostId::MASTER
            && self.scenario.master_leaves
            && host.sent_bytes() >= self.scenario.image_bytes;
        if place.whole.is_none() && host.is_whole() {
            place.whole = Some(at);
        }
        let faults = host.take_faults();
        self.set_timer(id);
        if leaves && self.reachable().len() == self.served.manifest.layout().count() {
            self.end(HostId::MASTER, false);
        }
        for (address, fault) in faults {
            let lies = |(i, place): (usize, &Place)| {
                place.lies && self.net.racks().host(address) == Some(HostId(i))
            };
            if !self.places.iter().enumerate().any(lies) {
                return Err(wrong(Wrong::Accuses(address, fault)));
            }
        }
        Ok(())
    }

    fn set_timer(&mut self, id: HostId) {
        let Some(place) = self.places.get_mut(id.0) else { return };
        let Some(deadline) = place.deadline.map(|at| at.max(self.net.now())) else { return };
        if place.timer.is_none_or(|timer| deadline < timer) {
            place.timer = Some(deadline);
            self.net.set_timer(deadline, Timer::Turn(id).number());
        }
    }

    /// Somebody is not whole: that is only right if nobody has what is missing.
    fn late(self) -> Result<Outcome, Violation> {
        let all = ChunkSet::full(self.served.manifest.layout());
        let master = self.places.first().is_some_and(|place| place.host.is_some());
        let reachable = if master { all } else { self.reachable() };
        let running = (0..).map(HostId).zip(&self.places);
        let able = |host: &&Host| master || host.has_manifest();
        let missing: Vec<(HostId, u32)> = running
            .filter_map(|(id, place)| Some((id, place.host.as_ref().filter(able)?.missing()?)))
            .filter(|(_, missing)| missing.common(&reachable).next().is_some())
            .map(|(id, missing)| (id, missing.len()))
            .collect();
        match missing.is_empty() {
            true => self.outcome(),
            false => Err(Violation::Late { at: self.elapsed(), missing }),
        }
    }

    /// The chunks that nodes hold which do not lie.
    fn reachable(&self) -> ChunkSet {
        let mut reachable = ChunkSet::empty(self.served.manifest.layout());
        let honest = self.places.iter().filter(|place| !place.lies);
        let held = honest.filter_map(|place| place.host.as_ref()?.held());
        held.for_each(|held| reachable.add_all(held));
        reachable
    }

    fn outcome(mut self) -> Result<Outcome, Violation> {
        self.outcome.end = self.places.iter().filter_map(|p| p.whole).max().unwrap_or_default();
        let time = |place: &Place| place.whole.map(|whole| whole.saturating_sub(place.started));
        self.outcome.times = self.places.iter().skip(1).map(time).collect();
        for (id, place) in (0..).map(HostId).zip(std::mem::take(&mut self.places)) {
            if let Some(host) = &place.host {
                self.count(id, host);
            }
        }
        self.outcome.image_bytes_into_racks = self.net.image_bytes_into_racks().collect();
        Ok(self.outcome)
    }

    /// Adds up what a host has done, when it ends.
    fn count(&mut self, id: HostId, host: &Host) {
        let sent = host.sent_bytes();
        self.outcome.sent_bytes += sent;
        if id == HostId::MASTER {
            self.outcome.master_bytes += sent;
        }
        for (address, share) in host.fetch().into_iter().flat_map(|fetch| fetch.shares()) {
            if let Some(source) = self.net.racks().host(*address) {
                *self.outcome.bytes_from.entry(source).or_default() += share.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests;
