//! What classic clients (the xget of 2009) see of a regular file: a directory of four files.

use super::{Attributes, Node, S_IFREG, Tree, entry_attributes, fingerprint};
use crate::image::manifest::Content;
use crate::p9::wire::Qid;

/// A file in the directory that a regular file is to a classic client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Classic {
    /// The file's bytes.
    Data,
    /// Where to fetch it: `me`, or `IP!PORT`.
    Redir,
    /// "I serve it on this port", for as long as it stays open.
    Avail,
    /// The Adler-32 of the whole file, a decimal number.
    Checksum,
}

impl Classic {
    /// All four, in the order in which they are listed.
    pub const ALL: [Classic; 4] =
        [Classic::Data, Classic::Redir, Classic::Avail, Classic::Checksum];

    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Classic::Data => "data",
            Classic::Redir => "redir",
            Classic::Avail => "avail",
            Classic::Checksum => "checksum",
        }
    }
}

impl Tree {
    /// The step of a walk through a regular file; None if `from` is none, or for other names.
    pub fn walk_classic(&self, from: Node, name: &[u8]) -> Option<Node> {
        let Node::Entry(i) = from else { return None };
        let Content::File { .. } = self.entry(from)?.content else { return None };
        let file = Classic::ALL.into_iter().find(|file| file.name().as_bytes() == name)?;
        Some(Node::Classic(i, file))
    }

    pub(super) fn classic_attributes(&self, node: Node, file: Classic) -> Option<Attributes> {
        let entry = self.entry(node)?;
        let of_file = entry_attributes(entry);
        let path = fingerprint(&[entry.path.as_bytes_or_dot(), b"/", file.name().as_bytes()]);
        let (mode, bytes) = match file {
            Classic::Data => (of_file.mode, of_file.bytes),
            Classic::Avail => (S_IFREG | 0o222, 0),
            Classic::Redir | Classic::Checksum => (S_IFREG | 0o444, 0),
        };
        Some(Attributes { qid: Qid { path, ..of_file.qid }, mode, bytes, ..of_file })
    }
}
