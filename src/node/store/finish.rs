//! Giving what is whole its attributes and its final name.

use std::fs::File;
use std::io;

use super::calls::change;
use super::temporary::temporary_name;
use super::{Held, Inode, Store, chosen};
use crate::error::Error;
use crate::image::manifest::{Content, Entry};
use crate::image::path::TreePath;
use crate::sys::fs::{Lock, lock, look_at, read_link_at, rename_at, symlink_at, unlink_at};

impl Store {
    /// Once all wanted chunks are verified: makes the empty files and the links, gives directories
    /// their attributes, and lets go of the lock. After this the store only serves.
    ///
    /// Fails if a file is not whole.
    pub fn finish(&mut self) -> Result<(), Error> {
        let (plan, manifest) = (self.plan.clone(), self.manifest.clone());
        for (i, entry, place) in chosen(&plan, &manifest) {
            match &entry.content {
                Content::Directory => {}
                Content::File { .. } => self.finish_file(i)?,
                Content::Symlink { target } => self.place_link(&entry, &place, target)?,
            }
        }
        // The deepest first: nothing below a directory is reached any more when it gets its mode,
        // nor changed after it got its time.
        for (_, entry, place) in chosen(&plan, &manifest).rev() {
            if entry.content == Content::Directory {
                self.finish_directory(&entry, &place)?;
            }
        }
        for locked in self.locked.drain(..) {
            lock(&locked, Lock::Free).map_err(Error::file("unlock", &plan.dir))?;
        }
        Ok(())
    }

    /// Gives a file that is whole its final name. Its descriptor, which can write, is closed: while
    /// one is open the system refuses to execute the file.
    pub(super) fn place_file(&mut self, entry: usize) -> Result<(), Error> {
        let Some(place) = self.plan.place(entry) else { return Ok(()) };
        let (file, _) = self.temporary(entry)?;
        let inode = self.apply(entry, &file)?;
        let dir = self.dirs.parent(&place)?;
        change(|| rename_at(&dir, &temporary_name(&place), place.name()))
            .map_err(Error::file("replace", self.dirs.full(&place)))?;
        self.open.close(entry);
        self.set_held(entry, Held::Whole(inode));
        Ok(())
    }

    /// Keeps a file whose content was found to be right. Fails if it cannot get its attributes, as
    /// when it is somebody else's; then a copy can take its place.
    pub(super) fn keep_old(&mut self, entry: usize) -> Result<(), Error> {
        let file = self.file(entry).map_err(Error::file("open", self.full(entry)))?;
        let inode = self.apply(entry, &file)?;
        self.set_held(entry, Held::Whole(inode));
        Ok(())
    }

    fn apply(&self, entry: usize, file: &File) -> Result<Inode, Error> {
        let apply = || {
            if let Some(entry) = self.manifest.listing().entry(entry) {
                self.attributes.apply(file, &entry)?;
            }
            file.metadata().map(|found| Inode::of(&found))
        };
        apply().map_err(Error::file("set owner, mode or time of", self.full(entry)))
    }

    fn finish_file(&mut self, entry: usize) -> Result<(), Error> {
        let Some(state) = self.files.get(entry).copied() else { return Ok(()) };
        match state.held {
            Held::Whole(_) => Ok(()),
            _ if state.missing_chunks > 0 => {
                let rest = io::Error::other("it is incomplete");
                Err(Error::file("finish", self.full(entry))(rest))
            }
            // What is left are empty files, which no chunk completes.
            Held::Old => self.keep_old(entry).or_else(|_| self.place_file(entry)),
            Held::Nothing | Held::Temporary { .. } => self.place_file(entry),
        }
    }

    fn place_link(&mut self, entry: &Entry, place: &TreePath, target: &[u8]) -> Result<(), Error> {
        let dir = self.dirs.parent(place)?;
        let place_link = || {
            let old = look_at(&dir, place.name())?;
            if old.is_some_and(|old| old.is_symlink())
                && read_link_at(&dir, place.name())? == target
            {
                return self.attributes.apply_to_link(&dir, place.name(), entry);
            }
            let name = temporary_name(place);
            change(|| unlink_at(&dir, &name))?;
            change(|| symlink_at(target, &dir, &name))?;
            self.attributes.apply_to_link(&dir, &name, entry)?;
            change(|| rename_at(&dir, &name, place.name()))
        };
        place_link().map_err(Error::file("create symbolic link", self.dirs.full(place)))
    }

    /// A DEST that was there before is the user's and stays as it is.
    fn finish_directory(&mut self, entry: &Entry, place: &TreePath) -> Result<(), Error> {
        if place.is_root() && !self.dirs.made_top() {
            return Ok(());
        }
        let dir = self.dirs.dir(place)?;
        let applied = self.attributes.apply(&dir, entry);
        applied.map_err(Error::file("set owner, mode or time of", self.dirs.full(place)))
    }
}
