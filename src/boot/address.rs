//! How a node gets an address early in the boot.
//!
//! What the kernel or the initramfs has set is used as it is. Else every link that may have the
//! servers behind it is brought up, DHCP runs on all of them at once, and the address, the routes
//! and the MTU are given to the kernel, so that all else goes over ordinary sockets. The kernel
//! gets IPv6 addresses from routers by itself, once it is allowed to. With `rd.xget.net=own` it is told
//! of none of these: [`crate::net::own`] has them.
//!
//! ```text
//!  pure                                     I/O
//!  setup       what is to be done next      this file   waits, and does it
//!   ├ links    which links are meant        kernel      asks the kernel and tells it
//!   ├ dhcp     who is asked, which offer    resolver    /etc/resolv.conf
//!   ├ v6       what a router's word calls for
//!   │  └ dhcp6 the same of DHCPv6           sockets6    its sockets
//!   └ config   what a link is to have       before      what the initramfs was told
//!  rtnetlink   the kernel's bytes
//! ```
//!
//! The kernel drops a leased address when the lease is over, unless somebody renews it: the real
//! root's network manager. Until there is one, [`keep`] makes it permanent, which is what the
//! kernel itself does with `ip=dhcp`: a node that is booted from the network by its hardware
//! address gets the same one every time, and a fetch may take longer than a lease. There is no
//! renewal: a process that did it would have to stay, and to know when somebody else has taken over.

mod config;
mod dhcp;
mod dhcp6;
mod identity;
mod lease_files;
mod links;
mod route;
mod rtnetlink;
mod setup;
mod sockets6;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::cmdline::{Net, NetworkWish};
use crate::error::{Error, reason};
use crate::net::host_port::HostPort;
use crate::net::own;
use crate::net::resolve::{self, RESOLV_CONF};
use crate::process::report::Reporter;
use crate::sys::netlink::Netlink;
use crate::sys::packet::PacketSocket;
use crate::sys::poll::{self, PollFd};
use crate::sys::process;
use dhcp::Lease;
#[cfg(fuzzing)]
pub use dhcp::fuzz_dhcp;
use dhcp6::Told;
#[cfg(fuzzing)]
pub use dhcp6::fuzz_dhcp6;
use identity::Identity;
use rtnetlink::Kernel;
use setup::{Action, Found, Setup};
use sockets6::Sockets6;

const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// In bytes (sethostname(2)).
const LONGEST_NODE_NAME: usize = 64;
/// Where DHCP clients listen (RFC 2131, section 4.1).
const DHCP_CLIENT_PORT: u16 = 68;
/// Room for one packet; none that was asked for is longer.
const PACKET_BYTES: usize = 2048;
/// Before the first line that says what is waited for, and between two of them.
const FIRST_LINE: Duration = Duration::from_secs(2);
const LINE_EVERY: Duration = Duration::from_secs(5);
/// A look at the kernel is due after this time even if it has told of no change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the kernel asks for routers at least. By itself it waits twice as long each time, up to an hour, which behind
/// a switch port that forwards late is as long again as that took.
const SOLICIT_EVERY_S: &str = "7";

/// What a node knows of its network once it has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The link that has the address.
    pub link: Option<String>,
    /// One that others can reach.
    pub address: Option<IpAddr>,
    /// Whom to boot from, best first: the server of `ip=`, what DHCP names as the next server
    /// (`siaddr`), its TFTP server name (option 66) if that is an address, the DHCP server itself.
    pub servers: Vec<IpAddr>,
    /// Whom to boot from before those, where `ip=` names none: the host of DHCPv6's boot file URL; the name in DHCP's
    /// option 66, where the next server is none but the DHCP server itself.
    pub(crate) named: Vec<HostPort>,
    /// Best first.
    pub name_servers: Vec<IpAddr>,
    /// The node's own name.
    pub host_name: Option<String>,
    /// What xget's own network is to have, which the kernel has not been told of.
    pub(crate) own: Option<own::Config>,
    /// After this time the kernel drops the address, unless it is renewed or [`keep`] is called.
    /// None: never.
    pub lease: Option<Duration>,
}

