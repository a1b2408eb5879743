//! Entries, and the listing that puts them in order and lays their files end to end.

use std::ops::Range;

use super::check::{Problem, subtree_ends};
use crate::image::chunks::Layout;
use crate::image::path::TreePath;

/// Longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
pub const MAX_TARGET_BYTES: usize = 4095;

/// One directory, file or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is below the served root.
    pub path: TreePath,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Numeric owner; None leaves it to whoever fetches.
    pub owner: Option<Owner>,
    /// Time of the last change.
    pub mtime: Mtime,
    /// What it is.
    pub content: Content,
}

/// Numeric owner and group: early boot has no passwd file to look names up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds; before 1970 negative.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file; its bytes are a part of the image.
    File {
        /// Size in bytes.
        bytes: u64,
        /// Where the file begins in the image. [`Listing::new`] sets it.
        image_offset: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, kept as it is and never followed.
        target: Box<[u8]>,
    },
}

impl Entry {
    /// The part of the image that a file is; empty for what is no file.
    pub fn image_range(&self) -> Range<u64> {
        match self.content {
            Content::File { bytes, image_offset } => {
                image_offset..image_offset.saturating_add(bytes)
            }
            _ => 0..0,
        }
    }
}

/// A stretch of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the file's entry.
    pub entry: usize,
    /// Where the stretch begins in that file, in bytes.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub len: u64,
}

/// The entries in order, and the image that their files make when laid end to end.
///
/// Entries are sorted by path elements, so that a directory comes before what is in it and the
/// order does not depend on any file system. The first entry is the root.
#[derive(Clone, Debug)]
pub struct Listing {
    entries: Vec<Entry>,
    /// For each entry the index after the last entry below it.
    ends: Vec<usize>,
    /// The files that are not empty, in image order.
    files: Vec<usize>,
    layout: Layout,
}

impl Listing {
    /// Sorts entries, lays the files end to end and cuts the image.
    pub fn new(entries: Vec<Entry>) -> Result<Listing, Problem> {
        Listing::cut(entries, None)
    }

    pub(super) fn cut(
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
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at an index that came from this listing.
    pub fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// How the image is cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The index of the entry at `path`.
    pub fn find(&self, path: &TreePath) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    /// The index after the last entry below `index`; `index + 1` for what is no directory.
    pub fn subtree_end(&self, index: usize) -> usize {
        self.ends.get(index).copied().unwrap_or(self.entries.len())
    }

    /// The entries directly in directory `dir`, in order, beginning at index `from` if that is
    /// larger: a place to go on from.
    pub fn children(&self, dir: usize, from: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.subtree_end(dir);
        let inside = move |i: usize| (i < end).then_some(i);
        std::iter::successors(inside(from.max(dir + 1)), move |&i| inside(self.subtree_end(i)))
    }

    /// The stretches of files that make up a part of the image, in order.
    pub fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
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
