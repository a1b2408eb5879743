//! When the tree is scanned, which scan is hashed, and when its state is published: events and `now` in, the next
//! step out.
//!
//! A change is hashed when two scans in a row agree on it, so that a file that is being written is not hashed
//! over and over. After an order every scan is hashed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After this many failures to hash the same file it is left out.
const MAX_FAILURES: u32 = 3;
/// Wait before a tree that has changed, or changed while it was hashed, is scanned again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A scan may take at most this share of the time between two scans.
const SCAN_SHARE: u32 = 20;
/// A tree that never looks the same twice is hashed all the same after this many scans, to find
/// out which file it is.
const MAX_MOVES: u32 = 25;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for an order: until then, or for good.
    Wait(Option<Instant>),
    /// Scan the tree; then comes [`Schedule::scanned`] or [`Schedule::failed`].
    Scan,
    /// Hash what the last scan saw; then comes [`Schedule::hashed`], [`Schedule::changed_meanwhile`] or
    /// [`Schedule::failed`].
    Hash,
    /// Look whether the state has another signature; then comes [`Schedule::signed`].
    Sign,
    /// Publish the state, then that an order is carried out, if one is; then comes [`Schedule::published`].
    Publish { ends_order: bool },
}

/// What a scan saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned {
    /// How long the scan took.
    pub(super) took: Duration,
    /// It differs from the scan before.
    pub(super) moved: bool,
    /// A later change of any file would show in the next scan: none is too fresh for that.
    pub(super) settled: bool,
}

/// The watcher's state, between two steps.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Least time between two scans; None: scan after an order alone.
    interval: Option<Duration>,
    /// The same, longer where scans take long.
    pause: Option<Duration>,
    step: Step,
    /// An order has not been carried out yet.
    ordered: bool,
    /// The tree may differ from what was hashed last.
    stale: bool,
    /// What was hashed last was not settled.
    young: bool,
    /// The last scan is.
    settled: bool,
    /// How many scans in a row differed from the one before.
    moves: u32,
}

impl Schedule {
    /// A state was just hashed, from a scan that was `settled` or not.
    pub(super) fn new(interval: Option<Duration>, settled: bool, now: Instant) -> Schedule {
        let mut schedule = Schedule {
            interval,
            pause: interval,
            step: Step::Scan,
            ordered: false,
            stale: false,
            young: !settled,
            settled,
            moves: 0,
        };
        schedule.wait(now);
        schedule
    }

    pub(super) fn step(&self, now: Instant) -> Step {
        match self.step {
            Step::Wait(Some(until)) if until <= now => Step::Scan,
            step => step,
        }
    }

    /// An order to rescan.
    pub(super) fn order(&mut self) {
        self.ordered = true;
        self.step = Step::Scan;
    }

    /// Whether the tree may differ from what was hashed last.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// A file is not what was hashed, whatever a scan says.
    pub(super) fn distrust(&mut self) {
        self.stale = true;
        self.step = Step::Scan;
    }

    pub(super) fn scanned(&mut self, scan: Scanned, now: Instant) {
        self.pause = self.interval.map(|interval| interval.max(scan.took * SCAN_SHARE));
        self.settled = scan.settled;
        // What was young when it was hashed may have changed once more without a trace.
        self.stale |= scan.moved || (self.young && scan.settled);
        self.moves = if scan.moved { self.moves + 1 } else { 0 };
        let still_moves = scan.moved && self.moves < MAX_MOVES;
        if self.ordered || (self.stale && !still_moves) {
            self.step = Step::Hash;
        } else if self.stale {
            self.wait(now);
        } else {
            self.step = Step::Sign;
        }
    }

    /// What the last scan saw is hashed.
    pub(super) fn hashed(&mut self) {
        self.rest();
        self.step = Step::Publish { ends_order: self.ordered };
    }

    /// A file was not what the last scan saw.
    pub(super) fn changed_meanwhile(&mut self, now: Instant) {
        self.step = Step::Wait(Some(now + RETRY_AFTER));
    }

    /// The tree could not be scanned or hashed. What cannot be hashed is left alone until it changes, unless
    /// an order had it hashed, which ends with that.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.ordered {
            self.step = Step::Publish { ends_order: true };
            return;
        }
        if self.step == Step::Hash {
            self.rest();
        }
        self.wait(now);
    }

    pub(super) fn signed(&mut self, is_other: bool, now: Instant) {
        if is_other {
            self.step = Step::Publish { ends_order: false };
        } else {
            self.wait(now);
        }
    }

    pub(super) fn published(&mut self, now: Instant) {
        self.ordered = false;
        self.wait(now);
    }

    /// Nothing needs to be hashed until another scan says so.
    fn rest(&mut self) {
        self.stale = false;
        self.young = !self.settled;
        self.moves = 0;
    }

    fn wait(&mut self, now: Instant) {
        let wait = if self.stale { Some(RETRY_AFTER) } else { self.pause };
        self.step = Step::Wait(wait.map(|wait| now + wait));
    }
}

