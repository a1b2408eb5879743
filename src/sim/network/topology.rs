//! Where hosts are, and how they are connected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The port that everybody serves on.
pub(in crate::sim) const PORT: u16 = 20_004;

/// Names a host: 0 is the master, and the nodes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

impl HostId {
    /// The master.
    pub const MASTER: HostId = HostId(0);
}

/// How a host is connected to the switch.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// What leaves, in bytes a second.
    pub up_bytes_per_s: u64,
    /// What arrives, in bytes a second.
    pub down_bytes_per_s: u64,
    /// From the host to the switch, and from there to the host.
    pub delay: Duration,
}

/// Where the nodes stand. The master stands in no rack.
#[derive(Clone, Copy, Debug)]
pub struct Racks {
    /// This many nodes, in the order of their numbers, stand in a rack, and share a /24: at most 250.
    pub nodes: usize,
    /// What a rack's switch carries to the others, and from them, in bytes a second; None: whatever
    /// comes.
    pub uplink_bytes_per_s: Option<u64>,
}

impl Racks {
    pub(super) fn rack(&self, host: HostId) -> Option<usize> {
        Some(host.0.checked_sub(1)? / self.nodes)
    }

    pub(in crate::sim) fn ip(&self, host: HostId) -> IpAddr {
        let Some(rack) = self.rack(host) else { return Ipv4Addr::new(10, 255, 255, 1).into() };
        let place = (host.0 - 1) % self.nodes + 1;
        Ipv4Addr::new(10, (rack >> 8) as u8, rack as u8, place as u8).into()
    }

    pub(in crate::sim) fn address(&self, host: HostId) -> SocketAddr {
        SocketAddr::new(self.ip(host), PORT)
    }

    pub(in crate::sim) fn host(&self, address: SocketAddr) -> Option<HostId> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let [_, high, low, place] = ip.octets();
        let rack = usize::from(high) << 8 | usize::from(low);
        match rack {
            0xFFFF => Some(HostId::MASTER),
            _ => Some(HostId(rack * self.nodes + usize::from(place))),
        }
    }
}
