//! What is xget's own in a session: control files, limits, and a tree that changes.

use super::conformance::*;
use super::*;
use crate::limits::{
    FID_BYTES, MAX_FIDS, MAX_MSIZE, MAX_OUTPUT_BYTES, MAX_OUTPUTS, MAX_PARKED, MIN_MSIZE,
};
use crate::p9::message::NOTAG;
use crate::serve::session::testing::*;

// Control files

#[test]
fn a_new_version_ends_the_turns_of_replies_that_have_not_left() {
    let mut peer = with_control("image");
    peer.say(2, &read(DATA, 0, 100));
    peer.say(NOTAG, &version(MSIZE, "9P2000.L"));
    assert_eq!(tags(&peer.hear()), [NOTAG]);
    peer.host.assert_balanced();
}

#[test]
fn a_control_file_that_the_host_does_not_have_is_not_found() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget");
    assert_eq!(peer.refused(&walk(1, 2, &["manifest.minisig"])), Errno::ENOENT);
    assert_eq!(steps(&peer.ask(&walk(1, 2, &["manifest"]))), 1);
}

#[test]
fn fids_are_limited() {
    let mut peer = Peer::new(Dialect::Linux);
    for fid in 1..MAX_FIDS as u32 {
        peer.say(TAG, &walk(ROOT_FID, fid, &[]));
        peer.drain();
    }
    assert_eq!(peer.refused(&walk(ROOT_FID, 1 << 20, &[])), Errno::EMFILE);
    peer.ask(&clunk(1));
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1 << 20, &[]))), 0);
}

#[test]
fn a_client_keeps_the_server_waiting_until_it_greets_and_while_a_message_is_not_whole() {
    let mut peer = Peer::silent();
    assert_eq!(peer.session.waits(), Some(Wait::Greeting));
    peer.negotiate(MSIZE, "9P2000.L");
    assert_eq!(peer.session.waits(), None);
    let request = encode(TAG, &attach(ROOT_FID), Dialect::Linux);
    let (first, rest) = request.split_at(5);
    peer.feed(first).unwrap();
    assert_eq!(peer.session.waits(), Some(Wait::Message));
    peer.feed(rest).unwrap();
    assert_eq!(peer.session.waits(), None);
}

/// Walks to the root under ever new fids until that is refused; how many there are by then.
fn take_fids(peer: &mut Peer) -> u32 {
    let mut answer = |fid| error_of(&peer.ask(&walk(ROOT_FID, fid, &[])));
    (1..).find(|fid| answer(*fid) == Some(Errno::EMFILE)).unwrap()
}

#[test]
fn fids_are_limited_over_all_connections() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.host.budget = Budget::new(1000 * FID_BYTES);
    let all = take_fids(&mut peer);
    assert!((400..=600).contains(&all), "{all} of 1000 for one connection");
    peer.ask(&clunk(1));
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &[]))), 0);
    // A fid that goes on costs nothing.
    assert_eq!(steps(&peer.ask(&walk(1, 1, &["boot"]))), 1);
    peer.close();
}

#[test]
fn what_an_open_fid_holds_is_counted_with_it() {
    let mut peer = Peer::new(Dialect::Linux);
    let text = peer.host.tree.manifest().text().len();
    peer.host.budget = Budget::new(5 * text);
    for fid in 1..=2 {
        peer.walk(fid, ".xget/manifest");
        peer.ask(&open(Dialect::Linux, fid, 0));
    }
    peer.walk(3, ".xget/manifest");
    assert_eq!(peer.refused(&open(Dialect::Linux, 3, 0)), Errno::EMFILE);
    peer.ask(&clunk(1));
    peer.ask(&open(Dialect::Linux, 3, 0));
    peer.close();
}

#[test]
fn control_files_open_only_as_their_permissions_say() {
    let mut peer = Peer::new(Dialect::Linux);
    let avail = ".xget/avail";
    for (path, mode) in [(".xget/have", 1), (".xget/have", 2), (avail, 0), (avail, 2)] {
        peer.walk(1, path);
        assert_eq!(peer.refused(&open(Dialect::Linux, 1, mode)), Errno::EPERM, "{path} {mode}");
        peer.ask(&clunk(1));
    }
    peer.close();
}

#[test]
fn truncation_is_allowed_where_writing_is() {
    const O_TRUNC: u32 = 0o1000;
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget/log");
    peer.walk(2, ".xget/have");
    assert!(matches!(
        peer.ask(&Message::Tlopen { fid: 1, flags: 1 | O_TRUNC }),
        Message::Rlopen { .. }
    ));
    assert_eq!(peer.refused(&Message::Tlopen { fid: 2, flags: O_TRUNC }), Errno::EROFS);
}

