//! The 2009 xget's side of a session: `docs/protocol.md`, "Classic clients".
//!
//! To such a client every regular file is a directory with `data`, `redir`, `avail` and `checksum`
//! in it. It is known by its first act: it opens the root's `log` for reading and writing. Nobody
//! else sees any of this, but that in 9P2000.u a walk can go through a regular file.

use std::sync::Arc;

use super::host::{Answer, At};
use super::stat::DMDIR;
use crate::control::Control;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{Dialect, Qid, Stat};
use crate::serve::tree::{Node, ROOT, Tree};

/// What `log` reads: the level of debugging that clients are asked for.
pub(super) const DEBUG_LEVEL: &[u8] = b"0";
/// The root's file that marks a connection as a classic one.
const LOG: &[u8] = b"log";

/// What a session asks of whoever it serves for, for classic clients alone. Entries are those of
/// [`super::Host::tree`]. Left as it is, it sends nobody elsewhere.
pub trait ClassicHost {
    /// A connection turned out to be a classic client's.
    fn classic_seen(&mut self, _at: At) {}

    /// Where the client should fetch a file.
    fn classic_redirect(&mut self, _at: At, _entry: usize) -> String {
        "me".to_owned()
    }

    /// `PORT REDIR`: the client serves the file on that port, and has it from where that says.
    fn classic_offer(&mut self, _at: At, _entry: usize, _text: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    /// It serves the file no longer.
    fn classic_withdraw(&mut self, _at: At, _entry: usize) {}

    /// The Adler-32 of a whole file.
    fn classic_checksum(&mut self, _at: At, _entry: usize) -> Answer<u32> {
        Answer::Error(Errno::EOPNOTSUPP)
    }

    /// The client reads the `data` of some file.
    fn classic_reads(&mut self, _at: At) {}

    /// Whether the client fetches from another one what is no longer served here.
    fn classic_is_lost(&self, _at: At) -> bool {
        false
    }
}

/// What a session knows of its client.
#[derive(Debug, Default)]
pub(super) struct State {
    /// It has opened `log`: it sees directories for files.
    pub(super) marked: bool,
    /// It has opened a `data`, and takes an error for the end of the file.
    pub(super) reads: bool,
    /// It has done something that a classic client does not do before it opens `log`.
    other: bool,
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

    /// Whether to open this for reading and writing is what classic clients begin with.
    pub(super) fn is_mark(&self, dialect: Dialect, tree: &Arc<Tree>, node: Node) -> bool {
        let is_log = match node {
            Node::Control(file) => file == Control::Log,
            _ => tree.walk(ROOT, LOG) == Some(node),
        };
        dialect == Dialect::Unix && is_log && (self.marked || !self.other)
    }

    /// A stat entry as this client sees it.
    pub(super) fn shown<'s>(&self, node: Node, stat: Stat<'s>) -> Stat<'s> {
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
}

#[cfg(test)]
mod tests;
