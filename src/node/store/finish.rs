//! Giving what is whole its attributes and its final name.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::attributes::Origin;
use super::calls::change;
use super::dirs::{Dir, replaced};
use super::found::{Name, Reuse};
use super::temporary::temporary_name;
use super::{Held, Inode, Store, chosen};
use crate::error::Error;
use crate::image::manifest::{Content, Entry};
use crate::image::path::TreePath;
use crate::sys::fs::{
    Lock, effective_uid, lock, look_at, open_at, read_link_at, rename_at, symlink_at, unlink_at,
};

impl Store {
    /// Once all wanted chunks are verified: makes the empty files and the links, gives directories
    /// their attributes, and lets go of the lock. After this the store only serves.
    ///
    /// Fails if a file is not whole, and if another user has put something else in the place of anything.
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
        self.check_names()?;
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
        let Held::Temporary { origin, .. } = self.held(entry) else { return Ok(()) };
        let inode = self.apply(entry, &file, origin)?;
        let dir = self.dirs.parent(&place)?;
        give_name(&dir, &temporary_name(&place), place.name(), inode)
            .map_err(Error::file("replace", self.dirs.full(&place)))?;
        self.open.close(entry);
        self.set_held(entry, Held::Whole(inode));
        Ok(())
    }

    /// Keeps a file whose content was found to be right. Fails if it cannot get its attributes, as
    /// when it is somebody else's, or has a writer; then a copy can take its place.
    pub(super) fn keep_old(&mut self, entry: usize) -> Result<(), Error> {
        let file = self.file(entry).map_err(Error::file("open", self.full(entry)))?;
        if matches!(self.held(entry), Held::Found(found) if found.reuse != Reuse::InPlace) {
            return Err(Error::file("open", self.full(entry))(replaced()));
        }
        let inode = self.apply(entry, &file, Origin::Kept)?;
        self.set_held(entry, Held::Whole(inode));
        Ok(())
    }

    fn apply(&self, entry: usize, file: &File, origin: Origin) -> Result<Inode, Error> {
        let apply = || {
            if let Some(entry) = self.manifest.listing().entry(entry) {
                self.attributes.apply(file, &entry, origin)?;
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
            Held::Found(found) if found.name == Name::Final && found.reuse == Reuse::InPlace => {
                self.keep_old(entry).or_else(|_| self.place_file(entry))
            }
            _ => self.place_file(entry),
        }
    }

    fn place_link(&mut self, entry: &Entry, place: &TreePath, target: &[u8]) -> Result<(), Error> {
        let dir = self.dirs.parent(place)?;
        let place_link = || {
            if let Some(old) = open_link(&dir, place.name(), target)?
                && self.attributes.owns_link(&old.metadata()?, entry)
            {
                return self.attributes.apply_to_link(&dir, place.name(), &old, entry);
            }
            let name = temporary_name(place);
            change(|| unlink_at(&dir, &name))?;
            change(|| symlink_at(target, &dir, &name))?;
            let link = open_link(&dir, &name, target)?;
            let own = |link: &File| link.metadata().is_ok_and(|link| link.uid() == effective_uid());
            let link = link.filter(own).ok_or_else(replaced)?;
            self.attributes.apply_to_link(&dir, &name, &link, entry)?;
            give_name(&dir, &name, place.name(), Inode::of(&link.metadata()?))
        };
        place_link().map_err(Error::file("create symbolic link", self.dirs.full(place)))
    }

    /// A DEST that was there before is the user's and stays as it is.
    fn finish_directory(&mut self, entry: &Entry, place: &TreePath) -> Result<(), Error> {
        if place.is_root() && !self.dirs.made_top() {
            return Ok(());
        }
        let dir = self.dirs.dir(place)?;
        let is_known = place.is_root() || self.dirs.is_known(place)?;
        let applied = self.attributes.apply_to_dir(&dir, entry, is_known);
        applied.map_err(Error::file("set owner, mode or time of", self.dirs.full(place)))
    }

    /// Looks whether everything stands under its name, where other users could have put something else there.
    fn check_names(&mut self) -> Result<(), Error> {
        let (plan, manifest) = (self.plan.clone(), self.manifest.clone());
        self.dirs.close();
        for (i, entry, place) in chosen(&plan, &manifest) {
            let dir = self.dirs.parent(&place)?;
            if !dir.exposed {
                continue;
            }
            let found = match &entry.content {
                Content::Directory => {
                    self.dirs.dir(&place)?;
                    Ok(true)
                }
                Content::Symlink { target } => {
                    open_link(&dir, place.name(), target).map(|link| link.is_some())
                }
                Content::File { .. } => look_at(&dir, place.name()).map(|file| {
                    file.is_some_and(|file| self.held(i) == Held::Whole(Inode::of(&file)))
                }),
            };
            let found = found.and_then(|right| if right { Ok(()) } else { Err(replaced()) });
            found.map_err(Error::file("finish", self.dirs.full(&place)))?;
        }
        self.dirs.check_top()
    }
}

/// Gives what is temporary its final name. Where others can rename, it is made sure that the name stands for what was
/// meant; if it does not, it is removed.
fn give_name(dir: &Dir, temporary: &[u8], name: &[u8], inode: Inode) -> io::Result<()> {
    let stands_for = |name| {
        let found = look_at(dir, name)?;
        Ok::<bool, io::Error>(found.is_some_and(|found| Inode::of(&found) == inode))
    };
    if dir.exposed && !stands_for(temporary)? {
        return Err(replaced());
    }
    change(|| rename_at(dir, temporary, name))?;
    if dir.exposed && !stands_for(name)? {
        change(|| unlink_at(dir, name))?;
        return Err(replaced());
    }
    Ok(())
}

/// The symbolic link of this name, if it has this target; the descriptor stands for the link itself.
fn open_link(dir: &Dir, name: &[u8], target: &[u8]) -> io::Result<Option<File>> {
    let link = match open_at(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        link => link?,
    };
    let right = link.metadata()?.is_symlink() && read_link_at(&link, b"")? == target;
    Ok(right.then_some(link))
}
