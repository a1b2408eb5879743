//! The check that entries form one tree, made while they come in the order of their paths.

use std::cmp::Ordering;

use super::error::Problem;
use crate::image::path::TreePath;

/// The entries so far, of which the last one and all directories above it are kept.
#[derive(Debug, Default)]
pub(super) struct TreeCheck {
    /// From the root down to the entry that came last: what the next one may be in.
    open: Vec<Open>,
    /// For each entry the index after the last entry below it; of those in `open` it is not known yet.
    ends: Vec<u32>,
}

#[derive(Debug)]
struct Open {
    index: u32,
    path: TreePath,
    is_dir: bool,
}

impl TreeCheck {
    /// None has come, and so many will.
    pub(super) fn with_capacity(entries: usize) -> TreeCheck {
        TreeCheck { open: Vec::new(), ends: Vec::with_capacity(entries) }
    }

    /// The next entry.
    ///
    /// # Errors
    ///
    /// The entries are not one tree: the root directory must come first, no path may be there twice, and
    /// every other entry must be in a directory that is listed. The order of the paths is the only one in which
    /// they may come.
    pub(super) fn add(&mut self, path: TreePath, is_dir: bool) -> Result<(), Problem> {
        let index = u32::try_from(self.ends.len()).map_err(|_| Problem::TooLong)?;
        match self.open.last().map(|last| last.path.cmp(&path)) {
            None if path.is_root() && is_dir => {}
            None => return Err(Problem::NoRoot),
            Some(Ordering::Less) => self.leave(index, &path)?,
            Some(Ordering::Equal) => return Err(Problem::Twice(path)),
            Some(Ordering::Greater) => return Err(Problem::NotCanonical),
        }
        self.ends.push(0);
        self.open.push(Open { index, path, is_dir });
        Ok(())
    }

    /// Ends the subtrees that an entry is not in; the one that it is in must be that of its directory.
    fn leave(&mut self, index: u32, path: &TreePath) -> Result<(), Problem> {
        while self.open.last().is_some_and(|last| !path.is_directly_in(&last.path)) {
            self.end_last(index);
        }
        match self.open.last() {
            Some(parent) if parent.is_dir => Ok(()),
            _ => Err(Problem::NoParent(path.clone())),
        }
    }

    fn end_last(&mut self, index: u32) {
        if let Some(last) = self.open.pop()
            && let Some(end) = self.ends.get_mut(last.index as usize)
        {
            *end = index;
        }
    }

    /// For each entry the index after the last entry below it. Fails without any entry.
    pub(super) fn ends(mut self) -> Result<Vec<u32>, Problem> {
        if self.ends.is_empty() {
            return Err(Problem::NoRoot);
        }
        let count = self.ends.len() as u32;
        while !self.open.is_empty() {
            self.end_last(count);
        }
        Ok(self.ends)
    }
}
