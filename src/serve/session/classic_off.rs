//! The module `classic` of a build without that feature: a client of 2009 gets the errors that any
//! client gets that asks for files which do not exist.

use std::fmt;

use super::access::Access;
use super::answer::{Answer, At};
use super::fids::Open;
use crate::limits::MAX_PARKED;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{Dialect, Stat};
use crate::serve::tree::{ClassicFile, Node, Tree};

/// Nothing is asked of a host.
pub trait ClassicHost {}

impl<T> ClassicHost for T {}

/// Never happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailed {}

impl fmt::Display for ReadFailed {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

#[derive(Debug, Default)]
pub(super) struct State {}

impl State {
    pub(super) fn notice(&mut self, _: &Message<'_>) {}

    pub(super) fn walk(&self, _: Dialect, _: &Tree, _: Node, _: &[u8]) -> Option<Node> {
        None
    }

    pub(super) fn open_log(
        &mut self,
        _: Dialect,
        _: &Tree,
        _: Node,
        _: &Access,
        _: &mut impl ClassicHost,
        _: At,
    ) -> Option<&'static [u8]> {
        None
    }

    pub(super) fn open(
        &mut self,
        _: usize,
        file: ClassicFile,
        _: &Access,
        _: &mut impl ClassicHost,
        _: At,
    ) -> Result<Option<Open>, Errno> {
        match file {}
    }

    pub(super) fn files_are_directories(&self) -> bool {
        false
    }

    pub(super) fn lists(&self, _qid_kind: u8) -> bool {
        true
    }

    pub(super) fn shown<'s>(&self, _: Node, stat: Stat<'s>) -> Stat<'s> {
        stat
    }

    pub(super) fn reading(&self, _: &mut impl ClassicHost, _: At) {}

    pub(super) fn max_parked(&self) -> usize {
        MAX_PARKED
    }

    pub(super) fn failed(&self, _: Errno) -> Option<ReadFailed> {
        None
    }

    pub(super) fn lacks_fids(&self, _: Errno) -> Option<ReadFailed> {
        None
    }

    pub(super) fn lost(&self, _: &impl ClassicHost, _: At) -> Option<ReadFailed> {
        None
    }
}

pub(super) fn is_readable(file: ClassicFile) -> bool {
    match file {}
}

pub(super) fn read(_: &mut impl ClassicHost, _: At, _: usize, file: ClassicFile) -> Answer<String> {
    match file {}
}

pub(super) fn write(
    _: &mut impl ClassicHost,
    _: At,
    _: usize,
    file: ClassicFile,
    _: &[u8],
) -> Result<(), Errno> {
    match file {}
}

pub(super) fn release(_: &mut impl ClassicHost, _: At, _: usize, file: ClassicFile) {
    match file {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::p9::wire::Qid;
    use crate::serve::session::testing::*;

    const FID: u32 = 5;

    #[test]
    fn a_client_of_2009_is_told_that_there_is_no_log_and_no_data() {
        let mut peer = Peer::new(Dialect::Unix);
        let log = Message::Twalk { fid: ROOT_FID, newfid: FID, wname: names(&["log"]) };
        assert_eq!(peer.refused(&log), Errno::ENOENT);
        let Message::Rwalk { wqid } = peer.walk(FID, "boot.cfg/data") else { panic!() };
        assert_eq!(wqid.len(), 1, "nobody walks through a file");
        peer.close();
    }

    #[test]
    fn a_real_log_cannot_be_opened_for_writing_and_files_stay_files() {
        let mut peer = Peer::new(Dialect::Unix);
        peer.host.tree = tree_with([file(b"log", 3)]);
        peer.walk(FID, "log");
        assert_eq!(peer.refused(&Message::Topen { fid: FID, mode: 2 }), Errno::EROFS);
        let Message::Rstat { stat } = peer.ask(&Message::Tstat { fid: FID }) else { panic!() };
        assert_eq!(stat.qid.kind, Qid::FILE);
        peer.close();
    }
}
