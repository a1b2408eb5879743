//! What the kernel has: links, addresses, routes; and which links are for xget.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::boot::cmdline::{Ip, Method, NetworkWish, Vlan, mac_of};

/// What stands for the card that was booted from where `ip=` names a link.
const BOOTIF: &str = "BOOTIF";
/// Kinds of links that are as good as a card: what a container or a test has.
const LIKE_CARDS: [&str; 2] = ["veth", "macvlan"];

/// All that the kernel has at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    /// The networks that routes in the main table lead to.
    pub(super) routes: Vec<IpNet>,
    /// Each link's own address of IPv6, once nobody else was found to have it.
    pub(super) link_locals: Vec<(u32, Ipv6Addr)>,
    /// Addresses that somebody else was found to have.
    pub(super) duplicates: Vec<(u32, Ipv6Addr)>,
}

/// A network link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// It has been told to work.
    pub(super) up: bool,
    /// Somebody is at the other end of the cable.
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    /// It belongs to a bridge or a bond.
    pub(super) enslaved: bool,
    /// The hardware address, if it is an Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    /// What it is if it is no card: `bridge`, `vlan`, `veth`...
    pub(super) kind: Option<String>,
    /// What an IPv6 router has told the kernel.
    pub(super) router: Router,
}

/// What the last router advertisement on a link said of DHCPv6 (RFC 4861, section 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Router {
    /// There was one.
    pub(super) heard: bool,
    /// M: addresses are to be had from a server.
    pub(super) managed: bool,
    /// O: other things are.
    pub(super) other: bool,
}

/// An address that a link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) link: u32,
    /// With its network's prefix.
    pub(super) ip: IpNet,
    /// Others elsewhere can reach it, and nobody else was found to have it.
    pub(super) usable: bool,
}

impl Snapshot {
    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The usable addresses of links that work, IPv4 first.
    pub(super) fn usable(&self) -> Vec<(&Link, IpAddr)> {
        let of_working = self.addresses.iter().filter(|address| address.usable).filter_map(|a| {
            let link = self.link(a.link).filter(|link| link.carrier && !link.loopback)?;
            Some((link, a.ip.addr()))
        });
        let mut usable: Vec<_> = of_working.collect();
        usable.sort_by_key(|(_, ip)| ip.is_ipv6());
        usable
    }

    /// Whether a route leads to `ip`.
    pub(super) fn reaches(&self, ip: IpAddr) -> bool {
        self.route_to(ip).is_some()
    }

    /// The route that leads to `ip`: the smallest network that it is in.
    pub(super) fn route_to(&self, ip: IpAddr) -> Option<IpNet> {
        let leading = self.routes.iter().filter(|network| network.contains(&ip));
        leading.max_by_key(|network| network.prefix_len()).copied()
    }
}

/// Hardware addresses as people write them.
pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Which links are meant, and how each gets its address.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// At least one.
    ips: Vec<Ip>,
    boot_mac: Option<[u8; 6]>,
    vlans: Vec<String>,
    /// What links are called on the command line, by their hardware addresses.
    names: Vec<(String, [u8; 6])>,
}

impl Choice {
    /// Where nothing is said, any link may have an address from wherever it can.
    pub(super) fn new(wish: &NetworkWish) -> Choice {
        let ips = if wish.ips.is_empty() {
            vec![Ip { method: Method::Either, ..Ip::default() }]
        } else {
            wish.ips.clone()
        };
        let vlans = wish.vlans.iter().map(|vlan| vlan.name.clone()).collect();
        Choice { ips, boot_mac: wish.boot_mac, vlans, names: wish.names.clone() }
    }

    /// The same without IPv6, where IPv4 will do as well.
    pub(super) fn by_ipv4(mut self) -> Choice {
        for ip in self.ips.iter_mut().filter(|ip| ip.method == Method::Either) {
            ip.method = Method::Dhcp;
        }
        self
    }

    pub(super) fn ips(&self) -> &[Ip] {
        &self.ips
    }

