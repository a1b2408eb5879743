//! Nodes with the real store, each in a directory of its own, whose disks and programs fail.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::error::Error;
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::Content;
use crate::image::path::{PARTIAL_PREFIX, TreePath};
use crate::node::plan::{DestIs, plan};
use crate::node::store::faults::{Disk, with};
use crate::node::store::{Store, StoreOptions};
use crate::sim::host::{Keep, Served};

/// Pieces of this size are written by the thread that runs the cluster.
const PIECE_BYTES: usize = 16 << 10;
/// How often a node's program may end by itself.
const MOST_ENDS: u32 = 4;
const OPTIONS: StoreOptions = StoreOptions { keep_modes: true, keep_owners: false };

/// The disks of all nodes. Gone when this goes.
#[derive(Debug)]
pub(super) struct Disks {
    dir: PathBuf,
    random: u64,
    places: BTreeMap<HostId, Rc<RefCell<Place>>>,
}

/// What outlives a node's program.
#[derive(Debug)]
struct Place {
    dest: PathBuf,
    sources: Vec<TreePath>,
    random: u64,
    /// What was there before, or was damaged by a power cut, by entry: such a file may keep its name
    /// until there is a better one.
    old: BTreeMap<usize, Vec<u8>>,
    /// The files that were looked at, as they were.
    seen: BTreeMap<usize, (u64, i64, i64)>,
    /// What the node has said that it has: once it starts again it has all of that. None where nothing
    /// is promised: before the first start, after a power cut, and from a start on at which the disk
    /// could not be read. What cannot be read is not held, is fetched again into a new file, and that
    /// stands in the place of the old one from then on, even if the program is killed half-way.
    said: Option<ChunkSet>,
    ends_left: u32,
}

/// A program's files, from its start to its end.
#[derive(Debug)]
struct Kept {
    served: Served,
    place: Rc<RefCell<Place>>,
    disk: Disk,
    store: Store,
    held: ChunkSet,
}