/// How often each file could not be hashed since all could.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<PathBuf, u32>);

impl Failures {
    /// Counts another. Returns whether the file is to be left out.
    pub(super) fn add(&mut self, path: &Path) -> bool {
        let failures = self.0.entry(path.to_owned()).or_default();
        *failures += 1;
        *failures >= MAX_FAILURES
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// A watcher whose scans and hashes take no time unless they say so.
    struct Story {
        schedule: Schedule,
        now: Instant,
    }

    impl Story {
        fn new(interval: Option<Duration>, settled: bool) -> Story {
            let now = Instant::now();
            Story { schedule: Schedule::new(interval, settled, now), now }
        }

        /// A watcher of a tree that has not changed for long.
        fn settled() -> Story {
            Story::new(Some(INTERVAL), true)
        }

        fn step(&self) -> Step {
            self.schedule.step(self.now)
        }

        /// Waits as it is told to, and says for how long.
        fn wait(&mut self) -> Duration {
            let Step::Wait(Some(until)) = self.step() else { panic!("{:?}", self.step()) };
            let waited = until - self.now;
            self.now = until;
            assert_eq!(self.step(), Step::Scan);
            waited
        }

        fn scan(&mut self, moved: bool, settled: bool) -> Step {
            assert_eq!(self.step(), Step::Scan);
            let scan = Scanned { took: Duration::ZERO, moved, settled };
            self.schedule.scanned(scan, self.now);
            self.step()
        }

        fn hash(&mut self) {
            assert_eq!(self.step(), Step::Hash);
            self.schedule.hashed();
        }

        fn sign(&mut self, is_other: bool) {
            assert_eq!(self.step(), Step::Sign);
            self.schedule.signed(is_other, self.now);
        }

        fn changed_meanwhile(&mut self) {
            assert_eq!(self.step(), Step::Hash);
            self.schedule.changed_meanwhile(self.now);
        }

        fn failed(&mut self) {
            self.schedule.failed(self.now);
        }

        /// Publishes as it is told to, and says whether an order is carried out with that.
        fn publish(&mut self) -> bool {
            let Step::Publish { ends_order } = self.step() else { panic!("{:?}", self.step()) };
            self.schedule.published(self.now);
            ends_order
        }
    }

    #[test]
    fn an_unchanged_tree_is_scanned_every_interval_and_its_signature_looked_for() {
        let mut story = Story::settled();
        for _ in 0..3 {
            assert_eq!(story.wait(), INTERVAL);
            assert_eq!(story.scan(false, true), Step::Sign);
            story.sign(false);
        }
    }

    #[test]
    fn without_an_interval_only_an_order_has_the_tree_scanned() {
        let mut story = Story::new(None, true);
        assert_eq!(story.step(), Step::Wait(None));
        story.schedule.order();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.hash();
        assert!(story.publish());
        assert_eq!(story.step(), Step::Wait(None));
    }

    #[test]
    fn a_change_is_hashed_once_two_scans_agree_on_it() {
        let mut story = Story::settled();
        story.wait();
        story.scan(true, true);
        assert_eq!(story.wait(), RETRY_AFTER);
        story.scan(true, true);
        assert_eq!(story.wait(), RETRY_AFTER);
        assert_eq!(story.scan(false, true), Step::Hash);
        story.hash();
        assert!(!story.publish(), "nobody has ordered it");
        assert_eq!(story.wait(), INTERVAL);
        assert_eq!(story.scan(false, true), Step::Sign);
    }

    #[test]
    fn a_tree_that_never_rests_is_hashed_after_so_many_scans() {
        let mut story = Story::settled();
        story.wait();
        for _ in 1..MAX_MOVES {
            assert_ne!(story.scan(true, true), Step::Hash);
            story.wait();
        }
        assert_eq!(story.scan(true, true), Step::Hash);
    }

    #[test]
    fn what_was_hashed_too_fresh_is_hashed_again_once_it_has_settled() {
        let mut story = Story::new(Some(INTERVAL), false);
        story.wait();
        assert_eq!(story.scan(false, false), Step::Sign);
        story.sign(false);
        story.wait();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.hash();
        story.publish();
        story.wait();
        assert_eq!(story.scan(false, true), Step::Sign, "and then no more");
    }

    #[test]
    fn a_tree_that_changes_while_it_is_hashed_is_scanned_again_soon() {
        let mut story = Story::settled();
        story.wait();
        story.scan(true, true);
        story.wait();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.changed_meanwhile();
        assert_eq!(story.wait(), RETRY_AFTER);
        story.scan(true, true);
        assert_eq!(story.wait(), RETRY_AFTER);
        assert_eq!(story.scan(false, true), Step::Hash);
    }

    #[test]
    fn long_scans_are_made_less_often() {
        let mut story = Story::settled();
        story.wait();
        let took = Duration::from_secs(3);
        story.schedule.scanned(Scanned { took, moved: false, settled: true }, story.now);
        story.sign(false);
        assert_eq!(story.wait(), took * SCAN_SHARE);
        story.scan(false, true);
        story.sign(false);
        assert_eq!(story.wait(), INTERVAL);
    }

    #[test]
    fn an_order_has_the_tree_scanned_at_once_and_hashed_though_it_is_the_same() {
        let mut story = Story::settled();
        story.schedule.order();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.hash();
        assert!(story.publish());
        assert_eq!(story.wait(), INTERVAL);
        assert_eq!(story.scan(false, true), Step::Sign);
    }

    #[test]
    fn a_file_that_is_not_what_was_hashed_is_hashed_though_the_scan_is_the_same() {
        for interval in [None, Some(INTERVAL)] {
            let mut story = Story::new(interval, true);
            story.schedule.distrust();
            assert_eq!(story.scan(false, true), Step::Hash);
            story.hash();
            assert!(!story.publish());
            assert_eq!(story.step(), Step::Wait(interval.map(|interval| story.now + interval)));
        }
    }

    #[test]
    fn an_order_is_carried_out_once_the_tree_holds_still() {
        let mut story = Story::settled();
        story.schedule.order();
        for moved in [true, true, false] {
            assert_eq!(story.scan(moved, true), Step::Hash);
            story.changed_meanwhile();
            assert_eq!(story.wait(), RETRY_AFTER);
        }
        assert_eq!(story.scan(true, true), Step::Hash);
        story.hash();
        assert!(story.publish());
    }

    #[test]
    fn an_order_ends_when_the_tree_cannot_be_scanned_or_hashed() {
        let mut story = Story::settled();
        story.schedule.order();
        assert_eq!(story.step(), Step::Scan);
        story.failed();
        assert!(story.publish());
        assert_eq!(story.wait(), INTERVAL);
        story.schedule.order();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.failed();
        assert!(story.publish());
        assert_eq!(story.wait(), INTERVAL);
        assert_eq!(story.scan(false, true), Step::Sign, "there is no order any more");
    }

    #[test]
    fn a_change_that_an_order_could_not_hash_is_not_forgotten() {
        let mut story = Story::settled();
        story.schedule.order();
        assert_eq!(story.scan(true, true), Step::Hash);
        story.failed();
        story.publish();
        assert_eq!(story.wait(), RETRY_AFTER);
        assert_eq!(story.scan(false, true), Step::Hash);
    }

    #[test]
    fn an_order_while_another_is_carried_out_is_carried_out_with_it() {
        let mut story = Story::settled();
        story.schedule.order();
        story.scan(true, true);
        story.changed_meanwhile();
        story.schedule.order();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.hash();
        assert!(story.publish());
        assert_eq!(story.wait(), INTERVAL);
    }

    #[test]
    fn another_signature_is_published() {
        let mut story = Story::settled();
        story.wait();
        story.scan(false, true);
        story.sign(true);
        assert!(!story.publish());
        assert_eq!(story.wait(), INTERVAL);
    }

    #[test]
    fn what_cannot_be_hashed_is_left_alone_until_it_changes() {
        let mut story = Story::settled();
        story.wait();
        story.scan(true, true);
        story.wait();
        assert_eq!(story.scan(false, true), Step::Hash);
        story.failed();
        assert_eq!(story.wait(), INTERVAL);
        assert_eq!(story.scan(false, true), Step::Sign);
    }

    #[test]
    fn a_tree_that_cannot_be_scanned_is_tried_again_after_the_interval() {
        let mut story = Story::settled();
        story.wait();
        story.failed();
        assert_eq!(story.wait(), INTERVAL);
    }

    #[test]
    fn a_change_is_remembered_while_scans_fail() {
        let mut story = Story::settled();
        story.wait();
        story.scan(true, true);
        story.wait();
        story.failed();
        assert_eq!(story.wait(), RETRY_AFTER);
        assert_eq!(story.scan(false, true), Step::Hash);
    }

    #[test]
    fn a_file_is_left_out_after_so_many_failures_in_a_row() {
        let (mut failures, path) = (Failures::default(), Path::new("a"));
        for _ in 1..MAX_FAILURES {
            assert!(!failures.add(path) && !failures.add(Path::new("b")));
        }
        assert!(failures.add(path) && failures.add(path));
        failures.clear();
        assert!(!failures.add(path));
    }
}
