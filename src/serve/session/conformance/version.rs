//! version(5): the dialect and the size of messages are settled first, and again.

use super::*;

#[test]
fn a_version_is_recognized_by_its_prefix() {
    for (wanted, got) in [
        ("9P2000", "9P2000"),
        ("9P2000.u", "9P2000.u"),
        ("9P2000.L", "9P2000.L"),
        ("9P2000.L.Google.12", "9P2000.L"),
        ("9P2000.e", "9P2000"),
    ] {
        assert_eq!(Peer::silent().negotiate(MSIZE, wanted), (MSIZE, got.to_owned()));
    }
}

#[test]
fn another_version_is_answered_with_unknown() {
    for wanted in ["9P1999", "", "HTTP/1.1", "9p2000"] {
        assert_eq!(Peer::silent().negotiate(MSIZE, wanted).1, "unknown");
    }
}

#[test]
fn nothing_is_done_before_a_version_is_settled() {
    let mut peer = Peer::silent();
    assert_eq!(peer.refused(&attach(0)), Errno::EPROTO);
    peer.negotiate(MSIZE, "HTTP/1.1");
    assert_eq!(peer.refused(&attach(0)), Errno::EPROTO);
}

#[test]
fn the_message_size_is_the_smaller_of_both() {
    assert_eq!(Peer::silent().negotiate(u32::MAX, "9P2000.L").0, MAX_MSIZE);
    assert_eq!(Peer::silent().negotiate(32792, "9P2000.u").0, 32792);
}

#[test]
fn a_message_size_in_which_nothing_fits_is_answered_with_unknown() {
    assert_eq!(Peer::silent().negotiate(MIN_MSIZE - 1, "9P2000.L").1, "unknown");
    assert_eq!(Peer::silent().negotiate(MIN_MSIZE, "9P2000.L").1, "9P2000.L");
}

#[test]
fn a_new_version_clunks_every_fid() {
    let mut peer = with_control("have");
    peer.negotiate(MSIZE, "9P2000.L");
    assert!(!peer.host.is_open(Control::Have));
    assert_eq!(peer.refused(&clunk(ROOT_FID)), Errno::EBADF);
}

#[test]
fn a_new_version_drops_waiting_requests() {
    let mut peer = with_waiting_read();
    peer.negotiate(MSIZE, "9P2000.L");
    peer.host.have.extend(b"3\n");
    peer.resume();
    assert!(peer.hear().is_empty());
    peer.host.assert_balanced();
}

#[test]
fn two_versions_in_a_row_are_both_answered() {
    let mut peer = Peer::silent();
    peer.say(NOTAG, &version(MSIZE, "9P2000.L"));
    peer.say(NOTAG, &version(MSIZE, "9P2000.L"));
    assert_eq!(peer.hear().len(), 2);
}

#[test]
fn a_client_may_go_over_to_another_dialect() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.negotiate(MSIZE, "9P2000");
    peer.ask(&attach(ROOT_FID));
    assert_eq!(stat_of(&mut peer, ROOT_FID).qid.kind, Qid::DIR);
}

#[test]
fn replies_keep_to_the_message_size_that_was_settled_last() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.negotiate(MIN_MSIZE, "9P2000.L");
    peer.ask(&attach(ROOT_FID));
    peer.open(1, "boot/vmlinuz");
    assert_eq!(peer.read(1, 0, MSIZE).len(), (MIN_MSIZE - IO_HEADER_BYTES) as usize);
}
