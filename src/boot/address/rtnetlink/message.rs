//! What is said to the kernel about its network, and what it says (rtnetlink(7)): bytes only.
//!
//! Numbers are in the machine's own order. A message is a header, a fixed part that depends on its
//! type, and attributes, each of which is a length, a number and data, and begins at a multiple
//! of 4 bytes. Sources: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`,
//! `linux/if_addr.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::boot::address::config::{Config, is_on_link};
use crate::boot::address::dhcp::{is_name, search_list};
use crate::boot::address::dhcp6::Lease;
use crate::boot::address::links::{Address, Link, Router};
use crate::boot::address::route::Route;

/// Bytes of `struct nlmsghdr`, `rtattr`, `ifinfomsg`, `ifaddrmsg`, `rtmsg`.
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const ROUTE_BYTES: usize = 12;
/// Those of `struct nduseroptmsg`; the option follows.
const ROUTER_OPTION_BYTES: usize = 16;
/// The types of the options Recursive DNS Server and DNS Search List, and where what they list begins (RFC 8106,
/// section 5).
const NAME_SERVERS: u8 = 25;
const SEARCH_LIST: u8 = 31;
const LISTED_AT: usize = 8;
/// `IFLA_INET6_FLAGS` (linux/if_link.h), and what is in it (net/if_inet6.h).
const IPV6_FLAGS: u16 = 1;
const ROUTER_HEARD: u32 = 0x20;
const ROUTER_MANAGED: u32 = 0x40;
const ROUTER_OTHER: u32 = 0x80;
/// `IFLA_VLAN_ID` (linux/if_link.h).
const VLAN_ID: u16 = 1;
/// `RTPROT_DHCP`, `RTNH_F_ONLINK` (linux/rtnetlink.h).
const BY_DHCP: u8 = 16;
const ON_LINK: u32 = 4;
const MAIN_TABLE: u8 = libc::RT_TABLE_MAIN;
/// A lifetime that does not end (`INFINITY_LIFE_TIME`, net/addrconf.h).
const FOR_EVER_S: u32 = u32::MAX;
/// An Ethernet's hardware type.
const ETHERNET: u16 = libc::ARPHRD_ETHER;

