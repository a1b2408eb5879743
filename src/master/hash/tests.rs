use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::super::scan::tests::TempDir;
use super::super::scan::{ScanOptions, scan};
use super::*;
use crate::image::chunks::MIN_CHUNK_BYTES;

/// A scan at a time at which everything in it has settled.
fn scan_later(dir: &TempDir) -> Scan {
    let later = SystemTime::now() + Duration::from_secs(10);
    scan(dir.path(), &ScanOptions::default(), later).unwrap()
}

/// The manifest, and how many bytes were hashed for it.
fn hash_counting(scan: &Scan, cache: &mut Cache) -> (Manifest, u64) {
    let most = AtomicU64::new(0);
    let manifest = hash(scan, cache, 2, &|progress| {
        assert!(progress.hashed_bytes <= progress.total_bytes);
        most.fetch_max(progress.hashed_bytes, Ordering::Relaxed);
    });
    (manifest.unwrap(), most.into_inner())
}

fn hash_plain(scan: &Scan) -> Result<Manifest, HashError> {
    hash(scan, &mut Cache::default(), 2, &|_| {})
}

/// Bytes that differ from chunk to chunk.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn chunks_are_hashed_across_the_borders_of_files() {
    let dir = TempDir::new();
    let image = noise(300_000);
    dir.write("a", &image[..100_000]);
    dir.write("b", b"");
    dir.write("c/c", &image[100_000..100_001]);
    dir.write("d", &image[100_001..]);
    let manifest = hash_plain(&scan_later(&dir)).unwrap();
    assert_eq!(manifest.layout().count(), 5);
    for chunk in manifest.layout().iter() {
        let range = manifest.layout().range(chunk);
        let bytes = &image[range.start as usize..range.end as usize];
        assert_eq!(manifest.hash(chunk), Some(&blake3::hash(bytes)), "{chunk}");
    }
}

#[test]
fn the_generation_does_not_depend_on_the_number_of_threads() {
    let dir = TempDir::new();
    dir.write("a", &noise(1_000_000));
    let scan = scan_later(&dir);
    let generation =
        |threads| hash(&scan, &mut Cache::default(), threads, &|_| {}).unwrap().generation();
    assert_eq!(generation(1), generation(7));
    assert_eq!(generation(1), generation(0));
}

#[test]
fn a_tree_without_bytes_has_a_manifest() {
    let dir = TempDir::new();
    dir.write("empty", b"");
    let (manifest, hashed) = hash_counting(&scan_later(&dir), &mut Cache::default());
    assert_eq!((manifest.layout().count(), hashed), (0, 0));
}

#[test]
fn one_served_file_is_hashed_through_the_link_that_names_it() {
    let dir = TempDir::new();
    dir.write("real.img", b"12345");
    let link = dir.path().join("boot.img");
    symlink("real.img", &link).unwrap();
    let scan = scan(&link, &ScanOptions::default(), SystemTime::now()).unwrap();
    let manifest = hash_plain(&scan).unwrap();
    let chunk = manifest.layout().chunk(0).unwrap();
    assert_eq!(manifest.hash(chunk), Some(&blake3::hash(b"12345")));
}

#[test]
fn progress_begins_at_nothing_and_ends_with_all() {
    let dir = TempDir::new();
    dir.write("a", &noise(200_000));
    let seen = Mutex::new(Vec::new());
    let note = |progress: Progress| seen.lock().unwrap().push(progress.hashed_bytes);
    hash(&scan_later(&dir), &mut Cache::default(), 1, &note).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&200_000)));
    assert!(seen.is_sorted());
}

#[test]
fn what_the_cache_knows_is_not_read_again() {
    let dir = TempDir::new();
    dir.write("a", &noise(200_000));
    let scan = scan_later(&dir);
    let mut cache = Cache::default();
    let (first, hashed) = hash_counting(&scan, &mut cache);
    assert_eq!(hashed, 200_000);
    let (second, hashed) = hash_counting(&scan, &mut cache);
    assert_eq!(hashed, 0);
    assert_eq!(first.generation(), second.generation());
}

