//! intro(5): messages as such, and errors.

use super::*;

#[test]
fn a_message_of_unknown_type_gets_an_error_under_its_tag() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        for kind in [0, 1, 6, 99, 106, 128, 255] {
            peer.feed(&[11, 0, 0, 0, kind, 0x34, 0x12, 1, 2, 3, 4]).unwrap();
            let replies = peer.hear();
            assert_eq!(tags(&replies), [0x1234]);
            assert!(error_of(&replies[0].1).is_some());
        }
    }
}

#[test]
fn a_reply_is_no_request() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        for reply in [Message::Rclunk {}, Message::Rread { data: Blob(b"x") }, Message::Rflush {}] {
            peer.refused(&reply);
        }
    }
}

#[test]
fn a_request_of_another_dialect_gets_one_reply() {
    let mut plain = Peer::new(Dialect::Plain);
    plain.walk(1, "boot");
    plain.ask(&Message::Tlopen { fid: 1, flags: 0 });
    plain.ask(&readdir(1, 0, 1000));
    let mut linux = Peer::new(Dialect::Linux);
    linux.walk(1, "boot.cfg");
    linux.ask(&Message::Topen { fid: 1, mode: 0 });
    linux.refused(&Message::Tstat { fid: 1 });
}

#[test]
fn a_request_with_a_bad_body_keeps_its_tag() {
    let mut peer = Peer::new(Dialect::Linux);
    let seventeen = [&[0; 8][..], &[17, 0], &[1, 0, b'a'].repeat(17)].concat();
    for (kind, body) in [
        (120, &[1, 2][..]),
        (120, &[1, 2, 3, 4, 5]),
        (100, &[1]),
        (110, &[0, 0, 0, 0, 1, 0, 0, 0, 255, 255]),
        (110, &seventeen),
        (118, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]),
        (104, &[]),
    ] {
        let size = (HEADER_BYTES + body.len()) as u32;
        peer.feed(&[&size.to_le_bytes()[..], &[kind, 9, 1], body].concat()).unwrap();
        let replies = peer.hear();
        assert_eq!(tags(&replies), [0x0109]);
        assert_eq!(error_of(&replies[0].1), Some(Errno::EPROTO));
    }
}

#[test]
fn a_message_larger_than_agreed_is_skipped_and_refused_under_its_tag() {
    let mut peer = Peer::new(Dialect::Linux);
    for size in [MSIZE + 1, MAX_REQUEST_BYTES as u32 + 1, 1 << 20] {
        let header = [&size.to_le_bytes()[..], &[118, 9, 1]].concat();
        peer.feed(&header).unwrap();
        let replies = peer.hear();
        assert_eq!(tags(&replies), [0x0109]);
        assert_eq!(error_of(&replies[0].1), Some(Errno::EMSGSIZE));
        peer.feed(&vec![0; size as usize - HEADER_BYTES]).unwrap();
        assert_eq!(steps(&peer.ask(&walk(ROOT_FID, ROOT_FID, &[]))), 0, "the next is understood");
    }
}

#[test]
fn a_message_smaller_than_its_header_ends_the_connection() {
    for size in 0..HEADER_BYTES as u8 {
        let mut peer = Peer::new(Dialect::Linux);
        assert_eq!(
            peer.feed(&[size, 0, 0, 0, 120, 1, 0]),
            Err(Hangup::BadFrameSize(u32::from(size)))
        );
    }
}

#[test]
fn a_peer_that_does_not_speak_9p_is_hung_up_on() {
    for greeting in ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\x16\x03\x01\x02\0\x01"]
    {
        assert!(Peer::silent().feed(greeting.as_bytes()).is_err(), "{greeting:?}");
    }
}

#[test]
fn requests_that_arrive_byte_by_byte_get_the_same_replies() {
    let script = [
        encode(NOTAG, &version(MSIZE, "9P2000.L"), Dialect::Linux),
        encode(1, &attach(0), Dialect::Linux),
        encode(2, &walk(0, 1, &["boot", "vmlinuz"]), Dialect::Linux),
        vec![9, 0, 0, 0, 120, 4, 0, 1, 1],
        encode(3, &open(Dialect::Linux, 1, 0), Dialect::Linux),
        [&[1, 0, 2, 0, 118, 5, 0][..], &vec![0; 0x20001 - 7]].concat(),
        encode(NOTAG, &version(MSIZE, "9P2000.L"), Dialect::Linux),
        encode(1, &attach(0), Dialect::Linux),
        encode(2, &walk(0, 1, &["boot", "vmlinuz"]), Dialect::Linux),
        encode(3, &open(Dialect::Linux, 1, 0), Dialect::Linux),
        encode(4, &read(1, 100, 50), Dialect::Linux),
    ]
    .concat();
    let replies = |split: usize, step: usize| {
        let mut peer = Peer::silent();
        let (head, rest) = script.split_at(split);
        let mut stream = Vec::new();
        for piece in std::iter::once(head).chain(rest.chunks(step)) {
            peer.feed(piece).unwrap();
            stream.extend(peer.drain());
        }
        stream
    };
    let whole = replies(script.len(), 1);
    assert_eq!(replies(0, 1), whole);
    let head = 200.min(script.len());
    for split in (1..head).chain(script.len() - head..script.len()) {
        assert_eq!(replies(split, script.len()), whole, "split at {split}");
    }
}

#[test]
fn an_error_speaks_the_dialect_of_its_connection() {
    for dialect in DIALECTS {
        let reply = Peer::new(dialect).ask(&clunk(99));
        match (dialect, reply) {
            (Dialect::Plain, Message::Rerror { ename, .. }) => {
                assert_eq!(ename.0, b"Bad file descriptor");
            }
            (Dialect::Unix, Message::Rerror { ename, errno }) => {
                assert_eq!((ename.0, errno.0), (&b"Bad file descriptor"[..], 9));
            }
            (Dialect::Linux, Message::Rlerror { ecode: 9 }) => {}
            (_, other) => panic!("{other}"),
        }
    }
}

#[test]
fn requests_in_one_segment_are_answered_each_under_its_tag() {
    let mut peer = Peer::new(Dialect::Linux);
    let requests: Vec<u8> = [3, 1, 2]
        .into_iter()
        .flat_map(|tag| encode(tag, &walk(ROOT_FID, u32::from(tag), &[]), Dialect::Linux))
        .collect();
    peer.feed(&requests).unwrap();
    let mut answered = tags(&peer.hear());
    answered.sort();
    assert_eq!(answered, [1, 2, 3]);
}
