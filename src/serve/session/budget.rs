//! How much of a server's memory the connections of each host may hold.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::limits::MIN_HELD_BYTES;
use crate::p9::errno::Errno;

/// What fids, the texts that they are read from, and replies that were not taken hold together, in bytes.
///
/// All connections of a host together may hold as much as is free then, so that one host cannot take more than half of
/// all; and each connection a little in any case, so that many that are greedy do not keep a node from fetching.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    held: usize,
    hosts: HashMap<IpAddr, usize>,
}

impl Budget {
    /// At most `most` bytes in all, and [`MIN_HELD_BYTES`] for each connection.
    pub fn new(most: usize) -> Budget {
        Budget { most, held: 0, hosts: HashMap::new() }
    }

    /// A connection of `host` that holds `held` bytes is to hold so many more.
    ///
    /// # Errors
    /// `EMFILE` if it may not.
    pub(super) fn take(
        &mut self,
        host: IpAddr,
        held: &mut usize,
        bytes: usize,
    ) -> Result<(), Errno> {
        if held.saturating_add(bytes) > MIN_HELD_BYTES && !self.has_room(host, bytes) {
            return Err(Errno::EMFILE);
        }
        self.charge(host, held, held.saturating_add(bytes));
        Ok(())
    }

    /// Whether the connections of `host` may hold so many bytes more.
    pub(super) fn has_room(&self, host: IpAddr, bytes: usize) -> bool {
        let its = self.hosts.get(&host).copied().unwrap_or(0);
        its.saturating_add(bytes) <= self.most.saturating_sub(self.held)
    }

    /// A connection of `host` holds `now` bytes from now on, in place of `held`.
    pub(super) fn charge(&mut self, host: IpAddr, held: &mut usize, now: usize) {
        let before = std::mem::replace(held, now);
        if before == now {
            return;
        }
        self.held = self.held.saturating_sub(before).saturating_add(now);
        let its = self.hosts.entry(host).or_default();
        *its = its.saturating_sub(before).saturating_add(now);
        if *its == 0 {
            self.hosts.remove(&host);
        }
    }

    /// What is held by now.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: usize = 100;

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn take_all(budget: &mut Budget, host: IpAddr, held: &mut usize) {
        while budget.take(host, held, STEP).is_ok() {}
    }

    #[test]
    fn one_host_leaves_half_to_the_others_however_many_connections_it_has() {
        let mut budget = Budget::new(1 << 20);
        let mut greedy = [0; 50];
        for held in &mut greedy {
            take_all(&mut budget, host(1), held);
        }
        let taken: usize = greedy.iter().sum();
        let most = (1 << 19) + greedy.len() * MIN_HELD_BYTES;
        assert!((1 << 19) - STEP <= taken && taken <= most, "{taken}");
        let mut next = 0;
        take_all(&mut budget, host(2), &mut next);
        assert!(next > 1 << 17, "{next}");
    }

    #[test]
    fn every_connection_may_hold_a_little_though_the_budget_is_exhausted() {
        let mut budget = Budget::new(0);
        for _ in 0..100 {
            let mut held = 0;
            take_all(&mut budget, host(1), &mut held);
            assert!((MIN_HELD_BYTES - STEP..=MIN_HELD_BYTES).contains(&held));
        }
    }

    #[test]
    fn memory_that_is_given_back_can_be_taken_again() {
        let mut budget = Budget::new(1 << 20);
        let mut held = 0;
        take_all(&mut budget, host(1), &mut held);
        let most = held;
        budget.charge(host(1), &mut held, 0);
        assert_eq!((held, budget.held()), (0, 0));
        take_all(&mut budget, host(1), &mut held);
        assert_eq!(held, most);
    }
}
