//! Any bytes whatever: no stream of requests makes a session panic, swell or keep what is the host's.

use crate::limits::MAX_OUTPUTS;
use crate::p9::message::{Message, NOTAG};
use crate::p9::wire::{Blob, Dialect};
use crate::serve::session::testing::*;
use crate::testing::for_seeds;

fn random_request(random: &mut Random) -> Message<'static> {
    const PATHS: [&[&str]; 8] = [
        &[],
        &["boot", "vmlinuz"],
        &["boot", "link"],
        &["many"],
        &[".xget", "have"],
        &[".xget", "image"],
        &[".xget", "next"],
        &["..", "nothing"],
    ];
    let fid = random.below(6) as u32;
    let newfid = random.below(6) as u32;
    let offset = [0, 6, 100, KERNEL_BYTES, u64::MAX][random.below(5) as usize];
    let count = [0, 1, 100, 9000, 0xffff_fff5][random.below(5) as usize];
    match random.below(16) {
        0 => attach(fid),
        1..=3 => Message::Twalk { fid, newfid, wname: names(PATHS[random.below(8) as usize]) },
        4 => Message::Tlopen { fid, flags: random.below(3) as u32 },
        5 => Message::Topen { fid, mode: random.below(3) as u8 },
        6..=8 => read(fid, offset, count),
        9 => Message::Treaddir { fid, offset, count },
        10 => Message::Tstat { fid },
        11 => Message::Tgetattr { fid, request_mask: 0x7ff },
        12 => Message::Tclunk { fid },
        13 => Message::Tflush { oldtag: random.below(8) as u16 },
        14 => Message::Twrite { fid, offset, data: Blob(b"some data") },
        _ => Message::Tremove { fid },
    }
}

/// A stream of requests, most of them sound, some of them with bytes changed.
fn random_stream(random: &mut Random, dialect: Dialect) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.below(8) + 1 {
        let tag = random.below(8) as u16;
        let start = stream.len();
        if random.chance(40) {
            version(MSIZE, dialect.name()).encode(NOTAG, dialect, &mut stream);
            continue;
        }
        random_request(random).encode(tag, dialect, &mut stream);
        if random.chance(4) {
            let len = (stream.len() - start) as u64;
            // The size is left alone most of the time: only then is there a next message.
            let from = if random.chance(10) { 0 } else { 4 };
            let at = start + (from + random.below(len - from)) as usize;
            stream[at] = random.below(256) as u8;
        }
    }
    stream
}

/// One connection of random requests, in random pieces, with a host that changes its mind.
fn one_connection_of_anything(seed: u64) {
    let random = &mut Random::new(seed);
    let mut peer = Peer::new(DIALECTS[random.below(3) as usize]);
    for _ in 0..random.below(60) {
        let stream = random_stream(random, peer.dialect);
        if random.chance(8) {
            peer.host.image_waits = !peer.host.image_waits;
        }
        if random.chance(30) {
            peer.host.tree = if random.chance(2) { changed_tree() } else { tree() };
        }
        if random.chance(8) {
            peer.host.have.extend(b"3\n");
        }
        let (head, rest) = stream.split_at(random.below(stream.len() as u64) as usize);
        if peer.feed(head).is_err() || peer.feed(rest).is_err() {
            break;
        }
        if random.chance(4) {
            peer.resume();
        }
        if random.chance(3) {
            let stream = peer.drain();
            let mut rest = &stream[..];
            while let Some(size) = rest.first_chunk().map(|size| u32::from_le_bytes(*size)) {
                assert!(size <= MSIZE, "a reply of {size} bytes");
                rest = &rest[size as usize..];
            }
        }
        assert!(peer.session.replies.len() <= MAX_OUTPUTS + peer.session.parked.len() + 8);
    }
    peer.close();
}

#[test]
fn no_stream_of_requests_does_harm() {
    for_seeds(350, one_connection_of_anything);
}

#[test]
fn random_bytes_do_no_harm() {
    for_seeds(1000, |seed| {
        let random = &mut Random::new(seed);
        let mut peer = Peer::silent();
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
        let _ = peer.feed(&bytes);
        peer.drain();
        peer.close();
    });
}
