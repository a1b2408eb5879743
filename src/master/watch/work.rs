//! The watcher at work: what it does in which order, and what it tells the server of.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::doubts::{Cause, Doubts};
use super::orders::{Asked, NobodyAsks, Told};
use super::schedule::{Scanned, Schedule, Step};
use super::{Intervals, News, Outcome, ReadAgain, State, Watcher};
use crate::error::Error;
use crate::image::chunks::ChunkId;
use crate::image::manifest::Manifest;
use crate::master::diff::Change;
use crate::master::hash::HashError;
use crate::master::scan::Scan;
use crate::process::report::Pace;
use crate::units::{bytes, quantity, rate};

/// When everything is read, so much is at a time: all processors have something to do, and the tree is scanned in
/// between.
const BATCH_BYTES: u64 = 64 << 20;

/// A watcher at work.
pub(super) struct Watch {
    watcher: Watcher,
    /// The state that was hashed last.
    state: State,
    /// What the last scan saw.
    last: Arc<Scan>,
    published: Arc<Manifest>,
    schedule: Schedule,
    doubts: Doubts,
    /// Files of the state that are not what was hashed, and are to be hashed again.
    rewritten: BTreeSet<usize>,
    /// What has come of the present order so far.
    outcome: Outcome,
    /// When all began to be read for it, and whether all is.
    began: Instant,
    is_read: bool,
    /// Chunks that `--rehash` has found to be others since it began with the first one.
    patrol_found: u64,
    pace: Pace,
}

impl Watch {
    pub(super) fn new(
        watcher: Watcher,
        first: &State,
        intervals: Intervals,
        now: Instant,
    ) -> Watch {
        Watch {
            state: first.clone(),
            last: first.scan.clone(),
            published: first.manifest.clone(),
            schedule: Schedule::new(intervals.scan, first.scan.is_settled(), now),
            doubts: Doubts::new(intervals.rehash, now),
            rewritten: BTreeSet::new(),
            outcome: Outcome::Same,
            began: now,
            is_read: false,
            patrol_found: 0,
            pace: Pace::new(&watcher.report, now),
            watcher,
        }
    }

    /// Goes on until `publish` returns false, or nobody gives orders any more.
    pub(super) fn run(mut self, orders: &Told, mut publish: impl FnMut(News) -> bool) {
        loop {
            let now = Instant::now();
            let mut news = Vec::new();
            match self.schedule.step(now) {
                Step::Wait(until) => match self.read_or_wait(until, orders, now) {
                    Ok(told) => news = told,
                    Err(NobodyAsks) => return,
                },
                Step::Scan => self.scan(now),
                Step::Hash => self.hash(),
                Step::Sign => {
                    let is_other = self.watcher.sign(&mut self.state);
                    self.schedule.signed(is_other, Instant::now());
                }
                Step::Publish { ends_order } => news = self.publish(ends_order),
            }
            if !news.into_iter().all(&mut publish) {
                return;
            }
        }
    }

    /// Reads what is to be read again, or waits until something is to be done.
    fn read_or_wait(
        &mut self,
        until: Option<Instant>,
        orders: &Told,
        now: Instant,
    ) -> Result<Vec<News>, NobodyAsks> {
        if self.is_read && !self.schedule.is_stale() {
            self.is_read = false;
            return Ok(vec![News::Hashed(self.outcome)]);
        }
        let layout = self.state.manifest.layout();
        let (count, batch) = (layout.count(), BATCH_BYTES / layout.chunk_bytes().max(1));
        let next = self.doubts.next(count, u32::try_from(batch).unwrap_or(1), now);
        let most = match &next {
            Some(_) => Some(Duration::ZERO),
            None => {
                let until = [until, self.doubts.deadline(count)].into_iter().flatten().min();
                until.map(|until| until.saturating_duration_since(now))
            }
        };
        if orders.wait(most, |host, chunk| self.doubts.doubt(host, chunk))? == Asked::Look {
            self.watcher.leave_nothing_out();
            self.outcome = Outcome::Same;
            self.schedule.order();
            return Ok(Vec::new());
        }
        Ok(next.and_then(|next| self.read_again(next, count, now)).into_iter().collect())
    }

