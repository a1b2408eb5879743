//! Who is next where something is scarce: of the hosts that wait, the one that has had least of it; of its
//! connections, the one that has waited longest.
//!
//! So a host with a thousand connections gets no more than one with a single connection. What was had is counted in
//! whatever is scarce: time of a thread, bytes, turns. A host that has not waited for a while begins where the last
//! one that was served had come to: nobody saves up, and nobody has to catch up (start-time fair queueing).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::conn::Conn;

/// Hosts that do not wait are looked through once there are this many more than there were after the last time.
const FORGET_AFTER: usize = 256;

/// Connections that wait, each at most once.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    hosts: HashMap<IpAddr, Host>,
    /// Where each connection that waits stands.
    places: HashMap<Conn, (IpAddr, u64)>,
    /// The hosts that wait, the next one first.
    order: BTreeSet<Rank>,
    /// The number of the last connection that began to wait.
    last: u64,
    /// How much the host that was served last had had.
    level: u64,
    forget_at: usize,
}

#[derive(Debug, Default)]
struct Host {
    had: u64,
    /// By when they began to wait.
    waiting: BTreeMap<u64, Conn>,
}

/// How much a host has had, when its first connection began to wait, and which host it is.
type Rank = (u64, u64, IpAddr);

impl Host {
    fn rank(&self, ip: IpAddr) -> Option<Rank> {
        self.waiting.first_key_value().map(|(since, _)| (self.had, *since, ip))
    }
}

impl FairQueue {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn contains(&self, conn: Conn) -> bool {
        self.places.contains_key(&conn)
    }

    /// How many connections of a host wait.
    pub(super) fn waiting_of(&self, ip: IpAddr) -> usize {
        self.hosts.get(&ip).map_or(0, |host| host.waiting.len())
    }

    /// `conn` waits from now on, if it does not already.
    pub(super) fn push(&mut self, conn: Conn, ip: IpAddr) {
        if self.contains(conn) {
            return;
        }
        self.last += 1;
        let (since, level) = (self.last, self.level);
        self.places.insert(conn, (ip, since));
        self.change(ip, |host| {
            if host.waiting.is_empty() {
                host.had = host.had.max(level);
            }
            host.waiting.insert(since, conn);
        });
        self.forget();
    }

    /// `conn` does not wait any longer; whether it did.
    pub(super) fn remove(&mut self, conn: Conn) -> bool {
        let Some((ip, since)) = self.places.remove(&conn) else { return false };
        self.change(ip, |host| _ = host.waiting.remove(&since));
        true
    }

    /// Takes out the next one.
    pub(super) fn pop(&mut self) -> Option<Conn> {
        self.pop_of(|_| true).map(|(conn, _)| conn)
    }

    /// Takes out the next one of the hosts that `may` have something, and says which host it is of.
    pub(super) fn pop_of(&mut self, may: impl Fn(IpAddr) -> bool) -> Option<(Conn, IpAddr)> {
        let &(had, _, ip) = self.order.iter().find(|(.., ip)| may(*ip))?;
        let (_, conn) = self.hosts.get(&ip)?.waiting.first_key_value()?;
        let conn = *conn;
        self.level = self.level.max(had);
        self.remove(conn);
        Some((conn, ip))
    }

    /// A host has had so much.
    pub(super) fn spend(&mut self, ip: IpAddr, amount: u64) {
        let level = self.level;
        self.change(ip, |host| host.had = host.had.max(level).saturating_add(amount));
        if self.order.is_empty() {
            // Nobody else waits, so that nobody has had less.
            self.level = self.hosts.get(&ip).map_or(level, |host| host.had);
        }
        self.forget();
    }

    /// The last connection of the host of which most wait, if that are more than `most`.
    pub(super) fn last_of_the_greediest(&self, most: usize) -> Option<Conn> {
        let waiting = self.order.iter().filter_map(|(.., ip)| Some(&self.hosts.get(ip)?.waiting));
        let greediest = waiting.max_by_key(|waiting| waiting.len())?;
        if greediest.len() <= most {
            return None;
        }
        greediest.last_key_value().map(|(_, conn)| *conn)
    }

    fn change(&mut self, ip: IpAddr, change: impl FnOnce(&mut Host)) {
        let host = self.hosts.entry(ip).or_default();
        if let Some(rank) = host.rank(ip) {
            self.order.remove(&rank);
        }
        change(host);
        self.order.extend(host.rank(ip));
    }

