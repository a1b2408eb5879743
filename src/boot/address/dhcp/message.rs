//! DHCPv4 messages (RFC 2131, RFC 2132): what is asked, and what an answer says.
//!
//! smoltcp writes them, and finds the fields and options of what comes in.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::Duration;

use ipnet::{Ipv4Net, ipv4_mask_to_prefix};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket,
    DhcpRepr, EthernetAddress, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UDP_HEADER_LEN,
    UdpPacket, UdpRepr,
};

use crate::boot::address::identity::Identity;
use crate::boot::address::route::Route;
use crate::limits::MAX_DHCP_LIST;
use crate::network::class_prefix;
use crate::sys::packet::Checksum;

/// Numbers of options (RFC 2132, section 3 and 9; RFC 3397; RFC 3442; RFC 4578).
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const INTERFACE_MTU: u8 = 26;
const LEASE_TIME: u8 = 51;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const VENDOR_CLASS: u8 = 60;
const TFTP_SERVER_NAME: u8 = 66;
const BOOT_FILE: u8 = 67;
const ARCHITECTURE: u8 = 93;
const MACHINE_ID: u8 = 97;
const DOMAIN_SEARCH: u8 = 119;
const CLASSLESS_ROUTES: u8 = 121;
/// Bytes of a message that have no number and end the options.
const PAD: u8 = 0;
const END: u8 = 255;
/// The fields `sname` and `file`, which may hold options (RFC 2131, section 2), and what says so of each.
const SERVER_NAME: (Range<usize>, u8) = (44..108, 2);
const FILE: (Range<usize>, u8) = (108..236, 1);
/// What is asked for; the classless routes stand before the router (RFC 3442).
const ASKED_FOR: [u8; 10] = [
    SUBNET_MASK,
    CLASSLESS_ROUTES,
    ROUTER,
    NAME_SERVER,
    HOST_NAME,
    DOMAIN_NAME,
    INTERFACE_MTU,
    TFTP_SERVER_NAME,
    BOOT_FILE,
    DOMAIN_SEARCH,
];
/// How the vendor class of whoever boots from the network begins.
const PXE_CLIENT: &[u8] = b"PXEClient";
/// What every DHCP message has before its options (RFC 2131, section 3).
const MAGIC: u32 = 0x6382_5363;
/// Relays may drop what is shorter than a BOOTP message (RFC 1542, section 2.1).
const SHORTEST_BYTES: usize = 300;
/// The longest message that is taken.
const LONGEST_BYTES: u16 = 1500;
/// The least MTU that is believed: what every host must take (RFC 791).
const LEAST_MTU: u32 = 576;
/// A lease of this many seconds does not end (RFC 2131, section 3.3).
const FOR_EVER_S: u32 = u32::MAX;
const HOP_LIMIT: u8 = 64;
/// Longest host or domain name (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// What a server gives, or offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::boot::address) struct Lease {
    /// With its network's prefix.
    pub(in crate::boot::address) address: Ipv4Net,
    /// The server that gives it: it says so itself, or it is inferred from what there is.
    pub(in crate::boot::address) server: Ipv4Addr,
    pub(in crate::boot::address) names_itself: bool,
    pub(in crate::boot::address) routes: Vec<Route>,
    pub(in crate::boot::address) name_servers: Vec<IpAddr>,
    pub(in crate::boot::address) host_name: Option<String>,
    /// Where names without a dot are looked for.
    pub(in crate::boot::address) domains: Vec<String>,
    /// In bytes.
    pub(in crate::boot::address) mtu: Option<u32>,
    /// None: it does not end.
    pub(in crate::boot::address) time: Option<Duration>,
    /// Whom to boot from, best first; those that the server names, without itself.
    pub(in crate::boot::address) boot_servers: Vec<Ipv4Addr>,
    /// The name of a server to boot from (option 66).
    pub(in crate::boot::address) boot_host: Option<String>,
    /// It names a file to boot, as only servers for that do.
    pub(in crate::boot::address) names_file: bool,
    /// What it gives in a form that makes no sense, and is not used.
    pub(in crate::boot::address) garbled: Vec<&'static str>,
}

