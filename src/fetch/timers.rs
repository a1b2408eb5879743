//! Everything that a fetch does because time has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::conn::Conn;

/// What is to be done at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Dial the origin again.
    DialOrigin,
    /// A node that failed before may be dialed again.
    DialCandidate,
    /// Give up a connection that is not made.
    Connect(Conn),
    /// Give up a source that has not said the first line of its `have`.
    Greet(Conn),
    /// Ask a source for the addresses of others.
    AskForSources(Conn),
    /// Tell a source which chunks have come.
    ReportHeld(Conn),
    /// Tell masters how much was sent from here.
    ReportSent,
    /// Replace the source that has brought least.
    ReplaceWorst,
}

impl Timer {
    fn conn(self) -> Option<Conn> {
        match self {
            Timer::Connect(conn)
            | Timer::Greet(conn)
            | Timer::AskForSources(conn)
            | Timer::ReportHeld(conn) => Some(conn),
            Timer::DialOrigin | Timer::DialCandidate | Timer::ReportSent | Timer::ReplaceWorst => {
                None
            }
        }
    }
}

/// The timers that are set, each for one moment.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<Timer, Instant>,
    in_order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets a timer, to this moment alone.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.stop(timer);
        self.due.insert(timer, at);
        self.in_order.insert((at, timer));
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.in_order.remove(&(at, timer));
        }
    }

    /// Stops all that a connection has.
    pub(super) fn stop_all(&mut self, conn: Conn) {
        let its: Vec<Timer> =
            self.due.keys().copied().filter(|timer| timer.conn() == Some(conn)).collect();
        for timer in its {
            self.stop(timer);
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes out the first one that is due by now.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.in_order.first()?;
        if now < at {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_expire_in_order_and_once() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        timers.set(Timer::ReportSent, now + Duration::from_secs(2));
        timers.set(Timer::Greet(Conn(1)), now + Duration::from_secs(1));
        assert_eq!(timers.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(timers.expired(now), None);
        let later = now + Duration::from_secs(3);
        assert_eq!(timers.expired(later), Some(Timer::Greet(Conn(1))));
        assert_eq!(timers.expired(later), Some(Timer::ReportSent));
        assert_eq!(timers.expired(later), None);
    }

    #[test]
    fn a_timer_that_is_set_again_is_due_once() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        timers.set(Timer::DialOrigin, now);
        timers.set(Timer::DialOrigin, now + Duration::from_secs(1));
        assert_eq!(timers.expired(now), None);
        assert!(timers.is_set(Timer::DialOrigin));
    }

    #[test]
    fn a_connection_that_ends_takes_its_timers_along() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        timers.set(Timer::Greet(Conn(1)), now);
        timers.set(Timer::ReportHeld(Conn(1)), now);
        timers.set(Timer::ReportHeld(Conn(3)), now);
        timers.stop_all(Conn(1));
        assert_eq!(timers.expired(now), Some(Timer::ReportHeld(Conn(3))));
        assert_eq!(timers.expired(now), None);
    }
}
