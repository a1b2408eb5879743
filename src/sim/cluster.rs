//! Drives all hosts of a [`Scenario`] through virtual time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::content::Image;
use super::greedy::{Attacker, Greedy};
use super::host::{Host, Keep, Served, Wrong};
use super::network::{HostId, Network, Step};
use super::{Outcome, Scenario, ScenarioEvent, Violation};
use crate::image::chunks::ChunkSet;
use crate::random::next_random;

/// Most calls of one host at one instant.
const MAX_TURNS: u32 = 10_000;
/// Longest time until a program that has ended by itself is started again.
const RESTARTED_AFTER: Duration = Duration::from_secs(2);

/// Opens the disk of a node that starts.
pub(super) type OpenDisk<'s> = Box<dyn FnMut(HostId, &Served) -> Result<Box<dyn Keep>, Wrong> + 's>;

/// A machine: the program that runs on it, if any, and when that wants to be called.
#[derive(Debug, Default)]
struct Machine {
    host: Option<Host>,
    attacker: Option<Attacker>,
    /// It was stopped, and has not started again.
    stopped: bool,
    started: Duration,
    whole: Option<Duration>,
    deadline: Option<Instant>,
    /// The earliest timer that is set on the network for it.
    timer: Option<Instant>,
    stalled_until: Option<Instant>,
    last_turn: Option<Instant>,
    turns_since: u32,
    lies: bool,
    dead_addresses: usize,
    greedy: Option<Greedy>,
}

pub(super) struct Cluster<'s> {
    scenario: &'s Scenario,
    pub(super) served: Served,
    origin: Instant,
    pub(super) net: Network,
    open_disk: Option<OpenDisk<'s>>,
    machines: Vec<Machine>,
    /// The nodes before this one have finished or were stopped.
    first_unfinished: usize,
    random: u64,
    outcome: Outcome,
}

/// A timer on the network, which knows only its number.
enum ClusterTimer {
    Turn(HostId),
    Event(usize),
}

impl ClusterTimer {
    fn number(self) -> u64 {
        match self {
            ClusterTimer::Turn(host) => host.0 as u64 * 2,
            ClusterTimer::Event(index) => index as u64 * 2 + 1,
        }
    }

    fn from_number(number: u64) -> ClusterTimer {
        match number % 2 {
            0 => ClusterTimer::Turn(HostId((number / 2) as usize)),
            _ => ClusterTimer::Event((number / 2) as usize),
        }
    }
}

