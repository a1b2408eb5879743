//! What classic clients (the xget of 2009) see of a regular file: a directory of four files.

use super::{Attributes, Node, S_IFREG, Tree, entry_attributes, fingerprint};
use crate::p9::wire::Qid;

/// A file in the directory that a regular file is to a classic client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClassicFile {
    /// The file's bytes.
    Data,
    /// Where to fetch it: `me`, or `IP!PORT`.
    Redir,
    /// "I serve it on this port", for as long as it stays open.
    Avail,
    /// The Adler-32 of the whole file, a decimal number.
    Checksum,
}

impl ClassicFile {
    /// All four, in the order in which they are listed.
    pub(crate) const ALL: [ClassicFile; 4] =
        [ClassicFile::Data, ClassicFile::Redir, ClassicFile::Avail, ClassicFile::Checksum];

    /// The file of this name.
    pub(crate) fn named(name: &[u8]) -> Option<ClassicFile> {
        ClassicFile::ALL.into_iter().find(|file| file.name().as_bytes() == name)
    }

    /// The file's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ClassicFile::Data => "data",
            ClassicFile::Redir => "redir",
            ClassicFile::Avail => "avail",
            ClassicFile::Checksum => "checksum",
        }
    }
}

impl Tree {
    pub(super) fn classic_attributes(&self, node: Node, file: ClassicFile) -> Option<Attributes> {
        let entry = self.entry(node)?;
        let of_file = entry_attributes(&entry);
        let path = fingerprint(&[entry.path.as_bytes_or_dot(), b"/", file.name().as_bytes()]);
        let (mode, bytes) = match file {
            ClassicFile::Data => (of_file.mode, of_file.bytes),
            ClassicFile::Avail => (S_IFREG | 0o222, 0),
            ClassicFile::Redir | ClassicFile::Checksum => (S_IFREG | 0o444, 0),
        };
        Some(Attributes { qid: Qid { path, ..of_file.qid }, mode, bytes, ..of_file })
    }
}
