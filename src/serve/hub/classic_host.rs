//! What a hub does for classic clients (the xget of 2009).

use std::net::SocketAddr;

use super::Hub;
use crate::control::SourceAddress;
use crate::p9::errno::Errno;
use crate::serve::session::{Answer, At, ClassicHost};
use crate::serve::tree::Node;

/// What a client is told that should fetch from here.
const ME: &str = "me";

impl Hub {
    /// Whether [`Hub::next_checksum`] has something to compute.
    pub(crate) fn wants_checksum(&self) -> bool {
        self.classic.wants_checksum()
    }
}

impl ClassicHost for Hub {
    fn classic_seen(&mut self, at: At) {
        self.classic.seen(at.conn, at.now);
    }

    fn classic_redirect(&mut self, at: At, entry: usize) -> String {
        let Some(asker) = self.members.get(at.conn).map(|member| member.peer.ip()) else {
            return ME.to_owned();
        };
        let whole = self.members.whole(self.held.len(), |node| self.classic.may_name(node));
        match self.classic.redirect(entry, at.conn, asker, whole) {
            Some(address) => SourceAddress(address).to_string(),
            None => ME.to_owned(),
        }
    }

    fn classic_offer(&mut self, at: At, entry: usize, text: &[u8]) -> Result<(), Errno> {
        let text = text.split(|&b| b == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?.trim();
        let (port, source) = text.split_once(' ').unwrap_or((text, ME));
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(Errno::EINVAL)?;
        let peer = self.members.get(at.conn).ok_or(Errno::EIO)?.peer;
        let source = SourceAddress::parse(source.trim()).map(|source| source.0);
        self.classic_seen(at);
        self.classic.offer(entry, at.conn, SocketAddr::new(peer.ip(), port), source);
        Ok(())
    }

    fn classic_withdraw(&mut self, at: At, entry: usize) {
        self.classic.withdraw(entry, at.conn);
    }

    fn classic_checksum(&mut self, at: At, entry: usize) -> Answer<u32> {
        let Some(range) = self.tree.entry(Node::Entry(entry)).map(|entry| entry.image_range())
        else {
            return Answer::Error(Errno::ESTALE);
        };
        if self.layout().covering(range.clone()).any(|chunk| !self.held.contains(chunk)) {
            // A node that does not have the file yet.
            let tree = self.tree.clone();
            return self.wait_for_chunks(at, &tree, &range);
        }
        self.classic.checksum(entry, range.is_empty(), at.conn)
    }

    fn classic_reads(&mut self, at: At) {
        self.classic.reads(at.conn, at.now);
    }

    fn classic_is_lost(&self, at: At) -> bool {
        self.classic.is_lost(at.conn)
    }
}

#[cfg(test)]
mod tests;
