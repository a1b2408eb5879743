mod attributes;
mod conflicts;
mod full_disk;
mod others;
mod resume;

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::image::chunks::MIN_CHUNK_BYTES;
use crate::image::manifest::{Listing, Mtime, Owner};
use crate::node::plan::{DestIs, plan};
use crate::node::store::faults::{Disk, with};
use crate::sys::fs::effective_uid;

const MTIME: Mtime = Mtime { secs: 1_600_000_000, nanos: 7 };
const KEEP: StoreOptions = StoreOptions { keep_modes: true, keep_owners: true };

/// A directory that is removed with everything in it.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xget-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The paths of everything below, sorted.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut dirs = vec![self.0.clone()];
        while let Some(dir) = dirs.pop() {
            for found in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                names.push(found.path().strip_prefix(&self.0).unwrap().display().to_string());
                if found.file_type().unwrap().is_dir() {
                    dirs.push(found.path());
                }
            }
        }
        names.sort();
        names
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let mut dirs = vec![self.0.clone()];
        while let Some(dir) = dirs.pop() {
            let _ = fs::set_permissions(&dir, Permissions::from_mode(0o700));
            for found in fs::read_dir(dir).into_iter().flatten().flatten() {
                if found.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(found.path());
                }
            }
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A served tree in memory.
struct Served {
    manifest: Arc<Manifest>,
    image: Vec<u8>,
}

/// Path, mode and content.
type Item<'a> = (&'a [u8], u32, What<'a>);

