//! Whose turn it is to be sent something: a chunk, or a piece of a file.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Instant;

use super::Hub;
#[cfg(feature = "master")]
use crate::conn::Conn;
use crate::serve::flows::Share;
use crate::serve::session::At;

/// A reply beside others is cut off here, or after as much as a chunk, which nodes read as a whole: on a connection that
/// has been idle, a long one fills the queues of a link before TCP learns how much fits into them.
const SHORT_READ_BYTES: u64 = 64 << 10;

impl Hub {
    /// Up to which byte of `range` a connection may be sent something, if it is its turn. If not, it waits.
    ///
    /// A master expects that nodes read what it has granted them. Any other read of the image is served as one of a
    /// file is, and beside nodes gets as much as one of their slots.
    pub(super) fn turn(
        &mut self,
        at: At,
        host: IpAddr,
        range: &Range<u64>,
        paced: bool,
    ) -> Option<u64> {
        let layout = self.layout();
        let chunk = layout.covering(range.clone()).next();
        let grants = self.grants.as_ref();
        if paced && grants.is_none_or(|grants| grants.expects(at.conn, chunk)) {
            return self.uploads.ask(at.conn, host, at.now).then_some(range.end);
        }
        let share = self.share(host, at.now);
        let most = if share.alone { u64::MAX } else { layout.chunk_bytes().max(SHORT_READ_BYTES) };
        let end = range.end.min(range.start.saturating_add(most));
        let bytes = end.saturating_sub(range.start);
        if !self.flows.ask(at.conn, host, bytes, share, at.now) {
            return None;
        }
        self.uploads.note(host, at.now);
        Some(end)
    }

    /// Those are woken who wait for a piece of a file and may have it by now.
    pub(super) fn offer_pieces(&mut self, now: Instant) {
        let mut flows = std::mem::take(&mut self.flows);
        self.wakes.extend(flows.tick(|host| self.share(host, now), now));
        self.flows = flows;
    }

    /// What a host gets of that which is no node's.
    fn share(&self, host: IpAddr, now: Instant) -> Share {
        let granted = self.grants.as_ref().filter(|grants| grants.feeds_others(host));
        let slots = self.uploads.slots().max(1) as u64;
        Share {
            alone: !self.uploads.has_others(host, now),
            bytes_per_s: granted.map(|grants| grants.rate(now) / slots),
        }
    }

    /// A connection has been sent a piece of a file.
    pub(crate) fn file_piece_sent(&mut self, at: At) {
        if self.flows.sent(at.conn, self.members.host(at.conn), at.now) {
            self.wakes.insert(at.conn);
        }
    }

    /// Whether it is the turn of a connection that speaks HTTP to be sent a text. If not, it waits.
    #[cfg(feature = "master")]
    pub(crate) fn may_send_text(&mut self, at: At) -> bool {
        self.file_piece_sent(at);
        // A page now and then does not make another host less alone.
        let host = self.members.host(at.conn);
        self.flows.ask(at.conn, host, 0, self.share(host, at.now), at.now)
    }

    /// Nothing is on its way any more to a connection that speaks HTTP.
    #[cfg(feature = "master")]
    pub(crate) fn answer_left(&mut self, conn: Conn) {
        let host = self.members.host(conn);
        self.flows.ended(conn, host);
        if let Some(rate_limit) = &mut self.rate_limit {
            rate_limit.cancel(conn);
        }
    }
}
