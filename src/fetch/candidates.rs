//! The nodes that could be fetched from: known addresses, when each may be dialed, and which is dialed next.
//!
//! Where there are too many addresses, or too few connections, those that are only hearsay come last, and no host has
//! all of them: see [`super::hearsay`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::hearsay::{DeadAddresses, Informants, Past};
use crate::limits::{
    BAN, MAX_ADDRESSES, MAX_ADDRESSES_OF_ONE, MAX_DEAD_PORTS, MAX_UNANSWERED_AT_ONCE,
    MAX_UNANSWERED_CALLS,
};
use crate::network::is_near;

/// Wait before a node is dialed again after a failure; doubled each time, up to [`BAN`].
const REDIAL: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Candidate {
    /// There is a connection to it, or one is being made.
    pub(super) in_use: bool,
    /// It fetches from this node.
    pub(super) calls: bool,
    /// Who has named it, if nobody but other nodes did.
    informant: Option<SocketAddr>,
    /// It has answered once as a source does.
    answered: bool,
    not_before: Option<Instant>,
    failures: u32,
}

impl Candidate {
    /// Who answers for it while it is hearsay.
    fn hearsay_of(&self) -> Option<SocketAddr> {
        self.informant.filter(|_| !self.answered)
    }

    /// The host in whose stead it is in the table.
    fn host(&self, address: SocketAddr) -> IpAddr {
        self.hearsay_of().unwrap_or(address).ip()
    }
}

/// A node that names too many hosts at which there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misled {
    pub(super) by: SocketAddr,
    /// How many.
    pub(super) dead: u32,
    pub(super) last: SocketAddr,
}

/// The addresses that are known, this node's own and the origin's not among them.
#[derive(Debug)]
pub(super) struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    dead: DeadAddresses,
    informants: Informants,
    /// This node's addresses, as its connections have them.
    own: Vec<IpAddr>,
    /// The port on which it serves.
    port: u16,
    /// The one that has given way to the last one that was new.
    displaced: Option<SocketAddr>,
}