#[test]
fn the_hosts_refusal_to_open_is_passed_on() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget/redir");
    assert_eq!(peer.refused(&open(Dialect::Linux, 1, 0)), Errno::EIO);
    peer.close();
}

#[test]
fn the_image_is_read_in_turns() {
    let mut peer = with_control("image");
    peer.say(2, &read(DATA, 0, 100));
    assert_eq!(peer.host.turns(), 1);
    let replies = peer.hear();
    assert_eq!(replies, [(2, Message::Rread { data: Blob(&image_bytes(0..100)) })]);
    assert_eq!(peer.host.turns(), 0);
}

#[test]
fn the_image_ends_without_a_turn() {
    let mut peer = with_control("image");
    peer.host.image_waits = true;
    assert_eq!(peer.read(DATA, 1 << 40, 100), b"");
}

#[test]
fn the_manifest_is_read_as_it_was_when_it_was_opened() {
    let mut peer = with_control("manifest");
    let text = peer.host.tree.manifest().text().clone();
    peer.host.tree = changed_tree();
    let mut read = Vec::new();
    while let Some(piece) = Some(peer.read(DATA, read.len() as u64, 3000)).filter(|p| !p.is_empty())
    {
        read.extend(piece);
    }
    assert_eq!(read, &text[..]);
}

#[test]
fn a_write_only_file_is_not_read() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open_for(1, ".xget/log", 1);
    assert_eq!(peer.refused(&read(1, 0, 10)), Errno::EBADF);
}

#[test]
fn the_control_directory_is_walked_to_but_not_listed() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, ".");
    let names = stat_names(&peer.read(1, 0, MSIZE), Dialect::Unix);
    assert!(names.contains(&b"boot".to_vec()) && !names.contains(&b".xget".to_vec()));
    peer.open(2, ".xget");
    assert_eq!(peer.read(2, 0, MSIZE), b"");
}

#[test]
fn what_is_written_to_a_control_file_reaches_the_host() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.open_for(1, ".xget/log", 1);
        let write = Message::Twrite { fid: 1, offset: 99, data: Blob(b"hello") };
        assert_eq!(peer.ask(&write), Message::Rwrite { count: 5 });
        assert_eq!(peer.host.written, b"hello");
    }
}

#[test]
fn a_control_file_lets_itself_be_truncated() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget/log");
    assert_eq!(peer.ask(&set_attributes(1)), Message::Rsetattr {});
}

#[test]
fn the_host_is_told_when_an_open_control_file_is_clunked() {
    let mut peer = with_control("have");
    assert!(peer.host.is_open(Control::Have));
    peer.ask(&clunk(DATA));
    assert!(!peer.host.is_open(Control::Have));
}

// Limits

#[test]
fn thousands_of_reads_at_once_are_answered_a_few_at_a_time() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    let requests: Vec<u8> =
        (0..2800).flat_map(|tag| encode(tag, &read(1, 0, 100), Dialect::Linux)).collect();
    peer.feed(&requests).unwrap();
    assert!(!peer.session.wants_input());
    let mut waiting = 0;
    while peer.session.next_output().is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, MAX_OUTPUTS);
    peer.session.process(&mut peer.host, peer.now).unwrap();
    let answered = tags(&peer.hear());
    assert_eq!(answered, (MAX_OUTPUTS as u16..2800).collect::<Vec<_>>());
    assert!(peer.session.wants_input());
}

#[test]
fn a_client_that_asks_and_never_reads_costs_little_memory() {
    let mut peer = Peer::silent();
    peer.negotiate(1 << 20, "9P2000.L");
    peer.ask(&attach(ROOT_FID));
    peer.open(DATA, ".xget/manifest");
    let mut tag = 0;
    while peer.session.wants_input() {
        peer.say(tag, &read(DATA, 0, 1 << 20));
        tag += 1;
    }
    let bytes: usize = peer.drain().len();
    assert!(bytes <= MAX_OUTPUT_BYTES + (1 << 20), "{bytes} bytes");
}

#[test]
fn an_image_read_may_be_as_large_as_the_largest_chunk() {
    let mut peer = Peer::silent();
    peer.negotiate(MAX_MSIZE, "9P2000.L");
    peer.ask(&attach(ROOT_FID));
    peer.open(DATA, ".xget/image");
    let image_bytes = peer.host.tree.manifest().layout().image_bytes();
    assert_eq!(peer.read(DATA, 0, u32::MAX).len() as u64, image_bytes);
}

