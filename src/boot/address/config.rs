//! What a link is to have, wherever it comes from.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::boot::cmdline::{Ip, StaticRoute};
use crate::net::own;

use super::dhcp::Lease;
use super::route::Route;

/// An address and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// With its network's prefix.
    pub(super) address: IpNet,
    pub(super) routes: Vec<Route>,
    /// In bytes.
    pub(super) mtu: Option<u32>,
    /// How long the address may be used. None: for ever.
    pub(super) lifetime: Option<Duration>,
    /// By DHCP, not by hand.
    pub(super) leased: bool,
}

impl Config {
    /// What a static `ip=` says; None if it holds no address.
    pub(super) fn given(ip: &Ip) -> Option<Config> {
        let address = ip.address?;
        let is_v4 = address.addr().is_ipv4();
        let gateway = ip.gateway.filter(|gateway| gateway.is_ipv4() == is_v4);
        Some(Config {
            address,
            routes: gateway.map(Route::default).into_iter().collect(),
            mtu: ip.mtu,
            lifetime: None,
            leased: false,
        })
    }

    /// What a lease says, with what `ip=` says besides.
    pub(super) fn leased(lease: &Lease, ip: Option<&Ip>) -> Config {
        let mut config = Config {
            address: lease.address.into(),
            routes: lease.routes.clone(),
            mtu: ip.and_then(|ip| ip.mtu).or(lease.mtu),
            lifetime: lease.time,
            leased: true,
        };
        if let Some(gateway) = ip.and_then(|ip| ip.gateway).filter(IpAddr::is_ipv4) {
            config.routes.retain(|route| route.to.prefix_len() != 0);
            config.routes.push(Route::default(gateway));
        }
        config
    }

    /// Adds a route of `rd.route=`; where that names no link it belongs to the one from which its gateway is reached.
    pub(super) fn add_route(&mut self, route: &StaticRoute) {
        let is_reached = route.link.is_some() || is_on_link(self, route.gateway);
        if is_reached && route.gateway.is_ipv4() == self.address.addr().is_ipv4() {
            self.routes.retain(|other| other.to != route.to);
            self.routes.push(Route { to: route.to, via: Some(route.gateway) });
        }
    }

    /// The same for the own network; None if it is not IPv4.
    pub(super) fn own(&self, link: &str) -> Option<own::Config> {
        let IpNet::V4(address) = self.address else { return None };
        let route = |route: &Route| match *route {
            Route { to: IpNet::V4(to), via: Some(IpAddr::V4(via)) } => Some(own::Route { to, via }),
            _ => None,
        };
        Some(own::Config {
            link: link.to_owned(),
            address,
            routes: self.routes.iter().filter_map(route).take(own::MOST_ROUTES).collect(),
            mtu: self.mtu,
        })
    }
}

/// Whether `ip` is in the address's own network.
pub(super) fn is_on_link(config: &Config, ip: IpAddr) -> bool {
    config.address.contains(&ip)
}
