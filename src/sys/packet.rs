//! A socket for UDP packets on a link that has no address yet (packet(7)), as DHCP needs it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::counted;

use socket2::{SockFilter, SockRef};

/// The Ethernet broadcast address.
const BROADCAST: [u8; 6] = [0xff; 6];
/// Size of a control message with a `tpacket_auxdata`, in 8-byte words, which align it.
const CONTROL_WORDS: usize = 8;

/// A packet socket on one link. It broadcasts IPv4 packets, and receives those for one UDP port.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: OwnedFd,
    link: u32,
}

/// Whether the receiver of a packet must verify its TCP or UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// Nothing has verified it yet.
    Unverified,
    /// It was verified by the card or the kernel; or it is still missing, because the sender left it to a
    /// card that the packet never passed through, as between virtual machines of one host.
    Exempt,
}

impl PacketSocket {
    /// Opens a socket on the link with this index that receives what is sent to `port`.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW`, `EAFNOSUPPORT` if the kernel has no packet sockets, `ENODEV` if there is
    /// no such link.
    pub(crate) fn open(link: u32, port: u16) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: the socket receives nothing before it is bound.
        // SAFETY: the call accesses no memory.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        counted(fd as isize)?;
        // SAFETY: the call has just returned this descriptor, so nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        SockRef::from(&socket).attach_filter(&udp_to(port))?;
        let (on, length) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_AUXDATA);
        // SAFETY: this option is a c_int, and `length` is its size.
        let set = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), length) };
        counted(set as isize)?;
        let (address, length) = address(link);
        // SAFETY: the address is a sockaddr_ll, and `length` is its size.
        counted(unsafe { libc::bind(fd, (&raw const address).cast(), length) } as isize)?;
        Ok(PacketSocket { socket, link })
    }

    /// Broadcasts an IPv4 packet on the link.
    pub(crate) fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        let (address, length) = address(self.link);
        let (fd, to) = (self.socket.as_raw_fd(), (&raw const address).cast());
        // SAFETY: the packet is readable for the length passed; the address is a sockaddr_ll, and `length`
        // is its size.
        let sent = unsafe { libc::sendto(fd, packet.as_ptr().cast(), packet.len(), 0, to, length) };
        counted(sent).map(drop)
    }

    /// The next IPv4 packet that has arrived, truncated to the size of the buffer.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Checksum)> {
        let mut control = [0u64; CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: a msghdr consists of integers and pointers, for which zeros are valid values.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header points to buffers that are writable for the lengths it states.
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

/// What the received control messages say about the checksum.
fn checksum_of(message: &libc::msghdr) -> Checksum {
    // SAFETY: recvmsg has filled in the header, and its control buffer is still alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a pointer that CMSG_FIRSTHDR or CMSG_NXTHDR returns is null or points into the control buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: CMSG_LEN only computes a size.
        let whole = unsafe { libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) };
        let is_auxdata = header.cmsg_level == libc::SOL_PACKET
            && header.cmsg_type == libc::PACKET_AUXDATA
            && header.cmsg_len >= whole as _;
        if is_auxdata {
            // SAFETY: level and type say that the data is a tpacket_auxdata, and the length that it is
            // complete. It may be unaligned.
            let data: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
                return Checksum::Exempt;
            }
        }
        // SAFETY: `header` is a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    Checksum::Unverified
}

/// The broadcast address for IPv4 on one link, and its size.
fn address(link: u32) -> (libc::sockaddr_ll, libc::socklen_t) {
    // SAFETY: a sockaddr_ll consists of integers, for which zeros are valid values.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = link as i32;
    address.sll_halen = BROADCAST.len() as u8;
    for (to, byte) in address.sll_addr.iter_mut().zip(BROADCAST) {
        *to = byte;
    }
    (address, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
}

/// A BPF filter that accepts UDP packets to `port`, whole ones and first fragments.
fn udp_to(port: u16) -> [SockFilter; 9] {
    let op = |code: u32, if_true, if_false, k| SockFilter::new(code as u16, if_true, if_false, k);
    let (load, jump) = (libc::BPF_LD, libc::BPF_JMP | libc::BPF_K);
    let ret = libc::BPF_RET | libc::BPF_K;
    [
        // The protocol must be UDP.
        op(load | libc::BPF_B | libc::BPF_ABS, 0, 0, 9),
        op(jump | libc::BPF_JEQ, 0, 6, libc::IPPROTO_UDP as u32),
        // The fragment offset must be 0.
        op(load | libc::BPF_H | libc::BPF_ABS, 0, 0, 6),
        op(jump | libc::BPF_JSET, 4, 0, 0x1fff),
        // X is the length of the IP header. The destination port is 2 bytes after its end.
        op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        op(load | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
        op(jump | libc::BPF_JEQ, 0, 1, port.into()),
        // Accept the whole packet, or drop it.
        op(ret, 0, 0, u32::MAX),
        op(ret, 0, 0, 0),
    ]
}