#[derive(Clone, Copy)]
enum What<'a> {
    Dir,
    File(&'a [u8]),
    Link(&'a [u8]),
}
use What::{Dir, File as Plain, Link};

fn serve(items: &[Item]) -> Served {
    let root: Item = (b".", 0o755, Dir);
    let entry = |(path, mode, what): &Item| Entry {
        path: TreePath::from_manifest(path).unwrap(),
        mode: *mode,
        owner: Some(Owner { uid: 1234, gid: 4321 }),
        mtime: MTIME,
        content: match what {
            Dir => Content::Directory,
            Plain(bytes) => Content::File { bytes: bytes.len() as u64, image_offset: 0 },
            Link(target) => Content::Symlink { target: (*target).into() },
        },
    };
    let listing = Listing::new([root].iter().chain(items).map(entry).collect()).unwrap();
    let contents: HashMap<&[u8], What> = items.iter().map(|item| (item.0, item.2)).collect();
    let mut image = Vec::new();
    for entry in listing.entries() {
        if let Some(Plain(bytes)) = contents.get(entry.path.as_bytes()) {
            image.extend_from_slice(bytes);
        }
    }
    let range = |chunk| {
        let range = listing.layout().range(chunk);
        range.start as usize..range.end as usize
    };
    let hashes = listing.layout().iter().map(|chunk| blake3::hash(&image[range(chunk)])).collect();
    Served { manifest: Arc::new(Manifest::new(listing, hashes).unwrap()), image }
}

impl Served {
    fn open(&self, source: &str, dest: &Path) -> Result<Store, Error> {
        self.open_with(source, dest, KEEP)
    }

    fn open_with(&self, source: &str, dest: &Path, opts: StoreOptions) -> Result<Store, Error> {
        let source = TreePath::from_user(source.as_bytes()).unwrap();
        let plan = plan(&self.manifest, &[source], dest, DestIs::look(dest)?, "master")?;
        Store::open(plan, self.manifest.clone(), opts)
    }

    /// Opens what an earlier store has let go of.
    fn reopen(&self, source: &str, dest: &Path, options: StoreOptions) -> Store {
        loop {
            match self.open_with(source, dest, options) {
                // A process that another test has forked holds all locks until it calls exec.
                Err(Error::File { error, .. }) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// What a node does with a chunk that arrives in pieces and is right.
    fn send(&self, store: &mut Store, chunk: ChunkId) -> Result<(), Error> {
        let range = self.manifest.layout().range(chunk);
        for start in range.clone().step_by(20_000) {
            let end = range.end.min(start + 20_000);
            write(store, start, &self.image[start as usize..end as usize])?;
        }
        store.verified(chunk)
    }

    fn send_all(&self, store: &mut Store) -> Result<(), Error> {
        for chunk in store.wanted().clone().iter() {
            self.send(store, chunk)?;
        }
        store.finish()
    }

    fn fetch(&self, source: &str, dest: &Path) -> Store {
        let mut store = self.reopen(source, dest, KEEP);
        store.verify(&mut |_, _| {}).unwrap();
        self.send_all(&mut store).unwrap();
        store
    }

    fn chunk(&self, n: u32) -> ChunkId {
        self.manifest.layout().chunk(n).unwrap()
    }

    fn entry(&self, path: &str) -> usize {
        self.manifest.listing().find(&TreePath::from_user(path.as_bytes()).unwrap()).unwrap()
    }
}

/// Bytes that are in the file when this returns.
fn write(store: &mut Store, image_offset: u64, bytes: &[u8]) -> Result<(), Error> {
    store.write(image_offset, &Arc::new(bytes.to_vec()), 0..bytes.len())?;
    while !store.is_written(store.ticket())? {
        store.wait_for_writing();
    }
    Ok(())
}

fn verify(store: &mut Store) -> Vec<u32> {
    store.verify(&mut |_, _| {}).unwrap().iter().map(ChunkId::get).collect()
}

/// Bytes without a pattern that a shift would repeat.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_file_gets_its_final_name_only_when_it_is_whole() {
    let dest = TempDir::new();
    let a = noise(1, 100_000);
    let served = serve(&[(b"a", 0o640, Plain(&a))]);
    let mut store = served.open(".", &dest.0).unwrap();
    served.send(&mut store, served.chunk(1)).unwrap();
    write(&mut store, 0, &a[..50_000]).unwrap();
    assert!(!dest.path("a").exists());
    assert!(store.finish().unwrap_err().to_string().ends_with("it is incomplete"));
    assert!(!dest.path("a").exists());
    served.send(&mut store, served.chunk(0)).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), a);
    assert_eq!(mode(&dest.path("a")), 0o640);
    assert_eq!(dest.names(), ["a"]);
}

#[test]
fn runs_of_zeros_stay_holes() {
    let dest = TempDir::new();
    let mut a = vec![0; 10 << 20];
    a[5 << 20] = 1;
    let served = serve(&[(b"a", 0o644, Plain(&a))]);
    served.fetch(".", &dest.0);
    assert!(fs::metadata(dest.path("a")).unwrap().blocks() * 512 <= 64 << 10);
    assert_eq!(fs::read(dest.path("a")).unwrap(), a);
}

#[test]
fn what_comes_late_for_a_verified_chunk_is_left_out() {
    let dest = TempDir::new();
    let a = noise(1, 100_000);
    let served = serve(&[(b"a", 0o644, Plain(&a))]);
    let mut store = served.open(".", &dest.0).unwrap();
    served.send(&mut store, served.chunk(0)).unwrap();
    write(&mut store, 0, &[0xff; 65_536]).unwrap();
    served.send(&mut store, served.chunk(1)).unwrap();
    write(&mut store, 0, &[0xff; 100_000]).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), a);
    assert_eq!(dest.names(), ["a"]);
}

#[test]
fn a_chunk_shared_with_files_that_were_not_asked_for_can_be_served_whole() {
    let dest = TempDir::new();
    let all = noise(1, 150_000);
    let (a, rest) = all.split_at(30_000);
    let (b, c) = rest.split_at(50_000);
    let files = [(&b"a"[..], 0o644, Plain(a)), (b"b", 0o644, Plain(b)), (b"c", 0o644, Plain(c))];
    let served = serve(&files);
    let mut store = served.fetch("b", &dest.0);
    assert_eq!(store.wanted().runs(), "0-1");
    assert_eq!(dest.names(), ["b"]);
    let mut image = Vec::new();
    for segment in served.manifest.listing().segments(0..2 * MIN_CHUNK_BYTES) {
        let (file, base) = store.source(segment.entry).unwrap();
        let mut part = vec![0; segment.len as usize];
        file.read_exact_at(&mut part, base + segment.offset).unwrap();
        image.extend(part);
    }
    assert_eq!(image, all[..2 * MIN_CHUNK_BYTES as usize]);
}

