//! What stat(2), readdir(3) and their kin are told of a node, in each dialect.

use std::borrow::Cow;

use super::classic;
use crate::image::manifest::Content;
use crate::p9::message::Message;
use crate::p9::wire::{
    DMDIR, DMSETGID, DMSETUID, DMSETVTX, DMSYMLINK, Dialect, Field, Qid, Stat, Text, UnixOnly,
    Writer,
};
use crate::serve::tree::{Attributes, ClassicFile, Node, ROOT, Tree};

/// What clients are told is a good size to read in, in bytes (`st_blksize`).
pub(super) const BLOCK_BYTES: u64 = 128 << 10;
/// Tgetattr: all that stat(2) has (`P9_STATS_BASIC`).
pub(super) const GETATTR_BASIC: u64 = 0x7ff;
/// `V9FS_MAGIC`.
pub(super) const STATFS_TYPE: u32 = 0x0102_1997;

/// The reply to Tgetattr.
pub(super) fn getattr(attributes: Attributes) -> Message<'static> {
    let Attributes { qid, mode, owner, bytes, mtime, links } = attributes;
    let (secs, nanos) = (mtime.secs as u64, u64::from(mtime.nanos));
    Message::Rgetattr {
        valid: GETATTR_BASIC,
        qid,
        mode,
        uid: owner.uid,
        gid: owner.gid,
        nlink: links,
        rdev: 0,
        size: bytes,
        blksize: BLOCK_BYTES,
        blocks: bytes.div_ceil(512),
        atime_sec: secs,
        atime_nsec: nanos,
        mtime_sec: secs,
        mtime_nsec: nanos,
        ctime_sec: secs,
        ctime_nsec: nanos,
        btime_sec: 0,
        btime_nsec: 0,
        generation: 0,
        data_version: 0,
    }
}

/// The whole stat entries of directory `dir` that fit into `most` bytes, from index `next` on, and
/// the index to go on from.
pub(super) fn records(
    tree: &Tree,
    dir: Node,
    mut next: usize,
    most: usize,
    dialect: Dialect,
    classic: &classic::State,
) -> (Vec<u8>, usize) {
    let mut records = Vec::new();
    let from = next;
    let entries = tree.children(dir, from).map(|i| (i, Node::Entry(i)));
    let listed = |node| classic.lists(tree.attributes(node).qid.kind);
    // A file that is open as a directory is so to a classic client.
    let parts = (0..).zip(ClassicFile::ALL).filter_map(|(i, part)| {
        Some((i, tree.walk_classic(dir, part.name().as_bytes())?)).filter(|_| i >= from)
    });
    for (i, node) in parts.chain(entries.filter(|(_, node)| listed(*node))) {
        let before = records.len();
        with_stat(tree, node, dialect, |stat| {
            classic.shown(node, stat).record(&mut Writer::new(&mut records, dialect));
        });
        if records.len() > most {
            records.truncate(before);
            break;
        }
        next = i + 1;
    }
    (records, next)
}

/// The entries that a Treaddir of `dir` gets in `most` bytes, `.` and `..` first. A cookie is two
/// more than the index of the entry to go on from.
pub(super) fn dirents(tree: &Tree, dir: Node, offset: u64, most: usize) -> Vec<u8> {
    let dots = [(&b"."[..], dir), (b"..", tree.walk(dir, b"..").unwrap_or(ROOT))];
    let dots = (1u64..).zip(dots).skip(offset.min(2) as usize);
    let dots = dots.map(|(cookie, (name, at))| (cookie, Cow::Borrowed(name), at));
    let from = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
    let entries = tree.children(dir, from).filter_map(|i| {
        let path = tree.manifest().listing().path(i)?;
        Some((i as u64 + 3, Cow::Owned(path.name().to_owned()), Node::Entry(i)))
    });
    let mut records = Vec::new();
    for (cookie, name, node) in dots.chain(entries) {
        let before = records.len();
        let w = &mut Writer::new(&mut records, Dialect::Linux);
        let qid = tree.attributes(node).qid;
        qid.encode(w);
        cookie.encode(w);
        dirent_type(qid.kind).encode(w);
        Text(&name).encode(w);
        if records.len() > most {
            records.truncate(before);
            break;
        }
    }
    records
}

/// `d_type` of readdir(3).
fn dirent_type(qid_kind: u8) -> u8 {
    match qid_kind {
        Qid::DIR => 4,
        Qid::SYMLINK => 10,
        _ => 8,
    }
}

pub(super) fn statfs(tree: &Tree) -> Message<'static> {
    let bytes = tree.manifest().layout().image_bytes();
    Message::Rstatfs {
        fstype: STATFS_TYPE,
        bsize: 4096,
        blocks: bytes.div_ceil(4096),
        bfree: 0,
        bavail: 0,
        files: tree.manifest().listing().len() as u64,
        ffree: 0,
        fsid: 0,
        namelen: 255,
    }
}

/// fsync of the older dialects is a Twstat that leaves every field alone (stat(5)).
pub(super) fn touches_nothing(stat: &Stat<'_>) -> bool {
    stat.mode == u32::MAX
        && stat.atime == u32::MAX
        && stat.mtime == u32::MAX
        && stat.length == u64::MAX
        && stat.name.0.is_empty()
        && stat.uid.0.is_empty()
        && stat.gid.0.is_empty()
}

/// Makes a node's stat entry and hands it to `take`, since its strings live only here.
pub(super) fn with_stat(tree: &Tree, node: Node, dialect: Dialect, take: impl FnOnce(Stat<'_>)) {
    let Attributes { mut qid, mode, owner, bytes, mtime, .. } = tree.attributes(node);
    let entry = tree.entry(node);
    let name = match (node, &entry) {
        (ROOT, _) => b"/",
        (Node::Classic(_, file), _) => file.name().as_bytes(),
        (_, Some(entry)) => entry.path.name(),
        (Node::Control(file), None) => file.name().as_bytes(),
        _ => crate::serve::tree::CONTROL_DIR,
    };
    let mut bits = mode & 0o777;
    bits |= if qid.kind == Qid::DIR { DMDIR } else { 0 };
    let mut extension = &b""[..];
    if dialect == Dialect::Plain {
        qid.kind &= Qid::DIR;
    } else {
        bits |= if mode & 0o4000 != 0 { DMSETUID } else { 0 };
        bits |= if mode & 0o2000 != 0 { DMSETGID } else { 0 };
        bits |= if mode & 0o1000 != 0 { DMSETVTX } else { 0 };
        if let Some(Content::Symlink { target }) = entry.as_ref().map(|entry| &entry.content) {
            bits |= DMSYMLINK;
            extension = target;
        }
    }
    let seconds = u32::try_from(mtime.secs.max(0)).unwrap_or(u32::MAX);
    let (uid, gid) = (owner.uid.to_string(), owner.gid.to_string());
    take(Stat {
        dev_type: 0,
        dev: 0,
        qid,
        mode: bits,
        atime: seconds,
        mtime: seconds,
        length: bytes,
        name: Text(name),
        uid: Text(uid.as_bytes()),
        gid: Text(gid.as_bytes()),
        muid: Text(uid.as_bytes()),
        extension: UnixOnly(Text(extension)),
        numeric: [UnixOnly(owner.uid), UnixOnly(owner.gid), UnixOnly(owner.uid)],
    });
}
