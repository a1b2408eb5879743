//! The module `classic_clients` of a build without the feature `classic`: there are none.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use crate::conn::Conn;
use crate::serve::tree::Tree;

/// Whether this program serves clients of 2009.
pub(crate) const SERVES_CLASSIC: bool = false;

#[derive(Debug, Default)]
pub(super) struct ClassicClients {}

impl ClassicClients {
    pub(super) fn after_change(self, _: &Tree, _: &Tree) -> ClassicClients {
        self
    }

    pub(super) fn disconnected(&mut self, _: Conn) {}

    pub(super) fn node_joined(&mut self, _: Conn, _all_files: bool) {}

    pub(super) fn is_drawn_from(&self, _: Instant) -> bool {
        false
    }

    pub(super) fn status(&self, _: impl Fn(Conn) -> Option<SocketAddr>, _: Instant) -> String {
        String::new()
    }

    pub(super) fn next_checksum(&mut self) -> Option<usize> {
        None
    }

    pub(super) fn checksum_found(&mut self, _entry: usize, _: Option<u32>) -> BTreeSet<Conn> {
        BTreeSet::new()
    }
}
