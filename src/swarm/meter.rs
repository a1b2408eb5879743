//! How fast something goes: bytes of the last few seconds.

use std::time::{Duration, Instant};

/// Bytes are counted in stretches of this length; a rate is that of the last one to two of them.
const STRETCH: Duration = Duration::from_secs(3);
/// What came in less than this is not called a rate yet.
const LEAST: Duration = Duration::from_millis(500);

/// Counts bytes, and says how many a second came lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// The last two stretches; none before there was anything to count.
    stretches: Option<(Stretch, Stretch)>,
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    began: Instant,
    bytes: u64,
}

impl Meter {
    /// So many bytes more.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        let fresh = Stretch { began: now, bytes: 0 };
        let (before, mut last) = self.at(now).unwrap_or((fresh, fresh));
        last.bytes = last.bytes.saturating_add(bytes);
        self.stretches = Some((before, last));
    }

    /// Bytes a second.
    pub fn rate(&self, now: Instant) -> u64 {
        let Some((before, last)) = self.at(now) else { return 0 };
        let time = now.saturating_duration_since(before.began).max(LEAST);
        let bytes = u128::from(before.bytes) + u128::from(last.bytes);
        u64::try_from(bytes * 1000 / time.as_millis().max(1)).unwrap_or(u64::MAX)
    }

    /// The stretches as they are by `now`; None if nothing came in either.
    fn at(&self, now: Instant) -> Option<(Stretch, Stretch)> {
        let (before, last) = self.stretches?;
        let age = now.saturating_duration_since(last.began);
        match age {
            _ if age < STRETCH => Some((before, last)),
            _ if age < STRETCH * 2 => Some((last, Stretch { began: now, bytes: 0 })),
            _ => None,
        }
    }
}

/// Folds a measurement into a running mean that forgets (weight 1/8, as TCP's round-trip time).
pub fn smooth(mean: &mut Option<Duration>, measured: Duration) {
    *mean = Some(match *mean {
        None => measured,
        Some(mean) => mean.saturating_mul(7).saturating_add(measured) / 8,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A meter that got `bytes` every tenth of a second for `secs` seconds.
    fn steady(bytes: u64, secs: u64) -> (Meter, Instant) {
        let mut now = Instant::now();
        let mut meter = Meter::default();
        for _ in 0..secs * 10 {
            now += Duration::from_millis(100);
            meter.add(bytes, now);
        }
        (meter, now)
    }

    #[test]
    fn a_steady_flow_has_its_rate_from_the_first_second_on() {
        for secs in [1, 4, 60] {
            let (meter, now) = steady(1000, secs);
            let rate = meter.rate(now);
            assert!((9_500..=11_500).contains(&rate), "{rate} after {secs} s");
        }
    }

    #[test]
    fn what_has_ended_has_no_rate_a_few_seconds_later() {
        let (meter, now) = steady(1000, 60);
        assert!(meter.rate(now + STRETCH) < 10_000);
        assert_eq!(meter.rate(now + 2 * STRETCH), 0);
    }

    #[test]
    fn a_single_burst_is_no_rate_without_end() {
        let now = Instant::now();
        let mut meter = Meter::default();
        meter.add(1 << 20, now);
        assert_eq!(meter.rate(now), 2 << 20, "as if it had taken half a second");
    }
}
