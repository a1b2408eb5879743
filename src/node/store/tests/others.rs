//! Other users who can write to the destination, or who have its files open.

use std::fs::OpenOptions;
use std::os::unix::fs::chown;

use super::*;

const CHUNK: usize = MIN_CHUNK_BYTES as usize;
/// As if for somebody who is not root: nothing needs an owner.
const NO_OWNERS: StoreOptions = StoreOptions { keep_modes: true, keep_owners: false };

fn part(name: &str) -> String {
    String::from_utf8(temporary_name(&TreePath::from_user(name.as_bytes()).unwrap())).unwrap()
}

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn open_up(dest: &TempDir) {
    fs::set_permissions(&dest.0, Permissions::from_mode(0o777)).unwrap();
}

/// A fetch that ended after its first chunk.
fn interrupt(served: &Served, dest: &TempDir, options: StoreOptions) {
    let mut store = served.open_with(".", &dest.0, options).unwrap();
    served.send(&mut store, served.chunk(0)).unwrap();
}

/// Finishes a fetch; returns the chunks that were there.
fn resume(served: &Served, dest: &TempDir, options: StoreOptions) -> Vec<u32> {
    let mut store = served.reopen(".", &dest.0, options);
    let held = verify(&mut store);
    served.send_all(&mut store).unwrap();
    held
}

#[test]
fn a_temporary_file_in_a_directory_of_ones_own_is_completed_in_place() {
    let bytes = noise(1, 3 * CHUNK);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    // A process that another test has forked holds all descriptors until it calls exec, and the file is copied.
    let in_place = (0..10).any(|_| {
        let dest = TempDir::new();
        interrupt(&served, &dest, NO_OWNERS);
        let before = ino(&dest.path(&part("a")));
        assert_eq!(resume(&served, &dest, NO_OWNERS), [0]);
        assert_eq!(fs::read(dest.path("a")).unwrap(), bytes);
        ino(&dest.path("a")) == before
    });
    assert!(in_place);
}

#[test]
fn a_temporary_file_that_somebody_has_open_for_writing_is_copied() {
    let dest = TempDir::new();
    let bytes = noise(1, 3 * CHUNK);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    interrupt(&served, &dest, NO_OWNERS);
    let writer = OpenOptions::new().write(true).open(dest.path(&part("a"))).unwrap();
    assert_eq!(resume(&served, &dest, NO_OWNERS), [0]);
    writer.write_all_at(b"wrong", 0).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), bytes);
    assert_eq!(dest.names(), ["a"]);
}

#[test]
fn a_whole_file_that_somebody_has_open_for_writing_is_copied() {
    let dest = TempDir::new();
    let bytes = noise(1, 3 * CHUNK);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    fs::write(dest.path("a"), &bytes).unwrap();
    let writer = OpenOptions::new().write(true).open(dest.path("a")).unwrap();
    assert_eq!(resume(&served, &dest, NO_OWNERS), [0, 1, 2]);
    writer.write_all_at(b"wrong", 0).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), bytes);
}

#[test]
fn an_empty_file_that_somebody_has_open_for_writing_gives_way() {
    let dest = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(b""))]);
    let writer = File::create(dest.path("a")).unwrap();
    assert_eq!(resume(&served, &dest, NO_OWNERS), []);
    writer.write_all_at(b"wrong", 0).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), b"");
}

#[test]
fn a_whole_file_that_others_may_write_is_copied() {
    let dest = TempDir::new();
    let bytes = noise(1, 2 * CHUNK);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    fs::write(dest.path("a"), &bytes).unwrap();
    fs::set_permissions(dest.path("a"), Permissions::from_mode(0o666)).unwrap();
    let before = ino(&dest.path("a"));
    assert_eq!(resume(&served, &dest, NO_OWNERS), [0, 1]);
    assert_ne!(ino(&dest.path("a")), before);
    assert_eq!(mode(&dest.path("a")), 0o644);
}

#[test]
fn in_a_directory_that_others_can_write_a_temporary_file_is_copied() {
    let dest = TempDir::new();
    let bytes = noise(1, 3 * CHUNK);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    interrupt(&served, &dest, NO_OWNERS);
    let before = ino(&dest.path(&part("a")));
    open_up(&dest);
    assert_eq!(resume(&served, &dest, NO_OWNERS), [0]);
    assert_ne!(ino(&dest.path("a")), before);
    assert_eq!(fs::read(dest.path("a")).unwrap(), bytes);
    assert_eq!(dest.names(), ["a"]);
}

