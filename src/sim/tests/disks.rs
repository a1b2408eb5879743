//! Nodes with the real store, each in a directory of its own, with disks and programs that fail.

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

/// The disks of all nodes; dropping this deletes them.
#[derive(Debug)]
pub(super) struct Disks {
    dir: PathBuf,
    random: u64,
    nodes: BTreeMap<HostId, Rc<RefCell<NodeDisk>>>,
}

/// A node's disk, and what its program promised, both of which outlive the program.
#[derive(Debug)]
struct NodeDisk {
    dest: PathBuf,
    sources: Vec<TreePath>,
    random: u64,
    /// Files by entry that were there before, or were damaged by a power cut: such a file may keep its
    /// name until it is replaced by a verified one.
    old: BTreeMap<usize, Vec<u8>>,
    /// Inode and time of change of the files that were checked.
    seen: BTreeMap<usize, (u64, i64, i64)>,
    /// What the node has reported as held, and must still hold after a restart. None where nothing is
    /// promised: before the first start, after a power cut, and from a start on at which the disk could
    /// not be read. What cannot be read is not held and is fetched again into a new file, which replaces
    /// the old one even if the program is killed half-way.
    reported: Option<ChunkSet>,
    ends_left: u32,
}

/// The store of a program, from its start to its end.
#[derive(Debug)]
struct FaultyStore {
    served: Served,
    node: Rc<RefCell<NodeDisk>>,
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
        Disks { dir, random: seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1, nodes: BTreeMap::new() }
    }

    /// A node's program starts.
    pub(super) fn start(&mut self, id: HostId, served: &Served) -> Result<Box<dyn Keep>, Wrong> {
        let (dir, random) = (&self.dir, &mut self.random);
        let again = self.nodes.contains_key(&id);
        let node = self.nodes.entry(id).or_insert_with(|| {
            let dest = dir.join(id.0.to_string());
            Rc::new(RefCell::new(NodeDisk::new(dest, served, next_random(random))))
        });
        if again {
            node.borrow_mut().maybe_cut_power(served);
        }
        Ok(Box::new(FaultyStore::open(node.clone(), served)?))
    }

    /// What is wrong with the files of a node that was whole.
    pub(super) fn check_whole(&self, id: HostId, served: &Served) -> Result<(), String> {
        self.nodes.get(&id).map_or(Ok(()), |node| node.borrow_mut().check_whole(served))
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

impl NodeDisk {
    /// Some nodes fetch only a part of the tree, and some have older files there.
    fn new(dest: PathBuf, served: &Served, random: u64) -> NodeDisk {
        let mut node = NodeDisk {
            dest,
            sources: vec![TreePath::root()],
            random: random | 1,
            old: BTreeMap::new(),
            seen: BTreeMap::new(),
            reported: None,
            ends_left: MOST_ENDS,
        };
        if node.below(3) == 0 {
            let names: [&[u8]; 3] = [b"a", b"b", b"dir"];
            node.sources = names.iter().map(|n| TreePath::from_manifest(n).unwrap()).collect();
            let left_out = node.below(3) as usize;
            node.sources.remove(left_out);
        }
        fs::create_dir_all(node.dest.join("dir")).unwrap();
        let files: Vec<usize> = node.files(served).map(|(entry, _)| entry).collect();
        for entry in files {
            if node.below(3) == 0 {
                let mut bytes = truth(served, range(served, entry));
                node.spoil(&mut bytes);
                fs::write(node.path(served, entry), &bytes).unwrap();
                node.old.insert(entry, bytes);
            }
        }
        node
    }

    /// Random damage, or none.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() as u64 + 1) as usize;
        match self.below(4) {
            0 => {}
            1 => bytes.truncate(at),
            2 => bytes.get_mut(at..).unwrap_or_default().fill(0),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }
        }
    }

    /// There may have been a power cut before a restart, which damages any file.
    fn maybe_cut_power(&mut self, served: &Served) {
        if self.below(4) > 0 {
            return;
        }
        self.reported = None;
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

    /// The faults of the disk of a program that starts now.
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

    fn files<'a>(&self, served: &'a Served) -> impl Iterator<Item = (usize, TreePath)> + use<'a> {
        let entries = served.manifest.listing().entries().enumerate();
        let files = entries.filter(|(_, entry)| matches!(entry.content, Content::File { .. }));
        let files = files.map(|(i, entry)| (i, entry.path));
        let sources = self.sources.clone();
        files.filter(move |(_, path)| sources.iter().any(|source| is_in(path, source)))
    }

    fn path(&self, served: &Served, entry: usize) -> PathBuf {
        let path = served.manifest.listing().path(entry).unwrap();
        self.dest.join(std::str::from_utf8(path.as_bytes()).unwrap())
    }

    /// A file with its final name was verified, or was there before.
    fn check_names(&mut self, served: &Served) -> Result<(), Wrong> {
        let files: Vec<usize> = self.files(served).map(|(entry, _)| entry).collect();
        for entry in files {
            let path = self.path(served, entry);
            let Ok(found) = fs::metadata(&path) else {
                if self.old.contains_key(&entry) || self.seen.contains_key(&entry) {
                    return Err(Wrong::Disk(format!("{} is gone", path.display())));
                }
                continue;
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

impl FaultyStore {
    fn open(node: Rc<RefCell<NodeDisk>>, served: &Served) -> Result<FaultyStore, Wrong> {
        let manifest = served.manifest.clone();
        let mut borrowed = node.borrow_mut();
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
            borrowed.reported = None;
        }
        let (store, held) = opened.map_err(|error| borrowed.failed(&error, &disk))?;
        // A node that fetches a part has lost what was in the file without a name.
        if let Some(reported) = borrowed.reported.take().filter(|_| all) {
            let lost = reported.iter().find(|chunk| !held.contains(*chunk));
            if let Some(chunk) = lost {
                return Err(Wrong::Disk(format!("lost chunk {chunk}")));
            }
        }
        borrowed.reported = Some(held.clone());
        drop(borrowed);
        let mut opened = FaultyStore { served: served.clone(), node, disk, store, held };
        for chunk in opened.held.clone().iter() {
            opened.check_chunk(chunk)?;
        }
        Ok(opened)
    }

    /// A chunk that is reported as held is correct.
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

    /// Changes the store with the faults of its disk.
    fn with_faults(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<(), Error>,
    ) -> Result<(), Wrong> {
        let result = with(&mut self.disk, || work(&mut self.store));
        result.map_err(|error| self.node.borrow_mut().failed(&error, &self.disk))
    }
}

impl NodeDisk {
    /// An error of the disk ends the program; any other is an error of the store.
    fn failed(&mut self, error: &Error, disk: &Disk) -> Wrong {
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

impl Keep for FaultyStore {
    fn wanted(&self) -> &ChunkSet {
        self.store.wanted()
    }

    fn held(&self) -> &ChunkSet {
        &self.held
    }

    fn write(&mut self, image_offset: u64, bytes: &[u8]) -> Result<(), Wrong> {
        let buffer = Arc::new(bytes.to_vec());
        self.with_faults(|store| {
            for start in (0..buffer.len()).step_by(PIECE_BYTES) {
                let end = buffer.len().min(start + PIECE_BYTES);
                store.write(image_offset + start as u64, &buffer, start..end)?;
            }
            Ok(())
        })
    }

    fn verified(&mut self, chunk: ChunkId) -> Result<(), Wrong> {
        let result = self.with_faults(|store| store.verified(chunk));
        self.node.borrow_mut().check_names(&self.served)?;
        result?;
        if let Some(reported) = &mut self.node.borrow_mut().reported {
            reported.insert(chunk);
        }
        self.check_chunk(chunk)
    }

    fn finish(&mut self) -> Result<(), Wrong> {
        let result = self.with_faults(Store::finish);
        self.node.borrow_mut().check_names(&self.served)?;
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
