//! The served files, opened again for sending, as long as they are what was hashed.

use std::collections::VecDeque;
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
        ServedFiles { states: VecDeque::new(), open: VecDeque::new(), max_open }
    }

    /// Another state was published, or the same with files that are told in another way.
    pub(super) fn publish(&mut self, tree: Arc<Tree>, scan: Arc<Scan>) {
        self.states.retain(|(published, _)| !Arc::ptr_eq(published, &tree));
        self.states.push_front((tree, scan));
        self.states.truncate(MAX_STATES);
        self.open.clear();
    }
}

impl Files for ServedFiles {
    fn source(&mut self, tree: &Tree, segment: &Segment) -> io::Result<(Arc<File>, u64)> {
        let state = self.states.iter().find(|(published, _)| std::ptr::eq(&**published, tree));
        let (_, scan) = state.ok_or(io::Error::from_raw_os_error(libc::ESTALE))?;
        let entry = segment.entry;
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