impl<'s> Cluster<'s> {
    pub(super) fn new(
        scenario: &'s Scenario,
        open_disk: Option<OpenDisk<'s>>,
        origin: Instant,
    ) -> Result<Cluster<'s>, Violation> {
        let image = if scenario.blank { Image::Blank } else { Image::Varied };
        let links = scenario.nodes.iter().map(|node| node.link);
        let mut net =
            Network::new(std::iter::once(scenario.master).chain(links), scenario.racks, origin);
        let mut machines = vec![Machine::default()];
        for (index, (at, _)) in scenario.events.iter().enumerate() {
            net.set_timer(origin + *at, ClusterTimer::Event(index).number());
        }
        for (id, node) in (1..).map(HostId).zip(&scenario.nodes) {
            let starts = Some(origin + node.starts);
            machines.push(Machine {
                lies: node.lies,
                dead_addresses: node.dead_addresses,
                greedy: node.greedy,
                deadline: starts,
                timer: starts,
                ..Machine::default()
            });
            net.set_timer(origin + node.starts, ClusterTimer::Turn(id).number());
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
            open_disk,
            machines,
            first_unfinished: 1,
            random: scenario.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            outcome: Outcome::default(),
        })
    }

    pub(super) fn run(mut self) -> Result<Outcome, Violation> {
        self.start(HostId::MASTER)?;
        let limit = self.origin + self.scenario.limit;
        while !self.is_over() {
            let step = self.net.step().filter(|_| self.net.now() <= limit);
            self.outcome.steps += 1;
            match step {
                None => return self.timed_out(),
                Some(Step::Timer(timer)) => match ClusterTimer::from_number(timer) {
                    ClusterTimer::Event(index) => self.apply_event(index)?,
                    ClusterTimer::Turn(host) => self.timer_fired(host)?,
                },
                Some(Step::Moved) => {}
            }
            while let Some(host) = self.net.next_woken() {
                self.turn(host)?;
            }
        }
        self.outcome()
    }

    /// Whether every node is whole or was stopped.
    fn is_over(&mut self) -> bool {
        let whole = |machine: &Machine| {
            let is_whole = || machine.host.as_ref().is_some_and(Host::is_whole);
            machine.stopped || machine.greedy.is_some() || is_whole()
        };
        while self.machines.get(self.first_unfinished).is_some_and(whole) {
            self.first_unfinished += 1;
        }
        self.first_unfinished >= self.machines.len()
    }

    fn elapsed(&self) -> Duration {
        self.net.now().saturating_duration_since(self.origin)
    }

    fn start(&mut self, id: HostId) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(id.0) else { return Ok(()) };
        if let Some(greedy) = machine.greedy {
            self.net.start(id);
            machine.stopped = false;
            machine.attacker = Some(Attacker::new(id, greedy, &self.served, &mut self.net));
            return Ok(());
        }
        let seed = next_random(&mut self.random);
        let now = self.elapsed();
        let open_disk = self.open_disk.as_mut().filter(|_| id != HostId::MASTER);
        let keeps = match open_disk.map(|open| open(id, &self.served)).transpose() {
            Err(Wrong::Ended) => {
                self.restart_later(id);
                return Ok(());
            }
            keeps => keeps.map_err(|wrong| Violation::Host { at: now, host: id, wrong })?,
        };
        let Some(machine) = self.machines.get_mut(id.0) else { return Ok(()) };
        let master = self.net.racks().address(HostId::MASTER);
        machine.host = Some(match id {
            HostId::MASTER => Host::master(&self.served, self.scenario.master_slots, seed),
            _ if machine.dead_addresses > 0 => {
                Host::misleading(id, master, &self.served, machine.dead_addresses, seed)
            }
            _ => Host::node(id, master, &self.served, machine.lies, keeps, seed),
        });
        self.first_unfinished = self.first_unfinished.min(id.0.max(1));
        machine.stopped = false;
        machine.started = now;
        machine.whole = None;
        machine.stalled_until = None;
        self.net.start(id);
        Ok(())
    }

    /// A program has ended by itself, as one does whose disk is full: it starts again within
    /// [`RESTARTED_AFTER`].
    fn restart_later(&mut self, id: HostId) {
        self.stop(id, true);
        let wait = RESTARTED_AFTER.mul_f64((next_random(&mut self.random) % 1024) as f64 / 1024.0);
        let at = self.net.now() + wait;
        if let Some(machine) = self.machines.get_mut(id.0) {
            machine.stopped = false;
            machine.whole = None;
            machine.deadline = Some(at);
            self.first_unfinished = self.first_unfinished.min(id.0);
        }
        self.set_timer(id);
    }

    fn apply_event(&mut self, index: usize) -> Result<(), Violation> {
        let Some((_, event)) = self.scenario.events.get(index) else { return Ok(()) };
        match *event {
            ScenarioEvent::Kill(host) => self.stop(host, true),
            ScenarioEvent::PowerOff(host) => self.stop(host, false),
            ScenarioEvent::Start(host) => {
                self.stop(host, true);
                self.start(host)?;
                self.turn(host)?;
            }
            ScenarioEvent::Stall(host, time) => {
                let until = self.net.now() + time;
                if let Some(machine) = self.machines.get_mut(host.0) {
                    machine.stalled_until = Some(until);
                    machine.deadline = Some(until);
                }
                self.set_timer(host);
            }
            ScenarioEvent::DivideRate(host, by) => self.net.divide_rate(host, by),
            ScenarioEvent::Cut(host) => {
                let random = next_random(&mut self.random);
                self.net.cut(host, random);
            }
        }
        Ok(())
    }

    fn stop(&mut self, id: HostId, notice: bool) {
        self.net.stop(id, notice);
        let Some(machine) = self.machines.get_mut(id.0) else { return };
        machine.stopped = true;
        machine.deadline = None;
        machine.attacker = None;
        if let Some(host) = machine.host.take() {
            self.count(id, &host);
        }
    }

    fn timer_fired(&mut self, id: HostId) -> Result<(), Violation> {
        let now = self.net.now();
        let Some(machine) = self.machines.get_mut(id.0) else { return Ok(()) };
        if machine.timer.is_some_and(|timer| timer <= now) {
            machine.timer = None;
        }
        if machine.deadline.is_none_or(|deadline| deadline > now) {
            self.set_timer(id);
            return Ok(());
        }
        if machine.host.is_none() && machine.attacker.is_none() {
            self.start(id)?;
        }
        self.turn(id)
    }

    fn turn(&mut self, id: HostId) -> Result<(), Violation> {
        let now = self.net.now();
        let at = self.elapsed();
        let Some(machine) = self.machines.get_mut(id.0) else { return Ok(()) };
        if machine.stalled_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        let wrong = |wrong| Violation::Host { at, host: id, wrong };
        if let Some(attacker) = &mut machine.attacker {
            machine.deadline = attacker.turn(&mut self.net).map_err(wrong)?;
            self.set_timer(id);
            return Ok(());
        }
        let Some(host) = &mut machine.host else { return Ok(()) };
        self.outcome.turns += 1;
        machine.turns_since =
            if machine.last_turn == Some(now) { machine.turns_since + 1 } else { 0 };
        machine.last_turn = Some(now);
        if machine.turns_since > MAX_TURNS {
            return Err(wrong(Wrong::Spins));
        }
        let before = host.messages();
        machine.deadline = match host.turn(&mut self.net) {
            Err(Wrong::Ended) => {
                self.restart_later(id);
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
        if machine.whole.is_none() && host.is_whole() {
            machine.whole = Some(at);
        }
        let faults = host.take_faults();
        self.set_timer(id);
        if leaves && self.reachable().len() == self.served.manifest.layout().count() {
            self.stop(HostId::MASTER, false);
        }
        let accused = faults.into_iter().find(|(address, _)| !self.is_dishonest(*address));
        match accused {
            Some((address, fault)) => Err(wrong(Wrong::Accuses(address, fault))),
            None => Ok(()),
        }
    }

    /// Whether a host that lies, or takes more than its share, has this address.
    fn is_dishonest(&self, address: SocketAddr) -> bool {
        let host = self.net.racks().host(address).and_then(|host| self.machines.get(host.0));
        host.is_some_and(|machine| machine.lies || machine.greedy.is_some())
    }

    fn set_timer(&mut self, id: HostId) {
        let Some(machine) = self.machines.get_mut(id.0) else { return };
        let Some(deadline) = machine.deadline.map(|at| at.max(self.net.now())) else { return };
        if machine.timer.is_none_or(|timer| deadline < timer) {
            machine.timer = Some(deadline);
            self.net.set_timer(deadline, ClusterTimer::Turn(id).number());
        }
    }

    /// The run is over and not every node is whole: a violation, unless nobody holds what they miss. Without
    /// the master, a node that has no manifest cannot finish.
    fn timed_out(self) -> Result<Outcome, Violation> {
        let all = ChunkSet::full(self.served.manifest.layout());
        let master = self.machines.first().is_some_and(|machine| machine.host.is_some());
        let reachable = if master { all } else { self.reachable() };
        let running = (0..).map(HostId).zip(&self.machines);
        let able = |host: &&Host| master || host.has_manifest();
        let missing: Vec<(HostId, u32)> = running
            .filter_map(|(id, machine)| Some((id, machine.host.as_ref().filter(able)?.missing()?)))
            .filter(|(_, missing)| missing.common(&reachable).next().is_some())
            .map(|(id, missing)| (id, missing.len()))
            .collect();
        if missing.is_empty() {
            return self.outcome();
        }
        Err(Violation::Late { at: self.elapsed(), missing })
    }

    /// The chunks that honest nodes hold.
    fn reachable(&self) -> ChunkSet {
        let mut reachable = ChunkSet::empty(self.served.manifest.layout());
        let honest = self.machines.iter().filter(|machine| !machine.lies);
        for held in honest.filter_map(|machine| machine.host.as_ref()?.held()) {
            reachable.add_all(held);
        }
        reachable
    }

    fn outcome(mut self) -> Result<Outcome, Violation> {
        self.outcome.end = self.machines.iter().filter_map(|p| p.whole).max().unwrap_or_default();
        let time =
            |machine: &Machine| machine.whole.map(|whole| whole.saturating_sub(machine.started));
        self.outcome.times = self.machines.iter().skip(1).map(time).collect();
        for (id, machine) in (0..).map(HostId).zip(std::mem::take(&mut self.machines)) {
            if let Some(host) = &machine.host {
                self.count(id, host);
            }
        }
        self.outcome.image_bytes_into_racks = self.net.image_bytes_into_racks().collect();
        Ok(self.outcome)
    }

    /// Adds what a host has done to the outcome, when the host stops.
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
