//! Watches the served tree: scans it, hashes what is new, and says when there is another state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::cache::Cache;
use super::hash::{HashError, Progress, hash};
use super::scan::{Scan, ScanOptions, Warning, scan};
use super::signature::SignatureFile;
use crate::error::Error;
use crate::image::manifest::Manifest;
use crate::process::report::{Pace, Reporter};
use crate::units::{bytes, rate};

/// After this many failures to hash the same file it is left out.
const MAX_FAILURES: u32 = 3;
/// Wait before a tree that changed while it was hashed is looked at again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// A scan may take at most this share of the time between two scans.
const SCAN_SHARE: u32 = 20;
/// A tree that never looks the same twice is hashed all the same after this many scans, to find
/// out which file it is.
const MAX_MOVES: u32 = 25;

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
    /// Another state.
    State(State),
    /// It has looked at everything, as it was asked to, and whether it has found another manifest.
    Looked {
        /// It has.
        changed: bool,
    },
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
    failures: BTreeMap<PathBuf, u32>,
    /// Why the tree could not be looked at, once that is told.
    trouble: Option<String>,
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
        if let Some((problem, path)) = problem.zip(cache_path.as_ref()) {
            report
                .info(format_args!("cached hashes in {} are not used: {problem}", path.display()));
        }
        options.cache_dir = cache_path.as_ref().and_then(|path| Some(path.parent()?.to_owned()));
        Watcher {
            root,
            options,
            cache,
            cache_path,
            signature: None,
            report,
            warned: Vec::new(),
            failures: BTreeMap::new(),
            trouble: None,
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

    /// Looks at the tree every `interval`, or only when it is asked to by a message from `orders`, and
    /// hands on each new state, until `publish` says no. A state may be new and have the same manifest:
    /// a file may have got another link, say, or the manifest a signature.
    ///
    /// A change is hashed when two scans in a row agree on it, so that a file that is being written
    /// is not hashed over and over.
    pub(super) fn watch(
        mut self,
        first: &State,
        interval: Option<Duration>,
        orders: &Receiver<()>,
        mut publish: impl FnMut(News) -> bool,
    ) {
        let mut state = first.clone();
        let mut last = first.scan.clone();
        let mut young = !last.is_settled();
        let mut stale = false;
        let mut moves = 0;
        let mut wait = interval;
        loop {
            match wait_for_order(orders, if stale { Some(RETRY_AFTER) } else { wait }) {
                Err(NobodyAsks) => return,
                Ok(Asked::No) => {}
                Ok(Asked::Yes) => {
                    let before = state.manifest.generation();
                    if let Some(next) = self.look_at_everything() {
                        last = next.scan.clone();
                        state = next;
                        (stale, young, moves) = (false, !last.is_settled(), 0);
                    }
                    let changed = state.manifest.generation() != before;
                    if !(publish(News::State(state.clone())) && publish(News::Looked { changed })) {
                        return;
                    }
                    continue;
                }
            }
            let started = Instant::now();
            let next = match self.scan() {
                Ok(next) => Arc::new(next),
                Err(error) => {
                    self.cannot_look(&error);
                    continue;
                }
            };
            self.trouble = None;
            wait = interval.map(|interval| interval.max(started.elapsed() * SCAN_SHARE));
            let moved = !next.same_as(&last);
            last = next;
            // What was young when it was hashed may have changed once more without a trace.
            stale |= moved || (young && last.is_settled());
            moves = if moved { moves + 1 } else { 0 };
            if !stale {
                if self.sign(&mut state) && !publish(News::State(state.clone())) {
                    return;
                }
                continue;
            }
            if moved && moves < MAX_MOVES {
                continue;
            }
            match self.hash(last.clone()) {
                Ok(None) => continue,
                Ok(Some(next)) => {
                    state = next;
                    if !publish(News::State(state.clone())) {
                        return;
                    }
                }
                Err(error) => self.cannot_look(&error),
            }
            (stale, young, moves) = (false, !last.is_settled(), 0);
        }
    }

    /// The present state, whatever was left out before. A file that has kept its size and its times
    /// keeps its hash.
    fn look_at_everything(&mut self) -> Option<State> {
        self.options.restless.clear();
        self.failures.clear();
        self.warned.clear();
        self.trouble = None;
        let found = self.first();
        found.map_err(|error| self.cannot_look(&error)).ok()
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
        let threads = thread::available_parallelism().map_or(1, usize::from);
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
        let result = hash(&scan, &mut self.cache, threads, &progress);
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
                let failures = self.failures.entry(path.clone()).or_default();
                *failures += 1;
                if *failures >= MAX_FAILURES {
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

enum Asked {
    Yes,
    No,
}

/// The server is gone.
struct NobodyAsks;

/// Waits for so long, or for ever, or until it is asked for; orders that come together are one.
fn wait_for_order(orders: &Receiver<()>, most: Option<Duration>) -> Result<Asked, NobodyAsks> {
    let asked = match most {
        Some(most) => orders.recv_timeout(most),
        None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match asked {
        Ok(()) => {
            orders.try_iter().for_each(drop);
            Ok(Asked::Yes)
        }
        Err(RecvTimeoutError::Timeout) => Ok(Asked::No),
        Err(RecvTimeoutError::Disconnected) => Err(NobodyAsks),
    }
}
