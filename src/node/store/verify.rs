//! Finding out what is already there and right.

use std::sync::Arc;

use super::calls::{change, read_exact_at, write_all_at};
use super::sparse::data_runs;
use super::{Held, Store, chosen};
use crate::error::Error;
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Content, Segment};

impl Store {
    /// Hashes what an earlier fetch left, in temporary files and under final names, and returns the
    /// wanted chunks that are right; what is missing is to be fetched. Files that are whole get or
    /// keep their final names. `progress` is told after each chunk how many bytes were checked, and
    /// of how many.
    ///
    /// Parts of an older file that can be used are copied into a temporary file, as the older file
    /// keeps its name until the newer one is whole.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<ChunkSet, Error> {
        let unread = self.check(progress);
        self.settle(&unread)?;
        Ok(self.verified.clone())
    }

    /// Hashes what is there of the wanted chunks, and returns those that could not be read.
    pub(super) fn check(&mut self, progress: &mut dyn FnMut(u64, u64)) -> ChunkSet {
        let manifest = self.manifest.clone();
        let layout = manifest.layout();
        let bytes = |chunk| layout.range(chunk).end - layout.range(chunk).start;
        let there: Vec<ChunkId> = self.wanted.iter().filter(|c| self.may_be_there(*c)).collect();
        let all = there.iter().map(|chunk| bytes(*chunk)).sum();
        let mut checked = 0;
        let mut buffer = Vec::new();
        let mut unread = ChunkSet::empty(layout);
        for chunk in there {
            buffer.clear();
            if !self.read_chunk(chunk, &mut buffer) {
                unread.insert(chunk);
            } else if manifest.hash(chunk) == Some(&blake3::hash(&buffer)) {
                self.verified.insert(chunk);
            }
            checked += bytes(chunk);
            progress(checked, all);
        }
        unread
    }

    /// Is there a file for every byte of a chunk?
    fn may_be_there(&self, chunk: ChunkId) -> bool {
        let held = |segment: Segment| match self.plan.chosen(segment.entry) {
            true => self.files.get(segment.entry).is_some_and(|state| state.held != Held::Nothing),
            false => self.spill.is_some(),
        };
        let manifest = &self.manifest;
        let mut segments = manifest.listing().segments(manifest.layout().range(chunk));
        !self.verified.contains(chunk) && segments.all(held)
    }

    /// Puts a chunk together; false if a part cannot be read. It is then fetched again.
    fn read_chunk(&mut self, chunk: ChunkId, buffer: &mut Vec<u8>) -> bool {
        let manifest = self.manifest.clone();
        manifest.listing().segments(manifest.layout().range(chunk)).all(|segment| {
            let start = buffer.len();
            buffer.resize(start.saturating_add(segment.len as usize), 0);
            let part = buffer.get_mut(start..).unwrap_or_default();
            let source = self.source(segment.entry);
            source
                .and_then(|(file, at)| {
                    read_exact_at(&file, part, at.saturating_add(segment.offset))
                })
                .is_ok()
        })
    }

    /// Brings every file into line with what was verified of it. What could not be read may be right,
    /// and stays for a later attempt.
    fn settle(&mut self, unread: &ChunkSet) -> Result<(), Error> {
        let manifest = self.manifest.clone();
        let plan = self.plan.clone();
        for (i, entry, _) in chosen(&plan, &manifest) {
            let Some(state) = self.files.get(i).copied() else { continue };
            let Content::File { bytes: 1.., .. } = entry.content else { continue };
            if matches!(state.held, Held::Nothing | Held::Whole(_)) {
                continue;
            }
            let chunks: Vec<_> = manifest.layout().covering(entry.image_range()).collect();
            let right: Vec<_> =
                chunks.iter().copied().filter(|c| self.verified.contains(*c)).collect();
            let missing = chunks.len().saturating_sub(right.len());
            let useless = right.is_empty() && !chunks.iter().any(|c| unread.contains(*c));
            if let Some(state) = self.files.get_mut(i) {
                state.missing_chunks = missing as u64;
            }
            match state.held {
                Held::Old if missing == 0 => self.keep_or_copy_old(i, &right)?,
                Held::Old if right.is_empty() => {
                    self.open.close(i);
                    self.set_held(i, Held::Nothing);
                }
                Held::Old => self.copy_old(i, &right)?,
                Held::Temporary { .. } if missing == 0 => self.place_file(i)?,
                Held::Temporary { .. } if useless => self.empty_temporary(i)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps a file that is right, or puts a copy in its place if it cannot be mended.
    fn keep_or_copy_old(&mut self, entry: usize, right: &[ChunkId]) -> Result<(), Error> {
        if self.keep_old(entry).is_ok() {
            return Ok(());
        }
        self.copy_old(entry, right)?;
        self.place_file(entry)
    }

    /// Copies the right chunks of a file into a new temporary file.
    fn copy_old(&mut self, entry: usize, right: &[ChunkId]) -> Result<(), Error> {
        let manifest = self.manifest.clone();
        let old = self.file(entry).map_err(Error::file("open", self.full(entry)))?;
        let (new, _) = self.temporary(entry)?;
        let mut buffer = Vec::new();
        for chunk in right {
            let segments = manifest.listing().segments(manifest.layout().range(*chunk));
            for segment in segments.filter(|segment| segment.entry == entry) {
                buffer.resize(segment.len as usize, 0);
                let mut copy = || {
                    read_exact_at(&old, &mut buffer, segment.offset)?;
                    data_runs(segment.offset, &buffer).into_iter().try_for_each(|run| {
                        let at = segment.offset.saturating_add(run.start as u64);
                        write_all_at(&new, buffer.get(run).unwrap_or_default(), at)
                    })
                };
                copy().map_err(Error::file("copy", self.full(entry)))?;
            }
        }
        Ok(())
    }

    /// A temporary file of which nothing is right becomes one hole again.
    fn empty_temporary(&mut self, entry: usize) -> Result<(), Error> {
        let (file, _) = self.temporary(entry)?;
        let empty = |file: Arc<std::fs::File>| {
            let bytes = file.metadata()?.len();
            change(|| file.set_len(0))?;
            change(|| file.set_len(bytes))
        };
        empty(file).map_err(Error::file("write", self.full(entry)))?;
        self.set_held(entry, Held::Temporary { fresh: true });
        Ok(())
    }
}
