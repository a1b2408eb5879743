//! A socket for the kernel's network configuration (netlink(7), rtnetlink(7)). It carries bytes only.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::counted;

/// An `rtnetlink` socket.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket for requests if `groups` is 0, otherwise one for notifications; `groups` then holds the
    /// `RTMGRP_` bits of the changes to report.
    pub(crate) fn open(groups: u32) -> io::Result<Netlink> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: the call accesses no memory.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        counted(fd as isize)?;
        // SAFETY: the call has just returned this descriptor, so nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let own = address(groups);
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is a sockaddr_nl, and `length` is its size.
        let bound = unsafe { libc::bind(fd, (&raw const own).cast(), length) };
        counted(bound as isize)?;
        if groups == 0 {
            // A connected socket receives nothing from other processes.
            let kernel = address(0);
            // SAFETY: as above.
            let connected = unsafe { libc::connect(fd, (&raw const kernel).cast(), length) };
            counted(connected as isize)?;
        }
        Ok(Netlink(socket))
    }

    /// Sends one request to the kernel.
    pub(crate) fn send(&self, request: &[u8]) -> io::Result<()> {
        let (at, length) = (request.as_ptr().cast(), request.len());
        // SAFETY: the request is readable for the length passed.
        counted(unsafe { libc::send(self.0.as_raw_fd(), at, length, 0) }).map(drop)
    }

    /// Waits for a datagram, which holds one or more messages.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it does not fit into the buffer.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for the length passed.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_TRUNC) };
        let length = counted(length)?;
        buffer.get(..length).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))
    }

    /// Passes all datagrams that have arrived to `each`, without blocking. It ignores that the kernel
    /// dropped some (`ENOBUFS`): the caller re-reads the whole state anyway.
    pub(crate) fn take(&self, buffer: &mut [u8], mut each: impl FnMut(&[u8])) {
        loop {
            let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: the buffer is writable for the length passed.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_DONTWAIT) };
            match counted(length) {
                Ok(length) => each(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Port 0: the kernel's address; or, for bind, an address that the kernel chooses.
fn address(groups: u32) -> libc::sockaddr_nl {
    // SAFETY: a sockaddr_nl consists of integers, for which zeros are valid values.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = groups;
    address
}