    fn read_again(
        &mut self,
        (chunks, cause): (Range<u32>, Cause),
        count: u32,
        began: Instant,
    ) -> Option<News> {
        let ReadAgain { wrong, unread } = self.watcher.read_again(&self.state, chunks.clone());
        match unread {
            // Without a change of the tree that a scan sees, nobody is told that all is as it was.
            Some(HashError::Changed { .. }) if cause == Cause::Order => self.schedule.distrust(),
            Some(HashError::Changed { .. }) => {}
            Some(error) => {
                self.outcome = Outcome::Failed;
                self.watcher
                    .report
                    .warning(format_args!("{error}; the previous generation is still served"));
            }
            None if cause == Cause::Doubt && wrong.is_empty() => {
                let chunk = chunks.start;
                self.watcher.report.info(format_args!(
                    "chunk {chunk} was reported as wrong; it was read again and is right"
                ));
            }
            None => {}
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        let way = self.doubts.ended((chunks, cause), took, count, now);
        match cause {
            Cause::Doubt => {}
            Cause::Order => self.tell_of_order(count, way.is_some(), now),
            Cause::Patrol => self.tell_of_patrol(wrong.len() as u64, way),
        }
        self.distrust(&wrong)
    }

    /// The files of these chunks are not what was hashed.
    fn distrust(&mut self, wrong: &[ChunkId]) -> Option<News> {
        let (listing, layout) = (self.state.manifest.listing(), self.state.manifest.layout());
        let ranges = wrong.iter().map(|chunk| layout.range(*chunk));
        let files = ranges.flat_map(|range| listing.segments(range)).map(|segment| segment.entry);
        let files: BTreeSet<usize> = files.collect();
        if files.is_empty() {
            return None;
        }
        self.watcher.tell_of_rewritten(&self.state, &files);
        self.schedule.distrust();
        self.rewritten.extend(&files);
        Some(News::Rewritten(self.state.scan.clone(), self.rewritten.clone()))
    }

    fn tell_of_order(&mut self, count: u32, is_over: bool, now: Instant) {
        let report = self.watcher.report;
        if is_over {
            self.is_read = true;
            report.end_progress();
        } else if self.pace.is_due(now) {
            let done = u64::from(self.doubts.ordered().unwrap_or(count));
            let percent = done * 100 / u64::from(count.max(1));
            let layout = self.state.manifest.layout();
            let (all, read) = (layout.image_bytes(), done * layout.chunk_bytes());
            let rate = rate(read, now.saturating_duration_since(self.began));
            report.progress(format_args!("hashing: {percent} % of {}, {rate}", bytes(all)));
        }
    }

    fn tell_of_patrol(&mut self, wrong: u64, way: Option<Duration>) {
        self.patrol_found += wrong;
        let Some(took) = way else { return };
        let what = match std::mem::take(&mut self.patrol_found) {
            0 => "nothing has changed".to_owned(),
            n => format!("{} had changed", quantity(n, "chunk")),
        };
        self.watcher.report.notice(format_args!(
            "rehash finished: read {} in {} s: {what}",
            bytes(self.state.manifest.layout().image_bytes()),
            took.as_secs(),
        ));
    }

    fn scan(&mut self, began: Instant) {
        match self.watcher.scan() {
            Ok(next) => {
                self.watcher.trouble = None;
                let (moved, settled) = (!next.same_as(&self.last), next.is_settled());
                self.last = Arc::new(next);
                let scanned = Scanned { took: began.elapsed(), moved, settled };
                self.schedule.scanned(scanned, Instant::now());
            }
            Err(error) => self.failed(&error),
        }
    }

    fn hash(&mut self) {
        let rewritten = std::mem::take(&mut self.rewritten);
        if !rewritten.is_empty() {
            self.watcher.hash_files(&self.state, &rewritten);
        }
        match self.watcher.hash(self.last.clone()) {
            Ok(Some(next)) => {
                let before = std::mem::replace(&mut self.state, next);
                let (before, now) = (&before.manifest, &self.state.manifest);
                if before.generation() != now.generation() {
                    self.doubts.renumber(|chunk| same_place(before, now, chunk));
                }
                self.schedule.hashed();
            }
            Ok(None) => self.schedule.changed_meanwhile(Instant::now()),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) {
        self.watcher.cannot_look(error);
        self.outcome = Outcome::Failed;
        self.schedule.failed(Instant::now());
    }

    /// The present state, and that an order is carried out as far as a scan can see: now all is read.
    fn publish(&mut self, ends_order: bool) -> Vec<News> {
        let now = Instant::now();
        let before = std::mem::replace(&mut self.published, self.state.manifest.clone());
        let mut change = Change::default();
        if before.generation() != self.published.generation() {
            change = Change::between(&before, &self.published);
            if self.outcome == Outcome::Same {
                self.outcome = Outcome::Changed;
            }
        }
        let mut news = vec![News::State(self.state.clone(), change)];
        if ends_order {
            news.push(News::Looked);
            self.doubts.order(now);
            self.began = now;
            self.is_read = false;
        }
        self.schedule.published(now);
        news
    }
}

/// The chunk of another manifest up to which everything was read, if everything before `chunk` was in this one: files
/// have an order that stays, and those that are new have just been hashed.
fn same_place(old: &Manifest, new: &Manifest, chunk: u32) -> u32 {
    let (layout, listing) = (new.layout(), new.listing());
    let start = u64::from(chunk).saturating_mul(old.layout().chunk_bytes());
    let mut rest = old.listing().segments(start..old.layout().image_bytes());
    let at = rest.next().and_then(|first| {
        let path = old.listing().path(first.entry)?;
        let entry = listing.first_from(&path);
        let is_there = listing.path(entry).as_ref() == Some(&path);
        let end = listing.image_start(entry + 1);
        let offset = if is_there { first.offset } else { 0 };
        Some(listing.image_start(entry).saturating_add(offset).min(end))
    });
    let at = at.unwrap_or(layout.image_bytes());
    match layout.covering(at..layout.image_bytes()).next() {
        Some(chunk) => chunk.get(),
        None => layout.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::chunks::MIN_CHUNK_BYTES;
    use crate::image::manifest::tests::entry;
    use crate::image::manifest::{Content, Listing};

    /// Files, each with so many chunks.
    fn manifest(files: &[(&str, u64)]) -> Manifest {
        let file = |&(path, chunks): &(&str, u64)| {
            entry(path, Content::File { bytes: chunks * MIN_CHUNK_BYTES, image_offset: 0 })
        };
        let entries = [entry(".", Content::Directory)].into_iter().chain(files.iter().map(file));
        let listing = Listing::new(entries.collect()).unwrap();
        let hashes = listing.layout().iter().map(|_| blake3::hash(b"any")).collect();
        Manifest::new(listing, hashes).unwrap()
    }

    #[test]
    fn reading_everything_goes_on_in_the_same_file_when_other_files_came_and_went() {
        let old = manifest(&[("a", 2), ("c", 4), ("e", 2)]);
        let more = manifest(&[("a", 2), ("b", 3), ("c", 4), ("e", 2)]);
        let fewer = manifest(&[("c", 4), ("e", 2)]);
        let without = manifest(&[("a", 2), ("e", 2)]);
        let places = |new| [0, 3, 6, 8].map(|chunk| same_place(&old, new, chunk));
        assert_eq!(places(&old), [0, 3, 6, 8]);
        assert_eq!(places(&more), [0, 6, 9, 11]);
        assert_eq!(places(&fewer), [0, 1, 4, 6]);
        assert_eq!(places(&without), [0, 2, 2, 4], "from the beginning of what comes next");
    }
}
