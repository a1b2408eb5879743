//! Which hosts were sent something of late, as far as it takes to know whether one is alone.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A host that was sent nothing for so long does not count.
const LATELY: Duration = Duration::from_secs(2);

/// The host that was sent something last, and the last other one.
#[derive(Debug, Default)]
pub(super) struct Lately {
    last: Option<(IpAddr, Instant)>,
    other: Option<(IpAddr, Instant)>,
}

impl Lately {
    /// Something is sent to a host.
    pub(super) fn note(&mut self, host: IpAddr, now: Instant) {
        if self.last.is_some_and(|(last, _)| last != host) {
            self.other = self.last;
        }
        self.last = Some((host, now));
    }

    /// Whether something was sent to another host than this.
    pub(super) fn has_others(&self, host: IpAddr, now: Instant) -> bool {
        let is_other = |(other, at): (IpAddr, Instant)| {
            other != host && now.saturating_duration_since(at) < LATELY
        };
        self.last.is_some_and(is_other) || self.other.is_some_and(is_other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_alone_until_another_was_sent_something_and_again_after_a_while() {
        let [one, other] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let (mut lately, now) = (Lately::default(), Instant::now());
        lately.note(one, now);
        assert!(!lately.has_others(one, now) && lately.has_others(other, now));
        lately.note(other, now);
        for _ in 0..9 {
            lately.note(one, now);
        }
        assert!(lately.has_others(one, now) && lately.has_others(other, now));
        lately.note(one, now + LATELY);
        assert!(!lately.has_others(one, now + LATELY));
    }
}
