use std::net::IpAddr;

use ipnet::Ipv4Net;

use super::*;
use crate::boot::address::route::Route;

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;
/// Where messages come from.
const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Subnet mask, router, a lease of an hour.
const USUAL: [&[u8]; 3] =
    [&[1, 4, 255, 255, 255, 0], &[3, 4, 192, 0, 2, 254], &[51, 4, 0, 0, 14, 16]];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// A server's message: 192.0.2.10 from 192.0.2.`server`, with these options behind the first two.
fn message(asker: Asker, kind: u8, server: u8, next: Option<&str>, options: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&asker.xid.to_be_bytes());
    bytes[16..20].copy_from_slice(&[192, 0, 2, 10]);
    bytes[20..24].copy_from_slice(&next.map_or([0; 4], |next| v4(next).octets()));
    bytes[28..34].copy_from_slice(&asker.mac);
    bytes[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    bytes.extend([53, 1, kind, 54, 4, 192, 0, 2, server]);
    bytes.extend(options.concat());
    bytes.push(255);
    bytes
}

/// In a packet to the client's port, with checksums.
fn packed(message: &[u8]) -> Vec<u8> {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};
    let (src_addr, dst_addr) = (v4("192.0.2.1"), Ipv4Addr::BROADCAST);
    let payload_len = 8 + message.len();
    let next_header = IpProtocol::Udp;
    let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: 64 };
    let mut bytes = vec![0; 20 + payload_len];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    header.emit(&mut packet, &ChecksumCapabilities::default());
    UdpRepr { src_port: 67, dst_port: 68 }.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &src_addr.into(),
        &dst_addr.into(),
        message.len(),
        |payload| payload.copy_from_slice(message),
        &ChecksumCapabilities::default(),
    );
    bytes
}

fn asker() -> Asker {
    Asker { mac: MAC, xid: 0x1234_5678, identity: Identity::default() }
}

/// What an offer with these options says.
fn offer(options: &[&[u8]]) -> Option<Lease> {
    match asker().read(&message(asker(), OFFER, 1, None, options), FROM) {
        Some(Reply::Offer(lease)) => Some(lease),
        _ => None,
    }
}

/// The DHCP message in a packet that a client has sent, and the value of one of its options.
fn option(packet: &[u8], number: u8) -> Option<Vec<u8>> {
    let mut rest = &packet[20 + 8 + 240..];
    while rest[0] != 255 {
        let (kind, length) = (rest[0], usize::from(rest[1]));
        if kind == number {
            return Some(rest[2..2 + length].to_vec());
        }
        rest = &rest[2 + length..];
    }
    None
}

// ---- what is asked

#[test]
fn a_discover_goes_to_everybody_and_is_known_by_its_hardware_address() {
    let packet = asker().discover(7);
    assert_eq!(packet[12..20], [0, 0, 0, 0, 255, 255, 255, 255]);
    assert_eq!(packet[20..24], [0, 68, 0, 67]);
    assert_eq!(packet.len(), 20 + 8 + 300, "shorter ones are dropped by some relays");
    let message = &packet[28..];
    assert_eq!(message[..3], [1, 1, 6]);
    assert_eq!(message[4..12], [0x12, 0x34, 0x56, 0x78, 0, 7, 0x80, 0], "number, time, broadcast");
    assert_eq!(message[28..34], MAC);
    assert_eq!(option(&packet, 53), Some(vec![1]));
    assert_eq!(option(&packet, 61), Some([&[1], &MAC[..]].concat()));
    assert_eq!(option(&packet, 55), Some(vec![1, 121, 3, 6, 12, 15, 26, 66, 67, 119]));
}

#[test]
fn a_request_names_the_offer_and_its_server() {
    let packet = asker().request(7, &offer(&USUAL).unwrap());
    assert_eq!(option(&packet, 53), Some(vec![3]));
    assert_eq!(option(&packet, 50), Some(vec![192, 0, 2, 10]));
    assert_eq!(option(&packet, 54), Some(vec![192, 0, 2, 1]));
}

