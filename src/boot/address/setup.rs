//! What is to be done next for an address: what the kernel has, packets and `now` in, actions out.

mod v6;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::config::Config;
use super::dhcp::{Dhcp, Lease};
use super::dhcp6::{self, Told};
use super::identity::Identity;
use super::links::{Choice, Link, Snapshot};
use crate::boot::cmdline::{Ip, Method, Net, NetworkWish, StaticRoute, Vlan};
use crate::sys::packet::Checksum;
use v6::{Need, V6, Verdict};

/// How long the links that give nothing are waited for once a server is in a network that there is a route to; and
/// once the default route may lead there, which takes longer than spanning tree until it forwards: such a link may be
/// the one that is wanted.
const FOR_THE_REST: Duration = Duration::from_secs(5);
const FOR_THE_REST_BY_DEFAULT: Duration = Duration::from_secs(40);
/// What the kernel did not do is asked of it again after this time: a card's firmware may come late.
const AGAIN: Duration = Duration::from_secs(5);
/// How long DHCP still has, where IPv6 would do as well, when a router has given an address: only then is
/// the link known to carry packets, which spanning tree holds back for up to 50 s behind a carrier.
const BEFORE_IPV6: Duration = Duration::from_secs(10);
/// How long a cable takes to come to life: offers that name nothing to boot are not taken before, as
/// another link may be the right one.
const CARRIER_TIME: Duration = Duration::from_secs(5);
/// From then on a link without carrier is likely to stay so: spanning tree takes up to 50 s.
const LONG_WITHOUT_CARRIER: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a link of this name for one VLAN of another.
    MakeVlan { name: String, id: u16, below: u32 },
    /// Give a link, taken down first, another hardware address.
    SetMac { link: u32, mac: [u8; 6] },
    /// Let the kernel take IPv6 addresses from routers on the link.
    AcceptAdvertisements { name: String },
    /// Bring the link up.
    Raise { link: u32, name: String },
    /// Send an IPv4 packet to everybody on the link.
    Send { link: u32, packet: Vec<u8> },
    /// Set an address and what belongs to it.
    Program { link: u32, name: String, config: Config },
    /// Send a message to all DHCPv6 servers on the link, from its own address.
    Send6 { link: u32, source: Ipv6Addr, packet: Vec<u8> },
    /// Set what a DHCPv6 server has given.
    Program6 { link: u32, name: String, lease: dhcp6::Lease },
    /// Take such an address away.
    Drop6 { link: u32, address: Ipv6Addr },
}

/// Where the node's address came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The kernel had it, on that link.
    Present { link: String, address: IpAddr },
    /// `ip=` gave it.
    Given { link: String, address: IpAddr },
    /// A DHCP server did.
    Leased { link: String, lease: Lease },
    /// An IPv6 router did.
    Advertised { link: String, address: IpAddr },
    /// A DHCPv6 server did.
    Leased6 { link: String, lease: dhcp6::Lease },
}

/// One thing that there is none of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// "a ", "an " or nothing.
    pub(super) article: &'static str,
    pub(super) what: String,
}

/// The way to an address.
#[derive(Debug)]
pub(super) struct Setup {
    net: Net,
    choice: Choice,
    vlans: Vec<Vlan>,
    routes: Vec<StaticRoute>,
    dhcp: Dhcp,
    v6: V6,
    /// A server is known that IPv6 may reach; and one at all.
    by_ipv6: bool,
    names_server: bool,
    servers: Vec<IpAddr>,
    name_servers: Vec<IpAddr>,
    /// When what is there will do, as one of them can be reached.
    enough_at: Option<Instant>,
    warnings: Vec<String>,
    seen: Snapshot,
    began: Option<Instant>,
    /// Since when a router has given links an address.
    advertised_since: BTreeMap<u32, Instant>,
    /// When links were told to come up, and VLANs to be.
    raised: BTreeMap<u32, Instant>,
    vlans_made: BTreeMap<String, Instant>,
    macs_set: BTreeSet<u32>,
    advertisements_accepted: BTreeSet<u32>,
    /// The static `ip=` that have been set, by their number.
    given: BTreeMap<usize, (String, IpAddr)>,
    /// What a server has given, until it is set.
    leased: Option<(u32, Lease)>,
    /// The address that is not static.
    dynamic: Option<Found>,
    found: Option<Found>,
}

