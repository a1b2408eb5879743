//! Those that wait for a grant, in the order in which they are looked at: by how much their host was granted that it
//! does not hold, then by how much they were, then by how long they have waited.
//!
//! A host with a thousand connections is granted no more than one with a single connection.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Instant;

use crate::conn::Conn;

/// Who was granted least that it does not hold comes first, then who has waited longest.
pub(super) type Place = (usize, Option<Instant>, Conn);

/// The grants of its host, and its first connection's place.
pub(super) type HostPlace = (usize, Place, IpAddr);

#[derive(Debug, Default)]
pub(super) struct Line {
    hosts: HashMap<IpAddr, Host>,
    order: BTreeSet<HostPlace>,
    len: usize,
}

#[derive(Debug, Default)]
struct Host {
    /// Grants that its connections do not hold yet, whether or not they wait for more.
    granted: usize,
    places: BTreeSet<Place>,
}

impl Line {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn insert(&mut self, ip: IpAddr, place: Place) {
        self.change(ip, |host| _ = host.places.insert(place));
    }

    pub(super) fn remove(&mut self, ip: IpAddr, place: &Place) {
        self.change(ip, |host| _ = host.places.remove(place));
    }

    /// A connection of this host was granted something.
    pub(super) fn granted(&mut self, ip: IpAddr) {
        self.change(ip, |host| host.granted += 1);
    }

    /// That grant has ended.
    pub(super) fn ended(&mut self, ip: IpAddr) {
        self.change(ip, |host| host.granted = host.granted.saturating_sub(1));
    }

    /// The host after this one.
    pub(super) fn host_after(&self, after: Bound<HostPlace>) -> Option<HostPlace> {
        self.order.range((after, Bound::Unbounded)).next().copied()
    }

    /// The connection of a host after this one.
    pub(super) fn place_after(&self, ip: IpAddr, after: Bound<Place>) -> Option<Place> {
        self.hosts.get(&ip)?.places.range((after, Bound::Unbounded)).next().copied()
    }

    fn change(&mut self, ip: IpAddr, change: impl FnOnce(&mut Host)) {
        let host = self.hosts.entry(ip).or_default();
        if let Some(place) = host.places.first() {
            self.order.remove(&(host.granted, *place, ip));
        }
        let before = host.places.len();
        change(host);
        self.len = self.len - before + host.places.len();
        match host.places.first() {
            Some(place) => _ = self.order.insert((host.granted, *place, ip)),
            None if host.granted == 0 => _ = self.hosts.remove(&ip),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &Line) -> Vec<u64> {
        let mut conns = Vec::new();
        let mut after = Bound::Unbounded;
        while let Some(host) = line.host_after(after) {
            after = Bound::Excluded(host);
            let mut within = Bound::Unbounded;
            while let Some(place) = line.place_after(host.2, within) {
                within = Bound::Excluded(place);
                conns.push(place.2.0);
            }
        }
        conns
    }

    #[test]
    fn a_host_that_was_granted_less_comes_before_all_connections_of_one_that_was_granted_more() {
        let (mut line, greedy, other) =
            (Line::default(), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for n in 1..=3 {
            line.insert(greedy, (0, None, Conn(n)));
        }
        line.insert(other, (0, None, Conn(9)));
        assert_eq!(order(&line), [1, 2, 3, 9]);
        line.granted(greedy);
        assert_eq!(order(&line), [9, 1, 2, 3]);
        line.granted(other);
        line.granted(other);
        assert_eq!(order(&line), [1, 2, 3, 9]);
        line.ended(greedy);
        line.remove(greedy, &(0, None, Conn(1)));
        assert_eq!((order(&line), line.len()), (vec![2, 3, 9], 3));
    }
}
