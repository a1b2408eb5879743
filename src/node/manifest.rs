//! The blocking driver of the search for the manifest: it owns the sockets, waits in poll(2), and does what
//! [`ManifestFetch`] says.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use crate::conn::Conn;
use crate::error::Error;
use crate::fetch::Action;
use crate::fetch::control_client::CallError;
use crate::fetch::manifest::{Found, ManifestFetch};
use crate::fetch::retry::Retry;
use crate::net::tcp::is_passing;
use crate::net::transport::Transport;
use crate::node::server::Server;
use crate::process::report::{Pace, Reporter};
use crate::serve::admission::Allowed;
use crate::sys::poll::{self, PollFd};
use crate::units::bytes;

/// Bytes received at a time.
const READ_BYTES: usize = 128 << 10;

struct Socket {
    stream: TcpStream,
    /// It is made.
    open: bool,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
}

/// Gets the manifest of `server`, which is tried as `retry` has it; or of a node that it names in an `allowed` network.
pub(super) fn fetch_manifest(
    server: &Server,
    retry: Retry,
    allowed: Allowed,
    report: &Reporter,
) -> Result<Found, Error> {
    let mut driver = Driver {
        server,
        report,
        fetch: ManifestFetch::new(server.start(retry, allowed)),
        sockets: BTreeMap::new(),
        buffer: vec![0; READ_BYTES],
    };
    let found = driver.run();
    report.end_progress();
    found
}

struct Driver<'a> {
    server: &'a Server,
    report: &'a Reporter,
    fetch: ManifestFetch,
    sockets: BTreeMap<Conn, Socket>,
    buffer: Vec<u8>,
}

impl Driver<'_> {
    fn run(&mut self) -> Result<Found, Error> {
        let mut pace = Pace::new(self.report, Instant::now());
        loop {
            self.act();
            if let Some(result) = self.fetch.take_result() {
                return result;
            }
            let came = self.fetch.bytes();
            if pace.is_due(Instant::now()) && came > 0 {
                self.report.progress(format_args!("reading the manifest: {}", bytes(came)));
            }
            let progress = pace.deadline().filter(|_| came > 0);
            self.wait([self.fetch.next_timeout(), progress].into_iter().flatten().min())?;
        }
    }

    /// Does what the search says.
    fn act(&mut self) {
        loop {
            let now = Instant::now();
            let Some(action) = self.fetch.poll(now) else { return };
            match action {
                Action::Dial(conn, address) => self.dial(conn, address, now),
                Action::Send(conn) => self.send(conn, now),
                Action::Close(conn) => drop(self.sockets.remove(&conn)),
                Action::Resolve => {
                    let resolved = self.server.addresses();
                    self.fetch.resolved(resolved, Instant::now());
                }
                Action::Report(event) => {
                    self.report.end_progress();
                    self.report.say(event.level(), &event);
                }
            }
        }
    }

    fn dial(&mut self, conn: Conn, address: SocketAddr, now: Instant) {
        match self.transport().connect(address) {
            Ok(stream) => {
                self.sockets.insert(conn, Socket { stream, open: false, unsent: Vec::new() });
            }
            Err(error) => self.lose(conn, error, now),
        }
    }

    fn transport(&self) -> &Transport {
        &self.server.transport
    }

    fn wait(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let timeout = until.map(|at| at.saturating_duration_since(Instant::now()));
        let fds = self.sockets.values().map(|socket| {
            if socket.open {
                PollFd::new(socket.stream.as_fd(), true, !socket.unsent.is_empty())
            } else {
                self.transport().awaits(&socket.stream)
            }
        });
        let mut fds: Vec<PollFd> = fds.collect();
        poll::wait(&mut fds, timeout).map_err(Error::system("wait for the network"))?;
        let ready: Vec<(Conn, PollFd)> = self.sockets.keys().copied().zip(fds).collect();
        let now = Instant::now();
        for (conn, fd) in ready {
            if fd.readable() || fd.writable() {
                self.ready(conn, &fd, now);
            }
        }
        Ok(())
    }

    fn ready(&mut self, conn: Conn, fd: &PollFd, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        if !socket.open {
            match self.server.transport.made(&socket.stream) {
                Ok(_) => {
                    socket.open = true;
                    self.fetch.connected(conn, now);
                }
                Err(error) => self.lose(conn, error, now),
            }
            return;
        }
        if fd.writable() {
            self.send(conn, now);
        }
        if fd.readable() {
            self.read(conn, now);
        }
    }

    fn read(&mut self, conn: Conn, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        match socket.stream.read(&mut self.buffer) {
            Ok(0) => self.lose(conn, io::ErrorKind::UnexpectedEof.into(), now),
            Ok(n) => self.fetch.receive(conn, self.buffer.get(..n).unwrap_or_default(), now),
            Err(error) if is_passing(&error) => {}
            Err(error) => self.lose(conn, error, now),
        }
    }

    fn send(&mut self, conn: Conn, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&conn).filter(|socket| socket.open) else { return };
        if let Some(requests) = self.fetch.next_output(conn) {
            socket.unsent.extend(requests);
        }
        while !socket.unsent.is_empty() {
            match socket.stream.write(&socket.unsent) {
                Ok(n) => _ = socket.unsent.drain(..n),
                Err(error) if is_passing(&error) => return,
                Err(error) => return self.lose(conn, error, now),
            }
        }
    }

    fn lose(&mut self, conn: Conn, error: io::Error, now: Instant) {
        self.sockets.remove(&conn);
        self.fetch.closed(conn, Some(&CallError::from(error).to_string()), now);
    }
}

#[cfg(test)]
mod tests;
