//! Whether bytes that are sent over HTTP are those that were hashed: nobody else verifies them.
//!
//! A write through a memory mapping changes a file's contents and at first none of its times, so that only the
//! contents themselves tell. Chunks are too large to be hashed for each piece that is sent, and may hold very many
//! files besides. So a chunk is read and compared with the manifest when a byte of it is first asked for, on a thread
//! of its own, and a checksum of each of its pieces is kept: 64 bits, since nobody who can write to a served file
//! needs to forge any. Each piece is compared with its checksum right before it is sent.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use blake3::{Hash, Hasher};

use super::by_host::HostQueue;
use super::hash::{HashError, Reader};
use super::scan::Scan;
use crate::image::chunks::ChunkId;
use crate::image::manifest::Manifest;
use crate::limits::{MAX_CHECKSUM_BYTES, MAX_HTTP_BYTES};
use crate::serve::tree::Tree;

/// Bytes of a piece; the last one of a file in a chunk may be shorter.
pub(super) const PIECE_BYTES: u64 = MAX_HTTP_BYTES as u64;
/// What a chunk is counted for besides its checksums.
const CHUNK_COST_BYTES: usize = 256;

/// A chunk of a generation.
type Key = (Hash, ChunkId);

/// What is known of chunks, the oldest of which are forgotten where it is too much.
#[derive(Default)]
pub(super) struct Proofs {
    chunks: HashMap<Key, Rc<Proof>>,
    /// Those that are known, in the order in which they came to be.
    known: VecDeque<Key>,
    known_bytes: usize,
    waiting: HostQueue<(Arc<Tree>, ChunkId)>,
    /// Somebody proves what waits.
    works: bool,
}

/// What is known of one chunk.
pub(super) struct Proof(RefCell<State>);

enum State {
    /// It is not read yet; these are to be told.
    Waiting(Vec<Waker>),
    Known(Checksums),
    /// It is not what was hashed, or cannot be read.
    Failed,
}

/// The checksums of a chunk's pieces, file by file, and the index of each one's file.
pub(super) struct Checksums {
    entries: Box<[u32]>,
    sums: Box<[u64]>,
}

impl Proofs {
    /// What is known of a chunk, or will be once it is read, for a host that waits for it.
    pub(super) fn of(&mut self, tree: &Arc<Tree>, chunk: ChunkId, host: IpAddr) -> Rc<Proof> {
        let key = (tree.manifest().generation(), chunk);
        let waiting = &mut self.waiting;
        let proof = self.chunks.entry(key).or_insert_with(|| {
            waiting.push(host, (tree.clone(), chunk));
            Rc::new(Proof(RefCell::new(State::Waiting(Vec::new()))))
        });
        proof.clone()
    }

    /// Whether somebody has to begin to read what waits.
    pub(super) fn wants_work(&mut self) -> bool {
        self.waiting.len() > 0 && !std::mem::replace(&mut self.works, true)
    }

    /// The next chunk to read; then comes [`Proofs::ended`]. None ends the work.
    pub(super) fn next(&mut self) -> Option<(Arc<Tree>, ChunkId)> {
        let next = self.waiting.pop(|_| true);
        self.works = next.is_some();
        next
    }

    /// A chunk of a generation was read; None if it is not what it should be.
    pub(super) fn ended(&mut self, key: Key, checksums: Option<Checksums>) {
        let bytes = checksums.as_ref().map(Checksums::bytes);
        let state = checksums.map_or(State::Failed, State::Known);
        let proof = match bytes {
            Some(_) => self.chunks.get(&key).cloned(),
            // Whoever asks for it next has it read again: there may be a remedy by then.
            None => self.chunks.remove(&key),
        };
        if let Some(proof) = proof {
            proof.becomes(state);
        }
        if let Some(bytes) = bytes {
            self.known.push_back(key);
            self.known_bytes += bytes;
        }
        while self.known_bytes > MAX_CHECKSUM_BYTES && self.known.len() > 1 {
            let Some(oldest) = self.known.pop_front() else { break };
            let bytes = self.chunks.remove(&oldest).map_or(0, |proof| proof.bytes());
            self.known_bytes = self.known_bytes.saturating_sub(bytes);
        }
    }
}

