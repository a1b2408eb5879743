//! Passes open descriptors from one process to another (SCM_RIGHTS, unix(7)), and creates files that exist
//! only in memory (memfd_create(2)).

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{checked, counted};

/// Most descriptors in one message.
pub(crate) const MAX_DESCRIPTORS: usize = 5;
/// Size of a control message with that many descriptors, in 8-byte words, which align it.
const CONTROL_WORDS: usize = 5;

/// Sends one message with 1 to [`MAX_DESCRIPTORS`] descriptors, without blocking.
///
/// # Errors
///
/// `InvalidInput` for any other number of descriptors; `EMSGSIZE` if the message is too long for the socket.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if fds.is_empty() || fds.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = size_of_val(fds) as u32;
    let mut control = [0u64; CONTROL_WORDS];
    let mut part =
        libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: a msghdr consists of integers and pointers, for which zeros are valid values.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes a size.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
    // SAFETY: the control buffer has room for a header and MAX_DESCRIPTORS, and there are no more of them,
    // so that CMSG_FIRSTHDR is not null and the copy stays within the buffer. A BorrowedFd is represented
    // as the integer that SCM_RIGHTS expects.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
        let to = libc::CMSG_DATA(first);
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), to, bytes as usize);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points to buffers that outlive the call, and states their lengths.
    counted(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) }).map(drop)
}

/// Waits for one message, and returns its bytes and descriptors.
///
/// # Errors
///
/// `EMSGSIZE` if the message is longer than the buffer or has more than [`MAX_DESCRIPTORS`] descriptors.
pub(crate) fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
) -> io::Result<(&'a [u8], Vec<OwnedFd>)> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr consists of integers and pointers, for which zeros are valid values.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points to buffers that are writable for the lengths it states.
    let length =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let length = counted(length)?;
    let fds = descriptors_in(&header);
    let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    match buffer.get(..length).filter(|_| !truncated) {
        Some(message) => Ok((message, fds)),
        None => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
    }
}

/// Takes the descriptors out of a header that recvmsg has filled in. Must be called once for each header.
fn descriptors_in(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg has filled in the header, and its control buffer is still alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: a pointer that CMSG_FIRSTHDR or CMSG_NXTHDR returns is null or points into the control buffer.
    while let Some(found) = unsafe { next.as_ref() } {
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes a size.
            let length_for = |i: u32| unsafe { libc::CMSG_LEN((i + 1) * size_of::<i32>() as u32) };
            for i in (0..).take_while(|i| found.cmsg_len >= length_for(*i) as _) {
                // SAFETY: by its length the control message holds this descriptor. The kernel has just
                // opened it for this process, so nothing else owns it. It may be unaligned.
                fds.push(unsafe {
                    let at = libc::CMSG_DATA(found).cast::<i32>().add(i as usize);
                    OwnedFd::from_raw_fd(at.read_unaligned())
                });
            }
        }
        // SAFETY: `found` is a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(header, found) };
    }
    fds
}

/// The effective user of the process at the other end of a Unix socket, at the time when it connected.
pub(crate) fn peer_user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&peer) as libc::socklen_t;
    let (fd, level, option) = (socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: SO_PEERCRED writes one ucred, and `length` is its size.
    checked(unsafe {
        libc::getsockopt(fd, level, option, (&raw mut peer).cast(), &raw mut length)
    })?;
    Ok(peer.uid)
}

/// Whether a descriptor was opened for reading. One of `O_PATH` was not: to open it, nobody needed the right to read.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the call accesses no memory.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    checked(flags)?;
    Ok(flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_WRONLY)
}

/// Creates an empty file that has no name and exists only in memory.
pub(crate) fn file_in_memory() -> io::Result<File> {
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { libc::memfd_create(c"xget".as_ptr(), libc::MFD_CLOEXEC) };
    checked(fd)?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn an_open_file_is_passed_through_a_socket() {
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
    fn the_user_at_the_other_end_of_a_socket_is_known() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_user(here.as_fd()).unwrap(), super::super::fs::effective_uid());
    }

    #[test]
    fn a_descriptor_that_only_names_a_file_or_only_writes_it_is_not_readable() {
        let root = File::open("/").unwrap();
        let open = |flags| super::super::fs::open_at(&root, b"dev/null", flags, 0).unwrap();
        for (flags, readable) in [
            (libc::O_RDONLY, true),
            (libc::O_RDWR, true),
            (libc::O_WRONLY, false),
            (libc::O_PATH, false),
        ] {
            assert_eq!(is_readable(open(flags).as_fd()).unwrap(), readable, "{flags:o}");
        }
    }
}