#[test]
fn a_server_that_does_not_name_itself_is_not_named_to_it() {
    let offer = anonymous(None, v4("192.0.2.3")).unwrap();
    assert_eq!(option(&asker().request(7, &offer), 54), None);
}

#[test]
fn a_node_says_that_it_boots_from_the_network_and_what_it_is() {
    let uuid = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
    let identity = Identity { uuid: Some(uuid), architecture: Some(7) };
    let node = Asker { identity, ..asker() };
    for packet in [node.discover(7), node.request(7, &offer(&USUAL).unwrap())] {
        assert_eq!(option(&packet, 60).unwrap(), b"PXEClient:Arch:00007:UNDI:003016");
        assert_eq!(option(&packet, 93).unwrap(), [0, 7]);
        let id = b"\x00\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
        assert_eq!(option(&packet, 97).unwrap(), id);
    }
    assert_eq!(option(&asker().discover(7), 60), None);
}

// ---- what an answer says

/// An offer without an option that says from whom it is.
fn anonymous(next: Option<&str>, from: Ipv4Addr) -> Option<Lease> {
    let mut bytes = message(asker(), OFFER, 1, next, &USUAL);
    bytes = of_nobody(bytes);
    match asker().read(&bytes, from) {
        Some(Reply::Offer(lease)) => Some(lease),
        _ => None,
    }
}

#[test]
fn a_server_that_does_not_say_who_it_is_is_known_by_its_address() {
    let server = |next, from: &str| anonymous(next, v4(from)).map(|lease| lease.server);
    assert_eq!(server(None, "192.0.2.3"), Some(v4("192.0.2.3")));
    assert_eq!(server(NEXT, "0.0.0.0"), Some(v4(NEXT.unwrap())));
    assert_eq!(server(None, "0.0.0.0"), None);
}

#[test]
fn options_are_read_from_fields_that_have_no_other_use() {
    let offer = |overload: u8, file: &[u8], name: &[u8]| {
        let mut bytes = message(asker(), OFFER, 1, None, &[&[52, 1, overload]]);
        bytes[108..108 + file.len()].copy_from_slice(file);
        bytes[44..44 + name.len()].copy_from_slice(name);
        match asker().read(&bytes, FROM) {
            Some(Reply::Offer(lease)) => lease,
            _ => panic!("it is an offer"),
        }
    };
    let dns = [0, 6, 4, 192, 0, 2, 53, 255];
    let router = [3, 4, 192, 0, 2, 254, 255];
    let both = offer(3, &dns, &router);
    assert_eq!(both.name_servers, [ip("192.0.2.53")]);
    assert_eq!(both.routes, [Route::default(ip("192.0.2.254"))]);
    assert!(!both.names_file, "what stands there is no file's name");
    let none = offer(0, &dns, &router);
    assert!(none.name_servers.is_empty() && none.routes.is_empty());
    // One option in two fields is one option.
    let split = offer(3, &[15, 4, b'c', b'l', b'u', b's', 255], &[15, 3, b't', b'e', b'r', 255]);
    assert_eq!(split.domains, ["cluster"]);
    // A field that ends in the middle of one.
    assert!(offer(1, &[[0; 126].as_slice(), &[6, 200]].concat(), b"").name_servers.is_empty());
}

