//! Hashing: from a scan to a manifest, by reading every byte that the cache does not know.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use blake3::{Hash, Hasher};

use super::cache::{Cache, ChunkKey};
use super::scan::Scan;
use crate::error::reason;
use crate::image::chunks::ChunkId;
use crate::image::manifest::{Manifest, Problem, Segment};
use crate::image::path::shown;

/// Bytes read at a time: enough for BLAKE3 to hash at full speed, little enough to stay in a
/// processor's cache.
const READ_BYTES: usize = 256 << 10;

/// How far the hashing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes hashed.
    pub(crate) hashed_bytes: u64,
    /// Bytes that have to be hashed; what the cache knows is not among them.
    pub(crate) total_bytes: u64,
}

/// Why a scan cannot be hashed. All but the last call for a new scan.
#[derive(Debug)]
pub enum HashError {
    /// The file is not what it was at the time of the scan.
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The tree cannot be described.
    Tree(Problem),
}

/// Hashes every chunk of the scanned tree, in order, on up to `threads` threads.
///
/// `progress` is called at the start and after every read, from any thread; calls of two threads
/// may overtake each other.
///
/// The files must be as they were at the scan: else the whole is refused, so that a manifest never
/// describes a mixture of states. What was hashed by then is in the cache for the next attempt. On
/// success the cache holds this tree's chunks and no others, less those of files so fresh that a
/// further change might not show.
pub(crate) fn hash(
    scan: &Scan,
    cache: &mut Cache,
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Manifest, HashError> {
    let layout = scan.listing().layout();
    let keys: Vec<_> = layout.iter().map(|chunk| key(scan, chunk)).collect();
    let mut hashes: Vec<_> = keys.iter().map(|key| key.and_then(|key| cache.get(&key))).collect();
    let unknown = layout.iter().zip(&hashes).filter(|(_, hash)| hash.is_none());
    let job = Job::new(scan, unknown.map(|(chunk, _)| chunk).collect(), progress);
    job.run(threads);

    let (hashed, failure) = job.end();
    for (chunk, hash) in hashed {
        if let Some(place) = hashes.get_mut(chunk.index()) {
            *place = Some(hash);
        }
    }
    let known = keys.into_iter().zip(&hashes).filter_map(|(key, hash)| Some((key?, (*hash)?)));
    if let Some(failure) = failure {
        cache.extend(known);
        return Err(failure);
    }
    cache.replace(known);
    let hashes = hashes.into_iter().flatten().collect();
    Manifest::new(scan.listing().clone(), hashes).map_err(HashError::Tree)
}

/// Hashes some chunks of the scanned tree, whatever the cache says of them, and returns their hashes; the cache has
/// them from then on.
///
/// The files must be as they were at the scan.
pub(crate) fn rehash(
    scan: &Scan,
    chunks: Vec<ChunkId>,
    cache: &mut Cache,
    threads: usize,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<(ChunkId, Hash)>, HashError> {
    let job = Job::new(scan, chunks, progress);
    job.run(threads);
    let (hashed, failure) = job.end();
    cache.extend(hashed.iter().filter_map(|(chunk, hash)| Some((key(scan, *chunk)?, *hash))));
    failure.map_or(Ok(hashed), Err)
}

/// The key of a chunk in the cache; None if a file in it is too fresh to be cached.
pub(super) fn key(scan: &Scan, chunk: ChunkId) -> Option<ChunkKey> {
    let range = scan.listing().layout().range(chunk);
    let chunk_bytes = range.end.saturating_sub(range.start);
    let part = |segment: Segment| {
        let identity = scan.identity(segment.entry).filter(|file| scan.has_settled(file))?;
        Some((identity, segment))
    };
    let parts: Option<Vec<_>> = scan.listing().segments(range).map(part).collect();
    Some(ChunkKey::new(chunk_bytes, parts?))
}

/// The chunks that are to be hashed, shared by the threads that do it.
struct Job<'a> {
    scan: &'a Scan,
    missing: Vec<ChunkId>,
    /// One for each of them.
    hashes: Vec<OnceLock<Hash>>,
    /// The index in `missing` of the chunk that is hashed next.
    next: AtomicUsize,
    hashed_bytes: AtomicU64,
    total_bytes: u64,
    failure: OnceLock<HashError>,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Job<'a> {
    fn new(
        scan: &'a Scan,
        missing: Vec<ChunkId>,
        progress: &'a (dyn Fn(Progress) + Sync),
    ) -> Job<'a> {
        let ranges = missing.iter().map(|chunk| scan.listing().layout().range(*chunk));
        Job {
            scan,
            total_bytes: ranges.map(|range| range.end.saturating_sub(range.start)).sum(),
            hashes: missing.iter().map(|_| OnceLock::new()).collect(),
            missing,
            next: AtomicUsize::new(0),
            hashed_bytes: AtomicU64::new(0),
            failure: OnceLock::new(),
            progress,
        }
    }

    /// What was hashed, and why it is not everything.
    fn end(self) -> (Vec<(ChunkId, Hash)>, Option<HashError>) {
        let hashes = self.hashes.into_iter().map(OnceLock::into_inner);
        let hashed = self.missing.into_iter().zip(hashes);
        let hashed = hashed.filter_map(|(chunk, hash)| Some((chunk, hash?)));
        (hashed.collect(), self.failure.into_inner())
    }

    fn run(&self, threads: usize) {
        self.add_progress(0);
        let helpers = threads.min(self.missing.len()).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..helpers {
                // Without a helper the work takes longer, no more.
                let _ = thread::Builder::new().spawn_scoped(scope, || self.work());
            }
            self.work();
        });
    }

    fn work(&self) {
        let mut reader = Reader::new(self.scan);
        while self.failure.get().is_none() {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&chunk) = self.missing.get(next) else { return };
            match (self.hash_chunk(chunk, &mut reader), self.hashes.get(next)) {
                (Ok(hash), Some(slot)) => drop(slot.set(hash)),
                (Err(failure), _) => drop(self.failure.set(failure)),
                (Ok(_), None) => {}
            }
        }
    }

    fn hash_chunk(&self, chunk: ChunkId, reader: &mut Reader<'_>) -> Result<Hash, HashError> {
        let listing = self.scan.listing();
        let mut hasher = Hasher::new();
        for segment in listing.segments(listing.layout().range(chunk)) {
            reader.read(segment, |bytes| {
                hasher.update(bytes);
                self.add_progress(bytes.len() as u64);
            })?;
        }
        Ok(hasher.finalize())
    }

    fn add_progress(&self, bytes: u64) {
        let before = self.hashed_bytes.fetch_add(bytes, Ordering::Relaxed);
        (self.progress)(Progress {
            hashed_bytes: before.saturating_add(bytes),
            total_bytes: self.total_bytes,
        });
    }
}

