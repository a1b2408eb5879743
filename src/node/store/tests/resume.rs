//! What an earlier fetch left is used again.

use super::*;

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

    let mut store = served.reopen(".", &dest.0, KEEP);
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
    let options = StoreOptions { keep_modes: true, keep_owners: false };
    let mut store = served.open_with(".", &dest.0, options).unwrap();
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
    let mut store = served.reopen(".", &dest.0, KEEP);
    assert_eq!(verify(&mut store), [0, 2]);
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(dest.path("a")).unwrap(), a);
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
fn a_temporary_file_that_its_owner_cannot_write_to_is_no_obstacle() {
    let dest = TempDir::new();
    let place = TreePath::from_user(b"a").unwrap();
    let part = dest.path(std::str::from_utf8(&temporary_name(&place)).unwrap());
    fs::write(&part, b"new file").unwrap();
    fs::set_permissions(&part, Permissions::from_mode(0o444)).unwrap();
    let served = serve(&[(b"a", 0o444, Plain(b"new file"))]);
    served.fetch(".", &dest.0);
    assert_eq!(fs::read(dest.path("a")).unwrap(), b"new file");
    assert_eq!(dest.names(), ["a"]);
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
