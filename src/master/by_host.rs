//! A queue in which hosts take turns, so that one that asks for much only waits for itself.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::network::host;

/// What hosts wait for; no host is in it without anything.
#[derive(Debug)]
pub(super) struct HostQueue<T> {
    /// Whose turn it is comes first.
    hosts: VecDeque<(IpAddr, VecDeque<T>)>,
}

impl<T> Default for HostQueue<T> {
    fn default() -> HostQueue<T> {
        HostQueue { hosts: VecDeque::new() }
    }
}

impl<T> HostQueue<T> {
    /// Something that a host waits for, behind what it waits for already.
    pub(super) fn push(&mut self, ip: IpAddr, item: T) {
        let host = host(ip);
        match self.hosts.iter_mut().find(|(other, _)| *other == host) {
            Some((_, items)) => items.push_back(item),
            None => self.hosts.push_back((host, VecDeque::from([item]))),
        }
    }

    /// The next thing that may be done, of the host whose turn it is, which then comes last.
    pub(super) fn pop(&mut self, mut may: impl FnMut(&T) -> bool) -> Option<T> {
        for place in 0..self.hosts.len() {
            let Some((_, items)) = self.hosts.get_mut(place) else { continue };
            let Some(at) = items.iter().position(&mut may) else { continue };
            let item = items.remove(at);
            if let Some(host) = self.hosts.remove(place).filter(|(_, items)| !items.is_empty()) {
                self.hosts.push_back(host);
            }
            return item;
        }
        None
    }

    /// How much a host waits for.
    pub(super) fn len_of(&self, ip: IpAddr) -> usize {
        let host = host(ip);
        let own = self.hosts.iter().find(|(other, _)| *other == host);
        own.map_or(0, |(_, items)| items.len())
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.iter().map(|(_, items)| items.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.hosts.iter().flat_map(|(_, items)| items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_waits_for_much_has_every_second_turn_beside_another() {
        let mut queue = HostQueue::default();
        for n in 0..100 {
            queue.push([10, 0, 0, 1].into(), n);
        }
        queue.push([10, 0, 0, 2].into(), 1000);
        queue.push([10, 0, 0, 2].into(), 1001);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop(|_| true)).take(5).collect();
        assert_eq!(order, [0, 1000, 1, 1001, 2]);
    }

    #[test]
    fn what_may_not_be_done_yet_is_passed_over_and_keeps_its_place() {
        let mut queue = HostQueue::default();
        for n in [1, 2, 3] {
            queue.push([10, 0, 0, 1].into(), n);
        }
        assert_eq!(queue.pop(|n| *n == 2), Some(2));
        assert_eq!(queue.pop(|_| false), None);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_host() {
        let mut queue = HostQueue::default();
        queue.push("2001:db8::1".parse().unwrap(), 1);
        queue.push("2001:db8::2".parse().unwrap(), 2);
        assert_eq!(queue.len_of("2001:db8::3".parse().unwrap()), 2);
    }
}
