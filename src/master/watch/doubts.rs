//! Which chunks are to be read again although no file's times have changed, and when: those that somebody says are
//! wrong; after an order all of them, at once; and with `--rehash` all of them, slowly and over and over.
//!
//! Whoever says that a chunk is wrong is not believed; all that follows is that it is read. That must not cost much,
//! whoever says it and however often: one chunk is read at a time, with pauses in which the rest of the machine has
//! nine tenths of a processor, and the same chunk only after a pause that doubles each time.
//!
//! Between two chunks the tree is scanned as ever, so that a change is served soon though all takes hours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::limits::{MAX_DOUBTS, MAX_DOUBTS_OF_ONE};
use crate::master::by_host::HostQueue;

/// The same chunk is not read again on somebody's word before this time is over.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so many times its pause a chunk that nobody doubted meanwhile is like any other.
const CALM_TIMES: u32 = 4;
/// Reading takes at most this share of the time.
const SHARE: u32 = 10;

/// Why a chunk is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody said that it is wrong.
    Doubt,
    /// Everything is, as somebody ordered.
    Order,
    /// It is its turn.
    Patrol,
}

/// The chunks that wait, by their numbers: what a number stands for may change meanwhile.
#[derive(Debug)]
pub(super) struct Doubts {
    waiting: HostQueue<u32>,
    /// Chunks that were read because somebody doubted them, and are not to be read again soon.
    read: BTreeMap<u32, Read>,
    /// All of them are read now.
    order: Option<Patrol>,
    patrol: Option<Patrol>,
    /// But for an order, nothing is read before.
    free_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    until: Instant,
    pause: Duration,
}

/// The way through all chunks.
#[derive(Debug)]
struct Patrol {
    /// How long it takes, if reading takes less.
    interval: Duration,
    next: u32,
    due: Instant,
    began: Instant,
}

impl Doubts {
    /// Nobody has doubted anything; with an interval all chunks are read once in it.
    pub(super) fn new(interval: Option<Duration>, now: Instant) -> Doubts {
        Doubts {
            waiting: HostQueue::default(),
            read: BTreeMap::new(),
            order: None,
            patrol: interval.map(|interval| Patrol::new(interval, now)),
            free_at: now,
        }
    }

    /// A host says that a chunk is wrong. Where very much waits already, that is left out.
    pub(super) fn doubt(&mut self, host: IpAddr, chunk: u32) {
        let is_waiting = self.waiting.iter().any(|waiting| *waiting == chunk);
        let has_room =
            self.waiting.len() < MAX_DOUBTS && self.waiting.len_of(host) < MAX_DOUBTS_OF_ONE;
        if !is_waiting && has_room {
            self.waiting.push(host, chunk);
        }
    }

    /// All chunks are to be read now, from the first one on.
    pub(super) fn order(&mut self, now: Instant) {
        self.order = Some(Patrol::new(Duration::ZERO, now));
    }

    /// How far an order is, in chunks; None without one.
    pub(super) fn ordered(&self) -> Option<u32> {
        self.order.as_ref().map(|order| order.next)
    }

    /// Chunks have other numbers from now on: those that come next on their ways do by this rule.
    pub(super) fn renumber(&mut self, rule: impl Fn(u32) -> u32) {
        for patrol in [&mut self.order, &mut self.patrol].into_iter().flatten() {
            patrol.next = rule(patrol.next);
        }
    }

    /// Chunks that are to be read, if some of the first `count` are, at most `most` for an order and else one; then
    /// comes [`Doubts::ended`]. For an order, where there are none, these are none.
    pub(super) fn next(
        &mut self,
        count: u32,
        most: u32,
        now: Instant,
    ) -> Option<(Range<u32>, Cause)> {
        let is_free = self.free_at <= now;
        let read = &self.read;
        let is_due = |chunk: &u32| is_free && read.get(chunk).is_none_or(|read| read.until <= now);
        while let Some(chunk) = self.waiting.pop(is_due) {
            if chunk < count {
                return Some((chunk..chunk + 1, Cause::Doubt));
            }
        }
        if let Some(order) = &self.order {
            let first = order.next.min(count);
            return Some((first..first.saturating_add(most).min(count), Cause::Order));
        }
        let is_due = |patrol: &&mut Patrol| is_free && count > 0 && patrol.due <= now;
        let patrol = self.patrol.as_mut().filter(is_due)?;
        // There may be fewer than there were.
        patrol.next = patrol.next.min(count - 1);
        Some((patrol.next..patrol.next + 1, Cause::Patrol))
    }

