//! What a session does for a client of 2009: `docs/protocol.md`, "Classic clients".
//!
//! To such a client every regular file is a directory with `data`, `redir`, `avail` and `checksum`
//! in it. It is recognized by its first act: it opens the root's `log` for reading and writing. No
//! other client sees any of this, except that in 9P2000.u a walk can go through a regular file.
//!
//! `classic_off` takes the place of this module in a build without the feature `classic`.

use std::fmt;

use super::access::Access;
use super::answer::{Answer, At};
use super::fids::Open;
use crate::control::Control;
use crate::limits::MAX_PARKED;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{DMDIR, DMSETGID, DMSETUID, Dialect, Qid, Stat, Text, UnixOnly};
use crate::serve::tree::{ClassicFile, Node, ROOT, Tree};

/// What `log` reads: the level of debugging that clients are asked for.
const DEBUG_LEVEL: &[u8] = b"0";
/// The root's file that marks a connection as a classic one.
const LOG: &[u8] = b"log";

/// What a session asks of its host for classic clients alone. Entries are those of
/// [`super::Host::tree`]. The default sends no client elsewhere.
pub trait ClassicHost {
    /// A connection turned out to be a classic client's.
    fn classic_seen(&mut self, _at: At) {}

    /// Where the client should fetch a file.
    fn classic_redirect(&mut self, _at: At, _entry: usize) -> String {
        "me".to_owned()
    }

    /// `PORT REDIR`: the client serves the file on that port, and was told REDIR.
    fn classic_offer(&mut self, _at: At, _entry: usize, _text: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    /// The client no longer serves the file.
    fn classic_withdraw(&mut self, _at: At, _entry: usize) {}

    /// The Adler-32 of a whole file.
    fn classic_checksum(&mut self, _at: At, _entry: usize) -> Answer<u32> {
        Answer::Error(Errno::EOPNOTSUPP)
    }

    /// The client reads the `data` of some file.
    fn classic_reads(&mut self, _at: At) {}

    /// Whether the client fetches from another client what is no longer served here.
    fn classic_is_lost(&self, _at: At) -> bool {
        false
    }
}

/// A read of a classic client failed. It would take an error for the end of the file, so that its
/// connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFailed(pub(super) Errno);

impl fmt::Display for ReadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed: the rest of a file cannot be sent to a 2009 client: {}", self.0)
    }
}

/// What a session knows of its client.
#[derive(Debug, Default)]
pub(super) struct State {
    /// It has opened `log`: it sees directories for files.
    marked: bool,
    /// It has opened a `data`.
    reads: bool,
    /// It has done something that a classic client does not do before it opens `log`.
    other: bool,
}

/// The client of 2009 looks owners up by name, and where it finds none takes whichever it looked up last. One name is known
/// everywhere. What runs as somebody else is not to run as root then.
fn belongs_to_root(stat: &mut Stat<'_>) {
    if stat.numeric.iter().any(|UnixOnly(id)| *id != 0) {
        stat.mode &= !(DMSETUID | DMSETGID);
    }
    let root = Text(b"root");
    (stat.uid, stat.gid, stat.muid) = (root, root, root);
}

impl State {
    /// Notices what a client does before it opens `log`, if it ever does.
    pub(super) fn notice(&mut self, message: &Message<'_>) {
        self.other |= !matches!(
            message,
            Message::Tversion { .. }
                | Message::Tattach { .. }
                | Message::Twalk { .. }
                | Message::Topen { mode: 2, .. }
                | Message::Tclunk { .. }
        );
    }

    /// A step that a walk cannot take otherwise.
    pub(super) fn walk(
        &self,
        dialect: Dialect,
        tree: &Tree,
        from: Node,
        name: &[u8],
    ) -> Option<Node> {
        match (from, name) {
            _ if dialect != Dialect::Unix => None,
            (ROOT, LOG) if self.marked || !self.other => Some(Node::Control(Control::Log)),
            (Node::Entry(_) | Node::Classic(..), b"..") => tree.walk(from, name),
            _ => tree.walk_classic(from, name),
        }
    }

