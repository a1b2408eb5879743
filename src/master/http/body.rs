//! What answers carry: short texts, files read piece by piece, listings made piece by piece.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::index;
use super::socket::Answering;
use crate::conn::Conn;
use crate::image::manifest::Segment;
use crate::limits::MAX_HTTP_BYTES;
use crate::master::shared::Shared;
use crate::net::send::Files as _;
use crate::p9::errno::Errno;
use crate::serve::session::{Answer, At, Host as _};
use crate::serve::tree::{Node, Tree};

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
}

impl FilePart {
    /// The next piece, unless the limit on what is sent has to be waited for. Never a byte of a file
    /// that is not what was hashed any longer.
    fn piece(&mut self) -> Poll<io::Result<Bytes>> {
        let offset = self.rest.start;
        let len = (self.rest.end - offset).min(MAX_HTTP_BYTES as u64);
        let segment = Segment { entry: self.entry, offset, len };
        let entry = self.tree.entry(Node::Entry(self.entry));
        let start = entry.map_or(0, |entry| entry.image_range().start).saturating_add(offset);
        let at = At { conn: self.conn, now: Instant::now() };
        let range = start..start.saturating_add(len);
        let mut engine = self.shared.engine.borrow_mut();
        // Who asks for the next piece has taken the one before.
        engine.hub_mut().file_piece_sent(at);
        match engine.hub_mut().image(at, &self.tree, &range, false) {
            Answer::Now(()) => {}
            Answer::Wait => return Poll::Pending,
            Answer::Error(Errno(errno)) => {
                return Poll::Ready(Err(io::Error::from_raw_os_error(errno as i32)));
            }
        }
        drop(engine);
        Poll::Ready(self.read(&segment).inspect(|_| self.rest.start += len))
    }

    fn read(&self, segment: &Segment) -> io::Result<Bytes> {
        let mut files = self.shared.files.borrow_mut();
        let (file, offset) = files.source(&self.tree, segment)?;
        let mut bytes = vec![0; usize::try_from(segment.len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, offset)?;
        // It has not changed while it was read, or nothing is sent of it.
        files.source(&self.tree, segment)?;
        Ok(bytes.into())
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // A body that has to wait is polled again once its connection's task is notified.
        let Content { source, shared, conn, .. } = &mut *self;
        let bytes = match source {
            Source::Text(None) => None,
            Source::Text(text) => {
                let at = At { conn: *conn, now: Instant::now() };
                if !shared.engine.borrow_mut().hub_mut().may_send_text(at) {
                    return Poll::Pending;
                }
                text.take()
            }
            Source::File(part) if part.rest.is_empty() => None,
            Source::File(part) => match part.piece() {
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
