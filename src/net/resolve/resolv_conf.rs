//! `/etc/resolv.conf` (resolv.conf(5)): which name servers to ask, and how.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

use super::config_file::{lines_of_words, read_or_empty};
use crate::net::host_port::split_zone;

pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// RFC 1035, section 4.2.
const DNS_PORT: u16 = 53;
/// The limits that resolv.conf(5) documents.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT_S: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// The parsed file. What it does not contain, or contains wrongly, has its default.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// At least one.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// A name with at least this many dots is first looked up without the search list.
    pub(super) ndots: usize,
    /// For each query to each server.
    pub(super) timeout: Duration,
    /// How often to go through the list of servers.
    pub(super) attempts: u32,
}

impl ResolvConf {
    pub(super) fn read() -> ResolvConf {
        ResolvConf::parse(&read_or_empty(RESOLV_CONF), interface_index)
    }

    /// `zone_index` returns the index of the interface that an address's zone names.
    pub(super) fn parse(text: &str, zone_index: impl Fn(&str) -> Option<u32>) -> ResolvConf {
        let mut config = ResolvConf {
            servers: server_addresses(text, zone_index).take(MAX_SERVERS).collect(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for mut words in lines_of_words(text) {
            match words.next() {
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        config.set_option(option);
                    }
                }
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

/// All name servers in `/etc/resolv.conf`.
pub(crate) fn name_servers() -> Vec<IpAddr> {
    server_addresses(&read_or_empty(RESOLV_CONF), interface_index)
        .map(|server| server.ip())
        .collect()
}

/// Writes `/etc/resolv.conf` with these name servers and search domains, unless it contains a name server
/// already, or `servers` is empty.
pub(crate) fn write_if_missing(servers: &[IpAddr], domains: &[String]) -> io::Result<()> {
    if servers.is_empty() || !name_servers().is_empty() {
        return Ok(());
    }
    let path = Path::new(RESOLV_CONF);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let text = text(servers, domains);
    match fs::write(path, &text) {
        // A dangling symbolic link, such as systemd creates.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::remove_file(path)?;
            fs::write(path, &text)
        }
        result => result,
    }
}

fn text(servers: &[IpAddr], domains: &[String]) -> String {
    let domain = (!domains.is_empty()).then(|| format!("search {}\n", domains.join(" ")));
    let servers = servers.iter().map(|server| format!("nameserver {server}\n"));
    domain.into_iter().chain(servers).collect()
}

fn server_addresses(
    text: &str,
    zone_index: impl Fn(&str) -> Option<u32>,
) -> impl Iterator<Item = SocketAddr> {
    let lines = lines_of_words(text).filter(|words| words.clone().next() == Some("nameserver"));
    lines.filter_map(move |mut words| server_address(words.nth(1)?, &zone_index))
}

fn server_address(text: &str, zone_index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match split_zone(text) {
        (address, None) => Some(SocketAddr::new(address.parse().ok()?, DNS_PORT)),
        (address, Some(zone)) => {
            let (address, index) = (address.parse().ok()?, zone_index(zone)?);
            Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
        }
    }
}

/// The index of the network interface whose name or index is `zone`.
fn interface_index(zone: &str) -> Option<u32> {
    let by_name = || read_or_empty(&format!("/sys/class/net/{zone}/ifindex")).trim().parse().ok();
    zone.parse().ok().or_else(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ResolvConf {
        ResolvConf::parse(text, |zone| (zone == "eth0").then_some(3))
    }

    fn default() -> ResolvConf {
        ResolvConf {
            servers: vec!["127.0.0.1:53".parse().unwrap()],
            search: vec![],
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }

    #[test]
    fn an_empty_file_means_a_server_on_this_host() {
        assert_eq!(parsed(""), default());
    }

    #[test]
    fn invalid_lines_are_ignored() {
        assert_eq!(parsed("nameserver\nnameserver node\noptions rotate ndots:x\nx"), default());
    }

    #[test]
    fn servers_search_list_and_options_are_read_within_their_limits() {
        let config = parsed(
            "; comment\nnameserver 10.0.0.1 # first\nnameserver fe80::1%eth0\n\
             nameserver fe80::1%no\nnameserver 10.0.0.2\nnameserver 10.0.0.3\ndomain gone\n\
             search a.example b.example\noptions ndots:99 timeout:0 attempts:3",
        );
        let servers = ["10.0.0.1:53", "[fe80::1%3]:53", "10.0.0.2:53"].map(|s| s.parse().unwrap());
        assert_eq!(config.servers, servers);
        assert_eq!(config.search, ["a.example", "b.example"]);
        assert_eq!((config.ndots, config.timeout.as_secs(), config.attempts), (15, 1, 3));
    }

    #[test]
    fn domains_are_written_before_the_servers() {
        let servers = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let text = text(&servers, &["a.example", "example.org"].map(str::to_owned));
        assert_eq!(
            text,
            "search a.example example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"
        );
    }
}
