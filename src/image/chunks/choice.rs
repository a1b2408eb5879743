//! The size of chunks, which whoever makes a manifest chooses.

use super::{Layout, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};

/// An image that would have more chunks than this gets larger ones, up to the largest.
const MANY_CHUNKS: u64 = 2048;

impl Layout {
    /// The layout that a master chooses for an image of this size.
    pub(crate) fn for_image(image_bytes: u64) -> Layout {
        let mut chunk_bytes = MIN_CHUNK_BYTES;
        while chunk_bytes < MAX_CHUNK_BYTES && image_bytes.div_ceil(chunk_bytes) > MANY_CHUNKS {
            chunk_bytes *= 2;
        }
        Layout { image_bytes, chunk_bytes }
    }
}
