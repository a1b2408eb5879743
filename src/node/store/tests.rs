use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
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
        let mut store = loop {
            match self.open(source, dest) {
                // A process that another test has forked holds all locks until it calls exec.
                Err(Error::File { error, .. }) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                opened => break opened.unwrap(),
            }
        };
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
fn a_fetch_that_ended_midway_goes_on_where_it_was() {
    let dest = TempDir::new();
    let (a, b) = (noise(1, 200_000), noise(2, 100_000));
    let served = serve(&[(b"d", 0o755, Dir), (b"d/a", 0o644, Plain(&a)), (b"e", 0o600, Plain(&b))]);
    let mut store = served.open(".", &dest.0).unwrap();
    assert_eq!(verify(&mut store), []);
    for n in [0, 2, 4] {
        served.send(&mut store, served.chunk(n)).unwrap();
    }
    write(&mut store, MIN_CHUNK_BYTES, b"garbage on its way").unwrap();
    drop(store);

    let mut store = served.open(".", &dest.0).unwrap();
    let mut told = (0, 0);
    let held = store.verify(&mut |checked, all| told = (checked, all)).unwrap();
    assert_eq!(held.runs(), "0 2 4");
    assert_eq!(told, (300_000, 300_000));
    served.send(&mut store, served.chunk(1)).unwrap();
    served.send(&mut store, served.chunk(3)).unwrap();
    store.finish().unwrap();
    assert_eq!(fs::read(dest.path("d/a")).unwrap(), a);
    assert_eq!(fs::read(dest.path("e")).unwrap(), b);
    assert_eq!(dest.names(), ["d", "d/a", "e"]);
}

#[test]
fn what_is_whole_already_stays_in_place_and_gets_its_attributes() {
    let dest = TempDir::new();
    let a = noise(1, 100_000);
    let served = serve(&[(b"a", 0o640, Plain(&a))]);
    fs::write(dest.path("a"), &a).unwrap();
    let inode = fs::metadata(dest.path("a")).unwrap().ino();
    let mut store = served.open(".", &dest.0).unwrap();
    assert_eq!(verify(&mut store), [0, 1]);
    store.finish().unwrap();
    let found = fs::metadata(dest.path("a")).unwrap();
    assert_eq!((found.ino(), found.mtime(), found.mtime_nsec()), (inode, MTIME.secs, 7));
    assert_eq!(mode(&dest.path("a")), 0o640);
}

#[test]
fn the_right_parts_of_an_older_file_are_not_fetched_again() {
    let dest = TempDir::new();
    let new = noise(1, 5 * MIN_CHUNK_BYTES as usize);
    let mut old = new.clone();
    old[2 * MIN_CHUNK_BYTES as usize] ^= 1;
    fs::write(dest.path("a"), &old).unwrap();
    let served = serve(&[(b"a", 0o644, Plain(&new))]);
    let mut store = served.open(".", &dest.0).unwrap();
    assert_eq!(verify(&mut store), [0, 1, 3, 4]);
    assert_eq!(fs::read(dest.path("a")).unwrap(), old);
    served.send(&mut store, served.chunk(2)).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), new);
    assert_eq!(dest.names(), ["a"]);
}

#[test]
fn a_temporary_file_of_nothing_right_leaves_no_garbage() {
    let dest = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(&[0; 100_000]))]);
    let mut store = served.open(".", &dest.0).unwrap();
    write(&mut store, 0, &[0xff; 100_000]).unwrap();
    drop(store);
    served.fetch(".", &dest.0);
    assert_eq!(fs::read(dest.path("a")).unwrap(), [0; 100_000]);
}

#[test]
fn zeros_over_the_garbage_of_a_failed_attempt_are_written() {
    let dest = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(&[0; 50_000])), (b"b", 0o644, Plain(&[0; 9_000]))]);
    let mut store = served.open(".", &dest.0).unwrap();
    write(&mut store, 0, &[0xff; 40_000]).unwrap();
    write(&mut store, 40_000, &[0xff; 15_000]).unwrap();
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), [0; 50_000]);
    assert_eq!(fs::read(dest.path("b")).unwrap(), [0; 9_000]);
}

