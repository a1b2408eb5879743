//! Entries, and the listing that sorts them and lays their files end to end.

use std::ops::Range;

use super::check::{Problem, subtree_ends};
use crate::image::chunks::Layout;
use crate::image::path::TreePath;

/// One directory, regular file or symbolic link.
///
/// `mode` has permission bits only, at most 0o7777. `owner` is None where the node that fetches
/// chooses the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(crate) path: TreePath,
    pub(crate) mode: u32,
    pub(crate) owner: Option<Owner>,
    pub(crate) mtime: Mtime,
    pub(crate) content: Content,
}

/// Numeric user and group: early boot has no passwd file to look names up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Seconds and nanoseconds since 1970. `secs` is negative before 1970; `nanos` is 0 to 999,999,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Directory,
    /// A regular file. Its bytes stand in the image from `image_offset` on, which [`Listing::new`] sets.
    File {
        bytes: u64,
        image_offset: u64,
    },
    /// A symbolic link. Its target is kept byte for byte and never followed.
    Symlink {
        target: Box<[u8]>,
    },
}

impl Content {
    /// Longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
    pub(crate) const MAX_TARGET_BYTES: usize = 4095;
}

impl Entry {
    /// The part of the image that a file is; empty for directories and links.
    pub(crate) fn image_range(&self) -> Range<u64> {
        match self.content {
            Content::File { bytes, image_offset } => {
                image_offset..image_offset.saturating_add(bytes)
            }
            _ => 0..0,
        }
    }
}

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
