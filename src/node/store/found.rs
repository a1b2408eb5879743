//! What is there before a fetch begins, and whether other users can change it.
//!
//! A file that this run did not make is completed in place only if nobody but this user and root can write it, now or
//! by what they have opened before, and if it needs no owner and no set-id bits: those are for files of which every
//! byte came from here. Of any other file the right bytes are copied into a new one, each chunk from the memory in
//! which it was verified.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::attributes::{Attributes, Origin};
use super::calls::change;
use super::dirs::{Dir, replaced};
use super::temporary::temporary_name;
use super::{Held, Inode, Store};
use crate::image::manifest::{Content, Entry};
use crate::image::path::TreePath;
use crate::sys::fs::{effective_uid, has_writer, look_at, open_at, unlink_at};
use crate::sys::rights::WRITE_BY_OTHERS;

/// A regular file of the right size that this run did not make, and that has not been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: Name,
    pub(super) reuse: Reuse,
    inode: Inode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Temporary,
    Final,
}

/// How the right bytes of such a file are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// The file is completed in place.
    InPlace,
    /// They are moved into a new file, so that no more space is needed: nobody else can have anything to do with this
    /// temporary file, but it is to get an owner or set-id bits.
    Move,
    /// They are copied into a new file.
    Copy,
}

/// Looks for what an earlier fetch left of a file; removes what cannot be of use.
pub(super) fn look_for(
    dir: &Dir,
    place: &TreePath,
    entry: &Entry,
    attributes: &Attributes,
) -> io::Result<Held> {
    let found = |name, file: &Metadata| Found {
        name,
        reuse: reuse(dir, name, file, entry, attributes),
        inode: Inode::of(file),
    };
    // In such a directory another name of a file of ours shows whether that file is what is fetched.
    let usable = |file: &Metadata| fits(file, entry) && (!dir.exposed || file.nlink() == 1);
    let old = look_at(dir, place.name())?;
    if old.as_ref().is_some_and(Metadata::is_dir) {
        return Err(io::Error::other("a directory with this name exists"));
    }
    let name = temporary_name(place);
    match look_at(dir, &name)? {
        Some(file) if usable(&file) => return Ok(Held::Found(found(Name::Temporary, &file))),
        Some(_) => change(|| unlink_at(dir, &name))?,
        None => {}
    }
    let old = old.filter(usable);
    Ok(old.map_or(Held::Nothing, |file| Held::Found(found(Name::Final, &file))))
}

fn fits(found: &Metadata, entry: &Entry) -> bool {
    match entry.content {
        Content::File { bytes, .. } => found.is_file() && found.size() == bytes,
        _ => false,
    }
}

fn reuse(dir: &Dir, name: Name, file: &Metadata, entry: &Entry, attributes: &Attributes) -> Reuse {
    match name {
        Name::Final if attributes.may_stay(file, entry) => Reuse::InPlace,
        Name::Final => Reuse::Copy,
        Name::Temporary if dir.exposed || !is_own(file) => Reuse::Copy,
        Name::Temporary if attributes.may_stay(file, entry) => Reuse::InPlace,
        Name::Temporary => Reuse::Move,
    }
}

/// Can it be a temporary file that this user made, and that nobody else could write since? One that was about to get
/// its final name has its final mode, and may not be open to its owner any more.
fn is_own(file: &Metadata) -> bool {
    let open = file.mode() & 0o600 == 0o600;
    let closed = file.mode() & WRITE_BY_OTHERS == 0;
    file.nlink() == 1 && file.uid() == effective_uid() && open && closed
}

impl Store {
    /// Opens a file that was found, to read from it. One that another process has open for writing is not completed in
    /// place after all.
    pub(super) fn open_found(&mut self, entry: usize, found: Found) -> io::Result<Arc<File>> {
        let place = self.plan.place(entry).ok_or_else(super::nothing)?;
        let dir = self.dirs.parent(&place).map_err(io::Error::other)?;
        let name = match found.name {
            Name::Temporary => &temporary_name(&place)[..],
            Name::Final => place.name(),
        };
        let access = if found.reuse == Reuse::Move { libc::O_RDWR } else { libc::O_RDONLY };
        let file = open_at(&dir, name, access | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
        if Inode::of(&file.metadata()?) != found.inode {
            return Err(replaced());
        }
        // Nobody else can open it from here on, so that what is read from now on stays as it is. Once some of it is
        // verified it is not looked at again: the rest could not be copied without that.
        let is_written = || has_writer(&file).unwrap_or(dir.exposed);
        if found.reuse == Reuse::InPlace && !self.is_partly_verified(entry) && is_written() {
            self.set_held(entry, Held::Found(Found { reuse: Reuse::Copy, ..found }));
        }
        Ok(self.open.put(entry, file))
    }

    fn is_partly_verified(&self, entry: usize) -> bool {
        let range = self.manifest.listing().entry(entry).map(|entry| entry.image_range());
        let mut chunks = self.manifest.layout().covering(range.unwrap_or_default());
        chunks.any(|chunk| self.verified.contains(chunk))
    }

    /// Makes a temporary file that was found this run's own, if it can be completed in place.
    pub(super) fn adopt(&mut self, entry: usize, found: Found) -> bool {
        let in_place = found.name == Name::Temporary && found.reuse == Reuse::InPlace;
        if in_place {
            self.open.close(entry);
            let origin = Origin::Completed;
            self.set_held(entry, Held::Temporary { origin, fresh: false, inode: found.inode });
        }
        in_place
    }
}
