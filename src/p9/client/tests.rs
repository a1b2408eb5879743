//! The client against servers that say what a script tells them to.

use super::*;
use crate::p9::wire::{Blob, Qid};
use crate::serve::session::testing::{Random, decode, encode, names, read};
use crate::testing::for_seeds;

const MSIZE: u32 = 8192;
const QID: Qid = Qid { kind: Qid::FILE, version: 1, path: 2 };

/// What an event says, without borrowing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Ok(u32, String),
    Err(u32, Errno),
    Data(u32, u32, Vec<u8>),
    End(u32, u32),
}

fn hear(client: &mut Client<u32>, mut bytes: &[u8]) -> Result<Vec<Heard>, Broken> {
    let mut heard = Vec::new();
    while let Some(event) = client.receive(&mut bytes)? {
        heard.push(match event {
            Event::Reply(token, Ok(message)) => Heard::Ok(token, message.to_string()),
            Event::Reply(token, Err(errno)) => Heard::Err(token, errno),
            Event::Data { token, at, bytes } => Heard::Data(token, at, bytes.to_vec()),
            Event::End(token, count) => Heard::End(token, count),
        });
    }
    assert!(bytes.is_empty());
    Ok(heard)
}

fn frame(tag: u16, message: &Message<'_>) -> Vec<u8> {
    encode(tag, message, Dialect::Linux)
}

fn rversion(msize: u32, version: &str) -> Vec<u8> {
    let version = Text(version.as_bytes());
    frame(NOTAG, &Message::Rversion { msize, version })
}

fn rread(tag: u16, data: &[u8]) -> Vec<u8> {
    frame(tag, &Message::Rread { data: Blob(data) })
}

fn rlerror(tag: u16, errno: Errno) -> Vec<u8> {
    frame(tag, &Message::Rlerror { ecode: errno.0 })
}

fn rwalk(tag: u16, steps: usize) -> Vec<u8> {
    frame(tag, &Message::Rwalk { wqid: (0..steps).map(|_| QID).collect() })
}

/// A client that has agreed on [`MSIZE`] and has nothing in flight.
fn agreed() -> Client<u32> {
    let mut client = Client::new(false);
    client.version(0);
    hear(&mut client, &rversion(MSIZE, "9P2000.L")).unwrap();
    client.output().clear();
    client
}

/// A client that waits for 100 bytes under token 5; the tag.
fn reading() -> (Client<u32>, u16) {
    let mut client = agreed();
    let tag = client.send(5, &read(1, 0, 100)).unwrap();
    client.output().clear();
    (client, tag)
}

fn said(client: &mut Client<u32>) -> Vec<(u16, Message<'static>)> {
    decode(std::mem::take(client.output()), Dialect::Linux)
}

// Versions

#[test]
fn the_first_message_asks_for_9p2000_l() {
    let mut client = Client::new(false);
    client.version(0);
    let version = Message::Tversion { msize: MAX_MSIZE, version: Text(b"9P2000.L") };
    assert_eq!(said(&mut client), [(NOTAG, version)]);
}

#[test]
fn reads_are_as_large_as_the_server_allows() {
    assert_eq!(agreed().max_read_bytes(), MSIZE - IO_HEADER_BYTES);
}

#[test]
fn a_server_of_another_version_cannot_be_talked_to() {
    for (msize, version) in [
        (MSIZE, "unknown"),
        (0, "9P2000.L"),
        (255, "9P2000.L"),
        (MAX_MSIZE + 1, "9P2000.L"),
        (u32::MAX, "9P2000.L"),
    ] {
        let mut client = Client::new(false);
        client.version(0);
        assert_eq!(hear(&mut client, &rversion(msize, version)), Err(Broken::Version));
    }
}

#[test]
fn a_server_that_speaks_what_masters_of_2009_do_is_told_from_others() {
    for version in ["9P2000.u", "9P2000"] {
        let mut client = Client::new(false);
        client.version(0);
        assert_eq!(hear(&mut client, &rversion(MSIZE, version)), Err(Broken::OldVersion));
    }
}

#[test]
fn a_server_that_answers_tversion_with_an_error_is_heard() {
    let mut client = Client::new(false);
    client.version(9);
    let ename = Text(b"what?");
    let error = Message::Rerror { ename, errno: crate::p9::wire::UnixOnly(0) };
    let heard = hear(&mut client, &encode(NOTAG, &error, Dialect::Plain));
    assert_eq!(heard, Ok(vec![Heard::Err(9, Errno::EOPNOTSUPP)]));
}