#[test]
fn zeros_into_a_temporary_file_of_an_earlier_run_are_written() {
    let dest = TempDir::new();
    let mut a = noise(1, 65_536);
    a.resize(3 * 65_536, 0);
    let served = serve(&[(b"a", 0o644, Plain(&a))]);
    let mut store = served.open(".", &dest.0).unwrap();
    served.send(&mut store, served.chunk(0)).unwrap();
    write(&mut store, 65_536, &[0xff; 65_536]).unwrap();
    drop(store);
    let mut store = served.open(".", &dest.0).unwrap();
    assert_eq!(verify(&mut store), [0, 2]);
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), a);
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
fn a_file_whose_border_chunks_are_gone_keeps_its_middle() {
    let dest = TempDir::new();
    let (a, b) = (noise(1, 1_000), noise(2, 200_000));
    let served = serve(&[(b"a", 0o644, Plain(&a)), (b"b", 0o644, Plain(&b))]);
    drop(served.fetch("b", &dest.0));
    let mut store = served.open("b", &dest.0).unwrap();
    assert_eq!(verify(&mut store), [1, 2, 3]);
    served.send(&mut store, served.chunk(0)).unwrap();
    store.finish().unwrap();
    assert_eq!(fs::read(dest.path("b")).unwrap(), b);
    assert_eq!(dest.names(), ["b"]);
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
fn a_symbolic_link_for_a_directory_is_refused_and_nothing_outside_is_touched() {
    let (dest, outside) = (TempDir::new(), TempDir::new());
    symlink(&outside.0, dest.path("d")).unwrap();
    let served = serve(&[(b"d", 0o755, Dir), (b"d/a", 0o644, Plain(b"x"))]);
    let error = served.open(".", &dest.0).unwrap_err().to_string();
    let path = dest.path("d").display().to_string();
    assert_eq!(
        error,
        format!("cannot open directory {path}: a symbolic link with this name exists")
    );
    assert_eq!(outside.names(), [] as [&str; 0]);
}

#[test]
fn a_directory_swapped_for_a_link_during_the_fetch_leads_nowhere() {
    let (dest, outside) = (TempDir::new(), TempDir::new());
    let items = [
        (&b"d"[..], 0o755, Dir),
        (b"d/a", 0o644, Plain(b"x")),
        (b"e", 0o755, Dir),
        (b"e/a", 0o644, Plain(b"x")),
    ];
    let served = serve(&items);
    let mut store = served.open(".", &dest.0).unwrap();
    for name in ["d", "e"] {
        fs::remove_dir(dest.path(name)).unwrap();
        symlink(&outside.0, dest.path(name)).unwrap();
    }
    assert!(served.send_all(&mut store).is_err());
    assert_eq!(outside.names(), [] as [&str; 0]);
}

#[test]
fn links_under_the_names_of_files_are_replaced_and_not_followed() {
    let (dest, outside) = (TempDir::new(), TempDir::new());
    fs::write(outside.path("x"), b"precious").unwrap();
    let place = TreePath::from_user(b"a").unwrap();
    let part = String::from_utf8(temporary_name(&place)).unwrap();
    symlink(outside.path("x"), dest.path("a")).unwrap();
    symlink(outside.path("x"), dest.path(&part)).unwrap();
    let served = serve(&[(b"a", 0o644, Plain(b"new file"))]);
    served.fetch(".", &dest.0);
    assert_eq!(fs::read(outside.path("x")).unwrap(), b"precious");
    assert_eq!(fs::read(dest.path("a")).unwrap(), b"new file");
    assert!(!fs::symlink_metadata(dest.path("a")).unwrap().is_symlink());
}

#[test]
fn a_temporary_file_with_another_name_is_not_written_to() {
    let dest = TempDir::new();
    let place = TreePath::from_user(b"a").unwrap();
    let part = String::from_utf8(temporary_name(&place)).unwrap();
    fs::write(dest.path("precious"), b"precious").unwrap();
    fs::hard_link(dest.path("precious"), dest.path(&part)).unwrap();
    let served = serve(&[(b"a", 0o644, Plain(b"new file"))]);
    served.fetch(".", &dest.0);
    assert_eq!(fs::read(dest.path("precious")).unwrap(), b"precious");
}

#[test]
fn a_fetch_that_is_killed_at_any_change_is_finished_by_the_next() {
    let (a, b) = (noise(1, 100_000), noise(2, 3_000));
    let items: [Item; 6] = [
        (b"a", 0o444, Plain(&a)),
        (b"b", 0o640, Plain(&b)),
        (b"d", 0o555, Dir),
        (b"d/c", 0o755, Plain(&b)),
        (b"empty", 0o400, Plain(b"")),
        (b"link", 0o777, Link(b"a")),
    ];
    let served = serve(&items);
    for changes in 0.. {
        let dest = TempDir::new();
        // Of an older state: of use in part, and to be replaced.
        fs::write(dest.path("a"), [&a[..70_000], &[0; 30_000][..]].concat()).unwrap();
        fs::write(dest.path("b"), noise(3, 3_000)).unwrap();
        let mut disk = Disk { changes_left: Some(changes), ..Disk::default() };
        let attempt = with(&mut disk, || {
            let mut store = served.open(".", &dest.0)?;
            store.verify(&mut |_, _| ())?;
            served.send_all(&mut store)
        });
        assert_eq!(attempt.is_err(), disk.killed, "at change {changes}");
        served.fetch(".", &dest.0);
        assert_eq!(fs::read(dest.path("a")).unwrap(), a, "at change {changes}");
        assert_eq!(fs::read(dest.path("b")).unwrap(), b, "at change {changes}");
        assert_eq!(fs::read(dest.path("d/c")).unwrap(), b, "at change {changes}");
        assert_eq!(dest.names(), ["a", "b", "d", "d/c", "empty", "link"], "at change {changes}");
        assert_eq!([mode(&dest.path("a")), mode(&dest.path("d"))], [0o444, 0o555]);
        if !disk.killed {
            assert!(changes > 20, "all changes are counted");
            break;
        }
    }
}

#[test]
fn a_temporary_file_that_its_owner_cannot_write_to_is_made_again() {
    let dest = TempDir::new();
    let place = TreePath::from_user(b"a").unwrap();
    let part = dest.path(std::str::from_utf8(&temporary_name(&place)).unwrap());
    fs::write(&part, b"new file").unwrap();
    fs::set_permissions(&part, Permissions::from_mode(0o444)).unwrap();
    let served = serve(&[(b"a", 0o444, Plain(b"new file"))]);
    let mut store = served.open(".", &dest.0).unwrap();
    assert!(!part.exists());
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), b"new file");
}

