//! The nodes that could be fetched from: known addresses, when each may be dialed, and which is dialed next.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::limits::{BAN, MAX_ADDRESSES};
use crate::network::is_near;

/// Wait before a node is dialed again after a failure; doubled each time, up to [`BAN`].
const REDIAL: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Candidate {
    /// There is a connection to it, or one is being made.
    pub(super) in_use: bool,
    /// It fetches from this node.
    pub(super) calls: bool,
    not_before: Option<Instant>,
    failures: u32,
}

/// The addresses that are known, this node's own and the origin's not among them.
#[derive(Debug)]
pub(super) struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    /// This node's addresses, as its connections have them.
    own: Vec<IpAddr>,
    /// The port on which it serves.
    port: u16,
}

impl Candidates {
    pub(super) fn new(port: u16) -> Candidates {
        Candidates { known: BTreeMap::new(), own: Vec::new(), port }
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

    /// A node serves at an address; false if that was known, is this node, or is one too many.
    pub(super) fn learn(&mut self, address: SocketAddr) -> bool {
        let myself = address.port() == self.port && self.own.contains(&address.ip());
        let new = !myself && self.known.len() < MAX_ADDRESSES && !self.known.contains_key(&address);
        if new {
            self.known.insert(address, Candidate::default());
        }
        new
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
        self.change(address, |candidate| candidate.failures = 0);
    }

    /// The connection to it has ended, or could not be made.
    pub(super) fn failed(&mut self, address: SocketAddr, now: Instant) {
        self.change(address, |candidate| {
            candidate.in_use = false;
            candidate.failures = candidate.failures.saturating_add(1);
            let due = now + backoff(REDIAL, candidate.failures, BAN);
            candidate.not_before = Some(candidate.not_before.unwrap_or(now).max(due));
        });
    }

    /// It is not dialed before then.
    pub(super) fn rest(&mut self, address: SocketAddr, until: Instant) {
        self.change(address, |candidate| candidate.not_before = Some(until));
    }

    /// Its connection was ended to make place for another, and it is not dialed before then.
    pub(super) fn replaced(&mut self, address: SocketAddr, until: Instant) {
        self.change(address, |candidate| {
            candidate.in_use = false;
            candidate.not_before = Some(until);
        });
    }

    /// One that may be dialed by now and is `wanted`, chosen by the random number; with `near_first` one of this
    /// node's subnet if there is any.
    pub(super) fn choose(
        &self,
        now: Instant,
        random: u64,
        near_first: bool,
        wanted: impl Fn(&Candidate) -> bool,
    ) -> Option<SocketAddr> {
        let due = |candidate: &Candidate| wanted(candidate) && candidate.not_before <= Some(now);
        let due = self.known.iter().filter(|(_, candidate)| due(candidate));
        due.map(|(address, _)| *address).min_by_key(|address| {
            let mixed =
                (u64::from(address.port()) << 32 | low_bits(address.ip())).wrapping_mul(random);
            (near_first && !self.is_near(*address), mixed)
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
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 20_004))
    }

    fn any(candidate: &Candidate) -> bool {
        !candidate.in_use
    }

    #[test]
    fn a_node_that_failed_is_dialed_later_each_time() {
        let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
        candidates.learn(address(2));
        assert_eq!(candidates.choose(now, 1, false, any), Some(address(2)));
        candidates.failed(address(2), now);
        assert_eq!(candidates.choose(now, 1, false, any), None);
        assert_eq!(candidates.next_due(now, any), Some(now + REDIAL));
        candidates.failed(address(2), now + REDIAL);
        assert_eq!(candidates.next_due(now, any), Some(now + REDIAL * 3));
    }

    #[test]
    fn this_node_is_no_candidate() {
        let mut candidates = Candidates::new(20_004);
        candidates.add_own(address(7).ip());
        assert!(!candidates.learn(address(7)));
        assert!(candidates.learn(SocketAddr::new(address(7).ip(), 20_005)), "another on this host");
    }

    #[test]
    fn a_near_node_comes_first_where_that_is_asked_for() {
        let (mut candidates, now) = (Candidates::new(20_004), Instant::now());
        candidates.add_own(address(7).ip());
        let far = SocketAddr::from(([10, 0, 9, 1], 20_004));
        candidates.learn(far);
        candidates.learn(address(2));
        for random in 1..100 {
            assert_eq!(candidates.choose(now, random, true, any), Some(address(2)));
        }
    }

    #[test]
    fn no_more_addresses_are_kept_than_the_limit() {
        let mut candidates = Candidates::new(20_004);
        for port in 1..=2 * MAX_ADDRESSES as u16 {
            candidates.learn(SocketAddr::new(address(9).ip(), port));
        }
        assert_eq!(candidates.len(), MAX_ADDRESSES);
    }
}
