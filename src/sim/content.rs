//! What is served: an image whose bytes are a function of their place, and the record of what a
//! node has written of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Content, Entry, Listing, Manifest, Mtime, Problem};
use crate::image::path::TreePath;

/// The image is made in blocks of this many bytes.
const BLOCK_BYTES: u64 = 4096;
/// More bytes than ever arrive at a time.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Makes the bytes of an image, so that none of them have to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// No two blocks are alike.
    Varied,
    /// All zeros, which need not be made.
    Blank,
}

impl Image {
    /// The manifest of `bytes` bytes, in a few files of odd sizes.
    pub(super) fn manifest(self, bytes: u64) -> Result<Arc<Manifest>, Problem> {
        let sizes = [0, bytes / 7, bytes / 3, bytes - bytes / 7 - bytes / 3];
        let mut entries = vec![entry(TreePath::root(), Content::Directory)];
        let places = [&b"a"[..], b"b", b"dir/c", b"dir/d"];
        let files = sizes.map(|bytes| Content::File { bytes, image_offset: 0 });
        let others = [
            (&b"dir"[..], Content::Directory),
            (b"dir/link", Content::Symlink { target: b"../b".as_slice().into() }),
        ];
        for (place, content) in places.into_iter().zip(files).chain(others) {
            if let Ok(path) = TreePath::from_manifest(place) {
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

    /// The bytes of `range`, the first of them wrong if they are `spoilt`. They may be in `buffer`.
    pub(super) fn bytes(self, range: Range<u64>, spoilt: bool, buffer: &mut Vec<u8>) -> &[u8] {
        let zeros = ZEROS.get(..(range.end - range.start) as usize);
        match zeros.filter(|_| self == Image::Blank && !spoilt) {
            Some(zeros) => zeros,
            None => {
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
        }
    }

    /// Are these the bytes at `offset`? Those of a blank image are not looked at.
    fn matches(self, offset: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self == Image::Blank
            || self.visit(offset..offset.saturating_add(bytes.len() as u64), |true_bytes| {
                let (head, tail) = rest.split_at_checked(true_bytes.len()).unwrap_or((rest, &[]));
                rest = tail;
                head == true_bytes
            })
    }

    /// Shows the bytes of `range` in pieces until `look` says no; whether it never did.
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
    for place in bytes.chunks_exact_mut(8) {
        word = word.rotate_left(23).wrapping_add(0xD1B5_4A32_D192_ED03);
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What a node has stored, as far as it is right.
#[derive(Debug)]
pub(super) struct Record {
    image: Image,
    /// For each chunk on its way the right bytes, as ranges that neither overlap nor touch.
    right: BTreeMap<ChunkId, Vec<Range<u64>>>,
    verified: ChunkSet,
}

/// What a node must never do with what it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// It reports a chunk as verified of which not all bytes are right.
    NotRight,
    /// It reports a chunk as verified a second time.
    Twice,
    /// It overwrites a chunk that it has verified.
    Overwritten,
}

impl Record {
    pub(super) fn new(manifest: &Manifest, image: Image) -> Record {
        Record { image, right: BTreeMap::new(), verified: ChunkSet::empty(manifest.layout()) }
    }

    /// So much was there and right before.
    pub(super) fn holding(self, held: ChunkSet) -> Record {
        Record { verified: held, ..self }
    }

    /// Bytes were stored at `offset`; those that were there are gone.
    pub(super) fn write(
        &mut self,
        manifest: &Manifest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), (ChunkId, Misuse)> {
        let written = offset..offset.saturating_add(bytes.len() as u64);
        let right = self.image.matches(offset, bytes);
        for chunk in manifest.layout().covering(written.clone()) {
            if self.verified.contains(chunk) {
                return Err((chunk, Misuse::Overwritten));
            }
            replace(self.right.entry(chunk).or_default(), written.clone(), right);
        }
        Ok(())
    }

    /// A chunk was reported as verified.
    pub(super) fn verified(
        &mut self,
        manifest: &Manifest,
        chunk: ChunkId,
    ) -> Result<(), (ChunkId, Misuse)> {
        let right = self.right.remove(&chunk).unwrap_or_default();
        if !self.verified.insert(chunk) {
            return Err((chunk, Misuse::Twice));
        }
        match right.as_slice() == [manifest.layout().range(chunk)] {
            true => Ok(()),
            false => Err((chunk, Misuse::NotRight)),
        }
    }

    /// What is verified.
    pub(super) fn held(&self) -> &ChunkSet {
        &self.verified
    }
}

/// Takes `written` out of `ranges`, and puts it in again if it `belongs` there.
fn replace(ranges: &mut Vec<Range<u64>>, written: Range<u64>, belongs: bool) {
    if let Some(last) = ranges.last_mut().filter(|last| belongs && last.end == written.start) {
        last.end = written.end;
        return;
    }
    let mut next: Vec<Range<u64>> = Vec::with_capacity(ranges.len() + 1);
    for range in ranges.drain(..) {
        next.push(range.start..range.end.min(written.start));
        next.push(range.start.max(written.end)..range.end);
    }
    if belongs {
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
    fn a_part_of_the_image_is_the_same_however_it_is_cut() {
        let cut = |range: Range<u64>| Image::Varied.bytes(range, false, &mut Vec::new()).to_vec();
        let whole = cut(0..20_000);
        assert_eq!(whole, [cut(0..4095), cut(4095..9000), cut(9000..20_000)].concat());
        assert!(Image::Varied.matches(5000, &whole[5000..13_000]));
        assert!(!Image::Varied.matches(5001, &whole[5000..13_000]));
    }

    #[test]
    fn a_liars_bytes_are_wrong() {
        for image in [Image::Varied, Image::Blank] {
            let mut buffers = (Vec::new(), Vec::new());
            let right = image.bytes(0..100, false, &mut buffers.0);
            assert_ne!(image.bytes(0..100, true, &mut buffers.1), right);
        }
    }

    #[test]
    fn wrong_bytes_spoil_what_was_right_before() {
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
