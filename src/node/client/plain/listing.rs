//! What another server's replies say of its tree.

use crate::image::manifest::{Content, Entry, Mtime, Owner};
use crate::image::path::TreePath;
use crate::p9::message::Message;
use crate::p9::wire::{Dialect, Field, Qid, Reader, Text};
use crate::serve::tree::{S_IFDIR, S_IFLNK, S_IFREG};

/// The bits of a mode that say what it is the mode of.
const S_IFMT: u32 = 0o170_000;

/// What something in the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
    /// A device, socket or fifo.
    Other,
}

/// What stat says of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) kind: Kind,
    mode: u32,
    owner: Owner,
    pub(super) bytes: u64,
    pub(super) mtime: Mtime,
}

impl Attributes {
    /// Those of an Rgetattr; None if it is none, or says what cannot be.
    pub(super) fn of(reply: &Message<'_>) -> Option<Attributes> {
        let &Message::Rgetattr { mode, uid, gid, size, mtime_sec, mtime_nsec, .. } = reply else {
            return None;
        };
        let kind = match mode & S_IFMT {
            S_IFDIR => Kind::Directory,
            S_IFREG => Kind::File,
            S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        // Times before 1970 are negative numbers there too.
        let nanos = u32::try_from(mtime_nsec).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        let mtime = Mtime { secs: mtime_sec as i64, nanos };
        Some(Attributes {
            kind,
            mode: mode & 0o7777,
            owner: Owner { uid, gid },
            bytes: size,
            mtime,
        })
    }

    /// The entry at `path` of which this is said, a link with its `target`; None for what cannot be
    /// fetched.
    pub(super) fn entry(&self, path: TreePath, target: Option<Box<[u8]>>) -> Option<Entry> {
        let content = match self.kind {
            Kind::Directory => Content::Directory,
            Kind::File => Content::File { bytes: self.bytes, image_offset: 0 },
            Kind::Link => Content::Symlink { target: target? },
            Kind::Other => return None,
        };
        let Attributes { mode, owner, mtime, .. } = *self;
        Some(Entry { path, mode, owner: Some(owner), mtime, content })
    }
}

/// A directory on the way to what is fetched, of which nothing else is of interest.
pub(super) fn on_the_way(path: TreePath) -> Entry {
    let mtime = Mtime { secs: 0, nanos: 0 };
    Entry { path, mode: 0o755, owner: None, mtime, content: Content::Directory }
}

/// Where a link leads; None if that is out of what is served.
pub(super) fn target_of(link: &TreePath, target: &[u8]) -> Option<TreePath> {
    let mut at = if target.first() == Some(&b'/') { TreePath::root() } else { link.parent()? };
    for name in target.split(|&b| b == b'/') {
        at = match name {
            b"" | b"." => continue,
            b".." => at.parent()?,
            name => at.join(name)?,
        };
    }
    Some(at)
}

/// The target of an Rreadlink; None if it is none, or no link can have that target.
pub(super) fn target(reply: &Message<'_>) -> Option<Box<[u8]>> {
    match reply {
        Message::Rreadlink { target: Text(target) }
            if (1..=Content::MAX_TARGET_BYTES).contains(&target.len()) && !target.contains(&0) =>
        {
            Some((*target).into())
        }
        _ => None,
    }
}

/// A part of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Without `.` and `..`.
    pub(super) names: Vec<Box<[u8]>>,
    /// Where the next part begins; None at the end.
    pub(super) next: Option<u64>,
}

/// What an Rreaddir lists; None if it is none, or damaged.
pub(super) fn part(reply: &Message<'_>) -> Option<Part> {
    let Message::Rreaddir { data } = reply else { return None };
    let mut r = Reader::new("Rreaddir", data.0, Dialect::Linux);
    let mut part = Part { names: Vec::new(), next: None };
    while r.left() > 0 {
        Qid::decode(&mut r, "qid").ok()?;
        part.next = Some(u64::decode(&mut r, "offset").ok()?);
        u8::decode(&mut r, "type").ok()?;
        let Text(name) = Text::decode(&mut r, "name").ok()?;
        if name != b"." && name != b".." {
            part.names.push(name.into());
        }
    }
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::p9::wire::{Blob, Writer};

    fn records(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let w = &mut Writer::new(&mut bytes, Dialect::Linux);
        for (name, cookie) in names.iter().zip(10u64..) {
            Qid { kind: 0, version: 0, path: 0 }.encode(w);
            cookie.encode(w);
            0u8.encode(w);
            Text(name.as_bytes()).encode(w);
        }
        bytes
    }

    #[test]
    fn a_part_of_a_directory_has_its_names_and_where_to_go_on() {
        let data = records(&[".", "..", "vmlinuz"]);
        let part = part(&Message::Rreaddir { data: Blob(&data) }).unwrap();
        assert_eq!(part, Part { names: vec![b"vmlinuz".as_slice().into()], next: Some(12) });
    }

    #[test]
    fn the_end_of_a_directory_is_empty() {
        let part = part(&Message::Rreaddir { data: Blob(b"") }).unwrap();
        assert_eq!(part, Part { names: Vec::new(), next: None });
    }

    #[test]
    fn a_damaged_directory_is_refused() {
        let data = records(&["vmlinuz"]);
        for n in 1..data.len() {
            assert_eq!(part(&Message::Rreaddir { data: Blob(&data[..n]) }), None, "cut to {n}");
        }
    }

    #[test]
    fn targets_that_no_link_can_have_are_refused() {
        let long = [b'x'; Content::MAX_TARGET_BYTES + 1];
        for bad in [&b""[..], b"a\0b", &long] {
            assert_eq!(target(&Message::Rreadlink { target: Text(bad) }), None);
        }
        assert!(target(&Message::Rreadlink { target: Text(b"../a") }).is_some());
    }

    fn getattr(mode: u32, mtime_sec: u64, mtime_nsec: u64) -> Option<Attributes> {
        Attributes::of(&Message::Rgetattr {
            valid: 0x7ff,
            qid: Qid { kind: 0, version: 0, path: 0 },
            mode,
            uid: 7,
            gid: 8,
            nlink: 1,
            rdev: 0,
            size: 10,
            blksize: 4096,
            blocks: 1,
            atime_sec: 0,
            atime_nsec: 0,
            mtime_sec,
            mtime_nsec,
            ctime_sec: 0,
            ctime_nsec: 0,
            btime_sec: 0,
            btime_nsec: 0,
            generation: 0,
            data_version: 0,
        })
    }

    #[test]
    fn attributes_become_those_of_an_entry() {
        let file = getattr(0o104_755, 5, 6).unwrap();
        let entry = file.entry(TreePath::root(), None).unwrap();
        assert_eq!((entry.mode, entry.owner), (0o4755, Some(Owner { uid: 7, gid: 8 })));
        assert_eq!(entry.mtime, Mtime { secs: 5, nanos: 6 });
        assert_eq!(entry.content, Content::File { bytes: 10, image_offset: 0 });
        assert_eq!(getattr(0o100_644, -1i64 as u64, 0).unwrap().mtime.secs, -1);
    }

    #[test]
    fn devices_sockets_and_fifos_are_no_entries() {
        for mode in [0o020_600, 0o060_600, 0o140_600, 0o010_600, 0] {
            assert_eq!(getattr(mode, 0, 0).unwrap().entry(TreePath::root(), None), None);
        }
    }

    #[test]
    fn a_second_has_fewer_nanoseconds_than_a_thousand_million() {
        assert_eq!(getattr(0o100_644, 0, 1_000_000_000), None);
    }
}
