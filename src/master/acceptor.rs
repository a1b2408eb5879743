//! Takes connections from a listening socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::shared::Shared;
use crate::error::reason;
use crate::net::tcp;

/// Wait after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections from a listening socket.
pub(super) struct Acceptor {
    listener: tokio::net::TcpListener,
    fails: bool,
}

impl Acceptor {
    pub(super) fn new(listener: tokio::net::TcpListener) -> Acceptor {
        Acceptor { listener, fails: false }
    }

    pub(super) async fn next(&mut self, shared: &Shared) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.fails = false;
                    return (stream, tcp::canonical(peer));
                }
                Err(error) => {
                    // Once: it is tried again and again.
                    if !std::mem::replace(&mut self.fails, true) {
                        let why = reason(&error);
                        shared.report.warning(format_args!("cannot accept connections: {why}"));
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
