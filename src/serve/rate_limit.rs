//! How much may be sent, if there is a limit.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What was not sent for this long may be sent later.
const SAVED: Duration = Duration::from_millis(100);

/// A limit on the bytes that are sent a second. Something of any size may begin as soon as what was
/// sent before is paid for, so that the limit is kept exactly over time, however large the pieces.
#[derive(Debug)]
pub(crate) struct RateLimit {
    bytes_per_s: NonZeroU64,
    /// When all that was sent is paid for.
    paid_at: Option<Instant>,
}

impl RateLimit {
    /// Nothing was sent yet.
    pub(crate) fn new(bytes_per_s: NonZeroU64) -> RateLimit {
        RateLimit { bytes_per_s, paid_at: None }
    }

    /// Until when nothing more may be sent; None if it may be at once.
    pub(crate) fn wait(&self, now: Instant) -> Option<Instant> {
        self.paid_at.filter(|at| *at > now)
    }

    /// So many bytes are sent.
    pub(crate) fn spend(&mut self, bytes: u64, now: Instant) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s.get());
        let price = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(SAVED).unwrap_or(now);
        let from = self.paid_at.map_or(earliest, |at| at.max(earliest));
        // A price beyond the end of time is not asked for.
        self.paid_at = from.checked_add(price).or(Some(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces as soon as they may be sent; how many bytes in 10 s.
    fn sent_in_10_s(bytes_per_s: u64, piece: u64) -> u64 {
        let mut allowance = RateLimit::new(NonZeroU64::new(bytes_per_s).unwrap());
        let began = Instant::now();
        let (mut now, mut sent) = (began, 0);
        while now < began + Duration::from_secs(10) {
            allowance.spend(piece, now);
            sent += piece;
            now = allowance.wait(now).unwrap_or(now);
        }
        sent
    }

    #[test]
    fn the_limit_is_kept_over_time_with_small_pieces_and_large_ones() {
        for piece in [1 << 10, 64 << 10, 1 << 20] {
            let sent = sent_in_10_s(1_000_000, piece);
            let most = 10_000_000 + 100_000 + piece;
            assert!((10_000_000..=most).contains(&sent), "{sent} bytes in pieces of {piece}");
        }
    }

    #[test]
    fn unused_rate_does_not_accumulate() {
        let mut allowance = RateLimit::new(NonZeroU64::new(1000).unwrap());
        let later = Instant::now() + Duration::from_secs(60);
        allowance.spend(1000, later);
        assert!(allowance.wait(later).is_some(), "a minute of silence saves a tenth of a second");
    }

    #[test]
    fn the_slowest_rate_and_the_largest_piece_do_not_overflow() {
        let mut allowance = RateLimit::new(NonZeroU64::MIN);
        let now = Instant::now();
        allowance.spend(u64::MAX, now);
        allowance.spend(u64::MAX, now);
    }
}
