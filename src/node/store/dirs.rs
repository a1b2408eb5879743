//! Directories below the destination, reached from its descriptor and through no symbolic link.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::calls::change;
use super::way;
use crate::error::Error;
use crate::image::path::TreePath;
use crate::sys::fs::{effective_uid, look_at, make_dir_at, open_at};
use crate::sys::rights::others_can_rename_in;

/// The destination and the directory below it that was used last.
///
/// Everything is reached from descriptors, as the paths may be gone: after a switch of the root
/// file system, the node serves on. A directory is opened name by name, so that no symbolic link
/// in DEST can lead out of it; `openat2` would do that in one call, but is not in older kernels.
#[derive(Debug)]
pub(super) struct Dirs {
    /// DEST, for messages.
    path: PathBuf,
    top: Rc<Dir>,
    /// Did [`Dirs::open`] make DEST?
    made: bool,
    /// The open directories down to the one that was used last, each with its name.
    chain: Vec<(Box<[u8]>, Rc<Dir>)>,
    /// Where other users can replace DEST or what is in it, if anywhere.
    exposed: Option<PathBuf>,
    /// Directories that were made where others can rename, by device and inode.
    made_exposed: HashSet<(u64, u64)>,
}

/// A directory that is open.
#[derive(Debug)]
pub(super) struct Dir {
    file: File,
    /// Other users can rename and replace what is in it, or in a directory between DEST and it. What a name stands for
    /// has to be looked at again after every use of the name.
    pub(super) exposed: bool,
}

impl Dir {
    fn new(file: File, above_exposed: bool) -> io::Result<Dir> {
        let exposed = above_exposed || others_can_rename_in(&file.metadata()?);
        Ok(Dir { file, exposed })
    }
}

impl Deref for Dir {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Dirs {
    /// Opens DEST; makes it, and what is missing above it.
    pub(super) fn open(path: &Path) -> Result<Dirs, Error> {
        let way = way::open(path)?;
        let top = Dir::new(way.top, false).map_err(Error::file("open directory", path))?;
        let dirs = Dirs { exposed: way.exposed, made: way.made, ..Dirs::new(path, top) };
        Ok(dirs)
    }

    /// DEST, which is open already.
    pub(super) fn at(path: &Path, top: File) -> Result<Dirs, Error> {
        let top = Dir::new(top, false).map_err(Error::file("open directory", path))?;
        Ok(Dirs::new(path, top))
    }

    fn new(path: &Path, top: Dir) -> Dirs {
        let (path, top) = (path.to_owned(), Rc::new(top));
        Dirs {
            path,
            top,
            made: false,
            chain: Vec::new(),
            exposed: None,
            made_exposed: HashSet::new(),
        }
    }

    /// DEST itself.
    pub(super) fn top(&self) -> &File {
        &self.top
    }

    /// Was DEST made by this fetch?
    pub(super) fn made_top(&self) -> bool {
        self.made
    }

    /// The first directory in which other users can put something else in the place of DEST, or of what is in DEST.
    pub(super) fn exposed(&self) -> Option<&Path> {
        self.exposed.as_deref()
    }

    /// Notes that other users can write to the directory at `place`, which they are not meant to.
    pub(super) fn expose(&mut self, place: &TreePath) {
        let path = self.full(place);
        self.exposed.get_or_insert(path);
    }

    /// Fails if other users have put something else in the place of DEST.
    pub(super) fn check_top(&self) -> Result<(), Error> {
        let same = match self.exposed {
            Some(_) => way::leads_to(&self.path, &self.top),
            None => Ok(true),
        };
        match same {
            Ok(false) => Err(replaced()),
            other => other.map(drop),
        }
        .map_err(Error::file("finish", &self.path))
    }

    /// The path of a place, for messages.
    pub(super) fn full(&self, place: &TreePath) -> PathBuf {
        match place.is_root() {
            true => self.path.clone(),
            false => self.path.join(OsStr::from_bytes(place.as_bytes())),
        }
    }