/// What a server says to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Offer(Lease),
    Ack(Lease),
    /// From the server with this address, if it tells.
    Nak(Option<Ipv4Addr>),
    /// An offer of no address, but of a server to boot from, as only clients that boot from the network get it.
    Proxy(Ipv4Addr),
    /// An offer, or what should be a lease, that a node cannot use: from whom, and why.
    Unusable(Ipv4Addr, &'static str),
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) mac: [u8; 6],
    pub(super) xid: u32,
    /// Some servers say whom to boot from only to whoever says what it is, as its firmware did.
    pub(super) identity: Identity,
}

impl Asker {
    /// The IPv4 packet that asks all servers for an offer (DHCPDISCOVER).
    pub(super) fn discover(&self, secs: u16) -> Vec<u8> {
        self.packet(&self.message(DhcpMessageType::Discover, secs))
    }

    /// The IPv4 packet that takes an offer, which all servers are to hear of (DHCPREQUEST).
    pub(super) fn request(&self, secs: u16, offer: &Lease) -> Vec<u8> {
        let mut message = self.message(DhcpMessageType::Request, secs);
        message.requested_ip = Some(offer.address.addr());
        // A server that does not name itself takes it to be for itself; another name would say that it is not.
        message.server_identifier = Some(offer.server).filter(|_| offer.names_itself);
        self.packet(&message)
    }

    /// What a message from this address says; None if it is no answer for this one.
    pub(super) fn read(&self, message: &[u8], from: Ipv4Addr) -> Option<Reply> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let is_answer = packet.opcode() == DhcpOpCode::Reply
            && packet.magic_number() == MAGIC
            && packet.transaction_id() == self.xid
            && packet.client_hardware_address() == EthernetAddress(self.mac);
        if !is_answer {
            return None;
        }
        let options = Options::new(&packet, message);
        let kind = options.of(MESSAGE_TYPE).first().copied()?;
        let named = options.address(SERVER_IDENTIFIER).or(Some(from).filter(|&ip| is_host(ip)));
        let sender = named.unwrap_or(packet.server_ip());
        let unusable = |why| Reply::Unusable(sender, why);
        match DhcpMessageType::from(kind) {
            DhcpMessageType::Offer if options.is_of_proxy() => {
                let next = Some(packet.server_ip()).filter(|&ip| is_host(ip));
                Some(
                    next.or(options.address(SERVER_IDENTIFIER))
                        .map_or_else(|| unusable("it has no address for this node"), Reply::Proxy),
                )
            }
            DhcpMessageType::Offer => Some(options.lease(from).map_or_else(unusable, Reply::Offer)),
            DhcpMessageType::Ack => Some(options.lease(from).map_or_else(unusable, Reply::Ack)),
            DhcpMessageType::Nak => Some(Reply::Nak(options.address(SERVER_IDENTIFIER))),
            _ => None,
        }
    }

    fn message(&self, message_type: DhcpMessageType, secs: u16) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type,
            transaction_id: self.xid,
            secs,
            client_hardware_address: EthernetAddress(self.mac),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            // The link has no address yet to which an answer could go.
            broadcast: true,
            requested_ip: None,
            client_identifier: Some(EthernetAddress(self.mac)),
            server_identifier: None,
            parameter_request_list: Some(&ASKED_FOR),
            dns_servers: None,
            max_size: Some(LONGEST_BYTES),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    fn packet(&self, message: &DhcpRepr) -> Vec<u8> {
        let (class, architecture, id) = self.identity_options();
        let more = [(VENDOR_CLASS, &class), (ARCHITECTURE, &architecture), (MACHINE_ID, &id)];
        let more = more.map(|(kind, data)| DhcpOption { kind, data });
        let more: Vec<_> = more.into_iter().filter(|option| !option.data.is_empty()).collect();
        let message = &DhcpRepr { additional_options: &more, ..message.clone() };
        let length = message.buffer_len().max(SHORTEST_BYTES);
        let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let udp = UdpRepr { src_port: DHCP_CLIENT_PORT, dst_port: DHCP_SERVER_PORT };
        let ip = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Udp,
            payload_len: UDP_HEADER_LEN + length,
            hop_limit: HOP_LIMIT,
        };
        let mut bytes = vec![0; ip.buffer_len() + ip.payload_len];
        let mut packet = Ipv4Packet::new_unchecked(bytes.as_mut_slice());
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut packet, &checksums);
        udp.emit(
            &mut UdpPacket::new_unchecked(packet.payload_mut()),
            &IpAddress::Ipv4(from),
            &IpAddress::Ipv4(to),
            length,
            |payload| {
                let written = message.emit(&mut DhcpPacket::new_unchecked(payload));
                debug_assert!(written.is_ok(), "the packet is as long as the message needs");
            },
            &checksums,
        );
        bytes
    }
}