    /// Chunks were read, which took that long. Says how long the way through all `count` chunks took, if one has ended.
    pub(super) fn ended(
        &mut self,
        (chunks, cause): (Range<u32>, Cause),
        took: Duration,
        count: u32,
        now: Instant,
    ) -> Option<Duration> {
        let way = match cause {
            Cause::Doubt => {
                self.pause(chunks.start, now);
                None
            }
            Cause::Order => self.order.as_mut()?.go_on(chunks.end, count, now),
            Cause::Patrol => self.patrol.as_mut()?.go_on(chunks.end, count, now),
        };
        match cause {
            Cause::Order if way.is_some() => self.order = None,
            Cause::Order => {}
            Cause::Doubt | Cause::Patrol => self.free_at = now + took * (SHARE - 1),
        }
        way
    }

    /// When to call [`Doubts::next`], where there are so many chunks.
    pub(super) fn deadline(&self, count: u32) -> Option<Instant> {
        if let Some(order) = &self.order {
            return Some(order.began);
        }
        let due = |chunk: &u32| self.read.get(chunk).map_or(self.free_at, |read| read.until);
        let doubted = self.waiting.iter().map(due).min();
        let patrol = self.patrol.as_ref().filter(|_| count > 0).map(|patrol| patrol.due);
        Some([doubted, patrol].into_iter().flatten().min()?.max(self.free_at))
    }

    fn pause(&mut self, chunk: u32, now: Instant) {
        self.read.retain(|_, read| now < read.until + read.pause * CALM_TIMES);
        if self.read.len() >= MAX_DOUBTS {
            let soonest = self.read.iter().min_by_key(|(_, read)| read.until);
            if let Some(chunk) = soonest.map(|(chunk, _)| *chunk) {
                self.read.remove(&chunk);
            }
        }
        let before = self.read.get(&chunk).map(|read| read.pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.read.insert(chunk, Read { until: now + pause, pause });
    }
}

impl Patrol {
    fn new(interval: Duration, now: Instant) -> Patrol {
        Patrol { interval, next: 0, due: now, began: now }
    }