impl Setup {
    pub(super) fn new(wish: &NetworkWish, net: Net, seed: u64, identity: Identity) -> Setup {
        let mut choice = Choice::new(wish);
        // The own network is of IPv4 alone: IPv6 would be the kernel's.
        if net == Net::Own || !wish.by_ipv6 && wish.names_server {
            choice = choice.by_ipv4();
        }
        Setup {
            net,
            choice,
            vlans: wish.vlans.clone(),
            routes: wish.routes.clone(),
            dhcp: Dhcp::new(seed, identity),
            v6: V6::new(identity, seed),
            by_ipv6: wish.by_ipv6,
            names_server: wish.names_server,
            servers: wish.servers.clone(),
            name_servers: {
                let of_ips = wish.ips.iter().flat_map(|ip| &ip.name_servers);
                wish.name_servers.iter().chain(of_ips).copied().collect()
            },
            enough_at: None,
            warnings: Vec::new(),
            seen: Snapshot::default(),
            began: None,
            advertised_since: BTreeMap::new(),
            raised: BTreeMap::new(),
            vlans_made: BTreeMap::new(),
            macs_set: BTreeSet::new(),
            advertisements_accepted: BTreeSet::new(),
            given: BTreeMap::new(),
            leased: None,
            dynamic: None,
            found: None,
        }
    }

    /// Takes in what the kernel has now.
    pub(super) fn observe(&mut self, seen: Snapshot, now: Instant) {
        let is_first = self.began.is_none();
        self.began.get_or_insert(now);
        self.seen = seen;
        let advertised: BTreeSet<u32> = self.by_routers().map(|(link, _)| link.index).collect();
        self.advertised_since.retain(|link, _| advertised.contains(link));
        for link in advertised {
            self.advertised_since.entry(link).or_insert_with(|| {
                self.dhcp.hurry(link, now);
                now
            });
        }
        if self.found.is_none() {
            self.found = self.present(is_first);
        }
    }

    /// Takes in an IPv4 packet that came for a DHCP client.
    pub(super) fn receive(&mut self, link: u32, packet: &[u8], checksum: Checksum, now: Instant) {
        if let Some(lease) = self.dhcp.receive(link, packet, checksum, now) {
            self.leased.get_or_insert((link, lease));
        }
    }

    /// Takes in a message that came from a DHCPv6 server's port.
    pub(super) fn receive6(&mut self, link: u32, from: Ipv6Addr, message: &[u8], now: Instant) {
        self.v6.receive(link, from, message, now);
    }

