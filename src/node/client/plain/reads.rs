//! Which reads are to be made, and what is whole when they are.

use std::collections::VecDeque;
use std::ops::Range;

use crate::image::chunks::{ChunkId, Layout};

/// A read of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Index of the file among those that are read together.
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) count: u32,
}

/// The reads that bring some files whole, over one connection or several.
#[derive(Debug)]
pub(super) struct Reads {
    /// What was not asked for yet of each file.
    rest: VecDeque<(usize, Range<u64>)>,
    /// Asked for, and not answered yet.
    on_their_way: Vec<Read>,
}

impl Reads {
    /// Files of these sizes, in bytes.
    pub(super) fn new(sizes: impl Iterator<Item = u64>) -> Reads {
        let files = sizes.enumerate().filter(|(_, bytes)| *bytes > 0);
        Reads {
            rest: files.map(|(file, bytes)| (file, 0..bytes)).collect(),
            on_their_way: Vec::new(),
        }
    }

    /// The next read to make, of at most `most_bytes`, at least one.
    pub(super) fn next(&mut self, most_bytes: u32) -> Option<Read> {
        let (file, rest) = self.rest.front_mut()?;
        let left = rest.end.saturating_sub(rest.start);
        let count = u32::try_from(left).unwrap_or(u32::MAX).min(most_bytes.max(1));
        let read = Read { file: *file, offset: rest.start, count };
        rest.start = rest.start.saturating_add(u64::from(count));
        if rest.is_empty() {
            self.rest.pop_front();
        }
        self.on_their_way.push(read);
        Some(read)
    }

    /// A read has brought `came` bytes. A server may send fewer than it was asked for: the rest is
    /// asked for again. False if there is no rest, as the file is shorter than it was.
    pub(super) fn came(&mut self, read: Read, came: u32) -> bool {
        self.on_their_way.retain(|other| *other != read);
        let end = read.offset.saturating_add(u64::from(read.count));
        let rest = read.offset.saturating_add(u64::from(came))..end;
        if !rest.is_empty() {
            self.rest.push_front((read.file, rest));
        }
        came > 0
    }

    /// What is on its way will not come: the connection is lost.
    pub(super) fn lost(&mut self) {
        while let Some(Read { file, offset, count }) = self.on_their_way.pop() {
            self.rest.push_front((file, offset..offset.saturating_add(u64::from(count))));
        }
    }
}

/// How many bytes of each chunk were not read yet.
#[derive(Debug)]
pub(super) struct Unread<'a> {
    layout: &'a Layout,
    chunks: Vec<u64>,
}

impl<'a> Unread<'a> {
    /// With these ranges of the image to be read.
    pub(super) fn new(layout: &'a Layout, files: impl Iterator<Item = Range<u64>>) -> Unread<'a> {
        let mut unread = Unread { layout, chunks: vec![0; layout.count() as usize] };
        for file in files {
            for chunk in layout.covering(file.clone()) {
                let part = unread.part(chunk, &file);
                if let Some(left) = unread.chunks.get_mut(chunk.index()) {
                    *left = left.saturating_add(part);
                }
            }
        }
        unread
    }

    /// All of them together.
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.iter().sum()
    }

    /// A file's range of the image is read; the chunks of which nothing is to be read any more.
    pub(super) fn read(&mut self, file: Range<u64>) -> Vec<ChunkId> {
        let covering: Vec<ChunkId> = self.layout.covering(file.clone()).collect();
        let whole = |chunk: &ChunkId| {
            let part = self.part(*chunk, &file);
            self.chunks.get_mut(chunk.index()).is_some_and(|left| {
                *left = left.saturating_sub(part);
                *left == 0
            })
        };
        covering.into_iter().filter(whole).collect()
    }

    fn part(&self, chunk: ChunkId, file: &Range<u64>) -> u64 {
        let range = self.layout.range(chunk);
        range.end.min(file.end).saturating_sub(range.start.max(file.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: usize, offset: u64, count: u32) -> Read {
        Read { file, offset, count }
    }

    #[test]
    fn files_are_read_in_pieces_one_after_the_other() {
        let mut reads = Reads::new([10, 0, 3].into_iter());
        let all: Vec<Read> = std::iter::from_fn(|| reads.next(8)).collect();
        assert_eq!(all, [read(0, 0, 8), read(0, 8, 2), read(2, 0, 3)]);
    }

    #[test]
    fn what_a_short_reply_lacks_is_asked_for_next() {
        let mut reads = Reads::new([100].into_iter());
        let first = reads.next(50).unwrap();
        assert!(reads.came(first, 20));
        assert_eq!(reads.next(50), Some(read(0, 20, 30)));
        assert_eq!(reads.next(50), Some(read(0, 50, 50)));
        assert_eq!(reads.next(50), None);
    }

    #[test]
    fn a_file_that_ends_early_is_noticed() {
        let mut reads = Reads::new([100].into_iter());
        let first = reads.next(50).unwrap();
        assert!(!reads.came(first, 0));
    }

    #[test]
    fn after_a_loss_only_what_did_not_come_is_asked_for_again() {
        let mut reads = Reads::new([100, 40].into_iter());
        let made: Vec<Read> = (0..3).filter_map(|_| reads.next(40)).collect();
        assert!(reads.came(made[1], 40));
        reads.lost();
        let again: Vec<Read> = std::iter::from_fn(|| reads.next(50)).collect();
        assert_eq!(again, [read(0, 0, 40), read(0, 80, 20), read(1, 0, 40)]);
    }

    #[test]
    fn a_chunk_is_whole_with_the_last_file_in_it() {
        let layout = Layout::new(200_000, 65_536).unwrap();
        let files = [10_000..50_000, 60_000..140_000];
        let mut unread = Unread::new(&layout, files.iter().cloned());
        assert_eq!(unread.bytes(), 120_000);
        assert_eq!(unread.read(files[0].clone()), []);
        let whole: Vec<u32> = unread.read(files[1].clone()).iter().map(|c| c.get()).collect();
        assert_eq!(whole, [0, 1, 2]);
    }
}
