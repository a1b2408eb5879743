//! The cache of chunk hashes, so that a tree is hashed once and not at every start.
//!
//! It is keyed by what a chunk was made of, file by file, not by content: a file that changed in
//! any way has other keys. A cache that is lost or damaged costs time and nothing else.
//!
//! Nodes trust the hashes in the manifest, which come from here. So a file that another user can have written, or put
//! there, is not used.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher, OUT_LEN};

use super::scan::Identity;
use crate::image::chunks::MAX_CHUNKS;
use crate::image::manifest::Segment;
use crate::sys::fs::open_at;
use crate::sys::rights::{WRITE_BY_OTHERS, is_trusted, others_can_rename_in};

/// How the file begins; the number is the version of its format and of the keys.
const MAGIC: &[u8] = b"xget chunk hashes 1\n";
/// Bytes of one entry: a key and a hash.
const ENTRY_BYTES: usize = 2 * OUT_LEN;
/// Longest file that is read, in bytes: an old and a new image of the most chunks there can be.
const MAX_FILE_BYTES: u64 = 2 * MAX_CHUNKS * ENTRY_BYTES as u64;

/// Hashes of chunks that were made before.
///
/// The file holds a heading, then for each chunk its key and its hash, 32 bytes each, then the
/// BLAKE3 hash of all that precedes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cache {
    hashes: HashMap<ChunkKey, Hash>,
}

/// What a chunk was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkKey(Hash);

/// Why a cache begins empty.
#[derive(Debug)]
pub enum NoCache {
    /// There is no file yet.
    Missing,
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The file is something else, or of another version.
    Foreign,
    /// The file is cut short or altered.
    Damaged,
    /// Other users can replace files in the directory; nothing is kept there.
    SharedDirectory,
    /// The file belongs to another user, or others can write it.
    NotOurs,
}

impl NoCache {
    /// Whether somebody should see to it.
    pub(crate) fn is_alarming(&self) -> bool {
        matches!(self, NoCache::SharedDirectory | NoCache::NotOurs)
    }
}

impl Cache {
    /// Reads a cache; with it the reason if there is none to be read and it begins empty.
    pub(crate) fn load(path: &Path) -> (Cache, Option<NoCache>) {
        match read(path).and_then(|bytes| parse(&bytes)) {
            Ok(cache) => (cache, None),
            Err(reason) => (Cache::default(), Some(reason)),
        }
    }

    /// Writes the cache in one step, so that whoever reads finds the old file or the new one.
    /// Missing directories are made; only the owner may read them and the file.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        // A confined master may make none, not even one that is there.
        if let Some(dir) = path.parent().filter(|dir| !dir.is_dir()) {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let new = path.with_extension("new");
        let dir = fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
        if others_can_rename_in(&dir) {
            return Err(io::Error::other("other users can write to its directory"));
        }
        let saved = write_new(&new, &self.print()).and_then(|()| fs::rename(&new, path));
        if saved.is_err() {
            let _ = fs::remove_file(&new);
        }
        saved
    }

    /// The hash of a chunk.
    pub(crate) fn get(&self, key: &ChunkKey) -> Option<Hash> {
        self.hashes.get(key).copied()
    }

    /// Adds the hashes of chunks.
    pub(crate) fn extend(&mut self, hashes: impl IntoIterator<Item = (ChunkKey, Hash)>) {
        self.hashes.extend(hashes);
    }

    /// Forgets every chunk but these.
    pub(crate) fn replace(&mut self, hashes: impl IntoIterator<Item = (ChunkKey, Hash)>) {
        self.hashes = hashes.into_iter().collect();
    }

    fn print(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (ChunkKey(key), hash) in &self.hashes {
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(hash.as_bytes());
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }
}

impl ChunkKey {
    /// The key of a chunk of `chunk_bytes` that is made of these stretches of files.
    pub(crate) fn new<'a>(
        chunk_bytes: u64,
        parts: impl IntoIterator<Item = (&'a Identity, Segment)>,
    ) -> ChunkKey {
        let mut hasher = Hasher::new();
        hasher.update(&chunk_bytes.to_le_bytes());
        for (Identity { dev, inode, bytes, mtime_ns, ctime_ns }, segment) in parts {
            for number in [*dev, *inode, *bytes, segment.offset, segment.len] {
                hasher.update(&number.to_le_bytes());
            }
            for ns in [*mtime_ns, *ctime_ns] {
                hasher.update(&i128::from(ns).to_le_bytes());
            }
        }
        ChunkKey(hasher.finalize())
    }
}

impl fmt::Display for NoCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoCache::Missing => f.write_str("no cache exists yet"),
            NoCache::Unreadable(error) => f.write_str(&crate::error::reason(error)),
            NoCache::Foreign => f.write_str("it was written by another version of xget"),
            NoCache::Damaged => f.write_str("it is damaged"),
            NoCache::SharedDirectory => f.write_str("other users can write to its directory"),
            NoCache::NotOurs => f.write_str("it belongs to another user, or others can write it"),
        }
    }
}

