//! What can be wrong with a manifest.

use std::fmt;

use crate::image::path::{BadPath, TreePath};

/// First line of the text. The number is the version of the format and of the protocol.
pub(super) const HEADING: &str = "xget manifest 1";

/// Why a text is not a manifest. `line` counts from 1; it is None if each line is well formed and they
/// do not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    pub(super) line: Option<usize>,
    pub(super) problem: Problem,
}

/// What is wrong with a manifest or a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not a manifest, or one of another version.
    Heading,
    /// A line does not have the form that it must have.
    Syntax,
    /// A path that no entry may have.
    Path(BadPath),
    /// A symbolic link with an impossible target.
    Target(TreePath),
    /// The first entry is not the root directory.
    NoRoot,
    /// The entry is not in a directory that is listed.
    NoParent(TreePath),
    /// Two entries have this path.
    Twice(TreePath),
    /// The image, or its number of chunks, is larger than what is supported.
    TooLarge,
    /// The text is longer than a place in it can be numbered.
    TooLong,
    /// There is not one hash for each chunk.
    HashCount,
    /// The text is not the one that would be printed for what it says.
    NotCanonical,
}

impl Problem {
    /// Whether it is a line that is malformed, and not that lines do not fit together.
    pub(super) fn is_of_a_line(&self) -> bool {
        matches!(self, Problem::Heading | Problem::Syntax | Problem::Path(_) | Problem::Target(_))
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            None => write!(f, "bad manifest: {}", self.problem),
            Some(line) => write!(f, "bad manifest, line {line}: {}", self.problem),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Heading => write!(f, "it does not begin with \"{HEADING}\""),
            Problem::Syntax => write!(f, "malformed"),
            Problem::Path(bad) => write!(f, "{bad}"),
            Problem::Target(path) => write!(f, "{path} has an invalid link target"),
            Problem::NoRoot => write!(f, "the first entry is not the root directory"),
            Problem::NoParent(path) => write!(f, "the directory of {path} is not listed"),
            Problem::Twice(path) => write!(f, "{path} is listed twice"),
            Problem::TooLarge => write!(f, "the image is larger than 4 TiB"),
            Problem::TooLong => write!(f, "the manifest is larger than 4 GiB"),
            Problem::HashCount => {
                write!(f, "the number of hashes differs from the number of chunks")
            }
            Problem::NotCanonical => write!(f, "not in canonical form"),
        }
    }
}

impl std::error::Error for ManifestError {}
impl std::error::Error for Problem {}
