//! The entries of a tree: directories, regular files and symbolic links.

use std::ops::Range;

use crate::image::path::TreePath;

/// One directory, regular file or symbolic link.
///
/// `mode` has permission bits only, at most 0o7777. `owner` is None where the node that fetches
/// chooses the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(crate) path: TreePath,
    pub(crate) mode: u32,
    pub(crate) owner: Option<Owner>,
    pub(crate) mtime: Mtime,
    pub(crate) content: Content,
}

/// Numeric user and group: early boot has no passwd file to look names up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Seconds and nanoseconds since 1970. `secs` is negative before 1970; `nanos` is 0 to 999,999,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Directory,
    /// A regular file. Its bytes stand in the image from `image_offset` on, which the listing sets.
    File {
        bytes: u64,
        image_offset: u64,
    },
    /// A symbolic link. Its target is kept byte for byte and never followed.
    Symlink {
        target: Box<[u8]>,
    },
}

impl Content {
    /// Longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
    pub(crate) const MAX_TARGET_BYTES: usize = 4095;
}

impl Entry {
    /// The part of the image that a file is; empty for directories and links.
    pub(crate) fn image_range(&self) -> Range<u64> {
        match self.content {
            Content::File { bytes, image_offset } => {
                image_offset..image_offset.saturating_add(bytes)
            }
            _ => 0..0,
        }
    }
}
