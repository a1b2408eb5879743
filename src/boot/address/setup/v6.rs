//! IPv6 beyond what the kernel does by itself: it takes addresses from routers, and tells what they say of DHCPv6.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::super::dhcp6::{Dhcp6, Lease, Outcome, Place, Told, Wanted};
use super::super::identity::Identity;
use super::super::links::{Address, Link, Snapshot};
use super::{Action, Missing};

/// How long a DHCPv6 server has for an address where a router has given one as well, and for the rest: servers that are
/// asked through a relay take a while, and there are three questions in it.
const ADDRESS_TIME: Duration = Duration::from_secs(10);
const INFORMATION_TIME: Duration = Duration::from_secs(5);

/// DHCPv6, and what it has given.
#[derive(Debug)]
pub(super) struct V6 {
    dhcp: Dhcp6,
    /// The links on which it runs, since when, and what came of it.
    links: Vec<Asked>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Asked {
    place: Place,
    since: Instant,
    lease: Option<Lease>,
    /// The kernel has been told of the lease.
    is_set: bool,
    told: Option<Told>,
    /// It was told that nobody answers.
    warned: bool,
}

/// Whether an address of a link that the kernel has from a router, or that a server has given, is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something is to come yet.
    Wait,
    /// It is from a router.
    Advertised,
    /// It is this lease's.
    Leased(Lease),
}

/// What only a DHCPv6 server can give where the router gives an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it is known whom to boot from.
    Nothing,
    /// It is not known, so that its answer is waited for where the router says that there is one.
    Answer,
    /// The same, and IPv6 does not count without.
    BootServer,
}

impl V6 {
    pub(super) fn new(identity: Identity, seed: u64) -> V6 {
        V6 { dhcp: Dhcp6::new(identity, seed), links: Vec::new(), warnings: Vec::new() }
    }

    /// Asks on these links, whose routers say that it is worth it.
    pub(super) fn poll(&mut self, seen: &Snapshot, links: &[&Link], now: Instant) -> Vec<Action> {
        let places: Vec<Place> = links.iter().filter_map(|link| place(seen, link)).collect();
        self.links.retain(|asked| places.contains(&asked.place));
        for place in &places {
            if self.of(place.link).is_some() {
                continue;
            }
            self.links.push(Asked {
                place: place.clone(),
                since: now,
                lease: None,
                is_set: false,
                told: None,
                warned: false,
            });
        }
        self.dhcp.run_on(&places, now);
        let mut actions = self.set_and_give_back(seen, now);
        for (link, packet) in self.dhcp.poll(now) {
            let source = self.dhcp.source(link);
            actions.extend(source.map(|source| Action::Send6 { link, source, packet }));
        }
        actions
    }

    /// Takes in a message that came from a server's port.
    pub(super) fn receive(&mut self, link: u32, from: Ipv6Addr, message: &[u8], now: Instant) {
        let outcome = self.dhcp.receive(link, from, message, now);
        let Some(asked) = self.of_mut(link) else { return };
        match outcome {
            Some(Outcome::Lease(lease)) => {
                asked.told = Some(lease.told.clone());
                (asked.lease, asked.is_set) = (Some(lease), false);
            }
            Some(Outcome::Information(told)) => asked.told = Some(told),
            None => {}
        }
    }

    /// Where packets are waited for, of that link.
    pub(super) fn listens_on(&self, link: u32) -> bool {
        self.dhcp.source(link).is_some()
    }

    /// What a server has told on that link.
    pub(super) fn told(&self, link: u32) -> Option<&Told> {
        self.of(link)?.told.as_ref()
    }

    /// Whether the link's address is the one that counts.
    pub(super) fn verdict(
        &self,
        link: &Link,
        address: IpAddr,
        need: Need,
        now: Instant,
    ) -> Verdict {
        let asked = self.of(link.index);
        let names = asked.and_then(|asked| asked.told.as_ref()?.boot_server.as_ref()).is_some();
        if need == Need::BootServer && !names {
            return Verdict::Wait;
        }
        let lease = asked.and_then(|asked| asked.lease.as_ref());
        match (lease, asked) {
            (Some(lease), _) if IpAddr::from(lease.address) == address => {
                Verdict::Leased(lease.clone())
            }
            // It is about to be usable.
            (Some(_), _) => Verdict::Wait,
            (None, Some(asked)) if asked.told.is_some() => Verdict::Advertised,
            (None, Some(_)) if need == Need::Answer => Verdict::Wait,
            (None, Some(asked)) if now < asked.until() => Verdict::Wait,
            (None, Some(_)) => Verdict::Advertised,
            // The router says so, and the link's own address is being tried.
            (None, None) if link.router.managed || link.router.other => Verdict::Wait,
            (None, None) => Verdict::Advertised,
        }
    }

