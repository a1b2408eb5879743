//! The manifest: what a master serves, entry by entry, and the hash of every chunk of it.
//!
//! The same tree gives the same text on every machine, and the BLAKE3 hash of that text is the
//! **generation**, the name of one state of the served tree.

mod check;
mod listing;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::sync::Arc;

use blake3::Hash;

use crate::image::chunks::{ChunkId, Layout};
pub use check::{ManifestError, Problem};
pub use listing::{Content, Entry, Listing, MAX_TARGET_BYTES, Mtime, Owner, Segment};

/// A listing with the hash of each chunk, in the text that others verify against.
#[derive(Clone, Debug)]
pub struct Manifest {
    listing: Listing,
    hashes: Vec<Hash>,
    text: Arc<[u8]>,
    generation: Hash,
}

impl Manifest {
    /// Joins a listing and the hashes of its chunks, one for each and in order.
    pub fn new(listing: Listing, hashes: Vec<Hash>) -> Result<Manifest, Problem> {
        if hashes.len() != listing.layout().count() as usize {
            return Err(Problem::HashCount);
        }
        let text: Arc<[u8]> = text::print(&listing, &hashes).into_bytes().into();
        let generation = blake3::hash(&text);
        Ok(Manifest { listing, hashes, text, generation })
    }

    /// The entries and the cut.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// How the image is cut.
    pub fn layout(&self) -> &Layout {
        self.listing.layout()
    }

    /// The text, byte for byte what is hashed and signed.
    pub fn text(&self) -> &Arc<[u8]> {
        &self.text
    }

    /// The name of this state of the tree: the BLAKE3 hash of the text.
    pub fn generation(&self) -> Hash {
        self.generation
    }

    /// What a chunk must hash to.
    pub fn hash(&self, chunk: ChunkId) -> Option<&Hash> {
        self.hashes.get(chunk.index())
    }
}
