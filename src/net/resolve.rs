//! Resolves host names to addresses without the C library.
//!
//! `getaddrinfo` of a statically linked glibc loads shared objects from the root it runs in, and may crash
//! if they have another version. So xget does the same itself: `localhost`, `/etc/hosts`, and DNS as
//! `/etc/resolv.conf` configures it.
//!
//! ```text
//!  resolve           a host to addresses
//!   ├ resolv_conf    /etc/resolv.conf: read, and written where it is missing
//!   └ lookup         asks the name servers, over UDP and TCP
//!      └ dns         pure: names, queries and answers as bytes
//! ```

mod config_file;
mod dns;
mod lookup;
mod resolv_conf;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::SplitWhitespace;
use std::time::Instant;

use super::host_port::split_zone;
use super::transport::Transport;
use crate::error::Error;
use config_file::{lines_of_words, read_or_empty};
use dns::Name;
#[cfg(fuzzing)]
pub use dns::fuzz_answer;
use lookup::look_up;
use resolv_conf::ResolvConf;
pub(crate) use resolv_conf::{RESOLV_CONF, name_servers, write_if_missing};

const HOSTS: &str = "/etc/hosts";

/// Resolves `host`, an address (IPv6 also in brackets) or a name, to at least one address, best first.
///
/// `localhost` and names below it are 127.0.0.1 and ::1 (RFC 6761, section 6.3). Other names are looked up in
/// `/etc/hosts`, then with the name servers (hosts(5), resolv.conf(5)), for IPv4 and IPv6 at the same time.
/// Addresses to which there is a route come first; among these global IPv6, then IPv4, then local IPv6 (RFC
/// 6724, section 2.1).
///
/// # Errors
///
/// [`Error::Resolve`]: `host` is neither an address nor a name, the name does not exist or has no address, or
/// no name server has answered by `deadline`.
pub(crate) fn resolve(
    transport: &Transport,
    host: &str,
    deadline: Instant,
) -> Result<Vec<IpAddr>, Error> {
    let failed = |why: String| Error::Resolve { host: host.to_owned(), why };
    if let Some(address) = literal(host).map_err(|why| failed(why.to_owned()))? {
        return Ok(vec![address]);
    }
    if is_localhost(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut addresses = addresses_in_hosts(&read_or_empty(HOSTS), host);
    if addresses.is_empty() {
        let config = ResolvConf::read();
        let names =
            names_to_query(host, &config).ok_or_else(|| failed("not a valid host name".into()))?;
        addresses = look_up(transport, &names, &config, deadline)
            .map_err(|error| failed(error.to_string()))?;
    }
    Ok(sorted_by_preference(addresses, |address| transport.reaches(address)))
}

/// The address that `host` is; None if it is a name.
fn literal(host: &str) -> Result<Option<IpAddr>, &'static str> {
    let (address, zone) = split_zone(host);
    if zone.is_some() {
        return Err("addresses with a zone (%) are not supported");
    }
    if let Some(inner) = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| "not an IPv6 address")?;
        return Ok(Some(address.into()));
    }
    match host.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) if host.contains('.') && host.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.')) => {
            Err("not an IPv4 address")
        }
        Err(_) => Ok(None),
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// The addresses of `host` in the text of a hosts(5) file, in its order.
fn addresses_in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = |mut words: SplitWhitespace<'_>| {
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    lines_of_words(text).filter_map(address).collect()
}

/// The names to ask the name servers for, in order, as the search list and `ndots` of resolv.conf(5) say;
/// None if `host` is not a valid name.
fn names_to_query(host: &str, config: &ResolvConf) -> Option<Vec<Name>> {
    let unqualified = Name::new(host)?;
    if host.ends_with('.') {
        return Some(vec![unqualified]);
    }
    let domains = config.search.iter();
    let mut names: Vec<Name> =
        domains.filter_map(|domain| Name::new(&format!("{host}.{domain}"))).collect();
    let dots = host.matches('.').count();
    names.insert(if dots >= config.ndots { 0 } else { names.len() }, unqualified);
    Some(names)
}