    /// Forgets hosts that do not wait and have had no more than the others.
    fn forget(&mut self) {
        if self.hosts.len() < self.forget_at {
            return;
        }
        let level = self.level;
        self.hosts.retain(|_, host| !host.waiting.is_empty() || host.had > level);
        self.forget_at = self.hosts.len() + FORGET_AFTER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    /// Serves `times` connections, each of which waits again at once; how often each host was served.
    fn served(
        queue: &mut FairQueue,
        of: &HashMap<Conn, IpAddr>,
        times: u32,
        cost: u64,
    ) -> Vec<u32> {
        let mut counts = vec![0; 8];
        for _ in 0..times {
            let conn = queue.pop().unwrap();
            let ip = of[&conn];
            let IpAddr::V4(v4) = ip else { unreachable!() };
            counts[v4.octets()[3] as usize] += 1;
            queue.spend(ip, cost);
            queue.push(conn, ip);
        }
        counts
    }

    fn queue(connections: &[(u8, u64)]) -> (FairQueue, HashMap<Conn, IpAddr>) {
        let (mut queue, mut of, mut n) = (FairQueue::default(), HashMap::new(), 0);
        for &(host, count) in connections {
            for _ in 0..count {
                n += 1;
                queue.push(Conn(n), ip(host));
                of.insert(Conn(n), ip(host));
            }
        }
        (queue, of)
    }

    #[test]
    fn one_that_waits_once_is_served_in_the_order_of_coming() {
        let (mut queue, _) = queue(&[(1, 1), (2, 1), (3, 1)]);
        queue.push(Conn(1), ip(1));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [Conn(1), Conn(2), Conn(3)]);
    }

    #[test]
    fn a_host_with_a_thousand_connections_is_served_as_often_as_one_with_a_single_one() {
        let (mut queue, of) = queue(&[(1, 1000), (2, 1), (3, 1)]);
        let counts = served(&mut queue, &of, 300, 1);
        assert_eq!(counts[1..4], [100, 100, 100]);
    }

    #[test]
    fn all_connections_of_a_host_have_their_turn() {
        let (mut queue, of) = queue(&[(1, 10), (2, 1)]);
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            let conn = queue.pop().unwrap();
            seen.insert(conn);
            queue.spend(of[&conn], 1);
            queue.push(conn, of[&conn]);
        }
        assert_eq!(seen.len(), 11);
    }

    #[test]
    fn a_host_that_costs_more_is_served_less_often() {
        let (mut queue, of) = queue(&[(1, 5), (2, 1)]);
        let mut counts = [0; 3];
        for _ in 0..110 {
            let conn = queue.pop().unwrap();
            let (host, cost) = if of[&conn] == ip(1) { (1, 10) } else { (2, 1) };
            counts[host] += 1;
            queue.spend(of[&conn], cost);
            queue.push(conn, of[&conn]);
        }
        assert_eq!(counts[1..], [10, 100]);
    }

    #[test]
    fn a_host_that_was_silent_has_saved_nothing() {
        let (mut queue, of) = queue(&[(1, 1)]);
        served(&mut queue, &of, 1000, 1);
        let (late, of) = ((Conn(99), ip(2)), HashMap::from([(Conn(1), ip(1)), (Conn(99), ip(2))]));
        queue.push(late.0, late.1);
        let counts = served(&mut queue, &of, 100, 1);
        assert!(counts[1] >= 49, "{counts:?}");
    }

    #[test]
    fn who_waits_no_longer_is_not_served() {
        let (mut queue, _) = queue(&[(1, 2), (2, 1)]);
        assert!(queue.remove(Conn(1)) && !queue.remove(Conn(1)));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(Conn(2)), Some(Conn(3)), None));
    }

    #[test]
    fn hosts_that_have_gone_are_forgotten() {
        let mut queue = FairQueue::default();
        for n in 0..100_000_u32 {
            let ip = IpAddr::from(n.to_be_bytes());
            queue.push(Conn(n.into()), ip);
            queue.pop();
            queue.spend(ip, 1);
        }
        assert!(queue.hosts.len() <= 2 * FORGET_AFTER, "{}", queue.hosts.len());
    }

    #[test]
    fn the_last_of_the_host_of_which_most_wait_gives_way() {
        let (queue, _) = queue(&[(1, 2), (2, 3), (3, 1)]);
        assert_eq!(queue.last_of_the_greediest(1), Some(Conn(5)));
        assert_eq!(queue.last_of_the_greediest(3), None);
    }
}
