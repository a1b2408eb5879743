//! A route, wherever it comes from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A way to other networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpAddr,
    /// In bits; 0 is everywhere.
    pub(super) prefix: u8,
    /// None: they are on the link itself.
    pub(super) via: Option<IpAddr>,
}

impl Route {
    /// The way to everywhere.
    pub(super) fn default(via: IpAddr) -> Route {
        let to = match via {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Route { to, prefix: 0, via: Some(via) }
    }
}
