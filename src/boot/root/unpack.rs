//! Writes an archive's entries below a directory: with their modes, owners, times, links, devices and
//! extended attributes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use crate::image::manifest::{Mtime, Owner};
use crate::node::store::sparse::data_runs;
use crate::sys::fs::{make_node, set_mtime, set_xattr};

/// Written at a time.
const PIECE_BYTES: usize = 128 << 10;

/// What an entry is.
pub(super) enum Kind<'a> {
    Dir,
    /// With this content.
    File(&'a mut dyn Read),
    /// With this content here and there, and holes between: where each part goes, how long it is, and how
    /// long the file is.
    Sparse {
        content: &'a mut dyn Read,
        parts: Vec<(u64, u64)>,
        size: u64,
    },
    /// The content of a file that is there already.
    Content(&'a mut dyn Read),
    /// To this target, whatever it is.
    Symlink(&'a [u8]),
    /// Another name of the file at this path.
    HardLink(&'a [u8]),
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    /// A fifo or a socket, as `S_IFMT` has it.
    Node(libc::mode_t),
}

/// What belongs to an entry of any kind.
pub(super) struct Attributes {
    /// Permissions; the bits of the type do not count.
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) mtime: Mtime,
    /// Names as `setxattr(2)` takes them, and values.
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// How many of something are missing, and where the first of them was.
#[derive(Default)]
struct Missed {
    count: u64,
    first: PathBuf,
}

impl Missed {
    fn add(&mut self, path: &Path) {
        if self.count == 0 {
            self.first = path.into();
        }
        self.count += 1;
    }

    fn said(&self, what: &str) -> Option<String> {
        let Missed { count, first } = self;
        (*count > 0).then(|| format!("{what}: {count}, the first at {}", first.display()))
    }
}

/// Writes entries below `base`.
///
/// Paths are taken as they are, through symbolic links: whoever cannot trust the archive confines the
/// thread to `base` first ([`crate::sys::mount::confine_thread`]). `..` is refused.
pub(super) struct Unpacker {
    base: PathBuf,
    /// Directories, whose times change with each entry in them and are set in the end.
    dirs: BTreeMap<PathBuf, Mtime>,
    /// Bytes of files so far, without holes.
    bytes: u64,
    /// Where the entry that was the last to be begun is, for messages.
    last: PathBuf,
    /// Whether it is done.
    is_between: bool,
    /// An archive had no end.
    has_no_end: bool,
    /// Entries that are of no kind that can be unpacked.
    skipped: Missed,
    /// Extended attributes and access control lists that could not be set.
    lost: Missed,
    /// What is being written, a piece at a time.
    piece: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new(base: &Path) -> Unpacker {
        Unpacker {
            base: base.into(),
            dirs: BTreeMap::new(),
            bytes: 0,
            last: PathBuf::new(),
            is_between: true,
            has_no_end: false,
            skipped: Missed::default(),
            lost: Missed::default(),
            piece: vec![0; PIECE_BYTES],
        }
    }

    /// An entry at this path comes next; messages name it.
    pub(super) fn begin(&mut self, path: &[u8]) -> io::Result<()> {
        // As it is written, as far as it is not as it should be.
        self.last = OsStr::from_bytes(path).into();
        self.last = relative(path)?;
        self.is_between = false;
        Ok(())
    }

    /// What comes next belongs to no entry.
    pub(super) fn between(&mut self) {
        self.is_between = true;
    }

    /// The archive has not the end that it should have.
    pub(super) fn note_no_end(&mut self) {
        self.has_no_end = true;
    }

    /// The entry that was begun is of no kind that can be unpacked.
    pub(super) fn skip(&mut self) {
        self.skipped.add(&self.last);
    }

    /// An attribute of the entry that was begun cannot be set.
    pub(super) fn lose_attribute(&mut self) {
        self.lost.add(&self.last);
    }

    /// What of the archive is missing in what was unpacked.
    pub(super) fn missed(&self) -> impl Iterator<Item = String> {
        let skipped = self.skipped.said("entries of an unknown type");
        let lost = self.lost.said("extended attributes or access control lists");
        let no_end = || "what may follow its last entry, as it has no end".to_owned();
        [skipped, lost, self.has_no_end.then(no_end)].into_iter().flatten()
    }

    /// Bytes of files written so far, without holes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where in the archive unpacking is, for messages.
    pub(super) fn place(&self) -> String {
        match (self.last.as_os_str().is_empty(), self.is_between) {
            (true, _) => "at its beginning".into(),
            (false, true) => format!("behind entry {}", self.last.display()),
            (false, false) => format!("at entry {}", self.last.display()),
        }
    }

    /// Adds an entry; what has its path already gives way to it, unless both are directories.
    pub(super) fn add(
        &mut self,
        path: &[u8],
        kind: Kind<'_>,
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.last = relative(path)?;
        let place = self.base.join(&self.last);
        if let Kind::Content(content) = kind {
            let file = OpenOptions::new().write(true).truncate(true).open(&place)?;
            let size = self.write(content, &file, 0)?;
            file.set_len(size)?;
            return self.set_attributes(&place, false, attributes);
        }
        if let Kind::HardLink(target) = kind
            && is_same(&self.base.join(relative(target)?), &place)
        {
            return Ok(());
        }
        let is_dir = matches!(kind, Kind::Dir);
        if make_way(&place, is_dir)? {
            self.dirs.remove(&place);
        }
        let mut has_mode = true;
        match kind {
            Kind::Dir => {
                fs::create_dir_all(&place)?;
                self.dirs.insert(place.clone(), attributes.mtime);
            }
            Kind::File(content) => {
                let file = File::create_new(&place)?;
                let size = self.write(content, &file, 0)?;
                file.set_len(size)?;
            }
            Kind::Sparse { content, parts, size } => {
                let file = File::create_new(&place)?;
                for (offset, length) in parts {
                    let end = offset.checked_add(length).filter(|&end| end <= size);
                    if Some(self.write(&mut content.take(length), &file, offset)?) != end {
                        return Err(io::Error::other(
                            "the parts of a sparse file do not match its size",
                        ));
                    }
                }
                file.set_len(size)?;
            }
            Kind::Symlink(target) => {
                symlink(OsStr::from_bytes(target), &place)?;
                has_mode = false;
            }
            // It has its attributes by its first name.
            Kind::HardLink(target) => {
                return fs::hard_link(self.base.join(relative(target)?), &place);
            }
            Kind::Device { block, major, minor } => {
                let kind = if block { libc::S_IFBLK } else { libc::S_IFCHR };
                make_node(&place, kind | 0o600, major, minor)?;
            }
            Kind::Node(kind) => make_node(&place, kind | 0o600, 0, 0)?,
            Kind::Content(_) => {}
        }
        self.set_attributes(&place, !has_mode, attributes)
    }

    fn set_attributes(
        &mut self,
        place: &Path,
        is_link: bool,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let Owner { uid, gid } = attributes.owner;
        lchown(place, Some(uid), Some(gid))?;
        if !is_link {
            // After the owner, as changing that takes the set-id bits away.
            fs::set_permissions(place, Permissions::from_mode(attributes.mode & 0o7777))?;
        }
        for (name, value) in &attributes.xattrs {
            // Not every file system and kernel has all kinds of them, nor room for all, and not everybody
            // may set them.
            if set_xattr(place, name, value).is_err() {
                self.lose_attribute();
            }
        }
        set_mtime(place, attributes.mtime)
    }

    /// Writes `content` at `offset`, where nothing is yet, and leaves holes where it has blocks of zeros; where
    /// it ends.
    fn write(&mut self, content: &mut dyn Read, file: &File, offset: u64) -> io::Result<u64> {
        let mut at = offset;
        loop {
            let count = match content.read(&mut self.piece) {
                Ok(0) => return Ok(at),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = self.piece.get(..count).unwrap_or_default();
            for run in data_runs(at, bytes) {
                let place = at.saturating_add(run.start as u64);
                let data = bytes.get(run).unwrap_or_default();
                file.write_all_at(data, place)?;
                self.bytes += data.len() as u64;
            }
            at = at.saturating_add(count as u64);
        }
    }

    /// Sets what can only be set when all entries are there.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let dirs = std::mem::take(&mut self.dirs);
        dirs.into_iter().rev().try_for_each(|(place, mtime)| set_mtime(&place, mtime))
    }
}

/// Whether both are names of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    file(one).is_some_and(|found| file(other) == Some(found))
}

/// Makes the directories above `place`, and removes what is there unless a directory stays one; whether it
/// removed a directory.
fn make_way(place: &Path, for_dir: bool) -> io::Result<bool> {
    if let Some(above) = place.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() && for_dir => Ok(false),
        Ok(found) if found.is_dir() => fs::remove_dir(place)
            .map(|()| true)
            .map_err(|_| io::Error::other("a directory with this name exists, and is not empty")),
        // A directory that is a link elsewhere stays so.
        Ok(_) if for_dir && place.is_dir() => Ok(false),
        Ok(_) => fs::remove_file(place).map(|()| false),
    }
}

/// A path below the base: `./usr`, `/usr` and `usr` are the same.
fn relative(path: &[u8]) -> io::Result<PathBuf> {
    let mut below = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("the path contains .."));
            }
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests;
