//! Nodes that classic clients can be sent to.

use std::net::SocketAddr;

use super::Members;
use crate::conn::Conn;

impl Members {
    /// Some of the `eligible` nodes that hold all of so many chunks, the least named first.
    pub(in crate::serve) fn whole(
        &self,
        chunks: u32,
        eligible: impl Fn(Conn) -> bool,
    ) -> Vec<SocketAddr> {
        let nodes = self.turns.iter().map(|turn| turn.2).filter(|conn| eligible(*conn));
        let nodes = nodes.filter_map(|conn| self.get(conn));
        let whole = nodes.filter(|node| node.held.len() == chunks);
        whole.filter_map(|node| node.serves).take(self.rules.max_sources).collect()
    }
}