#[test]
fn all_domains_are_searched() {
    let domains = |options: &[&[u8]]| offer(options).unwrap().domains;
    assert_eq!(domains(&[b"\x0f\x0ea.org b.org,cd"]), ["a.org", "b.org", "cd"]);
    // eng.example.org, then marketing with a pointer to example.org.
    let list = b"\x77\x1d\x03eng\x07example\x03org\x00\x09marketing\xc0\x04";
    let list = [&[0x77, (list.len() - 2) as u8], &list[2..]].concat();
    assert_eq!(domains(&[&list]), ["eng.example.org", "marketing.example.org"]);
    let and_own = domains(&[&list, b"\x0f\x0fmarketing.a.org"]);
    assert_eq!(and_own.len(), 3);
    // Among them a label of 64 bytes, which there cannot be.
    let long = [&b"\x77\x42\x40"[..], &[b'a'; 64], b"\x00"].concat();
    for garbled in [&b"\x77\x02\xc0\x00"[..], b"\x77\x03\x09ab", b"\x77\x03\x01\n\x00", &long] {
        assert!(domains(&[garbled]).is_empty(), "{garbled:?}");
        let told = offer(&[garbled]).unwrap().garbled;
        assert_eq!(told, ["search list (option 119)"], "{garbled:?}");
    }
}

#[test]
fn a_usual_offer_is_understood() {
    let name_servers: &[u8] = &[6, 8, 192, 0, 2, 53, 192, 0, 2, 54];
    let more: [&[u8]; 4] = [name_servers, b"\x0c\x02n1", b"\x0f\x0bexample.org", &[26, 2, 5, 120]];
    let lease = offer(&[&USUAL[..], &more].concat()).unwrap();
    assert_eq!((lease.address, lease.server), (net("192.0.2.10/24"), v4("192.0.2.1")));
    assert_eq!(lease.routes, [Route::default(ip("192.0.2.254"))]);
    assert_eq!(lease.name_servers, [ip("192.0.2.53"), ip("192.0.2.54")]);
    assert_eq!(lease.host_name.as_deref(), Some("n1"));
    assert_eq!(lease.domains, ["example.org"]);
    assert_eq!((lease.mtu, lease.time), (Some(1400), Some(Duration::from_secs(3600))));
    assert!(lease.boot_servers.is_empty());
}

#[test]
fn boot_servers_are_the_next_server_then_a_tftp_server_that_is_an_address() {
    for name in [&b"\x42\x09192.0.2.7"[..], b"\x42\x0a192.0.2.7\0"] {
        let bytes = message(asker(), OFFER, 1, Some("192.0.2.6"), &[name]);
        let Some(Reply::Offer(lease)) = asker().read(&bytes, FROM) else {
            panic!("it is an offer")
        };
        assert_eq!(lease.boot_servers, [v4("192.0.2.6"), v4("192.0.2.7")]);
    }
    let named = offer(&[b"\x42\x0ahead.hpc\0\0"]).unwrap();
    assert!(named.boot_servers.is_empty(), "a name is not an IP address");
    assert_eq!(named.boot_host.as_deref(), Some("head.hpc"));
    assert_eq!(offer(&[b"\x42\x06he\nad."]).unwrap().boot_host, None);
}

#[test]
fn classless_routes_stand_in_for_the_router() {
    // 10.0.0.0/8 by .3, 198.51.100.0/25 on the link, everywhere by .4
    let routes: &[u8] =
        &[121, 20, 8, 10, 192, 0, 2, 3, 25, 198, 51, 100, 0, 0, 0, 0, 0, 0, 192, 0, 2, 4];
    let lease = offer(&[&USUAL[..], &[routes]].concat()).unwrap();
    let route = |to, via: Option<&str>| Route { to: net(to).into(), via: via.map(ip) };
    let expected = [
        route("10.0.0.0/8", Some("192.0.2.3")),
        route("198.51.100.0/25", None),
        route("0.0.0.0/0", Some("192.0.2.4")),
    ];
    assert_eq!(lease.routes, expected);
}

#[test]
fn garbled_classless_routes_leave_the_router() {
    for garbled in [&[121, 3, 33, 1, 2][..], &[121, 5, 8, 10, 192, 0, 2], &[121, 1, 200]] {
        let lease = offer(&[&USUAL[..], &[garbled]].concat()).unwrap();
        assert_eq!(lease.routes, [Route::default(ip("192.0.2.254"))]);
    }
}

