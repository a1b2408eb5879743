//! What a node believes of addresses that it has only heard of.
//!
//! The origin names nodes that have called it, and a node that fetches from here has called here: somebody has seen
//! these addresses. What other nodes name is **hearsay**, and any of them may name whatever it likes, to keep a node
//! from its sources or to have a third host called by everybody. So the informant answers for each address until that
//! has answered as a node of the same generation does: here is kept how many of its addresses did, how many did not,
//! and which those were.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::limits::{
    MANY_DEAD, MAX_DEAD_ADDRESSES, MAX_DEAD_OF_ONE, MAX_INFORMANTS, MAX_UNANSWERED_CALLS,
};
use crate::serve::admission::Allowed;

/// Ports below this one are those of other services.
const FIRST_FREE_PORT: u16 = 1024;

/// Whether a node may serve at an address that a host at `named_by` has named, of those in `allowed` networks.
///
/// An address that means another host at each host, or many hosts, leads somewhere else than where it was seen.
pub(super) fn is_plausible(address: SocketAddr, named_by: IpAddr, allowed: &Allowed) -> bool {
    let (ip, named_by) = (address.ip().to_canonical(), named_by.to_canonical());
    let is_nowhere = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
    let is_as_local = |local: fn(IpAddr) -> bool| !local(ip) || local(named_by);
    let is_in_reach = is_as_local(|ip| ip.is_loopback()) && is_as_local(is_link_local);
    !is_nowhere && is_in_reach && allowed.allows(ip)
}

/// Whether a port is one of other services.
pub(super) fn is_well_known(port: u16) -> bool {
    port < FIRST_FREE_PORT
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// What came of the hosts that another has named.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    answered: u32,
    dead: u32,
}

impl Account {
    fn is_untrusted(self) -> bool {
        self.dead >= MAX_DEAD_OF_ONE || self.dead >= MANY_DEAD && self.dead > self.answered
    }
}

/// The hosts that have named addresses.
#[derive(Debug, Default)]
pub(super) struct Informants(BTreeMap<IpAddr, Account>);

impl Informants {
    /// A node answers at an address that this host has named.
    pub(super) fn was_right(&mut self, host: IpAddr) {
        let account = self.account(host);
        account.answered = account.answered.saturating_add(1);
    }

    /// No node answers at another host that this one has named. How many of those there are, if that makes too many.
    pub(super) fn was_wrong(&mut self, host: IpAddr) -> Option<u32> {
        let account = self.account(host);
        let before = account.is_untrusted();
        account.dead = account.dead.saturating_add(1);
        (!before && account.is_untrusted()).then_some(account.dead)
    }

    /// Whether most of what this host has named is dead, or too much of it: it is asked for no more.
    pub(super) fn is_untrusted(&self, host: IpAddr) -> bool {
        self.0.get(&host).is_some_and(|account| account.is_untrusted())
    }

    /// How many more of those that it has named are dead than have answered.
    pub(super) fn demerits(&self, host: IpAddr) -> u32 {
        self.0.get(&host).map_or(0, |account| account.dead.saturating_sub(account.answered))
    }

    fn account(&mut self, host: IpAddr) -> &mut Account {
        if self.0.len() >= MAX_INFORMANTS && !self.0.contains_key(&host) {
            let least = self.0.iter().min_by_key(|(_, account)| account.dead);
            if let Some(least) = least.map(|(host, _)| *host) {
                self.0.remove(&least);
            }
        }
        self.0.entry(host).or_default()
    }
}

/// An address at which no node has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) failures: u32,
    pub(super) not_before: Instant,
}

impl Past {
    /// Whether it may be dialed again though nobody but other nodes names it.
    pub(super) fn is_over(self, now: Instant) -> bool {
        self.failures < MAX_UNANSWERED_CALLS && self.not_before <= now
    }
}

/// The addresses at which no node has answered, even if they were named again since.
#[derive(Debug, Default)]
pub(super) struct DeadAddresses(BTreeMap<SocketAddr, Past>);