    /// What is to be done, in this order. To be called after every [`Setup::observe`].
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.found.is_some() || self.only_waits() {
            return actions;
        }
        self.make_vlans(now, &mut actions);
        let mut ready = BTreeMap::new();
        for link in self.seen.links.clone() {
            let numbers = self.choice.of(&link);
            if !numbers.is_empty() || self.carries_vlan(&link) {
                self.prepare(&link, &numbers, now, &mut actions);
            }
            if link.carrier {
                self.set_given(&link, &numbers, &mut actions);
                let mac = link.mac.filter(|_| self.any(&numbers, by_dhcp));
                ready.extend(mac.map(|mac| (link.index, mac)));
            }
        }
        if self.dynamic.is_none() && self.leased.is_none() {
            self.dhcp.run_on(&ready, self.others_until(), now);
            let packets = self.dhcp.poll(now).into_iter();
            actions.extend(packets.map(|(link, packet)| Action::Send { link, packet }));
        }
        let links: Vec<&Link> = self.seen.links.iter().filter(|l| self.by_router(l)).collect();
        actions.extend(self.v6.poll(&self.seen, &links, now));
        self.conclude(now, &mut actions);
        actions
    }

    /// The address, once all that was asked for is there.
    pub(super) fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    /// What a DHCPv6 server has told besides the address, if that is of IPv6.
    pub(super) fn told(&self) -> Option<&Told> {
        let (Found::Advertised { link, .. } | Found::Leased6 { link, .. }) = self.found()? else {
            return None;
        };
        self.v6.told(self.seen.links.iter().find(|seen| seen.name == *link)?.index)
    }

    /// What the user should know of, each once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.dhcp.take_warnings());
        warnings.extend(self.v6.take_warnings());
        warnings
    }

    /// Whether packets are waited for on this link.
    pub(super) fn listens_on(&self, link: u32) -> bool {
        self.dhcp.runs_on(link)
    }

    /// The same of DHCPv6.
    pub(super) fn listens6_on(&self, link: u32) -> bool {
        self.v6.listens_on(link)
    }

    /// When [`Setup::poll`] has something to do if nothing happens.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let is_down = |index: u32| self.seen.link(index).is_some_and(|link| !link.up);
        let raised = self.raised.iter().filter(|(link, _)| is_down(**link)).map(|(_, &at)| at);
        let is_there = |name: &str| self.seen.links.iter().any(|link| link.name == name);
        let made = self.vlans_made.iter().filter(|(name, _)| !is_there(name)).map(|(_, &at)| at);
        let again = raised.chain(made).map(|at| at + AGAIN);
        let ipv6 = self.advertised_since.values().map(|&at| at + BEFORE_IPV6);
        let later = again.chain(ipv6).chain(self.enough_at).filter(|&at| at > now);
        let is_asking = self.dynamic.is_none() && self.leased.is_none();
        let asking = self.dhcp.next_wake().filter(|_| is_asking);
        later.chain(asking).chain(self.v6.next_wake(now)).min()
    }

    /// What there is none of yet.
    pub(super) fn missing(&self, now: Instant) -> Vec<Missing> {
        if self.only_waits() {
            let what = "address that the kernel or the initramfs sets".to_owned();
            return vec![Missing { article: "an ", what }];
        }
        let links = &self.seen.links;
        let absent = self.choice.absent(links, &self.vlans);
        let mut missing: Vec<Missing> =
            absent.into_iter().map(|what| Missing { article: "a ", what }).collect();
        let chosen: Vec<(&Link, Vec<usize>)> =
            links.iter().map(|link| (link, self.choice.of(link))).collect();
        let names = |counts: &dyn Fn(&Link, &[usize]) -> bool| {
            let counting = chosen.iter().filter(|(link, numbers)| counts(link, numbers));
            let names: Vec<&str> = counting.map(|(link, _)| link.name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let is_without = |link: &Link, numbers: &[usize]| {
            !link.carrier && (!numbers.is_empty() || self.carries_vlan(link))
        };
        if let Some(names) = names(&is_without) {
            let waited = self.began.map_or(Duration::ZERO, |began| now.duration_since(began));
            let any = chosen.iter().any(|(link, numbers)| link.carrier && !numbers.is_empty());
            let long = if waited >= LONG_WITHOUT_CARRIER && !any {
                format!(" for {} s: check the cable and the switch port", waited.as_secs())
            } else {
                String::new()
            };
            missing.push(Missing { article: "", what: format!("carrier on {names}{long}") });
        }
        for (link, _) in &chosen {
            if let Some(server) = self.dhcp.requested_from(link.index) {
                let what = format!("acknowledgement by the DHCP server {server} on {}", link.name);
                missing.push(Missing { article: "", what });
            }
        }
        let discovers = |link: &Link, _: &[usize]| {
            self.dhcp.runs_on(link.index) && self.dhcp.requested_from(link.index).is_none()
        };
        if let Some(names) = names(&discovers) {
            let asked = chosen.iter().map(|(link, _)| self.dhcp.asked(link.index)).max();
            let times = match asked.unwrap_or(0) {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            let what = format!("DHCP offer on {names} (asked {times})");
            missing.push(Missing { article: "a ", what });
        }
        // Where nobody has said that there is any IPv6, that is nothing to tell of.
        let counts = |link: &&Link| self.by_router(link) && (self.wants_v6() || link.router.heard);
        let links: Vec<&Link> = links.iter().filter(counts).collect();
        missing.extend(self.v6.missing(&links));
        if missing.is_empty() {
            let what = "address: ip= asks for a static one but does not contain it".to_owned();
            missing.push(Missing { article: "an ", what });
        }
        missing
    }

    /// Until when links that are to be asked on, and have no carrier yet, are likely to get it.
    fn others_until(&self) -> Option<Instant> {
        let is_late =
            |link: &&Link| link.up && !link.carrier && self.any(&self.choice.of(link), by_dhcp);
        let late = self.seen.links.iter().filter(is_late);
        let raised = late.filter_map(|link| self.raised.get(&link.index).or(self.began.as_ref()));
        raised.max().map(|&at| at + CARRIER_TIME)
    }

    /// Others bring the network up.
    fn only_waits(&self) -> bool {
        let is_off = |ip: &Ip| ip.method == Method::Off;
        self.net == Net::Kernel || self.choice.ips().iter().all(is_off)
    }

    /// An address that others have set. One of IPv6 may be there since any link is up, and then
    /// comes before IPv4's: it counts only if it was there before.
    fn present(&self, is_first: bool) -> Option<Found> {
        if self.net == Net::Own || self.dynamic.is_some() || !self.given.is_empty() {
            return None;
        }
        let ips = self.choice.ips();
        let ipv6_will_do = self.only_waits()
            || is_first
                && ips.iter().any(|ip| {
                    by_router(ip) && self.wants_v6()
                        || ip.address.is_some_and(|a| a.addr().is_ipv6())
                });
        let mut servers = ips.iter().filter_map(|ip| ip.server);
        if !servers.all(|server| self.seen.reaches(server)) {
            return None;
        }
        let usable = self.seen.usable();
        let mut counting = usable.iter().filter(|(_, ip)| ip.is_ipv4() || ipv6_will_do);
        let (link, address) = counting.next()?;
        Some(Found::Present { link: link.name.clone(), address: *address })
    }

    fn carries_vlan(&self, link: &Link) -> bool {
        self.vlans.iter().any(|vlan| self.choice.is_called(link, &vlan.link))
    }

    fn any(&self, numbers: &[usize], test: fn(&Ip) -> bool) -> bool {
        numbers.iter().filter_map(|&number| self.choice.ips().get(number)).any(test)
    }

    fn make_vlans(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for vlan in &self.vlans {
            let is_there = self.seen.links.iter().any(|link| link.name == vlan.name);
            let below = self.seen.links.iter().find(|l| self.choice.is_called(l, &vlan.link));
            let Some(below) = below.filter(|_| !is_there) else { continue };
            if is_due(self.vlans_made.get(&vlan.name), now) {
                self.vlans_made.insert(vlan.name.clone(), now);
                let (name, id) = (vlan.name.clone(), vlan.id);
                actions.push(Action::MakeVlan { name, id, below: below.index });
            }
        }
    }

    /// Makes a link ready to carry packets.
    fn prepare(&mut self, link: &Link, ips: &[usize], now: Instant, actions: &mut Vec<Action>) {
        let index = link.index;
        let mac = ips.iter().find_map(|&number| self.choice.ips().get(number)?.mac);
        let mac = mac.filter(|&mac| link.mac != Some(mac) && self.macs_set.insert(index));
        actions.extend(mac.map(|mac| Action::SetMac { link: index, mac }));
        if self.any(ips, by_router) && self.advertisements_accepted.insert(index) {
            actions.push(Action::AcceptAdvertisements { name: link.name.clone() });
        }
        if mac.is_some() || !link.up && is_due(self.raised.get(&index), now) {
            self.raised.insert(index, now);
            actions.push(Action::Raise { link: index, name: link.name.clone() });
        }
    }

    /// Sets the static addresses that are for a link, if no other link has got them.
    fn set_given(&mut self, link: &Link, ips: &[usize], actions: &mut Vec<Action>) {
        for &number in ips {
            let ip = self.choice.ips().get(number).filter(|ip| ip.method == Method::Static);
            let Some(mut config) = ip.and_then(Config::given) else { continue };
            if self.given.contains_key(&number) {
                continue;
            }
            self.add_routes(link, &mut config);
            let name = link.name.clone();
            self.given.insert(number, (name.clone(), config.address.addr()));
            actions.push(Action::Program { link: link.index, name, config });
        }
    }

    /// The routes of the command line that belong to a link.
    fn add_routes(&self, link: &Link, config: &mut Config) {
        let of_it = |route: &&StaticRoute| {
            route.link.as_deref().is_none_or(|name| self.choice.is_called(link, name))
        };
        for route in self.routes.iter().filter(of_it) {
            config.add_route(route);
        }
    }

    /// How long the rest is waited for; None as long as no server can be reached.
    fn time_for_the_rest(&self) -> Option<Duration> {
        let lease = match &self.dynamic {
            Some(Found::Leased { lease, .. }) => Some(lease),
            _ => None,
        };
        let told = lease.filter(|_| !self.names_server).map_or(&[][..], |l| &l.boot_servers[..]);
        let servers = self.servers.iter().copied().chain(told.iter().map(|&ip| IpAddr::V4(ip)));
        let nearest = servers.filter_map(|ip| self.seen.route_to(ip)).map(|r| r.prefix_len()).max();
        // The address of a server that has a name is not known, but who knows it.
        let is_named = self.names_server && self.servers.is_empty();
        let by_lease = lease.map_or(&[][..], |lease| &lease.name_servers[..]);
        let mut name_servers = self.name_servers.iter().chain(by_lease);
        match nearest {
            Some(1..) => Some(FOR_THE_REST),
            Some(0) => Some(FOR_THE_REST_BY_DEFAULT),
            None if is_named && name_servers.any(|&ip| self.seen.reaches(ip)) => {
                Some(FOR_THE_REST_BY_DEFAULT)
            }
            None => None,
        }
    }

    /// Whether what is there will do: a server can be reached, and the rest has had its time.
    fn is_enough(&mut self, now: Instant) -> bool {
        let is_any = self.dynamic.is_some() || !self.given.is_empty();
        let Some(wait) = self.time_for_the_rest().filter(|_| is_any) else {
            self.enough_at = None;
            return false;
        };
        let at = self.enough_at.map_or(now + wait, |at| at.min(now + wait));
        self.enough_at = Some(at);
        if now < at {
            return false;
        }
        let missing = self.missing(now).into_iter();
        let missing: Vec<String> = missing.map(|m| format!("{}{}", m.article, m.what)).collect();
        self.warnings.push(format!(
            "going on without what is still missing, as a server can be reached: {}",
            missing.join("; ")
        ));
        true
    }

    /// Sees whether all that was asked for is there.
    fn conclude(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.dynamic.is_none() {
            self.dynamic = self.set_leased(actions).or_else(|| self.advertised(now));
        }
        let ips = || self.choice.ips().iter().enumerate();
        let all_given = ips()
            .filter(|(_, ip)| ip.method == Method::Static && ip.address.is_some())
            .all(|(number, _)| self.given.contains_key(&number));
        let wants_more = ips().any(|(_, ip)| by_dhcp(ip) || by_router(ip));
        if (!all_given || wants_more && self.dynamic.is_none()) && !self.is_enough(now) {
            return;
        }
        let first_given = self.given.values().next().cloned();
        let given = || first_given.map(|(link, address)| Found::Given { link, address });
        self.found = self.dynamic.clone().or_else(given);
    }

    fn set_leased(&mut self, actions: &mut Vec<Action>) -> Option<Found> {
        let (index, lease) = self.leased.take()?;
        let link = self.seen.link(index)?;
        let numbers = self.choice.of(link);
        let mut ips = numbers.iter().filter_map(|&number| self.choice.ips().get(number));
        let mut config = Config::leased(&lease, ips.find(|ip| by_dhcp(ip)));
        self.add_routes(link, &mut config);
        actions.push(Action::Program { link: index, name: link.name.clone(), config });
        Some(Found::Leased { link: link.name.clone(), lease })
    }

    /// An address that the kernel has from a router. Where IPv4 would do as well, that has a while
    /// for itself.
    fn advertised(&mut self, now: Instant) -> Option<Found> {
        let counts = |link: &Link| {
            let numbers = self.choice.of(link);
            let ipv4_had_its_time = || {
                let since = self.advertised_since.get(&link.index);
                !self.dhcp.is_requesting() && since.is_some_and(|&at| now >= at + BEFORE_IPV6)
            };
            // As with DHCPv4, whoever says what to boot is the cluster's own server.
            let names = || self.v6.told(link.index).is_some_and(|told| told.boot_server.is_some());
            let is_alone = !self.any(&numbers, by_dhcp);
            self.any(&numbers, by_router) && (is_alone || names() || ipv4_had_its_time())
        };
        let found =
            self.by_routers().filter(|(link, _)| counts(link)).find_map(|(link, address)| {
                let name = link.name.clone();
                match self.v6.verdict(link, address, self.needs_named(), now) {
                    Verdict::Wait => None,
                    Verdict::Advertised => {
                        Some((link.index, Found::Advertised { link: name, address }))
                    }
                    Verdict::Leased(lease) => {
                        Some((link.index, Found::Leased6 { link: name, lease }))
                    }
                }
            });
        let (link, found) = found?;
        if matches!(found, Found::Advertised { .. }) {
            self.v6.go_on_without(link);
        }
        Some(found)
    }

    /// Whether IPv6 may lead to a server, as far as is known: one that it may reach, or none at all where it is asked for.
    /// Else a DHCPv6 server has to name one.
    fn wants_v6(&self) -> bool {
        self.by_ipv6 || self.choice.ips().iter().any(|ip| ip.method == Method::V6)
    }

    /// What a DHCPv6 server is needed for besides an address.
    fn needs_named(&self) -> Need {
        match (self.wants_v6(), self.names_server) {
            (false, _) => Need::BootServer,
            (true, false) => Need::Answer,
            (true, true) => Need::Nothing,
        }
    }

    /// Whether a link is to have an address from a router, and could.
    fn by_router(&self, link: &Link) -> bool {
        link.carrier && self.any(&self.choice.of(link), by_router)
    }

    /// The usable IPv6 addresses that `ip=` has not given.
    fn by_routers(&self) -> impl Iterator<Item = (&Link, IpAddr)> {
        let is_given = |ip| self.given.values().any(|(_, given)| *given == ip);
        self.seen.usable().into_iter().filter(move |(_, ip)| ip.is_ipv6() && !is_given(*ip))
    }
}

fn by_dhcp(ip: &Ip) -> bool {
    matches!(ip.method, Method::Dhcp | Method::Either)
}

fn by_router(ip: &Ip) -> bool {
    matches!(ip.method, Method::V6 | Method::Either)
}

/// Whether what was done then, if ever, is to be done again.
fn is_due(done: Option<&Instant>, now: Instant) -> bool {
    done.is_none_or(|&done| now >= done + AGAIN)
}

#[cfg(test)]
mod tests;
