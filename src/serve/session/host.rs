//! What a session asks of the server that it belongs to.

use std::ops::Range;
use std::sync::Arc;

use super::answer::{Answer, At};
use super::budget::Budget;
use super::classic::ClassicHost;
use super::output::Data;
use crate::control::Control;
use crate::p9::errno::Errno;
use crate::serve::tree::Tree;

/// What a session asks of the server that it belongs to.
pub trait Host: ClassicHost {
    /// What is served at present.
    fn tree(&self) -> &Arc<Tree>;

    /// The memory that the fids of all connections may hold.
    fn budget(&mut self) -> &mut Budget;

    /// Is there such a control file at present?
    fn has(&self, file: Control) -> bool;

    /// A control file is opened. Some: its reads are answered from these bytes. None: from
    /// [`Host::read`].
    fn open(&mut self, at: At, file: Control) -> Result<Option<Arc<[u8]>>, Errno>;

    /// Bytes of a control file, at most `count`; none means its end.
    fn read(&mut self, at: At, file: Control, offset: u64, count: usize) -> Answer<Vec<u8>>;

    /// Something was written to a control file.
    fn write(&mut self, at: At, file: Control, data: &[u8]) -> Result<(), Errno>;

    /// An open control file was clunked, or its connection ended.
    fn clunk(&mut self, at: At, file: Control);

    /// May these bytes of the image of `tree` go out? Says up to which; a client asks for the rest again. `paced` ones
    /// are of the present tree and take turns, and [`Host::sent`] ends a turn.
    fn image(&mut self, at: At, tree: &Arc<Tree>, range: &Range<u64>, paced: bool) -> Answer<u64>;

    /// A reply with bytes of the image has left, or was dropped.
    fn sent(&mut self, at: At, data: &Data);

    /// The connection no longer waits for this control file: its last request that did was given up,
    /// or all of them are about to be made again. Requests for the image are made again without this
    /// call unless the tree has changed.
    fn cancel(&mut self, at: At, file: Control);
}