/// One request, complete but for its number.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: i32, fixed: &[u8]) -> Request {
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Request { bytes }
    }

    /// An attribute; its length has 16 bits, which none here comes near.
    fn with(mut self, number: u16, data: &[u8]) -> Request {
        let length = (ATTRIBUTE_HEADER_BYTES + data.len()) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// The bytes to send, with the number by which the answer is known.
    pub(super) fn numbered(mut self, number: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        for (at, value) in [(0, length), (8, number)] {
            if let Some(place) = self.bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&value.to_ne_bytes());
            }
        }
        self.bytes
    }

    /// Asks for all links.
    pub(super) fn links() -> Request {
        Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &link_part(0, 0, 0))
    }

    /// Asks for all addresses.
    pub(super) fn addresses() -> Request {
        Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS_BYTES])
    }

    /// Asks for all routes.
    pub(super) fn routes() -> Request {
        Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; ROUTE_BYTES])
    }

    /// Brings a link up, or takes it down.
    pub(super) fn set_up(link: u32, up: bool) -> Request {
        let flag = libc::IFF_UP as u32;
        let flags = if up { flag } else { 0 };
        Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link_part(link, flags, flag))
    }

    /// Gives a link, which is down, another hardware address.
    pub(super) fn set_mac(link: u32, mac: [u8; 6]) -> Request {
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link_part(link, 0, 0));
        request.with(libc::IFLA_ADDRESS, &mac)
    }

    /// Sets the size of the largest packet, in bytes.
    pub(super) fn set_mtu(link: u32, mtu: u32) -> Request {
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &link_part(link, 0, 0));
        request.with(libc::IFLA_MTU, &mtu.to_ne_bytes())
    }

    /// Makes a link that carries the packets with one tag of the link `below`.
    pub(super) fn make_vlan(name: &str, id: u16, below: u32) -> Request {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let data = attribute(VLAN_ID, &id.to_ne_bytes());
        let kind = attribute(libc::IFLA_INFO_KIND, b"vlan");
        let info = [kind, attribute(libc::IFLA_INFO_DATA, &data)].concat();
        let name: Vec<u8> = name.bytes().chain([0]).collect();
        Request::new(libc::RTM_NEWLINK, flags, &link_part(0, 0, 0))
            .with(libc::IFLA_IFNAME, &name)
            .with(libc::IFLA_LINK, &below.to_ne_bytes())
            .with(libc::IFLA_LINKINFO, &info)
    }

    /// Gives a link an address, or the one that it has another lifetime.
    pub(super) fn set_address(link: u32, config: &Config) -> Request {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        // An address given by hand is taken to be unique: an IPv6 one is used without duplicate address detection.
        let ip = config.address.addr();
        let address_flags = if ip.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        let mut fixed = vec![family(ip), config.address.prefix_len(), address_flags, 0];
        fixed.extend(link.to_ne_bytes());
        let bytes = octets(ip);
        let mut request = Request::new(libc::RTM_NEWADDR, flags, &fixed)
            .with(libc::IFA_LOCAL, &bytes)
            .with(libc::IFA_ADDRESS, &bytes);
        if let Some(broadcast) = broadcast(config) {
            request = request.with(libc::IFA_BROADCAST, &broadcast.octets());
        }
        // `struct ifa_cacheinfo`: preferred, valid, and two times that only the kernel sets.
        let seconds = config.lifetime.map_or(FOR_EVER_S, seconds).to_ne_bytes();
        request.with(libc::IFA_CACHEINFO, &[seconds, seconds, [0; 4], [0; 4]].concat())
    }

    /// Gives a link an address that a DHCPv6 server has given. Only the router says what else is on the link (RFC 5942);
    /// the kernel sees whether somebody else has it.
    pub(super) fn set_leased6(link: u32, lease: &Lease) -> Request {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut fixed = vec![libc::AF_INET6 as u8, 128, 0, 0];
        fixed.extend(link.to_ne_bytes());
        let [preferred, valid] = [lease.preferred, lease.valid]
            .map(|time| time.map_or(FOR_EVER_S, seconds).to_ne_bytes());
        Request::new(libc::RTM_NEWADDR, flags, &fixed)
            .with(libc::IFA_LOCAL, &lease.address.octets())
            .with(libc::IFA_ADDRESS, &lease.address.octets())
            .with(libc::IFA_CACHEINFO, &[preferred, valid, [0; 4], [0; 4]].concat())
    }

    /// Takes such an address away.
    pub(super) fn drop_leased6(link: u32, address: Ipv6Addr) -> Request {
        let mut fixed = vec![libc::AF_INET6 as u8, 128, 0, 0];
        fixed.extend(link.to_ne_bytes());
        Request::new(libc::RTM_DELADDR, libc::NLM_F_ACK, &fixed)
            .with(libc::IFA_LOCAL, &address.octets())
    }

    /// Adds a route through a link, or replaces it.
    pub(super) fn set_route(link: u32, config: &Config, route: &Route) -> Request {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let protocol = if config.leased { BY_DHCP } else { libc::RTPROT_BOOT };
        let scope = match route.via {
            Some(_) => libc::RT_SCOPE_UNIVERSE,
            None => libc::RT_SCOPE_LINK,
        };
        let next_hop = match route.via {
            Some(via) if !is_on_link(config, via) => ON_LINK,
            _ => 0,
        };
        let kind = libc::RTN_UNICAST;
        let (to, prefix) = (route.to.addr(), route.to.prefix_len());
        let mut fixed = vec![family(to), prefix, 0, 0, MAIN_TABLE, protocol, scope, kind];
        fixed.extend(next_hop.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWROUTE, flags, &fixed)
            .with(libc::RTA_OIF, &link.to_ne_bytes());
        if prefix > 0 {
            request = request.with(libc::RTA_DST, &octets(to));
        }
        if let Some(via) = route.via {
            request = request.with(libc::RTA_GATEWAY, &octets(via));
        }
        let source = config.address.addr();
        if source.is_ipv4() {
            request = request.with(libc::RTA_PREFSRC, &octets(source));
        }
        request
    }
}

