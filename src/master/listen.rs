//! Where clients come in: sockets on which the service manager listens already (systemd.socket(5)), or
//! one of our own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Socket, Type};

use crate::error::Error;
use crate::net::tcp;
use crate::sys::listen_fds;

/// What the service manager listens on already, by what clients find there.
#[derive(Default)]
pub(super) struct Handed {
    /// 9P: every socket that has no other name.
    pub(super) p9: Vec<TcpListener>,
    /// What `--http` serves: sockets of this name.
    pub(super) http: Vec<TcpListener>,
    /// What `--metrics` serves: sockets of this name.
    pub(super) metrics: Vec<TcpListener>,
}

impl Handed {
    /// Takes what was handed over to this process, which is there once.
    pub(super) fn take() -> Result<Handed, Error> {
        let mut handed = Handed::default();
        for (name, fd) in listen_fds::descriptors() {
            handed.named(&name).push(listening(fd)?);
        }
        Ok(handed)
    }

    fn named(&mut self, name: &str) -> &mut Vec<TcpListener> {
        match name {
            "http" => &mut self.http,
            "metrics" => &mut self.metrics,
            _ => &mut self.p9,
        }
    }
}

/// What will be listened on.
pub(super) enum ListenSocket {
    /// Clients may be waiting there already.
    Handed(Vec<TcpListener>),
    /// Clients are refused until it is opened.
    Own(Socket, SocketAddr),
}

impl ListenSocket {
    /// What was handed over, or else this port of one address, or of all. A port in use is an error at
    /// once, before the hashing, which may take long. With neither nobody comes in.
    pub(super) fn find(
        handed: Vec<TcpListener>,
        own: Option<(Option<IpAddr>, u16)>,
    ) -> Result<ListenSocket, Error> {
        let Some((ip, port)) = own.filter(|_| handed.is_empty()) else {
            return Ok(ListenSocket::Handed(handed));
        };
        let address = (ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port).into();
        let socket = match ip {
            Some(_) => tcp::bind(address),
            None => tcp::bind_everywhere(port),
        };
        let socket = socket.map_err(|error| Error::Listen { address, error })?;
        Ok(ListenSocket::Own(socket, address))
    }

    /// Lets clients in.
    pub(super) fn open(self) -> Result<Vec<TcpListener>, Error> {
        match self {
            ListenSocket::Handed(listeners) => Ok(listeners),
            ListenSocket::Own(socket, address) => tcp::start_listening(socket)
                .map(|listener| vec![listener])
                .map_err(|error| Error::Listen { address, error }),
        }
    }
}

/// A socket that was handed over, if it is of the kind that is of use.
fn listening(fd: OwnedFd) -> Result<TcpListener, Error> {
    let socket = Socket::from(fd);
    let is_tcp = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.domain().is_ok_and(|domain| [Domain::IPV4, Domain::IPV6].contains(&domain));
    if !is_tcp || !socket.is_listener().unwrap_or(false) {
        return Err(Error::Handed);
    }
    socket
        .set_nonblocking(true)
        .map_err(Error::system("use the socket passed by socket activation"))?;
    Ok(socket.into())
}
