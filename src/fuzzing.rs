//! What a fuzzer can throw bytes at: everything that reads what somebody else has written.
//!
//! Only in a build for that (`fuzz/`, `make fuzz`; docs/testing.md). Each function takes any bytes
//! whatever and must neither panic nor hold more than the limits allow.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::boot::cmdline::{Cmdline, next_cmdline};
use crate::conn::Conn;
use crate::control::status::{ServerLine, StatusLine};
use crate::control::{HaveHeader, Join, Report, SourceAddress, WrongChunk, parse_grant};
use crate::fetch::{Action, Fetch, Patience, Start};
use crate::image::chunks::{ChunkSet, parse_run};
use crate::image::manifest::Manifest;
use crate::image::trust::{Key, Trust};
use crate::limits::{MAX_OUTPUTS, MAX_PARKED, MAX_REPLY_BYTES};
use crate::p9::client::Client;
use crate::p9::message::{Frame, Message};
use crate::p9::wire::Dialect;
use crate::serve::admission::Allowed;
use crate::serve::hub::Hub;
use crate::serve::session::{At, Host, Output, Session};
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;

pub use crate::boot::address::fuzz_dhcp as dhcp;
pub use crate::boot::address::fuzz_dhcp6 as dhcp6;
pub use crate::net::resolve::fuzz_answer as dns;

/// A tree of a few files, whose chunks all hold zeroes.
fn manifest() -> Arc<Manifest> {
    static MANIFEST: OnceLock<Arc<Manifest>> = OnceLock::new();
    let parse =
        || Arc::new(Manifest::parse(&include_bytes!("../fuzz/manifest")[..]).expect("sound"));
    MANIFEST.get_or_init(parse).clone()
}

/// The bytes in pieces; the first byte says how long they are.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    rest.chunks(usize::from(*first).max(1) * 8)
}

/// One message in each dialect: what can be read can be written again and reads the same.
pub fn message(bytes: &[u8]) {
    let Ok(Frame { kind, tag, body }) = Frame::parse(bytes) else { return };
    for dialect in [Dialect::Plain, Dialect::Unix, Dialect::Linux] {
        let Ok(message) = Message::decode(kind, body, dialect) else { continue };
        let mut again = Vec::new();
        message.encode(tag, dialect, &mut again);
        let frame = Frame::parse(&again).expect("what was written can be read");
        assert_eq!(Message::decode(frame.kind, frame.body, dialect).as_ref(), Ok(&message));
    }
}

/// A client's bytes to a master's session, with another client beside it that only holds things up.
pub fn server(bytes: &[u8]) {
    let mut now = Instant::now();
    let tree = Arc::new(Tree::new(manifest()));
    let mut hub = Hub::master(tree.clone(), 1, Rules::default(), 7);
    let (conn, peer) = (Conn(1), SocketAddr::from(([10, 0, 0, 1], 999)));
    hub.connected(conn, peer, now);
    // To print every message takes longer than to answer it.
    let traces = bytes.first().is_some_and(|first| first % 8 == 0);
    let mut session = Session::new(conn, peer.ip(), traces);
    for piece in pieces(bytes) {
        now += Duration::from_millis(100);
        session.receive(piece);
        let hung_up = session.process(&mut hub, now).is_err();
        assert!(hub.take_log().len() <= 64);
        hub.tick(now);
        if hub.take_wakes().contains(&conn) {
            session.resume(&mut hub, now);
        }
        let mut outputs = 0;
        while let Some(output) = session.next_output() {
            outputs += 1;
            if let Output::Data(data) = output {
                assert!(data.range.start < data.range.end);
                hub.sent(At { conn, now }, &data);
            }
        }
        assert!(outputs <= MAX_OUTPUTS + MAX_PARKED + 8, "{outputs} replies wait");
        session.take_trace();
        if hung_up {
            break;
        }
    }
    session.close(&mut hub, now);
    hub.disconnected(conn, now);
    assert!(hub.members().iter().next().is_none(), "somebody who has left is still there");
}