impl Proof {
    /// Whether the chunk is what was hashed, once that is known.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<bool> {
        match &mut *self.0.borrow_mut() {
            State::Waiting(wakers) => {
                if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
            State::Known(_) => Poll::Ready(true),
            State::Failed => Poll::Ready(false),
        }
    }

    /// Whether these bytes are a piece of the chunk: that with this number of an entry's file.
    pub(super) fn fits(&self, entry: usize, piece: usize, bytes: &[u8]) -> bool {
        match &*self.0.borrow() {
            State::Known(checksums) => checksums.get(entry, piece) == Some(checksum(bytes)),
            _ => false,
        }
    }

    fn becomes(&self, state: State) {
        if let State::Waiting(wakers) = self.0.replace(state) {
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn bytes(&self) -> usize {
        match &*self.0.borrow() {
            State::Known(checksums) => checksums.bytes(),
            _ => 0,
        }
    }
}

impl Checksums {
    /// Reads a chunk; None if it is not what was hashed.
    pub(super) fn of(
        scan: &Scan,
        manifest: &Manifest,
        chunk: ChunkId,
    ) -> Result<Option<Checksums>, HashError> {
        let mut reader = Reader::new(scan);
        let mut whole = Hasher::new();
        let (mut entries, mut sums) = (Vec::new(), Vec::new());
        for segment in manifest.listing().segments(manifest.layout().range(chunk)) {
            let mut piece = Vec::with_capacity(PIECE_BYTES.min(segment.len) as usize);
            let mut end_piece = |piece: &mut Vec<u8>| {
                entries.push(segment.entry as u32);
                sums.push(checksum(piece));
                piece.clear();
            };
            reader.read(segment, |mut bytes| {
                whole.update(bytes);
                while !bytes.is_empty() {
                    let room = (PIECE_BYTES as usize).saturating_sub(piece.len());
                    let (now, later) = bytes.split_at(room.min(bytes.len()));
                    piece.extend_from_slice(now);
                    bytes = later;
                    if piece.len() == PIECE_BYTES as usize {
                        end_piece(&mut piece);
                    }
                }
            })?;
            if !piece.is_empty() {
                end_piece(&mut piece);
            }
        }
        let is_right = manifest.hash(chunk) == Some(&whole.finalize());
        Ok(is_right.then(|| Checksums { entries: entries.into(), sums: sums.into() }))
    }

    fn get(&self, entry: usize, piece: usize) -> Option<u64> {
        let first = self.entries.partition_point(|&other| (other as usize) < entry);
        let at = first.checked_add(piece)?;
        let is_its = self.entries.get(at).is_some_and(|&other| other as usize == entry);
        self.sums.get(at).copied().filter(|_| is_its)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.sums) + CHUNK_COST_BYTES
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    Hasher::new().update(bytes).finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::super::cache::Cache;
    use super::super::hash::hash;
    use super::super::scan::tests::TempDir;
    use super::super::scan::{ScanOptions, scan};
    use super::*;

    const PIECE: usize = PIECE_BYTES as usize;

    fn hashed(dir: &TempDir) -> (Scan, Manifest) {
        let later = SystemTime::now() + Duration::from_secs(10);
        let scan = scan(dir.path(), &ScanOptions::default(), later).unwrap();
        let manifest = hash(&scan, &mut Cache::default(), 1, &|_| {}).unwrap();
        (scan, manifest)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Writes to a file as a mapping does: afterwards its times are what they were.
    fn rewrite(path: &std::path::Path, scan: &mut Scan, bytes: &[u8]) {
        use std::os::unix::fs::FileExt as _;
        fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, 0).unwrap();
        scan.forget_times(path);
    }

    #[test]
    fn a_piece_of_a_file_that_shares_its_chunk_with_others_is_known() {
        let dir = TempDir::new();
        let b = noise(PIECE + 10);
        dir.write("a", b"x");
        dir.write("b", &b);
        dir.write("c", b"yz");
        let (scan, manifest) = hashed(&dir);
        let chunk = manifest.layout().chunk(0).unwrap();
        let checksums = Checksums::of(&scan, &manifest, chunk).unwrap().unwrap();
        assert_eq!(checksums.get(1, 0), Some(checksum(b"x")));
        assert_eq!(checksums.get(2, 0), Some(checksum(&b[..PIECE])));
        assert_eq!(checksums.get(2, 1), Some(checksum(&b[PIECE..])));
        assert_eq!(checksums.get(2, 2), None);
        assert_eq!(checksums.get(3, 0), Some(checksum(b"yz")));
    }

    #[test]
    fn a_chunk_that_is_no_longer_what_was_hashed_has_no_checksums_though_no_time_says_so() {
        let dir = TempDir::new();
        let path = dir.write("a", &noise(100));
        let (mut scan, manifest) = hashed(&dir);
        rewrite(&path, &mut scan, b"other");
        let chunk = manifest.layout().chunk(0).unwrap();
        assert!(Checksums::of(&scan, &manifest, chunk).unwrap().is_none());
    }

    fn host() -> IpAddr {
        [10, 0, 0, 1].into()
    }

    fn proofs() -> (Proofs, Arc<Tree>) {
        let manifest = Arc::new(crate::image::manifest::tests::sample());
        (Proofs::default(), Arc::new(Tree::new(manifest)))
    }

    fn checksums(pieces: usize) -> Checksums {
        Checksums { entries: vec![1; pieces].into(), sums: vec![7; pieces].into() }
    }

    #[test]
    fn a_chunk_that_many_ask_for_is_read_once_and_all_are_told() {
        let (mut proofs, tree) = proofs();
        let chunk = tree.manifest().layout().chunk(1).unwrap();
        let cx = &Context::from_waker(Waker::noop());
        let asked: Vec<_> = (0..9).map(|n| proofs.of(&tree, chunk, [10, 0, 0, n].into())).collect();
        assert!(asked.iter().all(|proof| proof.poll(cx).is_pending()));
        assert_eq!(proofs.waiting.len(), 1);
        proofs.ended((tree.manifest().generation(), chunk), Some(checksums(1)));
        assert!(asked.iter().all(|proof| proof.poll(cx) == Poll::Ready(true)));
    }

    #[test]
    fn a_chunk_that_was_wrong_is_read_again_for_the_next_one() {
        let (mut proofs, tree) = proofs();
        let chunk = tree.manifest().layout().chunk(0).unwrap();
        let cx = &Context::from_waker(Waker::noop());
        let first = proofs.of(&tree, chunk, host());
        assert!(proofs.wants_work() && proofs.next().is_some());
        proofs.ended((tree.manifest().generation(), chunk), None);
        assert_eq!(first.poll(cx), Poll::Ready(false));
        let second = proofs.of(&tree, chunk, host());
        assert!(second.poll(cx).is_pending());
        assert_eq!(proofs.waiting.len(), 1);
    }

    #[test]
    fn so_many_checksums_are_kept_and_no_more() {
        let (mut proofs, tree) = proofs();
        let pieces = MAX_CHECKSUM_BYTES / 12 / 10;
        for n in 0..30u64 {
            for chunk in tree.manifest().layout().iter() {
                let key = (blake3::hash(&n.to_le_bytes()), chunk);
                let proof = Proof(RefCell::new(State::Waiting(Vec::new())));
                proofs.chunks.insert(key, Rc::new(proof));
                proofs.ended(key, Some(checksums(pieces)));
            }
        }
        assert!(proofs.known_bytes <= MAX_CHECKSUM_BYTES);
        assert_eq!(proofs.chunks.len(), proofs.known.len());
        assert_eq!(proofs.known.len(), 9);
    }
}
