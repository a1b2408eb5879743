//! `/etc/resolv.conf` (resolv.conf(5)): written where it says nothing.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::error::reason;
use crate::net::resolve::{RESOLV_CONF, name_servers};
use crate::process::report::Reporter;

/// Writes these, unless others stand there. A failure is told and passed over: boot servers are
/// mostly given by their addresses.
pub(super) fn write(servers: &[IpAddr], domain: Option<&str>, report: &Reporter) {
    if servers.is_empty() || !name_servers().is_empty() {
        return;
    }
    let path = Path::new(RESOLV_CONF);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    if let Err(error) = made.and_then(|()| replace(path, &text(servers, domain))) {
        report.warning(format_args!("cannot write {RESOLV_CONF}: {}", reason(&error)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_comes_before_the_servers() {
        let servers = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let text = text(&servers, Some("example.org"));
        assert_eq!(text, "search example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n");
    }
}
