//! Chunks: how an image is cut, and sets of chunks.
//!
//! A chunk number is a [`ChunkId`]. Only a [`Layout`] makes one, so that a number from the network is
//! checked once, where it is decoded.

#[cfg(any(test, feature = "master", feature = "plain", feature = "simulator"))]
mod choice;

use std::fmt;
use std::ops::Range;

/// Smallest chunk, in bytes.
pub(crate) const MIN_CHUNK_BYTES: u64 = 64 << 10;
/// Largest chunk, in bytes.
pub(crate) const MAX_CHUNK_BYTES: u64 = 4 << 20;
/// Most chunks that an image may have: 4 TiB of the largest.
pub(crate) const MAX_CHUNKS: u64 = 1 << 20;

/// The number of a chunk that exists in the image it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(u32);

impl ChunkId {
    /// The number, counted from 0.
    pub(crate) fn get(self) -> u32 {
        self.0
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an image is cut: chunks of equal size, a power of two bytes, of which the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    image_bytes: u64,
    chunk_bytes: u64,
}

impl Layout {
    /// A layout that another master chose; None unless it is within the bounds above.
    pub(crate) fn new(image_bytes: u64, chunk_bytes: u64) -> Option<Layout> {
        let is_valid = chunk_bytes.is_power_of_two()
            && (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk_bytes)
            && image_bytes.div_ceil(chunk_bytes) <= MAX_CHUNKS;
        is_valid.then_some(Layout { image_bytes, chunk_bytes })
    }

    pub(crate) fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// Bytes of every chunk but the last.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// How many chunks there are; 0 for an empty image.
    pub(crate) fn count(&self) -> u32 {
        self.image_bytes.div_ceil(self.chunk_bytes) as u32
    }

    /// Chunk number `n`, if there is one.
    pub(crate) fn chunk(&self, n: u32) -> Option<ChunkId> {
        (n < self.count()).then_some(ChunkId(n))
    }

    /// All chunks in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ChunkId> + use<> {
        (0..self.count()).map(ChunkId)
    }

    /// The bytes of the image that a chunk holds.
    pub(crate) fn range(&self, chunk: ChunkId) -> Range<u64> {
        let start = u64::from(chunk.0).saturating_mul(self.chunk_bytes).min(self.image_bytes);
        start..start.saturating_add(self.chunk_bytes).min(self.image_bytes)
    }

    /// The chunks that hold any byte of `range`. Bytes past the end of the image are in none.
    pub(crate) fn covering(&self, range: Range<u64>) -> impl Iterator<Item = ChunkId> + use<> {
        let end = range.end.min(self.image_bytes).div_ceil(self.chunk_bytes);
        let start = if range.is_empty() { end } else { range.start / self.chunk_bytes };
        (start..end).map(|n| ChunkId(n as u32))
    }
}

/// A set of chunks of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSet {
    words: Vec<u64>,
    len: u32,
}

impl ChunkSet {
    /// The empty set, with room for the chunks of `layout`.
    pub(crate) fn empty(layout: &Layout) -> ChunkSet {
        ChunkSet { words: vec![0; (layout.count() as usize).div_ceil(64)], len: 0 }
    }

    /// Every chunk of `layout`.
    pub fn full(layout: &Layout) -> ChunkSet {
        let mut set = ChunkSet::empty(layout);
        for chunk in layout.iter() {
            set.insert(chunk);
        }
        set
    }

    /// Adds a chunk; false if it was in the set already.
    pub(crate) fn insert(&mut self, chunk: ChunkId) -> bool {
        let Some(word) = self.words.get_mut(chunk.index() / 64) else { return false };
        let bit = 1 << (chunk.index() % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u32::from(new);
        new
    }

    /// Removes a chunk; false if it was not in the set.
    pub(crate) fn remove(&mut self, chunk: ChunkId) -> bool {
        let Some(word) = self.words.get_mut(chunk.index() / 64) else { return false };
        let bit = 1 << (chunk.index() % 64);
        let old = *word & bit != 0;
        *word &= !bit;
        self.len -= u32::from(old);
        old
    }

    /// Adds every chunk of another set of the same image.
    pub(crate) fn add_all(&mut self, other: &ChunkSet) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.count();
    }

