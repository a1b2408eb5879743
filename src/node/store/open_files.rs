//! The files that stay open between two uses.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use crate::limits;
use crate::sys::process::descriptor_limit;

/// Open files by entry; the one that was not used for longest is closed for the next.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: HashMap<usize, Held>,
    /// So many stay open.
    most: usize,
    uses: u64,
}

#[derive(Debug)]
struct Held {
    file: Arc<File>,
    last_use: u64,
}

impl OpenFiles {
    /// None is open yet. As many stay open as this process can afford.
    pub(super) fn new() -> OpenFiles {
        OpenFiles { files: HashMap::new(), most: limits::open_files(descriptor_limit()), uses: 0 }
    }

    /// The file of an entry, if it is open.
    pub(super) fn get(&mut self, entry: usize) -> Option<Arc<File>> {
        self.uses += 1;
        let held = self.files.get_mut(&entry)?;
        held.last_use = self.uses;
        Some(held.file.clone())
    }

    /// Keeps a file open for an entry.
    pub(super) fn put(&mut self, entry: usize, file: File) -> Arc<File> {
        if self.files.len() >= self.most {
            let oldest = self.files.iter().min_by_key(|(_, held)| held.last_use);
            if let Some(&oldest) = oldest.map(|(entry, _)| entry) {
                self.files.remove(&oldest);
            }
        }
        self.uses += 1;
        let file = Arc::new(file);
        self.files.insert(entry, Held { file: file.clone(), last_use: self.uses });
        file
    }

    /// Closes the file of an entry once nobody else holds it.
    pub(super) fn close(&mut self, entry: usize) {
        self.files.remove(&entry);
    }
}
