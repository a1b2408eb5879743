//! How much the fids of all connections may make a server hold.

use crate::limits::MIN_HELD_BYTES;
use crate::p9::errno::Errno;

/// What the fids of all connections hold together, in bytes.
///
/// A connection may hold as much as is free then, so that one alone cannot take more than half of all;
/// and a little in any case, so that many that are greedy do not keep a node from fetching.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    held: usize,
}

impl Budget {
    /// At most `most` bytes in all, and [`MIN_HELD_BYTES`] for each connection.
    pub fn new(most: usize) -> Budget {
        Budget { most, held: 0 }
    }

    /// A connection that holds `held` bytes is to hold so many more.
    ///
    /// # Errors
    /// `EMFILE` if it may not.
    pub(super) fn take(&mut self, held: &mut usize, bytes: usize) -> Result<(), Errno> {
        let after = held.saturating_add(bytes);
        let free = self.most.saturating_sub(self.held);
        if after > free.max(MIN_HELD_BYTES) {
            return Err(Errno::EMFILE);
        }
        *held = after;
        self.held = self.held.saturating_add(bytes);
        Ok(())
    }

    /// It holds so many less.
    pub(super) fn give_back(&mut self, held: &mut usize, bytes: usize) {
        *held = held.saturating_sub(bytes);
        self.held = self.held.saturating_sub(bytes);
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

    fn take_all(budget: &mut Budget, held: &mut usize) {
        while budget.take(held, STEP).is_ok() {}
    }

    #[test]
    fn one_connection_leaves_half_to_the_others() {
        let mut budget = Budget::new(1 << 20);
        let (mut greedy, mut next) = (0, 0);
        take_all(&mut budget, &mut greedy);
        assert!(usize::abs_diff(greedy, 1 << 19) <= STEP, "{greedy}");
        take_all(&mut budget, &mut next);
        assert!(next >= greedy / 2 - STEP);
    }

    #[test]
    fn every_connection_may_hold_a_little_though_the_budget_is_exhausted() {
        let mut budget = Budget::new(0);
        for _ in 0..100 {
            let mut held = 0;
            take_all(&mut budget, &mut held);
            assert!((MIN_HELD_BYTES - STEP..=MIN_HELD_BYTES).contains(&held));
        }
    }

    #[test]
    fn memory_that_is_given_back_can_be_taken_again() {
        let mut budget = Budget::new(1 << 20);
        let mut held = 0;
        take_all(&mut budget, &mut held);
        let most = held;
        budget.give_back(&mut held, most);
        take_all(&mut budget, &mut held);
        assert_eq!(held, most);
    }
}
