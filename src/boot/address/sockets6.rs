//! The sockets of DHCPv6: UDP, each from the own address of one link.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

/// Where clients listen and servers do, and the address of all of those (RFC 8415, sections 7.1 and 7.2).
const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// One for each link on which DHCPv6 runs.
#[derive(Debug, Default)]
pub(super) struct Sockets6(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    link: u32,
    source: Ipv6Addr,
    socket: UdpSocket,
}

impl Sockets6 {
    /// Sends a message to all servers on the link.
    pub(super) fn send(&mut self, link: u32, source: Ipv6Addr, message: &[u8]) -> io::Result<()> {
        let is_it = |one: &Socket| (one.link, one.source) == (link, source);
        if !self.0.iter().any(is_it) {
            self.0.retain(|one| one.link != link);
            let socket = UdpSocket::bind(SocketAddrV6::new(source, CLIENT_PORT, 0, link))?;
            socket.set_nonblocking(true)?;
            self.0.push(Socket { link, source, socket });
        }
        let to = SocketAddrV6::new(ALL_SERVERS, SERVER_PORT, 0, link);
        let one = self.0.iter().find(|one| is_it(one));
        one.map_or(Ok(()), |one| one.socket.send_to(message, to).map(drop))
    }

    /// The next message that has come from a server's port or a relay's, with its link.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<(u32, Ipv6Addr, &'a [u8])> {
        for Socket { link, socket, .. } in &self.0 {
            // Whatever else goes wrong with a link, the kernel tells of it.
            while let Ok((length, from)) = socket.recv_from(buffer) {
                let SocketAddr::V6(from) = from else { continue };
                if from.port() == SERVER_PORT {
                    return Some((*link, *from.ip(), buffer.get(..length).unwrap_or_default()));
                }
            }
        }
        None
    }

    /// Closes those of links that nothing is waited for on.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.0.retain(|one| keep(one.link));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &UdpSocket> {
        self.0.iter().map(|one| &one.socket)
    }
}

/// Whether what kept a message from being sent goes by itself: a link that is down again, or gone, whose loss will be
/// seen. An address that is in use is another client's.
pub(super) fn is_passing(error: &io::Error) -> bool {
    let of_links = [libc::ENODEV, libc::ENETDOWN, libc::ENXIO, libc::ENETUNREACH];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error().is_some_and(|number| of_links.contains(&number))
}
