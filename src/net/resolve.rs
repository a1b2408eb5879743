//! Host names and what people write for them.

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
                (host, Some(port.ok_or_else(|| format!("\"{tail}\" after ] is no :PORT"))?))
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
        return Err(format!("\"{text}\" names no host"));
    }
    let must_be_ipv6 = text.starts_with('[') || host.contains(':');
    if must_be_ipv6 && without_zone(host).0.parse::<Ipv6Addr>().is_err() {
        return Err(format!("\"{host}\" is no IPv6 address"));
    }
    Ok((host.to_owned(), port.map(parse_port).transpose()?))
}

/// An address and the zone behind its `%` (RFC 4007, section 11).
fn without_zone(text: &str) -> (&str, Option<&str>) {
    text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| digits && port != 0);
    port.ok_or_else(|| format!("\"{text}\" is no port (1 to 65535)"))
}

#[cfg(test)]
mod tests;
