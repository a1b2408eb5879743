//! IPv4 packets on a link that has no address yet (packet(7)).

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::counted;

use socket2::{SockFilter, SockRef};

/// The hardware address of everybody on an Ethernet.
const BROADCAST: [u8; 6] = [0xff; 6];
/// Room for a control message with a `tpacket_auxdata`; in words, so that it is aligned.
const CONTROL_WORDS: usize = 8;

/// A socket on one link that sends to everybody, and receives what goes to one UDP port.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    link: u32,
}

/// Whether the sender's kernel has left the UDP checksum to a card that the packet never went
/// through, as between virtual machines of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is right if the packet is.
    Ready,
    /// It says nothing.
    NotReady,
}

impl PacketSocket {
    /// Opens it on the link with this index.
    ///
    /// # Errors
    /// The process may not (`EPERM`), the kernel has no packet sockets (`EAFNOSUPPORT`), or there
    /// is no such link (`ENODEV`).
    pub fn open(link: u32, port: u16) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes no memory. Protocol 0: nothing comes in before it is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        counted(fd as isize)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        SockRef::from(&socket).attach_filter(&udp_to(port))?;
        let (on, length) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_AUXDATA);
        // SAFETY: the option is a c_int, and its length is given.
        let set = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), length) };
        counted(set as isize)?;
        let (address, length) = address(link);
        // SAFETY: the address is a whole sockaddr_ll, and its length is given.
        counted(unsafe { libc::bind(fd, (&raw const address).cast(), length) } as isize)?;
        Ok(PacketSocket { socket, link })
    }

    /// Sends an IPv4 packet to everybody on the link.
    pub fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        let (address, length) = address(self.link);
        let (fd, to) = (self.socket.as_raw_fd(), (&raw const address).cast());
        // SAFETY: the packet is one slice, the address a whole sockaddr_ll; both lengths are given.
        let sent = unsafe { libc::sendto(fd, packet.as_ptr().cast(), packet.len(), 0, to, length) };
        counted(sent).map(drop)
    }

    /// The next IPv4 packet that has arrived; its end is cut off if the buffer is too small. If
    /// there is none the error is `WouldBlock`.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Checksum)> {
        let mut control = [0u64; CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all of its fields are numbers and pointers, for which zeros are values.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the buffer and the control buffer are writable for the lengths that are given.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let length = counted(length)?;
        let packet = buffer.get(..length).unwrap_or_default();
        Ok((packet, checksum_of(&message)))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the control messages that were received say of the checksum.
fn checksum_of(message: &libc::msghdr) -> Checksum {
    // SAFETY: recvmsg has filled in the message; its control buffer is still there.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a pointer that is not null is one to a header within the control buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: it takes no memory; it adds numbers.
        let whole = unsafe { libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) };
        let is_auxdata = header.cmsg_level == libc::SOL_PACKET
            && header.cmsg_type == libc::PACKET_AUXDATA
            && header.cmsg_len >= whole as _;
        if is_auxdata {
            // SAFETY: the data is that long and of that type; it need not be aligned.
            let data: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
                return Checksum::NotReady;
            }
        }
        // SAFETY: both are the message and a header of it.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    Checksum::Ready
}

/// IPv4 on one link, to everybody.
fn address(link: u32) -> (libc::sockaddr_ll, libc::socklen_t) {
    // SAFETY: all of its fields are numbers, for which zeros are values.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = link as i32;
    address.sll_halen = BROADCAST.len() as u8;
    for (byte, everybody) in address.sll_addr.iter_mut().zip(BROADCAST) {
        *byte = everybody;
    }
    (address, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
}

/// A filter (BPF) that passes whole UDP packets, and first fragments, to `port`.
fn udp_to(port: u16) -> [SockFilter; 9] {
    let op = |code: u32, if_true, if_false, k| SockFilter::new(code as u16, if_true, if_false, k);
    let (load, jump) = (libc::BPF_LD, libc::BPF_JMP | libc::BPF_K);
    let give = libc::BPF_RET | libc::BPF_K;
    [
        // The protocol is UDP,
        op(load | libc::BPF_B | libc::BPF_ABS, 0, 0, 9),
        op(jump | libc::BPF_JEQ, 0, 6, libc::IPPROTO_UDP as u32),
        // the fragment offset is 0,
        op(load | libc::BPF_H | libc::BPF_ABS, 0, 0, 6),
        op(jump | libc::BPF_JSET, 4, 0, 0x1fff),
        // and behind the IP header, after the source port, stands the port:
        op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        op(load | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
        op(jump | libc::BPF_JEQ, 0, 1, port.into()),
        // all of it passes, else nothing.
        op(give, 0, 0, u32::MAX),
        op(give, 0, 0, 0),
    ]
}