/// Where the cache of a served path is kept unless told otherwise; None if the path does not
/// resolve or the user has no home.
pub(crate) fn default_cache_path(served: &Path, is_root: bool) -> Option<PathBuf> {
    let served = fs::canonicalize(served).ok()?;
    let name = blake3::hash(served.as_os_str().as_bytes()).to_hex();
    Some(cache_dir(is_root, |name| env::var_os(name))?.join(name.as_str()))
}

fn cache_dir(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if is_root {
        return Some("/var/cache/xget".into());
    }
    // The XDG specification wants relative paths ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(caches?.join("xget"))
}

fn read(path: &Path) -> Result<Vec<u8>, NoCache> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => NoCache::Missing,
        _ => NoCache::Unreadable(error),
    };
    let (dir, name) = path.parent().zip(path.file_name()).ok_or(NoCache::Missing)?;
    let dir = File::open(dir).map_err(unreadable)?;
    if others_can_rename_in(&dir.metadata().map_err(unreadable)?) {
        return Err(NoCache::SharedDirectory);
    }
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = open_at(&dir, name.as_bytes(), flags, 0).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !is_trusted(found.uid()) || found.mode() & WRITE_BY_OTHERS != 0 {
        return Err(NoCache::NotOurs);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(NoCache::Unreadable)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Cache, NoCache> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(NoCache::Foreign)?;
    let (entries, checksum) = rest.split_last_chunk::<OUT_LEN>().ok_or(NoCache::Damaged)?;
    let (signed, _) = bytes.split_last_chunk::<OUT_LEN>().ok_or(NoCache::Damaged)?;
    if blake3::hash(signed) != *checksum {
        return Err(NoCache::Damaged);
    }
    let pairs = entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| {
        let (key, rest) = entry.split_first_chunk()?;
        let (hash, _) = rest.split_first_chunk()?;
        Some((ChunkKey(Hash::from_bytes(*key)), Hash::from_bytes(*hash)))
    });
    Ok(Cache { hashes: pairs.collect() })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left behind by a run that was killed; a file made anew has the right mode and is no link.
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::scan::tests::TempDir;
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity { dev: 1, inode, bytes: 10, mtime_ns: 5, ctime_ns: 6 }
    }

    fn key(inode: u64) -> ChunkKey {
        ChunkKey::new(10, [(&identity(inode), Segment { entry: 1, offset: 0, len: 10 })])
    }

    fn sample() -> Cache {
        let mut cache = Cache::default();
        cache.extend((0..5).map(|n| (key(n), blake3::hash(&n.to_le_bytes()))));
        cache
    }

    #[test]
    fn a_cache_survives_saving_and_loading() {
        let dir = TempDir::new();
        let path = dir.path().join("made/on/the/way/cache");
        sample().save(&path).unwrap();
        let (back, problem) = Cache::load(&path);
        assert!(problem.is_none());
        assert_eq!(back, sample());
    }

    #[test]
    fn a_saved_cache_is_its_owners_alone_and_leaves_nothing_beside_it() {
        let dir = TempDir::new();
        let path = dir.path().join("cache");
        dir.write("cache.new", b"left behind");
        sample().save(&path).unwrap();
        sample().save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_cache_is_empty() {
        let dir = TempDir::new();
        let (cache, problem) = Cache::load(&dir.path().join("none"));
        assert!(matches!(problem, Some(NoCache::Missing)));
        assert_eq!(cache, Cache::default());
    }

    #[test]
    fn a_directory_in_its_place_is_an_empty_cache() {
        let dir = TempDir::new();
        let (cache, problem) = Cache::load(dir.path());
        assert!(matches!(problem, Some(NoCache::Unreadable(_))));
        assert_eq!(cache, Cache::default());
    }

    #[test]
    fn a_foreign_file_is_an_empty_cache() {
        let dir = TempDir::new();
        for foreign in [&b""[..], b"xget chunk hashes 2\n", b"\x7fELF"] {
            dir.write("cache", foreign);
            let (cache, problem) = Cache::load(&dir.path().join("cache"));
            assert!(matches!(problem, Some(NoCache::Foreign)), "{foreign:?}");
            assert_eq!(cache, Cache::default());
        }
    }

    #[test]
    fn a_cache_that_another_user_can_have_written_is_not_used() {
        let dir = TempDir::new();
        let path = dir.path().join("cache");
        sample().save(&path).unwrap();
        let problem = || Cache::load(&path).1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(problem(), Some(NoCache::NotOurs)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(problem().is_none());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Cache::load(&link).1, Some(NoCache::Unreadable(_))));
        if crate::sys::fs::effective_uid() == 0 {
            std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
            assert!(matches!(problem(), Some(NoCache::NotOurs)));
        }
    }

    #[test]
    fn nothing_is_kept_where_other_users_can_replace_it() {
        let dir = TempDir::new();
        let path = dir.path().join("cache");
        sample().save(&path).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Cache::load(&path).1, Some(NoCache::SharedDirectory)));
        assert!(sample().save(&path).is_err());
    }

    #[test]
    fn a_cache_with_any_bit_flipped_or_any_end_cut_off_is_ignored() {
        let good = sample().print();
        assert!(parse(&good).is_ok());
        for at in MAGIC.len()..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(matches!(parse(&bad), Err(NoCache::Damaged)), "byte {at}");
            assert!(matches!(parse(&good[..at]), Err(NoCache::Damaged)), "cut at {at}");
        }
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let segment = Segment { entry: 1, offset: 0, len: 10 };
        let base = Identity { dev: 1, inode: 2, bytes: 10, mtime_ns: 5, ctime_ns: 6 };
        let keys = [
            ChunkKey::new(10, [(&base, segment)]),
            ChunkKey::new(11, [(&base, segment)]),
            ChunkKey::new(10, [(&Identity { dev: 9, ..base }, segment)]),
            ChunkKey::new(10, [(&Identity { inode: 9, ..base }, segment)]),
            ChunkKey::new(10, [(&Identity { bytes: 9, ..base }, segment)]),
            ChunkKey::new(10, [(&Identity { mtime_ns: 9, ..base }, segment)]),
            ChunkKey::new(10, [(&Identity { ctime_ns: 9, ..base }, segment)]),
            ChunkKey::new(10, [(&base, Segment { offset: 9, ..segment })]),
            ChunkKey::new(10, [(&base, Segment { len: 9, ..segment })]),
            ChunkKey::new(10, [(&base, segment), (&base, segment)]),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn a_key_does_not_depend_on_where_the_file_stands_in_the_listing() {
        let at = |entry| ChunkKey::new(9, [(&identity(1), Segment { entry, offset: 0, len: 9 })]);
        assert_eq!(at(1), at(2));
    }

    #[test]
    fn the_cache_is_kept_where_the_user_keeps_caches() {
        let dir = |is_root, xdg: Option<&str>, home: Option<&str>| {
            let path = cache_dir(is_root, |name| match name {
                "XDG_CACHE_HOME" => xdg.map(OsString::from),
                _ => home.map(OsString::from),
            });
            path.map(|path| path.display().to_string())
        };
        assert_eq!(dir(true, Some("/x"), Some("/h")).as_deref(), Some("/var/cache/xget"));
        assert_eq!(dir(false, Some("/x"), Some("/h")).as_deref(), Some("/x/xget"));
        assert_eq!(dir(false, Some("x"), Some("/h")).as_deref(), Some("/h/.cache/xget"));
        assert_eq!(dir(false, None, None), None);
    }

    #[test]
    fn the_same_place_by_another_path_has_the_same_cache() {
        let dir = TempDir::new();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("self")).unwrap();
        let path = |served: &Path| default_cache_path(served, true);
        assert_eq!(path(&dir.path().join("self")), path(dir.path()));
        assert_ne!(path(Path::new("/")), path(dir.path()));
        assert_eq!(path(&dir.path().join("nowhere")), None);
    }
}