#[test]
fn an_option_in_several_pieces_is_one() {
    let pieces: [&[u8]; 2] = [&[6, 2, 192, 0], &[6, 6, 2, 53, 192, 0, 2, 54]];
    assert_eq!(offer(&pieces).unwrap().name_servers, [ip("192.0.2.53"), ip("192.0.2.54")]);
}

#[test]
fn bad_values_are_as_good_as_none() {
    // A mask with a hole, an MTU and names that cannot be, addresses of nobody.
    let bad: [&[u8]; 6] = [
        &[1, 4, 255, 0, 255, 0],
        &[26, 2, 0, 68],
        b"\x0c\x04a\nb ",
        &[6, 8, 0, 0, 0, 0, 255, 255, 255, 255],
        &[3, 4, 224, 0, 0, 1],
        &[51, 4, 255, 255, 255, 255],
    ];
    let lease = offer(&bad).unwrap();
    assert_eq!((lease.address.prefix_len(), lease.mtu, lease.host_name), (24, None, None));
    assert!(lease.name_servers.is_empty() && lease.routes.is_empty());
    assert_eq!(lease.time, None, "for ever");
    let told = ["netmask (option 1)", "host name (option 12)", "MTU (option 26)"];
    assert_eq!(lease.garbled, told);
    let lease = offer(&[&[3, 3, 192, 0, 2], &[6, 5, 192, 0, 2, 53, 1], b"\x42\x03a b"]).unwrap();
    let told = ["router (option 3)", "list of name servers (option 6)", "TFTP server (option 66)"];
    assert_eq!(lease.garbled, told);
}

#[test]
fn what_is_for_others_is_no_answer() {
    let good = message(asker(), OFFER, 1, None, &USUAL);
    assert!(asker().read(&good, FROM).is_some());
    let spoilt = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        asker().read(&bytes, FROM)
    };
    assert_eq!(spoilt(0, 1), None, "a request");
    assert_eq!(spoilt(7, 0), None, "another number");
    assert_eq!(spoilt(33, 0), None, "another node's");
    assert_eq!(spoilt(236, 0), None, "no DHCP");
    assert!(matches!(spoilt(16, 0), Some(Reply::Unusable(..))), "no address: 0.0.2.10");
    assert_eq!(spoilt(242, 1), None, "a DHCPDISCOVER");
}

#[test]
fn a_message_cut_off_anywhere_does_no_harm() {
    let whole = message(asker(), OFFER, 1, Some("192.0.2.6"), &USUAL);
    let packet = packed(&whole);
    for length in 0..whole.len() {
        let _ = asker().read(&whole[..length], FROM);
    }
    for length in 0..packet.len() {
        assert_eq!(message_in(&packet[..length], Checksum::Unverified), None);
    }
    assert_eq!(message_in(&packet, Checksum::Unverified), Some((&whole[..], FROM)));
}

#[test]
fn a_checksum_counts_unless_the_sender_left_it_to_a_card() {
    let mut packet = packed(&message(asker(), OFFER, 1, None, &USUAL));
    packet[26] ^= 1;
    assert_eq!(message_in(&packet, Checksum::Unverified), None);
    assert!(message_in(&packet, Checksum::Exempt).is_some());
}

// ---- what real servers say

/// An offer of dnsmasq 2.89, as it arrived on a veth: its UDP checksum is left to a card. `0*N`
/// are N zeros.
const DNSMASQ: &str = "45c00173cdbc000040119fb00a4d0101ffffffff 00430044015f0cbe 02010600e3520608
    00008000000000000a4d010f0a4d014100000000020000000001 0*10 0*64 626f6f742f78 0*122
    63825363 350102 36040a4d0101 330400000e10 3a0400000708 3b0400000c4e 0104ffffff00 1c040a4d01ff
    0c066e6f64653135 790b080a0a4d0103000a4d0104 420b31302e37372e312e363600 1a020578
    0f07636c7573746572 06080a4d01350a4d0136 03040a4d01fe ff";
