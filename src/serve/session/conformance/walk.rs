//! walk(5): from fid to fid by names.

use super::*;

#[test]
fn a_walk_of_no_element_clones_a_fid() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &[]))), 0);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
}

#[test]
fn a_walk_may_have_sixteen_elements() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["d"; 16]))), 16);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
}

#[test]
fn a_walk_that_ends_early_makes_no_fid() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["boot", "nothing", "more"]))), 1);
    assert_eq!(peer.refused(&clunk(1)), Errno::EBADF);
}

#[test]
fn a_walk_whose_first_element_is_missing_is_an_error() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(peer.refused(&walk(ROOT_FID, 1, &["nothing"])), Errno::ENOENT);
}

#[test]
fn names_that_no_file_can_have_are_not_found() {
    let mut peer = Peer::new(Dialect::Linux);
    let long = "x".repeat(5000);
    for name in ["", "/", "../boot", "boot/vmlinuz", "boot\0", long.as_str()] {
        assert_eq!(peer.refused(&walk(ROOT_FID, 1, &[name])), Errno::ENOENT, "{name:?}");
    }
}

#[test]
fn a_walk_to_a_fid_in_use_is_refused() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot");
    assert_eq!(peer.refused(&walk(ROOT_FID, 1, &["boot"])), Errno::EBADF);
    assert_eq!(peer.refused(&walk(ROOT_FID, NOFID, &["boot"])), Errno::EBADF);
}

#[test]
fn a_walk_may_move_its_own_fid() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 1, &["vmlinuz"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"vmlinuz");
}

#[test]
fn a_walk_that_ends_early_leaves_its_own_fid_where_it_was() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 1, &["..", "nothing"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot");
}

#[test]
fn dot_stays_and_dot_dot_goes_up_but_not_out() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.ask(&walk(ROOT_FID, 1, &["boot", ".", "..", "..", "..", "boot.cfg"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot.cfg");
}

#[test]
fn no_walk_leads_through_a_file_or_a_link() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["boot", "vmlinuz", ".."]))), 2);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["boot", "link", "x"]))), 2);
    peer.walk(2, "boot.cfg");
    assert_eq!(peer.refused(&walk(2, 3, &["x"])), Errno::ENOTDIR);
}

#[test]
fn a_walk_may_start_from_an_open_fid_but_not_move_it() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot");
    assert_eq!(steps(&peer.ask(&walk(1, 2, &["vmlinuz"]))), 1);
    assert_eq!(peer.refused(&walk(1, 1, &["vmlinuz"])), Errno::EBUSY);
}

#[test]
fn names_are_bytes_not_text() {
    let mut peer = Peer::new(Dialect::Unix);
    let wname = List::from_slice(&[Text(NOT_UTF8)]).unwrap();
    peer.ask(&Message::Twalk { fid: ROOT_FID, newfid: 1, wname });
    assert_eq!(stat_of(&mut peer, 1).name.0, NOT_UTF8);
}

#[test]
fn a_walk_gives_the_qid_of_each_element() {
    let mut peer = Peer::new(Dialect::Unix);
    let Message::Rwalk { wqid } = peer.ask(&walk(ROOT_FID, 1, &["boot", "vmlinuz"])) else {
        panic!("not walked")
    };
    peer.walk(2, "boot");
    assert_eq!(wqid[..], [stat_of(&mut peer, 2).qid, stat_of(&mut peer, 1).qid]);
}

#[test]
fn a_walk_of_no_element_to_its_own_fid_changes_nothing() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    assert_eq!(steps(&peer.ask(&walk(1, 1, &[]))), 0);
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot");
}

#[test]
fn a_walk_of_no_element_works_on_a_file() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot.cfg");
    assert_eq!(steps(&peer.ask(&walk(1, 2, &[]))), 0);
    assert_eq!(stat_of(&mut peer, 2).name.0, b"boot.cfg");
}

#[test]
fn a_clone_of_an_open_fid_is_not_open() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot.cfg");
    peer.ask(&walk(1, 2, &[]));
    assert_eq!(peer.refused(&read(2, 0, 10)), Errno::EBADF);
    assert!(matches!(peer.ask(&open(Dialect::Linux, 2, 0)), Message::Rlopen { .. }));
}

#[test]
fn a_walk_leaves_its_old_fid_where_it_was() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 2, &["vmlinuz"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot");
}
