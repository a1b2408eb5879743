//! What stands in the way: links, directories, other fetches.

use super::*;

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