/// An offer of busybox's udhcpd 1.35.
const UDHCPD: &str = "4500014800000000 40116e580a4d0101ffffffff 0043004401345c2d 02010600ce42ba57
    00008000000000000a4d011d0000000000000000020000000001 0*10 0*64 0*128
    63825363 350102 36040a4d0101 330400000258 0104ffffff00 03040a4d01fe 06040a4d0135 ff 0*26";

fn captured(text: &str) -> Vec<u8> {
    let bytes = text.split_whitespace().flat_map(|word| match word.strip_prefix("0*") {
        Some(count) => vec![0; count.parse().unwrap()],
        None => {
            let digits: Vec<char> = word.chars().collect();
            let pair = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
            digits.chunks(2).map(|digits| pair(digits).unwrap()).collect()
        }
    });
    bytes.collect()
}

fn captured_offer(packet: &[u8], checksum: Checksum, xid: u32) -> Option<Lease> {
    let asker = Asker { mac: [2, 0, 0, 0, 0, 1], xid, identity: Identity::default() };
    let (message, from) = message_in(packet, checksum)?;
    match asker.read(message, from)? {
        Reply::Offer(lease) => Some(lease),
        _ => None,
    }
}

#[test]
fn dnsmasqs_offer_is_understood() {
    let packet = captured(DNSMASQ);
    assert_eq!(packet.len(), 0x173);
    assert_eq!(captured_offer(&packet, Checksum::Unverified, 0xe352_0608), None);
    let route = |to, via| Route { to: net(to).into(), via: Some(ip(via)) };
    let expected = Lease {
        address: net("10.77.1.15/24"),
        server: v4("10.77.1.1"),
        names_itself: true,
        routes: vec![route("10.0.0.0/8", "10.77.1.3"), route("0.0.0.0/0", "10.77.1.4")],
        name_servers: vec![ip("10.77.1.53"), ip("10.77.1.54")],
        host_name: Some("node15".into()),
        domains: vec!["cluster".into()],
        mtu: Some(1400),
        time: Some(Duration::from_secs(3600)),
        boot_servers: vec![v4("10.77.1.65"), v4("10.77.1.66")],
        boot_host: None,
        names_file: true,
        garbled: Vec::new(),
    };
    assert_eq!(captured_offer(&packet, Checksum::Exempt, 0xe352_0608), Some(expected));
}

#[test]
fn udhcpds_offer_is_understood() {
    let packet = captured(UDHCPD);
    assert_eq!(packet.len(), 0x148);
    let expected = Lease {
        address: net("10.77.1.29/24"),
        server: v4("10.77.1.1"),
        names_itself: true,
        routes: vec![Route::default(ip("10.77.1.254"))],
        name_servers: vec![ip("10.77.1.53")],
        host_name: None,
        domains: Vec::new(),
        mtu: None,
        time: Some(Duration::from_secs(600)),
        boot_servers: vec![],
        boot_host: None,
        names_file: false,
        garbled: Vec::new(),
    };
    assert_eq!(captured_offer(&packet, Checksum::Unverified, 0xce42_ba57), Some(expected));
}

// ---- when, and which

/// Two links that are asked on, and a clock.
struct Story {
    dhcp: Dhcp,
    now: Instant,
}

impl Story {
    fn on(links: &[(u32, [u8; 6])]) -> Story {
        let (mut dhcp, now) = (Dhcp::new(1, Identity::default()), Instant::now());
        dhcp.run_on(&links.iter().copied().collect(), None, now);
        Story { dhcp, now }
    }

