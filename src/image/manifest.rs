//! The manifest: what a master serves, entry by entry, and the hash of every chunk.
//!
//! The same tree gives the same text on every machine. The BLAKE3 hash of that text is the
//! **generation**, the name of one state of the served tree.
//!
//! [`listing`] has the entries and says where each file stands in the image, [`text`] parses and prints,
//! [`check`] says what can be wrong.

mod check;
mod listing;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::sync::Arc;

use blake3::Hash;

use crate::image::chunks::{ChunkId, Layout};
pub use check::{ManifestError, Problem};
pub(crate) use listing::Content;
pub use listing::{Entry, Listing, Mtime, Owner, Segment};

/// A listing with the hash of each chunk, and the text that says the same: others hash it, sign it and
/// verify against it.
#[derive(Clone, Debug)]
pub struct Manifest {
    listing: Listing,
    hashes: Vec<Hash>,
    text: Arc<[u8]>,
    generation: Hash,
}

impl Manifest {
    /// Joins a listing and the hashes of its chunks, in the order of the chunks.
    pub(crate) fn new(listing: Listing, hashes: Vec<Hash>) -> Result<Manifest, Problem> {
        if hashes.len() != listing.layout().count() as usize {
            return Err(Problem::HashCount);
        }
        let text: Arc<[u8]> = text::print(&listing, &hashes).into_bytes().into();
        let generation = blake3::hash(&text);
        Ok(Manifest { listing, hashes, text, generation })
    }

    pub(crate) fn listing(&self) -> &Listing {
        &self.listing
    }

    /// How the image is cut into chunks.
    pub fn layout(&self) -> &Layout {
        self.listing.layout()
    }

    /// The text, byte for byte what is hashed and signed.
    pub(crate) fn text(&self) -> &Arc<[u8]> {
        &self.text
    }

    /// The name of this state of the tree: the BLAKE3 hash of the text.
    pub fn generation(&self) -> Hash {
        self.generation
    }

    /// The hash that the bytes of a chunk must have.
    pub(crate) fn hash(&self, chunk: ChunkId) -> Option<&Hash> {
        self.hashes.get(chunk.index())
    }
}
