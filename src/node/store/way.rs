//! The way to DEST: every directory on it is opened from the one above, so that what was looked at is what is used.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::calls::change;
use crate::error::Error;
use crate::limits::MAX_DEST_LINKS;
use crate::sys::fs::{make_dir_at, open_at, read_link_at};
use crate::sys::rights::{is_trusted, others_can_rename_in, others_can_replace};

const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// DEST, open.
pub(super) struct Way {
    pub(super) top: File,
    /// Was DEST made here?
    pub(super) made: bool,
    /// The first directory on the way, or DEST itself, in which other users can put something else in the place of
    /// what is there.
    pub(super) exposed: Option<PathBuf>,
}

/// Opens DEST; makes it, and what is missing above it.
///
/// A symbolic link of another user is followed only to a directory of the same user: it could lead to any place
/// that this user may write to, and that one may not.
pub(super) fn open(path: &Path) -> Result<Way, Error> {
    let mut walk = Walk::new(path).map_err(Error::file("open directory", path))?;
    while let Some(name) = walk.names.pop() {
        walk.step(name, path)?;
    }
    let open = || {
        let top = open_at(&walk.at, b".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let exposed = others_can_rename_in(&top.metadata()?);
        Ok((top, exposed))
    };
    let (top, exposed) = open().map_err(Error::file("open directory", path))?;
    if exposed {
        walk.exposed.get_or_insert(walk.path);
    }
    Ok(Way { top, made: walk.made, exposed: walk.exposed })
}

struct Walk {
    at: File,
    /// The path of `at`, for messages.
    path: PathBuf,
    /// What is still to go, the last one first; an openat(2) of `/` leads to the root from anywhere.
    names: Vec<OsString>,
    links: usize,
    made: bool,
    exposed: Option<PathBuf>,
}

impl Walk {
    fn new(path: &Path) -> io::Result<Walk> {
        let start = Path::new(if path.is_absolute() { "/" } else { "." });
        let mut walk = Walk {
            at: open_path(start)?,
            path: start.to_owned(),
            names: Vec::new(),
            links: 0,
            made: false,
            exposed: None,
        };
        walk.push(path);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        let names = path.components().filter(|part| !matches!(part, Component::CurDir));
        self.names.extend(names.rev().map(|part| part.as_os_str().to_owned()));
    }

    /// Goes to `name` in the directory that has been reached; `dest` is for messages.
    fn step(&mut self, name: OsString, dest: &Path) -> Result<(), Error> {
        self.made = false;
        let stepped = match self.enter(name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.make(&name).map_err(Error::file("create directory", dest));
            }
            Err(error) if is_no_directory(&error) => self.follow(&name, error),
            entered => entered.map(|dir| self.go_to(dir, &name)),
        };
        stepped.map_err(Error::file("open directory", dest))
    }

    fn make(&mut self, name: &OsStr) -> io::Result<()> {
        let made = change(|| make_dir_at(&self.at, name.as_bytes(), 0o777));
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let dir = self.enter(name.as_bytes())?;
        self.go_to(dir, name);
        self.made = true;
        Ok(())
    }

    fn enter(&mut self, name: &[u8]) -> io::Result<File> {
        let dir = open_at(&self.at, name, DIRECTORY, 0)?;
        self.note_exposure(&dir.metadata()?)?;
        Ok(dir)
    }

    fn note_exposure(&mut self, found: &Metadata) -> io::Result<()> {
        if self.exposed.is_none() && others_can_replace(&self.at.metadata()?, found) {
            self.exposed = Some(self.path.clone());
        }
        Ok(())
    }

    fn go_to(&mut self, dir: File, name: &OsStr) {
        self.at = dir;
        // `/` takes the place of all that is before it.
        self.path.push(name);
    }

    /// Goes through a symbolic link; `error` is for what is none.
    fn follow(&mut self, name: &OsStr, error: io::Error) -> io::Result<()> {
        let link = open_at(&self.at, name.as_bytes(), libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        let found = link.metadata()?;
        if !found.is_symlink() {
            return Err(error);
        }
        self.note_exposure(&found)?;
        self.links += 1;
        if self.links > MAX_DEST_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if is_trusted(found.uid()) {
            let target = read_link_at(&link, b"")?;
            self.push(Path::new(OsStr::from_bytes(&target)));
            return Ok(());
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let dir = open_at(&self.at, name.as_bytes(), flags, 0)?;
        if dir.metadata()?.uid() != found.uid() {
            return Err(io::Error::other("a symbolic link of another user leads to it"));
        }
        self.go_to(dir, name);
        Ok(())
    }
}

/// Whether the path still leads to the directory.
pub(super) fn leads_to(path: &Path, dir: &File) -> io::Result<bool> {
    let (found, dir) = (std::fs::metadata(path)?, dir.metadata()?);
    Ok((found.dev(), found.ino()) == (dir.dev(), dir.ino()))
}

fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}

fn is_no_directory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP))
}