    /// The kinds of the messages that go out, each with its link.
    fn sends(&mut self) -> Vec<(u32, u8)> {
        let packets = self.dhcp.poll(self.now).into_iter();
        packets.map(|(link, packet)| (link, option(&packet, 53).unwrap()[0])).collect()
    }

    fn after(&mut self, seconds: f64) -> &mut Story {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    fn answer(&mut self, link: u32, kind: u8, server: u8, next: Option<&str>) -> Option<Lease> {
        let asker = self.dhcp.clients.get(&link).unwrap().asker;
        let packet = packed(&message(asker, kind, server, next, &USUAL));
        self.dhcp.receive(link, &packet, Checksum::Unverified, self.now)
    }

    /// The time until the next packet, and that packet.
    fn silence(&mut self) -> (f64, Vec<(u32, u8)>) {
        let wait = self.dhcp.next_wake().unwrap() - self.now;
        self.now += wait;
        (wait.as_secs_f64(), self.sends())
    }
}

/// A message in which the option that says from whom it is is one that nobody knows.
fn of_nobody(mut message: Vec<u8>) -> Vec<u8> {
    message[243] = 224;
    message
}

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const NEXT: Option<&str> = Some("192.0.2.6");

#[test]
fn a_server_is_asked_at_once_after_4_seconds_and_then_every_7_for_ever() {
    let mut story = Story::on(&[(1, MAC)]);
    assert_eq!(story.sends(), [(1, DISCOVER)]);
    for expected in [4.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0] {
        let (waited, sent) = story.silence();
        assert!((waited - expected).abs() <= 1.0, "{waited} s, not about {expected} s");
        assert_eq!(sent, [(1, DISCOVER)]);
    }
    assert_eq!(story.dhcp.asked(1), 10);
}

#[test]
fn a_server_that_names_itself_only_in_its_last_word_is_believed_by_the_address_it_gives() {
    for (offers_address, is_taken) in [(10, true), (11, false)] {
        let mut story = Story::on(&[(1, MAC)]);
        story.sends();
        let asker = story.dhcp.clients.get(&1).unwrap().asker;
        let mut offer = of_nobody(message(asker, OFFER, 1, NEXT, &USUAL));
        offer[19] = offers_address;
        story.dhcp.receive(1, &packed(&offer), Checksum::Unverified, story.now);
        assert_eq!(story.sends(), [(1, REQUEST)]);
        // It is 192.0.2.7, and not where the packets come from.
        assert_eq!(story.answer(1, ACK, 7, NEXT).is_some(), is_taken);
    }
}

#[test]
fn an_offer_that_cannot_be_used_is_told_once_with_its_reason() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    let asker = story.dhcp.clients.get(&1).unwrap().asker;
    let mut offer = message(asker, OFFER, 1, NEXT, &USUAL);
    offer[16..20].copy_from_slice(&[0; 4]);
    for warnings in [1, 0] {
        story.dhcp.receive(1, &packed(&offer), Checksum::Unverified, story.now);
        let told = story.dhcp.take_warnings();
        assert_eq!(told.len(), warnings);
        assert!(told.iter().all(|text| text.ends_with("it has no address for this node")));
    }
}

#[test]
fn what_servers_say_has_an_end() {
    let names: Vec<String> = (10..40).map(|n| format!("d{n}")).collect();
    let option = [&[15, 120], names.join(",").as_bytes(), b","].concat();
    assert_eq!(offer(&[&option]).unwrap().domains.len(), 16);
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    let asker = story.dhcp.clients.get(&1).unwrap().asker;
    for server in 1..=40 {
        let mut offer = message(asker, OFFER, server, NEXT, &USUAL);
        offer[16..20].copy_from_slice(&[0; 4]);
        story.dhcp.receive(1, &packed(&offer), Checksum::Unverified, story.now);
    }
    assert_eq!(story.dhcp.take_warnings().len(), 16);
}

