//! What is different between two states of the tree, in numbers for people.

use std::fmt;

use crate::image::manifest::{Content, Entry, Manifest};

/// How many files, directories and links came, went, and are other than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    added: usize,
    removed: usize,
    changed: usize,
}

impl Change {
    /// Between two manifests. A file that has kept its size and its times counts as the same.
    pub(super) fn between(before: &Manifest, after: &Manifest) -> Change {
        let (before, after) = (before.listing(), after.listing());
        let mut change = Change::default();
        for entry in after.entries() {
            match before.find(&entry.path).and_then(|old| before.entry(old)) {
                None => change.added += 1,
                Some(old) => change.changed += usize::from(!is_same(old, entry)),
            }
        }
        let gone = |entry: &&Entry| after.find(&entry.path).is_none();
        change.removed = before.entries().iter().filter(gone).count();
        change
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} added, {} removed, {} changed", self.added, self.removed, self.changed)
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
