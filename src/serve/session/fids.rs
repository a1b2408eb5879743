//! The fids of a connection: what each one stands for, and the memory that they are charged for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::budget::Budget;
use crate::control::Control;
use crate::limits::{FID_BYTES, MAX_FIDS};
use crate::p9::errno::Errno;
use crate::p9::message::NOFID;
use crate::serve::tree::{ClassicFile, Node, Tree};

/// A table with room for this many fids is never shrunk.
const FEW_FIDS: usize = 64;

#[derive(Debug)]
pub(super) struct Fid {
    /// The state of the tree that `node` belongs to.
    pub(super) tree: Arc<Tree>,
    pub(super) node: Node,
    pub(super) open: Open,
}

/// How a fid is open, if it is.
#[derive(Debug)]
pub(super) enum Open {
    No,
    File,
    /// Reads are answered from these bytes.
    Bytes(Arc<[u8]>),
    /// `next` is the index to list from, `offset` where the next stat records begin.
    Dir {
        next: usize,
        offset: u64,
    },
    Control {
        file: Control,
        bytes: Option<Arc<[u8]>>,
        read: bool,
        write: bool,
    },
    /// A file that the module `classic` answers for, of this entry.
    Classic(usize, ClassicFile),
}

impl Open {
    /// A directory that is read from its beginning.
    pub(super) const DIR: Open = Open::Dir { next: 0, offset: 0 };

    /// Memory that is held for it, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Open::Bytes(bytes) | Open::Control { bytes: Some(bytes), .. } => bytes.len(),
            _ => 0,
        }
    }
}

/// All fids of a connection, by number. `held` is what they are charged for together, in bytes: the
/// [`Budget`] that all connections share is charged for the same.
#[derive(Debug)]
pub(super) struct Fids {
    host: IpAddr,
    fids: HashMap<u32, Fid>,
    held: usize,
}

impl Fids {
    /// Those of a connection of `host`.
    pub(super) fn new(host: IpAddr) -> Fids {
        Fids { host, fids: HashMap::new(), held: 0 }
    }

    pub(super) fn get(&self, number: u32) -> Result<&Fid, Errno> {
        self.fids.get(&number).ok_or(Errno::EBADF)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Result<&mut Fid, Errno> {
        self.fids.get_mut(&number).ok_or(Errno::EBADF)
    }

    /// The fid, moved to `tree` unless it is open: long-lived fids see new generations.
    pub(super) fn get_in(&mut self, number: u32, tree: &Arc<Tree>) -> Result<&mut Fid, Errno> {
        let fid = self.get_mut(number)?;
        if matches!(fid.open, Open::No) && !Arc::ptr_eq(&fid.tree, tree) {
            fid.node = tree.same_place(&fid.tree, fid.node).ok_or(Errno::ESTALE)?;
            fid.tree = tree.clone();
        }
        Ok(fid)
    }

    /// Adds a fid that is not open.
    pub(super) fn add(
        &mut self,
        number: u32,
        tree: Arc<Tree>,
        node: Node,
        budget: &mut Budget,
    ) -> Result<(), Errno> {
        if number == NOFID || self.fids.contains_key(&number) {
            return Err(Errno::EBADF);
        }
        if self.fids.len() >= MAX_FIDS {
            return Err(Errno::EMFILE);
        }
        budget.take(self.host, &mut self.held, FID_BYTES)?;
        self.fids.insert(number, Fid { tree, node, open: Open::No });
        Ok(())
    }

    /// Marks a fid as open. If the budget is exhausted it stays closed, and `open` comes back.
    pub(super) fn set_open(
        &mut self,
        number: u32,
        open: Open,
        budget: &mut Budget,
    ) -> Result<(), (Open, Errno)> {
        let Some(fid) = self.fids.get_mut(&number) else { return Err((open, Errno::EBADF)) };
        if let Err(errno) = budget.take(self.host, &mut self.held, open.held_bytes()) {
            return Err((open, errno));
        }
        fid.open = open;
        Ok(())
    }

    pub(super) fn remove(&mut self, number: u32, budget: &mut Budget) -> Result<Fid, Errno> {
        let fid = self.fids.remove(&number).ok_or(Errno::EBADF)?;
        let less = FID_BYTES.saturating_add(fid.open.held_bytes());
        let rest = self.held.saturating_sub(less);
        budget.charge(self.host, &mut self.held, rest);
        // Memory that many fids needed is not kept for a few.
        if self.fids.capacity() > FEW_FIDS && self.fids.len() < self.fids.capacity() / 8 {
            self.fids.shrink_to_fit();
        }
        Ok(fid)
    }

    pub(super) fn remove_all(&mut self, budget: &mut Budget) -> impl Iterator<Item = Fid> + use<> {
        budget.charge(self.host, &mut self.held, 0);
        std::mem::take(&mut self.fids).into_values()
    }
}
