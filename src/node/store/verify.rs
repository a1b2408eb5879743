//! Finding out what is already there and right.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::attributes::Origin;
use super::calls::{change, read_exact_at, write_all_at};
use super::found::{Found, Name, Reuse};
use super::sparse::data_runs;
use super::temporary::temporary_name;
use super::{Held, Store, chosen};
use crate::error::Error;
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Content, Segment};
use crate::sys::fs::{punch_hole, unlink_at};

/// A file that was found, and whose right parts are being copied.
#[derive(Debug)]
pub(super) struct Copying {
    entry: usize,
    file: Arc<File>,
    /// What was copied is of no more use in it.
    is_moved: bool,
}

impl Store {
    /// Hashes what an earlier fetch left, in temporary files and under final names, and returns the
    /// wanted chunks that are right; what is missing is to be fetched. Files that are whole get or
    /// keep their final names. `progress` is told after each chunk how many bytes were checked, and
    /// of how many.
    ///
    /// Parts of an older file that can be used are copied into a temporary file, as the older file
    /// keeps its name until the newer one is whole. So are all of a file that others may be able to change.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<ChunkSet, Error> {
        let unread = self.check(progress)?;
        self.settle(&unread)?;
        Ok(self.verified.clone())
    }

    /// Hashes what is there of the wanted chunks, and returns those that could not be read.
    pub(super) fn check(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<ChunkSet, Error> {
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
                self.copy_chunk(chunk, &buffer)?;
                self.verified.insert(chunk);
            }
            checked += bytes(chunk);
            progress(checked, all);
        }
        self.copying = None;
        Ok(unread)
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
            let source = self.source_to_verify(segment.entry);
            source
                .and_then(|(file, at)| {
                    read_exact_at(&file, part, at.saturating_add(segment.offset))
                })
                .is_ok()
        })
    }

    /// What to read of an entry. A file that is being copied stays open from one chunk to the next, as its name may
    /// be the copy's by then. Chunks come in the order of the files, so that there is at most one such file.
    fn source_to_verify(&mut self, entry: usize) -> io::Result<(Arc<File>, u64)> {
        if let Held::Copied(_) = self.held(entry) {
            let copying = self.copying.as_ref().filter(|copying| copying.entry == entry);
            return copying.map(|copying| (copying.file.clone(), 0)).ok_or_else(super::nothing);
        }
        let (file, at) = self.source(entry)?;
        if let Held::Found(found) = self.held(entry)
            && found.reuse != Reuse::InPlace
        {
            let is_moved = found.reuse == Reuse::Move;
            self.copying = Some(Copying { entry, file: file.clone(), is_moved });
        }
        Ok((file, at))
    }

    /// Copies the parts of a chunk, which is in memory and verified, whose files cannot be completed in place.
    fn copy_chunk(&mut self, chunk: ChunkId, bytes: &[u8]) -> Result<(), Error> {
        let manifest = self.manifest.clone();
        let mut rest = bytes;
        for segment in manifest.listing().segments(manifest.layout().range(chunk)) {
            let part;
            (part, rest) = rest.split_at(rest.len().min(segment.len as usize));
            let Some(copy) = self.copy_of(segment.entry)? else { continue };
            write_sparse(&copy, segment.offset, part)
                .map_err(Error::file("copy", self.full(segment.entry)))?;
            self.release(&segment);
        }
        Ok(())
    }

    /// The new file that an entry is copied into; None if it is completed in place.
    fn copy_of(&mut self, entry: usize) -> Result<Option<Arc<File>>, Error> {
        match self.held(entry) {
            Held::Found(found) if found.reuse != Reuse::InPlace => {
                let (file, inode) = self.make_temporary(entry)?;
                self.set_held(entry, Held::Copied(inode));
                Ok(Some(file))
            }
            Held::Copied(_) => {
                self.file(entry).map(Some).map_err(Error::file("open", self.full(entry)))
            }
            _ => Ok(None),
        }
    }

    /// Gives back the space of a part that was copied, so that a file that is moved needs no more room than before.
    fn release(&self, segment: &Segment) {
        let Some(Copying { entry, file, is_moved: true }) = &self.copying else { return };
        if *entry == segment.entry {
            // A file system that cannot do it needs the room until the copy is done.
            let _ = punch_hole(file, segment.offset, segment.len);
        }
    }

    /// Brings every file into line with what was verified of it. What could not be read may be right,
    /// and stays for a later attempt.
    fn settle(&mut self, unread: &ChunkSet) -> Result<(), Error> {
        let manifest = self.manifest.clone();
        let plan = self.plan.clone();
        for (i, entry, _) in chosen(&plan, &manifest) {
            let Content::File { bytes: 1.., .. } = entry.content else { continue };
            let held = self.held(i);
            if matches!(held, Held::Nothing | Held::Whole(_)) {
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
            match held {
                Held::Copied(inode) => {
                    self.set_held(i, Held::Temporary { origin: Origin::Made, fresh: true, inode });
                    if missing == 0 {
                        self.place_file(i)?;
                    }
                }
                Held::Found(found) if found.name == Name::Temporary => {
                    self.settle_temporary(i, found, missing == 0, useless)?;
                }
                Held::Found(found) if right.is_empty() || found.reuse != Reuse::InPlace => {
                    self.open.close(i);
                    self.set_held(i, Held::Nothing);
                }
                Held::Found(_) if missing == 0 => self.keep_or_copy_old(i, &right)?,
                Held::Found(_) => self.copy_old(i, &right)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn settle_temporary(
        &mut self,
        entry: usize,
        found: Found,
        whole: bool,
        useless: bool,
    ) -> Result<(), Error> {
        if !self.adopt(entry, found) {
            // If anything of it were right, it would have been copied.
            return self.drop_temporary(entry, useless);
        }
        match whole {
            true => self.place_file(entry),
            false if useless => self.empty_temporary(entry),
            false => Ok(()),
        }
    }

    /// Uses nothing of a temporary file; removes it if it is of no use in a later attempt either.
    fn drop_temporary(&mut self, entry: usize, useless: bool) -> Result<(), Error> {
        self.open.close(entry);
        self.set_held(entry, Held::Nothing);
        let Some(place) = self.plan.place(entry).filter(|_| useless) else {
            return Ok(());
        };
        let dir = self.dirs.parent(&place)?;
        change(|| unlink_at(&dir, &temporary_name(&place)))
            .map_err(Error::file("replace", self.full(entry)))
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
        let (new, inode) = self.make_temporary(entry)?;
        self.set_held(entry, Held::Temporary { origin: Origin::Made, fresh: true, inode });
        let mut buffer = Vec::new();
        for chunk in right {
            let segments = manifest.listing().segments(manifest.layout().range(*chunk));
            for segment in segments.filter(|segment| segment.entry == entry) {
                buffer.resize(segment.len as usize, 0);
                read_exact_at(&old, &mut buffer, segment.offset)
                    .and_then(|()| write_sparse(&new, segment.offset, &buffer))
                    .map_err(Error::file("copy", self.full(entry)))?;
            }
        }
        Ok(())
    }

    /// A temporary file of which nothing is right becomes one hole again.
    fn empty_temporary(&mut self, entry: usize) -> Result<(), Error> {
        let (file, _) = self.temporary(entry)?;
        let empty = |file: Arc<File>| {
            let bytes = file.metadata()?.len();
            change(|| file.set_len(0))?;
            change(|| file.set_len(bytes))
        };
        empty(file).map_err(Error::file("write", self.full(entry)))?;
        if let Held::Temporary { origin, inode, .. } = self.held(entry) {
            self.set_held(entry, Held::Temporary { origin, fresh: true, inode });
        }
        Ok(())
    }
}

/// Writes bytes to a file that is a hole there, and leaves a hole where they are zeros.
fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    data_runs(offset, bytes).into_iter().try_for_each(|run| {
        let at = offset.saturating_add(run.start as u64);
        write_all_at(file, bytes.get(run).unwrap_or_default(), at)
    })
}