impl Network {
    /// Whom to boot from, best first, each as `-n` takes it.
    pub fn boot_servers(&self) -> Vec<String> {
        let servers = self.servers.iter();
        let servers = servers.map(|ip| HostPort { host: ip.to_string(), port: None });
        let mut all: Vec<String> = Vec::new();
        for server in self.named.iter().cloned().chain(servers) {
            let server = server.to_string();
            if !all.contains(&server) {
                all.push(server);
            }
        }
        all
    }
}

/// Returns once there is an address.
///
/// `Net::Own` takes none that the kernel has, and tells the kernel of none; `Net::Kernel` takes no other.
/// At most one line every 5 s says what is waited for. `/etc/resolv.conf` is written if it names no
/// server, and the node gets the name that `ip=` or DHCP has for it if it has none.
///
/// # Errors
/// [`Error::System`]: `give_up` is past, with what was tried on which link; or the kernel does not
/// let this process ask for links, send packets on them or set addresses (it needs
/// `CAP_NET_ADMIN` and `CAP_NET_RAW`).
pub fn bring_up(
    wish: &NetworkWish,
    net: Net,
    report: &Reporter,
    give_up: Option<Instant>,
) -> Result<Network, Error> {
    let mut kernel = Kernel::open().map_err(Error::system("list network links"))?;
    let changes = Kernel::changes().map_err(Error::system("watch network links"))?;
    let mut setup = Setup::new(wish, net, process::seed(), Identity::of_this_machine());
    let own = (net == Net::Own).then(Vec::new);
    let (sockets, sockets6) = (BTreeMap::new(), Sockets6::default());
    let mut executor = Executor { report, sockets, sockets6, told6: None, own };
    let mut advertised = Told::default();
    let mut next_line = Instant::now() + FIRST_LINE;
    loop {
        let now = Instant::now();
        setup.observe(kernel.look().map_err(Error::system("list network links"))?, now);
        for action in setup.poll(now) {
            executor.act(&mut kernel, action)?;
        }
        for warning in setup.take_warnings() {
            report.warning(format_args!("{warning}"));
        }
        if let Some(found) = setup.found() {
            advertised.add(setup.told());
            return Ok(settle(found, wish, &advertised, executor.own, report));
        }
        let missing = setup.missing(now);
        if give_up.is_some_and(|at| now >= at) {
            let missing: Vec<String> = missing.iter().map(|m| format!("no {}", m.what)).collect();
            let why = io::Error::new(io::ErrorKind::TimedOut, missing.join("; "));
            return Err(Error::System { action: "get an address", error: why });
        }
        if now >= next_line {
            let missing = missing.iter().map(|m| format!("for {}{}", m.article, m.what));
            report.notice(format_args!("waiting {}", missing.collect::<Vec<_>>().join("; ")));
            next_line = now + LINE_EVERY;
        }
        let until = setup.next_wake(now).into_iter().chain(give_up);
        let until = until.fold(next_line.min(now + LOOK_EVERY), Instant::min);
        executor.sockets.retain(|&link, _| setup.listens_on(link));
        executor.sockets6.retain(|link| setup.listens6_on(link));
        executor.wait(&changes, until).map_err(Error::system("wait for packets"))?;
        let (servers, domains) = kernel.advertised(&changes);
        advertised.add_lists(servers.into_iter().map(IpAddr::from), domains);
        executor.receive(&mut setup);
    }
}