/// Reads files of a scan, as long as they are what they were then.
pub struct Reader<'a> {
    scan: &'a Scan,
    /// The file read last, which is often the next one too, and the index of its entry.
    file: Option<(usize, File)>,
    buffer: Box<[u8]>,
}

impl<'a> Reader<'a> {
    /// A reader of this scan's files, which keeps one of them open at a time.
    pub(crate) fn new(scan: &'a Scan) -> Reader<'a> {
        Reader { scan, file: None, buffer: vec![0; READ_BYTES].into() }
    }

    /// Hands a stretch of a file to `each`, piece by piece. If it fails, the pieces that were
    /// handed out are good for nothing: they may be of two states of the file.
    pub(crate) fn read(
        &mut self,
        segment: Segment,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), HashError> {
        let Segment { entry, mut offset, len: mut left } = segment;
        let file = match self.file.take() {
            Some((held, file)) if held == entry => file,
            _ => self.open(entry)?,
        };
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = self.buffer.get_mut(..want).unwrap_or_default();
            let got = match file.read_at(piece, offset) {
                Ok(0) => return Err(HashError::Changed { path: self.scan.file_path(entry) }),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failure(entry, error)),
            };
            each(piece.get(..got).unwrap_or_default());
            offset = offset.saturating_add(got as u64);
            left = left.saturating_sub(got as u64);
        }
        self.check(entry, &file)?;
        self.file = Some((entry, file));
        Ok(())
    }

    fn open(&self, entry: usize) -> Result<File, HashError> {
        self.scan.open_same(entry).map_err(|error| self.failure(entry, error))
    }

    /// Is the open file what was scanned, and still as it was then?
    fn check(&self, entry: usize, file: &File) -> Result<(), HashError> {
        self.scan.check_same(entry, file).map_err(|error| self.failure(entry, error))
    }

    fn failure(&self, entry: usize, error: io::Error) -> HashError {
        let path = self.scan.file_path(entry);
        match error.raw_os_error() {
            // Gone, or a link or something else took its place or that of a directory above it.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ESTALE) => {
                HashError::Changed { path }
            }
            _ => HashError::Unreadable { path, error },
        }
    }
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &PathBuf| shown(path.as_os_str().as_bytes());
        match self {
            HashError::Changed { path } => write!(f, "{} changed while it was read", shown(path)),
            HashError::Unreadable { path, error } => {
                write!(f, "cannot read {}: {}", shown(path), reason(error))
            }
            HashError::Tree(problem) => write!(f, "cannot serve this tree: {problem}"),
        }
    }
}

impl std::error::Error for HashError {}

#[cfg(test)]
mod tests;
