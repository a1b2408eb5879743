//! A connection that speaks 9P: its socket, and what the engine says about it.

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
pub(super) async fn serve(shared: Rc<Shared>, stream: TcpStream, conn: Conn, client: Rc<Client>) {
    let chunk_bytes = shared.engine.borrow().hub().layout().chunk_bytes();
    let tuned = tcp::tune(&stream).and_then(|()| tcp::limit_queue(&stream, chunk_bytes));
    let end = match tuned {
        Ok(()) => Connection { conn, outgoing: None }.serve(&shared, &stream, &client).await,
        Err(error) => Err(error),
    };
    shared.end(conn, end.err().map(|error| reason(&error)));
}

/// One client.
struct Connection {
    conn: Conn,
    /// What the socket has not taken as a whole.
    outgoing: Option<Outgoing>,
}

impl Connection {
    /// Answers until either side closes the connection (Ok) or something goes wrong.
    async fn serve(
        &mut self,
        shared: &Shared,
        stream: &TcpStream,
        client: &Client,
    ) -> io::Result<()> {
        loop {
            let reads = shared.engine.borrow().wants_input(self.conn);
            let mut news = pin!(client.news());
            let (sends, readable) = poll_fn(|cx| {
                let told = news.as_mut().poll(cx).is_ready();
                let readable = reads && stream.poll_read_ready(cx).is_ready();
                let blocked = self.outgoing.is_some();
                let writable = blocked && stream.poll_write_ready(cx).is_ready();
                if told || readable || writable {
                    Poll::Ready((writable || told && !blocked, readable))
                } else {
                    Poll::Pending
                }
            })
            .await;
            match client.order() {
                Order::Close => return Ok(()),
                Order::Finish if self.outgoing.is_none() => return drain(stream).await,
                Order::Send | Order::Finish => {}
            }
            if sends {
                self.send(shared, stream)?;
            }
            if readable && self.read(shared, stream)? == 0 {
                return Ok(());
            }
            shared.act();
        }
    }

    /// Reads what there is; 0 when the other side has closed the connection.
    fn read(&self, shared: &Shared, stream: &TcpStream) -> io::Result<usize> {
        let mut buffer = shared.buffer.borrow_mut();
        match stream.try_read(&mut buffer) {
            Ok(n) => {
                let mut bytes = buffer.get(..n).unwrap_or_default();
                // A client sends requests alone, of which nothing is to be stored.
                let now = Instant::now();
                while shared.engine.borrow_mut().receive(self.conn, &mut bytes, now).is_some() {}
                Ok(n)
            }
            // Ready it seemed, and was not: as good as one byte more of nothing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// Sends what there is until there is nothing more or the socket is full.
    fn send(&mut self, shared: &Shared, stream: &TcpStream) -> io::Result<()> {
        let mut engine = shared.engine.borrow_mut();
        let mut files = shared.files.borrow_mut();
        loop {
            let now = Instant::now();
            let mut outgoing = match self.outgoing.take() {
                Some(outgoing) => outgoing,
                None => {
                    let Some(output) = engine.next_output(self.conn, now) else { return Ok(()) };
                    match Outgoing::new(output, &mut *files) {
                        Ok(outgoing) => outgoing,
                        Err(error) => {
                            engine.output_is_unreadable(self.conn, reason(&error), now);
                            continue;
                        }
                    }
                }
            };
            let before = outgoing.sent();
            let sent = stream.try_io(Interest::WRITABLE, || {
                match outgoing.advance(&SockRef::from(stream), &mut *files)? {
                    Progress::Done => Ok(()),
                    Progress::Blocked => Err(io::ErrorKind::WouldBlock.into()),
                }
            });
            match sent {
                Ok(()) => engine.output_left(self.conn, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let progress = outgoing.sent() != before;
                    self.outgoing = Some(outgoing);
                    engine.output_is_blocked(self.conn, progress, now);
                    return Ok(());
                }
                Err(error) => return Err(error),
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
