//! `HOST[:PORT]`, as users write it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A host and, if it was given, a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address; an IPv6 address without brackets.
    pub(crate) host: String,
    /// Not 0.
    pub(crate) port: Option<u16>,
}

impl HostPort {
    /// Parses `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or an IPv6 address without brackets (RFC 3986,
    /// section 3.2.2).
    ///
    /// # Errors
    ///
    /// A message: the host is missing, the port is not 1 to 65535, or something with colons or brackets is
    /// not an IPv6 address.
    pub(crate) fn parse(text: &str) -> Result<HostPort, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => split_brackets(text, rest)?,
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(format!("\"{text}\" has no host name"));
        }
        let must_be_ipv6 = text.starts_with('[') || host.contains(':');
        if must_be_ipv6 && split_zone(host).0.parse::<Ipv6Addr>().is_err() {
            return Err(format!("\"{host}\" is not an IPv6 address"));
        }
        Ok(HostPort { host: host.to_owned(), port: port.map(parse_port).transpose()? })
    }

    /// Whether the host may have an IPv6 address: it is one, or a name.
    pub(crate) fn may_be_ipv6(&self) -> bool {
        self.host.parse::<Ipv4Addr>().is_err()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            write!(f, "{}", self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Splits `rest`, the part of `text` after the opening bracket, into the address and the port.
fn split_brackets<'a>(text: &str, rest: &'a str) -> Result<(&'a str, Option<&'a str>), String> {
    match rest.split_once(']') {
        None => Err(format!("\"{text}\" lacks the closing ]")),
        Some((host, "")) => Ok((host, None)),
        Some((host, rest)) => {
            let port = rest.strip_prefix(':');
            Ok((host, Some(port.ok_or_else(|| format!("expected :PORT after ], not \"{rest}\""))?)))
        }
    }
}

/// Splits an address from the zone after its `%` (RFC 4007, section 11).
pub(super) fn split_zone(text: &str) -> (&str, Option<&str>) {
    text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let only_digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| only_digits && port != 0);
    port.ok_or_else(|| format!("\"{text}\" is not a port (1 to 65535)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<u16>) {
        let HostPort { host, port } = HostPort::parse(text).unwrap();
        (host, port)
    }

    #[test]
    fn host_and_port_are_split() {
        assert_eq!(parsed("node"), ("node".into(), None));
        assert_eq!(parsed("node:80"), ("node".into(), Some(80)));
        assert_eq!(parsed("10.0.0.1:65535"), ("10.0.0.1".into(), Some(65535)));
    }

    #[test]
    fn an_ipv6_address_needs_brackets_only_before_a_port() {
        assert_eq!(parsed("fe80::1"), ("fe80::1".into(), None));
        assert_eq!(parsed("[fe80::1]"), ("fe80::1".into(), None));
        assert_eq!(parsed("[fe80::1%eth0]:80"), ("fe80::1%eth0".into(), Some(80)));
    }

    #[test]
    fn an_invalid_host_or_port_is_an_error_with_a_reason() {
        let error = |text: &str| HostPort::parse(text).unwrap_err();
        for port in ["", "0", "65536", "+80", "-1", "8o"] {
            assert_eq!(
                error(&format!("n:{port}")),
                format!("\"{port}\" is not a port (1 to 65535)")
            );
        }
        assert_eq!(error(""), "\"\" has no host name");
        assert_eq!(error(":80"), "\":80\" has no host name");
        assert_eq!(error("[::1"), "\"[::1\" lacks the closing ]");
        assert_eq!(error("[::1]80"), "expected :PORT after ], not \"80\"");
        assert_eq!(error("[node]:80"), "\"node\" is not an IPv6 address");
        assert_eq!(error("a:b:c"), "\"a:b:c\" is not an IPv6 address");
    }

    #[test]
    fn what_is_printed_is_parsed_to_the_same_value() {
        for text in ["node", "node:80", "10.0.0.1", "[fe80::1]", "[fe80::1]:80"] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
    }
}
