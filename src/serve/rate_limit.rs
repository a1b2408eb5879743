//! How much may be sent, if there is a limit, and who may send next.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::fair::FairQueue;
use crate::conn::Conn;

/// What was not sent for this long may be sent later.
const SAVED: Duration = Duration::from_millis(100);
/// How long somebody may take to use an offer.
const OFFER_LASTS: Duration = Duration::from_millis(100);

/// A limit on the bytes that are sent a second. Something of any size may begin as soon as what was
/// sent before is paid for, so that the limit is kept exactly over time, however large the pieces.
///
/// Those that wait are served one after the other, each host as much as any other.
#[derive(Debug)]
pub(crate) struct RateLimit {
    bytes_per_s: NonZeroU64,
    /// When all that was sent is paid for.
    paid_at: Option<Instant>,
    /// What their hosts have had is bytes.
    waiting: FairQueue,
    /// Who was woken, and may send before all others, and since when.
    offered: Option<(Conn, Instant)>,
}

impl RateLimit {
    /// Nothing was sent yet.
    pub(crate) fn new(bytes_per_s: NonZeroU64) -> RateLimit {
        RateLimit { bytes_per_s, paid_at: None, waiting: FairQueue::default(), offered: None }
    }

    /// The same limit, with what is paid for, and nobody who waits.
    pub(crate) fn without_waiting(&self) -> RateLimit {
        RateLimit { paid_at: self.paid_at, ..RateLimit::new(self.bytes_per_s) }
    }

    /// May `conn` send something now? If not, it waits for [`RateLimit::next`].
    pub(crate) fn ask(&mut self, conn: Conn, host: IpAddr, now: Instant) -> bool {
        let its_turn = match self.offered {
            Some((offered, _)) => offered == conn,
            None => self.waiting.is_empty(),
        };
        let may = its_turn && self.wait(now).is_none();
        if !may && (!its_turn || self.offered.is_none()) {
            self.waiting.push(conn, host);
        }
        may
    }

    /// `conn` sends so many bytes.
    pub(crate) fn spend(&mut self, conn: Conn, host: IpAddr, bytes: u64, now: Instant) {
        self.cancel(conn);
        self.waiting.spend(host, bytes);
        self.pay(bytes, now);
    }

    /// `conn` does not wait any longer, or cannot send for another reason.
    pub(crate) fn cancel(&mut self, conn: Conn) {
        self.waiting.remove(conn);
        self.offered.take_if(|(offered, _)| *offered == conn);
    }

    /// Who may send now and is to be woken.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Conn> {
        // Who cannot send, since its socket takes nothing, does not keep others waiting: it asks again.
        self.offered.take_if(|(_, since)| now.saturating_duration_since(*since) >= OFFER_LASTS);
        if self.offered.is_some() || self.wait(now).is_some() {
            return None;
        }
        let next = self.waiting.pop()?;
        self.offered = Some((next, now));
        Some(next)
    }

    /// When [`RateLimit::next`] has somebody to name.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let free_at = self.offered.map_or(now, |(_, since)| since + OFFER_LASTS);
        Some(self.wait(now).map_or(free_at, |paid_at| paid_at.max(free_at)))
    }

    /// Until when nothing more may be sent; None if it may be at once.
    fn wait(&self, now: Instant) -> Option<Instant> {
        self.paid_at.filter(|at| *at > now)
    }

    fn pay(&mut self, bytes: u64, now: Instant) {
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
            allowance.pay(piece, now);
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
        allowance.pay(1000, later);
        assert!(allowance.wait(later).is_some(), "a minute of silence saves a tenth of a second");
    }

    #[test]
    fn the_slowest_rate_and_the_largest_piece_do_not_overflow() {
        let mut allowance = RateLimit::new(NonZeroU64::MIN);
        let now = Instant::now();
        allowance.pay(u64::MAX, now);
        allowance.pay(u64::MAX, now);
    }

    #[test]
    fn whoever_waits_gets_as_much_as_any_other_host() {
        let mut limit = RateLimit::new(NonZeroU64::new(1_000_000).unwrap());
        let mut now = Instant::now();
        let host = |conn: u64| IpAddr::from([10, 0, 0, if conn < 100 { conn as u8 } else { 99 }]);
        let mut sent = std::collections::BTreeMap::<IpAddr, u64>::new();
        // Six hosts with a connection each, one with fifty, and each asks again at once.
        let all: Vec<u64> = (1..=6).chain(100..150).collect();
        limit.spend(Conn(0), host(0), 200_000, now);
        for conn in &all {
            assert!(!limit.ask(Conn(*conn), host(*conn), now));
        }
        for _ in 0..700 {
            now = limit.deadline(now).unwrap();
            let conn = limit.next(now).unwrap();
            assert!(limit.ask(conn, host(conn.0), now));
            limit.spend(conn, host(conn.0), 50_000, now);
            *sent.entry(host(conn.0)).or_default() += 50_000;
            limit.ask(conn, host(conn.0), now);
        }
        assert_eq!(sent.into_values().collect::<Vec<_>>(), [5_000_000; 7]);
    }

    #[test]
    fn an_offer_that_is_not_used_passes_to_the_next() {
        let mut limit = RateLimit::new(NonZeroU64::new(1000).unwrap());
        let now = Instant::now();
        let host = IpAddr::from([10, 0, 0, 1]);
        limit.spend(Conn(0), host, 1000, now);
        limit.ask(Conn(1), host, now);
        limit.ask(Conn(2), host, now);
        let later = limit.deadline(now).unwrap();
        assert_eq!((limit.next(later), limit.next(later)), (Some(Conn(1)), None));
        assert!(!limit.ask(Conn(3), host, later), "it is another's turn");
        limit.cancel(Conn(1));
        assert_eq!(limit.next(later), Some(Conn(2)));
        let later = limit.deadline(later).unwrap();
        assert_eq!(limit.next(later), Some(Conn(3)), "the one before did not come");
    }
}