#[test]
fn small_files_of_one_chunk_are_all_copied() {
    let dest = TempDir::new();
    let bytes = noise(1, 30_000);
    let items = [
        (&b"a"[..], 0o644, Plain(&bytes[..20_000])),
        (b"b", 0o644, Plain(&bytes[20_000..25_000])),
        (b"c", 0o644, Plain(&bytes[25_000..])),
    ];
    let served = serve(&items);
    served.open_with(".", &dest.0, NO_OWNERS).unwrap();
    for (name, _, what) in items {
        let Plain(content) = what else { continue };
        fs::write(dest.path(&part(std::str::from_utf8(name).unwrap())), content).unwrap();
    }
    open_up(&dest);
    let mut store = served.reopen(".", &dest.0, NO_OWNERS);
    assert_eq!(verify(&mut store), [0]);
    store.finish().unwrap();
    assert_eq!(dest.names(), ["a", "b", "c"]);
    assert_eq!(fs::read(dest.path("b")).unwrap(), bytes[20_000..25_000]);
}

#[test]
fn a_temporary_file_that_is_swapped_gets_no_final_name() {
    let dest = TempDir::new();
    open_up(&dest);
    let bytes = noise(1, 2 * CHUNK);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    let mut store = served.open_with(".", &dest.0, NO_OWNERS).unwrap();
    served.send(&mut store, served.chunk(0)).unwrap();
    fs::write(dest.path("evil"), noise(2, 2 * CHUNK)).unwrap();
    fs::rename(dest.path("evil"), dest.path(&part("a"))).unwrap();
    let error = served.send_all(&mut store).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("put something else in its place"), "{error}");
    assert!(!dest.path("a").exists());
}

#[test]
fn a_file_that_is_swapped_before_the_end_of_the_fetch_fails_it() {
    let dest = TempDir::new();
    open_up(&dest);
    let served = serve(&[(b"a", 0o644, Plain(b"right")), (b"l", 0o777, Link(b"a"))]);
    let mut store = served.open_with(".", &dest.0, NO_OWNERS).unwrap();
    served.send(&mut store, served.chunk(0)).unwrap();
    fs::write(dest.path("evil"), b"wrong").unwrap();
    fs::rename(dest.path("evil"), dest.path("a")).unwrap();
    let error = store.finish().unwrap_err().to_string();
    assert!(error.contains("put something else in its place"), "{error}");
}

#[test]
fn a_destination_that_is_swapped_during_the_fetch_fails_it() {
    let above = TempDir::new();
    open_up(&above);
    let served = serve(&[(b"a", 0o644, Plain(b"right"))]);
    let mut store = served.open_with(".", &above.path("dest"), NO_OWNERS).unwrap();
    fs::rename(above.path("dest"), above.path("aside")).unwrap();
    fs::create_dir(above.path("dest")).unwrap();
    assert!(served.send_all(&mut store).is_err());
    assert!(!above.path("dest/a").exists());
}

#[test]
fn a_directory_that_is_swapped_during_the_fetch_fails_it() {
    let (dest, outside) = (TempDir::new(), TempDir::new());
    open_up(&dest);
    let served = serve(&[(b"d", 0o755, Dir), (b"d/a", 0o644, Plain(b"right"))]);
    let mut store = served.open_with(".", &dest.0, NO_OWNERS).unwrap();
    served.send(&mut store, served.chunk(0)).unwrap();
    fs::rename(dest.path("d"), dest.path("aside")).unwrap();
    symlink(&outside.0, dest.path("d")).unwrap();
    assert!(store.finish().is_err());
}

#[test]
fn a_destination_that_others_can_write_is_reported() {
    let (above, served) = (TempDir::new(), serve(&[(b"a", 0o644, Plain(b"x"))]));
    let dest = above.path("dest");
    let exposed = || served.reopen(".", &dest, KEEP).exposed().map(Path::to_owned);
    assert_eq!(exposed(), None);
    fs::set_permissions(&dest, Permissions::from_mode(0o757)).unwrap();
    assert_eq!(exposed(), Some(dest.clone()));
    fs::set_permissions(&dest, Permissions::from_mode(0o755)).unwrap();
    open_up(&above);
    assert_eq!(exposed(), Some(above.0.clone()));
    fs::set_permissions(&above.0, Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(exposed(), None);
}

#[test]
fn a_directory_below_that_others_can_write_is_reported_unless_it_is_meant_so() {
    let dest = TempDir::new();
    let exposed = |mode| {
        let served = serve(&[(b"d", mode, Dir)]);
        served.reopen(".", &dest.0, KEEP).exposed().map(Path::to_owned)
    };
    assert_eq!(exposed(0o755), None);
    fs::set_permissions(dest.path("d"), Permissions::from_mode(0o757)).unwrap();
    assert_eq!(exposed(0o755), Some(dest.path("d")));
    assert_eq!(exposed(0o757), None);
}

#[test]
fn links_lead_to_a_destination_but_not_in_a_circle() {
    let dir = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(b"x"))]);
    symlink("made/below", dir.path("link")).unwrap();
    symlink(dir.path("link"), dir.path("far")).unwrap();
    served.fetch(".", &dir.path("far/../below/deep"));
    assert_eq!(fs::read(dir.path("made/below/deep/a")).unwrap(), b"x");
    symlink("circle", dir.path("circle")).unwrap();
    let error = served.open(".", &dir.path("circle/x")).unwrap_err().to_string();
    assert!(error.ends_with("Too many levels of symbolic links"), "{error}");
}

