//! What a terminal is like.

use std::os::fd::{AsFd, AsRawFd};

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
