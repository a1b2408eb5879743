//! One direction of a connection, and the bytes in it.

use std::collections::VecDeque;
use std::ops::Range;

use super::topology::HostId;

/// Most bytes of one connection that an uplink carries before the others have their turn: this much of the
/// image, or of the rest.
const SEGMENT_BYTES: usize = 16 << 10;

/// Bytes in flight. Those of the image are generated where they arrive.
#[derive(Clone, Debug)]
pub(in crate::sim) enum Piece {
    Bytes(Vec<u8>),
    Image { range: Range<u64>, spoilt: bool },
}

impl Piece {
    pub(in crate::sim) fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Image { range, .. } => (range.end - range.start) as usize,
        }
    }

    /// Removes the first `count` bytes, which must be fewer than there are.
    pub(super) fn split_front(&mut self, count: usize) -> Piece {
        match self {
            Piece::Bytes(bytes) => {
                let rest = bytes.split_off(count);
                Piece::Bytes(std::mem::replace(bytes, rest))
            }
            Piece::Image { range, spoilt } => {
                let front = range.start..range.start + count as u64;
                range.start = front.end;
                Piece::Image { range: front, spoilt: *spoilt }
            }
        }
    }
}

/// What one side of a connection sends to the other.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) from: HostId,
    pub(super) to: HostId,
    /// The sender has not closed it.
    pub(super) open: bool,
    /// Written, not sent yet.
    pub(super) unsent: VecDeque<Piece>,
    pub(super) unsent_bytes: usize,
    /// Sent, not read yet: first what has arrived, then what is in flight.
    pub(super) sent: VecDeque<Piece>,
    pub(super) arrived_bytes: usize,
    pub(super) in_flight_bytes: usize,
    /// It is in its uplink's queue.
    pub(super) queued: bool,
    /// A write found no room.
    pub(super) blocked: bool,
}

impl Pipe {
    pub(super) fn new(from: HostId, to: HostId) -> Pipe {
        Pipe {
            from,
            to,
            open: true,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            sent: VecDeque::new(),
            arrived_bytes: 0,
            in_flight_bytes: 0,
            queued: false,
            blocked: false,
        }
    }

    pub(super) fn push(&mut self, piece: Piece) {
        self.unsent_bytes += piece.len();
        self.unsent.push_back(piece);
    }

    /// Sends a segment; returns its size. A segment ends with a part of the image, so that a chunk is cut
    /// into equal parts, which are hashed in less time.
    pub(super) fn send(&mut self) -> usize {
        let mut sent = 0;
        while let Some(first) = self.unsent.front_mut()
            && sent < SEGMENT_BYTES
        {
            let is_image = matches!(first, Piece::Image { .. });
            let room = if is_image { SEGMENT_BYTES } else { SEGMENT_BYTES - sent };
            let part = if first.len() <= room {
                self.unsent.pop_front()
            } else {
                Some(first.split_front(room))
            };
            sent += part.as_ref().map_or(0, Piece::len);
            self.sent.extend(part);
            if is_image {
                break;
            }
        }
        self.unsent_bytes -= sent;
        self.in_flight_bytes += sent;
        sent
    }
}
