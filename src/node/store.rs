//! The store: the files of one fetch on the node that fetches them.
//!
//! Bytes that are not verified stand in temporary files only, each in the directory of the file
//! that it will become and with a name that is made from that file's place, so that a fetch that
//! was interrupted finds it again. Once every chunk of a file is verified, the file gets its
//! attributes and then, in one step, its final name.
//!
//! Other users may be able to write to DEST. Bytes go only into files that this run made, or that nobody else
//! can write ([`found`]); a file is known by its descriptor and its inode, never by its name alone. In a directory
//! where others can rename, a name is looked at again after it was used.
//!
//! A chunk may span many files, some of which were not asked for. Their bytes go into the
//! **spill**, one nameless file addressed like the image: without them the chunk could be neither
//! verified nor served to others. It is gone after a restart, and such chunks are fetched again.
//!
//! Nothing is synced to disk. Most destinations are in memory; for the others a fetch after a power
//! cut is the remedy, as it verifies all that it finds.

mod attributes;
mod calls;
mod dirs;
#[cfg(test)]
pub(crate) mod faults;
mod finish;
mod found;
mod open_files;
pub(crate) mod sparse;
mod temporary;
mod verify;
mod way;
mod writer;

/// Nothing goes wrong but what the kernel says.
#[cfg(not(test))]
mod faults {
    pub(super) enum Call {
        Read,
        Write(usize),
        Change,
    }

    pub(super) fn before(call: Call) -> (usize, std::io::Result<()>) {
        match call {
            Call::Write(bytes) => (bytes, Ok(())),
            Call::Read | Call::Change => (0, Ok(())),
        }
    }
}

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::{Content, Entry, Manifest};
use crate::image::path::TreePath;
use crate::node::plan::Plan;
use crate::sys::fs::{Lock, lock, look_at, open_at, room};
use crate::sys::rights::others_can_rename_in;
use attributes::{Attributes, Origin};
use dirs::{Dirs, replaced};
use found::Found;
use open_files::OpenFiles;
use temporary::temporary_name;
use verify::Copying;
use writer::{Failure, Piece, Writer};

/// How long another process may take to give up its locks, and how often it is looked whether it has.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// See [`LOCK_PATIENCE`].
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What is kept of the entries' attributes; times always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Give files and directories their modes; else what the umask leaves of the usual ones.
    pub keep_modes: bool,
    /// As root, give everything its numeric owner and group; for others this does nothing.
    pub keep_owners: bool,
}

/// How many entries were asked for, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Symbolic links.
    pub links: u64,
    /// Directories, with the root if it was asked for.
    pub directories: u64,
}

/// Where the files of a fetch are that is whole.
#[derive(Debug)]
pub struct WholeFiles {
    /// The directory that they are in.
    pub directory: File,
    /// Bytes of files that were not asked for, if there are any.
    pub spill: Option<File>,
}

/// The files of one fetch.
///
/// [`Store::open`], then once [`Store::verify`]; then [`Store::write`] for what arrives and
/// [`Store::verified`] for each chunk that hashes to what it should; then [`Store::finish`]. After
/// an error temporary files stay for the next attempt.
#[derive(Debug)]
pub struct Store {
    plan: Rc<Plan>,
    manifest: Arc<Manifest>,
    attributes: Attributes,
    dirs: Dirs,
    /// What holds the locks of this fetch.
    locked: Vec<File>,
    wanted: ChunkSet,
    verified: ChunkSet,
    /// For each entry what there is of it; of use only for files that were asked for.
    files: Vec<FileState>,
    open: OpenFiles,
    spill: Option<Arc<File>>,
    /// The file that was found for an entry, which is being copied.
    copying: Option<Copying>,
    writer: Writer,
    /// For each chunk on its way the offset in the image after its last byte that was written as
    /// data: from there on, what was a hole still is one.
    data_ends: HashMap<ChunkId, u64>,
}

/// What there is of a file, and how many of its chunks are to come.
#[derive(Clone, Copy, Debug)]
struct FileState {
    held: Held,
    missing_chunks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nothing of use.
    Nothing,
    /// There is a file that this run did not make.
    Found(Found),
    /// The right chunks of such a file are being copied into this temporary file.
    Copied(Inode),
    /// There is a temporary file.
    Temporary {
        origin: Origin,
        /// It has a hole wherever nothing was written.
        fresh: bool,
        inode: Inode,
    },
    /// The verified file has its final name.
    Whole(Inode),
}