#[test]
fn a_temporary_file_that_cannot_be_read_keeps_what_it_holds() {
    let dest = TempDir::new();
    let bytes = noise(1, 3 * MIN_CHUNK_BYTES as usize);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    let place = TreePath::from_user(b"a").unwrap();
    let part = dest.path(std::str::from_utf8(&temporary_name(&place)).unwrap());
    fs::write(&part, &bytes).unwrap();
    let mut disk = Disk { bad_reads: 1, ..Disk::default() };
    let held = with(&mut disk, || {
        let mut store = served.open(".", &dest.0)?;
        store.verify(&mut |_, _| ())
    });
    assert!(held.unwrap().is_empty(), "what cannot be read is not held");
    assert_eq!(fs::read(&part).unwrap(), bytes);
}

#[test]
fn a_directory_or_file_in_the_way_is_named() {
    let dest = TempDir::new();
    fs::create_dir(dest.path("a")).unwrap();
    let path = dest.path("a").display().to_string();
    for what in [Plain(b"x"), Link(b"x")] {
        let error = serve(&[(b"a", 0o644, what)]).open(".", &dest.0).unwrap_err().to_string();
        assert_eq!(error, format!("cannot replace {path}: a directory with this name exists"));
    }
    fs::remove_dir(dest.path("a")).unwrap();
    fs::write(dest.path("a"), b"").unwrap();
    let error = serve(&[(b"a", 0o755, Dir)]).open(".", &dest.0).unwrap_err().to_string();
    assert_eq!(error, format!("cannot open directory {path}: a file with this name exists"));
}