impl DeadAddresses {
    /// Remembers one, in place of that which might be dialed soonest if there are too many.
    pub(super) fn add(&mut self, address: SocketAddr, past: Past) {
        if self.0.len() >= MAX_DEAD_ADDRESSES && !self.0.contains_key(&address) {
            let soonest = self.0.iter().min_by_key(|(_, past)| past.not_before);
            if let Some(soonest) = soonest.map(|(address, _)| *address) {
                self.0.remove(&soonest);
            }
        }
        self.0.insert(address, past);
    }

    pub(super) fn get(&self, address: SocketAddr) -> Option<Past> {
        self.0.get(&address).copied()
    }

    /// How many there are of one host.
    pub(super) fn of_host(&self, host: IpAddr) -> usize {
        let (first, last) = (SocketAddr::new(host, 0), SocketAddr::new(host, u16::MAX));
        self.0.range(first..=last).count()
    }

    /// A node has answered there after all.
    pub(super) fn remove(&mut self, address: SocketAddr) {
        self.0.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn plausible(address: &str, named_by: &str, allowed: &[&str]) -> bool {
        let networks = allowed.iter().map(|network| network.parse().unwrap()).collect();
        let named_by = named_by.parse().unwrap();
        is_plausible(address.parse().unwrap(), named_by, &Allowed(networks))
    }

    #[test]
    fn only_addresses_in_allowed_networks_are_dialed() {
        assert!(plausible("10.1.2.3:20004", "10.0.0.1", &[]), "without --allow any network");
        assert!(plausible("10.1.2.3:20004", "10.0.0.1", &["10.1.0.0/16"]));
        assert!(!plausible("192.0.2.1:20004", "10.0.0.1", &["10.1.0.0/16", "fd00::/8"]));
        assert!(!plausible("[::ffff:192.0.2.1]:20004", "10.0.0.1", &["10.1.0.0/16"]));
    }

    #[test]
    fn nobody_makes_a_node_call_itself_or_everybody() {
        for address in [
            "127.0.0.1:20004",
            "[::1]:20004",
            "[::ffff:127.0.0.1]:20004",
            "0.0.0.0:20004",
            "[::]:20004",
            "224.0.0.1:20004",
            "255.255.255.255:20004",
            "[ff02::1]:20004",
            "169.254.169.254:20004",
            "[fe80::1]:20004",
        ] {
            assert!(!plausible(address, "10.0.0.9", &[]), "{address}");
        }
        assert!(plausible("127.0.0.1:20004", "127.0.0.1", &[]), "all nodes on one machine");
        assert!(plausible("169.254.0.7:20004", "169.254.0.9", &[]), "a network without a router");
    }

    #[test]
    fn a_host_that_names_mostly_dead_ones_is_not_trusted() {
        let mut informants = Informants::default();
        for dead in 1..MANY_DEAD {
            assert_eq!(informants.was_wrong(HOST), None);
            assert_eq!(informants.demerits(HOST), dead);
        }
        assert!(!informants.is_untrusted(HOST));
        assert_eq!(informants.was_wrong(HOST), Some(MANY_DEAD));
        assert!(informants.is_untrusted(HOST));
        assert_eq!(informants.was_wrong(HOST), None, "it is told once");
    }

    #[test]
    fn a_host_that_names_mostly_nodes_may_name_some_that_died() {
        let mut informants = Informants::default();
        for _ in 1..MAX_DEAD_OF_ONE {
            informants.was_right(HOST);
            informants.was_wrong(HOST);
        }
        assert!(!informants.is_untrusted(HOST));
        informants.was_right(HOST);
        assert_eq!(informants.was_wrong(HOST), Some(MAX_DEAD_OF_ONE), "but not any number");
    }

    #[test]
    fn so_many_informants_and_dead_addresses_are_remembered() {
        let (mut informants, mut dead) = (Informants::default(), DeadAddresses::default());
        let now = Instant::now();
        for n in 0..2 * MAX_DEAD_ADDRESSES.max(MAX_INFORMANTS) as u32 {
            let ip = IpAddr::from((0x0A00_0000 + n).to_be_bytes());
            informants.was_wrong(ip);
            let not_before = now + Duration::from_secs(n.into());
            dead.add(SocketAddr::new(ip, 20_004), Past { failures: 1, not_before });
        }
        assert_eq!((informants.0.len(), dead.0.len()), (MAX_INFORMANTS, MAX_DEAD_ADDRESSES));
    }
}
