//! A socket for the Ethernet frames of a link on which the kernel has no address (packet(7)), as xget's own
//! TCP/IP stack needs it.

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use socket2::{SockFilter, SockRef};

use super::packet::Checksum;
use super::{checked, counted};

/// The kernel puts a `virtio_net_hdr` before each frame (linux/if_packet.h). It then passes on large frames
/// whole that it, or the card, has joined (GRO, LRO).
const PACKET_VNET_HDR: libc::c_int = 15;
/// Size of the `virtio_net_hdr` before each frame (linux/virtio_net.h).
pub(crate) const HEADER_BYTES: usize = 10;
/// Flag in its first byte: the checksum is still missing.
const NEEDS_CSUM: u8 = 1;
/// Flag in its first byte: the card or the kernel has verified the checksum.
const DATA_VALID: u8 = 2;
/// Size of the longest frame: the longest IPv4 packet and an Ethernet header.
pub(crate) const MAX_FRAME_BYTES: usize = 65535 + 14;
/// Packet type of a broadcast (linux/if_packet.h). Packets for this host have a smaller number (0), all
/// others a greater one.
const PACKET_BROADCAST: u32 = 1;
/// Size of the receive queue: what the receive windows of a few connections hold.
const RECEIVE_QUEUE_BYTES: libc::c_int = 4 << 20;

/// A packet socket on one link. It sends any frame, and receives ARP and packets to one IPv4 address.
#[derive(Debug)]
pub(crate) struct FrameSocket {
    socket: OwnedFd,
    mac: [u8; 6],
    mtu: usize,
}

impl FrameSocket {
    /// Opens a socket on the link with this name, which receives packets to `address`.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW`, `EAFNOSUPPORT` if the kernel has no packet sockets, `ENODEV` if there is
    /// no such link, and an error of its own if the link is not Ethernet.
    pub(crate) fn open(link: &str, address: Ipv4Addr) -> io::Result<FrameSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: the socket receives nothing before it is bound.
        // SAFETY: the call accesses no memory.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        counted(fd as isize)?;
        // SAFETY: the call has just returned this descriptor, so nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        SockRef::from(&socket).attach_filter(&arp_and_packets_to(address))?;
        set_option(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        // This may exceed net.core.rmem_max. If it fails, the queue is shorter and more packets get lost.
        let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_QUEUE_BYTES);
        let query = |request| interface_request(&socket, link, request);
        // SAFETY: each request fills in the member of the union that is read here.
        let (index, mtu, hardware) = unsafe {
            (
                query(libc::SIOCGIFINDEX)?.ifr_ifru.ifru_ifindex,
                query(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu,
                query(libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr,
            )
        };
        let mac = hardware.sa_data.first_chunk::<6>().map(|mac| mac.map(|byte| byte as u8));
        let mac = mac.filter(|mac| hardware.sa_family == libc::ARPHRD_ETHER && mac[0] & 1 == 0);
        let mac = mac.ok_or_else(|| io::Error::other("it is not an Ethernet link"))?;
        // SAFETY: a sockaddr_ll consists of integers, for which zeros are valid values.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_ll, and `length` is its size.
        counted(unsafe { libc::bind(fd, (&raw const address).cast(), length) } as isize)?;
        Ok(FrameSocket { socket, mac, mtu: usize::try_from(mtu).unwrap_or(0) })
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The link's MTU: the size of its longest IP packet, in bytes.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu
    }

    /// Sends a frame. It must have its checksums, and [`HEADER_BYTES`] zeros before it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the queue is full.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let (fd, at) = (self.socket.as_raw_fd(), frame.as_ptr().cast());
        // SAFETY: the frame is readable for the length passed.
        counted(unsafe { libc::send(fd, at, frame.len(), 0) }).map(drop)
    }

    /// The next frame. `buffer` must have room for [`HEADER_BYTES`] and [`MAX_FRAME_BYTES`]; a longer frame is
    /// returned as an empty one.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if there is none.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Checksum)> {
        let (fd, at, room) = (self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for the length passed.
        let length = counted(unsafe { libc::recv(fd, at, room, libc::MSG_TRUNC) })?;
        let frame = buffer.get(HEADER_BYTES..length).unwrap_or_default();
        let exempt = buffer.first().is_some_and(|flags| flags & (NEEDS_CSUM | DATA_VALID) != 0);
        Ok((frame, if exempt { Checksum::Exempt } else { Checksum::Unverified }))
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    let (fd, length) = (socket.as_raw_fd(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: all options that are set here are a c_int, and `length` is its size.
    checked(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) })
}

/// Asks the kernel for a property of a link (netdevice(7)).
fn interface_request(
    socket: &OwnedFd,
    link: &str,
    request: libc::c_ulong,
) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq consists of integers and pointers, for which zeros are valid values.
    let mut data: libc::ifreq = unsafe { mem::zeroed() };
    if link.len() >= data.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, byte) in data.ifr_name.iter_mut().zip(link.bytes()) {
        *to = byte as libc::c_char;
    }
    // SAFETY: the requests that are made here read and write one ifreq.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut data) })?;
    Ok(data)
}

/// A BPF filter that accepts ARP, and IPv4 packets to `address`, if another host has sent them to this one or
/// to all, and without a VLAN tag.
fn arp_and_packets_to(address: Ipv4Addr) -> [SockFilter; 10] {
    let op = |code: u32, if_true, if_false, k| SockFilter::new(code as u16, if_true, if_false, k);
    let load = |size, at| op(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at);
    let is = |k, if_true, if_false| {
        op(libc::BPF_JMP | libc::BPF_K | libc::BPF_JEQ, if_true, if_false, k)
    };
    let ret = |bytes| op(libc::BPF_RET | libc::BPF_K, 0, 0, bytes);
    let ancillary = |what: libc::c_int| (libc::SKF_AD_OFF + what) as u32;
    [
        // The kernel has removed the VLAN tag from the frame, and says so.
        load(libc::BPF_B, ancillary(libc::SKF_AD_VLAN_TAG_PRESENT)),
        is(0, 0, 7),
        load(libc::BPF_B, ancillary(libc::SKF_AD_PKTTYPE)),
        op(libc::BPF_JMP | libc::BPF_K | libc::BPF_JGT, 5, 0, PACKET_BROADCAST),
        load(libc::BPF_H, 12),
        is(libc::ETH_P_ARP as u32, 2, 0),
        // IPv4's destination. For other protocols these are other bytes, but the stack checks the
        // protocol again.
        load(libc::BPF_W, 30),
        is(address.to_bits(), 0, 1),
        ret(u32::MAX),
        ret(0),
    ]
}