/// What tells a file from another that took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    dev: u64,
    number: u64,
    bytes: u64,
}

impl Inode {
    fn of(found: &Metadata) -> Inode {
        Inode { dev: found.dev(), number: found.ino(), bytes: found.size() }
    }
}

impl Store {
    /// Makes DEST and the directories in it, locks it against other fetches and looks for files
    /// that are there already.
    ///
    /// Fails if something else is where a directory, file or link must be, and if another xget is
    /// writing there.
    pub fn open(
        plan: Plan,
        manifest: Arc<Manifest>,
        options: StoreOptions,
    ) -> Result<Store, Error> {
        let dirs = Dirs::open(&plan.dir)?;
        let locked = lock_destination(&plan, &dirs)?;
        let mut store = Store::new(plan, manifest, options, dirs, locked);
        store.make_directories()?;
        store.look_at_files()?;
        Ok(store)
    }

    fn new(
        plan: Plan,
        manifest: Arc<Manifest>,
        options: StoreOptions,
        dirs: Dirs,
        locked: Vec<File>,
    ) -> Store {
        let nothing = FileState { held: Held::Nothing, missing_chunks: 0 };
        Store {
            attributes: Attributes::new(options),
            locked,
            dirs,
            wanted: plan.wanted(),
            verified: ChunkSet::empty(manifest.layout()),
            files: vec![nothing; manifest.listing().len()],
            open: OpenFiles::new(),
            spill: None,
            copying: None,
            writer: Writer::default(),
            data_ends: HashMap::new(),
            plan: Rc::new(plan),
            manifest,
        }
    }

