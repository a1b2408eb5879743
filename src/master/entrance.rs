//! Where clients come in: sockets on which the service manager listens already (systemd.socket(5)), or
//! one of our own.

use std::net::{SocketAddr, TcpListener};
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
    Own(Socket, SocketAddr),
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
        let socket = match options.listen {
            Some(ip) => tcp::bind((ip, options.port).into()),
            None => tcp::bind_everywhere(options.port),
        };
        let anywhere = SocketAddr::from(([0, 0, 0, 0], options.port));
        let address = options.listen.map_or(anywhere, |ip| (ip, options.port).into());
        let socket = socket.map_err(|error| Error::Listen { address, error })?;
        Ok(Entrance::Own(socket, address))
    }

    /// Lets clients in.
    pub(super) fn open(self) -> Result<Vec<TcpListener>, Error> {
        match self {
            Entrance::Handed(listeners) => Ok(listeners),
            Entrance::Own(socket, address) => tcp::start_listening(socket)
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
