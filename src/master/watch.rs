//! Watches the served tree: scans it, hashes what is new, and publishes each new state. [`schedule`] decides when.

mod schedule;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::cache::{Cache, NoCache};
use super::hash::{HashError, Progress, hash};
use super::scan::{Scan, ScanOptions, Warning, scan};
use super::signature::SignatureFile;
use crate::error::Error;
use crate::image::manifest::Manifest;
use crate::level::Level;
use crate::process::report::{Pace, Reporter};
use crate::units::{bytes, rate};
use schedule::{Failures, RETRY_AFTER, Scanned, Schedule, Step};

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
    failures: Failures,
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

    /// Scans the tree every `interval`, and whenever it is ordered to by a message from `orders`, and
    /// hands on each new state, until `publish` returns false. A state may be new and have the same manifest:
    /// a file may have got another link, say, or the manifest a signature.
    pub(super) fn watch(
        mut self,
        first: &State,
        interval: Option<Duration>,
        orders: &Receiver<()>,
        mut publish: impl FnMut(News) -> bool,
    ) {
        let mut state = first.clone();
        let mut last = first.scan.clone();
        let mut published = state.manifest.generation();
        let mut schedule = Schedule::new(interval, last.is_settled(), Instant::now());
        loop {
            let now = Instant::now();
            match schedule.step(now) {
                Step::Wait(until) => {
                    let most = until.map(|until| until.saturating_duration_since(now));
                    match wait_for_order(orders, most) {
                        Err(NobodyAsks) => return,
                        Ok(Asked::No) => {}
                        Ok(Asked::Yes) => {
                            self.leave_nothing_out();
                            schedule.order();
                        }
                    }
                }
                Step::Scan => match self.scan() {
                    Ok(next) => {
                        self.trouble = None;
                        let took = now.elapsed();
                        let (moved, settled) = (!next.same_as(&last), next.is_settled());
                        last = Arc::new(next);
                        schedule.scanned(Scanned { took, moved, settled }, Instant::now());
                    }
                    Err(error) => {
                        self.cannot_look(&error);
                        schedule.failed(Instant::now());
                    }
                },
                Step::Hash => match self.hash(last.clone()) {
                    Ok(Some(next)) => {
                        state = next;
                        schedule.hashed();
                    }
                    Ok(None) => schedule.changed_meanwhile(Instant::now()),
                    Err(error) => {
                        self.cannot_look(&error);
                        schedule.failed(Instant::now());
                    }
                },
                Step::Sign => {
                    let is_other = self.sign(&mut state);
                    schedule.signed(is_other, Instant::now());
                }
                Step::Publish { ends_order } => {
                    let before = std::mem::replace(&mut published, state.manifest.generation());
                    let changed = published != before;
                    let is_heard = publish(News::State(state.clone()))
                        && (!ends_order || publish(News::Looked { changed }));
                    if !is_heard {
                        return;
                    }
                    schedule.published(Instant::now());
                }
            }
        }
    }

    /// What was left out is scanned and hashed again, and all warnings are repeated. A file that has kept its
    /// size and its times keeps its hash.
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
            while orders.try_recv().is_ok() {}
            Ok(Asked::Yes)
        }
        Err(RecvTimeoutError::Timeout) => Ok(Asked::No),
        Err(RecvTimeoutError::Disconnected) => Err(NobodyAsks),
    }
}
