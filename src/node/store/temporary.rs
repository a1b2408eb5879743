//! Temporary files and the spill: where bytes wait until they are verified.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::attributes::Origin;
use super::calls::change;
use super::sparse::data_runs;
use super::writer::Piece;
use super::{Held, Inode, Store};
use crate::error::Error;
use crate::image::chunks::ChunkId;
use crate::image::manifest::{Content, Segment};
use crate::image::path::{PARTIAL_PREFIX, TreePath};
use crate::sys::fs::{open_at, unlink_at};

/// Nobody else can open a file that is made so, until it gets the mode of its entry.
const NEW_MODE: u32 = 0o600;
const NEW_FILE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;

/// The name of the temporary file of what goes to `place`, in the same directory. It is the same
/// in every run, so that a file that is not whole is found again.
pub(super) fn temporary_name(place: &TreePath) -> Vec<u8> {
    let hash = blake3::hash(place.as_bytes()).to_hex();
    [PARTIAL_PREFIX, hash.as_bytes().get(..16).unwrap_or_default()].concat()
}

impl Store {
    /// Writes a piece of a file that was asked for. In a fresh file, zeros where still nothing but
    /// a hole is are left out; not so after data of the same chunk, which may be the garbage of an
    /// attempt that failed.
    pub(super) fn write_temporary(
        &mut self,
        chunk: ChunkId,
        segment: Segment,
        image_offset: u64,
        piece: Piece<'_>,
    ) -> Result<(), Error> {
        let (file, fresh) = self.temporary(segment.entry)?;
        let data_end = self.data_ends.get(&chunk).copied().unwrap_or(0);
        let runs = match fresh && image_offset >= data_end {
            true => data_runs(segment.offset, piece.bytes()),
            false => std::iter::once(0..piece.range.len()).collect(),
        };
        if let Some(last) = runs.last() {
            let end = image_offset.saturating_add(last.end as u64);
            self.data_ends.insert(chunk, end.max(data_end));
        }
        for run in runs {
            let at = segment.offset.saturating_add(run.start as u64);
            let written =
                self.writer.write(Some(segment.entry), &file, at, piece.part(run.start, run.end));
            written.map_err(|error| self.not_written((Some(segment.entry), error)))?;
        }
        Ok(())
    }

    /// Writes bytes of files that were not asked for.
    pub(super) fn write_spill(&mut self, image_offset: u64, piece: Piece<'_>) -> Result<(), Error> {
        let spill = match &self.spill {
            Some(spill) => spill.clone(),
            None => {
                let made = make_spill(self.dirs.top());
                let made = Arc::new(made.map_err(Error::file("create a file in", &self.plan.dir))?);
                self.spill.insert(made).clone()
            }
        };
        let written = self.writer.write(None, &spill, image_offset, piece);
        written.map_err(|error| self.not_written((None, error)))
    }

    /// The temporary file of an entry, made if there is none, and whether it is fresh.
    pub(super) fn temporary(&mut self, entry: usize) -> Result<(Arc<File>, bool), Error> {
        // To open it shows whether it can be completed in place.
        if let Held::Found(found) = self.held(entry)
            && self.open_found(entry, found).is_ok()
            && let Held::Found(found) = self.held(entry)
        {
            self.adopt(entry, found);
        }
        if let Held::Temporary { fresh, .. } = self.held(entry) {
            let file = self.file(entry);
            return Ok((file.map_err(Error::file("open", self.full(entry)))?, fresh));
        }
        let (file, inode) = self.make_temporary(entry)?;
        self.set_held(entry, Held::Temporary { origin: Origin::Made, fresh: true, inode });
        Ok((file, true))
    }

    /// Makes an empty temporary file for an entry, in the place of one that is there.
    pub(super) fn make_temporary(&mut self, entry: usize) -> Result<(Arc<File>, Inode), Error> {
        self.open.close(entry);
        let bytes = match self.manifest.listing().entry(entry).map(|entry| entry.content) {
            Some(Content::File { bytes, .. }) => bytes,
            _ => 0,
        };
        let place = self.plan.place(entry).unwrap_or(TreePath::root());
        let dir = self.dirs.parent(&place)?;
        let make = || {
            let name = temporary_name(&place);
            let file = match change(|| open_at(&dir, &name, NEW_FILE, NEW_MODE)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    change(|| unlink_at(&dir, &name))?;
                    change(|| open_at(&dir, &name, NEW_FILE, NEW_MODE))?
                }
                made => made?,
            };
            match change(|| file.set_len(bytes)).and_then(|()| file.metadata()) {
                Ok(made) => Ok((file, Inode::of(&made))),
                Err(error) => change(|| unlink_at(&dir, &name)).and(Err(error)),
            }
        };
        let (file, inode) = make().map_err(Error::file("create", self.dirs.full(&place)))?;
        Ok((self.open.put(entry, file), inode))
    }
}

/// A file without a name. Where the file system cannot make one, it has a name for a moment; the process's number keeps
/// two fetches into one directory apart.
fn make_spill(dir: &File) -> io::Result<File> {
    let nameless = libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL;
    if let Ok(spill) = change(|| open_at(dir, b".", nameless, NEW_MODE)) {
        return Ok(spill);
    }
    let name = [PARTIAL_PREFIX, format!("spill-{}", std::process::id()).as_bytes()].concat();
    change(|| unlink_at(dir, &name))?;
    let spill = change(|| open_at(dir, &name, NEW_FILE, NEW_MODE))?;
    change(|| unlink_at(dir, &name))?;
    Ok(spill)
}
