//! The listing, which sorts entries and lays their files end to end.

use std::ops::Range;

use super::check::subtree_ends;
use super::entry::{Content, Entry};
use super::error::Problem;
use crate::image::chunks::Layout;
use crate::image::path::TreePath;

/// A part of one file: `len` bytes from `offset` on, never empty. `entry` is the index of the file's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub(crate) entry: usize,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The sorted entries of a tree, and the image that their files make when laid end to end.
///
/// Entries are sorted by path elements, so that a directory comes right before what is in it and the
/// order does not depend on any file system. The first entry is the root.
#[derive(Clone, Debug)]
pub struct Listing {
    entries: Vec<Entry>,
    /// For each entry the index after the last entry below it.
    ends: Vec<usize>,
    /// The indices of the files that are not empty, in image order.
    files: Vec<usize>,
    layout: Layout,
}

impl Listing {
    /// Sorts entries, lays their files end to end and chooses the size of chunks.
    #[cfg(any(test, feature = "master", feature = "simulator"))]
    pub(crate) fn new(entries: Vec<Entry>) -> Result<Listing, Problem> {
        Listing::with_chunk_bytes(entries, None)
    }

    /// The same with chunks of a given size.
    pub(super) fn with_chunk_bytes(
        mut entries: Vec<Entry>,
        chunk_bytes: Option<u64>,
    ) -> Result<Listing, Problem> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut image_bytes = 0u64;
        let mut files = Vec::new();
        for (i, entry) in entries.iter_mut().enumerate() {
            if let Content::File { bytes, image_offset } = &mut entry.content {
                *image_offset = image_bytes;
                image_bytes = image_bytes.checked_add(*bytes).ok_or(Problem::TooLarge)?;
                if *bytes > 0 {
                    files.push(i);
                }
            }
        }
        let chunk_bytes = chunk_bytes.unwrap_or(Layout::for_image(image_bytes).chunk_bytes());
        let layout = Layout::new(image_bytes, chunk_bytes).ok_or(Problem::TooLarge)?;
        let ends = subtree_ends(&entries)?;
        Ok(Listing { entries, ends, files, layout })
    }

    /// All entries; the root is the first.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The index of the entry at `path`.
    pub(crate) fn find(&self, path: &TreePath) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    /// The index after the last entry below `index`; `index + 1` for files and links.
    pub(crate) fn subtree_end(&self, index: usize) -> usize {
        self.ends.get(index).copied().unwrap_or(self.entries.len())
    }

    /// The entries directly in directory `dir`, in order. Those with an index below `from` are left
    /// out, so that a caller can resume.
    pub(crate) fn children(&self, dir: usize, from: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.subtree_end(dir);
        let inside = move |i: usize| (i < end).then_some(i);
        std::iter::successors(inside(from.max(dir + 1)), move |&i| inside(self.subtree_end(i)))
    }

    /// The parts of files that make up a range of the image, in order.
    pub(crate) fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let first = self.files.partition_point(|&i| {
            self.entry(i).is_some_and(|entry| entry.image_range().end <= range.start)
        });
        self.files.iter().skip(first).map_while(move |&entry| {
            let file = self.entry(entry)?.image_range();
            let start = range.start.max(file.start);
            let end = range.end.min(file.end);
            (start < end).then(|| Segment { entry, offset: start - file.start, len: end - start })
        })
    }
}
