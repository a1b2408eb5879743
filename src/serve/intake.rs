//! How many bytes of requests are read from a host in a second.
//!
//! What a host sends takes the link from others, whether or not it makes any work. What is not read, TCP does not let it
//! send: reading no more than requests need is all that keeps a flood away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A host may be so far ahead before it has to wait.
const AHEAD: Duration = Duration::from_millis(250);
/// Hosts that do not have to wait are forgotten when there are this many more than after the last time.
const FORGET_AFTER: usize = 256;

/// What was read from each host of late.
#[derive(Debug)]
pub(super) struct Intake {
    bytes_per_s: u64,
    /// When all that was read would have been read at that rate, and whether the host waits for that.
    hosts: HashMap<IpAddr, (Instant, bool)>,
    /// When the first of those that wait may go on.
    due: Option<Instant>,
    forget_at: usize,
}

impl Intake {
    pub(super) fn new(bytes_per_s: u64) -> Intake {
        Intake { bytes_per_s, hosts: HashMap::new(), due: None, forget_at: FORGET_AFTER }
    }

    /// So many bytes were read from a host.
    pub(super) fn take(&mut self, host: IpAddr, bytes: usize, now: Instant) {
        if self.hosts.len() >= self.forget_at {
            self.hosts.retain(|_, (paid_at, waits)| *waits || *paid_at > now);
            self.forget_at = self.hosts.len() + FORGET_AFTER;
        }
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / self.bytes_per_s.max(1);
        let (paid_at, waits) = self.hosts.entry(host).or_insert((now, false));
        *paid_at = (*paid_at).max(now) + Duration::from_nanos(nanos);
        if *paid_at > now + AHEAD {
            *waits = true;
            self.due = Some(self.due.map_or(*paid_at, |due| due.min(*paid_at)));
        }
    }

    /// Whether nothing is to be read from a host at present.
    pub(super) fn waits(&self, host: IpAddr) -> bool {
        self.hosts.get(&host).is_some_and(|(_, waits)| *waits)
    }

    /// The hosts that may go on by now.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<IpAddr> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let mut free = Vec::new();
        self.due = None;
        for (host, (paid_at, waits)) in &mut self.hosts {
            if *waits && *paid_at <= now {
                *waits = false;
                free.push(*host);
            } else if *waits {
                self.due = Some(self.due.map_or(*paid_at, |due| due.min(*paid_at)));
            }
        }
        free
    }

    /// When [`Intake::tick`] has something to do, if it ever has.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn a_host_that_floods_is_read_from_at_the_limit_and_others_are_not_held_up() {
        let (mut intake, began) = (Intake::new(1_000_000), Instant::now());
        let (mut now, mut read) = (began, 0);
        while now < began + Duration::from_secs(10) {
            intake.tick(now);
            while !intake.waits(host(1)) {
                intake.take(host(1), 16_384, now);
                read += 16_384;
            }
            intake.take(host(2), 100, now);
            assert!(!intake.waits(host(2)));
            now = intake.deadline().unwrap();
        }
        assert!((9_000_000..=10_300_000).contains(&read), "{read}");
    }

    #[test]
    fn hosts_that_have_gone_are_forgotten() {
        let (mut intake, mut now) = (Intake::new(1_000_000), Instant::now());
        for n in 0..10_000_u32 {
            intake.take(IpAddr::from(n.to_be_bytes()), 1000, now);
            now += Duration::from_millis(1);
        }
        assert!(intake.hosts.len() <= FORGET_AFTER + 2, "{}", intake.hosts.len());
    }
}
