//! clunk(5): the end of a fid.

use super::*;

#[test]
fn a_clunked_fid_is_free_again() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot.cfg");
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
    assert!(matches!(peer.open(1, "boot"), Message::Rlopen { .. }));
}

#[test]
fn a_clunk_ends_the_reads_that_wait_on_its_fid() {
    let mut peer = with_waiting_read();
    peer.say(8, &clunk(DATA));
    let replies = peer.hear();
    assert_eq!(tags(&replies), [7, 8]);
    assert_eq!(error_of(&replies[0].1), Some(Errno::EBADF));
    peer.host.assert_balanced();
}

#[test]
fn a_fid_is_clunked_once() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot");
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
    assert_eq!(peer.refused(&clunk(1)), Errno::EBADF);
}

#[test]
fn a_clunk_of_a_fid_leaves_those_that_were_walked_from_it() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 2, &["vmlinuz"]));
    peer.ask(&clunk(1));
    assert!(matches!(peer.ask(&open(Dialect::Linux, 2, 0)), Message::Rlopen { .. }));
}
