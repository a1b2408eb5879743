//! What the stack is to have: `LINK,ADDRESS/PREFIX[,NETWORK/PREFIX=ROUTER...][,mtu=BYTES]`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::network::parse_ipv4;

/// Most routes; those that follow are left out, since a DHCP server may name any number.
pub(crate) const MOST_ROUTES: usize = 8;
/// The least MTU: what every host must take (RFC 791).
const LEAST_MTU: u32 = 576;

/// A link, the address on it, and the ways to other networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The link's name.
    pub(crate) link: String,
    /// This node's address, with its network's prefix.
    pub(crate) address: Ipv4Net,
    /// The ways to other networks.
    pub(crate) routes: Vec<Route>,
    /// In bytes; None: that of the link.
    pub(crate) mtu: Option<u32>,
}

/// A way to another network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub(crate) to: Ipv4Net,
    /// The router.
    pub(crate) via: Ipv4Addr,
}

impl Config {
    /// Whom a packet to `ip` is handed to on the link; None if there is no way.
    pub(super) fn next_hop(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.address.contains(&ip) {
            return Some(ip);
        }
        let routes = self.routes.iter().filter(|route| route.to.contains(&ip));
        routes.max_by_key(|route| route.to.prefix_len()).map(|route| route.via)
    }
}

impl FromStr for Config {
    type Err = ();

    fn from_str(text: &str) -> Result<Config, ()> {
        let mut parts = text.split(',');
        let link = parts.next().filter(|link| !link.is_empty()).ok_or(())?.to_owned();
        let address = parse_ipv4(parts.next().ok_or(())?).ok_or(())?;
        if !is_host(address.addr()) || address.prefix_len() == 0 {
            return Err(());
        }
        let mut config = Config { link, address, routes: Vec::new(), mtu: None };
        for part in parts {
            match part.split_once('=').ok_or(())? {
                ("mtu", bytes) => {
                    let mtu = bytes.parse().ok().filter(|&mtu| mtu >= LEAST_MTU);
                    config.mtu = Some(mtu.ok_or(())?);
                }
                (to, via) => {
                    let to = parse_ipv4(to).ok_or(())?;
                    let via = via.parse().ok().filter(|&via| is_host(via)).ok_or(())?;
                    config.routes.push(Route { to, via });
                }
            }
        }
        config.routes.truncate(MOST_ROUTES);
        Ok(config)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.link, self.address)?;
        for Route { to, via } in &self.routes {
            write!(f, ",{to}={via}")?;
        }
        self.mtu.map_or(Ok(()), |mtu| write!(f, ",mtu={mtu}"))
    }
}

/// Whether packets can be sent to it as to one machine on a network.
pub(super) fn is_host(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "eth0,10.0.0.7/24",
            "eth0,10.0.0.7/24,0.0.0.0/0=10.0.0.1",
            "enp1s0,192.0.2.7/32,0.0.0.0/0=192.0.2.1,10.0.0.0/8=192.0.2.2,mtu=1400",
        ] {
            assert_eq!(text.parse::<Config>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "eth0",
            ",10.0.0.7/24",
            "eth0,10.0.0.7",
            "eth0,10.0.0.7/33",
            "eth0,224.0.0.1/24",
            "eth0,10.0.0.7/24,mtu=100",
            "eth0,10.0.0.7/24,10.0.0.1",
            "eth0,10.0.0.7/24,0.0.0.0/0=0.0.0.0",
        ] {
            assert_eq!(text.parse::<Config>(), Err(()), "{text}");
        }
    }

    #[test]
    fn the_narrowest_route_counts() {
        let config = "e,10.0.0.7/24,0.0.0.0/0=10.0.0.1,10.9.0.0/16=10.0.0.2".parse::<Config>();
        let config = config.unwrap();
        let hop = |ip: &str| config.next_hop(ip.parse().unwrap()).unwrap().to_string();
        assert_eq!(hop("10.0.0.200"), "10.0.0.200");
        assert_eq!(hop("10.9.1.1"), "10.0.0.2");
        assert_eq!(hop("192.0.2.1"), "10.0.0.1");
        let alone = Config { routes: Vec::new(), ..config.clone() };
        assert_eq!(alone.next_hop("192.0.2.1".parse().unwrap()), None);
    }
}
