//! The served files, opened again for sending, as long as they are what was hashed.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::scan::Scan;
use crate::image::manifest::Segment;
use crate::net::send::Files;
use crate::serve::tree::Tree;

/// States of the tree whose files can still be sent: clients may have files of older ones open.
const MAX_STATES: usize = 4;

/// The files of the last few published states.
#[derive(Debug)]
pub(super) struct ServedFiles {
    states: VecDeque<(Arc<Tree>, Arc<Scan>)>,
    /// Files of a state that are not what was hashed, whatever their times: they are not sent until it is known what
    /// they are.
    rewritten: Option<(Arc<Scan>, BTreeSet<usize>)>,
    /// The most recently used come last.
    open: VecDeque<OpenFile>,
    /// Files that stay open.
    max_open: usize,
}

#[derive(Debug)]
struct OpenFile {
    scan: Arc<Scan>,
    entry: usize,
    file: Arc<File>,
}

impl ServedFiles {
    /// Of no state yet; so many files stay open.
    pub(super) fn new(max_open: usize) -> ServedFiles {
        ServedFiles {
            states: VecDeque::new(),
            open: VecDeque::new(),
            max_open,
            rewritten: Default::default(),
        }
    }

    /// Another state was published, or the same with files that are told in another way.
    pub(super) fn publish(&mut self, tree: Arc<Tree>, scan: Arc<Scan>) {
        self.states.retain(|(published, _)| !Arc::ptr_eq(published, &tree));
        self.states.push_front((tree, scan));
        self.states.truncate(MAX_STATES);
        self.rewritten = None;
        self.open.clear();
    }

    /// These files of a state are not what was hashed. Whoever asks for them is told that they have changed.
    pub(super) fn distrust(&mut self, scan: Arc<Scan>, files: BTreeSet<usize>) {
        self.rewritten = Some((scan, files));
    }

    /// How many files are served.
    pub(super) fn count(&self) -> u64 {
        self.states.front().map_or(0, |(_, scan)| scan.counts().files)
    }

    /// What was hashed for a published state; None if it is one of long ago.
    pub(super) fn scan_of(&self, tree: &Arc<Tree>) -> Option<Arc<Scan>> {
        let state = self.states.iter().find(|(published, _)| Arc::ptr_eq(published, tree));
        state.map(|(_, scan)| scan.clone())
    }
}

impl Files for ServedFiles {
    fn source(&mut self, tree: &Tree, segment: &Segment) -> io::Result<(Arc<File>, u64)> {
        let state = self.states.iter().find(|(published, _)| std::ptr::eq(&**published, tree));
        let (_, scan) = state.ok_or(io::Error::from_raw_os_error(libc::ESTALE))?;
        let entry = segment.entry;
        let is_rewritten = self
            .rewritten
            .as_ref()
            .is_some_and(|(of, files)| Arc::ptr_eq(of, scan) && files.contains(&entry));
        if is_rewritten {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        let held = |open: &OpenFile| open.entry == entry && Arc::ptr_eq(&open.scan, scan);
        let found = self.open.iter().rposition(held).and_then(|at| self.open.remove(at));
        let open = match found {
            Some(open) => {
                scan.check_same(entry, &open.file)?;
                open
            }
            None => {
                let file = match scan.open_same(entry) {
                    Err(error)
                        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) =>
                    {
                        // Those of others matter more.
                        self.open.clear();
                        self.max_open = (self.max_open / 2).max(1);
                        scan.open_same(entry)?
                    }
                    opened => opened?,
                };
                OpenFile { scan: scan.clone(), entry, file: Arc::new(file) }
            }
        };
        let file = open.file.clone();
        self.open.push_back(open);
        if self.open.len() > self.max_open {
            self.open.pop_front();
        }
        Ok((file, segment.offset))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::cache::Cache;
    use super::super::hash::hash;
    use super::super::scan::tests::TempDir;
    use super::super::scan::{ScanOptions, scan};
    use super::*;

    #[test]
    fn a_file_that_is_not_what_was_hashed_is_not_sent_until_it_is_hashed_again() {
        let dir = TempDir::new();
        dir.write("a", b"a file");
        dir.write("b", b"another");
        let scan = scan(dir.path(), &ScanOptions::default(), SystemTime::now()).unwrap();
        let manifest = hash(&scan, &mut Cache::default(), 1, &|_| {}).unwrap();
        let (tree, scan) = (Arc::new(Tree::new(Arc::new(manifest))), Arc::new(scan));
        let mut files = ServedFiles::new(8);
        files.publish(tree.clone(), scan.clone());
        let is_sent = |files: &mut ServedFiles, entry| {
            let error = files.source(&tree, &Segment { entry, offset: 0, len: 1 }).err();
            error.is_none_or(|error| error.raw_os_error() != Some(libc::ESTALE))
        };
        files.distrust(scan.clone(), BTreeSet::from([1]));
        assert!(!is_sent(&mut files, 1) && is_sent(&mut files, 2));
        files.publish(tree.clone(), scan);
        assert!(is_sent(&mut files, 1));
    }
}
