//! The manifest: what a master serves, entry by entry, and the hash of every chunk.
//!
//! The same tree gives the same text on every machine. The BLAKE3 hash of that text is the
//! **generation**, the name of one state of the served tree.
//!
//! [`entry`] is a file, directory or link, [`listing`] sorts entries and says where each file stands in the
//! image, [`check`] that they form one tree, [`text`] parses and prints; `make` is for those who have a tree.

mod check;
mod entry;
mod error;
mod links;
mod listing;
#[cfg(any(test, feature = "master", feature = "plain", feature = "simulator"))]
mod make;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::sync::Arc;

use blake3::Hash;

use crate::image::chunks::{ChunkId, Layout};
pub(crate) use entry::Content;
pub use entry::{Entry, Mtime, Owner};
pub use error::{ManifestError, Problem};
pub(crate) use links::Unresolved;
pub use listing::{Listing, Segment};

/// A listing with the hash of each chunk, and the text that says the same: others hash it, sign it and
/// verify against it. A clone shares all of it.
#[derive(Clone, Debug)]
pub struct Manifest {
    listing: Listing,
    hashes: Arc<[Hash]>,
    generation: Hash,
}

impl Manifest {
    fn of(listing: Listing, hashes: Vec<Hash>) -> Manifest {
        let generation = blake3::hash(listing.text());
        Manifest { listing, hashes: hashes.into(), generation }
    }

    /// Parses a manifest's text.
    ///
    /// Only the text that `Manifest::new` would print is accepted (the canonical form): one state of
    /// a tree has one text and so one generation.
    pub fn parse(text: impl Into<Arc<[u8]>>) -> Result<Manifest, ManifestError> {
        let (listing, hashes) = text::parse(text.into())?;
        if hashes.len() != listing.layout().count() as usize {
            return Err(ManifestError { line: None, problem: Problem::HashCount });
        }
        Ok(Manifest::of(listing, hashes))
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
        self.listing.text()
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
