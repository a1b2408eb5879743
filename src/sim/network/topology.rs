//! Where hosts are, and how they are connected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The port that all hosts serve on.
pub(in crate::sim) const PORT: u16 = 20_004;

/// The second byte of addresses at which there is no host: connections are refused, or nothing ever comes back, as from
/// behind a firewall.
const REFUSES: u8 = 200;
const SILENT: u8 = 201;

/// One of the addresses at which there is no host, half of them silent.
pub(in crate::sim) fn dead_address(n: usize) -> SocketAddr {
    let second = if n.is_multiple_of(2) { REFUSES } else { SILENT };
    SocketAddr::from(([10, second, (n >> 8) as u8, n as u8], PORT))
}

pub(super) fn is_silent(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V4(ip) if ip.octets().get(1) == Some(&SILENT))
}

/// The number of a host: 0 is the master, and the nodes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

impl HostId {
    /// The master.
    pub const MASTER: HostId = HostId(0);
}

/// The link from a host to its switch.
#[derive(Clone, Copy, Debug)]
pub struct HostLink {
    /// Rate of the uplink.
    pub up_bytes_per_s: u64,
    /// Rate of the downlink.
    pub down_bytes_per_s: u64,
    /// In each direction.
    pub delay: Duration,
}

/// The racks that the nodes are in. The master is in none.
#[derive(Clone, Copy, Debug)]
pub struct Racks {
    /// Nodes in a rack, in the order of their numbers, which share a /24: at most 250.
    pub nodes: usize,
    /// Rate between a rack and the others, in each direction. None: no limit.
    pub uplink_bytes_per_s: Option<u64>,
}

impl Racks {
    pub(super) fn rack(&self, host: HostId) -> Option<usize> {
        Some(host.0.checked_sub(1)? / self.nodes)
    }

    pub(in crate::sim) fn ip(&self, host: HostId) -> IpAddr {
        let Some(rack) = self.rack(host) else { return Ipv4Addr::new(10, 255, 255, 1).into() };
        let index = (host.0 - 1) % self.nodes + 1;
        Ipv4Addr::new(10, (rack >> 8) as u8, rack as u8, index as u8).into()
    }

    pub(in crate::sim) fn address(&self, host: HostId) -> SocketAddr {
        SocketAddr::new(self.ip(host), PORT)
    }

    pub(in crate::sim) fn host(&self, address: SocketAddr) -> Option<HostId> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let [_, high, low, index] = ip.octets();
        let rack = usize::from(high) << 8 | usize::from(low);
        match rack {
            0xFFFF => Some(HostId::MASTER),
            _ => Some(HostId(rack * self.nodes + usize::from(index))),
        }
    }
}
