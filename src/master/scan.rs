//! Scanning: which directories, files and links the served tree holds at one moment.
//!
//! Symbolic links are recorded, never followed, and nothing outside the served tree is reached even
//! while somebody rearranges it: everything is opened below the root's descriptor, a directory is
//! compared with what its parent listed, and what is in it is looked at from there.

#[cfg(test)]
pub(super) mod tests;
mod walk;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::Error;
use crate::image::manifest::Listing;
use crate::image::path::{TreePath, shown};
use crate::sys::beneath::open_beneath;
use walk::Walk;

/// A file that changed this shortly before a scan may change again without a trace, if its file
/// system counts in whole seconds (FAT: in two).
const COARSE_SETTLING_NS: i64 = 2_000_000_000;
/// The same for all others: the kernel's clock for files has ticks of at most 10 ms.
const FINE_SETTLING_NS: i64 = 100_000_000;

/// What to scan and what to record.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Do not descend into other file systems; a mount point is an empty directory.
    pub(crate) one_file_system: bool,
    /// Record no owners.
    pub(crate) no_owners: bool,
    /// The directory of the cache, left out if it is in the tree: hashing writes to it, so that a
    /// tree that held it would never come to rest.
    pub(crate) cache_dir: Option<PathBuf>,
    /// Files that are left out because they never come to rest.
    pub(crate) restless: BTreeSet<PathBuf>,
}

/// One state of the served tree.
#[derive(Debug)]
pub struct Scan {
    root: PathBuf,
    listing: Listing,
    /// For each entry of the listing what its file is; None for what is no file.
    identities: Vec<Option<Identity>>,
    serves_one_file: bool,
    warnings: Vec<Warning>,
    counts: Counts,
    scanned_ns: i64,
}

/// What tells a file, in one state, from all others and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file system's device number.
    pub(crate) dev: u64,
    /// The inode number.
    pub(crate) inode: u64,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Time of the last change of content or attributes, in nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
}

/// How much of what was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Directories served, with the root.
    pub(crate) directories: u64,
    /// Files served.
    pub(crate) files: u64,
    /// Symbolic links served.
    pub(crate) symlinks: u64,
    /// Sockets, devices and fifos, which are not served.
    pub(crate) special: u64,
    /// Files that xget is still fetching, which are not served.
    pub(crate) partial: u64,
}

/// Something that is not served although the user may expect it to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its path, as the user would write it.
    pub(crate) path: PathBuf,
    /// Why it is left out.
    pub(crate) why: Why,
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It cannot be read.
    Unreadable {
        /// What the system said, as an `errno`.
        errno: i32,
    },
    /// Its name or its path is longer than an entry's may be.
    TooLong,
    /// It is a link with an empty target or one longer than an entry's may be.
    Target,
    /// The root's `.xget` is kept for control files.
    Reserved,
    /// Something else took its place during the scan.
    Replaced,
    /// It changed each time that it was to be hashed.
    Restless,
}

/// Walks the directory `root`, or makes a tree of one file if `root` is one.
///
/// `root` may be a symbolic link and is resolved at every scan, so that moving the link publishes
/// another tree. What cannot be served is left out and told by [`Scan::warnings`] and
/// [`Scan::counts`]. `now` is compared with the times of files to find those that may still be
/// changing.
///
/// Fails if the root cannot be read, if the tree is beyond what a manifest can hold, and when the
/// process is short of descriptors or memory: a scan that dropped entries for that would look like
/// a tree that lost them.
pub(crate) fn scan(root: &Path, options: &ScanOptions, now: SystemTime) -> Result<Scan, Error> {
    let top = open_root(root).map_err(Error::file("open", root))?;
    let attributes = top.metadata().map_err(Error::file("read the attributes of", root))?;
    let mut walk = Walk::new(root, &top, options, attributes.dev());
    if attributes.is_dir() {
        walk.tree(&attributes).map_err(Error::file("scan", root))?;
    } else if attributes.is_file() {
        walk.one_file(&attributes);
    } else {
        let neither = io::Error::other("not a directory or regular file");
        return Err(Error::file("serve", root)(neither));
    }
    walk.finish(attributes.is_file(), now)
}

impl Scan {
    /// The entries, and the image that their files make.
    pub(crate) fn listing(&self) -> &Listing {
        &self.listing
    }

    /// What the file at an index of the listing was; None if there is no file.
    pub(crate) fn identity(&self, entry: usize) -> Option<&Identity> {
        self.identities.get(entry)?.as_ref()
    }

    /// What is left out, in the order of the paths.
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// How much of what was met.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Is nothing of what is served different in `other`?
    ///
    /// Only as sure as the file system's clock is fine: see [`Scan::is_settled`].
    pub(crate) fn same_as(&self, other: &Scan) -> bool {
        self.listing == other.listing && self.identities == other.identities
    }

