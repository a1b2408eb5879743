//! Drives all hosts of a [`Scenario`] through virtual time.

use std::time::{Duration, Instant};

use super::content::Image;
use super::host::{Host, Keep, Served, Wrong};
use super::network::{HostId, Network, Step};
use super::{Event, Outcome, Scenario, Violation};
use crate::image::chunks::ChunkSet;
use crate::random::next_random;

/// Turns that a host may take without any time passing.
const MOST_TURNS: u32 = 10_000;
/// The longest time after which a program is started again that has ended by itself.
const RESTARTED_AFTER: Duration = Duration::from_secs(2);

/// What a node that starts has on its disk.
pub(super) type Disks<'s> = Box<dyn FnMut(HostId, &Served) -> Result<Box<dyn Keep>, Wrong> + 's>;

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

pub(super) struct Cluster<'s> {
    scenario: &'s Scenario,
    pub(super) served: Served,
    origin: Instant,
    pub(super) net: Network,
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
    pub(super) fn new(
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

    pub(super) fn run(mut self) -> Result<Outcome, Violation> {
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
