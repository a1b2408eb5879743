//! Options of sockets that socket2 does not know.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets a wait for the socket end only when so many bytes can be read (`SO_RCVLOWAT`, socket(7)), or
/// when it is closed or broken.
pub fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let value = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length are those of `value`, an int, as this option takes one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
