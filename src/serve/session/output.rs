//! What a session has to send.

use std::ops::Range;
use std::sync::Arc;

#[cfg(doc)]
use super::Host;
use crate::p9::message::{RREAD, RREAD_HEADER_BYTES};
use crate::serve::tree::Tree;

/// Something to send.
#[derive(Debug)]
pub enum Output {
    /// These bytes.
    Reply(Vec<u8>),
    /// A header and a part of the image.
    Data(Data),
}

/// An Rread whose bytes the driver takes from where they are stored.
#[derive(Clone, Debug)]
pub struct Data {
    pub(super) tag: u16,
    /// The state of the tree that the range belongs to.
    pub tree: Arc<Tree>,
    /// Which bytes of the image.
    pub range: Range<u64>,
    /// Whether the driver has to report [`Host::sent`].
    pub paced: bool,
}

impl Data {
    /// The header to send before the bytes.
    pub fn header(&self) -> [u8; RREAD_HEADER_BYTES] {
        let count = (self.range.end - self.range.start) as u32;
        let [a, b, c, d] = (RREAD_HEADER_BYTES as u32 + count).to_le_bytes();
        let [e, f] = self.tag.to_le_bytes();
        let [g, h, i, j] = count.to_le_bytes();
        [a, b, c, d, RREAD, e, f, g, h, i, j]
    }
}
