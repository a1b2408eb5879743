//! The rules of intro(5), and of its .u and .L additions, that a server for reading can break: one
//! test each, named for the rule, in a file for each of its messages.

mod attach;
mod change;
mod clunk;
mod directory;
mod flush;
mod frame;
mod open;
mod read;
mod readdir;
mod stat;
mod version;
mod walk;

use super::*;
use crate::limits::{MAX_MSIZE, MIN_MSIZE};
use crate::p9::message::NOTAG;
use crate::p9::wire::{Field, IfPresent, Reader, Stat, UnixOnly};
use crate::serve::session::testing::*;

pub(super) const DATA: u32 = 5;

pub(super) fn clunk(fid: u32) -> Message<'static> {
    Message::Tclunk { fid }
}

pub(super) fn flush(oldtag: u16) -> Message<'static> {
    Message::Tflush { oldtag }
}

pub(super) fn walk<'a>(fid: u32, newfid: u32, path: &'a [&'a str]) -> Message<'a> {
    Message::Twalk { fid, newfid, wname: names(path) }
}

pub(super) fn readdir(fid: u32, offset: u64, count: u32) -> Message<'static> {
    Message::Treaddir { fid, offset, count }
}

pub(super) fn tags(replies: &[(u16, Message<'_>)]) -> Vec<u16> {
    replies.iter().map(|(tag, _)| *tag).collect()
}

pub(super) fn steps(reply: &Message<'_>) -> usize {
    match reply {
        Message::Rwalk { wqid } => wqid.len(),
        other => panic!("{other}"),
    }
}

/// The names in a directory read by stat records.
pub(super) fn stat_names(records: &[u8], dialect: Dialect) -> Vec<Vec<u8>> {
    let mut r = Reader::new("directory", records, dialect);
    let mut names = Vec::new();
    while r.left() > 0 {
        names.push(Stat::read_record(&mut r).unwrap().name.0.to_vec());
    }
    names
}

/// The entries of an Rreaddir: cookie and name.
pub(super) fn entries(reply: &Message<'_>) -> Vec<(u64, Vec<u8>)> {
    let Message::Rreaddir { data } = reply else { panic!("{reply}") };
    let mut r = Reader::new("Rreaddir", data.0, Dialect::Linux);
    let mut entries = Vec::new();
    while r.left() > 0 {
        Qid::decode(&mut r, "qid").unwrap();
        let cookie = u64::decode(&mut r, "offset").unwrap();
        u8::decode(&mut r, "type").unwrap();
        entries.push((cookie, Text::decode(&mut r, "name").unwrap().0.to_vec()));
    }
    entries
}

pub(super) fn names_in_many() -> Vec<Vec<u8>> {
    (0..MANY).map(|i| format!("{i:03}").into_bytes()).collect()
}

pub(super) fn stat_of(peer: &mut Peer, fid: u32) -> Stat<'static> {
    match peer.ask(&Message::Tstat { fid }) {
        Message::Rstat { stat } => stat,
        other => panic!("{other}"),
    }
}

/// A Twstat that leaves every field alone.
pub(super) fn no_change() -> Stat<'static> {
    Stat {
        dev_type: u16::MAX,
        dev: u32::MAX,
        qid: Qid { kind: u8::MAX, version: u32::MAX, path: u64::MAX },
        mode: u32::MAX,
        atime: u32::MAX,
        mtime: u32::MAX,
        length: u64::MAX,
        name: Text(b""),
        uid: Text(b""),
        gid: Text(b""),
        muid: Text(b""),
        extension: UnixOnly(Text(b"")),
        numeric: [UnixOnly(u32::MAX); 3],
    }
}

pub(super) fn set_attributes(fid: u32) -> Message<'static> {
    Message::Tsetattr {
        fid,
        valid: 8,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        atime_sec: 0,
        atime_nsec: 0,
        mtime_sec: 0,
        mtime_nsec: 0,
    }
}

/// A .L peer with fid 5 open on a control file.
pub(super) fn with_control(name: &str) -> Peer {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(DATA, &format!(".xget/{name}"));
    peer
}

/// A .L peer with a read of `have` waiting under tag 7.
pub(super) fn with_waiting_read() -> Peer {
    let mut peer = with_control("have");
    peer.say(7, &read(DATA, 6, 100));
    assert!(peer.hear().is_empty());
    peer
}
