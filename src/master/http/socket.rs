//! A connection as hyper wants it, which counts what goes through.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes read at a time: requests are short.
const READ_BYTES: usize = 2048;

/// What is going on on a connection.
#[derive(Default)]
pub(super) struct Traffic {
    sent_bytes: Cell<u64>,
    requests: Cell<u64>,
    /// Answers that have not been handed over to the connection as a whole.
    answering: Cell<u32>,
    /// The other side took nothing when it was last tried.
    blocked: Cell<bool>,
    /// What was answered last is kept in memory until all of it has left.
    in_memory: Cell<bool>,
    /// Bytes that were read and not yet told of.
    read_bytes: Cell<usize>,
    /// Nothing is to be read at present.
    full: Cell<bool>,
}

impl Traffic {
    /// Changes with every request that comes and every byte that leaves. Bytes of what is kept in memory do not
    /// count: there is a time for all of them together.
    pub(super) fn progress(&self) -> (u64, u64) {
        let sent_bytes = if self.in_memory.get() { 0 } else { self.sent_bytes.get() };
        (self.requests.get(), sent_bytes)
    }

    /// Whether what is answered now is kept in memory.
    pub(super) fn answers_from_memory(&self, in_memory: bool) {
        self.in_memory.set(in_memory);
    }

    /// Bytes that were read since the last call.
    pub(super) fn take_read_bytes(&self) -> usize {
        self.read_bytes.take()
    }

    /// Whether bytes are to be read.
    pub(super) fn lets_read(&self, reads: bool) {
        self.full.set(!reads);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    pub(super) fn is_answering(&self) -> bool {
        self.answering.get() > 0
    }

    /// A request has come; its answer is on its way for as long as what is returned lives.
    pub(super) fn request(self: &Rc<Self>) -> Answering {
        self.requests.set(self.requests.get().wrapping_add(1));
        self.answering.set(self.answering.get().saturating_add(1));
        Answering(self.clone())
    }
}

/// An answer that is on its way.
pub(super) struct Answering(Rc<Traffic>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.set(self.0.answering.get().saturating_sub(1));
    }
}

/// A TCP connection.
pub(super) struct Socket {
    stream: TcpStream,
    traffic: Rc<Traffic>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, traffic: Rc<Traffic>) -> Socket {
        Socket { stream, traffic }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            self.traffic.blocked.set(true);
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = send(&self.stream);
            if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                continue;
            }
            self.traffic.blocked.set(false);
            let sent_bytes = self.traffic.sent_bytes.get();
            let n = *sent.as_ref().unwrap_or(&0) as u64;
            self.traffic.sent_bytes.set(sent_bytes.saturating_add(n));
            return Poll::Ready(sent);
        }
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.traffic.full.get() {
            // The connection has a turn when that may be otherwise.
            return Poll::Pending;
        }
        let mut bytes = [0; READ_BYTES];
        let room = bytes.get_mut(..buf.remaining().min(READ_BYTES)).unwrap_or_default();
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(room) {
                Ok(n) => {
                    self.traffic.read_bytes.set(self.traffic.read_bytes.get() + n);
                    buf.put_slice(room.get(..n).unwrap_or_default());
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Write for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.stream).shutdown(Shutdown::Write))
    }
}