#[test]
fn directories_nobody_may_write_to_are_filled_first() {
    let dest = TempDir::new();
    let items = [
        (&b"d"[..], 0o555, Dir),
        (b"d/e", 0o711, Dir),
        (b"d/e/a", 0o444, Plain(b"x")),
        (b"d/empty", 0o1700, Dir),
    ];
    let served = serve(&items);
    served.fetch(".", &dest.0);
    for (path, wanted) in [("d", 0o555), ("d/e", 0o711), ("d/e/a", 0o444), ("d/empty", 0o1700)] {
        let found = fs::symlink_metadata(dest.path(path)).unwrap();
        assert_eq!((mode(&dest.path(path)), found.mtime()), (wanted, MTIME.secs), "{path}");
    }
}

#[test]
fn directories_nobody_may_write_to_are_filled_once_more() {
    let dest = TempDir::new();
    let items = |bytes| [(&b"d"[..], 0o555, Dir), (b"d/a", 0o444, Plain(bytes))];
    serve(&items(b"old")).fetch(".", &dest.0);
    serve(&items(b"new")).fetch(".", &dest.0);
    assert_eq!(fs::read(dest.path("d/a")).unwrap(), b"new");
    assert_eq!(mode(&dest.path("d")), 0o555);
}

#[test]
fn owners_are_kept_by_root_with_the_set_id_bits() {
    let dest = TempDir::new();
    let items =
        [(&b"d"[..], 0o755, Dir), (b"l", 0o777, Link(b"x")), (b"suid", 0o4755, Plain(b"x"))];
    serve(&items).fetch(".", &dest.0);
    if effective_uid() != 0 {
        eprintln!("SKIPPED in part: owners_are_kept_by_root: not root");
        assert_eq!(mode(&dest.path("suid")), 0o755);
        return;
    }
    for name in ["d", "l", "suid"] {
        let found = fs::symlink_metadata(dest.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (1234, 4321), "{name}");
    }
    assert_eq!(mode(&dest.path("suid")), 0o4755);
}

#[test]
fn modes_and_owners_are_left_alone_if_told_so() {
    let dest = TempDir::new();
    let served = serve(&[(b"d", 0o500, Dir), (b"suid", 0o4700, Plain(b"x"))]);
    let options = StoreOptions { keep_modes: false, keep_owners: false };
    let mut store = served.open_with(".", &dest.0, options).unwrap();
    served.send_all(&mut store).unwrap();
    fs::write(dest.path("file by hand"), b"").unwrap();
    fs::create_dir(dest.path("dir by hand")).unwrap();
    assert_eq!(mode(&dest.path("suid")), mode(&dest.path("file by hand")));
    assert_eq!(mode(&dest.path("d")), mode(&dest.path("dir by hand")));
    assert_eq!(fs::metadata(dest.path("suid")).unwrap().uid(), effective_uid());
}

#[test]
fn a_set_id_file_without_its_owner_loses_the_bits() {
    let dest = TempDir::new();
    let served = serve(&[(b"suid", 0o6755, Plain(b"x"))]);
    let options = StoreOptions { keep_modes: true, keep_owners: false };
    let mut store = served.open_with(".", &dest.0, options).unwrap();
    served.send_all(&mut store).unwrap();
    assert_eq!(mode(&dest.path("suid")), 0o755);
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
fn a_second_fetch_into_the_same_directory_is_refused_until_the_first_is_done() {
    let dest = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(b"x"))]);
    let mut first = served.open(".", &dest.0).unwrap();
    let error = served.open(".", &dest.0).unwrap_err().to_string();
    assert!(error.ends_with(": another xget process is writing to it"), "{error}");
    served.send_all(&mut first).unwrap();
    served.open(".", &dest.0).unwrap();
}

