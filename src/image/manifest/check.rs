//! What can be wrong with a manifest, and the check that its entries form one tree.

use std::fmt;

use super::listing::{Content, Entry};
use super::text::HEADING;
use crate::image::path::{BadPath, TreePath};

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
    /// There is not one hash for each chunk.
    HashCount,
    /// The text is not the one that would be printed for what it says.
    NotCanonical,
}

/// For each entry the index after the last entry below it. The entries are sorted.
///
/// # Errors
///
/// The entries are not one tree: the root directory must come first, no path may be there twice, and
/// every other entry must be in a directory that is listed.
pub(super) fn subtree_ends(entries: &[Entry]) -> Result<Vec<usize>, Problem> {
    let root = entries.first().filter(|entry| entry.path.is_root());
    if !root.is_some_and(|root| root.content == Content::Directory) {
        return Err(Problem::NoRoot);
    }
    let is_twice = |pair: &&[Entry]| matches!(pair, [a, b] if a.path == b.path);
    if let Some([_, entry]) = entries.windows(2).find(is_twice) {
        return Err(Problem::Twice(entry.path.clone()));
    }
    let mut ends = vec![entries.len(); entries.len()];
    // The entries from the root down to the one before; whose subtrees have not ended yet.
    let mut open: Vec<usize> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let is_parent = |dir: usize| {
            entries.get(dir).is_some_and(|dir| entry.path.parent().as_ref() == Some(&dir.path))
        };
        while let Some(&last) = open.last().filter(|&&dir| !is_parent(dir)) {
            if let Some(end) = ends.get_mut(last) {
                *end = i;
            }
            open.pop();
        }
        let parent = open.last().and_then(|&dir| entries.get(dir));
        if i > 0 && !parent.is_some_and(|parent| parent.content == Content::Directory) {
            return Err(Problem::NoParent(entry.path.clone()));
        }
        open.push(i);
    }
    Ok(ends)
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
            Problem::HashCount => {
                write!(f, "the number of hashes differs from the number of chunks")
            }
            Problem::NotCanonical => write!(f, "not in canonical form"),
        }
    }
}

impl std::error::Error for ManifestError {}
impl std::error::Error for Problem {}
