//! Turns signals into bytes of a socket, so that poll(2) waits for them together with other sockets
//! (signal-safety(7)).

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

use super::checked;

/// The socket that the handler writes to; -1 before [`Signals::watch`].
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    End,
}

/// Receives signals.
#[derive(Debug)]
pub(crate) struct Signals(UnixStream);

impl Signals {
    /// Handles SIGTERM and SIGINT from now on, once each: the second signal of the same kind ends the process.
    /// With `reload` it also handles SIGHUP. A signal that was ignored when the process started (nohup(1))
    /// stays ignored. To be called once.
    pub(crate) fn watch(reload: bool) -> io::Result<Signals> {
        let (read_end, write_end) = UnixStream::pair()?;
        read_end.set_nonblocking(true)?;
        // Never closed, because a signal may arrive at any time.
        WRITE_END.store(write_end.into_raw_fd(), Ordering::Relaxed);
        handle(libc::SIGTERM, libc::SA_RESETHAND)?;
        handle(libc::SIGINT, libc::SA_RESETHAND)?;
        if reload {
            handle(libc::SIGHUP, 0)?;
        }
        Ok(Signals(read_end))
    }

    /// The next signal that has arrived; None if there is none.
    pub(crate) fn take(&self) -> Option<Signal> {
        let mut signal = [0];
        match (&self.0).read(&mut signal) {
            Ok(1) => Some(Signal::read_as(signal[0])),
            _ => None,
        }
    }

    /// The socket to read from, for a caller that waits in another way. Each byte is a signal.
    #[cfg(feature = "master")]
    pub(crate) fn into_stream(self) -> UnixStream {
        self.0
    }
}

impl Signal {
    /// The signal that a byte of [`Signals::into_stream`] stands for.
    pub(crate) fn read_as(byte: u8) -> Signal {
        match i32::from(byte) {
            libc::SIGHUP => Signal::Reload,
            _ => Signal::End,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn handle(signal: libc::c_int, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: a sigaction consists of integers and nullable pointers, for which zeros are valid values.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer changes no action, and `before` has room for the current one.
    checked(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) })?;
    if before.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    // An empty mask: the handler runs with no other signals blocked.
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | flags;
    // SAFETY: the action outlives the call, and its handler is async-signal-safe.
    checked(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })
}

/// Async-signal-safe: it calls only send(2), and preserves errno.
extern "C" fn on_signal(signal: libc::c_int) {
    let (fd, byte) = (WRITE_END.load(Ordering::Relaxed), signal as u8);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // If the socket is full, thousands of signals wait to be read, and this one can be dropped.
    // SAFETY: errno is the thread's own and always valid; the byte is readable.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::send(fd, (&raw const byte).cast(), 1, flags);
        *errno = before;
    }
}