#[test]
fn what_a_server_gives_garbled_is_told_and_the_rest_is_used() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    story.answer(1, OFFER, 1, NEXT);
    story.sends();
    let asker = story.dhcp.clients.get(&1).unwrap().asker;
    let routes: &[u8] = &[121, 3, 24, 10, 0];
    let ack = message(asker, ACK, 1, NEXT, &[&USUAL[..], &[routes]].concat());
    let lease = story.dhcp.receive(1, &packed(&ack), Checksum::Unverified, story.now).unwrap();
    assert_eq!(lease.routes, [Route::default(ip("192.0.2.254"))]);
    let told =
        "the DHCP server 192.0.2.1 gives a garbled list of routes (option 121), which is not used";
    assert_eq!(story.dhcp.take_warnings(), [told]);
}

#[test]
fn a_server_that_gives_no_addresses_may_say_whom_to_boot_from() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    let asker = story.dhcp.clients.get(&1).unwrap().asker;
    let mut proxy = message(asker, OFFER, 9, Some("192.0.2.9"), &[b"\x3c\x09PXEClient"]);
    proxy[16..20].copy_from_slice(&[0; 4]);
    story.dhcp.receive(1, &packed(&proxy), Checksum::Unverified, story.now);
    assert!(story.dhcp.take_warnings().is_empty());
    story.answer(1, OFFER, 1, None);
    story.after(1.0);
    assert_eq!(story.sends(), [(1, REQUEST)]);
    assert_eq!(story.answer(1, ACK, 1, None).unwrap().boot_servers, [v4("192.0.2.9")]);
}

#[test]
fn a_server_that_answers_nobody_that_boots_from_the_network_is_asked_otherwise_too() {
    let identity = Identity { uuid: None, architecture: Some(7) };
    let mut story = Story { dhcp: Dhcp::new(1, identity), now: Instant::now() };
    story.dhcp.run_on(&[(1, MAC)].into(), None, story.now);
    let mut says = Vec::new();
    for _ in 0..6 {
        let packets = story.dhcp.poll(story.now);
        says.push(option(&packets[0].1, 60).is_some());
        story.now = story.dhcp.next_wake().unwrap();
    }
    assert_eq!(says, [true, true, false, true, false, true]);
    story.dhcp.poll(story.now);
    story.answer(1, OFFER, 1, NEXT);
    let packets = story.dhcp.poll(story.now);
    assert_eq!(option(&packets[0].1, 60), None, "as it was asked, so it asks");
}

#[test]
fn options_that_are_cut_off_are_told() {
    let lease = offer(&[b"\x0f\x07eng\0hpc", &[3, 200, 10]]).unwrap();
    assert_eq!(lease.domains, ["eng", "hpc"]);
    assert_eq!(lease.garbled, ["end of its options"]);
}

#[test]
fn nodes_that_start_together_do_not_ask_together_for_ever() {
    let wait = |mac| {
        let mut story = Story::on(&[(1, mac)]);
        story.sends();
        story.silence().0
    };
    assert_ne!(wait(MAC), wait(OTHER_MAC));
}

#[test]
fn on_one_link_an_offer_that_names_a_boot_server_is_taken_at_once() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    assert_eq!(story.answer(1, OFFER, 1, NEXT), None);
    assert_eq!(story.sends(), [(1, REQUEST)]);
    assert_eq!(story.answer(1, ACK, 1, NEXT).unwrap().address, net("192.0.2.10/24"));
}

#[test]
fn one_that_names_none_waits_a_moment_for_a_better_one() {
    let mut story = Story::on(&[(1, MAC), (2, OTHER_MAC)]);
    assert_eq!(story.sends(), [(1, DISCOVER), (2, DISCOVER)]);
    story.answer(1, OFFER, 1, None);
    assert_eq!(story.sends(), []);
    story.after(0.5).answer(2, OFFER, 2, NEXT);
    assert_eq!(story.silence(), (0.5, vec![(2, REQUEST)]));
}