#[test]
fn a_file_that_somebody_replaced_is_not_served() {
    let dest = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(b"right"))]);
    let mut store = served.fetch(".", &dest.0);
    fs::write(dest.path("b"), b"wrong").unwrap();
    fs::rename(dest.path("b"), dest.path("a")).unwrap();
    assert!(store.source(served.entry("a")).is_err());
}

#[test]
fn many_files_are_served_through_few_descriptors() {
    let dest = TempDir::new();
    let names: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let items: Vec<Item> =
        names.iter().map(|name| (name.as_bytes(), 0o644, Plain(name.as_bytes()))).collect();
    let served = serve(&items);
    let mut store = served.fetch(".", &dest.0);
    for name in &names {
        let (file, base) = store.source(served.entry(name)).unwrap();
        let mut bytes = vec![0; name.len()];
        file.read_exact_at(&mut bytes, base).unwrap();
        assert_eq!(bytes, name.as_bytes());
    }
}

#[test]
fn empty_files_replace_what_was_there() {
    let dest = TempDir::new();
    fs::write(dest.path("a"), b"old").unwrap();
    let served = serve(&[(b"a", 0o600, Plain(b"")), (b"b", 0o640, Plain(b""))]);
    let mut store = served.open(".", &dest.0).unwrap();
    assert!(store.wanted().is_empty());
    store.finish().unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), b"");
    assert_eq!(mode(&dest.path("b")), 0o640);
    assert_eq!(store.counts(), Counts { files: 2, links: 0, directories: 1 });
    assert_eq!(dest.names(), ["a", "b"]);
}

#[test]
fn links_are_made_even_in_a_circle_and_stay_if_they_are_right() {
    let dest = TempDir::new();
    symlink("elsewhere", dest.path("a")).unwrap();
    fs::write(dest.path("b"), b"a file").unwrap();
    let served = serve(&[(b"a", 0o777, Link(b"b")), (b"b", 0o777, Link(b"a"))]);
    drop(served.fetch(".", &dest.0));
    let inode = fs::symlink_metadata(dest.path("a")).unwrap().ino();
    served.fetch(".", &dest.0);
    assert_eq!(fs::read_link(dest.path("a")).unwrap(), Path::new("b"));
    assert_eq!(fs::read_link(dest.path("b")).unwrap(), Path::new("a"));
    let found = fs::symlink_metadata(dest.path("a")).unwrap();
    assert_eq!((found.ino(), found.mtime()), (inode, MTIME.secs));
    assert_eq!(dest.names(), ["a", "b"]);
}

#[test]
fn names_may_be_any_bytes() {
    let dest = TempDir::new();
    let long = [b'n'; 255];
    let names: [&[u8]; 3] = [b"line\nbreak", b"\xff\xfe", &long];
    let items: Vec<Item> = names.iter().map(|name| (*name, 0o644, Plain(&name[..2]))).collect();
    serve(&items).fetch(".", &dest.0);
    for name in names {
        let path = dest.0.join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(fs::read(path).unwrap(), &name[..2]);
    }
}

#[test]
fn offsets_beyond_four_gib_work() {
    let dest = TempDir::new();
    let bytes = (5 << 30) + 10;
    let big = Entry {
        path: TreePath::from_user(b"big").unwrap(),
        mode: 0o644,
        owner: None,
        mtime: MTIME,
        content: Content::File { bytes, image_offset: 0 },
    };
    let root = Entry { path: TreePath::root(), content: Content::Directory, ..big.clone() };
    let listing = Listing::new(vec![root, big]).unwrap();
    let hashes = listing.layout().iter().map(|_| blake3::hash(b"any")).collect();
    let manifest = Arc::new(Manifest::new(listing, hashes).unwrap());
    let served = Served { manifest, image: Vec::new() };
    let mut store = served.open(".", &dest.0).unwrap();
    write(&mut store, bytes - 10, b"the end!!!").unwrap();
    for chunk in served.manifest.layout().iter() {
        store.verified(chunk).unwrap();
    }
    let mut end = [0; 10];
    let file = File::open(dest.path("big")).unwrap();
    file.read_exact_at(&mut end, bytes - 10).unwrap();
    assert_eq!((&end, file.metadata().unwrap().len()), (b"the end!!!", bytes));
}