#[test]
fn only_chunks_of_changed_files_are_read_again() {
    let dir = TempDir::new();
    let chunk = MIN_CHUNK_BYTES as usize;
    dir.write("a", &noise(4 * chunk));
    let b = dir.write("b", &noise(chunk));
    let mut cache = Cache::default();
    hash_counting(&scan_later(&dir), &mut cache);
    fs::write(&b, vec![7; chunk]).unwrap();
    fs::File::open(&b).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let (manifest, hashed) = hash_counting(&scan_later(&dir), &mut cache);
    assert_eq!(hashed, MIN_CHUNK_BYTES);
    assert_eq!(manifest.generation(), hash_plain(&scan_later(&dir)).unwrap().generation());
}

#[test]
fn chunks_of_fresh_files_are_not_cached() {
    let dir = TempDir::new();
    dir.write("a", &noise(200_000));
    let scan = scan(dir.path(), &ScanOptions::default(), SystemTime::now()).unwrap();
    let mut cache = Cache::default();
    hash_counting(&scan, &mut cache);
    assert_eq!(cache, Cache::default());
    assert_eq!(hash_counting(&scan, &mut cache).1, 200_000);
}

#[test]
fn the_cache_forgets_what_is_no_longer_served() {
    let dir = TempDir::new();
    dir.write("a", &noise(200_000));
    let mut cache = Cache::default();
    hash_counting(&scan_later(&dir), &mut cache);
    fs::remove_file(dir.path().join("a")).unwrap();
    hash_counting(&scan_later(&dir), &mut cache);
    assert_eq!(cache, Cache::default());
}

#[test]
fn a_file_that_changed_after_the_scan_is_refused_and_named() {
    let dir = TempDir::new();
    let path = dir.path().join("a");
    let changes: [(&str, &dyn Fn()); 6] = [
        ("grown", &|| fs::write(&path, b"123456").unwrap()),
        ("shrunk", &|| fs::write(&path, b"1234").unwrap()),
        ("touched", &|| {
            fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("replaced", &|| {
            let new = dir.write("new", b"1234");
            fs::File::open(&new).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            fs::rename(new, &path).unwrap();
        }),
        ("made a link", &|| {
            fs::rename(&path, dir.path().join("elsewhere")).unwrap();
            symlink("elsewhere", &path).unwrap();
        }),
        ("vanished", &|| fs::remove_file(&path).unwrap()),
    ];
    for (name, change) in changes {
        let _ = fs::remove_file(&path);
        fs::write(&path, b"12345").unwrap();
        let scan = scan_later(&dir);
        change();
        let refused = hash_plain(&scan);
        assert!(matches!(refused, Err(HashError::Changed { path: p }) if p == path), "{name}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let dir = TempDir::new();
    let path = dir.write("a", &noise(3 * READ_BYTES));
    let scan = scan_later(&dir);
    let mut reader = Reader::new(&scan);
    let segment = Segment { entry: 1, offset: 0, len: 3 * READ_BYTES as u64 };
    reader.read(segment, |_| {}).unwrap();
    let result = reader.read(segment, |_| fs::write(&path, b"short").unwrap());
    assert!(matches!(result, Err(HashError::Changed { .. })));
}

#[test]
fn what_was_hashed_before_a_failure_is_not_hashed_again() {
    let dir = TempDir::new();
    let chunk = MIN_CHUNK_BYTES as usize;
    dir.write("a", &noise(3 * chunk));
    let b = dir.write("b", &noise(chunk));
    let scan = scan_later(&dir);
    fs::write(&b, &noise(chunk + 1)[1..]).unwrap();
    fs::File::open(&b).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let mut cache = Cache::default();
    assert!(hash(&scan, &mut cache, 1, &|_| {}).is_err());
    let (_, hashed) = hash_counting(&scan_later(&dir), &mut cache);
    assert_eq!(hashed, MIN_CHUNK_BYTES);
}

#[test]
fn a_file_that_cannot_be_read_is_not_taken_for_a_changed_one() {
    let dir = TempDir::new();
    dir.write("a", b"x");
    let scan = scan_later(&dir);
    let reader = Reader::new(&scan);
    let failure = |errno| reader.failure(1, io::Error::from_raw_os_error(errno));
    assert!(matches!(failure(libc::EACCES), HashError::Unreadable { .. }));
    assert!(matches!(failure(libc::ESTALE), HashError::Changed { .. }));
    let text = failure(libc::EIO).to_string();
    let path = dir.path().join("a");
    assert_eq!(text, format!("cannot read {}: Input/output error", path.display()));
}