// Replies

#[test]
fn a_reply_comes_with_the_token_of_its_request() {
    let mut client = agreed();
    let first = client.send(11, &Message::Tclunk { fid: 1 }).unwrap();
    let second = client.send(22, &Message::Tclunk { fid: 2 }).unwrap();
    let replies = [frame(second, &Message::Rclunk {}), rlerror(first, Errno::EBADF)].concat();
    let heard = hear(&mut client, &replies).unwrap();
    assert_eq!(heard, [Heard::Ok(22, "Rclunk".into()), Heard::Err(11, Errno::EBADF)]);
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn data_is_handed_on_as_it_arrives_and_keeps_its_place() {
    let data: Vec<u8> = (0..100).collect();
    for split in 0..RREAD_HEADER_BYTES + data.len() {
        let (mut client, tag) = reading();
        let frame = rread(tag, &data);
        let (head, rest) = frame.split_at(split);
        let mut heard = hear(&mut client, head).unwrap();
        heard.extend(hear(&mut client, rest).unwrap());
        assert_eq!(heard.pop(), Some(Heard::End(5, 100)));
        let mut whole = Vec::new();
        for piece in heard {
            let Heard::Data(5, at, bytes) = piece else { panic!("{piece:?}") };
            assert_eq!(at as usize, whole.len());
            whole.extend(bytes);
        }
        assert_eq!(whole, data, "split at {split}");
    }
}

#[test]
fn every_reply_may_arrive_byte_by_byte() {
    let (mut client, tag) = reading();
    let clunk = client.send(6, &Message::Tclunk { fid: 1 }).unwrap();
    let stream = [rread(tag, b"ab"), frame(clunk, &Message::Rclunk {})].concat();
    let heard: Vec<Heard> =
        stream.chunks(1).flat_map(|byte| hear(&mut client, byte).unwrap()).collect();
    let data = |at, byte: &[u8]| Heard::Data(5, at, byte.to_vec());
    let expected = [data(0, b"a"), data(1, b"b"), Heard::End(5, 2), Heard::Ok(6, "Rclunk".into())];
    assert_eq!(heard, expected);
}

#[test]
fn the_end_of_a_file_is_an_end_after_nothing() {
    let (mut client, tag) = reading();
    assert_eq!(hear(&mut client, &rread(tag, b"")), Ok(vec![Heard::End(5, 0)]));
}

#[test]
fn a_refused_read_is_a_reply() {
    let (mut client, tag) = reading();
    let heard = hear(&mut client, &rlerror(tag, Errno::ESTALE));
    assert_eq!(heard, Ok(vec![Heard::Err(5, Errno::ESTALE)]));
}

// Servers that lie

#[test]
fn more_data_than_was_asked_for_ends_it() {
    let (mut client, tag) = reading();
    assert_eq!(hear(&mut client, &rread(tag, &[0; 101])), Err(Broken::Count(101)));
}

#[test]
fn a_count_that_contradicts_the_size_ends_it() {
    for count in [0, 9, 11, u32::MAX] {
        let (mut client, tag) = reading();
        let mut reply = rread(tag, &[0; 10]);
        reply[7..11].copy_from_slice(&u32::to_le_bytes(count));
        assert_eq!(hear(&mut client, &reply), Err(Broken::Count(count)));
    }
}

#[test]
fn a_reply_longer_than_any_ends_it() {
    let (mut client, tag) = reading();
    let size = MAX_REPLY_BYTES as u32 + 1;
    let mut reply = frame(tag, &Message::Rclunk {});
    reply[..4].copy_from_slice(&size.to_le_bytes());
    assert_eq!(hear(&mut client, &reply), Err(Broken::Size(size)));
}

#[test]
fn a_reply_to_nothing_ends_it() {
    for tag in [1, 40, 1000, NOTAG] {
        let (mut client, _) = reading();
        assert_eq!(hear(&mut client, &rread(tag, b"x")), Err(Broken::Unasked { kind: 117, tag }));
        let (mut client, _) = reading();
        let reply = frame(tag, &Message::Rclunk {});
        assert_eq!(hear(&mut client, &reply), Err(Broken::Unasked { kind: 121, tag }));
    }
}

#[test]
fn a_reply_that_comes_twice_ends_it() {
    let (mut client, tag) = reading();
    hear(&mut client, &rread(tag, b"x")).unwrap();
    assert_eq!(hear(&mut client, &rread(tag, b"x")), Err(Broken::Unasked { kind: 117, tag }));
}

#[test]
fn a_reply_of_another_type_ends_it() {
    let (mut client, tag) = reading();
    let reply = frame(tag, &Message::Rclunk {});
    assert_eq!(hear(&mut client, &reply), Err(Broken::Unasked { kind: 121, tag }));
}

#[test]
fn only_a_tversion_is_answered_without_a_tag() {
    let mut client = agreed();
    client.send(1, &Message::Tclunk { fid: 1 });
    let reply = frame(NOTAG, &Message::Rclunk {});
    assert_eq!(hear(&mut client, &reply), Err(Broken::Unasked { kind: 121, tag: NOTAG }));
}

#[test]
fn an_impossible_size_ends_it_before_anything_is_kept() {
    for (size, kind) in [(6, 121), (0, 121), (10, 117), (MSIZE + 1, 117), (u32::MAX, 121)] {
        let (mut client, _) = reading();
        let header = [&size.to_le_bytes()[..], &[kind, 0, 0]].concat();
        assert_eq!(hear(&mut client, &header), Err(Broken::Size(size)));
    }
}

// Walk and open

#[test]
fn an_open_is_a_walk_and_an_open_at_once() {
    let mut client = agreed();
    assert!(client.open(3, 0, 7, &[".xget", "have"], 0));
    let wname = names(&[".xget", "have"]);
    let walk = Message::Twalk { fid: 0, newfid: 7, wname };
    let sent = said(&mut client);
    let messages: Vec<&Message<'_>> = sent.iter().map(|(_, message)| message).collect();
    assert_eq!(messages, [&walk, &Message::Tlopen { fid: 7, flags: 0 }]);
}

#[test]
fn a_walk_that_ends_early_has_failed() {
    for steps in [0, 1] {
        let mut client = agreed();
        client.open(3, 0, 7, &[".xget", "have"], 0);
        let replies = [rwalk(0, steps), rlerror(1, Errno::EBADF)].concat();
        let heard = hear(&mut client, &replies).unwrap();
        assert_eq!(heard, [Heard::Err(3, Errno::ENOENT), Heard::Err(3, Errno::EBADF)]);
    }
}

#[test]
fn a_walk_that_fails_is_reported_with_its_reason() {
    let mut client = agreed();
    client.open(3, 0, 7, &["nothing"], 0);
    let heard = hear(&mut client, &rlerror(0, Errno::ENOENT)).unwrap();
    assert_eq!(heard, [Heard::Err(3, Errno::ENOENT)]);
}

#[test]
fn a_walk_of_more_steps_than_asked_for_ends_it() {
    let mut client = agreed();
    client.open(3, 0, 7, &["have"], 0);
    assert_eq!(hear(&mut client, &rwalk(0, 2)), Err(Broken::Count(2)));
}

#[test]
fn a_path_that_one_walk_cannot_go_is_not_opened() {
    let mut client = agreed();
    assert!(!client.open(3, 0, 7, &["d"; 17], 0));
    assert!(client.output().is_empty());
}

#[test]
fn an_open_for_which_there_is_no_room_is_not_half_queued() {
    let mut client = agreed();
    for _ in 0..MAX_IN_FLIGHT - 1 {
        client.send(1, &Message::Tclunk { fid: 1 }).unwrap();
    }
    client.output().clear();
    assert!(!client.open(3, 0, 7, &["have"], 0));
    assert!(client.output().is_empty());
}

// Tags and flushing

#[test]
fn requests_in_flight_are_limited() {
    let mut client = agreed();
    for _ in 0..MAX_IN_FLIGHT {
        assert!(client.send(1, &Message::Tclunk { fid: 1 }).is_some());
    }
    assert_eq!(client.send(1, &Message::Tclunk { fid: 1 }), None);
    assert_eq!(client.in_flight(), MAX_IN_FLIGHT);
    hear(&mut client, &frame(9, &Message::Rclunk {})).unwrap();
    assert_eq!(client.send(1, &Message::Tclunk { fid: 1 }), Some(9));
}

#[test]
fn all_requests_in_flight_can_be_flushed() {
    let mut client = agreed();
    let tags: Vec<u16> =
        (0..MAX_IN_FLIGHT).map(|_| client.send(1, &read(1, 0, 9)).unwrap()).collect();
    client.output().clear();
    tags.iter().for_each(|tag| client.flush(*tag));
    let flushes = said(&mut client);
    assert_eq!(flushes.len(), MAX_IN_FLIGHT);
    for (tag, _) in flushes {
        assert_eq!(hear(&mut client, &frame(tag, &Message::Rflush {})), Ok(Vec::new()));
    }
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn a_late_reply_to_a_flushed_request_is_not_reported() {
    let (mut client, tag) = reading();
    client.flush(tag);
    let late = [rread(tag, b"late"), frame(1, &Message::Rflush {})].concat();
    assert_eq!(hear(&mut client, &late), Ok(Vec::new()));
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn a_flush_in_the_middle_of_data_silences_the_rest() {
    let (mut client, tag) = reading();
    let reply = rread(tag, b"0123456789");
    let (head, rest) = reply.split_at(15);
    assert_eq!(hear(&mut client, head), Ok(vec![Heard::Data(5, 0, b"0123".to_vec())]));
    client.flush(tag);
    assert_eq!(hear(&mut client, rest), Ok(Vec::new()));
    assert_eq!(hear(&mut client, &frame(1, &Message::Rflush {})), Ok(Vec::new()));
}

#[test]
fn the_tag_of_a_flushed_request_is_used_again_only_after_the_rflush() {
    let (mut client, tag) = reading();
    client.flush(tag);
    hear(&mut client, &rread(tag, b"late")).unwrap();
    assert_ne!(client.send(6, &read(1, 0, 9)), Some(tag));
    hear(&mut client, &frame(1, &Message::Rflush {})).unwrap();
    assert_eq!(client.send(7, &read(1, 0, 9)), Some(tag));
}

#[test]
fn a_flush_of_a_tag_that_is_free_says_nothing() {
    let (mut client, tag) = reading();
    hear(&mut client, &rread(tag, b"x")).unwrap();
    client.flush(tag);
    client.flush(999);
    assert!(client.output().is_empty());
}

#[test]
fn a_second_flush_of_a_request_says_nothing() {
    let (mut client, tag) = reading();
    client.flush(tag);
    client.flush(tag);
    assert_eq!(said(&mut client).len(), 1);
}

#[test]
fn a_flushed_request_may_not_be_answered_with_something_else() {
    let (mut client, tag) = reading();
    client.flush(tag);
    let reply = frame(tag, &Message::Rclunk {});
    assert_eq!(hear(&mut client, &reply), Err(Broken::Unasked { kind: 121, tag }));
}

// Any bytes whatever

/// A client with one of everything in flight, and what a good server would reply.
fn busy() -> (Client<u32>, Vec<u8>) {
    let (mut client, tag) = reading();
    client.open(1, 0, 1, &["a", "b"], 0);
    let flushed = client.send(4, &read(1, 0, 9)).unwrap();
    client.flush(flushed);
    let replies = [
        rread(tag, &[7; 60]),
        rwalk(1, 2),
        frame(2, &Message::Rlopen { qid: QID, iounit: 0 }),
        rread(flushed, &[8; 9]),
        frame(4, &Message::Rflush {}),
    ];
    (client, replies.concat())
}

#[test]
fn one_of_everything_is_heard() {
    let (mut client, stream) = busy();
    assert_eq!(hear(&mut client, &stream).unwrap().len(), 4);
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn no_stream_of_replies_does_harm() {
    for_seeds(5000, |seed| {
        let random = &mut Random::new(seed);
        let (mut client, mut stream) = busy();
        for _ in 0..random.below(4) {
            let at = random.below(stream.len() as u64) as usize;
            stream[at] = random.below(256) as u8;
        }
        for piece in stream.chunks(random.below(40) as usize + 1) {
            if hear(&mut client, piece).is_err() {
                break;
            }
            assert!(client.partial.len() <= MAX_REPLY_BYTES && client.in_flight() <= 5);
        }
    });
}

#[test]
fn random_bytes_do_no_harm() {
    for_seeds(5000, |seed| {
        let random = &mut Random::new(seed);
        let (mut client, _) = busy();
        let bytes: Vec<u8> = (0..random.below(100))
            .map(|i| if i % 7 < 4 { random.below(12) as u8 } else { random.below(256) as u8 })
            .collect();
        let _ = hear(&mut client, &bytes);
    });
}