    /// What another process has fetched, in its directory and its spill, to be served and nothing
    /// else: nothing is changed, and only the chunks that are right are wanted. It is all hashed once
    /// more; `progress` is told after each chunk how many bytes were, and of how many.
    pub fn taken_over(
        plan: Plan,
        manifest: Arc<Manifest>,
        whole: WholeFiles,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Store, Error> {
        let options = StoreOptions { keep_modes: false, keep_owners: false };
        let dirs = Dirs::at(&plan.dir, whole.directory)?;
        let mut store = Store::new(plan, manifest, options, dirs, Vec::new());
        store.spill = whole.spill.map(Arc::new);
        store.find_whole_files();
        store.check(progress)?;
        store.wanted = store.verified.clone();
        Ok(store)
    }

    /// What [`Store::taken_over`] needs in another process.
    pub fn whole_files(&self) -> io::Result<WholeFiles> {
        let spill = self.spill.as_ref().map(|spill| spill.try_clone()).transpose()?;
        Ok(WholeFiles { directory: self.dirs.top().try_clone()?, spill })
    }

    /// What was asked for, and where it goes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The first directory in which other users can put something else in the place of what is fetched.
    pub fn exposed(&self) -> Option<&Path> {
        self.dirs.exposed()
    }

    /// The chunks that hold any byte of what was asked for.
    pub fn wanted(&self) -> &ChunkSet {
        &self.wanted
    }

    /// How many bytes there is room for at the destination; None where that cannot be said.
    pub fn room(&self) -> Result<Option<u64>, Error> {
        room(self.dirs.top()).map_err(Error::file("read the free space of", &self.plan.dir))
    }

    /// How many entries were asked for.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, entry, _) in chosen(&self.plan, &self.manifest) {
            *match entry.content {
                Content::Directory => &mut counts.directories,
                Content::File { .. } => &mut counts.files,
                Content::Symlink { .. } => &mut counts.links,
            } += 1;
        }
        counts
    }

    /// Takes bytes that are not verified yet, `range` of `buffer`, from `image_offset` on; may be
    /// called again for a chunk that turned out wrong. What belongs to a chunk that is not wanted,
    /// or that is verified already, is left out. The buffer is shared until they are written.
    ///
    /// Fails if the file cannot be made or written, such as on a full disk.
    pub fn write(
        &mut self,
        image_offset: u64,
        buffer: &Arc<Vec<u8>>,
        range: Range<usize>,
    ) -> Result<(), Error> {
        let piece = Piece { buffer, range };
        let manifest = self.manifest.clone();
        let end = image_offset.saturating_add(piece.range.len() as u64);
        for chunk in manifest.layout().covering(image_offset..end) {
            if !self.wanted.contains(chunk) || self.verified.contains(chunk) {
                continue;
            }
            let range = manifest.layout().range(chunk);
            let range = range.start.max(image_offset)..range.end.min(end);
            for segment in manifest.listing().segments(range) {
                let start = file_offset(&manifest, segment.entry).saturating_add(segment.offset);
                let at = start.saturating_sub(image_offset) as usize;
                let part = piece.part(at, at.saturating_add(segment.len as usize));
                match self.plan.chosen(segment.entry) {
                    true => self.write_temporary(chunk, segment, start, part)?,
                    false => self.write_spill(start, part)?,
                }
            }
        }
        Ok(())
    }

    /// A number for [`Store::is_written`], for all that was to be written so far.
    pub fn ticket(&self) -> u64 {
        self.writer.ticket()
    }

    /// Is everything in its file that was to be written when the ticket was taken?
    ///
    /// Fails if something could not be written.
    pub fn is_written(&mut self, ticket: u64) -> Result<bool, Error> {
        self.writer.is_written(ticket).map_err(|failure| self.not_written(failure))
    }

    /// Waits until one more piece is in its file, if any is not.
    pub fn wait_for_writing(&mut self) {
        self.writer.wait();
    }

    fn not_written(&self, (entry, error): Failure) -> Error {
        match entry {
            Some(entry) => Error::file("write", self.full(entry))(error),
            None => Error::file("write a temporary file in", &self.plan.dir)(error),
        }
    }

    /// Notes that all bytes of a chunk were written and hash to what they should. Every file that
    /// this makes whole gets its attributes and its final name.
    pub fn verified(&mut self, chunk: ChunkId) -> Result<(), Error> {
        if !self.wanted.contains(chunk) || !self.verified.insert(chunk) {
            return Ok(());
        }
        self.data_ends.remove(&chunk);
        let manifest = self.manifest.clone();
        for segment in manifest.listing().segments(manifest.layout().range(chunk)) {
            if !self.plan.chosen(segment.entry) {
                continue;
            }
            let Some(state) = self.files.get_mut(segment.entry) else { continue };
            state.missing_chunks = state.missing_chunks.saturating_sub(1);
            if state.missing_chunks == 0 {
                self.place_file(segment.entry)?;
            }
        }
        Ok(())
    }

    /// A file to read an entry's bytes from, and what to add to an offset in the entry.
    ///
    /// Only the bytes of verified chunks are what they should be. Fails if nothing of the entry is
    /// held, and if somebody has replaced the file since.
    pub fn source(&mut self, entry: usize) -> io::Result<(Arc<File>, u64)> {
        if self.plan.chosen(entry) {
            return Ok((self.file(entry)?, 0));
        }
        let spill = self.spill.clone().ok_or_else(nothing)?;
        Ok((spill, file_offset(&self.manifest, entry)))
    }

    fn make_directories(&mut self) -> Result<(), Error> {
        let keep_modes = self.attributes.keep_modes();
        for (_, entry, place) in chosen(&self.plan, &self.manifest) {
            if entry.content == Content::Directory && !place.is_root() {
                self.dirs.make(&place, self.attributes.first_dir_mode(), keep_modes)?;
                let dir = self.dirs.dir(&place)?;
                let found = dir
                    .metadata()
                    .map_err(Error::file("read the attributes of", self.dirs.full(&place)))?;
                if others_can_rename_in(&found) && !self.attributes.is_as_meant(&found, &entry) {
                    self.dirs.expose(&place);
                }
            }
        }
        Ok(())
    }

    fn look_at_files(&mut self) -> Result<(), Error> {
        let layout = self.manifest.layout();
        for (i, entry, place) in chosen(&self.plan, &self.manifest) {
            if entry.content == Content::Directory {
                continue;
            }
            let dir = self.dirs.parent(&place)?;
            let held = found::look_for(&dir, &place, &entry, &self.attributes);
            let held = held.map_err(Error::file("replace", self.dirs.full(&place)))?;
            let missing_chunks = layout.covering(entry.image_range()).count() as u64;
            if let Some(state) = self.files.get_mut(i) {
                *state = FileState { held, missing_chunks };
            }
        }
        Ok(())
    }

    /// Takes every file of the right size for what it should be, until it is hashed.
    fn find_whole_files(&mut self) {
        let (plan, manifest) = (self.plan.clone(), self.manifest.clone());
        for (i, entry, place) in chosen(&plan, &manifest) {
            let Content::File { bytes, .. } = entry.content else { continue };
            let dir = self.dirs.parent(&place).map_err(io::Error::other);
            let found = dir.and_then(|dir| look_at(&dir, place.name())).ok().flatten();
            if let Some(found) = found.filter(|found| found.is_file() && found.size() == bytes) {
                self.set_held(i, Held::Whole(Inode::of(&found)));
            }
        }
    }

    /// The open file of an entry that was asked for, wherever it stands.
    fn file(&mut self, entry: usize) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.get(entry) {
            return Ok(file);
        }
        let place = self.plan.place(entry).ok_or_else(nothing)?;
        let dir = self.dirs.parent(&place).map_err(io::Error::other)?;
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let (file, inode) = match self.held(entry) {
            Held::Nothing => return Err(nothing()),
            Held::Found(found) => return self.open_found(entry, found),
            Held::Temporary { inode, .. } | Held::Copied(inode) => {
                (open_at(&dir, &temporary_name(&place), libc::O_RDWR | flags, 0)?, inode)
            }
            Held::Whole(inode) => (open_at(&dir, place.name(), libc::O_RDONLY | flags, 0)?, inode),
        };
        match Inode::of(&file.metadata()?) == inode {
            true => Ok(self.open.put(entry, file)),
            false if matches!(self.held(entry), Held::Whole(_)) => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced"))
            }
            false => Err(replaced()),
        }
    }

    fn held(&self, entry: usize) -> Held {
        self.files.get(entry).map_or(Held::Nothing, |state| state.held)
    }

    fn set_held(&mut self, entry: usize, held: Held) {
        if let Some(state) = self.files.get_mut(entry) {
            state.held = held;
        }
    }

    /// The path of an entry in the file system, for messages.
    fn full(&self, entry: usize) -> PathBuf {
        self.plan.place(entry).map_or(self.plan.dir.clone(), |place| self.dirs.full(&place))
    }
}

