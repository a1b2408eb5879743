//! What answers carry: short texts, files read piece by piece, listings made piece by piece.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::index;
use super::prove::{is_wrong, proof};
use super::socket::Answering;
use crate::conn::Conn;
use crate::image::chunks::ChunkId;
use crate::image::manifest::Segment;
use crate::master::proofs::{PIECE_BYTES, Proof};
use crate::master::shared::Shared;
use crate::net::send::Files as _;
use crate::p9::errno::Errno;
use crate::serve::session::{Answer, At, Host as _};
use crate::serve::tree::Tree;

/// The body of an answer.
pub(super) struct Content {
    pub(super) source: Source,
    pub(super) shared: Rc<Shared>,
    pub(super) conn: Conn,
    /// Gone when all of it was handed over.
    pub(super) _answering: Answering,
}

pub(super) enum Source {
    Text(Option<Bytes>),
    File(FilePart),
    /// A directory's listing, from the entry with this index on; None at its end.
    Listing {
        tree: Arc<Tree>,
        dir: usize,
        next: Option<usize>,
    },
}

/// A part of a file.
pub(super) struct FilePart {
    pub(super) shared: Rc<Shared>,
    pub(super) conn: Conn,
    pub(super) tree: Arc<Tree>,
    pub(super) entry: usize,
    /// What of it is still to be sent, in bytes of the file.
    pub(super) rest: Range<u64>,
    /// The chunk that the next byte is in, and what is known of it.
    pub(super) proof: Option<(ChunkId, Rc<Proof>)>,
}

/// Where the next byte of a file is.
struct Place {
    chunk: ChunkId,
    /// Which piece of the file in that chunk.
    number: usize,
    /// That piece, in bytes of the file.
    piece: Range<u64>,
}

impl FilePart {
    /// The next piece, unless the limit on what is sent has to be waited for, or what is known of the chunk. Never a
    /// byte of a file that is not what was hashed any longer.
    fn piece(&mut self, cx: &Context<'_>) -> Poll<io::Result<Bytes>> {
        let at = At { conn: self.conn, now: Instant::now() };
        // Who asks for the next piece has taken the one before.
        self.shared.engine.borrow_mut().hub_mut().file_piece_sent(at);
        let Some(place) = self.place() else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let proof = self.proof(place.chunk);
        if !ready!(proof.poll(cx)) {
            return Poll::Ready(Err(rewritten()));
        }
        let sent = self.rest.start..self.rest.end.min(place.piece.end);
        let start = self.tree.manifest().listing().image_start(self.entry);
        let range = start.saturating_add(sent.start)..start.saturating_add(sent.end);
        let mut engine = self.shared.engine.borrow_mut();
        let end = match engine.hub_mut().image(at, &self.tree, &range, false) {
            Answer::Now(end) => end.saturating_sub(start),
            Answer::Wait => return Poll::Pending,
            Answer::Error(Errno(errno)) => {
                return Poll::Ready(Err(io::Error::from_raw_os_error(errno as i32)));
            }
        };
        drop(engine);
        let sent = sent.start..end;
        let bytes = self.read(&place.piece)?;
        if !proof.fits(self.entry, place.number, &bytes) {
            is_wrong(&self.shared, place.chunk);
            return Poll::Ready(Err(rewritten()));
        }
        self.rest.start = sent.end;
        let from = sent.start.saturating_sub(place.piece.start) as usize;
        let to = sent.end.saturating_sub(place.piece.start) as usize;
        Poll::Ready(Ok(bytes.slice(from..to)))
    }

    fn place(&self) -> Option<Place> {
        let (layout, listing) = (self.tree.manifest().layout(), self.tree.manifest().listing());
        let file = listing.image_start(self.entry)..listing.image_start(self.entry + 1);
        let at = file.start.checked_add(self.rest.start).filter(|at| *at < file.end)?;
        let chunk = layout.covering(at..file.end).next()?;
        let range = layout.range(chunk);
        let first = range.start.saturating_sub(file.start);
        let end = range.end.min(file.end).saturating_sub(file.start);
        let number = self.rest.start.saturating_sub(first) / PIECE_BYTES;
        let start = first.saturating_add(number * PIECE_BYTES);
        let piece = start..start.saturating_add(PIECE_BYTES).min(end);
        Some(Place { chunk, number: number as usize, piece })
    }

    fn proof(&mut self, chunk: ChunkId) -> Rc<Proof> {
        match &self.proof {
            Some((known, proof)) if *known == chunk => proof.clone(),
            _ => {
                let proof = proof(&self.shared, self.conn, &self.tree, chunk);
                self.proof.insert((chunk, proof)).1.clone()
            }
        }
    }

    fn read(&self, piece: &Range<u64>) -> io::Result<Bytes> {
        let len = piece.end.saturating_sub(piece.start);
        let segment = Segment { entry: self.entry, offset: piece.start, len };
        let mut files = self.shared.files.borrow_mut();
        let (file, offset) = files.source(&self.tree, &segment)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, offset)?;
        // It has not changed while it was read, or nothing is sent of it.
        files.source(&self.tree, &segment)?;
        Ok(bytes.into())
    }
}

/// The response ends before its last byte, so that its client knows that it is not whole.
fn rewritten() -> io::Error {
    io::Error::other("the file is not what was hashed")
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // A body that has to wait is polled again once its connection's task is notified.
        let Content { source, shared, conn, .. } = &mut *self;
        let at = At { conn: *conn, now: Instant::now() };
        let is_text =
            matches!(source, Source::Text(Some(_)) | Source::Listing { next: Some(_), .. });
        if is_text && !shared.engine.borrow_mut().hub_mut().may_send_text(at) {
            return Poll::Pending;
        }
        let bytes = match source {
            Source::Text(text) => text.take(),
            Source::File(part) if part.rest.is_empty() => None,
            Source::File(part) => match part.piece(cx) {
                Poll::Ready(Ok(bytes)) => Some(bytes),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            },
            Source::Listing { tree, dir, next } => next.map(|from| {
                let (text, more) = index::page(tree, *dir, from);
                *next = more;
                Bytes::from(text)
            }),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_none(),
            Source::File(part) => part.rest.is_empty(),
            Source::Listing { next, .. } => next.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
            Source::File(part) => SizeHint::with_exact(part.rest.end - part.rest.start),
            Source::Listing { .. } => SizeHint::default(),
        }
    }
}
