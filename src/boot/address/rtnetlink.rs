//! Asks the kernel, and tells it, by netlink.

mod message;

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use super::config::Config;
use super::dhcp6::Lease;
use super::links::{Address, Snapshot};
use crate::sys::netlink::Netlink;
use message::{Message, Request};

/// The kernel's answers to a dump come in pieces of up to 32 KiB.
const BUFFER_BYTES: usize = 64 << 10;
/// `RTNLGRP_ND_USEROPT` (linux/rtnetlink.h): what IPv6 routers say that the kernel has no use for.
const FROM_ROUTERS: i32 = 1 << 19;
/// Changes of links, addresses and routes, which are worth a look.
const CHANGES: i32 = FROM_ROUTERS
    | libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_IFINFO
    | libc::RTMGRP_IPV6_ROUTE;

/// The kernel's side of the network.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: Netlink,
    number: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Kernel> {
        Ok(Kernel { socket: Netlink::open(0)?, number: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// A socket that becomes readable when something changes.
    pub(super) fn changes() -> io::Result<Netlink> {
        Netlink::open(CHANGES as u32)
    }

    /// Takes what such a socket has: the name servers and domains that IPv6 routers have named.
    pub(super) fn advertised(&mut self, changes: &Netlink) -> (Vec<Ipv6Addr>, Vec<String>) {
        let (mut servers, mut domains) = (Vec::new(), Vec::new());
        changes.take(&mut self.buffer, |datagram| {
            for message in Message::all(datagram) {
                servers.extend(message.name_servers());
                domains.extend(message.domains());
            }
        });
        (servers, domains)
    }

    /// All there is.
    pub(super) fn look(&mut self) -> io::Result<Snapshot> {
        let mut seen = Snapshot::default();
        self.ask(Request::links(), |message| seen.links.extend(message.link()))?;
        self.ask(Request::addresses(), |message| {
            seen.addresses.extend(message.address());
            seen.link_locals.extend(message.link_local());
            seen.duplicates.extend(message.duplicate());
        })?;
        self.ask(Request::routes(), |message| seen.routes.extend(message.route()))?;
        Ok(seen)
    }

    pub(super) fn set_up(&mut self, link: u32, up: bool) -> io::Result<()> {
        self.ask(Request::set_up(link, up), |_| {})
    }

    /// The link is down afterwards.
    pub(super) fn set_mac(&mut self, link: u32, mac: [u8; 6]) -> io::Result<()> {
        self.set_up(link, false)?;
        self.ask(Request::set_mac(link, mac), |_| {})
    }

    pub(super) fn make_vlan(&mut self, name: &str, id: u16, below: u32) -> io::Result<()> {
        self.ask(Request::make_vlan(name, id, below), |_| {})
    }

    pub(super) fn set_mtu(&mut self, link: u32, mtu: u32) -> io::Result<()> {
        self.ask(Request::set_mtu(link, mtu), |_| {})
    }

    pub(super) fn set_address(&mut self, link: u32, config: &Config) -> io::Result<()> {
        self.ask(Request::set_address(link, config), |_| {})
    }

    pub(super) fn set_leased6(&mut self, link: u32, lease: &Lease) -> io::Result<()> {
        self.ask(Request::set_leased6(link, lease), |_| {})
    }

    pub(super) fn drop_leased6(&mut self, link: u32, address: Ipv6Addr) -> io::Result<()> {
        self.ask(Request::drop_leased6(link, address), |_| {})
    }

    /// Gives an address that the link has an infinite lifetime.
    pub(super) fn keep(&mut self, link: &str, address: IpAddr) -> io::Result<()> {
        let seen = self.look()?;
        let is_it = |a: &&Address| {
            a.ip.addr() == address && seen.link(a.link).is_some_and(|its| its.name == link)
        };
        let known = seen.addresses.iter().find(is_it).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let config = Config {
            address: known.ip,
            routes: Vec::new(),
            mtu: None,
            lifetime: None,
            leased: false,
        };
        self.set_address(known.link, &config)
    }

    /// Sets the routes one after the other: to networks on the link first, since routers may be
    /// reached through those. Returns the first failure, after all were tried.
    pub(super) fn set_routes(&mut self, link: u32, config: &Config) -> io::Result<()> {
        let (direct, indirect): (Vec<_>, Vec<_>) =
            config.routes.iter().partition(|route| route.via.is_none());
        let all = direct.into_iter().chain(indirect);
        let set = all.map(|route| self.ask(Request::set_route(link, config, route), |_| {}));
        set.fold(Ok(()), Result::and)
    }

    /// Sends a request and waits for the end of its answer.
    fn ask(&mut self, request: Request, mut hear: impl FnMut(&Message)) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        self.socket.send(&request.numbered(self.number))?;
        loop {
            let datagram = match self.socket.receive(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                datagram => datagram?,
            };
            for message in Message::all(datagram).filter(|m| m.number == self.number) {
                match message.error() {
                    Some(0) => return Ok(()),
                    Some(error) => return Err(io::Error::from_raw_os_error(error)),
                    None if message.is_end() => return Ok(()),
                    None => hear(&message),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_its_loopback_link() {
        let seen = Kernel::open().and_then(|mut kernel| kernel.look()).unwrap();
        let loopback: Vec<_> = seen.links.iter().filter(|link| link.loopback).collect();
        assert_eq!(loopback.len(), 1);
        assert_eq!((loopback[0].name.as_str(), loopback[0].mac), ("lo", None));
    }
}
