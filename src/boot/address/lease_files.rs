//! What DHCP told those who brought the network up before, this program among them: they leave it in
//! files.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::net::host_port::HostPort;

/// Where this program leaves it: the directory, how the file's name begins and ends, and the key.
const OWN: (&str, &str, &str, &str) = ("/run/xget", "boot-servers", ".conf", "bootserver");
/// The key of those that are more than an address.
const OWN_HOST: &str = "boothost ";

/// A directory, how the names of files in it begin and end, and the keys whose values count, best first.
type Source = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Of boot servers.
const BOOT_SERVERS: [Source; 6] = [
    (OWN.0, OWN.1, OWN.2, &[OWN.3]),
    // The kernel (`ip=dhcp` with CONFIG_IP_PNP; admin-guide/nfs/nfsroot).
    ("/proc/net", "pnp", "", &["bootserver"]),
    // klibc's ipconfig, which initramfs-tools runs.
    ("/run", "net-", ".conf", &["ROOTSERVER"]),
    // dracut with dhclient.
    ("/tmp", "dhclient.", ".dhcpopts", &["new_next_server", "new_dhcp_server_identifier"]),
    // systemd-networkd.
    ("/run/systemd/netif/leases", "", "", &["NEXT_SERVER", "SERVER_ADDRESS"]),
    // NetworkManager.
    ("/run/NetworkManager/devices", "", "", &["next-server"]),
];

/// Of name servers that `/etc/resolv.conf` may lack.
const NAME_SERVERS: [Source; 3] = [
    ("/proc/net", "pnp", "", &["nameserver"]),
    ("/run", "net-", ".conf", &["IPV4DNS0", "IPV4DNS1"]),
    ("/run", "net6-", ".conf", &["IPV6DNS0", "IPV6DNS1"]),
];

/// Leaves them for the next run, which finds the network as this one has set it up.
pub(super) fn leave(hosts: &[HostPort], servers: &[IpAddr]) -> io::Result<()> {
    let (directory, begin, end, key) = OWN;
    let hosts = hosts.iter().map(|host| format!("{OWN_HOST}{host}\n"));
    let text: String =
        hosts.chain(servers.iter().map(|server| format!("{key} {server}\n"))).collect();
    let path = PathBuf::from(directory).join(format!("{begin}{end}"));
    let new = path.with_extension("new");
    fs::create_dir_all(directory)?;
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path))
}

/// The boot servers that were told of.
pub(super) fn boot_servers() -> Vec<IpAddr> {
    told(&BOOT_SERVERS)
}

/// Those of [`boot_servers`] that are more than an address.
pub(super) fn boot_hosts() -> Vec<HostPort> {
    let text = fs::read_to_string(format!("{}/{}{}", OWN.0, OWN.1, OWN.2)).unwrap_or_default();
    let hosts = text.lines().filter_map(|line| line.strip_prefix(OWN_HOST));
    hosts.filter_map(|host| HostPort::parse(host).ok()).collect()
}

/// The name servers that were told of.
pub(super) fn name_servers() -> Vec<IpAddr> {
    told(&NAME_SERVERS)
}

fn told(sources: &[Source]) -> Vec<IpAddr> {
    let servers = sources.iter().flat_map(|(directory, begin, end, keys)| {
        let files = files(directory, begin, end).into_iter();
        files.filter_map(|path| fs::read_to_string(path).ok()).flat_map(|text| values(&text, keys))
    });
    servers.collect()
}

fn files(directory: &str, begin: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(begin) && name.ends_with(end))
    });
    let mut files: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The addresses behind these keys, in the keys' order: `KEY=VALUE`, `KEY='VALUE'` or `KEY VALUE`.
fn values(text: &str, keys: &[&str]) -> Vec<IpAddr> {
    let value = |line: &str, key: &str| {
        let rest = line.trim_start().strip_prefix(key)?;
        let value = rest.strip_prefix(['=', ' '])?.trim_matches(['\'', '"', ' ']);
        value.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
    };
    keys.iter().flat_map(|key| text.lines().filter_map(|line| value(line, key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_writing_it_is_understood() {
        let server: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
        let pnp = "#PROTO: DHCP\ndomain example.org\nnameserver 192.0.2.9\nbootserver 192.0.2.1\n";
        assert_eq!(values(pnp, &["bootserver"]), server);
        let klibc = "DEVICE='eth0'\nROOTSERVER='192.0.2.1'\nrootserver='192.0.2.1'\n";
        assert_eq!(values(klibc, &["ROOTSERVER"]), server);
        let networkd = "ADDRESS=192.0.2.7\nNEXT_SERVER=192.0.2.1\nSERVER_ADDRESS=192.0.2.1\n";
        assert_eq!(values(networkd, &["NEXT_SERVER"]), server);
    }

    #[test]
    fn the_next_server_comes_before_the_one_that_gave_the_address() {
        let text = "new_dhcp_server_identifier='192.0.2.2'\nnew_next_server='192.0.2.1'\n";
        let keys = ["new_next_server", "new_dhcp_server_identifier"];
        let servers = values(text, &keys).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(servers, ["192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn no_address_at_all_is_no_server() {
        assert!(values("bootserver 0.0.0.0\n", &["bootserver"]).is_empty());
    }
}