#[test]
fn while_many_requests_wait_others_are_answered() {
    let mut peer = with_control("have");
    for tag in 10..10 + MAX_PARKED as u16 {
        peer.say(tag, &read(DATA, 6, 100));
    }
    assert!(peer.hear().is_empty());
    assert!(peer.session.wants_input());
    assert_eq!(peer.refused(&read(DATA, 6, 100)), Errno::EBUSY);
    assert_eq!(peer.ask(&flush(10)), Message::Rflush {});
    peer.close();
}

#[test]
fn no_reply_is_longer_than_agreed() {
    for dialect in DIALECTS {
        let mut peer = Peer::silent();
        let long = Content::Symlink { target: vec![b'x'; 4000].into() };
        peer.host.tree = tree_with([crate::image::manifest::tests::entry("long", long)]);
        peer.negotiate(MIN_MSIZE, dialect.name());
        peer.ask(&attach(ROOT_FID));
        peer.walk(1, "long");
        peer.open(2, "many");
        for request in [
            Message::Tstat { fid: 1 },
            Message::Treadlink { fid: 1 },
            Message::Tgetattr { fid: 1, request_mask: 0 },
            Message::Tstatfs { fid: 1 },
            read(2, 0, u32::MAX),
            readdir(2, 0, u32::MAX),
        ] {
            peer.say(TAG, &request);
            let bytes = peer.drain().len();
            assert!((1..=MIN_MSIZE as usize).contains(&bytes), "{request}: {bytes} bytes");
        }
    }
}

// The end, and a tree that changes

#[test]
fn the_end_of_a_connection_gives_everything_back() {
    let mut peer = with_waiting_read();
    peer.open(1, ".xget/image");
    peer.open_for(2, ".xget/avail", 1);
    peer.open_for(3, ".xget/next", 2);
    peer.say(20, &read(1, 0, 100));
    peer.host.image_waits = true;
    peer.say(21, &read(1, 100, 100));
    peer.close();
    assert!(!peer.session.has_output());
}

#[test]
fn control_files_of_an_older_tree_are_stale() {
    for file in ["have", "image"] {
        let mut peer = with_control(file);
        peer.host.tree = changed_tree();
        assert_eq!(peer.refused(&read(DATA, 0, 100)), Errno::ESTALE);
        peer.close();
    }
}

#[test]
fn a_read_that_waited_for_an_older_tree_is_stale() {
    for (file, control) in [("have", Control::Have), ("image", Control::Image)] {
        let mut peer = with_control(file);
        peer.host.image_waits = true;
        peer.say(7, &read(DATA, 6, 100));
        peer.host.tree = changed_tree();
        peer.resume();
        let replies = peer.hear();
        assert_eq!(error_of(&replies[0].1), Some(Errno::ESTALE));
        assert!(!peer.host.is_waiting(control), "{file}");
    }
}

#[test]
fn walks_see_the_new_tree_from_old_fids() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(peer.refused(&walk(ROOT_FID, 1, &["a-new-file"])), Errno::ENOENT);
    peer.host.tree = changed_tree();
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["a-new-file"]))), 1);
}

#[test]
fn a_fid_that_is_not_open_follows_its_path_into_the_new_tree() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.walk(1, "boot/vmlinuz");
    peer.host.tree = changed_tree();
    assert_eq!(stat_of(&mut peer, 1).length, KERNEL_BYTES);
}

#[test]
fn a_fid_whose_file_is_gone_is_stale() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.host.tree = changed_tree();
    peer.walk(1, "a-new-file");
    peer.host.tree = tree();
    assert_eq!(peer.refused(&Message::Tstat { fid: 1 }), Errno::ESTALE);
    assert_eq!(peer.refused(&Message::Topen { fid: 1, mode: 0 }), Errno::ESTALE);
    assert_eq!(peer.refused(&walk(1, 2, &[])), Errno::ESTALE);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
}

#[test]
fn an_open_file_is_read_on_from_the_tree_in_which_it_was_opened() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    let before = peer.read(1, 0, 100);
    peer.host.tree = changed_tree();
    assert_eq!(peer.read(1, 0, 100), before);
}

#[test]
fn the_trace_has_a_line_for_each_message() {
    let mut peer = Peer::silent();
    peer.session = Session::new(Conn(1), CLIENT, true);
    peer.negotiate(MSIZE, "9P2000.L");
    assert_eq!(
        peer.session.take_trace(),
        [
            r#"-> tag 65535 Tversion msize 8192 version "9P2000.L""#,
            r#"<- tag 65535 Rversion msize 8192 version "9P2000.L""#,
        ]
    );
    assert!(peer.session.take_trace().is_empty());
}
