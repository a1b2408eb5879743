//! Making a manifest of a tree.

use std::sync::Arc;

use blake3::{Hash, OUT_LEN};

use super::Manifest;
use super::entry::{Content, Entry};
use super::error::{HEADING, Problem};
use super::listing::{Builder, Listing};
use super::text::print_entry;
use crate::image::chunks::Layout;

/// Bytes of the line of a hash.
const HASH_LINE_BYTES: usize = "hash \n".len() + 2 * OUT_LEN;

impl Manifest {
    /// Joins a listing and the hashes of its chunks, in the order of the chunks.
    pub(crate) fn new(listing: Listing, hashes: Vec<Hash>) -> Result<Manifest, Problem> {
        if hashes.len() != listing.layout().count() as usize {
            return Err(Problem::HashCount);
        }
        let text = print(&listing, &hashes);
        Ok(Manifest::of(listing.with_text(text), hashes))
    }
}

impl Listing {
    /// Sorts entries, lays their files end to end and chooses the size of chunks.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Result<Listing, Problem> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let image_bytes = entries.iter().map(Entry::bytes).fold(0, u64::saturating_add);
        Listing::of_sorted(entries.into_iter(), image_bytes)
    }

    /// The same for entries that are sorted, whose files have so many bytes. None is kept in memory as such.
    pub(crate) fn of_sorted(
        entries: impl ExactSizeIterator<Item = Entry>,
        image_bytes: u64,
    ) -> Result<Listing, Problem> {
        let chunk_bytes = Layout::for_image(image_bytes).chunk_bytes();
        let mut builder = Builder::with_capacity(entries.len());
        let mut text = heading(chunk_bytes);
        for entry in entries {
            let path_at = print_entry(&mut text, &entry);
            builder.add(entry, path_at)?;
        }
        builder.finish(text.into_bytes().into(), chunk_bytes)
    }

    /// All entries in order; the root is the first.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> + '_ {
        (0..self.len()).filter_map(|index| self.entry(index))
    }

    /// The same listing in a text that begins like its own.
    fn with_text(mut self, text: Arc<[u8]>) -> Listing {
        self.text = text;
        self
    }
}

impl Entry {
    /// Bytes of a file; 0 for directories and links.
    pub(crate) fn bytes(&self) -> u64 {
        match self.content {
            Content::File { bytes, .. } => bytes,
            _ => 0,
        }
    }
}

/// The text of a listing and the hashes of its chunks.
fn print(listing: &Listing, hashes: &[Hash]) -> Arc<[u8]> {
    let own = listing.own_text();
    let mut text = Vec::with_capacity(own.len() + 1 + hashes.len() * HASH_LINE_BYTES);
    text.extend_from_slice(own);
    text.push(b'\n');
    for hash in hashes {
        for part in ["hash ", &hash.to_hex(), "\n"] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    text.into()
}

/// The lines before the first entry.
fn heading(chunk_bytes: u64) -> String {
    format!("{HEADING}\nchunk {chunk_bytes}\n")
}