/// Removes duplicates, and sorts by reachability, then by RFC 6724's preference for destinations.
fn sorted_by_preference(
    mut addresses: Vec<IpAddr>,
    has_route: impl Fn(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    addresses.retain(|&address| seen.insert(address));
    addresses.sort_by_cached_key(|&address| {
        let preference = match address {
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => 2,
            IpAddr::V6(_) => 0,
            IpAddr::V4(_) => 1,
        };
        (!has_route(address), preference)
    });
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Resolves `host` with a deadline that is over, so that no name server is asked.
    fn resolve_at_once(host: &str) -> Result<Vec<IpAddr>, Error> {
        resolve(&Transport::Kernel, host, Instant::now())
    }

    #[test]
    fn an_address_is_not_looked_up() {
        assert_eq!(resolve_at_once("10.0.0.7").unwrap(), [V4]);
        assert_eq!(resolve_at_once("2001:db8::7").unwrap(), [V6]);
        assert_eq!(resolve_at_once("[2001:db8::7]").unwrap(), [V6]);
    }

    #[test]
    fn localhost_is_not_looked_up() {
        for localhost in ["localhost", "LocalHost.", "a.localhost"] {
            assert_eq!(resolve_at_once(localhost).unwrap(), ips(&["127.0.0.1", "::1"]));
        }
    }

    #[test]
    fn an_invalid_host_is_an_error_before_any_server_is_asked() {
        let error = |host| resolve_at_once(host).unwrap_err().to_string();
        let text = |host, why| format!("cannot resolve {host}: {why}");
        assert_eq!(error("10.0.0.300"), text("10.0.0.300", "not an IPv4 address"));
        assert_eq!(error("[10.0.0.1]"), text("[10.0.0.1]", "not an IPv6 address"));
        let zone = "addresses with a zone (%) are not supported";
        assert_eq!(error("fe80::1%2"), text("fe80::1%2", zone));
        let long = "a".repeat(64);
        for host in ["", "a..b", "a:80", "a b", "n\u{f6}de", &long, &"a.".repeat(128)] {
            assert_eq!(error(host), text(host, "not a valid host name"));
        }
    }

    #[test]
    fn a_host_in_etc_hosts_is_found_by_any_of_its_names() {
        let hosts = "# 10.0.0.1 node\n10.0.0.7\tfull.example Node # 10.0.0.2\nfe80::1%lo node\n\
                     junk node\n2001:db8::7 node\n10.0.0.9 other";
        assert_eq!(addresses_in_hosts(hosts, "nODE."), [V4, V6]);
        assert_eq!(addresses_in_hosts(hosts, "full.example"), [V4]);
        assert!(addresses_in_hosts(hosts, "10.0.0.2").is_empty());
        assert!(addresses_in_hosts(hosts, "").is_empty());
    }

    #[test]
    fn the_search_list_comes_first_for_names_with_few_dots() {
        let text = "search a.example b..bad b.example.\noptions ndots:2";
        let config = ResolvConf::parse(text, |_| None);
        let queried = |host| names_to_query(host, &config).unwrap();
        let names =
            |names: &[&str]| names.iter().map(|n| Name::new(n).unwrap()).collect::<Vec<_>>();
        assert_eq!(queried("n.x"), names(&["n.x.a.example", "n.x.b.example", "n.x"]));
        assert_eq!(queried("n.x.y"), names(&["n.x.y", "n.x.y.a.example", "n.x.y.b.example"]));
        assert_eq!(queried("n."), names(&["n"]));
    }

    #[test]
    fn addresses_with_a_route_come_first_and_duplicates_are_removed() {
        let all = ips(&["fd00::1", "10.0.0.2", "10.0.0.1", "2001:db8::1", "10.0.0.2"]);
        let sorted = sorted_by_preference(all.clone(), |_| true);
        assert_eq!(sorted, ips(&["2001:db8::1", "10.0.0.2", "10.0.0.1", "fd00::1"]));
        let sorted = sorted_by_preference(all, |address| address.is_ipv4());
        assert_eq!(sorted, ips(&["10.0.0.2", "10.0.0.1", "2001:db8::1", "fd00::1"]));
    }
}
