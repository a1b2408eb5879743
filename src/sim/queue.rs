//! What will happen, in order: a calendar queue.
//!
//! Nearly all that is planned comes within some milliseconds. It lies in slots of a few microseconds
//! each, unordered, and is put in order when its slot has come, a few events at a time, while one
//! heap of everything would be far larger than a processor's cache.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// A slot is this many nanoseconds long, as a power of two.
const SLOT_BITS: u32 = 12;
/// How many slots lie ready; what is planned for later waits until its slot is one of them.
const SLOTS: u64 = 4096;

/// Events of any kind, the earliest first, and of those at the same moment what was planned first.
#[derive(Debug)]
pub(super) struct Queue<E> {
    origin: Instant,
    /// The number of the present slot, counted from `origin`.
    slot: u64,
    /// What comes in the present slot.
    present: BinaryHeap<Planned<E>>,
    /// The slots after it, each at its number modulo [`SLOTS`].
    slots: Vec<Vec<Planned<E>>>,
    /// How many events these hold.
    in_slots: usize,
    later: BinaryHeap<Planned<E>>,
    last: u64,
}

#[derive(Debug)]
struct Planned<E> {
    /// In nanoseconds after the origin.
    at: u64,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    /// Nothing is planned; nothing may be for a time before `origin`.
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
        self.place(Planned { at, number: self.last, event });
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
                self.place(first);
            }
            if let Some(slot) = self.slots.get_mut((self.slot % SLOTS) as usize) {
                self.in_slots -= slot.len();
                self.present.extend(slot.drain(..));
            }
        }
        let Planned { at, event, .. } = self.present.pop()?;
        Some((self.origin + Duration::from_nanos(at), event))
    }

    fn place(&mut self, planned: Planned<E>) {
        let slot = planned.slot();
        if slot <= self.slot {
            self.present.push(planned);
        } else if slot >= self.slot + SLOTS {
            self.later.push(planned);
        } else if let Some(slot) = self.slots.get_mut((slot % SLOTS) as usize) {
            slot.push(planned);
            self.in_slots += 1;
        }
    }
}

impl<E> Planned<E> {
    fn slot(&self) -> u64 {
        self.at >> SLOT_BITS
    }
}

// The heap's greatest is what comes first.
impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Planned<E>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Planned<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Planned<E>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Planned<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::next_random;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_planning() {
        let origin = Instant::now();
        let mut queue = Queue::new(origin);
        let mut random = 1;
        let mut planned = Vec::new();
        let mut now = origin;
        for number in 0..20_000 {
            let within_ns = [0, 3000, 2_000_000, 40_000_000, 9_000_000_000][number % 5];
            let after = Duration::from_nanos((next_random(&mut random) >> 16) % (within_ns + 1));
            planned.push((now + after, number));
            queue.push(now + after, number);
            if number % 3 == 0 {
                let first = planned.iter().copied().min().unwrap();
                planned.retain(|other| *other != first);
                assert_eq!(queue.pop(), Some(first));
                now = first.0;
            }
            if planned.len() > 100 {
                planned.sort_unstable();
                for first in planned.drain(..) {
                    assert_eq!(queue.pop(), Some(first));
                    now = first.0;
                }
                assert_eq!(queue.pop(), None);
            }
        }
    }
}