/// Tells everybody of what was found.
fn settle(
    found: &Found,
    wish: &NetworkWish,
    advertised: &Told,
    own: Option<Vec<own::Config>>,
    report: &Reporter,
) -> Network {
    let mut network = network(found, wish, advertised);
    if let Some(own) = own {
        network.own = own.into_iter().find(|own| network.link.as_ref() == Some(&own.link));
        network.lease = None;
    }
    announce(found, &network, report);
    write_resolv_conf(&network.name_servers, domains(found, advertised), report);
    if let Some(name) = &network.host_name {
        name_node(name, report);
    }
    if !matches!(found, Found::Present { .. })
        && let Err(error) = lease_files::leave(&network.named, &network.servers)
    {
        report.info(format_args!(
            "cannot save the boot servers in /run/xget for later stages: {}",
            reason(&error)
        ));
    }
    network
}

/// Makes a leased address permanent, for a node on which nobody is going to renew it.
///
/// # Errors
/// [`Error::System`]: the link or the address is not there any more, or this process may not.
pub fn keep(network: &Network) -> Result<(), Error> {
    let Network { link: Some(link), address: Some(address), lease: Some(_), .. } = network else {
        return Ok(());
    };
    Kernel::open()
        .and_then(|mut kernel| kernel.keep(link, *address))
        .map_err(Error::system("make the leased address permanent"))
}

/// Takes all links down, whoever has brought them up, as is wanted before a kexec: the next kernel's
/// driver finds the card at rest.
pub fn take_down(report: &Reporter) {
    let told = |name: &str, error: io::Error| {
        report.warning(format_args!("cannot set {name} down: {}", reason(&error)));
    };
    let seen = Kernel::open().and_then(|mut kernel| Ok((kernel.look()?, kernel)));
    let (seen, mut kernel) = match seen {
        Ok(seen) => seen,
        Err(error) => return told("the network", error),
    };
    for link in seen.links.iter().filter(|link| link.up && !link.loopback) {
        kernel.set_up(link.index, false).unwrap_or_else(|error| told(&link.name, error));
    }
}

/// Carries out what [`Setup`] says.
struct Executor<'a> {
    report: &'a Reporter,
    /// One for each link on which DHCP runs.
    sockets: BTreeMap<u32, PacketSocket>,
    sockets6: Sockets6,
    /// What was told of them last.
    told6: Option<String>,
    /// What the kernel is not to be told of, if it is not.
    own: Option<Vec<own::Config>>,
}

