//! TCP sockets, set up as this program needs them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::limits::{BACKLOG, KEEPALIVE, USER_TIMEOUT};

/// Shortest and longest limit of what may wait in a socket's queue, in bytes.
const MIN_UNSENT_BYTES: u64 = 32 << 10;
const MAX_UNSENT_BYTES: u64 = 256 << 10;

/// Takes `address` for listening later; `[::]` takes IPv4 as well. Non-blocking.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Takes `port` of every address, IPv6 too where the kernel has it.
pub(crate) fn bind_everywhere(port: u16) -> io::Result<Socket> {
    match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error)
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                || error.kind() == io::ErrorKind::AddrNotAvailable =>
        {
            bind((Ipv4Addr::UNSPECIFIED, port).into())
        }
        other => other,
    }
}

/// Lets connections come to a socket from [`bind`]; until then they are refused.
pub(crate) fn start_listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The address as people know it: an IPv4 peer of an IPv6 socket is an IPv4 peer.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Begins to connect; the socket becomes writable when it is known how that went.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => {
            tune(&socket)?;
            Ok(socket.into())
        }
    }
}

/// A UDP socket that exchanges datagrams with `address` alone: the kernel drops what comes from anybody
/// else, and tells when nobody listens. It picks the port at random.
pub(crate) fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Keeps the queue of a socket that chunks are sent on short: at most half a chunk that has not left
/// yet. A turn at sending ends when its last byte is queued; with more in the queue the turns would
/// say little, and everybody would be sent to at once, slowly. Very short queues cost wake-ups.
fn limit_queue<'s>(socket: impl Into<SockRef<'s>>, chunk_bytes: u64) -> io::Result<()> {
    let unsent_bytes = (chunk_bytes / 2).clamp(MIN_UNSENT_BYTES, MAX_UNSENT_BYTES);
    socket.into().set_tcp_notsent_lowat(unsent_bytes as u32)
}

/// Sets a connected socket up: no waiting for more, dead peers noticed.
pub(crate) fn tune<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    socket.set_tcp_keepalive(&keepalive)
}

/// Sets up a connection on which chunks of that size are sent.
pub(crate) fn tune_for_sending(stream: &impl AsFd, chunk_bytes: u64) -> io::Result<()> {
    tune(stream)?;
    limit_queue(stream, chunk_bytes)
}

/// Whether the same may succeed later.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_power_is_noticed() {
        let listener = start_listening(bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
        let stream = connect(listener.local_addr().unwrap()).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
