//! Open descriptors that go from one process to another (unix(7)), and files that are nowhere but in
//! memory (memfd_create(2)).

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{checked, counted};

/// Most descriptors of one message.
pub const MAX_DESCRIPTORS: usize = 5;
/// Room for a control message with so many; in words, so that it is aligned.
const CONTROL_WORDS: usize = 5;

/// Sends one message with descriptors, at most [`MAX_DESCRIPTORS`]; without waiting.
///
/// # Errors
/// `InvalidInput` for more descriptors; `EMSGSIZE` if the message is too long for the socket.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.is_empty() || fds.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = size_of_val(fds) as u32;
    let mut control = [0u64; CONTROL_WORDS];
    let mut part =
        libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: all of its fields are numbers and pointers, for which zeros are values.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: it takes no memory; it adds numbers.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
    // SAFETY: the control buffer has room for MAX_DESCRIPTORS, so that there is a first header in it,
    // with that much behind it; a BorrowedFd is the number of a descriptor, as SCM_RIGHTS wants it.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
        let to = libc::CMSG_DATA(first);
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), to, bytes as usize);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message and the control buffer outlive the call, and their lengths are right.
    counted(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) }).map(drop)
}

/// Waits for one message: its bytes, and the descriptors that came with it.
///
/// # Errors
/// `EMSGSIZE` if the buffer is too small or more descriptors came than [`MAX_DESCRIPTORS`].
pub fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
) -> io::Result<(&'a [u8], Vec<OwnedFd>)> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all of its fields are numbers and pointers, for which zeros are values.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: both buffers are writable for the lengths that are given.
    let length =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let length = counted(length)?;
    let fds = received(&header);
    let cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    match buffer.get(..length).filter(|_| !cut) {
        Some(message) => Ok((message, fds)),
        None => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
    }
}

/// The descriptors in the control messages that recvmsg has filled in.
fn received(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg has filled in the header; its control buffer is still there.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: a pointer that is not null is one to a header within the control buffer.
    while let Some(found) = unsafe { next.as_ref() } {
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: it takes no memory; it adds numbers.
            let length_with = |i: u32| unsafe { libc::CMSG_LEN((i + 1) * size_of::<i32>() as u32) };
            for i in (0..).take_while(|i| found.cmsg_len >= length_with(*i) as _) {
                // SAFETY: the kernel has put so many descriptors there, which are open, belong to
                // nobody else, and need not be aligned.
                fds.push(unsafe {
                    let at = libc::CMSG_DATA(found).cast::<i32>().add(i as usize);
                    OwnedFd::from_raw_fd(at.read_unaligned())
                });
            }
        }
        // SAFETY: both are the message and a header of it.
        next = unsafe { libc::CMSG_NXTHDR(header, found) };
    }
    fds
}

/// The user that the process at the other end of a Unix socket acted as when it connected.
pub fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&peer) as libc::socklen_t;
    let (fd, level, option) = (socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: the option is a ucred, and its length is given.
    checked(unsafe {
        libc::getsockopt(fd, level, option, (&raw mut peer).cast(), &raw mut length)
    })?;
    Ok(peer.uid)
}

/// A new and empty file that has no name and is in memory only.
pub fn file_in_memory() -> io::Result<File> {
    // SAFETY: the name, which is for debugging, is a C string.
    let fd = unsafe { libc::memfd_create(c"xget".as_ptr(), libc::MFD_CLOEXEC) };
    checked(fd)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn an_open_file_goes_through_a_socket() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let mut file = file_in_memory().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        send(here.as_fd(), b"take it", &[file.as_fd()]).unwrap();
        let mut buffer = [0; 100];
        let (message, mut fds) = receive(there.as_fd(), &mut buffer).unwrap();
        assert_eq!((message, fds.len()), (&b"take it"[..], 1));
        let mut content = String::new();
        File::from(fds.remove(0)).read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn a_message_that_is_longer_than_the_buffer_is_refused() {
        let (here, there) = UnixDatagram::pair().unwrap();
        send(here.as_fd(), b"take it", &[here.as_fd()]).unwrap();
        let error = receive(there.as_fd(), &mut [0; 3]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn who_is_at_the_other_end_is_known() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_user(here.as_fd()).unwrap(), super::super::fs::effective_uid());
    }
}