#[test]
fn one_that_names_a_file_as_well_is_the_best() {
    let mut story = Story::on(&[(1, MAC), (2, OTHER_MAC)]);
    story.sends();
    story.answer(1, OFFER, 1, NEXT);
    assert_eq!(story.sends(), [], "dnsmasq names itself to everybody");
    let mut message = message(story.dhcp.clients.get(&2).unwrap().asker, OFFER, 2, NEXT, &USUAL);
    message[108..111].copy_from_slice(b"x.0");
    story.dhcp.receive(2, &packed(&message), Checksum::Unverified, story.now);
    assert_eq!(story.sends(), [(2, REQUEST)]);
}

#[test]
fn while_other_links_may_come_one_that_names_no_file_waits() {
    let mut story = Story::on(&[(1, MAC)]);
    let others_until = story.now + Duration::from_secs(5);
    story.dhcp.run_on(&[(1, MAC)].into(), Some(others_until), story.now);
    story.sends();
    story.answer(1, OFFER, 1, NEXT);
    while story.now < others_until {
        assert!(!story.dhcp.is_requesting());
        story.silence();
    }
    assert!(story.dhcp.is_requesting());
}

#[test]
fn it_is_taken_if_no_better_one_comes() {
    let mut story = Story::on(&[(1, MAC), (2, OTHER_MAC)]);
    story.sends();
    story.answer(2, OFFER, 1, None);
    assert_eq!(story.silence(), (1.0, vec![(2, REQUEST)]));
}

#[test]
fn the_better_one_may_come_on_the_same_link() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    story.answer(1, OFFER, 1, None);
    story.answer(1, OFFER, 2, NEXT);
    story.answer(1, OFFER, 3, None);
    assert_eq!(story.sends(), [(1, REQUEST)]);
    assert_eq!(story.dhcp.requested_from(1), Some(v4("192.0.2.2")));
    assert_eq!(story.answer(1, ACK, 3, None), None, "from whom nothing was requested");
    assert!(story.answer(1, ACK, 2, NEXT).is_some());
}

#[test]
fn a_refusal_begins_again_after_a_second() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    story.answer(1, OFFER, 1, NEXT);
    story.sends();
    story.answer(1, NAK, 2, None);
    assert!(story.dhcp.is_requesting(), "it was another server's");
    story.answer(1, NAK, 1, None);
    assert_eq!(story.silence(), (1.0, vec![(1, DISCOVER)]));
}

#[test]
fn after_a_refusal_the_other_links_offer_is_taken() {
    let mut story = Story::on(&[(1, MAC), (2, OTHER_MAC)]);
    story.sends();
    story.answer(1, OFFER, 1, NEXT);
    story.answer(2, OFFER, 2, NEXT);
    assert_eq!(story.after(1.0).sends(), [(1, REQUEST)]);
    story.answer(1, NAK, 1, None);
    assert_eq!(story.sends(), [(2, REQUEST)]);
}

#[test]
fn a_server_that_falls_silent_is_asked_three_times() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    story.answer(1, OFFER, 1, NEXT);
    assert_eq!(story.sends(), [(1, REQUEST)]);
    assert_eq!(story.silence().1, [(1, REQUEST)]);
    assert_eq!(story.silence().1, [(1, REQUEST)]);
    assert_eq!(story.silence().1, [(1, DISCOVER)]);
}

#[test]
fn a_link_without_carrier_falls_silent_and_asks_at_once_when_it_is_back() {
    let mut story = Story::on(&[(1, MAC)]);
    story.sends();
    story.dhcp.run_on(&BTreeMap::new(), None, story.now);
    assert_eq!((story.after(100.0).sends(), story.dhcp.next_wake()), (vec![], None));
    let now = story.now;
    story.dhcp.run_on(&[(1, MAC)].into(), None, now);
    assert_eq!(story.sends(), [(1, DISCOVER)]);
}
