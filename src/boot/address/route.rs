//! A route, wherever it comes from.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A way to other networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: IpNet,
    /// None: they are on the link itself.
    pub(super) via: Option<IpAddr>,
}

impl Route {
    /// The way to everywhere.
    pub(super) fn default(via: IpAddr) -> Route {
        let to = match via {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        Route { to, via: Some(via) }
    }
}