impl Disks {
    pub(super) fn new(seed: u64) -> Disks {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = above.join(format!("xget-sim-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Disks { dir, random: seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1, places: BTreeMap::new() }
    }

    /// A node's program starts.
    pub(super) fn start(&mut self, id: HostId, served: &Served) -> Result<Box<dyn Keep>, Wrong> {
        let (dir, random) = (&self.dir, &mut self.random);
        let again = self.places.contains_key(&id);
        let place = self.places.entry(id).or_insert_with(|| {
            let dest = dir.join(id.0.to_string());
            Rc::new(RefCell::new(Place::new(dest, served, next_random(random))))
        });
        if again {
            place.borrow_mut().suffer(served);
        }
        Ok(Box::new(Kept::open(place.clone(), served)?))
    }

    /// What is wrong with the files of a node that was whole.
    pub(super) fn check_whole(&self, id: HostId, served: &Served) -> Result<(), String> {
        self.places.get(&id).map_or(Ok(()), |place| place.borrow_mut().check_whole(served))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn truth(served: &Served, range: Range<u64>) -> Vec<u8> {
    let mut buffer = Vec::new();
    served.image.bytes(range, false, &mut buffer).to_vec()
}

impl Place {
    /// Some nodes fetch a part of the tree only, and some have files there of another time.
    fn new(dest: PathBuf, served: &Served, random: u64) -> Place {
        let mut place = Place {
            dest,
            sources: vec![TreePath::root()],
            random: random | 1,
            old: BTreeMap::new(),
            seen: BTreeMap::new(),
            said: None,
            ends_left: MOST_ENDS,
        };
        if place.below(3) == 0 {
            let names: [&[u8]; 3] = [b"a", b"b", b"dir"];
            place.sources = names.iter().map(|n| TreePath::from_manifest(n).unwrap()).collect();
            let left_out = place.below(3) as usize;
            place.sources.remove(left_out);
        }
        fs::create_dir_all(place.dest.join("dir")).unwrap();
        let files: Vec<usize> = place.files(served).map(|(entry, _)| entry).collect();
        for entry in files {
            if place.below(3) == 0 {
                let mut bytes = truth(served, range(served, entry));
                place.spoil(&mut bytes);
                fs::write(place.path(served, entry), &bytes).unwrap();
                place.old.insert(entry, bytes);
            }
        }
        place
    }

    /// Damage, of one kind or another, or none.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() as u64 + 1) as usize;
        match self.below(4) {
            0 => {}
            1 => bytes.truncate(at),
            2 => bytes.get_mut(at..).unwrap_or_default().fill(0),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
        }
    }

    /// Before it starts again there may have been a power cut, which nothing on a disk is safe from.
    fn suffer(&mut self, served: &Served) {
        if self.below(4) > 0 {
            return;
        }
        self.said = None;
        self.seen.clear();
        for dir in [self.dest.clone(), self.dest.join("dir")] {
            let mut files: Vec<PathBuf> =
                fs::read_dir(dir).unwrap().map(|found| found.unwrap().path()).collect();
            files.sort();
            for path in files {
                let found = fs::symlink_metadata(&path).unwrap();
                if found.is_file() && self.below(2) == 0 {
                    let mut bytes = fs::read(&path).unwrap();
                    self.spoil(&mut bytes);
                    // In place: it is the same file.
                    let mut file = File::options().write(true).truncate(true).open(&path).unwrap();
                    file.write_all(&bytes).unwrap();
                }
            }
        }
        let files: Vec<usize> = self.files(served).map(|(entry, _)| entry).collect();
        for entry in files {
            match fs::read(self.path(served, entry)) {
                Ok(bytes) => self.old.insert(entry, bytes),
                Err(_) => self.old.remove(&entry),
            };
        }
    }

    /// What will go wrong with the disk of a program that starts now.
    fn disk(&mut self) -> Disk {
        let mut disk = Disk { random: next_random(&mut self.random) | 1, ..Disk::default() };
        if self.ends_left > 0 {
            match self.below(4) {
                0 => disk.changes_left = Some(self.below(60) as u32),
                1 => disk.room = Some(self.below(400_000) as usize),
                2 => disk.bad_reads = 1 + self.below(8),
                _ => {}
            }
        }
        disk
    }

    fn files<'a>(&self, served: &'a Served) -> impl Iterator<Item = (usize, &'a TreePath)> {
        let entries = served.manifest.listing().entries().iter().enumerate();
        let files = entries.filter(|(_, entry)| matches!(entry.content, Content::File { .. }));
        let files = files.map(|(i, entry)| (i, &entry.path));
        let sources = self.sources.clone();
        files.filter(move |(_, path)| sources.iter().any(|source| is_in(path, source)))
    }

    fn path(&self, served: &Served, entry: usize) -> PathBuf {
        let path = served.manifest.listing().entry(entry).unwrap().path.as_bytes();
        self.dest.join(std::str::from_utf8(path).unwrap())
    }

    /// Under a final name is what was verified, or what was there before.
    fn check_names(&mut self, served: &Served) -> Result<(), Wrong> {
        let files: Vec<usize> = self.files(served).map(|(entry, _)| entry).collect();
        for entry in files {
            let path = self.path(served, entry);
            let Ok(found) = fs::metadata(&path) else {
                match self.old.contains_key(&entry) || self.seen.contains_key(&entry) {
                    true => return Err(Wrong::Disk(format!("{} is gone", path.display()))),
                    false => continue,
                }
            };
            let now = (found.ino(), found.ctime(), found.ctime_nsec());
            if self.seen.insert(entry, now) == Some(now) {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            if bytes == truth(served, range(served, entry)) {
                self.old.remove(&entry);
            } else if self.old.get(&entry) != Some(&bytes) {
                return Err(Wrong::Disk(format!("{} holds what is not right", path.display())));
            }
        }
        Ok(())
    }

    fn check_whole(&mut self, served: &Served) -> Result<(), String> {
        self.seen.clear();
        self.check_names(served).map_err(|wrong| format!("{wrong:?}"))?;
        if let Some(entry) = self.old.keys().next() {
            return Err(format!("{} is still the old one", self.path(served, *entry).display()));
        }
        let files: Vec<usize> = self.files(served).map(|(entry, _)| entry).collect();
        for entry in files {
            let path = self.path(served, entry);
            let found = fs::metadata(&path).map_err(|why| format!("{}: {why}", path.display()))?;
            let attributes = (found.mode() & 0o7777, found.mtime(), found.mtime_nsec());
            if attributes != (0o755, 0, 0) {
                return Err(format!("{}: {attributes:?}", path.display()));
            }
        }
        let dirs = [self.dest.clone(), self.dest.join("dir")];
        let left = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        let names = left.map(|found| found.unwrap().file_name().into_encoded_bytes());
        match names.into_iter().find(|name| name.starts_with(PARTIAL_PREFIX)) {
            Some(name) => Err(format!("{} is left", String::from_utf8_lossy(&name))),
            None => Ok(()),
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        (next_random(&mut self.random) >> 16) % n
    }
}

fn is_in(path: &TreePath, source: &TreePath) -> bool {
    let rest = path.as_bytes().strip_prefix(source.as_bytes());
    source.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn range(served: &Served, entry: usize) -> Range<u64> {
    served.manifest.listing().entry(entry).unwrap().image_range()
}

impl Kept {
    fn open(place: Rc<RefCell<Place>>, served: &Served) -> Result<Kept, Wrong> {
        let manifest = served.manifest.clone();
        let mut borrowed = place.borrow_mut();
        let mut disk = borrowed.disk();
        let dest = borrowed.dest.clone();
        let looked = DestIs::look(&dest).map_err(|error| Wrong::Disk(error.to_string()))?;
        let plan = plan(&manifest, &borrowed.sources, &dest, looked, "master")
            .map_err(|error| Wrong::Disk(error.to_string()))?;
        let all = borrowed.sources.iter().any(TreePath::is_root);
        let opened = with(&mut disk, || {
            let mut store = Store::open(plan, manifest, OPTIONS)?;
            let held = store.verify(&mut |_, _| ())?;
            Ok::<_, Error>((store, held))
        });
        borrowed.check_names(served)?;
        if disk.bad_reads > 0 {
            borrowed.said = None;
        }
        let (store, held) = opened.map_err(|error| borrowed.ends(&error, &disk))?;
        // Who fetches a part has lost what stood in the nameless file.
        if let Some(said) = borrowed.said.take().filter(|_| all) {
            let lost = said.iter().find(|chunk| !held.contains(*chunk));
            lost.map_or(Ok(()), |chunk| Err(Wrong::Disk(format!("lost chunk {chunk}"))))?;
        }
        borrowed.said = Some(held.clone());
        drop(borrowed);
        let mut kept = Kept { served: served.clone(), place, disk, store, held };
        kept.held.clone().iter().try_for_each(|chunk| kept.check_chunk(chunk))?;
        Ok(kept)
    }

    /// What it has said that it has, it has.
    fn check_chunk(&mut self, chunk: ChunkId) -> Result<(), Wrong> {
        let range = self.served.manifest.layout().range(chunk);
        match self.bytes(&range) {
            Ok(bytes) if bytes == truth(&self.served, range) => Ok(()),
            Ok(_) => Err(Wrong::Disk(format!("chunk {chunk} is not right"))),
            Err(error) => Err(Wrong::Disk(format!("chunk {chunk}: {error}"))),
        }
    }

    fn bytes(&mut self, range: &Range<u64>) -> io::Result<Vec<u8>> {
        let manifest = self.served.manifest.clone();
        let mut bytes = Vec::new();
        for segment in manifest.listing().segments(range.clone()) {
            let (file, base) = self.store.source(segment.entry)?;
            let start = bytes.len();
            bytes.resize(start + segment.len as usize, 0);
            file.read_exact_at(&mut bytes[start..], base + segment.offset)?;
        }
        Ok(bytes)
    }

    fn does(&mut self, work: impl FnOnce(&mut Store) -> Result<(), Error>) -> Result<(), Wrong> {
        let result = with(&mut self.disk, || work(&mut self.store));
        result.map_err(|error| self.place.borrow_mut().ends(&error, &self.disk))
    }
}

impl Place {
    /// An error that is the disk's fault ends the program; any other is the store's.
    fn ends(&mut self, error: &Error, disk: &Disk) -> Wrong {
        let expected =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EIO));
        self.ends_left = self.ends_left.saturating_sub(1);
        match error {
            _ if disk.killed => Wrong::Ended,
            Error::File { error, .. } if expected(error) => Wrong::Ended,
            other => Wrong::Disk(other.to_string()),
        }
    }
}

impl Keep for Kept {
    fn wanted(&self) -> &ChunkSet {
        self.store.wanted()
    }

    fn held(&self) -> &ChunkSet {
        &self.held
    }

    fn write(&mut self, image_offset: u64, bytes: &[u8]) -> Result<(), Wrong> {
        let buffer = Arc::new(bytes.to_vec());
        self.does(|store| {
            for start in (0..buffer.len()).step_by(PIECE_BYTES) {
                let end = buffer.len().min(start + PIECE_BYTES);
                store.write(image_offset + start as u64, &buffer, start..end)?;
            }
            Ok(())
        })
    }

    fn verified(&mut self, chunk: ChunkId) -> Result<(), Wrong> {
        let result = self.does(|store| store.verified(chunk));
        self.place.borrow_mut().check_names(&self.served)?;
        result?;
        if let Some(said) = &mut self.place.borrow_mut().said {
            said.insert(chunk);
        }
        self.check_chunk(chunk)
    }

    fn finish(&mut self) -> Result<(), Wrong> {
        let result = self.does(Store::finish);
        self.place.borrow_mut().check_names(&self.served)?;
        result
    }

    fn read(&mut self, range: &Range<u64>) -> Result<Option<Vec<u8>>, Wrong> {
        match self.bytes(range) {
            Ok(bytes) if bytes == truth(&self.served, range.clone()) => Ok(Some(bytes)),
            Ok(_) => Err(Wrong::Disk(format!("would send wrong bytes of {range:?}"))),
            Err(error) => Err(Wrong::Disk(format!("cannot send {range:?}: {error}"))),
        }
    }
}
