//! Host names to addresses, without the C library's resolver.
//!
//! `getaddrinfo` of a static glibc loads shared objects of whatever root it runs in, and may die
//! of them. So names are looked up here: `localhost`, `/etc/hosts`, then DNS as
//! `/etc/resolv.conf` says. First comes the half that reads files and asks servers, then the pure
//! half: text or bytes in, values out.
//!
//! DNS messages are read and written by smoltcp. What it leaves open is closed here: a message is
//! measured before any field is looked at, a name ends at 255 bytes and at its first error (the
//! iterator over a bad name repeats that error for ever), and only so many records are read, since
//! each can follow thousands of compression pointers.

mod config_file;
mod dns;
mod lookup;
mod resolv_conf;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::SplitWhitespace;
use std::time::Instant;

use super::host_port::without_zone;
use super::transport::Transport;
use crate::error::Error;
use config_file::{lines_of_words, text_of};
use dns::Name;
#[cfg(fuzzing)]
pub use dns::fuzz_answer;
use lookup::look_up;
use resolv_conf::{Config, interface_index};
pub use resolv_conf::{RESOLV_CONF, name_servers};

const HOSTS: &str = "/etc/hosts";

/// Resolves `host`, an address (IPv6 also in brackets) or a name, to its addresses, best first.
///
/// `localhost` and names below it are 127.0.0.1 and ::1 (RFC 6761, section 6.3). Other names are
/// looked for in `/etc/hosts`, then asked of the name servers, as `hosts(5)` and `resolv.conf(5)`
/// describe; A and AAAA are asked together (RFC 1035; RFC 3596). Addresses that the routing table
/// can reach come first; among these global IPv6, then IPv4, then local IPv6 (RFC 6724, section
/// 2.1). There is at least one.
///
/// # Errors
/// [`Error::Resolve`]: `host` is neither an address nor a name, no such name exists, it has no
/// address, or no name server has told by `deadline`.
pub fn resolve(transport: &Transport, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, Error> {
    let failed = |why: String| Error::Resolve { host: host.to_owned(), why };
    if let Some(address) = literal(host).map_err(|why| failed(why.to_owned()))? {
        return Ok(vec![address]);
    }
    if is_localhost(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut addresses = addresses_in_hosts(&text_of(HOSTS), host);
    if addresses.is_empty() {
        let config = Config::parse(&text_of(RESOLV_CONF), interface_index);
        let names =
            candidates(host, &config).ok_or_else(|| failed("not a valid host name".into()))?;
        let found = look_up(transport, &names, &config, deadline);
        addresses = found.map_err(|miss| failed(miss.to_string()))?;
    }
    Ok(best_first(addresses, |address| transport.reaches(address)))
}

/// The address that `host` is; None if it has to be looked up.
fn literal(host: &str) -> Result<Option<IpAddr>, &'static str> {
    let (address, zone) = without_zone(host);
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if zone.is_some() {
        return Err("addresses with a zone (%) are not supported");
    }
    if let Some(inner) = bracketed {
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

/// All addresses that `hosts(5)` gives to `host`, in its order.
fn addresses_in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = |mut words: SplitWhitespace<'_>| {
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    lines_of_words(text).filter_map(address).collect()
}

/// The names to ask for, in order; None if `host` is none.
fn candidates(host: &str, config: &Config) -> Option<Vec<Name>> {
    let plain = Name::new(host)?;
    if host.ends_with('.') {
        return Some(vec![plain]);
    }
    let domains = config.search.iter();
    let mut names: Vec<Name> =
        domains.filter_map(|domain| Name::new(&format!("{host}.{domain}"))).collect();
    let dots = host.matches('.').count();
    names.insert(if dots >= config.ndots { 0 } else { names.len() }, plain);
    Some(names)
}

/// Without doubles, those with a route first, then as RFC 6724 prefers destinations.
fn best_first(mut addresses: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
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
