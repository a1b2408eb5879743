//! The kernel's network configuration socket (netlink(7), rtnetlink(7)): bytes in, bytes out.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::counted;

/// A socket that speaks with the kernel and with nobody else.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens it; `groups` are the `RTMGRP_` bits of the changes to be told of, 0 for none.
    pub fn open(groups: u32) -> io::Result<Netlink> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: the call takes no memory.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        counted(fd as isize)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let own = address(groups);
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the address is a whole sockaddr_nl, and its length is given.
        let bound = unsafe { libc::bind(fd, (&raw const own).cast(), length) };
        counted(bound as isize)?;
        if groups == 0 {
            // What other processes send to a connected socket never reaches it.
            let kernel = address(0);
            // SAFETY: as above.
            let connected = unsafe { libc::connect(fd, (&raw const kernel).cast(), length) };
            counted(connected as isize)?;
        }
        Ok(Netlink(socket))
    }

    /// Sends one request to the kernel.
    pub fn send(&self, request: &[u8]) -> io::Result<()> {
        let (at, length) = (request.as_ptr().cast(), request.len());
        // SAFETY: the pointer and the length are those of one slice.
        counted(unsafe { libc::send(self.0.as_raw_fd(), at, length, 0) }).map(drop)
    }

    /// Waits for a datagram; it holds one or more messages. One that does not fit is an error.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for the length that is given.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_TRUNC) };
        let length = counted(length)?;
        buffer.get(..length).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))
    }

    /// Takes all datagrams that have arrived, without waiting. That some were lost does not matter.
    pub fn take(&self, buffer: &mut [u8], mut hear: impl FnMut(&[u8])) {
        loop {
            let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: the buffer is writable for the length that is given.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_DONTWAIT) };
            match counted(length) {
                Ok(length) => hear(buffer.get(..length).unwrap_or_default()),
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

/// The kernel's address (port 0), or an own one that the kernel is to choose.
fn address(groups: u32) -> libc::sockaddr_nl {
    // SAFETY: all of its fields are numbers, for which zeros are values.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = groups;
    address
}
