//! IP networks: an address, and how many bits of it are the network's.

use std::net::IpAddr;
use std::str::FromStr;

/// `ADDRESS/PREFIX`; without a prefix one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    /// At most 32, with IPv6 128.
    prefix: u8,
}

impl IpNetwork {
    /// Whether an address is of this network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        is_within(ip, self.address, self.prefix)
    }
}

impl FromStr for IpNetwork {
    type Err = ();

    fn from_str(text: &str) -> Result<IpNetwork, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(all), str::parse).map_err(drop)?;
        if prefix > all {
            return Err(());
        }
        Ok(IpNetwork { address, prefix })
    }
}

/// Whether the first `prefix` bits of both addresses are the same.
pub fn is_within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32_u32.saturating_sub(prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differ = a.to_bits() ^ b.to_bits();
            differ.checked_shr(128_u32.saturating_sub(prefix)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether two addresses are of the same subnet.
pub fn is_near(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && subnet(one) == subnet(other)
}

/// A /24 or /64: as good a guess at "same rack" as an address allows.
pub type Subnet = [u8; 8];

/// The subnet of an address.
pub fn subnet(ip: IpAddr) -> Subnet {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [a, b, c, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets().first_chunk().copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, ip: &str) -> bool {
        network.parse::<IpNetwork>().unwrap().contains(ip.parse().unwrap())
    }

    #[test]
    fn a_network_contains_what_begins_with_its_bits() {
        assert!(contains("10.1.0.0/16", "10.1.255.1") && !contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("fd00::/64", "fd00::9") && !contains("fd00::/64", "fd00:0:0:1::9"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "fd00::1"));
        assert!(contains("10.0.0.1", "10.0.0.1") && !contains("10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "/8", "10.0.0.0/33", "10.0.0.0/-1", "fd00::/129", "host/8", "10.0.0/8"] {
            assert!(text.parse::<IpNetwork>().is_err(), "{text}");
        }
    }
}
