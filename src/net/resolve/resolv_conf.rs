//! `/etc/resolv.conf` (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use super::config_file::{lines_of_words, text_of};
use crate::net::host_port::without_zone;

/// Where the name servers are named (resolv.conf(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;
/// Servers, dots, seconds and rounds that `resolv.conf(5)` can ask for at most.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT_S: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// The name servers that `/etc/resolv.conf` names, which may be none.
pub fn name_servers() -> Vec<IpAddr> {
    servers_in_resolv_conf(&text_of(RESOLV_CONF), interface_index)
        .map(|server| server.ip())
        .collect()
}

/// The number of a network interface that is named or numbered in an address's zone.
pub(super) fn interface_index(zone: &str) -> Option<u32> {
    let named = || text_of(&format!("/sys/class/net/{zone}/ifindex")).trim().parse().ok();
    zone.parse().ok().or_else(named)
}

/// What `resolv.conf(5)` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// A name with so many dots is asked for as it stands first.
    pub(super) ndots: usize,
    /// How long each server may take, each time.
    pub(super) timeout: Duration,
    /// Rounds over the servers.
    pub(super) attempts: u32,
}

impl Config {
    /// Reads a `resolv.conf`; what it does not say, or says wrongly, stands at its default.
    pub(super) fn parse(text: &str, zone_index: impl Fn(&str) -> Option<u32>) -> Config {
        let mut config = Config {
            servers: servers_in_resolv_conf(text, zone_index).take(MAX_SERVERS).collect(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for mut words in lines_of_words(text) {
            match words.next() {
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| config.set_option(option)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        config
    }

    fn set_option(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = MAX_NDOTS.min(value as usize),
            "timeout" => {
                self.timeout = Duration::from_secs(u64::from(value).clamp(1, MAX_TIMEOUT_S))
            }
            "attempts" => self.attempts = value.clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }
}

/// The servers that it names, however many.
fn servers_in_resolv_conf(
    text: &str,
    zone_index: impl Fn(&str) -> Option<u32>,
) -> impl Iterator<Item = SocketAddr> {
    let named = lines_of_words(text).filter(|words| words.clone().next() == Some("nameserver"));
    named.filter_map(move |mut words| server_address(words.nth(1)?, &zone_index))
}

fn server_address(text: &str, zone_index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match without_zone(text) {
        (address, None) => Some(SocketAddr::new(address.parse().ok()?, DNS_PORT)),
        (address, Some(zone)) => {
            let (address, index) = (address.parse().ok()?, zone_index(zone)?);
            Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, |zone| (zone == "eth0").then_some(3))
    }

    #[test]
    fn an_empty_resolv_conf_asks_the_local_server() {
        let local = Config {
            servers: vec!["127.0.0.1:53".parse().unwrap()],
            search: vec![],
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        assert_eq!(config(""), local);
        assert_eq!(config("nameserver\nnameserver node\noptions rotate ndots:x\nx"), local);
    }

    #[test]
    fn resolv_conf_is_understood() {
        let full = config(
            "; comment\nnameserver 10.0.0.1 # first\nnameserver fe80::1%eth0\nnameserver fe80::1%no\n\
             nameserver 10.0.0.2\nnameserver 10.0.0.3\ndomain gone\nsearch a.example b.example\n\
             options ndots:99 timeout:0 attempts:3",
        );
        let servers = ["10.0.0.1:53", "[fe80::1%3]:53", "10.0.0.2:53"].map(|s| s.parse().unwrap());
        assert_eq!(full.servers, servers);
        assert_eq!(full.search, ["a.example", "b.example"]);
        assert_eq!((full.ndots, full.timeout.as_secs(), full.attempts), (15, 1, 3));
    }
}