    /// All chunks before `next` were read; how long the way took, if it has ended.
    fn go_on(&mut self, next: u32, count: u32, now: Instant) -> Option<Duration> {
        // What is late stays late: nothing is made up for by haste.
        self.due = (self.due + self.interval / count.max(1)).max(now);
        self.next = next;
        if next < count {
            return None;
        }
        self.next = 0;
        Some(now.saturating_duration_since(std::mem::replace(&mut self.began, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Duration = Duration::ZERO;
    const HOUR: Duration = Duration::from_secs(3600);

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    /// Doubts of an image of 100 chunks, each of which is read in `took`.
    struct Story {
        doubts: Doubts,
        now: Instant,
        took: Duration,
    }

    impl Story {
        fn new(interval: Option<Duration>) -> Story {
            let now = Instant::now();
            Story { doubts: Doubts::new(interval, now), now, took: NOTHING }
        }

        /// Reads what is to be read at this moment.
        fn read(&mut self) -> Option<u32> {
            let next = self.doubts.next(100, 30, self.now)?;
            self.now += self.took;
            self.doubts.ended(next.clone(), self.took, 100, self.now);
            Some(next.0.start)
        }

        /// Waits until something is to be read, and says for how long.
        fn wait(&mut self) -> Duration {
            let until = self.doubts.deadline(100).unwrap();
            let waited = until.saturating_duration_since(self.now);
            self.now += waited;
            waited
        }
    }

    #[test]
    fn a_chunk_that_somebody_doubts_is_read_at_once_and_only_once() {
        let mut story = Story::new(None);
        assert_eq!(story.doubts.deadline(100), None);
        story.doubts.doubt(host(1), 7);
        story.doubts.doubt(host(2), 7);
        assert_eq!(story.wait(), NOTHING);
        assert_eq!((story.read(), story.read()), (Some(7), None));
    }

    #[test]
    fn whoever_doubts_the_same_chunk_again_and_again_has_it_read_ever_more_seldom() {
        let mut story = Story::new(None);
        let began = story.now;
        let mut reads = 0;
        while story.now - began < HOUR {
            story.doubts.doubt(host(1), 7);
            story.wait();
            reads += usize::from(story.read().is_some());
        }
        assert!(reads <= 20, "{reads}");
        story.now += 5 * LONGEST_PAUSE;
        story.doubts.doubt(host(2), 8);
        story.read();
        story.doubts.doubt(host(1), 7);
        assert_eq!(story.read(), Some(7));
        story.doubts.doubt(host(1), 7);
        assert_eq!(story.wait(), FIRST_PAUSE, "that was long ago");
    }

    #[test]
    fn whoever_doubts_everything_has_a_tenth_of_a_processor_at_most() {
        let mut story = Story::new(None);
        story.took = Duration::from_millis(10);
        let (began, mut reads) = (story.now, 0);
        while story.now - began < Duration::from_secs(10) {
            for chunk in 0..100 {
                story.doubts.doubt(host(1), chunk);
            }
            story.wait();
            reads += u32::from(story.read().is_some());
        }
        assert!(reads * story.took <= Duration::from_millis(1100), "{reads}");
    }

    #[test]
    fn a_host_that_doubts_everything_does_not_delay_what_another_doubts() {
        let mut story = Story::new(None);
        for chunk in 0..100 {
            story.doubts.doubt(host(1), chunk);
        }
        assert_eq!(story.doubts.waiting.len(), MAX_DOUBTS_OF_ONE);
        story.doubts.doubt(host(2), 99);
        assert_eq!((story.read(), story.read()), (Some(0), Some(99)));
    }

    #[test]
    fn so_many_chunks_wait_and_no_more() {
        let mut story = Story::new(None);
        for n in 0..=255 {
            for chunk in 0..100 {
                story.doubts.doubt(host(n), u32::from(n) * 100 + chunk);
            }
        }
        assert_eq!(story.doubts.waiting.len(), MAX_DOUBTS);
    }

    #[test]
    fn what_the_image_does_not_have_is_not_read() {
        let mut story = Story::new(None);
        story.doubts.doubt(host(1), 100);
        assert_eq!((story.read(), story.doubts.deadline(100)), (None, None));
    }

    #[test]
    fn every_chunk_is_read_once_in_an_interval() {
        let mut story = Story::new(Some(HOUR));
        for round in 0..2 {
            for chunk in 0..100 {
                let pause = if (round, chunk) == (0, 0) { NOTHING } else { HOUR / 100 };
                assert_eq!(story.wait(), pause);
                assert_eq!(story.read(), Some(chunk));
            }
        }
        assert_eq!(story.doubts.deadline(0), None, "there is nothing to read");
    }

    #[test]
    fn an_interval_that_is_too_short_takes_a_tenth_of_a_processor() {
        let mut story = Story::new(Some(Duration::from_millis(1)));
        story.took = Duration::from_millis(10);
        for chunk in 0..100 {
            story.wait();
            assert_eq!(story.read(), Some(chunk));
            assert_eq!(story.wait(), story.took * 9);
        }
    }

    #[test]
    fn an_order_has_everything_read_without_pauses_and_doubts_come_in_between() {
        let mut story = Story::new(None);
        story.took = Duration::from_secs(1);
        story.doubts.order(story.now);
        assert_eq!((story.wait(), story.read()), (NOTHING, Some(0)));
        story.doubts.doubt(host(1), 7);
        assert_eq!(story.read(), Some(7));
        story.doubts.doubt(host(1), 8);
        assert_eq!((story.read(), story.read(), story.read()), (Some(30), Some(60), Some(90)));
        assert_eq!((story.doubts.ordered(), story.read()), (None, None));
        assert_eq!(story.wait(), 6 * story.took, "of nine after a doubt, three are over");
    }

    #[test]
    fn an_order_for_nothing_ends_at_once() {
        let (mut doubts, now) = (Doubts::new(None, Instant::now()), Instant::now());
        doubts.order(now);
        let none = doubts.next(0, 30, now).unwrap();
        assert_eq!(none, (0..0, Cause::Order));
        assert_eq!(doubts.ended(none, NOTHING, 0, now), Some(NOTHING));
    }

    #[test]
    fn the_way_goes_on_where_chunks_have_other_numbers() {
        let mut story = Story::new(None);
        story.doubts.order(story.now);
        story.read();
        story.doubts.renumber(|next| next + 5);
        assert_eq!(story.read(), Some(35));
    }
}
