//! Modes, owners and times.

use super::*;

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
