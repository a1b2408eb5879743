//! `HOST[:PORT]`.

use std::net::Ipv6Addr;

/// Splits `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address into the host,
/// without brackets, and the port (RFC 3986, section 3.2.2).
///
/// # Errors
/// What is wrong, as one line for people: there is no host, the port is not 1 to 65535, or
/// something with colons or brackets is no IPv6 address.
pub fn split_host_port(text: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, tail)) => {
                let port = tail.strip_prefix(':');
                (host, Some(port.ok_or_else(|| format!("expected :PORT after ], not \"{tail}\""))?))
            }
            None => return Err(format!("\"{text}\" lacks the closing ]")),
        },
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
    if must_be_ipv6 && without_zone(host).0.parse::<Ipv6Addr>().is_err() {
        return Err(format!("\"{host}\" is not an IPv6 address"));
    }
    Ok((host.to_owned(), port.map(parse_port).transpose()?))
}

/// An address and the zone behind its `%` (RFC 4007, section 11).
pub(super) fn without_zone(text: &str) -> (&str, Option<&str>) {
    text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| digits && port != 0);
    port.ok_or_else(|| format!("\"{text}\" is not a port (1 to 65535)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_split() {
        let split = |text| split_host_port(text).unwrap();
        assert_eq!(split("node"), ("node".into(), None));
        assert_eq!(split("node:80"), ("node".into(), Some(80)));
        assert_eq!(split("10.0.0.1:65535"), ("10.0.0.1".into(), Some(65535)));
        assert_eq!(split("fe80::1"), ("fe80::1".into(), None));
        assert_eq!(split("[fe80::1]"), ("fe80::1".into(), None));
        assert_eq!(split("[fe80::1%eth0]:80"), ("fe80::1%eth0".into(), Some(80)));
    }

    #[test]
    fn what_is_no_host_and_port_is_refused_with_a_reason() {
        let why = |text: &str| split_host_port(text).unwrap_err();
        for port in ["", "0", "65536", "+80", "-1", "8o"] {
            assert_eq!(why(&format!("n:{port}")), format!("\"{port}\" is not a port (1 to 65535)"));
        }
        assert_eq!(why(""), "\"\" has no host name");
        assert_eq!(why(":80"), "\":80\" has no host name");
        assert_eq!(why("[::1"), "\"[::1\" lacks the closing ]");
        assert_eq!(why("[::1]80"), "expected :PORT after ], not \"80\"");
        assert_eq!(why("[node]:80"), "\"node\" is not an IPv6 address");
        assert_eq!(why("a:b:c"), "\"a:b:c\" is not an IPv6 address");
    }
}
