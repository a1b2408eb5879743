//! Chunks on their way: asked for, hashed as their bytes come, and verified.

use std::borrow::Cow;
use std::time::Instant;

use super::{Action, Event, Fault, Fetch, Incoming};
use crate::conn::Conn;
use crate::control::WrongChunk;
use crate::image::chunks::ChunkId;
use crate::limits::MAX_WRONG_CHUNKS;

impl Fetch {
    pub(super) fn request(&mut self, conn: Conn, chunk: ChunkId, now: Instant) {
        let apart = self.sources.values().any(|source| {
            source.transfers.iter().any(|other| other.chunk == chunk && other.apart.is_none())
        });
        let range = self.manifest.layout().range(chunk);
        let Some(source) = self.sources.get_mut(&conn) else { return };
        if !source.fetch(chunk, &range, apart) {
            // Too many small pieces: this source has to wait until some of them have come.
            self.scheduler.ended(conn, chunk, false, now);
        }
    }

    /// Bytes of a chunk: hashed, then stored at once or kept apart.
    pub(super) fn chunk_bytes<'a>(
        &mut self,
        conn: Conn,
        chunk: ChunkId,
        offset: u64,
        bytes: &'a [u8],
        now: Instant,
    ) -> Option<Incoming<'a>> {
        self.scheduler.progressed(conn, chunk, now);
        let needed = self.missing().contains(chunk);
        let range = self.manifest.layout().range(chunk);
        let source = self.sources.get_mut(&conn)?;
        let transfer = source.transfers.iter_mut().find(|transfer| transfer.chunk == chunk)?;
        // Pieces come in the order in which they were asked for; a gap ends as a wrong hash.
        transfer.hasher.update(bytes);
        transfer.came += bytes.len() as u64;
        if let Some(apart) = &mut transfer.apart {
            apart.extend_from_slice(bytes);
            return None;
        }
        let image_offset = range.start.saturating_add(offset);
        needed.then_some(Incoming::Bytes { image_offset, bytes: Cow::Borrowed(bytes) })
    }

    pub(super) fn piece_ended(
        &mut self,
        conn: Conn,
        chunk: ChunkId,
        offset: u32,
        count: u32,
        now: Instant,
    ) -> Result<(), Fault> {
        let range = self.manifest.layout().range(chunk);
        let expected = range.end - range.start;
        let Some(source) = self.sources.get_mut(&conn) else { return Ok(()) };
        let Some(i) = source.transfers.iter().position(|t| t.chunk == chunk) else { return Ok(()) };
        if let Some(transfer) = source.transfers.get_mut(i) {
            transfer.tags.retain(|(piece, _)| *piece != offset);
            if transfer.came < expected && count > 0 && !transfer.tags.is_empty() {
                return Ok(());
            }
        }
        let transfer = source.transfers.swap_remove(i);
        for (_, tag) in &transfer.tags {
            source.client.flush(*tag);
        }
        let address = source.address;
        let right = self.manifest.hash(chunk) == Some(&transfer.hasher.finalize());
        self.changed = true;
        let since = self.scheduler.asked_since(conn, chunk);
        let needed = self.scheduler.missing().contains(chunk);
        self.scheduler.ended(conn, chunk, right, now);
        let share = self.shares.entry(address).or_default();
        if !right {
            share.wrong = share.wrong.saturating_add(1);
            source.wrong += 1;
            // A source that lies once and is dialed again has lied twice; but the files of the origin may have
            // changed under it.
            let wrong = if source.is_origin { source.wrong } else { share.wrong };
            self.trouble(&WrongChunk { from: address, chunk: chunk.get() }.to_string());
            self.actions.push_back(Action::Report(Event::WrongChunk(address, chunk)));
            return if wrong >= MAX_WRONG_CHUNKS { Err(Fault::WrongChunks) } else { Ok(()) };
        }
        if let Some(since) = since {
            self.scheduler.measured(conn, now.saturating_duration_since(since));
        }
        if !needed {
            return Ok(());
        }
        share.bytes = share.bytes.saturating_add(expected);
        source.brought += 1;
        source.refused = 0;
        if let Some(bytes) = transfer.apart {
            let bytes = Cow::Owned(bytes);
            self.ready.push_back(Incoming::Bytes { image_offset: range.start, bytes });
        }
        self.order.push(chunk);
        self.progress = Some(now);
        self.somebody_speaks();
        self.ready.push_back(Incoming::Verified(chunk));
        Ok(())
    }
}
