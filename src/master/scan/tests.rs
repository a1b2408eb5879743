use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::walk::Pending;
use super::*;
use crate::image::manifest::{Content, Entry, Mtime, Owner};

/// A directory that goes away with the value.
pub(in crate::master) struct TempDir(PathBuf);

impl TempDir {
    pub(in crate::master) fn new() -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xget-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        TempDir(dir)
    }

    pub(in crate::master) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file below, and the directories above it.
    pub(in crate::master) fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(path);
        DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn dir(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn open(&self) -> File {
        File::open(&self.0).unwrap()
    }

    fn scan(&self) -> Scan {
        scan(&self.0, &ScanOptions::default(), SystemTime::now()).unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn paths(scan: &Scan) -> Vec<String> {
    scan.listing().entries().map(|entry| entry.path.to_string()).collect()
}

fn warnings(scan: &Scan) -> Vec<String> {
    scan.warnings().iter().map(Warning::to_string).collect()
}

fn entry(scan: &Scan, path: &str) -> Entry {
    let path = TreePath::from_manifest(path.as_bytes()).unwrap();
    scan.listing().entry(scan.listing().find(&path).unwrap()).unwrap()
}

fn set_mtime(path: &Path, secs: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn the_order_of_creation_does_not_matter() {
    let make = |order: [usize; 4]| {
        let dir = TempDir::new();
        for file in order {
            let name = ["a/b", "a-b", "z", "a/a/a"][file];
            set_mtime(&dir.write(name, name.as_bytes()), 1000);
        }
        for name in ["a/a", "a", "."] {
            set_mtime(&dir.path().join(name), 1000);
        }
        dir.scan()
    };
    let (one, other) = (make([0, 1, 2, 3]), make([3, 2, 1, 0]));
    assert_eq!(paths(&one), [".", "a", "a/a", "a/a/a", "a/b", "a-b", "z"]);
    assert_eq!(one.listing(), other.listing());
}

#[test]
fn modes_owners_and_times_are_recorded() {
    let dir = TempDir::new();
    let path = dir.write("tool", b"x");
    fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
    set_mtime(&path, 1_700_000_000);
    let scan = dir.scan();
    let tool = entry(&scan, "tool");
    let attributes = fs::metadata(&path).unwrap();
    assert_eq!(tool.mode, 0o4751);
    assert_eq!(tool.owner, Some(Owner { uid: attributes.uid(), gid: attributes.gid() }));
    assert_eq!(tool.mtime, Mtime { secs: 1_700_000_000, nanos: 0 });
}

#[test]
fn owners_are_not_recorded_unless_wanted() {
    let dir = TempDir::new();
    dir.write("a", b"x");
    let options = ScanOptions { no_owners: true, ..ScanOptions::default() };
    let scan = scan(dir.path(), &options, SystemTime::now()).unwrap();
    assert!(scan.listing().entries().all(|entry| entry.owner.is_none()));
}

#[test]
fn a_time_before_1970_is_recorded() {
    let dir = TempDir::new();
    let path = dir.write("old", b"x");
    let time = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    File::open(&path).unwrap().set_modified(time).unwrap();
    let scan = dir.scan();
    assert_eq!(entry(&scan, "old").mtime, Mtime { secs: -2, nanos: 500_000_000 });
    assert_eq!(scan.identity(1).unwrap().mtime_ns, nanoseconds_of(time));
}

#[test]
fn links_are_recorded_and_never_followed() {
    let dir = TempDir::new();
    dir.write("dir/file", b"x");
    symlink("..", dir.path().join("dir/up")).unwrap();
    symlink("self", dir.path().join("self")).unwrap();
    symlink("/etc", dir.path().join("etc")).unwrap();
    symlink("nowhere/at all\n", dir.path().join("broken")).unwrap();
    let scan = dir.scan();
    assert_eq!(paths(&scan), [".", "broken", "dir", "dir/file", "dir/up", "etc", "self"]);
    let target = b"nowhere/at all\n".as_slice().into();
    assert_eq!(entry(&scan, "broken").content, Content::Symlink { target });
    assert_eq!(scan.counts().symlinks, 4);
}

#[test]
fn the_served_directory_may_be_a_link() {
    let dir = TempDir::new();
    dir.write("one/a", b"1");
    dir.write("two/b", b"2");
    let current = dir.path().join("current");
    let scan_current = || scan(&current, &ScanOptions::default(), SystemTime::now()).unwrap();
    symlink("one", &current).unwrap();
    assert_eq!(paths(&scan_current()), [".", "a"]);
    fs::remove_file(&current).unwrap();
    symlink("two", &current).unwrap();
    assert_eq!(paths(&scan_current()), [".", "b"]);
}

#[test]
fn one_served_file_is_a_tree_of_its_own() {
    let dir = TempDir::new();
    dir.write("real.img", b"12345");
    symlink("real.img", dir.path().join("boot.img")).unwrap();
    for name in ["real.img", "boot.img"] {
        let file = dir.path().join(name);
        let scan = scan(&file, &ScanOptions::default(), SystemTime::now()).unwrap();
        assert_eq!(paths(&scan), [".", name]);
        assert_eq!(scan.listing().layout().image_bytes(), 5);
        assert_eq!(entry(&scan, ".").mode, 0o755);
    }
}

#[test]
fn a_root_that_is_not_there_or_not_a_file_is_an_error() {
    let dir = TempDir::new();
    let _socket = UnixListener::bind(dir.path().join("s")).unwrap();
    for name in ["s", "none"] {
        assert!(scan(&dir.path().join(name), &ScanOptions::default(), SystemTime::now()).is_err());
    }
    let null = scan(Path::new("/dev/null"), &ScanOptions::default(), SystemTime::now());
    assert!(null.unwrap_err().to_string().contains("not a directory or regular file"));
}

#[test]
fn sockets_and_fifos_are_skipped_and_counted() {
    let dir = TempDir::new();
    let _socket = UnixListener::bind(dir.path().join("s")).unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let scan = dir.scan();
    assert_eq!(paths(&scan), ["."]);
    assert_eq!(scan.counts().special, 2);
    assert_eq!(scan.warnings(), []);
}

#[test]
fn empty_files_and_directories_are_entries() {
    let dir = TempDir::new();
    dir.write("empty", b"");
    dir.dir("void");
    let scan = dir.scan();
    assert_eq!(paths(&scan), [".", "empty", "void"]);
    assert_eq!(scan.listing().layout().count(), 0);
    assert_eq!(*scan.counts(), Counts { directories: 2, files: 1, ..Counts::default() });
}

#[test]
fn names_may_be_any_bytes() {
    let dir = TempDir::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff\n \x01");
    fs::write(dir.path().join(name), b"x").unwrap();
    let scan = dir.scan();
    assert_eq!(scan.listing().path(1).unwrap().as_bytes(), b"\xff\n \x01");
}

#[test]
fn only_the_roots_reserved_name_is_left_out() {
    let dir = TempDir::new();
    dir.write(".xget/manifest", b"x");
    dir.write("a/.xget", b"x");
    let scan = dir.scan();
    assert_eq!(paths(&scan), [".", "a", "a/.xget"]);
    let reserved = Warning { path: dir.path().join(".xget"), why: Why::Reserved };
    assert_eq!(scan.warnings(), [reserved]);
}

#[test]
fn files_still_being_fetched_are_left_out_everywhere() {
    let dir = TempDir::new();
    dir.write(".xget-part-1", b"x");
    dir.write("a/.xget-part-kernel", b"x");
    dir.dir("a/.xget-part-directory");
    let scan = dir.scan();
    assert_eq!(paths(&scan), [".", "a", "a/.xget-part-directory"]);
    assert_eq!(scan.counts().partial, 2);
}

#[test]
fn the_caches_directory_is_left_out() {
    let dir = TempDir::new();
    dir.write("home/cache/1", b"x");
    let options = ScanOptions {
        cache_dir: Some(dir.path().join("home/../home/cache")),
        ..ScanOptions::default()
    };
    let scan = scan(dir.path(), &options, SystemTime::now()).unwrap();
    assert_eq!(paths(&scan), [".", "home"]);
}

#[test]
fn a_path_that_is_too_long_to_open_is_left_out_and_the_rest_stays() {
    let dir = TempDir::new();
    dir.write("ok", b"x");
    // One directory at a time and bottom up, as a path of that length cannot be made at once.
    let name = "d".repeat(250);
    let mut tree = dir.dir("top");
    for _ in 0..20 {
        let above = dir.dir("above");
        fs::rename(&tree, above.join(&name)).unwrap();
        fs::rename(&above, dir.path().join("top")).unwrap();
        tree = dir.path().join("top");
    }
    let scan = dir.scan();
    assert!(paths(&scan).contains(&"ok".to_owned()));
    let longest = scan.listing().entries().map(|entry| entry.path.as_bytes().len()).max();
    assert!((3500..4095).contains(&longest.unwrap()), "{longest:?}");
    assert_eq!(scan.warnings().len(), 1);
    assert_eq!(scan.warnings()[0].why, Why::TooLong);
}

#[test]
fn a_mount_point_is_an_empty_directory_if_one_file_system_is_wanted() {
    let dir = TempDir::new();
    let attributes = fs::metadata(dir.dir("mounted")).unwrap();
    let path = TreePath::from_manifest(b"mounted").unwrap();
    for one_file_system in [true, false] {
        let options = ScanOptions { one_file_system, ..ScanOptions::default() };
        let top = dir.open();
        let mut walk = Walk::new(dir.path(), &top, &options, attributes.dev() + 1);
        walk.add_directory(&path, &attributes);
        assert_eq!(walk.found.len(), usize::from(one_file_system));
        assert_eq!(walk.pending.len(), usize::from(!one_file_system));
    }
}

#[test]
fn what_happens_in_another_file_system_is_no_change_of_this_one() {
    let dir = TempDir::new();
    let mounted = dir.dir("mounted");
    let options = ScanOptions { one_file_system: true, ..ScanOptions::default() };
    let listed = || {
        let attributes = fs::metadata(&mounted).unwrap();
        let top = dir.open();
        let mut walk = Walk::new(dir.path(), &top, &options, attributes.dev() + 1);
        walk.add_directory(&TreePath::from_manifest(b"mounted").unwrap(), &attributes);
        walk.found
    };
    let before = listed();
    set_mtime(&mounted, 1000);
    assert_eq!(listed(), before);
}

#[test]
fn unreadable_entries_are_left_out_with_a_warning() {
    let dir = TempDir::new();
    let secret = dir.write("secret", b"x");
    if fs::metadata(&secret).unwrap().uid() == 0 {
        eprintln!("SKIPPED: root can read everything");
        return;
    }
    dir.write("ok", b"x");
    dir.write("closed/file", b"x");
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path().join("closed"), Permissions::from_mode(0o000)).unwrap();
    let scan = dir.scan();
    fs::set_permissions(dir.path().join("closed"), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(paths(&scan), [".", "ok"]);
    let shown = |name: &str| dir.path().join(name).display().to_string();
    let why = "is left out: Permission denied";
    let expected = ["closed", "secret"].map(|name| format!("{} {why}", shown(name)));
    assert_eq!(warnings(&scan), expected);
}

#[test]
fn a_failure_leaves_out_the_entry_unless_the_process_is_short_of_something() {
    let options = ScanOptions::default();
    let top = File::open("/").unwrap();
    let mut walk = Walk::new(Path::new("/srv"), &top, &options, 0);
    let path = TreePath::from_manifest(b"a").unwrap();
    let mut fail =
        |errno| walk.leave_out_unreadable(&path, &io::Error::from_raw_os_error(errno)).is_err();
    assert!([libc::EMFILE, libc::ENFILE, libc::ENOMEM].into_iter().all(&mut fail));
    assert!(![libc::EACCES, libc::EIO, libc::ENOENT].into_iter().any(&mut fail));
    let why = |errno| Warning { path: "/srv/a".into(), why: Why::Unreadable { errno } };
    assert_eq!(walk.warnings, [why(libc::EACCES), why(libc::EIO)]);
}

#[test]
fn a_directory_replaced_during_the_scan_is_not_read() {
    let dir = TempDir::new();
    let attributes = fs::metadata(dir.dir("listed")).unwrap();
    let path = TreePath::from_manifest(b"listed").unwrap();
    let options = ScanOptions::default();
    let top = dir.open();
    let mut walk = Walk::new(dir.path(), &top, &options, attributes.dev());
    let inode = attributes.ino() + 1;
    walk.subdirectory(&Pending { path, dev: attributes.dev(), inode }).unwrap();
    assert_eq!(walk.found.len(), 0);
    assert_eq!(walk.warnings[0].why, Why::Replaced);
}

#[test]
fn a_directory_replaced_by_a_link_is_not_followed() {
    let dir = TempDir::new();
    symlink("/etc", dir.path().join("listed")).unwrap();
    let attributes = fs::metadata("/etc").unwrap();
    let path = TreePath::from_manifest(b"listed").unwrap();
    let options = ScanOptions::default();
    let top = dir.open();
    let mut walk = Walk::new(dir.path(), &top, &options, attributes.dev());
    let listed = Pending { path, dev: attributes.dev(), inode: attributes.ino() };
    assert!(walk.subdirectory(&listed).is_err());
}

/// Gives the name `at` in turn to what has the names `each`, thousands of times, and does `act` meanwhile.
fn while_taking_turns(dir: &TempDir, at: &str, each: &[&str], mut act: impl FnMut()) {
    let place = |name: &str| dir.path().join(name);
    std::thread::scope(|scope| {
        let turns = scope.spawn(|| {
            for name in each.iter().cycle().take(5000) {
                fs::rename(place(name), place(at)).unwrap();
                fs::rename(place(at), place(name)).unwrap();
            }
        });
        while !turns.is_finished() {
            act();
        }
    });
}

/// A tree, and beside it what must not be reached from it.
fn tree_beside_secrets() -> (TempDir, PathBuf) {
    let dir = TempDir::new();
    dir.write("outside/file", b"secret");
    dir.write("outside/secret", b"secret");
    dir.write("top/real/file", b"inside");
    let top = dir.dir("top");
    symlink("../outside", top.join("link")).unwrap();
    symlink("/", top.join("slash")).unwrap();
    (dir, top)
}

#[test]
fn a_scan_stays_inside_while_a_directory_and_links_take_turns() {
    let (dir, top) = tree_beside_secrets();
    let each = ["top/real", "top/link", "top/slash"];
    while_taking_turns(&dir, "top/turn", &each, || {
        let scan = scan(&top, &ScanOptions::default(), SystemTime::now()).unwrap();
        for path in paths(&scan) {
            let file = path.rsplit('/').next().unwrap();
            assert!(["file", "real", "link", "slash", "turn", "."].contains(&file), "{path}");
        }
        for (index, entry) in scan.listing().entries().enumerate() {
            if entry.path.name() == b"file" {
                let bytes = scan.open(index).map(io::read_to_string);
                assert!(bytes.is_err() || bytes.unwrap().unwrap() == "inside");
            }
        }
    });
}

#[test]
fn what_was_scanned_is_opened_or_nothing_while_others_take_its_place() {
    let (dir, top) = tree_beside_secrets();
    let scan_top = || scan(&top, &ScanOptions::default(), SystemTime::now()).unwrap();
    fs::rename(top.join("real/file"), top.join("turn")).unwrap();
    let scan = scan_top();
    fs::rename(top.join("turn"), top.join("file")).unwrap();
    symlink("../outside/file", top.join("out")).unwrap();
    crate::sys::fs::make_node(&top.join("fifo"), libc::S_IFIFO | 0o600, 0, 0).unwrap();
    let turn = scan.listing().find(&TreePath::from_manifest(b"turn").unwrap()).unwrap();
    // Null, so that it is no matter if it is read.
    let device = crate::sys::fs::make_node(&top.join("null"), libc::S_IFCHR | 0o600, 1, 3);
    let mut each = vec!["top/file", "top/out", "top/fifo", "top/real"];
    each.extend(device.is_ok().then_some("top/null"));
    while_taking_turns(&dir, "top/turn", &each, || {
        // A rename changes the ctime, so that not even the file itself is what it was.
        assert!(scan.open_same(turn).is_err());
        if let Ok(file) = scan.open(turn)
            && file.metadata().unwrap().is_file()
        {
            assert_eq!(io::read_to_string(file).unwrap(), "inside");
        }
    });
}

#[test]
fn a_sparse_file_of_gigabytes_has_the_right_layout() {
    let dir = TempDir::new();
    let bytes = (5 << 30) + 1;
    File::create(dir.path().join("disk.img")).unwrap().set_len(bytes).unwrap();
    dir.write("z", b"12");
    let scan = dir.scan();
    assert_eq!(scan.listing().layout().image_bytes(), bytes + 2);
    assert_eq!(scan.listing().layout().chunk_bytes(), 4 << 20);
    assert_eq!(scan.listing().layout().count(), 1281);
    assert_eq!(entry(&scan, "z").image_range(), bytes..bytes + 2);
    assert_eq!(scan.identity(1).unwrap().bytes, bytes);
}

#[test]
fn an_unchanged_tree_is_the_same() {
    let dir = TempDir::new();
    dir.write("a/b", b"x");
    symlink("b", dir.path().join("a/l")).unwrap();
    assert!(dir.scan().same_as(&dir.scan()));
}

#[test]
fn every_kind_of_change_is_seen() {
    let dir = TempDir::new();
    let file = dir.write("a/file", b"12345");
    let link = dir.path().join("a/link");
    symlink("file", &link).unwrap();
    let changes: [(&str, &dyn Fn()); 7] = [
        ("size", &|| fs::write(&file, b"1234").unwrap()),
        ("time", &|| set_mtime(&file, 1000)),
        ("mode", &|| fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap()),
        ("mode of a directory", &|| {
            fs::set_permissions(dir.path().join("a"), Permissions::from_mode(0o711)).unwrap();
        }),
        ("inode", &|| {
            let new = dir.write("a/new", b"1234");
            set_mtime(&new, 1000);
            fs::rename(new, &file).unwrap();
            set_mtime(&dir.path().join("a"), 1000);
        }),
        ("link target", &|| {
            fs::remove_file(&link).unwrap();
            symlink("elif", &link).unwrap();
        }),
        ("path", &|| {
            fs::rename(&link, dir.path().join("a/other")).unwrap();
        }),
    ];
    let mut before = dir.scan();
    for (name, change) in changes {
        change();
        let after = dir.scan();
        assert!(!before.same_as(&after), "{name}");
        before = after;
    }
}

#[test]
fn a_tree_is_settled_some_time_after_its_last_change() {
    let dir = TempDir::new();
    dir.write("a", b"x");
    let written = fs::metadata(dir.path().join("a")).unwrap().modified().unwrap();
    let scan_in = |secs| {
        let now = written + Duration::from_secs(secs);
        scan(dir.path(), &ScanOptions::default(), now).unwrap()
    };
    assert!(!scan_in(0).is_settled());
    assert!(scan_in(3).is_settled());
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    File::open(dir.path().join("a")).unwrap().set_modified(tomorrow).unwrap();
    assert!(!scan_in(3).is_settled());
}

#[test]
fn a_file_system_that_counts_in_whole_seconds_settles_late() {
    assert!(settling_ns(5_000_000_000) > 1_000_000_000);
    assert!(settling_ns(5_004_000_000) < 1_000_000_000);
}