    /// Tells once that an address is used without what the router has promised.
    pub(super) fn go_on_without(&mut self, link: u32) {
        let Some(asked) = self.of_mut(link) else { return };
        if asked.told.is_some() || std::mem::replace(&mut asked.warned, true) {
            return;
        }
        let (name, flag) = (asked.place.name.clone(), asked.place.flag());
        self.warnings.push(format!(
            "the router on {name} says DHCPv6 ({flag}) and no server answers: going on with the \
             address from the router"
        ));
    }

    /// What the user should know of, each once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        let mut all = self.dhcp.take_warnings();
        all.append(&mut self.warnings);
        all
    }

    /// When something is to be done if nothing happens.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let untold = self.links.iter().filter(|asked| asked.told.is_none());
        let later = untold.map(Asked::until).filter(|&at| at > now);
        later.chain(self.dhcp.next_wake()).min()
    }

    /// What there is none of yet on these links, which are to have an address by a router's word.
    pub(super) fn missing(&self, links: &[&Link]) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut add = |article, what| missing.push(Missing { article, what });
        let names = |test: &dyn Fn(&Link) -> bool| {
            let names: Vec<&str> =
                links.iter().filter(|l| test(l)).map(|l| l.name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(names) = names(&|link| !link.router.heard) {
            add("a ", format!("router advertisement on {names}"));
        }
        let by_itself =
            |link: &Link| link.router.heard && !link.router.managed && !link.router.other;
        if let Some(names) = names(&by_itself) {
            add("an ", format!("address from an IPv6 router on {names}"));
        }
        for link in links.iter().filter(|link| link.router.managed || link.router.other) {
            missing.extend(self.missing_on(link));
        }
        missing
    }

    /// The same on a link whose router says DHCPv6.
    fn missing_on(&self, link: &Link) -> Option<Missing> {
        let name = &link.name;
        let missing = |article, what| Some(Missing { article, what });
        let Some(asked) = self.of(link.index) else {
            let what = format!("link-local address on {name}, with which to ask for DHCPv6");
            return missing("a ", what);
        };
        if let Some(lease) = &asked.lease {
            let address = lease.address;
            let what = format!("word from the kernel whether another host on {name} has {address}");
            return missing("", what);
        }
        if asked.told.is_some() {
            return None;
        }
        if let Some(server) = self.dhcp.requested_from(link.index) {
            return missing("a ", format!("reply of the DHCPv6 server {server} on {name}"));
        }
        let times = match self.dhcp.asked(link.index) {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        let flag = asked.place.flag();
        let what = format!(
            "DHCPv6 server on {name}, where the router says DHCPv6 ({flag}; asked {times})"
        );
        missing("a ", what)
    }

    fn of(&self, link: u32) -> Option<&Asked> {
        self.links.iter().find(|asked| asked.place.link == link)
    }

    fn of_mut(&mut self, link: u32) -> Option<&mut Asked> {
        self.links.iter_mut().find(|asked| asked.place.link == link)
    }

    /// Sets what was given, and gives back what somebody else was found to have.
    fn set_and_give_back(&mut self, seen: &Snapshot, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for asked in &mut self.links {
            let link = asked.place.link;
            let Some(lease) = asked.lease.clone() else { continue };
            let name = asked.place.name.clone();
            let (address, server) = (lease.address, lease.server);
            let is_duplicate = seen.duplicates.contains(&(link, address));
            let is_there = |a: &Address| a.link == link && a.ip.addr() == address;
            if !std::mem::replace(&mut asked.is_set, true) {
                actions.push(Action::Program6 { link, name, lease });
            } else if is_duplicate || !seen.addresses.iter().any(is_there) {
                // The kernel keeps such an address only if it is for ever.
                actions.extend(is_duplicate.then_some(Action::Drop6 { link, address }));
                self.warnings.push(format!(
                    "another host on {name} has the address {address}, which the DHCPv6 server \
                     {server} has given: given back"
                ));
                self.dhcp.decline(link, &lease, now);
                (asked.lease, asked.told, asked.since) = (None, None, now);
            }
        }
        actions
    }
}

impl Asked {
    /// How long it is worth waiting if the kernel has an address.
    fn until(&self) -> Instant {
        self.since
            + match self.place.wanted {
                Wanted::Address => ADDRESS_TIME,
                Wanted::Information => INFORMATION_TIME,
            }
    }
}

impl Place {
    fn flag(&self) -> &'static str {
        match self.wanted {
            Wanted::Address => "M flag",
            Wanted::Information => "O flag",
        }
    }
}

/// Where DHCPv6 can run on a link, if its router says that it is worth it.
fn place(seen: &Snapshot, link: &Link) -> Option<Place> {
    let wanted = match (link.router.managed, link.router.other) {
        (true, _) => Wanted::Address,
        (false, true) => Wanted::Information,
        (false, false) => return None,
    };
    let source = seen.link_locals.iter().find(|(index, _)| *index == link.index)?.1;
    Some(Place { link: link.index, name: link.name.clone(), mac: link.mac, source, wanted })
}

#[cfg(test)]
mod tests;
