//! The module `classic_file` of a build without the feature `classic`: a file is just a file.

use super::{Attributes, Node, Tree};

/// There is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicFile {}

impl ClassicFile {
    pub(crate) const ALL: [ClassicFile; 0] = [];

    pub(crate) fn named(_: &[u8]) -> Option<ClassicFile> {
        None
    }

    pub(crate) fn name(self) -> &'static str {
        match self {}
    }
}

impl Tree {
    pub(super) fn classic_attributes(&self, _: Node, file: ClassicFile) -> Option<Attributes> {
        match file {}
    }
}
