//! The served image, whose bytes are a function of their offset, and the record of what a node has
//! written of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Content, Entry, Listing, Manifest, Mtime, Problem};
use crate::image::path::TreePath;

/// The image is generated in blocks of this many bytes.
const BLOCK_BYTES: u64 = 4096;
/// Longer than any piece that arrives.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Generates the bytes of an image, so that none of them have to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// No two blocks are alike.
    Varied,
    /// All zeros, which need not be generated.
    Blank,
}

impl Image {
    /// The manifest of `bytes` bytes, in a few files of odd sizes.
    pub(super) fn manifest(self, bytes: u64) -> Result<Arc<Manifest>, Problem> {
        let sizes = [0, bytes / 7, bytes / 3, bytes - bytes / 7 - bytes / 3];
        let mut entries = vec![entry(TreePath::root(), Content::Directory)];
        let paths = [&b"a"[..], b"b", b"dir/c", b"dir/d"];
        let files = sizes.map(|bytes| Content::File { bytes, image_offset: 0 });
        let others = [
            (&b"dir"[..], Content::Directory),
            (b"dir/link", Content::Symlink { target: b"../b".as_slice().into() }),
        ];
        for (path, content) in paths.into_iter().zip(files).chain(others) {
            if let Ok(path) = TreePath::from_manifest(path) {
                entries.push(entry(path, content));
            }
        }
        let listing = Listing::new(entries)?;
        let hashes = listing.layout().iter().map(|chunk| {
            let mut hasher = blake3::Hasher::new();
            self.visit(listing.layout().range(chunk), |bytes| {
                hasher.update(bytes);
                true
            });
            hasher.finalize()
        });
        let hashes = hashes.collect();
        Manifest::new(listing, hashes).map(Arc::new)
    }

    /// The bytes of `range`, the first of them wrong if they are `spoilt`. May use `buffer` to hold them.
    pub(super) fn bytes(self, range: Range<u64>, spoilt: bool, buffer: &mut Vec<u8>) -> &[u8] {
        let zeros = ZEROS.get(..(range.end - range.start) as usize);
        if let Some(zeros) = zeros.filter(|_| self == Image::Blank && !spoilt) {
            return zeros;
        }
        buffer.clear();
        self.visit(range, |bytes| {
            buffer.extend_from_slice(bytes);
            true
        });
        if let Some(byte) = buffer.first_mut().filter(|_| spoilt) {
            *byte ^= 1;
        }
        buffer
    }

    /// Whether these are the bytes at `offset`. Those of a blank image are not compared.
    fn matches(self, offset: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self == Image::Blank
            || self.visit(offset..offset.saturating_add(bytes.len() as u64), |true_bytes| {
                let (head, tail) = rest.split_at_checked(true_bytes.len()).unwrap_or((rest, &[]));
                rest = tail;
                head == true_bytes
            })
    }

    /// Passes the bytes of `range` to `look` in pieces until it returns false; whether it never did.
    fn visit(self, range: Range<u64>, mut look: impl FnMut(&[u8]) -> bool) -> bool {
        let mut at = range.start;
        while at < range.end {
            let block = if self == Image::Varied { block(at / BLOCK_BYTES) } else { BLANK };
            let from = at % BLOCK_BYTES;
            let to = BLOCK_BYTES.min(from + (range.end - at));
            if !look(block.get(from as usize..to as usize).unwrap_or_default()) {
                return false;
            }
            at += to - from;
        }
        true
    }
}

fn entry(path: TreePath, content: Content) -> Entry {
    Entry { path, mode: 0o755, owner: None, mtime: Mtime { secs: 0, nanos: 0 }, content }
}

const BLANK: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

