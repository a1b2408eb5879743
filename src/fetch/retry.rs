//! How often a server that cannot be reached is tried, and how long is waited in between.

use std::time::{Duration, Instant};

/// First wait before a server is tried again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// How long a server is tried for.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often beyond the first attempt; None: until it works.
    pub times: Option<u32>,
    /// The longest wait between two attempts.
    pub longest_wait: Duration,
    /// No attempt is made after this.
    pub end: Option<Instant>,
}

impl Retry {
    /// One attempt.
    pub const NEVER: Retry = Retry { times: Some(0), longest_wait: FIRST_WAIT, end: None };

    /// How long to wait after `failures` failures in a row; None if no further attempt is to be made.
    pub fn wait(&self, failures: u32, now: Instant) -> Option<Duration> {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(doubled).min(self.longest_wait);
        let is_over = self.times.is_some_and(|most| failures > most)
            || self.end.is_some_and(|end| end <= now + wait);
        (!is_over).then_some(wait)
    }
}

/// A wait with a quarter more or less, so that those who failed together do not come back together.
pub fn jittered(wait: Duration, random: u64) -> Duration {
    wait.mul_f64(0.75 + (random % 512) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry { times: None, longest_wait: 3 * SECOND, end: None };
        let waits = [1, 2, 3, 4, 99].map(|failures| retry.wait(failures, Instant::now()).unwrap());
        assert_eq!(waits, [SECOND / 2, SECOND, 2 * SECOND, 3 * SECOND, 3 * SECOND]);
    }

    #[test]
    fn there_are_as_many_retries_as_were_asked_for() {
        let retry = Retry { times: Some(2), longest_wait: SECOND, end: None };
        let tried = [1, 2, 3].map(|failures| retry.wait(failures, Instant::now()).is_some());
        assert_eq!(tried, [true, true, false]);
    }

    #[test]
    fn no_attempt_is_made_after_the_end() {
        let now = Instant::now();
        let retry = Retry { times: None, longest_wait: SECOND, end: Some(now + SECOND) };
        assert!(retry.wait(1, now).is_some());
        assert_eq!(retry.wait(1, now + SECOND / 2), None);
    }
}
