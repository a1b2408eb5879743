//! What is different between two states of the tree, in numbers for people.

use std::cmp::Ordering;
use std::fmt;

use crate::image::manifest::{Content, Entry, Manifest};
use crate::units::quantity;

/// How many files, directories and links came, went, and are other than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    added: usize,
    removed: usize,
    changed: usize,
    /// Chunks with other contents, where all files have kept their sizes and times.
    chunks: usize,
}

impl Change {
    /// Between two manifests. A file that has kept its size and its times counts as the same.
    pub(super) fn between(before: &Manifest, after: &Manifest) -> Change {
        let mut change = Change::default();
        // Both are sorted.
        let mut old = before.listing().entries().peekable();
        let mut new = after.listing().entries().peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.path.cmp(&new.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let old = old.next_if(|_| order.is_le());
            let new = new.next_if(|_| order.is_ge());
            match (old, new) {
                (Some(old), Some(new)) => change.changed += usize::from(!is_same(&old, &new)),
                (old, new) => {
                    change.removed += usize::from(old.is_some());
                    change.added += usize::from(new.is_some());
                }
            }
        }
        if change == Change::default() {
            let other = after.layout().iter().filter(|c| before.hash(*c) != after.hash(*c));
            change.chunks = other.count();
        }
        change
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} added, {} removed, {} changed", self.added, self.removed, self.changed)?;
        match self.chunks {
            0 => Ok(()),
            n => write!(f, ", {} rewritten without a change of times", quantity(n as u64, "chunk")),
        }
    }
}

/// Where a file lies in the image says nothing about it.
fn is_same(old: &Entry, new: &Entry) -> bool {
    let content = match (&old.content, &new.content) {
        (Content::File { bytes: old, .. }, Content::File { bytes: new, .. }) => old == new,
        (old, new) => old == new,
    };
    content && (old.mode, old.owner, old.mtime) == (new.mode, new.owner, new.mtime)
}
