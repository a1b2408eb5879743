//! Watches the served tree: scans it, hashes what is new, and publishes each new state. [`schedule`] decides when,
//! [`doubts`] what is read again although a scan sees no change; [`work`] does it.

mod doubts;
mod orders;
mod schedule;
mod work;

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::cache::{Cache, NoCache};
use super::diff::Change;
use super::hash::{HashError, Progress, hash, rehash};
use super::scan::{Scan, ScanOptions, Warning, scan};
use super::signature::SignatureFile;
use crate::error::Error;
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::Manifest;
use crate::image::path::shown;
use crate::level::Level;
use crate::process::report::{Pace, Reporter};
use crate::units::{bytes, quantity, rate};
pub(super) use orders::{Orders, Told, orders};
use schedule::{Failures, RETRY_AFTER};
use work::Watch;

/// A state of the tree that can be served.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) manifest: Arc<Manifest>,
    /// The manifest's signature, if there is one that fits.
    pub(super) signature: Option<Arc<[u8]>>,
    pub(super) scan: Arc<Scan>,
}

/// What a watcher has found.
pub(super) enum News {
    /// Another state, and what is different in it.
    State(State, Change),
    /// These files of the scan are not what was hashed. They are hashed again, and then comes another state.
    Rewritten(Arc<Scan>, BTreeSet<usize>),
    /// It has looked at the tree, as it was asked to. Next it reads all of it.
    Looked,
    /// It has read everything, as it was asked to.
    Hashed(Outcome),
}

/// What has come of an order to look at everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every byte is what was hashed before.
    Same,
    /// There is another generation.
    Changed,
    /// Not everything could be read.
    Failed,
}

/// What is watched, and what is known of it.
#[derive(Debug)]
pub(super) struct Watcher {
    root: PathBuf,
    options: ScanOptions,
    cache: Cache,
    cache_path: Option<PathBuf>,
    /// Where the signature is to be looked for, if it is signed.
    pub(super) signature: Option<SignatureFile>,
    report: Reporter,
    warned: Vec<Warning>,
    failures: Failures,
    /// Why the tree could not be looked at, once that is told.
    trouble: Option<String>,
    /// So many threads hash. Once clients are served, one processor is left to those.
    threads: usize,
}

/// How often what is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    /// The tree is scanned; None is after an order alone.
    pub(super) scan: Option<Duration>,
    /// All of it is hashed; None is after an order alone.
    pub(super) rehash: Option<Duration>,
}

