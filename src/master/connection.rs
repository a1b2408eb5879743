//! A connection that speaks 9P: its socket, and what is done in its turns.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::shared::{Client, Order, Shared};
use crate::conn::Conn;
use crate::error::reason;
use crate::net::send::{Outgoing, Progress};
use crate::net::tcp;

/// Serves a client until either side closes its connection.
pub(super) async fn serve(shared: Rc<Shared>, conn: Conn, client: Rc<Client>) {
    let Some(peer) = &client.peer else { return };
    let chunk_bytes = shared.engine.borrow().hub().layout().chunk_bytes();
    let end = match tcp::tune_for_sending(&peer.stream, chunk_bytes) {
        Ok(()) => peer.wait(&shared, conn, &client).await,
        Err(error) => Err(error),
    };
    shared.end(conn, end.err().map(|error| reason(&error)));
}

/// The other side.
pub(super) struct Peer {
    stream: TcpStream,
    /// What the socket has not taken as a whole.
    outgoing: RefCell<Option<Outgoing>>,
    /// The other side has closed the connection (Ok), or something went wrong.
    end: RefCell<Option<io::Result<()>>>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Peer {
        Peer { stream, outgoing: RefCell::default(), end: RefCell::default() }
    }

    /// Asks for a turn whenever there is something to read or room to send, until either side closes the connection
    /// (Ok) or something goes wrong.
    async fn wait(&self, shared: &Shared, conn: Conn, client: &Client) -> io::Result<()> {
        loop {
            let mut news = pin!(client.news());
            let ready = poll_fn(|cx| {
                let told = news.as_mut().poll(cx).is_ready();
                let waits = client.waits_for_turn();
                let reads = !waits && shared.engine.borrow().wants_input(conn);
                let blocked = !waits && self.outgoing.borrow().is_some();
                let readable = reads && self.stream.poll_read_ready(cx).is_ready();
                let writable = blocked && self.stream.poll_write_ready(cx).is_ready();
                if told || readable || writable {
                    Poll::Ready(readable || writable)
                } else {
                    Poll::Pending
                }
            })
            .await;
            if let Some(end) = self.end.take() {
                return end;
            }
            match client.order() {
                Order::Close => return Ok(()),
                Order::Finish if self.outgoing.borrow().is_none() => {
                    return drain(&self.stream).await;
                }
                Order::Serve | Order::Finish => {}
            }
            if ready {
                shared.ready(conn, client);
            }
        }
    }

    /// Reads once, and sends what there is.
    pub(super) fn turn(&self, shared: &Shared, conn: Conn) {
        let end = self.send(shared, conn).and_then(|()| match self.read(shared, conn)? {
            0 => Ok(true),
            _ => self.send(shared, conn).map(|()| false),
        });
        match end {
            Ok(false) => {}
            Ok(true) => _ = self.end.replace(Some(Ok(()))),
            Err(error) => _ = self.end.replace(Some(Err(error))),
        }
    }

    /// Reads what there is; 0 when the other side has closed the connection.
    fn read(&self, shared: &Shared, conn: Conn) -> io::Result<usize> {
        if !shared.engine.borrow().wants_input(conn) {
            return Ok(1);
        }
        let mut buffer = shared.buffer.borrow_mut();
        match self.stream.try_read(&mut buffer) {
            Ok(n) => {
                let mut bytes = buffer.get(..n).unwrap_or_default();
                // A client sends requests alone, of which nothing is to be stored.
                let now = Instant::now();
                while shared.engine.borrow_mut().receive(conn, &mut bytes, now).is_some() {}
                Ok(n)
            }
            // Nothing is as good as one byte more of nothing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// Sends what there is in this turn until there is nothing more or the socket is full.
    fn send(&self, shared: &Shared, conn: Conn) -> io::Result<()> {
        let mut engine = shared.engine.borrow_mut();
        let mut files = shared.files.borrow_mut();
        let mut waiting = self.outgoing.borrow_mut();
        loop {
            let now = Instant::now();
            let mut outgoing = match waiting.take() {
                Some(outgoing) => outgoing,
                None => {
                    let Some(output) = engine.next_output(conn, now) else { return Ok(()) };
                    match Outgoing::new(output, &mut *files) {
                        Ok(outgoing) => outgoing,
                        Err(error) => {
                            engine.output_is_unreadable(conn, reason(&error), now);
                            continue;
                        }
                    }
                }
            };
            let before = outgoing.sent();
            let mut progress = Progress::Blocked;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                progress = outgoing.advance(&SockRef::from(&self.stream), &mut *files)?;
                // Only so does tokio wait until the socket takes bytes again.
                let blocked = progress == Progress::Blocked;
                if blocked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if let Err(error) = sent
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Err(error);
            }
            match progress {
                Progress::Done => engine.output_left(conn, now),
                Progress::Paused => {
                    *waiting = Some(outgoing);
                    engine.ready(conn);
                    return Ok(());
                }
                Progress::Blocked => {
                    let progress = outgoing.sent() != before;
                    *waiting = Some(outgoing);
                    engine.output_is_blocked(conn, progress, now);
                    return Ok(());
                }
            }
        }
    }
}

/// Ends a connection on this side, and waits for the other. What still comes is read all the same, or
/// the end of the connection would take what was sent last with it.
async fn drain(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(Shutdown::Write)?;
    let mut unread = [0; 512];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut unread) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}
