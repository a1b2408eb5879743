//! The check that entries form one tree.

use super::entry::{Content, Entry};
use super::error::Problem;

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