impl Watcher {
    /// Watches `root`; hashes are kept in the file `cache_path`, if any.
    pub(super) fn new(
        root: PathBuf,
        mut options: ScanOptions,
        cache_path: Option<PathBuf>,
        report: Reporter,
    ) -> Watcher {
        let (cache, problem) = match &cache_path {
            Some(path) => Cache::load(path),
            None => (Cache::default(), None),
        };
        let is_shared = matches!(problem, Some(NoCache::SharedDirectory));
        if let Some((problem, path)) = problem.zip(cache_path.as_ref()) {
            let level = if problem.is_alarming() { Level::Warning } else { Level::Info };
            let path = path.display();
            report.say(level, &format_args!("cached hashes in {path} are not used: {problem}"));
        }
        options.cache_dir = cache_path.as_ref().and_then(|path| Some(path.parent()?.to_owned()));
        // What is kept where others can replace it is never used.
        let cache_path = cache_path.filter(|_| !is_shared);
        Watcher {
            root,
            options,
            cache,
            cache_path,
            signature: None,
            report,
            warned: Vec::new(),
            failures: Failures::default(),
            trouble: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// What is watched, an absolute path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the hashes are kept.
    pub(super) fn cache_dir(&self) -> Option<&Path> {
        self.cache_path.as_ref()?.parent()
    }

    /// The present state. A tree that changes meanwhile is looked at again until it holds still.
    pub(super) fn first(&mut self) -> Result<State, Error> {
        loop {
            let scan = Arc::new(self.scan()?);
            match self.hash(scan)? {
                Some(state) => return Ok(state),
                None => thread::sleep(RETRY_AFTER),
            }
        }
    }

    /// Scans the tree as often as the intervals say, and whenever it is ordered to, and hands on each new state, until
    /// `publish` returns false. A state may be new and have the same manifest: a file may have got another link, say,
    /// or the manifest a signature.
    pub(super) fn watch(
        mut self,
        first: &State,
        intervals: Intervals,
        orders: &Told,
        publish: impl FnMut(News) -> bool,
    ) {
        self.threads = self.threads.saturating_sub(1).max(1);
        Watch::new(self, first, intervals, Instant::now()).run(orders, publish);
    }

    /// Reads chunks whatever the cache says of them.
    fn read_again(&mut self, state: &State, chunks: Range<u32>) -> ReadAgain {
        let layout = state.manifest.layout();
        let chunks: Vec<_> = chunks.filter_map(|number| layout.chunk(number)).collect();
        let hashed = rehash(&state.scan, chunks.clone(), &mut self.cache, self.threads, &|_| {});
        let mut found = ReadAgain::default();
        // One that cannot be read says nothing of the others.
        let each = |chunk: &ChunkId| rehash(&state.scan, vec![*chunk], &mut self.cache, 1, &|_| {});
        let hashed = match hashed {
            Ok(hashed) => vec![Ok(hashed)],
            Err(error) if chunks.len() < 2 => vec![Err(error)],
            Err(_) => chunks.iter().map(each).collect(),
        };
        for hashed in hashed {
            match hashed {
                Ok(hashed) => {
                    let wrong = hashed
                        .into_iter()
                        .filter(|(chunk, hash)| state.manifest.hash(*chunk) != Some(hash));
                    found.wrong.extend(wrong.map(|(chunk, _)| chunk));
                }
                Err(error) => found.unread = Some(error),
            }
        }
        found
    }

    /// Hashes whole files, from which the cache knows what they are, though their times say nothing.
    fn hash_files(&mut self, state: &State, files: &BTreeSet<usize>) {
        let (listing, layout) = (state.manifest.listing(), state.manifest.layout());
        let mut chunks = ChunkSet::empty(layout);
        for &file in files {
            let range = listing.image_start(file)..listing.image_start(file + 1);
            for chunk in layout.covering(range) {
                chunks.insert(chunk);
            }
        }
        // What cannot be read is tried again with the next scan.
        let _ =
            rehash(&state.scan, chunks.iter().collect(), &mut self.cache, self.threads, &|_| {});
    }

    fn tell_of_rewritten(&self, state: &State, files: &BTreeSet<usize>) {
        let first = files.first().map(|file| state.scan.file_path(*file)).unwrap_or_default();
        let first = shown(first.as_os_str().as_bytes());
        let more = match files.len() as u64 {
            0 | 1 => String::new(),
            n => format!(" (or one of {})", quantity(n - 1, "other file")),
        };
        self.report.warning(format_args!(
            "{first}{more} has other contents than were hashed and kept its times: a program \
             writes to it through a memory mapping; replace served files by renaming new ones"
        ));
    }

    /// What was left out is scanned and hashed again, and all warnings are repeated.
    fn leave_nothing_out(&mut self) {
        self.options.restless.clear();
        self.failures.clear();
        self.warned.clear();
        self.trouble = None;
    }

    /// Tells of a trouble once.
    fn cannot_look(&mut self, error: &Error) {
        let why = error.to_string();
        if self.trouble.as_ref() != Some(&why) {
            self.report.warning(format_args!("{why}; the previous generation is still served"));
            self.trouble = Some(why);
        }
    }

    /// Looks for the signature of a state; true if it is another than before.
    fn sign(&mut self, state: &mut State) -> bool {
        let file = self.signature.as_mut();
        let signature = file.and_then(|file| file.fitting(&state.manifest));
        let before = std::mem::replace(&mut state.signature, signature);
        state.signature != before
    }

    fn scan(&mut self) -> Result<Scan, Error> {
        let scan = scan(&self.root, &self.options, SystemTime::now())?;
        for warning in scan.warnings().iter().filter(|w| !self.warned.contains(w)) {
            self.report.warning(warning);
        }
        self.warned = scan.warnings().to_vec();
        Ok(scan)
    }

    /// The state that a scan saw, or None if the tree is no longer like that.
    fn hash(&mut self, scan: Arc<Scan>) -> Result<Option<State>, Error> {
        let pace = Mutex::new(Pace::new(&self.report, Instant::now()));
        let (report, started) = (self.report, Instant::now());
        let progress = |Progress { hashed_bytes, total_bytes }: Progress| {
            if let Ok(mut pace) = pace.try_lock()
                && pace.is_due(Instant::now())
            {
                let percent = hashed_bytes.saturating_mul(100) / total_bytes.max(1);
                report.progress(format_args!(
                    "hashing: {percent} % of {}, {}",
                    bytes(total_bytes),
                    rate(hashed_bytes, started.elapsed()),
                ));
            }
        };
        let result = hash(&scan, &mut self.cache, self.threads, &progress);
        self.report.end_progress();
        match result {
            Ok(manifest) => {
                self.save();
                self.failures.clear();
                let mut state = State { manifest: Arc::new(manifest), signature: None, scan };
                self.sign(&mut state);
                Ok(Some(state))
            }
            Err(HashError::Tree(problem)) => Err(problem.into()),
            Err(
                ref error @ (HashError::Changed { ref path }
                | HashError::Unreadable { ref path, .. }),
            ) => {
                self.report.info(format_args!("{error}; it is read again"));
                if self.failures.add(path) {
                    self.options.restless.insert(path.clone());
                }
                Ok(None)
            }
        }
    }

    fn save(&self) {
        let Some(path) = &self.cache_path else { return };
        if let Err(error) = self.cache.save(path) {
            let why = crate::error::reason(&error);
            self.report.warning(format_args!("cannot save hashes in {}: {why}", path.display()));
        }
    }
}

/// What came of reading chunks again.
#[derive(Debug, Default)]
struct ReadAgain {
    /// They are not what was hashed.
    wrong: Vec<ChunkId>,
    /// Why one could not be read.
    unread: Option<HashError>,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;

    use super::super::hash::key;
    use super::super::scan::tests::TempDir;
    use super::*;
    use crate::process::log::Logging;

    /// A watcher of one file, `a`, of three chunks, and the state that it has found.
    fn watcher(dir: &TempDir) -> (Watcher, State) {
        dir.write("a", &[7; 3 << 16]);
        let report = Reporter::new(Logging::default());
        let mut watcher = Watcher::new(dir.path().into(), ScanOptions::default(), None, report);
        let mut first = watcher.first().unwrap();
        Arc::get_mut(&mut first.scan).unwrap().settle();
        (watcher, first)
    }

    /// Writes as a mapping does: afterwards the file's times are what they were, and the cache believes them.
    fn rewrite(watcher: &mut Watcher, dir: &TempDir, state: &mut State, offset: u64) {
        let path = dir.path().join("a");
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"other", offset).unwrap();
        Arc::get_mut(&mut state.scan).unwrap().forget_times(&path);
        let (scan, manifest) = (&state.scan, &state.manifest);
        let hashes = manifest.layout().iter().map(|chunk| (chunk, *manifest.hash(chunk).unwrap()));
        let known = hashes.filter_map(|(chunk, hash)| Some((key(scan, chunk)?, hash)));
        watcher.cache.extend(known);
    }

    #[test]
    fn a_chunk_that_is_right_is_read_and_nothing_follows() {
        let dir = TempDir::new();
        let (mut watcher, state) = watcher(&dir);
        let found = watcher.read_again(&state, 1..2);
        assert!(found.wrong.is_empty() && found.unread.is_none());
    }

    #[test]
    fn a_file_that_is_not_what_was_hashed_is_found_and_hashed_though_no_time_says_so() {
        let dir = TempDir::new();
        let (mut watcher, mut state) = watcher(&dir);
        rewrite(&mut watcher, &dir, &mut state, 5);
        rewrite(&mut watcher, &dir, &mut state, 2 << 16);
        let same = watcher.hash(state.scan.clone()).unwrap().unwrap();
        assert_eq!(same.manifest.generation(), state.manifest.generation(), "a scan sees nothing");
        let found = watcher.read_again(&state, 2..3);
        assert_eq!(found.wrong, [state.manifest.layout().chunk(2).unwrap()]);
        watcher.hash_files(&state, &BTreeSet::from([1]));
        let new = watcher.hash(state.scan.clone()).unwrap().unwrap();
        let changed = |chunk: &ChunkId| new.manifest.hash(*chunk) != state.manifest.hash(*chunk);
        let changed: Vec<u32> =
            state.manifest.layout().iter().filter(changed).map(ChunkId::get).collect();
        assert_eq!(changed, [0, 2], "also the chunk that nobody has doubted");
    }

    #[test]
    fn a_chunk_that_cannot_be_read_hides_none_that_is_wrong() {
        let dir = TempDir::new();
        dir.write("b", &[1; 1 << 16]);
        let (mut watcher, mut state) = watcher(&dir);
        Arc::get_mut(&mut state.scan).unwrap().settle();
        rewrite(&mut watcher, &dir, &mut state, 5);
        fs::remove_file(dir.path().join("b")).unwrap();
        let found = watcher.read_again(&state, 0..4);
        assert_eq!(found.wrong, [state.manifest.layout().chunk(0).unwrap()]);
        assert!(matches!(found.unread, Some(HashError::Changed { .. })));
    }
}
