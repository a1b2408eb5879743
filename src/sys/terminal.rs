//! Terminals: their size, and the session that they control.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Rows and columns of a terminal (TIOCGWINSZ, ioctl_tty(2)); None if `terminal` is not one, or does not know
/// its size.
pub(crate) fn size(terminal: &impl AsFd) -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCGWINSZ writes one winsize, and `size` is one.
    let known = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ as _, &raw mut size) } == 0;
    (known && size.ws_row > 0 && size.ws_col > 0)
        .then(|| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

/// Configures a command to run on `terminal`, in a new session whose controlling terminal it is, so that
/// Ctrl-C interrupts what the command runs (TIOCSCTTY, ioctl_tty(2)). If the terminal controls another
/// session, the command runs without a controlling terminal.
///
/// # Errors
///
/// The terminal's descriptor cannot be duplicated.
pub(crate) fn run_on(command: &mut Command, terminal: &File) -> io::Result<()> {
    command
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal.try_clone()?);
    let make_controlling = || {
        // setsid succeeds, because a process that was just forked is not a process group leader.
        // SAFETY: neither call accesses memory.
        unsafe {
            libc::setsid();
            libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY as _, 0);
        }
        Ok(())
    };
    // SAFETY: the closure makes only two system calls, which is allowed between fork and exec.
    unsafe { command.pre_exec(make_controlling) };
    Ok(())
}
