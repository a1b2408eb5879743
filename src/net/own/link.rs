//! A link as smoltcp wants it: frames in, frames out.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, TcpPacket, UdpPacket,
};

use crate::sys::frames::{FrameSocket, HEADER_BYTES, MAX_FRAME_BYTES};
use crate::sys::packet::Checksum;

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    socket: FrameSocket,
    mac: EthernetAddress,
    /// Of an IP packet, in bytes.
    mtu: usize,
    incoming: Vec<u8>,
    outgoing: Outgoing,
}

/// The frame that is being made, or that the kernel has no room for yet.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    waits: bool,
}

impl Link {
    /// `most` bounds what the link itself takes, in bytes of an IP packet.
    pub(super) fn new(socket: FrameSocket, most: Option<u32>) -> Link {
        let mtu = most.map_or(socket.mtu(), |most| socket.mtu().min(most as usize));
        Link {
            mac: EthernetAddress(socket.mac()),
            mtu,
            socket,
            incoming: vec![0; HEADER_BYTES + MAX_FRAME_BYTES],
            outgoing: Outgoing { bytes: Vec::new(), waits: false },
        }
    }

    pub(super) fn mac(&self) -> EthernetAddress {
        self.mac
    }

    /// Whether a frame waits for room.
    pub(super) fn is_blocked(&self) -> bool {
        self.outgoing.waits
    }

    /// Asks who has an address, for a connection that is going to need it. smoltcp asks by itself, but
    /// for one address a second only.
    pub(super) fn ask_for(&mut self, ip: Ipv4Addr, own: Ipv4Addr) {
        let mac = self.mac;
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: mac,
            source_protocol_addr: own,
            target_hardware_addr: EthernetAddress::BROADCAST,
            target_protocol_addr: ip,
        };
        let length = EthernetFrame::<&[u8]>::buffer_len(question.buffer_len());
        let Some(room) = self.transmit(Instant::ZERO) else { return };
        phy::TxToken::consume(room, length, |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            frame.set_src_addr(mac);
            frame.set_dst_addr(EthernetAddress::BROADCAST);
            frame.set_ethertype(EthernetProtocol::Arp);
            question.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let length = loop {
            // What else goes wrong is over when the link works again; until then nothing comes.
            let (frame, checksum) = self.socket.receive(&mut self.incoming).ok()?;
            if checksum == Checksum::Exempt || is_sound(frame) {
                break frame.len();
            }
        };
        let frame = self.incoming.get(HEADER_BYTES..)?.get(..length)?;
        Some((Received(frame), Room { socket: &self.socket, outgoing: &mut self.outgoing }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        if self.outgoing.waits {
            self.outgoing.send(&self.socket);
        }
        let is_free = !self.outgoing.waits;
        is_free.then_some(Room { socket: &self.socket, outgoing: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // These have been looked at when the frame came.
        checksum.tcp = phy::Checksum::Tx;
        checksum.udp = phy::Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = EthernetFrame::<&[u8]>::buffer_len(self.mtu);
        capabilities.checksum = checksum;
        capabilities
    }
}

/// A frame that has come.
pub(super) struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

/// The right to send one frame.
pub(super) struct Room<'a> {
    socket: &'a FrameSocket,
    outgoing: &'a mut Outgoing,
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, make: F) -> R {
        if self.outgoing.waits {
            // An answer that is made on the spot; it is lost as it would be in a full queue.
            return make(&mut vec![0; length]);
        }
        let bytes = &mut self.outgoing.bytes;
        bytes.clear();
        bytes.resize(HEADER_BYTES + length, 0);
        let result = make(bytes.get_mut(HEADER_BYTES..).unwrap_or_default());
        self.outgoing.send(self.socket);
        result
    }
}

impl Outgoing {
    /// What fails for good is lost, as packets are.
    fn send(&mut self, socket: &FrameSocket) {
        let full = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.waits = socket.send(&self.bytes).is_err_and(full);
    }
}

/// Whether the checksum of TCP or UDP in a frame is right; there is none in others.
fn is_sound(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return false };
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return true;
    }
    let Ok(ip) = Ipv4Packet::new_checked(frame.payload()) else { return false };
    let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
    match ip.next_header() {
        IpProtocol::Tcp => TcpPacket::new_checked(ip.payload())
            .is_ok_and(|segment| segment.verify_checksum(&from, &to)),
        IpProtocol::Udp => UdpPacket::new_checked(ip.payload())
            .is_ok_and(|datagram| datagram.verify_checksum(&from, &to)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{IpAddress, Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber};

    /// A frame with a TCP segment.
    fn frame() -> Vec<u8> {
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let segment = TcpRepr {
            src_port: 1,
            dst_port: 2,
            control: TcpControl::None,
            seq_number: TcpSeqNumber(7),
            ack_number: Some(TcpSeqNumber(9)),
            window_len: 100,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: b"content",
        };
        let ip = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Tcp,
            payload_len: segment.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes =
            vec![0; EthernetFrame::<&[u8]>::buffer_len(ip.buffer_len() + ip.payload_len)];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        frame.set_ethertype(EthernetProtocol::Ipv4);
        let checksums = ChecksumCapabilities::default();
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        let (from, to) = (IpAddress::Ipv4(from), IpAddress::Ipv4(to));
        segment.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &from, &to, &checksums);
        bytes
    }

    #[test]
    fn a_segment_that_was_damaged_on_its_way_is_seen() {
        let sound = frame();
        assert!(is_sound(&sound));
        for damaged in 34..sound.len() {
            let mut frame = sound.clone();
            frame[damaged] ^= 0x10;
            assert!(!is_sound(&frame), "byte {damaged}");
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_is_not_sound() {
        let frame = frame();
        for length in 0..frame.len() {
            assert!(!is_sound(&frame[..length]), "{length} bytes");
        }
    }
}
