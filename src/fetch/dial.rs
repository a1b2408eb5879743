//! Which connections a fetch has: whom it dials, and whom it drops for another.

use std::net::SocketAddr;
use std::time::Instant;

use super::candidates::{Candidate, Misled};
use super::hearsay::{is_plausible, is_well_known};
use super::source::Source;
use super::timers::Timer;
use super::{Action, Event, Fault, Fetch, MAY_HAVE_MOVED};
use crate::conn::Conn;
use crate::control::Role;
use crate::limits::{CONNECTING, MAX_ADDRESSES_OF_ONE, MAX_MUTE_DOUBLINGS, MUTE, MUTE_HOME};
use crate::random::next_random;

impl Fetch {
    /// A node that serves has come to be known: it has called here, or the origin has named it.
    pub(super) fn learn(&mut self, address: SocketAddr) {
        if self.origin.addresses.contains(&address) {
            return;
        }
        self.changed |= self.candidates.learn(address);
        self.leave_displaced();
        if self.candidates.is_known(address) && self.candidates.is_near(address) {
            self.scheduler.ring().add(address);
        }
    }

    /// A source has named a node. From the origin that is taken as something it has seen. From others it is hearsay,
    /// which has no place on the ring, since nobody waits for a node that only others know; and of which ports of other
    /// services, and further ones of hosts where some are dead, are left out.
    pub(super) fn named(&mut self, address: SocketAddr, by: Conn, now: Instant) {
        let Some(source) = self.sources.get_mut(&by) else { return };
        let (informant, is_origin) = (source.address, source.is_origin);
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if !is_plausible(address, informant.ip(), &self.allowed) {
            return;
        }
        if is_origin {
            return self.learn(address);
        }
        source.named_nodes += 1;
        let is_too_much = source.named_nodes > MAX_ADDRESSES_OF_ONE;
        let (port, origin) = (address.port(), &self.origin.addresses);
        let is_usual = port == self.port || origin.iter().any(|origin| origin.port() == port);
        let is_doubtful = is_well_known(port) || self.candidates.has_dead_ports(address.ip());
        if !is_too_much && (is_usual || !is_doubtful) && !origin.contains(&address) {
            self.changed |= self.candidates.hear_of(address, informant, now);
            self.leave_displaced();
        }
    }

    /// A node that is not known any longer is not waited for either.
    fn leave_displaced(&mut self) {
        if let Some(displaced) = self.candidates.take_displaced() {
            self.scheduler.ring().remove(displaced);
        }
    }