    /// Closes all directories below DEST, so that names lead from DEST to what they stand for at present.
    pub(super) fn close(&mut self) {
        self.chain.clear();
    }

    /// The directory that a place is in.
    pub(super) fn parent(&mut self, place: &TreePath) -> Result<Rc<Dir>, Error> {
        self.dir(&place.parent().unwrap_or(TreePath::root()))
    }

    /// The directory at `place`.
    pub(super) fn dir(&mut self, place: &TreePath) -> Result<Rc<Dir>, Error> {
        let mut dir = self.top.clone();
        for (depth, name) in place.elements().enumerate() {
            dir = match self.chain.get(depth) {
                Some((open, dir)) if **open == *name => dir.clone(),
                _ => {
                    self.chain.truncate(depth);
                    let below = open_dir(&dir, name)
                        .and_then(|below| Dir::new(below, dir.exposed))
                        .map_err(|error| self.dir_error("open directory", place, depth, error))?;
                    self.chain.push((name.into(), Rc::new(below)));
                    self.chain.last().map_or(dir, |(_, below)| below.clone())
                }
            };
        }
        Ok(dir)
    }

    /// Makes the directory at `place`, or takes the one that is there. With `writable`, one of ours
    /// that its owner may not write to can be written to from then on.
    pub(super) fn make(
        &mut self,
        place: &TreePath,
        mode: u32,
        writable: bool,
    ) -> Result<(), Error> {
        let above = self.parent(place)?;
        let made = match change(|| make_dir_at(&above, place.name(), mode)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => {
                made.map(|()| true).map_err(Error::file("create directory", self.full(place)))?
            }
        };
        if made && !above.exposed {
            return Ok(());
        }
        let dir = self.dir(place)?;
        let mut open_up = || {
            let found = dir.metadata()?;
            if made && is_new(&found) {
                self.made_exposed.insert((found.dev(), found.ino()));
            }
            if writable && found.mode() & 0o700 != 0o700 && found.uid() == effective_uid() {
                let mode = Permissions::from_mode(found.mode() & 0o7777 | 0o700);
                change(|| dir.set_permissions(mode))?;
            }
            Ok(())
        };
        open_up().map_err(Error::file("change the mode of", self.full(place)))
    }

    /// Whether the directory at `place` is known to be the one that was made or found there: made by this run, or in
    /// a directory in which nobody else can rename.
    pub(super) fn is_known(&mut self, place: &TreePath) -> Result<bool, Error> {
        if !self.parent(place)?.exposed {
            return Ok(true);
        }
        let found = self.dir(place)?.metadata();
        let found = found.map_err(Error::file("read the attributes of", self.full(place)))?;
        Ok(self.made_exposed.contains(&(found.dev(), found.ino())))
    }

    /// An error of the directory that is `depth + 1` names down the way to `place`.
    fn dir_error(
        &self,
        action: &'static str,
        place: &TreePath,
        depth: usize,
        error: io::Error,
    ) -> Error {
        let names: Vec<&[u8]> = place.elements().take(depth + 1).collect();
        Error::file(action, self.path.join(OsStr::from_bytes(&names.join(&b'/'))))(error)
    }
}

/// Whether nothing has happened to a directory of this user since it was made. Renaming it changes its ctime alone.
fn is_new(found: &Metadata) -> bool {
    let (mtime, ctime) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    found.uid() == effective_uid() && mtime == ctime
}

/// Opens a directory; says what stands in its way if it is none.
fn open_dir(above: &File, name: &[u8]) -> io::Result<File> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    open_at(above, name, flags, 0).map_err(|error| match look_at(above, name) {
        Ok(Some(found)) if found.is_symlink() => in_the_way("a symbolic link"),
        Ok(Some(found)) if !found.is_dir() => in_the_way("a file"),
        _ => error,
    })
}

fn in_the_way(what: &str) -> io::Error {
    io::Error::other(format!("{what} with this name exists"))
}

/// Another user has put something else where this was.
pub(super) fn replaced() -> io::Error {
    io::Error::other("another process has put something else in its place")
}
