//! `/etc/resolv.conf` (resolv.conf(5)): written where it says nothing.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::error::reason;
use crate::report::Reporter;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The name servers that it names already.
pub(super) fn known() -> Vec<IpAddr> {
    fs::read_to_string(RESOLV_CONF).map(|text| name_servers(&text)).unwrap_or_default()
}

/// Writes these, unless others stand there. A failure is told and passed over: boot servers are
/// mostly given by their addresses.
pub(super) fn write(servers: &[IpAddr], domain: Option<&str>, report: &Reporter) {
    if servers.is_empty() || !known().is_empty() {
        return;
    }
    let path = Path::new(RESOLV_CONF);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = made.and_then(|()| replace(path, &text(servers, domain))) {
        report.say(format_args!("cannot write {RESOLV_CONF}: {}", reason(&error)));
    }
}

/// A link to where nothing is, as systemd leaves it, gives way to a file.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => fs::remove_file(path).and_then(|()| fs::write(path, text)),
        _ => Err(error),
    })
}

fn text(servers: &[IpAddr], domain: Option<&str>) -> String {
    let domain = domain.map(|domain| format!("search {domain}\n"));
    let servers = servers.iter().map(|server| format!("nameserver {server}\n"));
    domain.into_iter().chain(servers).collect()
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|&word| word == "nameserver")?;
        words.next()?.parse().ok()
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood() {
        let servers = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let text = text(&servers, Some("example.org"));
        assert_eq!(text, "search example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n");
        assert_eq!(name_servers(&text), servers);
    }

    #[test]
    fn comments_and_nonsense_name_no_server() {
        assert!(name_servers("# nameserver 192.0.2.1\nnameserver\nnameserver x\n").is_empty());
    }
}
