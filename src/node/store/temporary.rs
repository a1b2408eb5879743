//! Temporary files and the spill: where bytes wait until they are verified.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::calls::change;
use super::sparse::data_runs;
use super::writer::Piece;
use super::{Held, Store};
use crate::error::Error;
use crate::image::chunks::ChunkId;
use crate::image::manifest::{Content, Segment};
use crate::image::path::{PARTIAL_PREFIX, TreePath};
use crate::sys::fs::{effective_uid, open_at, unlink_at};

const NEW_FILE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;

/// The name of the temporary file of what goes to `place`, in the same directory. It is the same
/// in every run, so that a file that is not whole is found again.
pub(super) fn temporary_name(place: &TreePath) -> Vec<u8> {
    let hash = blake3::hash(place.as_bytes()).to_hex();
    [PARTIAL_PREFIX, hash.as_bytes().get(..16).unwrap_or_default()].concat()
}

/// Can it be a temporary file that this user made? Anything else of that name could lead the
/// writing elsewhere, or be changed by somebody else after it was verified. One that was about to get
/// its final name has its final mode, and may not be open to its owner any more.
pub(super) fn is_own(found: &Metadata) -> bool {
    let open = found.mode() & 0o600 == 0o600;
    found.is_file() && found.nlink() == 1 && found.uid() == effective_uid() && open
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
        let held = self.files.get(entry).map_or(Held::Nothing, |state| state.held);
        if let Held::Temporary { fresh } = held {
            let file = self.file(entry);
            return Ok((file.map_err(Error::file("open", self.full(entry)))?, fresh));
        }
        self.open.close(entry);
        let file = self.make_temporary(entry)?;
        self.set_held(entry, Held::Temporary { fresh: true });
        Ok((self.open.put(entry, file), true))
    }

    fn make_temporary(&mut self, entry: usize) -> Result<File, Error> {
        let bytes = match self.manifest.listing().entry(entry).map(|entry| entry.content) {
            Some(Content::File { bytes, .. }) => bytes,
            _ => 0,
        };
        let place = self.plan.place(entry).unwrap_or(TreePath::root());
        let dir = self.dirs.parent(&place)?;
        let mode = self.attributes.first_file_mode();
        let make = || {
            let name = temporary_name(&place);
            let file = change(|| open_at(&dir, &name, NEW_FILE, mode))?;
            match change(|| file.set_len(bytes)) {
                Ok(()) => Ok(file),
                Err(error) => change(|| unlink_at(&dir, &name)).and(Err(error)),
            }
        };
        make().map_err(Error::file("create", self.dirs.full(&place)))
    }
}

/// A file without a name. The process's number keeps two fetches into one directory apart.
fn make_spill(dir: &File) -> io::Result<File> {
    let name = [PARTIAL_PREFIX, format!("spill-{}", std::process::id()).as_bytes()].concat();
    change(|| unlink_at(dir, &name))?;
    let spill = change(|| open_at(dir, &name, NEW_FILE, 0o600))?;
    change(|| unlink_at(dir, &name))?;
    Ok(spill)
}
