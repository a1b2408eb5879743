//! flush(5): requests that wait, and that are given up; tags.

use super::*;

#[test]
fn a_read_that_waits_is_answered_when_there_is_something() {
    let mut peer = with_waiting_read();
    peer.resume();
    assert!(peer.hear().is_empty(), "there is still nothing");
    peer.host.have.extend(b"3\n");
    peer.resume();
    assert_eq!(peer.hear(), [(7, Message::Rread { data: Blob(b"3\n") })]);
}

#[test]
fn a_read_that_waits_holds_up_nobody() {
    let mut peer = with_waiting_read();
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 9, &["boot"]))), 1);
}

#[test]
fn a_read_of_a_file_that_is_not_there_yet_waits() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, "boot/vmlinuz");
    peer.host.image_waits = true;
    peer.say(7, &read(1, 0, 10));
    assert!(peer.hear().is_empty());
    peer.host.image_waits = false;
    peer.resume();
    assert_eq!(tags(&peer.hear()), [7]);
}

#[test]
fn a_flushed_read_gets_no_reply() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    assert_eq!(peer.hear(), [(8, Message::Rflush {})]);
    assert!(!peer.host.is_waiting(Control::Have));
    peer.host.have.extend(b"3\n");
    peer.resume();
    assert!(peer.hear().is_empty());
}

#[test]
fn a_flushed_read_frees_its_tag() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    peer.say(7, &read(DATA, 0, 100));
    assert_eq!(tags(&peer.hear()), [8, 7]);
}

#[test]
fn a_flush_of_one_read_leaves_the_place_of_another_in_line() {
    for (file, control) in [("have", Control::Have), ("image", Control::Image)] {
        let mut peer = with_control(file);
        peer.host.image_waits = true;
        peer.say(7, &read(DATA, 6, 100));
        peer.say(8, &read(DATA, 6, 100));
        peer.ask(&flush(7));
        assert!(peer.host.is_waiting(control), "{file}: nobody would wake the other read");
        peer.ask(&flush(8));
        peer.host.is_waiting(control).then(|| panic!("{file}: nobody waits any more"));
    }
}

#[test]
fn a_flush_of_a_reply_that_has_not_left_takes_it_back() {
    let mut peer = with_control("image");
    peer.say(7, &read(DATA, 0, 100));
    peer.say(8, &flush(7));
    assert_eq!(peer.host.turns(), 0, "its turn has ended");
    assert_eq!(tags(&peer.hear()), [8]);
}

#[test]
fn a_flush_comes_after_the_reply_that_it_was_too_late_for() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.say(7, &walk(ROOT_FID, 1, &["boot"]));
    peer.say(8, &flush(7));
    assert_eq!(tags(&peer.hear()), [7, 8]);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {}, "it was carried out");
}

#[test]
fn a_flush_of_an_unknown_tag_is_answered() {
    assert_eq!(Peer::new(Dialect::Linux).ask(&flush(4242)), Message::Rflush {});
}

#[test]
fn a_flush_of_its_own_tag_is_answered() {
    assert_eq!(Peer::new(Dialect::Linux).ask(&flush(TAG)), Message::Rflush {});
}

#[test]
fn two_flushes_of_one_request_are_both_answered() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    peer.say(9, &flush(7));
    assert_eq!(tags(&peer.hear()), [8, 9]);
}

#[test]
fn a_flush_of_a_flush_is_answered() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    peer.say(9, &flush(8));
    assert_eq!(tags(&peer.hear()), [8, 9]);
}

#[test]
fn a_second_request_under_a_tag_in_use_is_refused() {
    let mut peer = with_waiting_read();
    peer.say(7, &clunk(DATA));
    let replies = peer.hear();
    assert_eq!(tags(&replies), [7]);
    assert_eq!(error_of(&replies[0].1), Some(Errno::EPROTO));
    assert!(peer.host.is_open(Control::Have));
}