impl Executor<'_> {
    /// What may work later, or is not needed, is told and passed over.
    fn act(&mut self, kernel: &mut Kernel, action: Action) -> Result<(), Error> {
        let report = self.report;
        let told = |what: &str, done: io::Result<()>| {
            if let Err(error) = done {
                report.warning(format_args!("cannot {what}: {}", reason(&error)));
            }
        };
        match action {
            Action::MakeVlan { name, id, below } => {
                told(&format!("create VLAN {name}"), kernel.make_vlan(&name, id, below));
            }
            Action::SetMac { link, mac } => {
                let mac_text = links::mac_text(mac);
                told(&format!("set the hardware address {mac_text}"), kernel.set_mac(link, mac));
            }
            Action::AcceptAdvertisements { name } => accept_advertisements(&name),
            Action::Raise { link, name } => {
                report.info(format_args!("setting {name} up"));
                told(&format!("set {name} up"), kernel.set_up(link, true));
            }
            Action::Send { link, packet } => self.send(link, &packet)?,
            Action::Send6 { link, source, packet } => self.send6(link, source, &packet),
            Action::Program6 { link, name, lease } => {
                kernel.set_leased6(link, &lease).map_err(|error| {
                    let (address, why) = (lease.address, reason(&error));
                    Error::Boot(format!("cannot set the address {address} on {name}: {why}"))
                })?;
            }
            Action::Drop6 { link, address } => {
                told(&format!("remove the address {address}"), kernel.drop_leased6(link, address));
            }
            Action::Program { link, name, config } => {
                if let Some(own) = &mut self.own {
                    own.extend(config.own(&name));
                    return Ok(());
                }
                if let Some(mtu) = config.mtu {
                    told(&format!("set the MTU of {name} to {mtu}"), kernel.set_mtu(link, mtu));
                }
                if config.address.addr().is_ipv6() {
                    // The link may have IPv6 turned off.
                    accept_advertisements(&name);
                }
                kernel.set_address(link, &config).map_err(|error| {
                    let (address, why) = (config.address.addr(), reason(&error));
                    Error::Boot(format!("cannot set the address {address} on {name}: {why}"))
                })?;
                told(&format!("set all routes of {name}"), kernel.set_routes(link, &config));
            }
        }
        Ok(())
    }

    /// A link that is down again, or gone, is no error: its loss will be seen.
    fn send(&mut self, link: u32, packet: &[u8]) -> Result<(), Error> {
        let sent = match self.sockets.get(&link) {
            Some(socket) => socket.broadcast(packet),
            None => PacketSocket::open(link, DHCP_CLIENT_PORT)
                .and_then(|socket| self.sockets.entry(link).or_insert(socket).broadcast(packet)),
        };
        match sent {
            Err(error) if is_lasting(&error) => {
                Err(Error::System { action: "send DHCP packets", error })
            }
            Err(error) => {
                self.report.info(format_args!("cannot send DHCP packets: {}", reason(&error)));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// What does not go by itself is told once.
    fn send6(&mut self, link: u32, source: Ipv6Addr, packet: &[u8]) {
        let Err(error) = self.sockets6.send(link, source, packet) else { return };
        let text = format!("cannot send DHCPv6 packets: {}", reason(&error));
        if sockets6::is_passing(&error) || self.told6.as_ref() == Some(&text) {
            self.report.info(format_args!("{text}"));
        } else {
            self.report.warning(format_args!("{text}"));
            self.told6 = Some(text);
        }
    }

    fn wait(&self, changes: &Netlink, until: Instant) -> io::Result<()> {
        let sockets = self.sockets.values().map(|socket| PollFd::new(socket.as_fd(), true, false));
        let mut fds: Vec<PollFd> = sockets.collect();
        fds.extend(self.sockets6.all().map(|socket| PollFd::new(socket.as_fd(), true, false)));
        fds.push(PollFd::new(changes.as_fd(), true, false));
        poll::wait(&mut fds, Some(until.saturating_duration_since(Instant::now())))
    }

    fn receive(&self, setup: &mut Setup) {
        let mut buffer = [0; PACKET_BYTES];
        for (&link, socket) in &self.sockets {
            // Whatever else goes wrong with a link, the kernel tells of it.
            while let Ok((packet, checksum)) = socket.receive(&mut buffer) {
                setup.receive(link, packet, checksum, Instant::now());
            }
        }
        while let Some((link, from, message)) = self.sockets6.receive(&mut buffer) {
            setup.receive6(link, from, message, Instant::now());
        }
    }
}

/// Whether trying again cannot help.
fn is_lasting(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EAFNOSUPPORT))
}

/// Lets the kernel configure IPv6 on a link; one without IPv6 has no such files.
fn accept_advertisements(link: &str) {
    let often = ("router_solicitation_max_interval", SOLICIT_EVERY_S);
    for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "1"), ("autoconf", "1"), often] {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/{name}");
        // accept_ra may be 2, which is more.
        let is_less = |old: String| name != "accept_ra" || old.trim() == "0";
        if fs::read_to_string(&path).is_ok_and(is_less) {
            let _ = fs::write(&path, value);
        }
    }
}

