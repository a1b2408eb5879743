//! TCP without the kernel's: smoltcp over the frames of a link on which the kernel has no address.
//!
//! A thread has the link and all connections. Of each connection the program gets one end of a local
//! stream socket, which it uses as if it were the connection itself; the thread passes bytes between
//! the other end and smoltcp's buffers. So whatever waits in poll(2), reads and writes works with both
//! networks alike.
//!
//! ```text
//!  the program                     the thread
//!  Stack ─────── orders ─────────► worker ─── link ─── packet socket
//!  TcpStream ◄── local socket ───►   └ connection ─ smoltcp
//! ```
//!
//! Only IPv4, and only TCP. What can be held is bounded: the connections, and the bytes of each.

mod config;
mod connection;
mod link;
mod worker;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use socket2::SockRef;

use crate::error::Error;
use crate::sys::frames::FrameSocket;
pub(crate) use config::MOST_ROUTES;
pub use config::{Config, Route};
use link::Link;
use worker::Worker;

/// What may wait on the program's side of a connection, in bytes: little, since whoever has written it
/// takes it for sent.
const WAITS_BYTES: usize = 64 << 10;

/// The stack. Its clones are the same one; with the last of them its connections end.
#[derive(Clone, Debug)]
pub struct Stack(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    orders: Sender<Order>,
    waker: UnixStream,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread is asked for.
enum Order {
    /// A connection; `end` is the thread's end of it.
    Dial { to: SocketAddrV4, end: UnixStream },
    /// To accept connections.
    Listen { port: u16, queue: Sender<Accepted>, waker: UnixStream },
    /// To end.
    End,
}

/// A connection that somebody else has made, and who.
type Accepted = (TcpStream, SocketAddr);

impl Stack {
    /// Takes hold of the link and begins. The link has to be up, and to stay so.
    ///
    /// # Errors
    /// There is no such link, it is no Ethernet, or this process may not use packet sockets (it needs
    /// `CAP_NET_RAW`).
    pub(crate) fn start(config: &Config, seed: u64) -> Result<Stack, Error> {
        let socket = FrameSocket::open(&config.link, config.address.addr())
            .map_err(Error::file("open a packet socket on", &config.link))?;
        let link = Link::new(socket, config.mtu);
        let (waker, wakeups) = pair().map_err(Error::system("create a local socket"))?;
        let (orders, taken) = mpsc::channel();
        let worker = Worker::new(link, config.clone(), taken, wakeups, seed);
        let thread = thread::Builder::new().name("net".into()).spawn(move || worker.run());
        let thread = Mutex::new(Some(thread.map_err(Error::system("start a thread"))?));
        Ok(Stack(Arc::new(Shared { config: config.clone(), orders, waker, thread })))
    }

    /// This node's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.0.config.address.addr()
    }

    /// Whether there is a way to an address.
    pub(crate) fn reaches(&self, ip: Ipv4Addr) -> bool {
        config::is_host(ip) && self.0.config.next_hop(ip).is_some()
    }

    /// Begins to connect. The stream becomes readable when it is known how that went, and [`made`]
    /// tells. Non-blocking.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let to = self.way_to(to)?;
        let (stream, end) = pair()?;
        self.order(Order::Dial { to, end })?;
        Ok(OwnedFd::from(stream).into())
    }

    /// Lets connections come to `port`.
    pub(crate) fn listen(&self, port: u16) -> io::Result<Listener> {
        let (wakeups, waker) = pair()?;
        let (queue, accepted) = mpsc::channel();
        self.order(Order::Listen { port, queue, waker })?;
        Ok(Listener { port, accepted, wakeups })
    }

    fn way_to(&self, to: SocketAddr) -> io::Result<SocketAddrV4> {
        match to {
            SocketAddr::V4(to) if self.reaches(*to.ip()) && to.port() != 0 => Ok(to),
            _ => Err(io::Error::from_raw_os_error(libc::ENETUNREACH)),
        }
    }

    fn order(&self, order: Order) -> io::Result<()> {
        self.0.order(order)
    }
}

impl Shared {
    fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        wake(&self.waker);
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.order(Order::End);
        let thread = self.thread.get_mut().ok().and_then(Option::take);
        let _ = thread.map(JoinHandle::join);
    }
}

/// How a connection that was begun with [`Stack::connect`] went; `WouldBlock` if that is not known yet.
pub(crate) fn made(mut stream: &TcpStream) -> io::Result<()> {
    let mut outcome = [0];
    match stream.read(&mut outcome)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => match outcome {
            [0] => Ok(()),
            [error] => Err(io::Error::from_raw_os_error(error.into())),
        },
    }
}

/// Where connections come in; it is readable while there are any.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    accepted: Receiver<Accepted>,
    wakeups: UnixStream,
}

impl Listener {
    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next connection, non-blocking, and who has made it.
    pub(crate) fn accept(&self) -> Option<Accepted> {
        drain(&self.wakeups);
        self.accepted.try_recv().ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeups.as_fd()
    }
}

/// The two ends of a local connection, both non-blocking.
fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = UnixStream::pair()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    SockRef::from(&one).set_send_buffer_size(WAITS_BYTES)?;
    Ok((one, other))
}

/// Wakes the thread that waits at the other end. A full socket is readable there already.
fn wake(mut waker: &UnixStream) {
    let _ = waker.write(&[0]);
}

/// Empties the socket, so that the next wait blocks.
fn drain(mut wakeups: &UnixStream) {
    let mut bytes = [0; 64];
    while wakeups.read(&mut bytes).is_ok_and(|n| n == bytes.len()) {}
}