#[test]
fn two_files_of_one_directory_can_be_replaced_at_once_but_each_by_one() {
    let dest = TempDir::new();
    fs::write(dest.path("one"), b"old").unwrap();
    fs::write(dest.path("two"), b"old").unwrap();
    let served = serve(&[(b"a", 0o644, Plain(b"new"))]);
    let mut one = served.open("a", &dest.path("one")).unwrap();
    let mut two = served.open("a", &dest.path("two")).unwrap();
    assert!(served.open("a", &dest.path("one")).is_err());
    assert!(served.open(".", &dest.0).is_err());
    served.send_all(&mut one).unwrap();
    served.send_all(&mut two).unwrap();
    assert_eq!(fs::read(dest.path("one")).unwrap(), b"new");
    assert_eq!(dest.names(), ["one", "two"]);
}

#[test]
fn a_dest_that_was_there_keeps_its_mode_and_one_that_is_made_gets_the_roots() {
    let dest = TempDir::new();
    fs::create_dir(dest.path("there")).unwrap();
    fs::set_permissions(dest.path("there"), Permissions::from_mode(0o711)).unwrap();
    let served = serve(&[(b"a", 0o644, Plain(b"x"))]);
    served.fetch(".", &dest.path("there"));
    served.fetch(".", &dest.path("new/made"));
    assert_eq!(mode(&dest.path("there")), 0o711);
    assert_eq!(mode(&dest.path("new/made")), 0o755);
    assert_eq!(fs::metadata(dest.path("new/made")).unwrap().mtime(), MTIME.secs);
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

/// A file system in memory; only root can mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<SmallDisk> {
        let dir = TempDir::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&dir.0);
        mount.status().is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", options]).arg(&self.0.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_of_a_file() {
    let Some(disk) = SmallDisk::new("size=256k") else {
        eprintln!("SKIPPED: a_full_disk_is_told: cannot mount a tmpfs");
        return;
    };
    let (a, b) = (noise(1, 100_000), noise(2, 400_000));
    let served = serve(&[(b"a", 0o644, Plain(&a)), (b"b", 0o644, Plain(&b))]);
    let mut store = served.open(".", &disk.0.0).unwrap();
    let error = served.send_all(&mut store).unwrap_err().to_string();
    let path = disk.0.path("b").display().to_string();
    assert_eq!(error, format!("cannot write {path}: No space left on device"));
    assert_eq!(fs::read(disk.0.path("a")).unwrap(), a);
    drop(store);
    let names = disk.0.names();
    assert!(
        names.len() == 2 && names[0].starts_with(".xget-part-") && names[1] == "a",
        "{names:?}"
    );

    disk.remount("remount,size=4m");
    let mut store = served.open(".", &disk.0.0).unwrap();
    assert_eq!(verify(&mut store)[..2], [0, 1]);
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(disk.0.path("b")).unwrap(), b);
}

#[test]
fn a_file_system_that_cannot_be_written_to_is_told() {
    let Some(disk) = SmallDisk::new("size=256k") else {
        eprintln!("SKIPPED: a_file_system_that_cannot_be_written_to_is_told: cannot mount a tmpfs");
        return;
    };
    disk.remount("remount,ro");
    let served = serve(&[(b"a", 0o644, Plain(b"x"))]);
    let mut store = served.open(".", &disk.0.0).unwrap();
    let error = served.send_all(&mut store).unwrap_err().to_string();
    let path = disk.0.path("a").display().to_string();
    assert_eq!(error, format!("cannot create {path}: Read-only file system"));
}