impl Asker {
    /// Values of the vendor class, the architecture and the machine's number (RFC 4578); empty where they are unknown.
    fn identity_options(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let Identity { uuid, architecture } = self.identity;
        let class = self.identity.vendor_class();
        // As SMBIOS has it: the first three of its five parts little-endian. Before it stands its type.
        let id = uuid.map(|[a, b, c, d, e, f, g, h, rest @ ..]| {
            [&[0, d, c, b, a, f, e, h, g][..], &rest].concat()
        });
        (
            class.unwrap_or_default().into_bytes(),
            architecture.map(|number| number.to_be_bytes().to_vec()).unwrap_or_default(),
            id.unwrap_or_default(),
        )
    }
}

/// The message in an IPv4 packet to the client's port, and from where it comes; None if the packet is another, or
/// damaged.
pub(super) fn message_in(packet: &[u8], checksum: Checksum) -> Option<(&[u8], Ipv4Addr)> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let is_whole = ip.version() == 4 && !ip.more_frags() && ip.frag_offset() == 0;
    if !is_whole || ip.next_header() != IpProtocol::Udp || !ip.verify_checksum() {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let (from, to) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    let is_sound = checksum == Checksum::Exempt || udp.verify_checksum(&from, &to);
    (udp.dst_port() == DHCP_CLIENT_PORT && is_sound).then(|| (udp.payload(), ip.src_addr()))
}

/// A message's fields, by number.
struct Options<'a> {
    packet: &'a DhcpPacket<&'a [u8]>,
    /// Fields that hold options in place of what they are for.
    overloaded: Vec<&'a [u8]>,
    /// No option is cut off.
    is_whole: bool,
}

