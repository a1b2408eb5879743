//! Where clients come in: sockets on which the service manager listens already (systemd.socket(5)), or
//! one of our own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Socket, Type};

use crate::cli;
use crate::error::Error;
use crate::net::tcp;
use crate::sys::handed;

/// What will be listened on.
pub(super) enum Entrance {
    /// Clients may be waiting there already.
    Handed(Vec<TcpListener>),
    /// Clients are refused until it is opened.
    Own(Bound),
}

/// A port that is taken and not listened on yet.
pub(super) struct Bound {
    socket: Socket,
    address: SocketAddr,
}

impl Bound {
    /// Takes a port of one address, or of all.
    pub(super) fn new(ip: Option<IpAddr>, port: u16) -> Result<Bound, Error> {
        let address = (ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port).into();
        let socket = match ip {
            Some(_) => tcp::bind(address),
            None => tcp::bind_everywhere(port),
        };
        let socket = socket.map_err(|error| Error::Listen { address, error })?;
        Ok(Bound { socket, address })
    }

    /// Lets clients in.
    pub(super) fn listen(self) -> Result<TcpListener, Error> {
        let Bound { socket, address } = self;
        tcp::start_listening(socket).map_err(|error| Error::Listen { address, error })
    }
}

impl Entrance {
    /// What was handed over, or the address that `options` ask for. A port in use is an error at once,
    /// before the hashing, which may take long.
    pub(super) fn find(options: &cli::Serve) -> Result<Entrance, Error> {
        let handed = handed::descriptors();
        if !handed.is_empty() {
            return handed
                .into_iter()
                .map(listening)
                .collect::<Result<_, _>>()
                .map(Entrance::Handed);
        }
        Bound::new(options.listen, options.port).map(Entrance::Own)
    }

    /// Lets clients in.
    pub(super) fn open(self) -> Result<Vec<TcpListener>, Error> {
        match self {
            Entrance::Handed(listeners) => Ok(listeners),
            Entrance::Own(bound) => bound.listen().map(|listener| vec![listener]),
        }
    }
}

/// A socket that was handed over, if it is of the kind that is of use.
fn listening(fd: OwnedFd) -> Result<TcpListener, Error> {
    let socket = Socket::from(fd);
    let is_tcp = socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket.domain().is_ok_and(|domain| [Domain::IPV4, Domain::IPV6].contains(&domain));
    match is_tcp && socket.is_listener().unwrap_or(false) {
        true => {
            socket
                .set_nonblocking(true)
                .map_err(Error::system("use the socket that was handed over"))?;
            Ok(socket.into())
        }
        false => Err(Error::Handed),
    }
}