/// One message of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    /// That of the request which it answers.
    pub(super) number: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages in a datagram, up to the first that is cut off.
    pub(super) fn all(datagram: &'a [u8]) -> impl Iterator<Item = Message<'a>> {
        let mut rest = datagram;
        std::iter::from_fn(move || {
            let length = number_at(rest, 0)? as usize;
            let (kind, number) = (half_at(rest, 4)?, number_at(rest, 8)?);
            let body = rest.get(HEADER_BYTES..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(Message { kind, number, body })
        })
    }

    /// What an `NLMSG_ERROR` says; 0 is success, others are error numbers.
    pub(super) fn error(&self) -> Option<i32> {
        let is_error = i32::from(self.kind) == libc::NLMSG_ERROR;
        is_error.then(|| (number_at(self.body, 0).unwrap_or(0) as i32).saturating_neg())
    }

    /// Whether a list ends here.
    pub(super) fn is_end(&self) -> bool {
        i32::from(self.kind) == libc::NLMSG_DONE
    }

    /// The link of an `RTM_NEWLINK`.
    pub(super) fn link(&self) -> Option<Link> {
        if self.kind != libc::RTM_NEWLINK {
            return None;
        }
        let (hardware, flags) = (half_at(self.body, 2)?, number_at(self.body, 8)? as i32);
        let mut link = Link {
            index: number_at(self.body, 4)?,
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_UP != 0 && flags & libc::IFF_LOWER_UP != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            ..Link::default()
        };
        for (number, data) in attributes(self.body.get(LINK_BYTES..)?) {
            match number {
                libc::IFLA_IFNAME => link.name = text(data),
                libc::IFLA_ADDRESS if hardware == ETHERNET => link.mac = data.try_into().ok(),
                libc::IFLA_MASTER => link.enslaved = true,
                libc::IFLA_AF_SPEC => link.router = router(data).unwrap_or_default(),
                libc::IFLA_LINKINFO => {
                    let mut info = attributes(data);
                    let kind = info.find(|&(number, _)| number == libc::IFLA_INFO_KIND);
                    link.kind = kind.map(|(_, kind)| text(kind));
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// The address of an `RTM_NEWADDR`.
    pub(super) fn address(&self) -> Option<Address> {
        let (link, ip, scope, flags) = self.address_parts()?;
        let link_local = match ip.addr() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let unsure = flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0;
        let usable = scope == libc::RT_SCOPE_UNIVERSE && !link_local && !unsure;
        Some(Address { link, ip, usable })
    }

    /// The link's own address, if it may be used.
    pub(super) fn link_local(&self) -> Option<(u32, Ipv6Addr)> {
        let (link, ip, _, flags) = self.address_parts()?;
        let IpAddr::V6(ip) = ip.addr() else { return None };
        let unsure = flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0;
        (ip.is_unicast_link_local() && !unsure).then_some((link, ip))
    }

    /// An address that somebody else was found to have.
    pub(super) fn duplicate(&self) -> Option<(u32, Ipv6Addr)> {
        let (link, ip, _, flags) = self.address_parts()?;
        let IpAddr::V6(ip) = ip.addr() else { return None };
        (flags & libc::IFA_F_DADFAILED != 0).then_some((link, ip))
    }

    /// Link, address, scope and flags of an `RTM_NEWADDR`.
    fn address_parts(&self) -> Option<(u32, IpNet, u8, u32)> {
        if self.kind != libc::RTM_NEWADDR {
            return None;
        }
        let &[family, prefix, short_flags, scope] = self.body.first_chunk()?;
        let (mut flags, mut local, mut other) = (u32::from(short_flags), None, None);
        for (number, data) in attributes(self.body.get(ADDRESS_BYTES..)?) {
            match number {
                libc::IFA_LOCAL => local = ip(family, data),
                libc::IFA_ADDRESS => other = ip(family, data),
                libc::IFA_FLAGS => flags = number_at(data, 0)?,
                _ => {}
            }
        }
        // Between two hosts the other attribute is that of the other one.
        let ip = local.or(other)?;
        Some((number_at(self.body, 4)?, IpNet::new(ip, prefix).ok()?, scope, flags))
    }

    /// The name servers of an `RTM_NEWNDUSEROPT`: an IPv6 router's Recursive DNS Server option (RFC
    /// 8106, section 5.1). One with a link-local address is left out, as it is nothing without the link.
    pub(super) fn name_servers(&self) -> Vec<Ipv6Addr> {
        let (addresses, _) = self.listed(NAME_SERVERS).unwrap_or_default().as_chunks::<16>();
        let addresses = addresses.iter().map(|&octets| Ipv6Addr::from(octets));
        addresses.filter(|ip| !ip.is_unicast_link_local()).collect()
    }

    /// Likewise where names without a dot are looked for: its DNS Search List option (section 5.2), which ends in zeros.
    pub(super) fn domains(&self) -> Vec<String> {
        let names = search_list(self.listed(SEARCH_LIST).unwrap_or_default()).into_iter();
        names.filter(|name| is_name(name)).collect()
    }

    /// What such an option lists, if it is one of this kind and counts.
    fn listed(&self, wanted: u8) -> Option<&'a [u8]> {
        if self.kind != libc::RTM_NEWNDUSEROPT {
            return None;
        }
        let length = usize::from(half_at(self.body, 2)?);
        let end = ROUTER_OPTION_BYTES.checked_add(length)?;
        let option = self.body.get(ROUTER_OPTION_BYTES..end)?;
        let &[kind, _, _, _, lifetime @ ..] = option.first_chunk::<LISTED_AT>()?;
        option.get(LISTED_AT..).filter(|_| kind == wanted && lifetime != [0; 4])
    }

    /// The network that the route of an `RTM_NEWROUTE` leads to, if it leads anywhere and stands in the main
    /// table.
    pub(super) fn route(&self) -> Option<IpNet> {
        let &[family, prefix, _, _, table, _, _, kind] = self.body.first_chunk()?;
        let counts =
            self.kind == libc::RTM_NEWROUTE && table == MAIN_TABLE && kind == libc::RTN_UNICAST;
        if !counts {
            return None;
        }
        let mut all = attributes(self.body.get(ROUTE_BYTES..)?);
        let to = all.find(|&(number, _)| number == libc::RTA_DST);
        let everywhere = [0; 16];
        let everywhere = match i32::from(family) {
            libc::AF_INET => everywhere.get(..4),
            _ => Some(everywhere.as_slice()),
        };
        let to = ip(family, to.map_or(everywhere?, |(_, data)| data))?;
        IpNet::new(to, prefix).ok()
    }
}

/// The attributes up to the first that is cut off.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(half_at(rest, 0)?);
        let number = half_at(rest, 2)? & libc::NLA_TYPE_MASK as u16;
        let data = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, data))
    })
}