impl<'a> Options<'a> {
    fn new(packet: &'a DhcpPacket<&'a [u8]>, message: &'a [u8]) -> Options<'a> {
        let is_whole = is_whole(message.get(240..).unwrap_or_default());
        let mut options = Options { packet, overloaded: Vec::new(), is_whole };
        let overload = options.of(OVERLOAD).first().copied().unwrap_or_default();
        let fields = [FILE, SERVER_NAME].into_iter().filter(|(_, bit)| overload & bit != 0);
        options.overloaded = fields.filter_map(|(place, _)| message.get(place)).collect();
        options
    }

    /// All that is said under one number, which may come in several pieces and fields (RFC 3396).
    fn of(&self, number: u8) -> Vec<u8> {
        let pieces = self.packet.options().map(|option| (option.kind, option.data));
        let more = self.overloaded.iter().flat_map(|field| pieces_of(field));
        let pieces = pieces.chain(more).filter(|(kind, _)| *kind == number);
        pieces.flat_map(|(_, data)| data.to_vec()).collect()
    }

    /// The domain's name and the search list. Some servers write several names into the former.
    fn domains(&self) -> Vec<String> {
        let mut domains: Vec<String> = Vec::new();
        let names = self.domain_names();
        for name in search_list(&self.of(DOMAIN_SEARCH)).into_iter().chain(names) {
            if is_name(&name) && !domains.contains(&name) && domains.len() < MAX_DHCP_LIST {
                domains.push(name);
            }
        }
        domains
    }

    fn domain_names(&self) -> Vec<String> {
        let text = self.of(DOMAIN_NAME);
        let names = text.split(|byte| matches!(byte, b',' | b' ' | b'\t' | 0));
        let names = names.filter(|name| !name.is_empty());
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn addresses(&self, number: u8) -> Vec<Ipv4Addr> {
        let data = self.of(number);
        let all = data.chunks_exact(4).filter_map(|four| four.first_chunk::<4>());
        all.map(|&octets| Ipv4Addr::from(octets)).filter(|&ip| is_host(ip)).collect()
    }

    fn address(&self, number: u8) -> Option<Ipv4Addr> {
        self.addresses(number).first().copied()
    }

    fn number(&self, number: u8) -> Option<u32> {
        self.of(number).first_chunk().map(|&bytes| u32::from_be_bytes(bytes))
    }

    fn text(&self, number: u8) -> Option<String> {
        let text = String::from_utf8(self.of(number)).ok()?;
        Some(text.trim_end_matches('\0').to_owned())
    }

    /// A name of hosts.
    fn name(&self, number: u8) -> Option<String> {
        self.text(number).filter(|name| is_name(name))
    }

    /// Whether it is an answer to the vendor class that has no address in it.
    fn is_of_proxy(&self) -> bool {
        self.packet.your_ip().is_unspecified() && self.of(VENDOR_CLASS).starts_with(PXE_CLIENT)
    }

    /// What is given; or why a node cannot use it.
    fn lease(&self, from: Ipv4Addr) -> Result<Lease, &'static str> {
        let address = self.packet.your_ip();
        if address.is_unspecified() {
            return Err("it has no address for this node");
        }
        // A card to a machine's own management controller may be given one that is good for that alone.
        if address.is_link_local() {
            return Err("the address is good for its own link alone (RFC 3927)");
        }
        if !is_host(address) {
            return Err("the address is none that a node can have");
        }
        let next = Some(self.packet.server_ip()).filter(|&ip| is_host(ip));
        // Some servers do not say who they are.
        let from = Some(from).filter(|&ip| is_host(ip));
        let named = self.address(SERVER_IDENTIFIER);
        let server = named.or(from).or(next).ok_or("nothing in it says from whom it is")?;
        let names_itself = named.is_some();
        let named = self.text(TFTP_SERVER_NAME).and_then(|text| text.parse().ok());
        let mut boot_servers: Vec<Ipv4Addr> =
            next.into_iter().chain(named.filter(|&ip| is_host(ip))).collect();
        boot_servers.dedup();
        let prefix = self.prefix().unwrap_or_else(|| class_prefix(address));
        Ok(Lease {
            address: Ipv4Net::new(address, prefix).map_err(|_| "its netmask is none")?,
            server,
            names_itself,
            routes: self.routes(),
            name_servers: self.addresses(NAME_SERVER).into_iter().map(IpAddr::from).collect(),
            host_name: self.name(HOST_NAME),
            domains: self.domains(),
            mtu: self.mtu(),
            time: self.time(),
            boot_servers,
            boot_host: self.name(TFTP_SERVER_NAME).filter(|name| name.parse::<Ipv4Addr>().is_err()),
            names_file: self.names_file(),
            garbled: self.garbled(),
        })
    }

    fn garbled(&self) -> Vec<&'static str> {
        let is_given = |number| !self.of(number).is_empty();
        let is_list = |number| self.of(number).len().is_multiple_of(4);
        let is_address = |number| self.text(number).is_some_and(|s| s.parse::<Ipv4Addr>().is_ok());
        let names_server = is_address(TFTP_SERVER_NAME) || self.name(TFTP_SERVER_NAME).is_some();
        let list = self.of(DOMAIN_SEARCH);
        let routes = self.of(CLASSLESS_ROUTES);
        let options = [
            (!is_given(SUBNET_MASK) || self.prefix().is_some(), "netmask (option 1)"),
            (is_list(ROUTER), "router (option 3)"),
            (is_list(NAME_SERVER), "list of name servers (option 6)"),
            (!is_given(HOST_NAME) || self.name(HOST_NAME).is_some(), "host name (option 12)"),
            (!is_given(INTERFACE_MTU) || self.mtu().is_some(), "MTU (option 26)"),
            (!is_given(TFTP_SERVER_NAME) || names_server, "TFTP server (option 66)"),
            (self.domain_names().iter().all(|name| is_name(name)), "domain name (option 15)"),
            (read_search_list(&list).1, "search list (option 119)"),
            (classless_routes(&routes).is_some(), "list of routes (option 121)"),
            (self.is_whole, "end of its options"),
        ];
        options.into_iter().filter(|(is_sound, _)| !is_sound).map(|(_, what)| what).collect()
    }

    fn names_file(&self) -> bool {
        let field = self.of(OVERLOAD).first().is_none_or(|overload| overload & FILE.1 == 0);
        field && self.packet.get_boot_file().is_ok() || !self.of(BOOT_FILE).is_empty()
    }

    fn prefix(&self) -> Option<u8> {
        let mask = Ipv4Addr::from_bits(self.number(SUBNET_MASK)?);
        ipv4_mask_to_prefix(mask).ok().filter(|&prefix| prefix > 0)
    }