/// The entries that were asked for, each with its place.
fn chosen<'a>(
    plan: &'a Plan,
    manifest: &'a Manifest,
) -> impl DoubleEndedIterator<Item = (usize, Entry, TreePath)> + 'a {
    plan.entries().filter_map(|i| Some((i, manifest.listing().entry(i)?, plan.place(i)?)))
}

/// Locks DEST against another fetch into it, for as long as the files that are returned are open.
///
/// Where DEST is a file, that file is locked and its directory only shared, so that two files of
/// one directory can be fetched at once.
fn lock_destination(plan: &Plan, dirs: &Dirs) -> Result<Vec<File>, Error> {
    match plan.replacement() {
        None => lock_directory(dirs.top()),
        Some(place) => lock_file(dirs.top(), place.name()),
    }
    .map_err(Error::file("write to", dirs.full(plan.replacement().unwrap_or(&TreePath::root()))))
}

fn lock_directory(top: &File) -> io::Result<Vec<File>> {
    let top = top.try_clone()?;
    take_lock(&top, Lock::Exclusive)?;
    Ok(vec![top])
}

fn lock_file(top: &File, name: &[u8]) -> io::Result<Vec<File>> {
    let top = top.try_clone()?;
    take_lock(&top, Lock::Shared)?;
    let open = || open_at(&top, name, libc::O_RDONLY | libc::O_NONBLOCK, 0);
    let file = open()?;
    take_lock(&file, Lock::Exclusive)?;
    // Whoever replaced it between the two calls holds the lock of the one that is there now.
    match Inode::of(&open()?.metadata()?) == Inode::of(&file.metadata()?) {
        true => Ok(vec![top, file]),
        false => Err(busy()),
    }
}

/// A file system without locks does without them: such is NFS for directories.
///
/// A process that was killed a moment ago may still have its locks while it is taken down.
fn take_lock(file: &File, kind: Lock) -> io::Result<()> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock(file, kind) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return Ok(()),
        }
        if Instant::now() >= end {
            return Err(busy());
        }
        thread::sleep(LOCK_PAUSE);
    }
}

fn busy() -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, "another xget process is writing to it")
}

fn nothing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no chunk of this file is held")
}

fn file_offset(manifest: &Manifest, entry: usize) -> u64 {
    manifest.listing().image_start(entry)
}

#[cfg(test)]
mod tests;