/// What the kernel knows of a link's router: a number in the part of IPv6 among the parts of all families.
fn router(families: &[u8]) -> Option<Router> {
    let find = |bytes, wanted| attributes(bytes).find(|&(number, _)| number == wanted);
    let (_, of_ipv6) = find(families, libc::AF_INET6 as u16)?;
    let (_, flags) = find(of_ipv6, IPV6_FLAGS)?;
    let flags = number_at(flags, 0)?;
    let [heard, managed, other] =
        [ROUTER_HEARD, ROUTER_MANAGED, ROUTER_OTHER].map(|flag| flags & flag != 0);
    Some(Router { heard: heard || managed || other, managed, other })
}

/// One attribute within another.
fn attribute(number: u16, data: &[u8]) -> Vec<u8> {
    Request { bytes: Vec::new() }.with(number, data).bytes
}

/// `struct ifinfomsg`
fn link_part(link: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], link.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn family(ip: IpAddr) -> u8 {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family as u8
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ip(family: u8, data: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => data.first_chunk::<4>().map(|&octets| IpAddr::from(octets)),
        libc::AF_INET6 => data.first_chunk::<16>().map(|&octets| IpAddr::from(octets)),
        _ => None,
    }
}

/// The address of everybody in an IPv4 network, if that has room for one.
fn broadcast(config: &Config) -> Option<Ipv4Addr> {
    match config.address {
        IpNet::V4(network) if network.prefix_len() < 31 => Some(network.broadcast()),
        _ => None,
    }
}

/// A lifetime in whole seconds, below the value that means infinite.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(FOR_EVER_S).clamp(1, FOR_EVER_S - 1)
}

fn half_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_ne_bytes(bytes))
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

/// Without the NUL at its end.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests;