    /// What `node` reads if to open it with this access is what classic clients begin with. It is
    /// the log, whatever a real file `log` holds.
    pub(super) fn open_log(
        &mut self,
        dialect: Dialect,
        tree: &Tree,
        node: Node,
        access: &Access,
        host: &mut impl ClassicHost,
        at: At,
    ) -> Option<&'static [u8]> {
        let is_log = match node {
            Node::Control(file) => file == Control::Log,
            _ => tree.walk(ROOT, LOG) == Some(node),
        };
        let is_first = self.marked || !self.other;
        if dialect != Dialect::Unix || !is_log || !is_first || !access.read || !access.write {
            return None;
        }
        self.marked = true;
        host.classic_seen(at);
        Some(DEBUG_LEVEL)
    }

    /// Opens one of the four files. None: its reads and writes come here as well.
    pub(super) fn open(
        &mut self,
        entry: usize,
        file: ClassicFile,
        access: &Access,
        host: &mut impl ClassicHost,
        at: At,
    ) -> Result<Option<Open>, Errno> {
        match file {
            ClassicFile::Avail if access.write => Ok(None),
            _ if access.changes() => Err(Errno::EROFS),
            ClassicFile::Avail => Err(Errno::EPERM),
            ClassicFile::Data => {
                self.reads = true;
                Ok(Some(Open::File))
            }
            ClassicFile::Redir => {
                Ok(Some(Open::Bytes(host.classic_redirect(at, entry).into_bytes().into())))
            }
            ClassicFile::Checksum => Ok(None),
        }
    }

    /// Whether regular files open as directories.
    pub(super) fn files_are_directories(&self) -> bool {
        self.marked
    }

    /// Whether directories list what has a qid of this kind.
    pub(super) fn lists(&self, qid_kind: u8) -> bool {
        !self.marked || qid_kind != Qid::SYMLINK
    }

    /// A stat entry as this client sees it.
    pub(super) fn shown<'s>(&self, node: Node, mut stat: Stat<'s>) -> Stat<'s> {
        if self.marked {
            belongs_to_root(&mut stat);
        }
        match node {
            Node::Entry(_) if self.marked && stat.qid.kind == Qid::FILE => Stat {
                qid: Qid { kind: Qid::DIR, ..stat.qid },
                mode: DMDIR | 0o555,
                length: 0,
                ..stat
            },
            _ => stat,
        }
    }

    /// Bytes of a file are read.
    pub(super) fn reading(&self, host: &mut impl ClassicHost, at: At) {
        if self.reads {
            host.classic_reads(at);
        }
    }

    /// How many reads may wait. Tags bound those of a classic client, one for each of its files.
    pub(super) fn max_parked(&self) -> usize {
        if self.reads { usize::MAX } else { MAX_PARKED }
    }

    /// Why the connection has to be closed if a read cannot be answered.
    pub(super) fn failed(&self, errno: Errno) -> Option<ReadFailed> {
        self.reads.then_some(ReadFailed(errno))
    }

    /// Why the connection has to be closed if a walk fails: the client takes what it cannot walk to for a file that is not
    /// there, and ends as if it had all.
    pub(super) fn lacks_fids(&self, errno: Errno) -> Option<ReadFailed> {
        (self.marked && errno == Errno::EMFILE).then_some(ReadFailed(errno))
    }

    /// Why the connection has to be closed if the client fetches something that is no longer served.
    pub(super) fn lost(&self, host: &impl ClassicHost, at: At) -> Option<ReadFailed> {
        let lost = self.marked && host.classic_is_lost(at);
        lost.then_some(ReadFailed(Errno::ESTALE))
    }
}

/// Whether a file that [`State::open`] has left to this module can be read.
pub(super) fn is_readable(file: ClassicFile) -> bool {
    file == ClassicFile::Checksum
}

/// The whole text of a readable file.
pub(super) fn read(
    host: &mut impl ClassicHost,
    at: At,
    entry: usize,
    _: ClassicFile,
) -> Answer<String> {
    host.classic_checksum(at, entry).map(|sum| sum.to_string())
}

pub(super) fn write(
    host: &mut impl ClassicHost,
    at: At,
    entry: usize,
    file: ClassicFile,
    data: &[u8],
) -> Result<(), Errno> {
    match file {
        ClassicFile::Avail => host.classic_offer(at, entry, data),
        _ => Err(Errno::EBADF),
    }
}

/// A file that [`State::open`] has left to this module is no longer open.
pub(super) fn release(host: &mut impl ClassicHost, at: At, entry: usize, file: ClassicFile) {
    if file == ClassicFile::Avail {
        host.classic_withdraw(at, entry);
    }
}

#[cfg(test)]
mod tests;