    fn count(&mut self) {
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// Adds the chunks from `first` to `last`, whole words at a time. [`ChunkSet::count`] has to follow.
    fn fill(&mut self, first: u32, last: u32) {
        let (from, to) = (first as usize / 64, last as usize / 64);
        for (word, n) in self.words.iter_mut().zip(0..).take(to + 1).skip(from) {
            let low = if n == from { !0 << (first % 64) } else { !0 };
            let high = if n == to { !0 >> (63 - last % 64) } else { !0 };
            *word |= low & high;
        }
    }

    pub(crate) fn contains(&self, chunk: ChunkId) -> bool {
        self.words
            .get(chunk.index() / 64)
            .is_some_and(|word| word & (1 << (chunk.index() % 64)) != 0)
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunks of the set in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ChunkId> + '_ {
        chunks_of(self.words.iter().copied())
    }

    /// The chunks that are in both sets, in order.
    pub(crate) fn common<'s>(&'s self, other: &'s ChunkSet) -> impl Iterator<Item = ChunkId> + 's {
        chunks_of(self.words.iter().zip(&other.words).map(|(a, b)| a & b))
    }

    /// The set as runs, `0-9 12 20-31`: the form that control files have.
    pub(crate) fn runs(&self) -> String {
        let mut text = String::new();
        let mut chunks = self.iter().map(ChunkId::get).peekable();
        while let Some(first) = chunks.next() {
            let mut last = first;
            while chunks.peek() == Some(&(last + 1)) {
                last += 1;
                chunks.next();
            }
            if !text.is_empty() {
                text.push(' ');
            }
            if first == last {
                text += &first.to_string();
            } else {
                text += &format!("{first}-{last}");
            }
        }
        text
    }
}

fn chunks_of(words: impl Iterator<Item = u64>) -> impl Iterator<Item = ChunkId> {
    words.enumerate().flat_map(|(i, word)| {
        // Each step clears the lowest bit that is set.
        std::iter::successors((word != 0).then_some(word), |word| {
            Some(word & (word - 1)).filter(|rest| *rest != 0)
        })
        .map(move |word| ChunkId(i as u32 * 64 + word.trailing_zeros()))
    })
}

/// Parses one run, `7` or `3-9`; None unless the image has all of these chunks.
pub(crate) fn parse_run(
    text: &str,
    layout: &Layout,
) -> Option<impl ExactSizeIterator<Item = ChunkId> + use<>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    let run = first as usize..(last as usize).checked_add(1)?;
    (first <= last && layout.chunk(last).is_some()).then(|| run.map(|n| ChunkId(n as u32)))
}

/// Parses runs and the spaces between them; None if one is malformed.
///
/// It takes time in proportion to the text and the image, however often the same chunks are named.
pub(crate) fn parse_runs(text: &str, layout: &Layout) -> Option<ChunkSet> {
    let mut set = ChunkSet::empty(layout);
    for run in text.split(' ').filter(|run| !run.is_empty()) {
        let mut run = parse_run(run, layout)?;
        if let Some(first) = run.next() {
            set.fill(first.0, first.0 + run.len() as u32);
        }
    }
    set.count();
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_layout_has_one_to_two_thousand_chunks() {
        for mib in [64, 100, 700, 1024, 4000] {
            let count = Layout::for_image(mib << 20).count();
            assert!((1000..=2048).contains(&count), "{mib} MiB: {count}");
        }
        assert_eq!(Layout::for_image(1).count(), 1);
        assert_eq!(Layout::for_image(0).count(), 0);
    }

    #[test]
    fn the_last_chunk_ends_with_the_image() {
        let layout = Layout::new(MIN_CHUNK_BYTES + 5, MIN_CHUNK_BYTES).unwrap();
        let last = layout.chunk(1).unwrap();
        assert_eq!(layout.range(last), MIN_CHUNK_BYTES..MIN_CHUNK_BYTES + 5);
        assert_eq!(layout.chunk(2), None);
    }

    #[test]
    fn covering_yields_only_chunks_that_overlap_the_range() {
        let layout = Layout::new(10 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES).unwrap();
        let covering = |range| layout.covering(range).map(ChunkId::get).collect::<Vec<_>>();
        assert_eq!(covering(0..1), [0]);
        assert_eq!(covering(MIN_CHUNK_BYTES - 1..MIN_CHUNK_BYTES + 1), [0, 1]);
        assert_eq!(covering(5..5), []);
        assert_eq!(covering(9 * MIN_CHUNK_BYTES..u64::MAX), [9]);
    }

    #[test]
    fn a_set_printed_as_runs_parses_to_the_same_set() {
        let layout = Layout::new(200 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES).unwrap();
        let mut set = ChunkSet::empty(&layout);
        for n in [0, 1, 2, 7, 63, 64, 199] {
            set.insert(layout.chunk(n).unwrap());
        }
        assert_eq!(set.runs(), "0-2 7 63-64 199");
        assert_eq!(parse_runs(&set.runs(), &layout), Some(set));
    }

    #[test]
    fn runs_that_overlap_name_each_chunk_once() {
        let layout = Layout::new(300 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES).unwrap();
        let set = parse_runs(&"3-299 0-63 64 5-200 ".repeat(1000), &layout).unwrap();
        assert_eq!((set.runs().as_str(), set.len()), ("0-299", 300));
    }

    #[test]
    fn a_run_beyond_the_image_is_refused() {
        let layout = Layout::new(10 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES).unwrap();
        for bad in ["10", "0-10", "5-4", "-", "", "x", "4294967296", "-1"] {
            assert!(parse_run(bad, &layout).is_none(), "{bad}");
        }
    }
}
