//! Signals as something to read from, so that they are waited for beside sockets (signal-safety(7)).

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

use super::checked;

/// Where the handler writes; -1 before there is such a place.
static TO: AtomicI32 = AtomicI32::new(-1);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    End,
}

/// Signals that have come.
#[derive(Debug)]
pub struct Signals(UnixStream);

impl Signals {
    /// From now on SIGTERM and SIGINT can be read here, once each: the next of the same kind ends the
    /// process. With `reload` SIGHUP can, too. A signal that the process was started to ignore
    /// (nohup(1)) stays ignored. To be called once.
    pub fn watch(reload: bool) -> io::Result<Signals> {
        let (from, to) = UnixStream::pair()?;
        from.set_nonblocking(true)?;
        // Never closed: a signal may come at any time.
        TO.store(to.into_raw_fd(), Ordering::Relaxed);
        handle(libc::SIGTERM, libc::SA_RESETHAND)?;
        handle(libc::SIGINT, libc::SA_RESETHAND)?;
        if reload {
            handle(libc::SIGHUP, 0)?;
        }
        Ok(Signals(from))
    }

    /// The next signal that has come; None if there is none.
    pub fn take(&self) -> Option<Signal> {
        let mut signal = [0];
        match (&self.0).read(&mut signal) {
            Ok(1) => Some(Signal::read_as(signal[0])),
            _ => None,
        }
    }

    /// To be waited for and read elsewhere; each byte is a signal.
    pub fn into_stream(self) -> UnixStream {
        self.0
    }
}

impl Signal {
    /// What the byte says that was read.
    pub fn read_as(byte: u8) -> Signal {
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
    // SAFETY: all of its fields are numbers and pointers, for which zeros are values: no signal is
    // blocked besides.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, and there is room for the old one.
    checked(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) })?;
    if before.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | flags;
    // SAFETY: the action outlives the call, and its handler does what a handler may.
    checked(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })
}

/// Calls only what signal-safety(7) lists, and leaves errno as it was.
extern "C" fn on_signal(signal: libc::c_int) {
    let (to, byte) = (TO.load(Ordering::Relaxed), signal as u8);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: errno is this thread's own; the byte is readable. Where nothing can be sent there are
    // thousands of signals to be read already.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::send(to, (&raw const byte).cast(), 1, flags);
        *errno = before;
    }
}
