//! Walking the served tree.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Counts, Identity, Scan, ScanOptions, Warning, Why, below, nanoseconds_of};
use crate::error::Error;
use crate::image::manifest::{Content, Entry, Listing, Mtime, Owner};
use crate::image::path::{PARTIAL_PREFIX, TreePath};
use crate::serve::tree::CONTROL_DIR;
use crate::sys::beneath::{EntryType, list, open_beneath};
use crate::sys::fs::{look_at, open_at, read_link_at};

/// Longest path that the system takes, in bytes (`PATH_MAX` less its NUL).
const MAX_SYSTEM_PATH_BYTES: usize = 4095;

/// A scan under way.
pub(super) struct Walk<'a> {
    /// The root's path, for messages.
    root: &'a Path,
    top: &'a File,
    options: &'a ScanOptions,
    root_dev: u64,
    /// Device and inode of the cache's directory.
    cache_dir: Option<(u64, u64)>,
    pub(super) found: Vec<(Entry, Option<Identity>)>,
    pub(super) pending: Vec<Pending>,
    pub(super) warnings: Vec<Warning>,
    counts: Counts,
}

/// A directory that its parent listed and that is still to be read.
pub(super) struct Pending {
    pub(super) path: TreePath,
    pub(super) dev: u64,
    pub(super) inode: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        root: &'a Path,
        top: &'a File,
        options: &'a ScanOptions,
        root_dev: u64,
    ) -> Walk<'a> {
        let cache_dir = options.cache_dir.as_ref().and_then(|dir| fs::metadata(dir).ok());
        Walk {
            root,
            top,
            options,
            root_dev,
            cache_dir: cache_dir.map(|dir| (dir.dev(), dir.ino())),
            found: Vec::new(),
            pending: Vec::new(),
            warnings: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn tree(&mut self, attributes: &Metadata) -> io::Result<()> {
        self.directory(self.top, TreePath::root(), attributes)?;
        while let Some(dir) = self.pending.pop() {
            if let Err(error) = self.subdirectory(&dir) {
                self.leave_out_unreadable(&dir.path, &error)?;
            }
        }
        Ok(())
    }

    /// The tree around one file: a root directory that holds it under its name.
    pub(super) fn one_file(&mut self, attributes: &Metadata) {
        let name = self.root.file_name().unwrap_or_default();
        if let Some(path) = self.path_in(&TreePath::root(), name.as_bytes()) {
            self.add_file(path, attributes);
        }
        self.add(TreePath::root(), attributes, Content::Directory);
        if let Some((root, _)) = self.found.last_mut() {
            root.mode = 0o755;
        }
    }

    pub(super) fn finish(mut self, serves_one_file: bool, now: SystemTime) -> Result<Scan, Error> {
        // As the listing sorts them, so that both have the same indices. A directory that changes
        // while it is read may name an entry twice.
        self.found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        self.found.dedup_by(|(a, _), (b, _)| a.path == b.path);
        self.warnings.sort_by(|a, b| a.path.cmp(&b.path));
        let image_bytes = self.found.iter().map(|(entry, _)| entry.bytes());
        let image_bytes = image_bytes.fold(0, u64::saturating_add);
        let mut identities = Vec::with_capacity(self.found.len());
        let entries = self.found.into_iter().map(|(entry, identity)| {
            identities.push(identity);
            entry
        });
        Ok(Scan {
            root: self.root.to_owned(),
            listing: Listing::of_sorted(entries, image_bytes)?,
            identities,
            serves_one_file,
            warnings: self.warnings,
            counts: self.counts,
            scanned_ns: nanoseconds_of(now),
        })
    }

    pub(super) fn subdirectory(&mut self, listed: &Pending) -> io::Result<()> {
        let dir = open_beneath(self.top, &listed.path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let attributes = dir.metadata()?;
        if (attributes.dev(), attributes.ino()) != (listed.dev, listed.inode) {
            self.leave_out(below(self.root, &listed.path), Why::Replaced);
            return Ok(());
        }
        self.directory(&dir, listed.path.clone(), &attributes)
    }

    fn directory(&mut self, dir: &File, path: TreePath, attributes: &Metadata) -> io::Result<()> {
        for (name, kind) in list(dir)? {
            self.visit(dir, &path, &name, kind)?;
        }
        self.add(path, attributes, Content::Directory);
        Ok(())
    }

    fn visit(
        &mut self,
        dir: &File,
        above: &TreePath,
        name: &[u8],
        kind: EntryType,
    ) -> io::Result<()> {
        let Some(path) = self.path_in(above, name) else { return Ok(()) };
        match self.examine(dir, &path, kind) {
            Ok(()) => Ok(()),
            Err(error) => self.leave_out_unreadable(&path, &error),
        }
    }

    fn examine(&mut self, dir: &File, path: &TreePath, kind: EntryType) -> io::Result<()> {
        let name = path.name();
        let look = || look_at(dir, name)?.ok_or(io::Error::from(io::ErrorKind::NotFound));
        let kind = match kind {
            EntryType::Unknown => look()?.file_type().into(),
            known => known,
        };
        if kind == EntryType::Directory {
            self.add_directory(path, &look()?);
        } else if name.starts_with(PARTIAL_PREFIX) {
            self.counts.partial += 1;
        } else if self.options.restless.contains(&below(self.root, path)) {
            self.leave_out(below(self.root, path), Why::Restless);
        } else if kind == EntryType::File {
            // Opened, as nothing else tells whether it can be read; without waiting, as it may be a
            // fifo by now.
            let file = open_at(dir, name, libc::O_NONBLOCK | libc::O_NOFOLLOW, 0)?;
            self.add_file(path.clone(), &file.metadata()?);
        } else if kind == EntryType::Symlink {
            self.add_symlink(path, &look()?, read_link_at(dir, name)?);
        } else {
            self.counts.special += 1;
        }
        Ok(())
    }

    /// Only directories are compared with the root's file system: what overlayfs says of a file's
    /// device is the layer's and not its own.
    pub(super) fn add_directory(&mut self, path: &TreePath, attributes: &Metadata) {
        let (dev, inode) = (attributes.dev(), attributes.ino());
        if self.options.one_file_system && dev != self.root_dev {
            self.add(path.clone(), attributes, Content::Directory);
            if let Some((mount_point, _)) = self.found.last_mut() {
                // The other file system's root says when that changed, which is nothing of ours.
                mount_point.mtime = Mtime { secs: 0, nanos: 0 };
            }
        } else if self.cache_dir != Some((dev, inode)) {
            self.pending.push(Pending { path: path.clone(), dev, inode });
        }
    }

    fn add_file(&mut self, path: TreePath, attributes: &Metadata) {
        if attributes.is_file() {
            let content = Content::File { bytes: attributes.size(), image_offset: 0 };
            self.add(path, attributes, content);
        } else {
            self.counts.special += 1;
        }
    }

    fn add_symlink(&mut self, path: &TreePath, attributes: &Metadata, target: Vec<u8>) {
        if target.is_empty() || target.len() > Content::MAX_TARGET_BYTES {
            self.leave_out(below(self.root, path), Why::Target);
        } else {
            let content = Content::Symlink { target: target.into() };
            self.add(path.clone(), attributes, content);
        }
    }

    fn add(&mut self, path: TreePath, attributes: &Metadata, content: Content) {
        let (count, identity) = match content {
            Content::Directory => (&mut self.counts.directories, None),
            Content::File { .. } => (&mut self.counts.files, Some(Identity::of(attributes))),
            Content::Symlink { .. } => (&mut self.counts.symlinks, None),
        };
        *count += 1;
        let owner = Owner { uid: attributes.uid(), gid: attributes.gid() };
        let entry = Entry {
            path,
            mode: attributes.mode() & 0o7777,
            owner: (!self.options.no_owners).then_some(owner),
            mtime: Mtime {
                secs: attributes.mtime(),
                nanos: attributes.mtime_nsec().clamp(0, 999_999_999) as u32,
            },
            content,
        };
        self.found.push((entry, identity));
    }

    /// The path of a name that may be an entry; None, with a warning, for one that may not.
    fn path_in(&mut self, dir: &TreePath, name: &[u8]) -> Option<TreePath> {
        let path = dir.join(name);
        let why = match &path {
            Some(path) if path.as_bytes() == CONTROL_DIR => Why::Reserved,
            Some(path) if self.fits(path) => return Some(path.clone()),
            _ => Why::TooLong,
        };
        let name = std::ffi::OsStr::from_bytes(name);
        self.leave_out(below(self.root, dir).join(name), why);
        None
    }

    /// Can the path be opened from the file system's root?
    fn fits(&self, path: &TreePath) -> bool {
        let root_bytes = self.root.as_os_str().len();
        root_bytes.saturating_add(1).saturating_add(path.as_bytes().len()) <= MAX_SYSTEM_PATH_BYTES
    }

    fn leave_out(&mut self, path: PathBuf, why: Why) {
        self.warnings.push(Warning { path, why });
    }

    /// Leaves out what an operation failed on. What vanished is not worth a word; the process's
    /// own shortages say nothing about the tree and end the scan.
    pub(super) fn leave_out_unreadable(
        &mut self,
        path: &TreePath,
        error: &io::Error,
    ) -> io::Result<()> {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match errno {
            libc::ENOENT => {}
            libc::EMFILE | libc::ENFILE | libc::ENOMEM => {
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => self.leave_out(below(self.root, path), Why::Unreadable { errno }),
        }
        Ok(())
    }
}