impl Candidates {
    pub(super) fn new(port: u16) -> Candidates {
        Candidates {
            known: BTreeMap::new(),
            dead: DeadAddresses::default(),
            informants: Informants::default(),
            own: Vec::new(),
            port,
            displaced: None,
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// This node has an address; false if that was known.
    pub(super) fn add_own(&mut self, ip: IpAddr) -> bool {
        let new = !self.own.contains(&ip);
        if new {
            self.own.push(ip);
        }
        new
    }

    /// The origin has named a node, or it has called here; false if that was known, is this node, or is one too many.
    pub(super) fn learn(&mut self, address: SocketAddr) -> bool {
        if let Some(known) = self.known.get_mut(&address) {
            known.informant = None;
            return false;
        }
        let may = !self.is_own(address) && self.make_room(address.ip(), true);
        if may {
            self.insert(address, None);
        }
        may
    }

    /// Another node has named one; false if that was known, is this node, has turned out to be dead, or is one too
    /// many.
    pub(super) fn hear_of(
        &mut self,
        address: SocketAddr,
        informant: SocketAddr,
        now: Instant,
    ) -> bool {
        let named_by = informant.ip();
        let its = |candidate: &&Candidate| {
            candidate.hearsay_of().is_some_and(|informant| informant.ip() == named_by)
        };
        let may = !self.known.contains_key(&address)
            && !self.is_own(address)
            && !self.informants.is_untrusted(named_by)
            && self.dead.get(address).is_none_or(|past| past.is_over(now))
            && self.known.values().filter(its).count() < MAX_ADDRESSES_OF_ONE
            && self.make_room(named_by, false);
        if may {
            self.insert(address, Some(informant));
        }
        may
    }

    pub(super) fn is_known(&self, address: SocketAddr) -> bool {
        self.known.contains_key(&address)
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        address.port() == self.port && self.own.contains(&address.ip())
    }

    fn insert(&mut self, address: SocketAddr, informant: Option<SocketAddr>) {
        let past = self.dead.get(address);
        let candidate = Candidate {
            informant,
            not_before: past.map(|past| past.not_before),
            failures: past.map_or(0, |past| past.failures),
            ..Candidate::default()
        };
        self.known.insert(address, candidate);
    }

    /// Whether there is room for one more address in the stead of this host, for which another may have to give way.
    fn make_room(&mut self, host: IpAddr, was_seen: bool) -> bool {
        let gives_way = match self.known.len() {
            MAX_ADDRESSES.. => self.displaced_by(host, was_seen),
            _ => return true,
        };
        self.displaced = gives_way.filter(|address| self.known.remove(address).is_some());
        self.displaced.is_some()
    }

    /// The one that has given way to the last one that was new, once.
    pub(super) fn take_displaced(&mut self) -> Option<SocketAddr> {
        self.displaced.take()
    }

    /// Of the host that has most of those that are not in use, if it has more than this one would have, the one that
    /// has failed most often; but hearsay gives way to what was seen, whoever has how much.
    fn displaced_by(&self, host: IpAddr, was_seen: bool) -> Option<SocketAddr> {
        let is_idle = |(_, candidate): &(&SocketAddr, &Candidate)| !candidate.in_use;
        let idle = || self.known.iter().filter(is_idle);
        let prefers_hearsay = was_seen && idle().any(|(_, c)| c.hearsay_of().is_some());
        let may_go = || idle().filter(|(_, c)| !prefers_hearsay || c.hearsay_of().is_some());
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (address, candidate) in may_go() {
            *counts.entry(candidate.host(*address)).or_default() += 1;
        }
        let (most_of, most) = counts.iter().max_by_key(|&(host, count)| (count, host))?;
        let own = counts.get(&host).copied().unwrap_or(0);
        if !prefers_hearsay && *most <= own + 1 {
            return None;
        }
        let its = may_go().filter(|(address, candidate)| candidate.host(**address) == *most_of);
        its.max_by_key(|(_, candidate)| candidate.failures).map(|(address, _)| *address)
    }

    /// A node that is known fetches from this one; false if that was known too.
    pub(super) fn calls(&mut self, address: SocketAddr) -> bool {
        let candidate = self.known.get_mut(&address);
        candidate.is_some_and(|candidate| !std::mem::replace(&mut candidate.calls, true))
    }

    /// Whether it is of this node's subnet.
    pub(super) fn is_near(&self, address: SocketAddr) -> bool {
        self.own.iter().any(|own| is_near(*own, address.ip()))
    }

    /// It is being dialed.
    pub(super) fn dialed(&mut self, address: SocketAddr) {
        self.change(address, |candidate| candidate.in_use = true);
    }

    /// It has answered as a source does.
    pub(super) fn answered(&mut self, address: SocketAddr) {
        let Some(candidate) = self.known.get_mut(&address) else { return };
        if let Some(informant) = candidate.hearsay_of() {
            self.informants.was_right(informant.ip());
        }
        candidate.answered = true;
        candidate.failures = 0;
        self.dead.remove(address);
    }

    /// The connection to it has ended, or could not be made. Who has misled this node, if that is enough to say so.
    ///
    /// What has never answered leaves the table: hearsay at once, others after as many calls as hearsay gets in all.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) -> Option<Misled> {
        let candidate = self.known.get_mut(&address)?;
        candidate.in_use = false;
        candidate.failures = candidate.failures.saturating_add(1);
        let due = now + backoff(REDIAL, candidate.failures, BAN);
        let not_before = candidate.not_before.unwrap_or(now).max(due);
        candidate.not_before = Some(not_before);
        let Candidate { answered, failures, .. } = *candidate;
        let informant = candidate.hearsay_of();
        if answered || informant.is_none() && failures < MAX_UNANSWERED_CALLS {
            return None;
        }
        self.known.remove(&address);
        let is_first_of_host = self.dead.of_host(address.ip()) == 0;
        self.dead.add(address, Past { failures, not_before });
        if self.has_dead_ports(address.ip()) {
            self.forget_hearsay(|other, _| other.ip() == address.ip());
        }
        // A host counts once: whoever joins an honest node on a hundred ports must not bring that into disrepute.
        let by = informant.filter(|_| is_first_of_host)?;
        let dead = self.informants.was_wrong(by.ip())?;
        self.forget_hearsay(|_, informant| informant.ip() == by.ip());
        Some(Misled { by, dead, last: address })
    }

    /// Whether so many ports of a host are dead that no others are tried which only other nodes name.
    pub(super) fn has_dead_ports(&self, host: IpAddr) -> bool {
        self.dead.of_host(host) >= MAX_DEAD_PORTS
    }

    /// Whether a host is asked for no more addresses.
    pub(super) fn is_untrusted(&self, host: IpAddr) -> bool {
        self.informants.is_untrusted(host)
    }

    /// Forgets those that are hearsay and not in use, by their addresses and informants.
    fn forget_hearsay(&mut self, is_forgotten: impl Fn(&SocketAddr, SocketAddr) -> bool) {
        self.known.retain(|address, candidate| {
            let informant = candidate.hearsay_of().filter(|_| !candidate.in_use);
            informant.is_none_or(|informant| !is_forgotten(address, informant))
        });
    }

    /// It is not dialed before then; if it has never answered, not at all because of what other nodes say.
    pub(super) fn avoid(&mut self, address: SocketAddr, until: Instant) {
        self.change(address, |candidate| {
            candidate.not_before = Some(until);
            if !candidate.answered {
                candidate.failures = candidate.failures.max(MAX_UNANSWERED_CALLS);
            }
        });
    }

    /// Its connection was ended to make place for another, and it is not dialed before then.
    pub(super) fn replaced(&mut self, address: SocketAddr, until: Instant) {
        self.change(address, |candidate| {
            candidate.in_use = false;
            candidate.not_before = Some(until);
        });
    }

    /// Who has named it, if nobody but other nodes did and it has not answered.
    pub(super) fn hearsay_of(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.known.get(&address)?.hearsay_of()
    }

    /// How much speaks against it: what is dead of what the node has named that has named it.
    pub(super) fn demerits(&self, address: SocketAddr) -> u32 {
        let informant = self.hearsay_of(address);
        informant.map_or(0, |informant| self.informants.demerits(informant.ip()))
    }

    /// One that may be dialed by now and is `wanted`, chosen by the random number: one that nothing speaks against
    /// before others, one of a host without a connection before others, and with `near_first` one of this node's subnet
    /// before others.
    pub(super) fn choose(
        &self,
        now: Instant,
        random: u64,
        near_first: bool,
        wanted: impl Fn(&Candidate) -> bool,
    ) -> Option<SocketAddr> {
        let in_use = self.known.iter().filter(|(_, candidate)| candidate.in_use);
        let in_use: Vec<(SocketAddr, &Candidate)> = in_use.map(|(a, c)| (*a, c)).collect();
        let connections = |ip| in_use.iter().filter(|(address, _)| address.ip() == ip).count();
        // Those that something speaks against share what one host may have.
        let share = |(address, candidate): (SocketAddr, &Candidate)| {
            Some(candidate.host(address)).filter(|_| self.demerits(address) == 0)
        };
        let unanswered: Vec<Option<IpAddr>> =
            in_use.iter().filter(|(_, c)| !c.answered).map(|call| share(*call)).collect();
        let may_call = |address, candidate: &Candidate| {
            let own = share((address, candidate));
            let calls = unanswered.iter().filter(|other| **other == own).count();
            candidate.answered || calls < MAX_UNANSWERED_AT_ONCE
        };
        let due = |&(address, candidate): &(&SocketAddr, &Candidate)| {
            wanted(candidate) && candidate.not_before <= Some(now) && may_call(*address, candidate)
        };
        let due = self.known.iter().filter(due);
        due.map(|(address, _)| *address).min_by_key(|address| {
            let mixed =
                (u64::from(address.port()) << 32 | low_bits(address.ip())).wrapping_mul(random);
            let far = near_first && !self.is_near(*address);
            (self.demerits(*address), connections(address.ip()), far, mixed)
        })
    }

    /// When the next of those that are `wanted` may be dialed, if there is one that may not be by now.
    pub(super) fn next_due(
        &self,
        now: Instant,
        wanted: impl Fn(&Candidate) -> bool,
    ) -> Option<Instant> {
        let resting = self.known.values().filter(|candidate| wanted(candidate));
        resting.filter_map(|candidate| candidate.not_before).filter(|at| *at > now).min()
    }

    fn change(&mut self, address: SocketAddr, change: impl FnOnce(&mut Candidate)) {
        if let Some(candidate) = self.known.get_mut(&address) {
            change(candidate);
        }
    }
}

/// The wait after `failures` failures in a row: doubled each time, up to `most`.
pub(super) fn backoff(first: Duration, failures: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}

fn low_bits(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() as u64,
    }
}

#[cfg(test)]
mod tests;