// What follows needs another user.

fn is_root(test: &str) -> bool {
    let is = effective_uid() == 0;
    if !is {
        eprintln!("SKIPPED: {test}: not root");
    }
    is
}

#[test]
fn owners_and_set_id_bits_go_to_new_files_only() {
    if !is_root("owners_and_set_id_bits_go_to_new_files_only") {
        return;
    }
    let dest = TempDir::new();
    let bytes = noise(1, 3 * CHUNK);
    let served = serve(&[(b"su", 0o4755, Plain(&bytes))]);
    interrupt(&served, &dest, KEEP);
    let held = File::open(dest.path(&part("su"))).unwrap();
    assert_eq!(resume(&served, &dest, KEEP), [0]);
    let left = held.metadata().unwrap();
    assert_eq!((left.uid(), left.mode() & 0o7777, left.nlink()), (0, 0o600, 0));
    let found = fs::metadata(dest.path("su")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (1234, 0o4755));
    assert_eq!(fs::read(dest.path("su")).unwrap(), bytes);
}

#[test]
fn a_file_with_its_owner_and_its_set_id_bits_stays() {
    if !is_root("a_file_with_its_owner_and_its_set_id_bits_stays") {
        return;
    }
    let served = serve(&[(b"su", 0o4755, Plain(b"x"))]);
    let stays = (0..10).any(|_| {
        let dest = TempDir::new();
        drop(served.fetch(".", &dest.0));
        let before = ino(&dest.path("su"));
        drop(served.fetch(".", &dest.0));
        ino(&dest.path("su")) == before
    });
    assert!(stays);
}

#[test]
fn a_whole_file_of_another_user_is_copied() {
    if !is_root("a_whole_file_of_another_user_is_copied") {
        return;
    }
    let dest = TempDir::new();
    let served = serve(&[(b"a", 0o644, Plain(b"right"))]);
    fs::write(dest.path("a"), b"right").unwrap();
    chown(dest.path("a"), Some(4711), None).unwrap();
    let before = ino(&dest.path("a"));
    assert_eq!(resume(&served, &dest, NO_OWNERS), [0]);
    assert_ne!(ino(&dest.path("a")), before);
    assert_eq!(fs::metadata(dest.path("a")).unwrap().uid(), 0);
}

/// Whoever can rename there could have the attacker's directory and one of root's change places.
#[test]
fn a_directory_that_was_there_gets_no_owner_where_others_can_rename() {
    if !is_root("a_directory_that_was_there_gets_no_owner_where_others_can_rename") {
        return;
    }
    let dest = TempDir::new();
    open_up(&dest);
    fs::create_dir(dest.path("d")).unwrap();
    let served = serve(&[(b"d", 0o755, Dir), (b"e", 0o755, Dir)]);
    let error = served.open(".", &dest.0).unwrap().finish().unwrap_err().to_string();
    assert!(error.ends_with("other users can write to the directory that it is in"), "{error}");
    assert_eq!(fs::metadata(dest.path("d")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(dest.path("e")).unwrap().uid(), 1234);
}

#[test]
fn a_link_of_another_user_gets_no_owner_but_gives_way() {
    if !is_root("a_link_of_another_user_gets_no_owner_but_gives_way") {
        return;
    }
    let dest = TempDir::new();
    symlink("target", dest.path("l")).unwrap();
    let before = ino(&dest.path("l"));
    serve(&[(b"l", 0o777, Link(b"target"))]).fetch(".", &dest.0);
    assert_ne!(ino(&dest.path("l")), before);
    assert_eq!(fs::symlink_metadata(dest.path("l")).unwrap().uid(), 1234);
}

#[test]
fn a_link_of_another_user_does_not_lead_to_a_destination_of_ours() {
    if !is_root("a_link_of_another_user_does_not_lead_to_a_destination_of_ours") {
        return;
    }
    let dir = TempDir::new();
    fs::create_dir(dir.path("ours")).unwrap();
    symlink("ours", dir.path("link")).unwrap();
    let served = serve(&[(b"a", 0o644, Plain(b"x"))]);
    served.fetch(".", &dir.path("link"));
    assert!(dir.path("ours/a").exists());
    std::os::unix::fs::lchown(dir.path("link"), Some(4711), None).unwrap();
    let error = served.open(".", &dir.path("link")).unwrap_err().to_string();
    assert!(error.ends_with("a symbolic link of another user leads to it"), "{error}");
    chown(dir.path("ours"), Some(4711), None).unwrap();
    served.fetch(".", &dir.path("link"));
}
