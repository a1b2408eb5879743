//! Rates over the last few seconds, and moving averages.

use std::time::{Duration, Instant};

/// Bytes are counted in windows of this length; a rate is that of the last one to two of them.
const WINDOW: Duration = Duration::from_secs(3);
/// Shortest time over which a rate is computed.
const MIN_TIME: Duration = Duration::from_millis(500);

/// Counts bytes, and computes how many a second came lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// The last two; None before the first bytes.
    windows: Option<(Window, Window)>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    bytes: u64,
}

impl Meter {
    pub(crate) fn add(&mut self, bytes: u64, now: Instant) {
        let fresh = Window { began: now, bytes: 0 };
        let (before, mut last) = self.windows_at(now).unwrap_or((fresh, fresh));
        last.bytes = last.bytes.saturating_add(bytes);
        self.windows = Some((before, last));
    }

    /// In bytes a second.
    pub(crate) fn rate(&self, now: Instant) -> u64 {
        let Some((before, last)) = self.windows_at(now) else { return 0 };
        let time = now.saturating_duration_since(before.began).max(MIN_TIME);
        let bytes = u128::from(before.bytes) + u128::from(last.bytes);
        u64::try_from(bytes * 1000 / time.as_millis().max(1)).unwrap_or(u64::MAX)
    }

    /// The windows at `now`; None if nothing came in either.
    fn windows_at(&self, now: Instant) -> Option<(Window, Window)> {
        let (before, last) = self.windows?;
        let age = now.saturating_duration_since(last.began);
        if age < WINDOW {
            Some((before, last))
        } else if age < WINDOW * 2 {
            Some((last, Window { began: now, bytes: 0 }))
        } else {
            None
        }
    }
}

/// Folds a measurement into a running mean that forgets (weight 1/8, as TCP's round-trip time).
pub(crate) fn smooth(mean: &mut Option<Duration>, measured: Duration) {
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
    fn the_rate_of_a_steady_flow_is_right_after_a_second() {
        for secs in [1, 4, 60] {
            let (meter, now) = steady(1000, secs);
            let rate = meter.rate(now);
            assert!((9_500..=11_500).contains(&rate), "{rate} after {secs} s");
        }
    }

    #[test]
    fn the_rate_is_zero_a_few_seconds_after_the_last_bytes() {
        let (meter, now) = steady(1000, 60);
        assert!(meter.rate(now + WINDOW) < 10_000);
        assert_eq!(meter.rate(now + 2 * WINDOW), 0);
    }

    #[test]
    fn the_rate_of_a_single_burst_is_bounded() {
        let now = Instant::now();
        let mut meter = Meter::default();
        meter.add(1 << 20, now);
        assert_eq!(meter.rate(now), 2 << 20, "as if it had taken half a second");
    }
}