    /// The numbers of the `ip=` that are about this link; none if it is to be left alone.
    ///
    /// An `ip=` that names a link is about that one, and others that name none are not. The rest
    /// is about the card that was booted from, about the VLANs that were asked for, or else about
    /// every link that is a card or like one.
    pub(super) fn of(&self, link: &Link) -> Vec<usize> {
        let indexed = || self.ips.iter().enumerate();
        let naming = indexed().filter(|(_, ip)| self.names(ip, link));
        let naming: Vec<usize> = naming.map(|(number, _)| number).collect();
        let numbers = if !naming.is_empty() {
            naming
        } else if self.is_default(link) {
            indexed().filter(|(_, ip)| ip.link.is_none()).map(|(number, _)| number).collect()
        } else {
            Vec::new()
        };
        let wanted = |&n: &usize| self.ips.get(n).is_some_and(|ip| ip.method != Method::Off);
        numbers.into_iter().filter(wanted).collect()
    }

    /// Whether `name`, of the command line, is this link.
    pub(super) fn is_called(&self, link: &Link, name: &str) -> bool {
        match self.mac_called(name) {
            Some(mac) => link.mac == Some(mac) && is_card(link),
            None => link.name == name || name == BOOTIF && self.is_booted_from(link),
        }
    }

    /// The hardware address of the link that `name` is, if it is known by that.
    fn mac_called(&self, name: &str) -> Option<[u8; 6]> {
        // The last one counts, as of all words.
        let named = self.names.iter().rfind(|(other, _)| other == name);
        named.map(|(_, mac)| *mac).or_else(|| mac_of(name))
    }

    /// The links that are not there, as in "waiting for a ...".
    pub(super) fn absent(&self, links: &[Link], vlans: &[Vlan]) -> Vec<String> {
        let is_there = |name: &str| links.iter().any(|link| self.is_called(link, name));
        let missing =
            |name: &str| match self.mac_called(name).or(self.boot_mac.filter(|_| name == BOOTIF)) {
                Some(mac) => format!("link with the hardware address {}", mac_text(mac)),
                None => format!("link called {name}"),
            };
        let wanted = self.ips.iter().filter(|ip| ip.method != Method::Off);
        let named = wanted.filter_map(|ip| ip.link.as_deref());
        // A VLAN is made where the link below it is.
        let is_vlan = |name: &str| vlans.iter().any(|vlan| vlan.name == name);
        let named = named.filter(|name| !is_vlan(name));
        let below = vlans.iter().map(|vlan| vlan.link.as_str());
        let absent = named.chain(below).filter(|name| !is_there(name));
        let mut absent: Vec<String> = absent.map(missing).collect();
        let to_make = vlans.iter().filter(|vlan| is_there(&vlan.link) && !is_there(&vlan.name));
        absent.extend(to_make.map(|vlan| format!("VLAN called {}", vlan.name)));
        absent.dedup();
        if absent.is_empty() && !links.iter().any(|link| !self.of(link).is_empty()) {
            absent.push(match self.boot_mac {
                Some(_) => missing(BOOTIF),
                None => "network link".to_owned(),
            });
        }
        absent
    }

    fn names(&self, ip: &Ip, link: &Link) -> bool {
        ip.link.as_deref().is_some_and(|name| self.is_called(link, name))
    }

    fn is_booted_from(&self, link: &Link) -> bool {
        self.boot_mac.is_some() && link.mac == self.boot_mac && is_card(link)
    }

    fn is_default(&self, link: &Link) -> bool {
        if link.loopback || link.enslaved || link.mac.is_none() {
            return false;
        }
        if !self.vlans.is_empty() {
            return self.vlans.contains(&link.name);
        }
        match self.boot_mac {
            Some(_) => self.is_booted_from(link),
            None => is_card(link),
        }
    }
}

/// A VLAN or a bond has the hardware address of a card, too.
fn is_card(link: &Link) -> bool {
    link.kind.as_deref().is_none_or(|kind| LIKE_CARDS.contains(&kind))
}