fn network(found: &Found, wish: &NetworkWish, advertised: &Told) -> Network {
    let mut network = Network::default();
    network.servers.extend(wish.ips.iter().filter_map(|ip| ip.server));
    network.name_servers.extend(&wish.name_servers);
    network.name_servers.extend(wish.ips.iter().flat_map(|ip| &ip.name_servers));
    network.host_name = wish.ips.iter().find_map(|ip| ip.host_name.clone());
    let (link, address) = match found {
        Found::Present { link, address } => {
            network.named = lease_files::boot_hosts();
            network.servers.extend(lease_files::boot_servers());
            network.name_servers.extend(resolve::name_servers());
            network.name_servers.extend(lease_files::name_servers());
            (link, *address)
        }
        Found::Given { link, address } => (link, *address),
        Found::Advertised { link, address } => {
            network.name_servers.extend(&advertised.name_servers);
            network.named.extend(advertised.boot_server.clone());
            (link, *address)
        }
        Found::Leased6 { link, lease } => {
            network.name_servers.extend(&advertised.name_servers);
            network.named.extend(advertised.boot_server.clone());
            network.lease = lease.valid;
            (link, lease.address.into())
        }
        Found::Leased { link, lease } => {
            // Some servers name themselves as the next server to everybody.
            if lease.boot_servers.iter().all(|server| *server == lease.server) {
                let host = lease.boot_host.iter().cloned();
                network.named.extend(host.map(|host| HostPort { host, port: None }));
            }
            let servers = lease.boot_servers.iter().chain([&lease.server]);
            network.servers.extend(servers.map(|&server| IpAddr::V4(server)));
            network.name_servers.extend(&lease.name_servers);
            network.host_name = network.host_name.or_else(|| lease.host_name.clone());
            network.lease = lease.time;
            (link, lease.address.addr().into())
        }
    };
    network.link = Some(link.clone());
    network.address = Some(address);
    if wish.ips.iter().any(|ip| ip.server.is_some()) {
        network.named.clear();
    }
    without_repeats(&mut network.servers);
    without_repeats(&mut network.name_servers);
    network
}

/// A failure is no error, because boot servers are mostly known by address.
fn write_resolv_conf(servers: &[IpAddr], domains: &[String], report: &Reporter) {
    if let Err(error) = resolve::write_if_missing(servers, domains) {
        report.warning(format_args!("cannot write {RESOLV_CONF}: {}", reason(&error)));
    }
}

/// Gives the node its name, unless it has one (proc_sys_kernel(5)).
fn name_node(name: &str, report: &Reporter) {
    let has_none = |old: String| matches!(old.trim(), "" | "(none)" | "localhost");
    if name.len() > LONGEST_NODE_NAME || !fs::read_to_string(HOSTNAME).is_ok_and(has_none) {
        return;
    }
    if let Err(error) = fs::write(HOSTNAME, name) {
        report.warning(format_args!("cannot set the host name to {name}: {}", reason(&error)));
    }
}

fn domains<'a>(found: &'a Found, advertised: &'a Told) -> &'a [String] {
    match found {
        Found::Leased { lease: Lease { domains, .. }, .. } => domains,
        Found::Advertised { .. } | Found::Leased6 { .. } => &advertised.domains,
        Found::Present { .. } | Found::Given { .. } => &[],
    }
}

fn announce(found: &Found, network: &Network, report: &Reporter) {
    let whose = if network.own.is_some() { ", used by xget only" } else { "" };
    match found {
        Found::Present { link, address } => {
            report.notice(format_args!("{link} has the address {address}"));
        }
        Found::Given { link, address } => {
            report.notice(format_args!("{link} has the address {address}, set by ip={whose}"));
        }
        Found::Advertised { link, address } => {
            report.notice(format_args!("{link} has the address {address}, from an IPv6 router"));
        }
        Found::Leased6 { link, lease } => {
            let time = lease.valid.map(|time| format!(" for {} s", time.as_secs()));
            let (address, server, time) = (lease.address, lease.server, time.unwrap_or_default());
            report.notice(format_args!(
                "{link} has the address {address}, from the DHCPv6 server {server}{time}"
            ));
        }
        Found::Leased { link, lease } => {
            let time = match network.lease {
                Some(time) => format!(" for {} s", time.as_secs()),
                None => String::new(),
            };
            let (address, server) = (lease.address.addr(), lease.server);
            let text = format!("{link} has the address {address}, from the DHCP server {server}");
            report.notice(format_args!("{text}{time}{whose}"));
        }
    }
}

fn without_repeats(addresses: &mut Vec<IpAddr>) {
    let mut seen = HashSet::new();
    addresses.retain(|&address| seen.insert(address));
}
