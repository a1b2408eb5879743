//! Events in order of time: a calendar queue.
//!
//! Nearly all events are scheduled for the next few milliseconds. They are in slots of a few microseconds
//! each, unordered, and are sorted when their slot has come, a few at a time, while one heap of all
//! events would be far larger than a processor's cache.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// A slot is this many nanoseconds long, as a power of two.
const SLOT_BITS: u32 = 12;
/// Number of slots; events after the last one wait in a heap.
const SLOTS: u64 = 4096;

/// Events of any kind, the earliest first, and of those at the same time the one that was pushed first.
#[derive(Debug)]
pub(super) struct Queue<E> {
    origin: Instant,
    /// The number of the present slot, counted from `origin`.
    slot: u64,
    /// The events in the present slot.
    present: BinaryHeap<Scheduled<E>>,
    /// The slots after it, each at its number modulo [`SLOTS`].
    slots: Vec<Vec<Scheduled<E>>>,
    /// How many events these hold.
    in_slots: usize,
    /// The events after the last slot.
    later: BinaryHeap<Scheduled<E>>,
    last: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    /// In nanoseconds after the origin.
    at: u64,
    /// Counts the calls of [`Queue::push`].
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    /// No event may be before `origin`.
    pub(super) fn new(origin: Instant) -> Queue<E> {
        Queue {
            origin,
            slot: 0,
            present: BinaryHeap::new(),
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            in_slots: 0,
            later: BinaryHeap::new(),
            last: 0,
        }
    }

    pub(super) fn push(&mut self, at: Instant, event: E) {
        self.last += 1;
        let at = at.saturating_duration_since(self.origin).as_nanos() as u64;
        self.insert(Scheduled { at, number: self.last, event });
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, E)> {
        while self.present.is_empty() {
            self.slot = match self.in_slots {
                0 => self.later.peek()?.slot(),
                _ => self.slot + 1,
            };
            while self.later.peek().is_some_and(|first| first.slot() < self.slot + SLOTS)
                && let Some(first) = self.later.pop()
            {
                self.insert(first);
            }
            if let Some(slot) = self.slots.get_mut((self.slot % SLOTS) as usize) {
                self.in_slots -= slot.len();
                self.present.extend(slot.drain(..));
            }
        }
        let Scheduled { at, event, .. } = self.present.pop()?;
        Some((self.origin + Duration::from_nanos(at), event))
    }

    fn insert(&mut self, scheduled: Scheduled<E>) {
        let slot = scheduled.slot();
        if slot <= self.slot {
            self.present.push(scheduled);
        } else if slot >= self.slot + SLOTS {
            self.later.push(scheduled);
        } else if let Some(slot) = self.slots.get_mut((slot % SLOTS) as usize) {
            slot.push(scheduled);
            self.in_slots += 1;
        }
    }
}

impl<E> Scheduled<E> {
    fn slot(&self) -> u64 {
        self.at >> SLOT_BITS
    }
}

// The earliest is the greatest, which a heap returns first.
impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Scheduled<E>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Scheduled<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Scheduled<E>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Scheduled<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::next_random;

    #[test]
    fn events_are_in_order_of_time_and_then_of_pushing() {
        let origin = Instant::now();
        let mut queue = Queue::new(origin);
        let mut random = 1;
        let mut scheduled = Vec::new();
        let mut now = origin;
        for number in 0..20_000 {
            let within_ns = [0, 3000, 2_000_000, 40_000_000, 9_000_000_000][number % 5];
            let after = Duration::from_nanos((next_random(&mut random) >> 16) % (within_ns + 1));
            scheduled.push((now + after, number));
            queue.push(now + after, number);
            if number % 3 == 0 {
                let first = scheduled.iter().copied().min().unwrap();
                scheduled.retain(|other| *other != first);
                assert_eq!(queue.pop(), Some(first));
                now = first.0;
            }
            if scheduled.len() > 100 {
                scheduled.sort_unstable();
                for first in scheduled.drain(..) {
                    assert_eq!(queue.pop(), Some(first));
                    now = first.0;
                }
                assert_eq!(queue.pop(), None);
            }
        }
    }
}
