//! Directories that vanish, mounts that vanish, and trees that can be compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// A directory of its own, removed with all that is in it.
pub(crate) struct Temp(PathBuf);

impl Temp {
    pub(crate) fn new() -> Temp {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("xget-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        // Others may look in, whatever the umask: some tests run the program as somebody else.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Temp(path)
    }

    /// The path of `name` in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the directory `name` in it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Makes the file `name` in it, and the directories that it needs.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes the directory `served` with a bit of everything in it.
    pub(crate) fn tree(&self) -> PathBuf {
        self.file("served/kernel", noise(1, 300_000));
        self.file("served/images/root", noise(2, 1_000_000));
        self.file("served/images/none", "");
        self.file("served/images/tools/run", "#!/bin/sh\n");
        self.dir("served/images/empty");
        symlink("images/root", self.at("served/link")).unwrap();
        set_mode(&self.at("served/images/tools/run"), 0o751);
        set_mode(&self.at("served/images/tools"), 0o750);
        set_mtime(&self.at("served/kernel"), 1_000_000_000);
        set_mtime(&self.at("served/images/tools"), 1_100_000_000);
        self.at("served")
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file system in memory, unmounted at the end.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// None where that is not allowed.
    pub(crate) fn in_memory(at: &Path, options: &str) -> Option<Mount> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "xget-test"]).arg(at);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes without a pattern, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Sets when a file or directory was changed, in seconds since 1970.
pub(crate) fn set_mtime(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// The names in a directory, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Fails unless both directories hold the same, with the same modes and times.
#[track_caller]
pub(crate) fn assert_same_tree(a: &Path, b: &Path) {
    let (mut a, mut b) = (snapshot(a), snapshot(b));
    let paths = |of: &BTreeMap<Vec<u8>, Entry>| -> Vec<String> {
        of.keys().map(|path| path.escape_ascii().to_string()).collect()
    };
    assert_eq!(paths(&a), paths(&b));
    while let (Some((path, a)), Some((_, b))) = (a.pop_first(), b.pop_first()) {
        let path = path.escape_ascii();
        assert_eq!((a.kind, a.mode, a.mtime), (b.kind, b.mode, b.mtime), "{path}");
        assert!(a.content == b.content, "{path} has other bytes");
    }
}

struct Entry {
    kind: &'static str,
    mode: u32,
    mtime: (i64, i64),
    /// Of a file, or the target of a link.
    content: Vec<u8>,
}

/// All that is below a directory.
fn snapshot(top: &Path) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(dir) = pending.pop() {
        for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, content) = if meta.is_dir() {
                pending.push(path.clone());
                ("directory", Vec::new())
            } else if meta.is_symlink() {
                ("link", fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else {
                ("file", fs::read(&path).unwrap())
            };
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            let (mode, mtime) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
            found.insert(name, Entry { kind, mode, mtime, content });
        }
    }
    found
}
