//! Whose network the connections go over: the kernel's, or this process's own.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::own::{self, Stack};
use super::tcp;
use crate::sys::poll::{self, PollFd};

/// The network that is used.
#[derive(Clone, Debug)]
pub enum Transport {
    /// The kernel's.
    Kernel,
    /// A stack of this process.
    Own(Stack),
}

impl Transport {
    /// Begins to connect. [`Transport::awaits`] says what to wait for then, and [`Transport::made`] how
    /// it went.
    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        match self {
            Transport::Kernel => tcp::connect(address),
            Transport::Own(stack) => stack.connect(address),
        }
    }

    /// What tells that a connection which was begun is made, or cannot be made.
    pub(crate) fn awaits(&self, stream: &TcpStream) -> PollFd {
        let reads = matches!(self, Transport::Own(_));
        PollFd::new(stream.as_fd(), reads, !reads)
    }

    /// How a connection went that was waited for, and this node's address on it.
    pub(crate) fn made(&self, stream: &TcpStream) -> io::Result<IpAddr> {
        match self {
            Transport::Kernel => match stream.take_error()? {
                None => stream.local_addr().map(|own| own.ip().to_canonical()),
                Some(error) => Err(error),
            },
            Transport::Own(stack) => own::made(stream).map(|()| stack.address().into()),
        }
    }

    /// Connects, and waits for that at most so long. The stream is a blocking one.
    pub(crate) fn call(&self, address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        let until = Instant::now() + patience;
        let stream = self.connect(address)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut fds = [self.awaits(&stream)];
            poll::wait(&mut fds, Some(left))?;
            if fds.iter().any(|fd| fd.readable() || fd.writable()) {
                self.made(&stream)?;
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
        }
    }

    /// Whether there is a way to `address`; sends nothing.
    pub(crate) fn reaches(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Transport::Kernel, _) => tcp::datagrams((address, 53).into()).is_ok(),
            (Transport::Own(stack), IpAddr::V4(address)) => stack.reaches(address),
            (Transport::Own(_), IpAddr::V6(_)) => false,
        }
    }

    /// Lets connections come to `port` of `ip`, or of all addresses there are.
    pub(crate) fn listen(&self, ip: Option<IpAddr>, port: u16) -> io::Result<Listener> {
        match (self, ip) {
            (Transport::Own(stack), _) => stack.listen(port).map(Listener::Own),
            (Transport::Kernel, Some(ip)) => {
                tcp::bind((ip, port).into()).and_then(tcp::start_listening).map(Listener::Kernel)
            }
            (Transport::Kernel, None) => {
                tcp::bind_everywhere(port).and_then(tcp::start_listening).map(Listener::Kernel)
            }
        }
    }
}

/// Where others connect to.
#[derive(Debug)]
pub enum Listener {
    /// A socket of the kernel's.
    Kernel(TcpListener),
    /// One of the own stack's.
    Own(own::Listener),
}

impl Listener {
    /// Where it listens; 0 if that is not known.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Listener::Kernel(listener) => listener.local_addr().map_or(0, |own| own.port()),
            Listener::Own(listener) => listener.port(),
        }
    }

    /// The next connection that is there, non-blocking and tuned for chunks of that size; and who has
    /// made it. None: there is no more.
    pub(crate) fn accept(&self, chunk_bytes: u64) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        match self {
            Listener::Kernel(listener) => {
                let (stream, address) = listener.accept().ok()?;
                let ready = stream
                    .set_nonblocking(true)
                    .and_then(|()| tcp::tune_for_sending(&stream, chunk_bytes));
                Some(ready.map(|()| (stream, tcp::canonical(address))))
            }
            Listener::Own(listener) => listener.accept().map(Ok),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Kernel(listener) => listener.as_fd(),
            Listener::Own(listener) => listener.as_fd(),
        }
    }
}