fn block(number: u64) -> [u8; BLOCK_BYTES as usize] {
    let mut bytes = [0; BLOCK_BYTES as usize];
    let mut word = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for part in bytes.chunks_exact_mut(8) {
        word = word.rotate_left(23).wrapping_add(0xD1B5_4A32_D192_ED03);
        part.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What a node has stored, as far as it is correct.
#[derive(Debug)]
pub(super) struct Record {
    image: Image,
    /// For each unverified chunk its correct bytes, as ranges that neither overlap nor touch.
    correct: BTreeMap<ChunkId, Vec<Range<u64>>>,
    verified: ChunkSet,
}

/// A misuse of the store by a node's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A chunk is reported as verified though not all of its bytes are correct.
    NotRight,
    /// A chunk is reported as verified a second time.
    Twice,
    /// A verified chunk is overwritten.
    Overwritten,
}

impl Record {
    pub(super) fn new(manifest: &Manifest, image: Image) -> Record {
        Record { image, correct: BTreeMap::new(), verified: ChunkSet::empty(manifest.layout()) }
    }

    /// These chunks were stored before.
    pub(super) fn holding(self, held: ChunkSet) -> Record {
        Record { verified: held, ..self }
    }

    /// Bytes were stored at `offset`, over those that were there.
    pub(super) fn write(
        &mut self,
        manifest: &Manifest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), (ChunkId, Misuse)> {
        let written = offset..offset.saturating_add(bytes.len() as u64);
        let correct = self.image.matches(offset, bytes);
        for chunk in manifest.layout().covering(written.clone()) {
            if self.verified.contains(chunk) {
                return Err((chunk, Misuse::Overwritten));
            }
            replace(self.correct.entry(chunk).or_default(), written.clone(), correct);
        }
        Ok(())
    }

    /// A chunk was reported as verified.
    pub(super) fn verified(
        &mut self,
        manifest: &Manifest,
        chunk: ChunkId,
    ) -> Result<(), (ChunkId, Misuse)> {
        let correct = self.correct.remove(&chunk).unwrap_or_default();
        if !self.verified.insert(chunk) {
            return Err((chunk, Misuse::Twice));
        }
        if correct.as_slice() == [manifest.layout().range(chunk)] {
            Ok(())
        } else {
            Err((chunk, Misuse::NotRight))
        }
    }

    pub(super) fn held(&self) -> &ChunkSet {
        &self.verified
    }
}

/// Removes `written` from the ranges of correct bytes, and adds it again if it is `correct`.
fn replace(ranges: &mut Vec<Range<u64>>, written: Range<u64>, correct: bool) {
    if let Some(last) = ranges.last_mut().filter(|last| correct && last.end == written.start) {
        last.end = written.end;
        return;
    }
    let mut next: Vec<Range<u64>> = Vec::with_capacity(ranges.len() + 1);
    for range in ranges.drain(..) {
        next.push(range.start..range.end.min(written.start));
        next.push(range.start.max(written.end)..range.end);
    }
    if correct {
        next.push(written);
    }
    next.retain(|range| !range.is_empty());
    next.sort_by_key(|range| range.start);
    for range in next {
        match ranges.last_mut().filter(|last| last.end == range.start) {
            Some(last) => last.end = range.end,
            None => ranges.push(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_image_is_the_same_in_any_pieces() {
        let cut = |range: Range<u64>| Image::Varied.bytes(range, false, &mut Vec::new()).to_vec();
        let whole = cut(0..20_000);
        assert_eq!(whole, [cut(0..4095), cut(4095..9000), cut(9000..20_000)].concat());
        assert!(Image::Varied.matches(5000, &whole[5000..13_000]));
        assert!(!Image::Varied.matches(5001, &whole[5000..13_000]));
    }

    #[test]
    fn spoilt_bytes_are_wrong() {
        for image in [Image::Varied, Image::Blank] {
            let mut buffers = (Vec::new(), Vec::new());
            let right = image.bytes(0..100, false, &mut buffers.0);
            assert_ne!(image.bytes(0..100, true, &mut buffers.1), right);
        }
    }

    #[test]
    fn wrong_bytes_replace_correct_ones() {
        let whole = 0..20;
        let mut ranges = Vec::new();
        replace(&mut ranges, 0..10, true);
        replace(&mut ranges, 10..20, true);
        assert_eq!(ranges, std::slice::from_ref(&whole));
        replace(&mut ranges, 5..6, false);
        assert_eq!(ranges, [0..5, 6..20]);
        replace(&mut ranges, 4..7, true);
        assert_eq!(ranges, std::slice::from_ref(&whole));
    }
}
