//! Reads that wait for something, while the requests after them are answered.

use std::ops::Range;
use std::sync::Arc;

use super::answer::At;
use super::host::Host;
use crate::control::Control;
use crate::serve::tree::{ClassicFile, Tree};

/// A Tread that cannot be answered out of what the session knows.
#[derive(Debug)]
pub(super) enum Read {
    Control {
        file: Control,
        tree: Arc<Tree>,
        offset: u64,
        count: usize,
    },
    /// Bytes of the image; see [`Host::image`] for `paced`.
    Data {
        tree: Arc<Tree>,
        range: Range<u64>,
        paced: bool,
    },
    Classic {
        tree: Arc<Tree>,
        entry: usize,
        file: ClassicFile,
        offset: u64,
        count: usize,
    },
}

impl Read {
    /// The control file whose wait the host has to be told the end of.
    fn waits_for(&self) -> Option<Control> {
        match self {
            Read::Control { file, .. } => Some(*file),
            Read::Data { .. } => Some(Control::Image),
            Read::Classic { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct ParkedRead {
    pub(super) tag: u16,
    pub(super) fid: u32,
    pub(super) read: Read,
}

/// The waiting reads of a connection, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct ParkedReads(Vec<ParkedRead>);

impl ParkedReads {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, read: ParkedRead) {
        self.0.push(read);
    }

    pub(super) fn has_tag(&self, tag: u16) -> bool {
        self.0.iter().any(|parked| parked.tag == tag)
    }

    /// Takes all reads out in order to try them again. The host expects them to wait anew, so waits
    /// that it keeps by file are cancelled.
    pub(super) fn take_all(&mut self, host: &mut impl Host, at: At) -> Vec<ParkedRead> {
        let mut cancelled = Vec::new();
        for ParkedRead { read, .. } in &self.0 {
            let again = match read {
                Read::Data { tree, .. } if Arc::ptr_eq(tree, host.tree()) => None,
                _ => read.waits_for(),
            };
            if let Some(file) = again.filter(|file| !cancelled.contains(file)) {
                host.cancel(at, file);
                cancelled.push(file);
            }
        }
        std::mem::take(&mut self.0)
    }

    /// Gives up the read with this tag, if there is one.
    pub(super) fn give_up_tag(&mut self, tag: u16, host: &mut impl Host, at: At) {
        if let Some(i) = self.0.iter().position(|parked| parked.tag == tag) {
            let ParkedRead { read, .. } = self.0.remove(i);
            self.cancel(&read, host, at);
        }
    }

    /// Gives up all reads of a fid; their tags.
    pub(super) fn give_up_fid(&mut self, fid: u32, host: &mut impl Host, at: At) -> Vec<u16> {
        let mut tags = Vec::new();
        while let Some(i) = self.0.iter().position(|parked| parked.fid == fid) {
            let ParkedRead { tag, read, .. } = self.0.remove(i);
            self.cancel(&read, host, at);
            tags.push(tag);
        }
        tags
    }

    pub(super) fn give_up_all(&mut self, host: &mut impl Host, at: At) {
        while let Some(ParkedRead { read, .. }) = self.0.pop() {
            self.cancel(&read, host, at);
        }
    }

    /// Tells the host that `read` waits no longer, unless another one waits for the same file.
    pub(super) fn cancel(&self, read: &Read, host: &mut impl Host, at: At) {
        let file = read.waits_for();
        if let Some(file) = file
            && !self.0.iter().any(|other| other.read.waits_for() == Some(file))
        {
            host.cancel(at, file);
        }
    }
}
