//! Ethernet frames of a link on which the kernel has no address (packet(7)).

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{checked, counted};

use socket2::{SockFilter, SockRef};

/// Each frame has a `virtio_net_hdr` before it (linux/if_packet.h), so that large ones, which the kernel
/// or a card has joined, come whole.
const PACKET_VNET_HDR: libc::c_int = 15;
/// What stands before a frame, in bytes: a `virtio_net_hdr` (linux/virtio_net.h).
pub const HEADER_BYTES: usize = 10;
/// Its first byte: the checksum is yet to be made.
const NEEDS_CSUM: u8 = 1;
/// The same byte: the card or the kernel has found it to be right.
const DATA_VALID: u8 = 2;
/// The longest frame: the longest IPv4 packet, and an Ethernet header.
pub const LONGEST_BYTES: usize = 65535 + 14;
/// What comes for everybody (linux/if_packet.h); what comes for this machine is less, all else more.
const PACKET_BROADCAST: u32 = 1;
/// What may wait to be received, in bytes: what the windows of a few connections hold.
const QUEUE_BYTES: libc::c_int = 4 << 20;

/// A socket on one link that sends any frame, and receives ARP and what goes to one IPv4 address.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    mac: [u8; 6],
    mtu: usize,
}

/// Whether somebody has to look at the checksum of what the frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nobody has looked at it.
    Unknown,
    /// It is right, or the frame has not left this host since it was made and there is none yet.
    Settled,
}

impl FrameSocket {
    /// Opens it on the link with this name.
    ///
    /// # Errors
    /// The process may not (`EPERM`), the kernel has no packet sockets (`EAFNOSUPPORT`), there is no
    /// such link (`ENODEV`), or it is no Ethernet.
    pub fn open(link: &str, address: Ipv4Addr) -> io::Result<FrameSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes no memory. Protocol 0: nothing comes in before it is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        counted(fd as isize)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        SockRef::from(&socket).attach_filter(&arp_and_packets_to(address))?;
        set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        // More than the system allows everybody; a shorter queue only costs packets.
        let _ = set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_BYTES);
        let told = |request| fact(&socket, link, request);
        // SAFETY: of each request's answer that member of the union is read which it has written.
        let (index, mtu, hardware) = unsafe {
            (
                told(libc::SIOCGIFINDEX)?.ifr_ifru.ifru_ifindex,
                told(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu,
                told(libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr,
            )
        };
        let mac = hardware.sa_data.first_chunk::<6>().map(|mac| mac.map(|byte| byte as u8));
        let mac = mac.filter(|mac| hardware.sa_family == libc::ARPHRD_ETHER && mac[0] & 1 == 0);
        let mac = mac.ok_or_else(|| io::Error::other("it is not an Ethernet link"))?;
        // SAFETY: all of its fields are numbers, for which zeros are values.
        let mut on: libc::sockaddr_ll = unsafe { mem::zeroed() };
        on.sll_family = libc::AF_PACKET as libc::sa_family_t;
        on.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        on.sll_ifindex = index;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is a whole sockaddr_ll, and its length is given.
        counted(unsafe { libc::bind(fd, (&raw const on).cast(), length) } as isize)?;
        Ok(FrameSocket { socket, mac, mtu: usize::try_from(mtu).unwrap_or(0) })
    }

    /// The link's own hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The longest IP packet that the link takes, in bytes.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// Sends a frame that has its checksums, with [`HEADER_BYTES`] zeros before it. If there is no room
    /// the error is `WouldBlock`.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let (fd, at) = (self.socket.as_raw_fd(), frame.as_ptr().cast());
        // SAFETY: the pointer and the length are those of one slice.
        counted(unsafe { libc::send(fd, at, frame.len(), 0) }).map(drop)
    }

    /// The next frame; `buffer` has room for [`HEADER_BYTES`] and [`LONGEST_BYTES`], and one that is
    /// longer is empty. If there is none the error is `WouldBlock`.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<(&'a [u8], Checksum)> {
        let (fd, at, room) = (self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: the buffer is writable for the length that is given.
        let length = counted(unsafe { libc::recv(fd, at, room, libc::MSG_TRUNC) })?;
        let frame = buffer.get(HEADER_BYTES..length).unwrap_or_default();
        let is_settled = buffer.first().is_some_and(|flags| flags & (NEEDS_CSUM | DATA_VALID) != 0);
        Ok((frame, if is_settled { Checksum::Settled } else { Checksum::Unknown }))
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    let (fd, length) = (socket.as_raw_fd(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: these options are a c_int, and its length is given.
    checked(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) })
}

/// What the kernel says of a link (netdevice(7)).
fn fact(socket: &OwnedFd, link: &str, request: libc::c_ulong) -> io::Result<libc::ifreq> {
    // SAFETY: all of its fields are numbers, for which zeros are values.
    let mut asked: libc::ifreq = unsafe { mem::zeroed() };
    if link.len() >= asked.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, byte) in asked.ifr_name.iter_mut().zip(link.bytes()) {
        *to = byte as libc::c_char;
    }
    // SAFETY: these requests read and write one ifreq.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut asked) })?;
    Ok(asked)
}

/// A filter (BPF) that passes ARP, and IPv4 to `address`, of what others have sent to this machine or to
/// all, outside of any VLAN.
fn arp_and_packets_to(address: Ipv4Addr) -> [SockFilter; 10] {
    let op = |code: u32, if_true, if_false, k| SockFilter::new(code as u16, if_true, if_false, k);
    let load = |size, at| op(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at);
    let is = |k, if_true, if_false| {
        op(libc::BPF_JMP | libc::BPF_K | libc::BPF_JEQ, if_true, if_false, k)
    };
    let give = |bytes| op(libc::BPF_RET | libc::BPF_K, 0, 0, bytes);
    let known = |what: libc::c_int| (libc::SKF_AD_OFF + what) as u32;
    [
        // Its tag, if it had one, has been taken off.
        load(libc::BPF_B, known(libc::SKF_AD_VLAN_TAG_PRESENT)),
        is(0, 0, 7),
        load(libc::BPF_B, known(libc::SKF_AD_PKTTYPE)),
        op(libc::BPF_JMP | libc::BPF_K | libc::BPF_JGT, 5, 0, PACKET_BROADCAST),
        load(libc::BPF_H, 12),
        is(libc::ETH_P_ARP as u32, 2, 0),
        // Not IPv4's destination, if it is another protocol: the stack looks at that again.
        load(libc::BPF_W, 30),
        is(address.to_bits(), 0, 1),
        give(u32::MAX),
        give(0),
    ]
}