    /// Classless routes make the router one of no account (RFC 3442).
    fn routes(&self) -> Vec<Route> {
        let classless = classless_routes(&self.of(CLASSLESS_ROUTES)).filter(|r| !r.is_empty());
        let router = || self.address(ROUTER).map(|router| Route::default(router.into()));
        classless.unwrap_or_else(|| router().into_iter().collect())
    }

    fn mtu(&self) -> Option<u32> {
        let bytes = self.of(INTERFACE_MTU);
        let mtu = u32::from(u16::from_be_bytes(*bytes.first_chunk()?));
        Some(mtu).filter(|&mtu| mtu >= LEAST_MTU)
    }

    fn time(&self) -> Option<Duration> {
        let seconds = self.number(LEASE_TIME).filter(|s| !matches!(*s, 0 | FOR_EVER_S))?;
        Some(Duration::from_secs(seconds.into()))
    }
}

/// The numbers and values in a field that holds options.
fn pieces_of(mut field: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        while let Some((&PAD, rest)) = field.split_first() {
            field = rest;
        }
        let (&kind, rest) = field.split_first().filter(|(kind, _)| **kind != END)?;
        let (&length, rest) = rest.split_first()?;
        let (data, rest) = rest.split_at_checked(usize::from(length))?;
        field = rest;
        Some((kind, data))
    })
}

/// Whether such a field ends with its last option, or with what says so.
fn is_whole(field: &[u8]) -> bool {
    let mut rest = field;
    loop {
        rest = match rest {
            [] | [END, ..] => return true,
            [PAD, rest @ ..] => rest,
            [_, length, rest @ ..] => match rest.get(usize::from(*length)..) {
                Some(rest) => rest,
                None => return false,
            },
            [_] => return false,
        };
    }
}

/// The names in a search list, where the end of one may be a pointer to what was written before (RFC 3397; RFC 1035,
/// section 4.1.4). What is garbled ends it.
pub(in crate::boot::address) fn search_list(bytes: &[u8]) -> Vec<String> {
    read_search_list(bytes).0
}

/// The same, and whether all of it makes sense.
fn read_search_list(bytes: &[u8]) -> (Vec<String>, bool) {
    let (mut names, mut at) = (Vec::new(), 0);
    while at < bytes.len() && names.len() < MAX_DHCP_LIST {
        let Some((name, after)) = name_at(bytes, at) else { return (names, false) };
        names.push(name);
        at = after;
    }
    let is_sound = names.iter().all(|name| is_name(name));
    (names, is_sound)
}

/// The name that begins at `at`, and where the next one begins.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut after) = (Vec::new(), None);
    loop {
        let length = *bytes.get(at)?;
        if length > 63 && length & 0xc0 != 0xc0 {
            // Neither a label nor a pointer (RFC 1035, section 4.1.4).
            return None;
        }
        if length & 0xc0 == 0xc0 {
            let to = usize::from(length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            after.get_or_insert(at + 2);
            // It leads back. A circle ends at the bound of labels below.
            at = Some(to).filter(|to| *to < at)?;
        } else if length == 0 {
            return Some((labels.join("."), after.unwrap_or(at + 1)));
        } else {
            let label = bytes.get(at + 1..)?.get(..usize::from(length))?;
            labels.push(String::from_utf8(label.to_vec()).ok()?);
            at += 1 + usize::from(length);
        }
        if labels.len() > LONGEST_NAME / 2 {
            return None;
        }
    }
}

/// Whether it can be a name of hosts; others could smuggle lines into `resolv.conf`.
pub(in crate::boot::address) fn is_name(name: &str) -> bool {
    let in_names = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(in_names)
}

/// Prefix lengths, as many bytes of each network as that needs, and routers (RFC 3442); None if
/// they are garbled.
fn classless_routes(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = bytes.split_first() {
        let (network, rest) = rest.split_at_checked(usize::from(prefix).div_ceil(8))?;
        let (&router, rest) = rest.split_first_chunk::<4>()?;
        bytes = rest;
        let mut octets = [0; 4];
        octets.get_mut(..network.len())?.copy_from_slice(network);
        let to = Ipv4Net::new(octets.into(), prefix).ok()?.trunc();
        let router = Ipv4Addr::from(router);
        let via = (!router.is_unspecified()).then_some(IpAddr::V4(router));
        routes.push(Route { to: to.into(), via });
    }
    Some(routes)
}

/// Whether one host can have it.
fn is_host(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    (1..224).contains(&first) && !ip.is_loopback()
}
