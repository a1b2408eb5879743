//! The listing, which sorts entries and lays their files end to end.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::check::TreeCheck;
use super::entry::{Content, Entry};
use super::error::Problem;
use super::text::parse_entry;
use crate::image::chunks::Layout;
use crate::image::path::{TreePath, compare, unescape};

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
///
/// A tree may have millions of entries, so that they are held as the lines of the manifest's text alone: an entry is
/// parsed when it is asked for, and costs 8 bytes besides its line (20 if it is a file that is not empty). A clone
/// shares all of it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The manifest's text, with or without the hashes at its end.
    pub(super) text: Arc<[u8]>,
    /// For each entry where its path begins in the text.
    paths: Arc<[u32]>,
    /// For each entry the index after the last entry below it.
    ends: Arc<[u32]>,
    /// The indices of the files that are not empty, in image order, and where each begins in the image.
    files: Arc<[u32]>,
    starts: Arc<[u64]>,
    layout: Layout,
}

impl Listing {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(crate) fn entry(&self, index: usize) -> Option<Entry> {
        let mut entry = parse_entry(std::str::from_utf8(self.line(index)?).ok()?).ok()?;
        if let Content::File { image_offset, .. } = &mut entry.content {
            *image_offset = self.image_start(index);
        }
        Some(entry)
    }

    /// The path of an entry.
    pub(crate) fn path(&self, index: usize) -> Option<TreePath> {
        TreePath::from_manifest(&unescape(std::str::from_utf8(self.path_word(index)?).ok()?)?).ok()
    }

    /// Whether an entry is a directory.
    pub(crate) fn is_dir(&self, index: usize) -> bool {
        self.line(index).is_some_and(|line| line.starts_with(b"d"))
    }

    /// Where an entry begins in the image; of what is no file, or empty, where it would.
    pub(crate) fn image_start(&self, index: usize) -> u64 {
        let at = self.files.partition_point(|&file| (file as usize) < index);
        self.starts.get(at).copied().unwrap_or(self.layout.image_bytes())
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The index of the entry at `path`.
    pub(crate) fn find(&self, path: &TreePath) -> Option<usize> {
        let at = self.first_from(path);
        (*plain(self.path_word(at)?) == *path.as_bytes()).then_some(at)
    }

    /// The index of the first entry whose path is `path` or comes after it.
    pub(crate) fn first_from(&self, path: &TreePath) -> usize {
        self.paths
            .partition_point(|&at| compare(&plain(word(&self.text, at)), path.as_bytes()).is_lt())
    }

    /// The index after the last entry below `index`; `index + 1` for files and links.
    pub(crate) fn subtree_end(&self, index: usize) -> usize {
        self.ends.get(index).map_or(self.len(), |end| *end as usize)
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
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        (first..self.starts.len()).map_while(move |i| {
            let file_start = *self.starts.get(i)?;
            let file_end = self.starts.get(i + 1).copied().unwrap_or(self.layout.image_bytes());
            let start = range.start.max(file_start);
            let end = range.end.min(file_end);
            let entry = *self.files.get(i)? as usize;
            (start < end).then(|| Segment { entry, offset: start - file_start, len: end - start })
        })
    }

    /// The text that it was made of.
    pub(super) fn text(&self) -> &Arc<[u8]> {
        &self.text
    }

    /// The line of an entry, without its end.
    fn line(&self, index: usize) -> Option<&[u8]> {
        let (before, after) = self.text.split_at_checked(*self.paths.get(index)? as usize)?;
        let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let len = after.iter().position(|&b| b == b'\n')?;
        self.text.get(start..before.len() + len)
    }

    /// The text up to the end of the last entry.
    pub(super) fn own_text(&self) -> &[u8] {
        let last = self.paths.last().map_or(0, |at| *at as usize);
        let rest = self.text.get(last..).unwrap_or_default();
        let len = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        self.text.get(..last + len).unwrap_or_default()
    }

    fn path_word(&self, index: usize) -> Option<&[u8]> {
        self.paths.get(index).map(|&at| word(&self.text, at))
    }
}

/// Whether both list the same; what hashes a manifest has besides does not count.
impl PartialEq for Listing {
    fn eq(&self, other: &Listing) -> bool {
        self.len() == other.len() && self.own_text() == other.own_text()
    }
}

/// The word of a text that begins at an offset.
fn word(text: &[u8], at: u32) -> &[u8] {
    let rest = text.get(at as usize..).unwrap_or_default();
    let end = rest.iter().position(|b| matches!(b, b' ' | b'\n')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// The bytes of the path that a word of a manifest stands for; empty for the root.
fn plain(word: &[u8]) -> Cow<'_, [u8]> {
    match word {
        b"." => Cow::Borrowed(b""),
        _ if !word.contains(&b'\\') => Cow::Borrowed(word),
        _ => Cow::Owned(std::str::from_utf8(word).ok().and_then(unescape).unwrap_or_default()),
    }
}

/// A listing whose entries come one by one, in the order of their paths.
pub(super) struct Builder {
    check: TreeCheck,
    paths: Vec<u32>,
    files: Vec<u32>,
    starts: Vec<u64>,
    image_bytes: u64,
}

impl Builder {
    /// None has come, and so many will.
    pub(super) fn with_capacity(entries: usize) -> Builder {
        Builder {
            check: TreeCheck::with_capacity(entries),
            paths: Vec::with_capacity(entries),
            files: Vec::new(),
            starts: Vec::new(),
            image_bytes: 0,
        }
    }

    /// The next entry, whose path begins at an offset of the text.
    pub(super) fn add(&mut self, entry: Entry, path_at: usize) -> Result<(), Problem> {
        let index = self.paths.len() as u32;
        if let Content::File { bytes, .. } = entry.content {
            if bytes > 0 {
                self.files.push(index);
                self.starts.push(self.image_bytes);
            }
            self.image_bytes = self.image_bytes.checked_add(bytes).ok_or(Problem::TooLarge)?;
        }
        self.paths.push(u32::try_from(path_at).map_err(|_| Problem::TooLong)?);
        self.check.add(entry.path, entry.content == Content::Directory)
    }

    /// All have come; their lines are in `text`.
    pub(super) fn finish(self, text: Arc<[u8]>, chunk_bytes: u64) -> Result<Listing, Problem> {
        Ok(Listing {
            layout: Layout::new(self.image_bytes, chunk_bytes).ok_or(Problem::TooLarge)?,
            ends: self.check.ends()?.into(),
            text,
            paths: self.paths.into(),
            files: self.files.into(),
            starts: self.starts.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::tests::entry;

    #[test]
    fn an_entry_costs_few_bytes_besides_its_line() {
        let file = |n: u64| {
            let content = Content::File { bytes: n % 2, image_offset: 0 };
            entry(&format!("{n:04}"), content)
        };
        let root = entry(".", Content::Directory);
        let listing = Listing::new([root].into_iter().chain((0..1000).map(file)).collect());
        let Listing { text, paths, ends, files, starts, layout: _ } = listing.unwrap();
        let lines: usize = text.split(|&b| b == b'\n').skip(2).map(<[u8]>::len).sum();
        assert!(text.len() <= lines + 1001 + 40);
        assert_eq!(size_of_val(&*paths) + size_of_val(&*ends), 1001 * 8);
        assert_eq!(size_of_val(&*files) + size_of_val(&*starts), 500 * 12);
    }
}
