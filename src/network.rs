//! IP networks: parsing them, and which one counts as an address's own where nobody says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// What counts as "the same rack" where only addresses are known: a /24, or a /64 of IPv6.
pub(crate) type Subnet = IpNet;

/// The subnet of an address.
pub(crate) fn subnet(ip: IpAddr) -> Subnet {
    let prefix = if ip.is_ipv4() { 24 } else { 64 };
    IpNet::new(ip, prefix).map_or(ip.into(), |network| network.trunc())
}

/// The host that an address belongs to, where hosts share something: one of IPv6 has all addresses of a /64 to choose
/// from.
pub(crate) fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

/// Whether two addresses are in the same subnet.
pub(crate) fn is_near(one: IpAddr, other: IpAddr) -> bool {
    subnet(one) == subnet(other)
}

/// `ADDRESS/PREFIX`, or one address alone.
///
/// The standard library reads the address: unlike `ipnet` it refuses leading zeros, which some programs
/// take for octal numbers.
pub(crate) fn parse(text: &str) -> Option<IpNet> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    IpNet::new(address.parse().ok()?, parse_prefix(prefix)?).ok()
}

/// `ADDRESS/PREFIX`, both of IPv4.
pub(crate) fn parse_ipv4(text: &str) -> Option<Ipv4Net> {
    let (address, prefix) = text.split_once('/')?;
    Ipv4Net::new(address.parse().ok()?, parse_prefix(prefix)?).ok()
}

/// Digits alone: `str::parse` would take a sign.
fn parse_prefix(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The length of the prefix that an address's class gives its network, for where there is no netmask (RFC
/// 950).
pub(crate) fn class_prefix(ip: Ipv4Addr) -> u8 {
    match ip.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_the_addresses_that_begin_with_its_prefix() {
        let contains = |network: &str, text: &str| parse(network).unwrap().contains(&ip(text));
        assert!(contains("10.1.0.0/16", "10.1.255.1") && !contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("10.1.2.3/16", "10.1.255.1"), "the bits behind the prefix do not count");
        assert!(contains("fd00::/64", "fd00::9") && !contains("fd00::/64", "fd00:0:0:1::9"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "fd00::1"));
        assert!(contains("10.0.0.1", "10.0.0.1") && !contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("fd00::1", "fd00::1") && !contains("fd00::1", "fd00::2"));
    }

    #[test]
    fn malformed_networks_are_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "010.0.0.0/8",
            "fd00::/129",
            "host/8",
            "10.0.0/8",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["10.0.0.1", "fd00::/64", "10.0.0.0/33", "10.0.0.0/+8", "010.0.0.0/8"] {
            assert_eq!(parse_ipv4(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_of_one_24_or_of_one_64_are_near() {
        assert_eq!(subnet(ip("192.0.2.77")).to_string(), "192.0.2.0/24");
        assert_eq!(subnet(ip("2001:db8:0:1:2::3")).to_string(), "2001:db8:0:1::/64");
        assert!(is_near(ip("192.0.2.1"), ip("192.0.2.254")));
        assert!(!is_near(ip("192.0.2.1"), ip("192.0.3.1")));
        assert!(!is_near(ip("1.2.3.4"), ip("102:300::4")), "one of IPv4, one of IPv6");
    }
}