    /// Would every change of a file since this scan show in the next one?
    ///
    /// False while a file is so fresh that it could change once more within the granularity of the
    /// file system's clock. The hash of such a tree is worth making again, once it is settled, even
    /// if the next scan looks the same.
    pub(crate) fn is_settled(&self) -> bool {
        self.identities.iter().flatten().all(|identity| self.has_settled(identity))
    }

    /// Could a file not have changed since without a trace?
    pub(super) fn has_settled(&self, file: &Identity) -> bool {
        let newest = file.mtime_ns.max(file.ctime_ns);
        newest.saturating_add(settling_ns(file.ctime_ns)) < self.scanned_ns
    }

    /// The path of a file in the file system.
    pub(super) fn file_path(&self, entry: usize) -> PathBuf {
        match self.listing.path(entry) {
            Some(path) if !self.serves_one_file => below(&self.root, &path),
            _ => self.root.clone(),
        }
    }

    /// Opens the file at an index of the listing if it is still what it was: `ESTALE` if not.
    pub(super) fn open_same(&self, entry: usize) -> io::Result<File> {
        let file = self.open(entry)?;
        self.check_same(entry, &file)?;
        Ok(file)
    }

    /// Is the open file still as it was at the scan? `ESTALE` if not.
    pub(super) fn check_same(&self, entry: usize, file: &File) -> io::Result<()> {
        if self.identity(entry) != Some(&Identity::of(&file.metadata()?)) {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok(())
    }

    /// Takes the present state of a file for what was scanned, as if a write had left no trace.
    #[cfg(test)]
    pub(super) fn forget_times(&mut self, path: &Path) {
        let now = Identity::of(&std::fs::metadata(path).unwrap());
        for identity in self.identities.iter_mut().flatten() {
            if identity.inode == now.inode {
                *identity = now;
            }
        }
    }

    /// As if it had been made long after all files had changed.
    #[cfg(test)]
    pub(super) fn settle(&mut self) {
        self.scanned_ns = i64::MAX;
    }

    /// Opens the file at an index of the listing, whatever it has become. The root is not held open
    /// for that, as nobody could unmount it then.
    fn open(&self, entry: usize) -> io::Result<File> {
        let root = open_root(&self.root)?;
        match self.listing.path(entry) {
            Some(path) if !self.serves_one_file => open_beneath(&root, &path, libc::O_RDONLY),
            _ => Ok(root),
        }
    }
}

impl Identity {
    /// The identity of what has these attributes.
    pub(crate) fn of(attributes: &Metadata) -> Identity {
        Identity {
            dev: attributes.dev(),
            inode: attributes.ino(),
            bytes: attributes.size(),
            mtime_ns: nanoseconds(attributes.mtime(), attributes.mtime_nsec()),
            ctime_ns: nanoseconds(attributes.ctime(), attributes.ctime_nsec()),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not served: {}", shown(self.path.as_os_str().as_bytes()), self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Unreadable { errno } => {
                f.write_str(&crate::error::reason(&io::Error::from_raw_os_error(*errno)))
            }
            Why::TooLong => f.write_str("its path is longer than 4095 bytes"),
            Why::Target => f.write_str("the target of the symbolic link is empty or too long"),
            Why::Reserved => f.write_str("the name is reserved for xget's control files"),
            Why::Replaced => f.write_str("it was replaced during the scan"),
            Why::Restless => f.write_str("it keeps changing or failing while it is read"),
        }
    }
}

/// Opens what is served. Its path is the user's: links in it are followed.
fn open_root(root: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(root)
}

fn below(root: &Path, path: &TreePath) -> PathBuf {
    if path.is_root() {
        return root.to_owned();
    }
    root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// Nanoseconds since 1970. Times beyond the years 1677 and 2262 count as those: where a file's own time is such, its
/// ctime, which only the kernel sets, tells of changes.
fn nanoseconds(secs: i64, nanos: i64) -> i64 {
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn nanoseconds_of(time: SystemTime) -> i64 {
    let signed = |nanos: u128| i64::try_from(nanos).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => signed(since.as_nanos()),
        Err(before) => signed(before.duration().as_nanos()).saturating_neg(),
    }
}

/// How long after its last change a file may change without a trace. Only the kernel sets a ctime,
/// so one with a fraction of a second tells how fine the file system counts.
fn settling_ns(ctime_ns: i64) -> i64 {
    match ctime_ns % 1_000_000_000 {
        0 => COARSE_SETTLING_NS,
        _ => FINE_SETTLING_NS,
    }
}