    /// A connection to an address has failed, or ended.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) {
        if let Some(Misled { by, dead, last }) = self.candidates.failed(address, now) {
            let event = Event::Misled { by, dead, last };
            self.trouble(&event.to_string());
            self.actions.push_back(Action::Report(event));
        }
    }

    /// Whether it goes to a node of another subnet.
    pub(super) fn is_far(&self, source: &Source) -> bool {
        !source.is_origin && !self.candidates.is_near(source.address)
    }

    pub(super) fn look_up_again(&mut self, now: Instant) {
        let stranded = self.stranded(now);
        if stranded >= MAY_HAVE_MOVED && stranded > self.looked_up {
            self.actions.push_back(Action::Resolve);
        }
        self.looked_up = stranded;
    }

    pub(super) fn drop_silent(&mut self, conn: Conn, now: Instant) {
        self.accuse(conn, Fault::Silent);
        self.lose(conn, now);
        self.actions.push_back(Action::Close(conn));
    }

    /// Ends connections to those who take calls and say nothing: they keep others from a place. Twice the time is
    /// waited from then on, until somebody speaks: behind a very slow link, or in a storm, nobody is heard in time,
    /// and to hang up and dial again only makes more of it.
    pub(super) fn drop_mute(&mut self, now: Instant) {
        let mute: Vec<Conn> = self
            .sources
            .iter()
            .filter(|(_, source)| self.mute_at(source).is_some_and(|at| at <= now))
            .map(|(conn, _)| *conn)
            .collect();
        self.mute_doublings = (self.mute_doublings + 1).min(MAX_MUTE_DOUBLINGS);
        for conn in mute {
            self.drop_silent(conn, now);
        }
        self.set_greeting_timers();
    }

    /// When a source has said nothing for too long.
    pub(super) fn mute_at(&self, source: &Source) -> Option<Instant> {
        let patience = if source.is_origin { MUTE_HOME } else { MUTE };
        let patience = patience.saturating_mul(1 << self.mute_doublings);
        source.role.is_none().then(|| source.since + patience)
    }

    pub(super) fn set_greeting_timers(&mut self) {
        let due: Vec<(Conn, Instant)> = self
            .sources
            .iter()
            .filter_map(|(conn, source)| Some((*conn, self.mute_at(source)?)))
            .collect();
        for (conn, at) in due {
            self.timers.set(Timer::Greet(conn), at);
        }
    }

    /// Somebody has said or sent something: others have no more time than usual from now on.
    pub(super) fn somebody_speaks(&mut self) {
        if std::mem::take(&mut self.mute_doublings) != 0 {
            self.set_greeting_timers();
        }
    }

    /// Lets the source that has brought least give way to one that was not asked yet. A node that comes early finds
    /// few others, and some have sources that many draw from.
    pub(super) fn replace_worst(&mut self, now: Instant) {
        let (last, held) = self.compared.unwrap_or((now, self.order.len()));
        let came = self.order.len() - held;
        let early = self.timers.is_set(Timer::ReplaceWorst);
        if self.is_whole() || (early && came < self.rules.redraw_chunks) {
            return;
        }
        self.compared = Some((now, self.order.len()));
        let wait = self.jittered(self.rules.redraw_every * 4 / 3);
        self.timers.set(Timer::ReplaceWorst, now + wait);
        if self.peers() < self.rules.max_dialled {
            return;
        }
        let Some(other) = self.choose_other(now) else { return };
        let peers = self.sources.iter().filter(|(_, s)| s.role == Some(Role::Node));
        let is_near = |source: &Source| self.candidates.is_near(source.address);
        let far = peers.clone().filter(|(_, source)| !is_near(source)).count();
        let spared = |source: &Source| {
            self.scheduler.far_is_slow() && far <= self.rules.far_kept && !is_near(source)
        };
        // Those that have had the time to bring something.
        let old = peers.filter(|(_, source)| source.since <= last && !spared(source));
        let worst = old.min_by_key(|(_, source)| source.brought).map(|(conn, _)| *conn);
        for source in self.sources.values_mut() {
            source.brought = 0;
        }
        if let Some(worst) = worst {
            self.replace(worst, other, now);
        }
    }

    /// Where distance matters, sources that are not near give way to near ones at once: nearly all has to come from
    /// those.
    pub(super) fn prefer_near(&mut self, now: Instant) {
        while self.scheduler.far_is_slow() && !self.is_whole() {
            let far: Vec<(&Conn, &Source)> =
                self.sources.iter().filter(|(_, source)| self.is_far(source)).collect();
            if far.len() <= self.rules.far_kept {
                return;
            }
            let idle = far.iter().find(|(_, source)| source.transfers.is_empty());
            let Some(conn) = idle.map(|(conn, _)| **conn) else { return };
            let near = self.choose_other(now);
            let Some(near) = near.filter(|address| self.candidates.is_near(*address)) else {
                return;
            };
            self.replace(conn, near, now);
        }
    }

    /// Ends the connection to a source, and dials another in its place.
    pub(super) fn replace(&mut self, conn: Conn, other: SocketAddr, now: Instant) {
        let Some(source) = self.sources.remove(&conn) else { return };
        self.timers.stop_all(conn);
        self.scheduler.remove(conn);
        self.candidates.replaced(source.address, now + self.rules.redraw_every * 8);
        self.actions.push_back(Action::Close(conn));
        self.dial_one(other, false, now);
    }

    pub(super) fn dial(&mut self, now: Instant) {
        let has_origin = self.sources.values().any(|source| source.is_origin);
        if !has_origin && !self.timers.is_set(Timer::DialOrigin) {
            let turn = self.origin.turn % self.origin.addresses.len().max(1);
            if let Some(address) = self.origin.addresses.get(turn).copied() {
                self.dial_one(address, true, now);
            }
        }
        while let Some(useful) = self.usefulness()
            && let Some(address) = self.choose(now, useful)
        {
            self.dial_one(address, false, now);
        }
        let due = self.usefulness().and_then(|useful| self.candidates.next_due(now, useful));
        match due {
            Some(due) => self.timers.set(Timer::DialCandidate, due),
            None => self.timers.stop(Timer::DialCandidate),
        }
    }

    /// A node to take the place of a source, which must not be given up for what is most likely dead.
    fn choose_other(&mut self, now: Instant) -> Option<SocketAddr> {
        let other = self.choose(now, |candidate| !candidate.in_use)?;
        (self.candidates.demerits(other) == 0).then_some(other)
    }

    /// Any node of those that may be dialed now and are `wanted`.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        wanted: impl Fn(&Candidate) -> bool,
    ) -> Option<SocketAddr> {
        let random = next_random(&mut self.random);
        let far = self.sources.values().filter(|source| self.is_far(source));
        let near_first = self.scheduler.far_is_slow() && far.count() >= self.rules.far_kept;
        self.candidates.choose(now, random, near_first, wanted)
    }

    /// Which nodes could be of use, now or when their time has come; None if nobody could.
    pub(super) fn usefulness(&self) -> Option<impl Fn(&Candidate) -> bool + use<>> {
        let peers = if self.is_whole() { usize::MAX } else { self.peers() };
        let (any, callers) = (peers < self.rules.max_dialled, peers < self.rules.max_peers);
        callers
            .then_some(move |candidate: &Candidate| !candidate.in_use && (any || candidate.calls))
    }

    pub(super) fn dial_one(&mut self, address: SocketAddr, is_origin: bool, now: Instant) {
        self.last = self.last.next();
        let conn = self.last;
        self.candidates.dialed(address);
        self.sources.insert(conn, Source::new(address, is_origin, self.traces, now));
        self.timers.set(Timer::Connect(conn), now + CONNECTING);
        self.set_greeting_timers();
        self.actions.push_back(Action::Dial(conn, address));
    }
}