/// A server's bytes to a client that has asked for all there is.
pub fn client(bytes: &[u8]) {
    let mut client: Client<u32> = Client::new(bytes.first().is_some_and(|first| first % 8 == 0));
    client.version(0);
    client.attach(1, 0, b"");
    client.open(2, 0, 1, &["boot", "kernel"], 0);
    for token in 3..9 {
        client.send(token, &Message::Tread { fid: 1, offset: 0, count: 1000 });
    }
    client.flush(3);
    for piece in pieces(bytes) {
        let mut rest = piece;
        loop {
            match client.receive(&mut rest) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        client.take_trace();
    }
}

/// What the server that was named sends to a node that fetches: replies, `have`, `redir`, `next`.
pub fn fetch(bytes: &[u8]) {
    let mut now = Instant::now();
    let manifest = manifest();
    let origin = SocketAddr::from(([10, 0, 0, 9], 20004));
    let mut fetch = Fetch::new(Start {
        wanted: ChunkSet::full(manifest.layout()),
        held: ChunkSet::empty(manifest.layout()),
        manifest,
        origin: vec![origin],
        port: 20004,
        allowed: Allowed::default(),
        serves_files: false,
        rules: Rules::default(),
        patience: Patience::default(),
        seed: 7,
        traces: bytes.first().is_some_and(|first| first % 8 == 0),
    });
    let mut source = None;
    for piece in pieces(bytes) {
        while let Some(action) = fetch.poll(now) {
            match action {
                Action::Dial(conn, address) if address == origin => {
                    fetch.connected(conn, [10, 0, 0, 1].into(), now);
                    source = Some(conn);
                }
                Action::Dial(conn, _) => fetch.closed(conn, None, now),
                _ => {}
            }
        }
        let Some(source) = source else { return };
        if let Some(output) = fetch.next_output(source) {
            assert!(output.len() <= 4 * MAX_REPLY_BYTES, "{} bytes wait", output.len());
        }
        let mut rest = piece;
        while fetch.receive(source, &mut rest, now).is_some() {}
        now += Duration::from_millis(100);
    }
}

/// A manifest: what is taken for one is one that prints the same.
pub fn manifest_text(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(&manifest.text()[..], bytes);
        let mut next = 0;
        for segment in manifest.listing().segments(0..manifest.layout().image_bytes()) {
            next += segment.len;
        }
        assert_eq!(next, manifest.layout().image_bytes());
    }
}

/// A signature that nobody has made, and a file of keys.
pub fn signature(bytes: &[u8]) {
    let _ = Key::parse_file(bytes);
    let key =
        Key::parse("RWREtj0BI47rNz1eO6cA29KwkopMvwwALS4j0xELTu9jyDY9u7R1wrvm").expect("a key");
    let trust = Trust { keys: vec![key], hash: None };
    assert!(trust.check(manifest().text(), Some(bytes)).is_err(), "a signature was forged");
}

/// A line of `have`.
pub fn have(bytes: &[u8]) {
    let manifest = manifest();
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        if let Some(run) = parse_run(line, manifest.layout()) {
            assert!(run.count() <= manifest.layout().count() as usize);
        }
    }
}

/// Lines of all control files: what is taken for one prints as a line that reads back to the same.
pub fn control(bytes: &[u8]) {
    let manifest = manifest();
    let layout = manifest.layout();
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(join) = Join::parse(text) {
        assert_eq!(Join::parse(&join.to_string()), Some(join));
    }
    for line in text.lines() {
        if let Some(header) = HaveHeader::parse(line) {
            assert_eq!(HaveHeader::parse(&header.to_string()), Some(header));
        }
        if let Some(source) = SourceAddress::parse(line) {
            assert_eq!(SourceAddress::parse(&source.to_string()), Some(source));
        }
        if let Some(chunk) = parse_grant(line, layout) {
            assert_eq!(parse_grant(&chunk.to_string(), layout), Some(chunk));
        }
        if let Some(wrong) = WrongChunk::parse(line) {
            assert_eq!(WrongChunk::parse(&wrong.to_string()), Some(wrong));
        }
        if let Some(report) = Report::parse(line, layout) {
            // One without chunks has no lines.
            for line in report.lines() {
                assert!(Report::parse(&line, layout).is_some(), "{line}");
            }
        }
        // Durations are printed in tenths of a second.
        let server = ServerLine::parse(line).to_string();
        assert_eq!(ServerLine::parse(&server).to_string(), server);
        if let Some(line) = StatusLine::parse(line).map(|line| line.to_string()) {
            let again = StatusLine::parse(&line).map(|line| line.to_string());
            assert_eq!(again, Some(line));
        }
    }
}

/// A kernel command line, and the next kernel's.
pub fn cmdline(bytes: &[u8]) {
    let _ = Cmdline::parse(bytes);
    next_cmdline(bytes, "console=ttyS0");
}
