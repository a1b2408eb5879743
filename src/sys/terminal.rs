//! What a terminal is like, and whose it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lines and columns of the terminal behind a descriptor (ioctl_tty(2)); None if it is none, or does
/// not know.
pub fn size(terminal: &impl AsFd) -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCGWINSZ writes one winsize to the place that it is given.
    let known = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ as _, &raw mut size) } == 0;
    (known && size.ws_row > 0 && size.ws_col > 0)
        .then(|| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

/// Has a command run on `terminal`, in a session of its own whose controlling terminal that is, so that
/// Ctrl-C interrupts what it runs (ioctl_tty(2), TIOCSCTTY). Where the terminal is another session's the
/// command runs on it all the same.
///
/// # Errors
///
/// No descriptor is left for the command's standard streams.
pub fn run_on(command: &mut Command, terminal: &File) -> io::Result<()> {
    command
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal.try_clone()?);
    let take = || {
        // SAFETY: neither call takes memory, and a child that was just forked leads no group.
        unsafe {
            libc::setsid();
            libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY as _, 0);
        }
        Ok(())
    };
    // SAFETY: between fork and exec only these two system calls are made.
    unsafe { command.pre_exec(take) };
    Ok(())
}
