//! What goes between one end of a local socket and smoltcp's buffers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use crate::sys::poll::PollFd;

/// A connection whose end has been closed here gets so long to close at the other side.
const LINGER: Duration = Duration::from_secs(1);
/// A peer that has lost its power is noticed after about this long, though nothing is to be sent.
const KEEPALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);
/// A peer that says nothing for so long, though it should, is gone.
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(30);

/// How much a connection may hold, in bytes, on its way in and out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffers {
    pub(super) incoming: usize,
    pub(super) outgoing: usize,
}

impl Buffers {
    pub(super) fn socket(self) -> Socket<'static> {
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(self.incoming), buffer(self.outgoing));
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(CongestionControl::Reno);
        socket.set_timeout(Some(SILENCE));
        socket.set_keep_alive(Some(KEEPALIVE));
        socket
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The local socket's end.
    end: UnixStream,
    phase: Phase,
    /// The local socket has no room.
    blocked: bool,
    /// The program has been told that nothing more comes.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The program waits for the outcome.
    Connecting,
    Open,
    /// The program has closed its end.
    Leaving {
        until: Instant,
    },
}

impl Connection {
    pub(super) fn dialled(end: UnixStream) -> Connection {
        Connection { end, phase: Phase::Connecting, blocked: false, ended: false }
    }

    pub(super) fn accepted(end: UnixStream) -> Connection {
        Connection { end, phase: Phase::Open, blocked: false, ended: false }
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, socket: &mut Socket, now: Instant) {
        if self.phase == Phase::Connecting {
            self.connecting(socket);
        }
        if self.phase == Phase::Open {
            let moved = self.deliver(socket).and_then(|()| self.take_in(socket, now));
            if moved.is_err() {
                self.phase = Phase::Leaving { until: now };
            }
        }
        if let Phase::Leaving { until } = self.phase
            && (socket.can_recv() || until <= now)
        {
            // Nobody is there to take it.
            socket.abort();
        }
    }

    /// Whether there is nothing to do any more. To be asked after smoltcp had its turn, which may have
    /// to say that the connection was cut off.
    pub(super) fn is_over(&self, socket: &Socket) -> bool {
        let delivered = self.phase != Phase::Open || !socket.can_recv();
        matches!(socket.state(), State::Closed | State::TimeWait) && delivered
    }

    /// What to wait for, if for anything.
    pub(super) fn waits_for(&self, socket: &Socket) -> Option<PollFd> {
        let (read, write) = match self.phase {
            // It may be given up.
            Phase::Connecting => (true, false),
            Phase::Open => (socket.can_send(), self.blocked),
            Phase::Leaving { .. } => (false, false),
        };
        (read || write).then(|| PollFd::new(self.end.as_fd(), read, write))
    }

    /// When it has something to do if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Leaving { until } => Some(until),
            Phase::Connecting | Phase::Open => None,
        }
    }

    /// The program cannot have sent anything yet; it may have closed its end.
    fn connecting(&mut self, socket: &mut Socket) {
        let outcome = match socket.state() {
            State::SynSent | State::SynReceived => match self.end.read(&mut [0]) {
                Err(error) if is_later(&error) => return,
                _ => return socket.abort(),
            },
            State::Closed => libc::ECONNREFUSED as u8,
            _ => 0,
        };
        // Whoever is gone will be noticed as in any connection.
        let _ = self.end.write(&[outcome]);
        self.phase = Phase::Open;
    }

    /// From the network to the program.
    fn deliver(&mut self, socket: &mut Socket) -> io::Result<()> {
        self.blocked = false;
        while socket.can_recv() {
            let delivered = socket.recv(|bytes| match self.end.write(bytes) {
                Ok(n) => (n, Ok(())),
                Err(error) => (0, Err(error)),
            });
            match delivered {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_later(&error) => {
                    self.blocked = true;
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        if !socket.may_recv() && !self.ended {
            self.ended = true;
            self.end.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// From the program to the network.
    fn take_in(&mut self, socket: &mut Socket, now: Instant) -> io::Result<()> {
        while socket.can_send() {
            let taken = socket.send(|room| match self.end.read(room) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error)),
            });
            match taken {
                Ok(Ok(0)) => {
                    socket.close();
                    self.phase = Phase::Leaving { until: now + LINGER };
                    return Ok(());
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) if is_later(&error) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
