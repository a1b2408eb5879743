//! DHCPv4 on several links at once (RFC 2131, section 4.4): who is asked when, and which offer is
//! taken. Packets and `now` in, packets out.

mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::identity::Identity;
use crate::limits::MAX_DHCP_WARNINGS;
use crate::sys::packet::Checksum;

use message::{Asker, Reply, message_in};
pub(super) use message::{Lease, is_name, search_list};

/// The first wait for an answer and all others, each 1 s longer or shorter by chance. RFC 2131, section 4.1, has them
/// grow to 64 s; but a switch port with spanning tree forwards after 30 s or more, and whoever asked just before that would
/// wait as long again. Ten thousand nodes that nobody answers ask 1,400 times a second together.
const FIRST_WAIT: Duration = Duration::from_secs(4);
const WAIT: Duration = Duration::from_secs(7);
const JITTER: Duration = Duration::from_secs(1);
/// How often an offer is asked for before it is given up.
const REQUESTS: usize = 3;
/// How long an offer waits for a better one.
const BETTER_OFFER: Duration = Duration::from_secs(1);
/// How soon it begins again after a server has taken back its offer.
const AFTER_NAK: Duration = Duration::from_secs(1);

/// The clients, one a link.
#[derive(Debug)]
pub(super) struct Dhcp {
    seed: u64,
    identity: Identity,
    clients: BTreeMap<u32, Client>,
    /// When one of the offers is taken.
    choose_at: Option<Instant>,
    /// Until then other links may come, with better offers.
    others_until: Option<Instant>,
    /// What the user should know of, and has been told.
    warnings: Vec<String>,
    told: BTreeSet<String>,
}

#[derive(Debug)]
struct Client {
    asker: Asker,
    began: Instant,
    /// What the last DHCPDISCOVER said of the time since then.
    secs: u16,
    state: State,
    /// When it speaks again if it hears nothing.
    next: Instant,
    asked: usize,
    /// It says nothing of what it is: a server may answer nobody that boots from the network.
    plain: bool,
    /// Whom to boot from, by a server that gives no addresses.
    proxy: Option<Ipv4Addr>,
}

#[derive(Debug)]
enum State {
    /// Asks all servers; the best offer waits to be taken.
    Discovering { tries: usize, offer: Option<Lease> },
    /// Has taken an offer. At most one client is here.
    Requesting { tries: usize, offer: Lease },
}

impl Dhcp {
    pub(super) fn new(seed: u64, identity: Identity) -> Dhcp {
        Dhcp {
            seed,
            identity,
            clients: BTreeMap::new(),
            choose_at: None,
            others_until: None,
            warnings: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    /// What the user should know of, each once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn warn(&mut self, text: String) {
        if self.told.len() < MAX_DHCP_WARNINGS && self.told.insert(text.clone()) {
            self.warnings.push(text);
        }
    }

    /// Runs on these links, which have carrier, and on no others. On a new one it asks at once. More
    /// links may come until then.
    pub(super) fn run_on(
        &mut self,
        links: &BTreeMap<u32, [u8; 6]>,
        others_until: Option<Instant>,
        now: Instant,
    ) {
        self.others_until = others_until;
        self.clients.retain(|link, client| links.get(link) == Some(&client.asker.mac));
        for (&link, &mac) in links {
            // Without randomness early in the boot the seed may be that of other nodes, too.
            let xid = random((self.seed, mac, link)) as u32;
            let client = Client {
                asker: Asker { mac, xid, identity: self.identity },
                began: now,
                secs: 0,
                state: State::Discovering { tries: 0, offer: None },
                next: now,
                asked: 0,
                plain: false,
                proxy: None,
            };
            self.clients.entry(link).or_insert(client);
        }
    }

    /// Asks again soon on a link that has turned out to carry packets, if nobody has offered anything and
    /// the next question is far away.
    pub(super) fn hurry(&mut self, link: u32, now: Instant) {
        if let Some(client) = self.clients.get_mut(&link)
            && let State::Discovering { tries: tries @ 2.., offer: None } = &mut client.state
        {
            *tries = 0;
            // Other nodes see the same at the same time.
            let spread = Duration::from_millis(random((self.seed, client.asker.mac)) % 1000);
            client.next = client.next.min(now + spread);
        }
    }

    pub(super) fn runs_on(&self, link: u32) -> bool {
        self.clients.contains_key(&link)
    }

    /// How often somebody was asked on that link.
    pub(super) fn asked(&self, link: u32) -> usize {
        self.clients.get(&link).map_or(0, |client| client.asked)
    }

    /// Takes in an IPv4 packet. Returns the lease, if it is the one that was waited for.
    pub(super) fn receive(
        &mut self,
        link: u32,
        packet: &[u8],
        checksum: Checksum,
        now: Instant,
    ) -> Option<Lease> {
        let others_until = self.others_until.filter(|&at| at > now);
        let is_alone = self.clients.len() == 1 && others_until.is_none();
        let client = self.clients.get_mut(&link)?;
        let (message, from) = message_in(packet, checksum)?;
        match (client.asker.read(message, from)?, &mut client.state) {
            (Reply::Offer(new), State::Discovering { offer, .. }) => {
                let at = match goodness(&new) {
                    Goodness::NamesFile => now,
                    Goodness::NamesServer if is_alone => now,
                    _ => (now + BETTER_OFFER).max(others_until.unwrap_or(now)),
                };
                self.choose_at = Some(self.choose_at.map_or(at, |before| before.min(at)));
                if offer.as_ref().is_none_or(|old| goodness(&new) > goodness(old)) {
                    *offer = Some(new);
                }
                None
            }
            (Reply::Proxy(server), _) => {
                client.proxy = Some(server);
                None
            }
            (Reply::Ack(mut lease), State::Requesting { offer, .. }) if is_for(&lease, offer) => {
                // Some servers name themselves as the next server to everybody.
                let names_other = lease.boot_servers.iter().any(|server| *server != lease.server);
                if let Some(proxy) = client.proxy.filter(|_| !names_other)
                    && lease.boot_host.is_none()
                {
                    lease.boot_servers.insert(0, proxy);
                }
                for what in &lease.garbled {
                    self.warn(format!(
                        "the DHCP server {} gives a garbled {what}, which is not used",
                        lease.server
                    ));
                }
                Some(lease)
            }
            (Reply::Nak(server), State::Requesting { offer, .. })
                if server.is_none_or(|server| server == offer.server || !offer.names_itself) =>
            {
                let (server, address) = (offer.server, offer.address.addr());
                client.state = State::Discovering { tries: 0, offer: None };
                client.next = now + AFTER_NAK;
                self.warn(format!(
                    "the DHCP server {server} has taken back its offer of {address}"
                ));
                None
            }
            (Reply::Unusable(server, why), _) => {
                self.warn(format!("an answer of the DHCP server {server} cannot be used: {why}"));
                None
            }
            _ => None,
        }
    }

    /// The packets that are due, each with its link.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<(u32, Vec<u8>)> {
        self.choose(now);
        let seed = self.seed;
        let due = self.clients.iter_mut().filter(|(_, client)| client.next <= now);
        due.map(|(&link, client)| (link, client.speak(seed, now))).collect()
    }

    /// When [`Dhcp::poll`] has something to do if nothing comes in.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let choose_at = self.choose_at.filter(|_| !self.is_requesting());
        self.clients.values().map(|client| client.next).chain(choose_at).min()
    }

    /// The server whose offer has been taken, and waits for its word.
    pub(super) fn requested_from(&self, link: u32) -> Option<Ipv4Addr> {
        match &self.clients.get(&link)?.state {
            State::Requesting { offer, .. } => Some(offer.server),
            State::Discovering { .. } => None,
        }
    }

    pub(super) fn is_requesting(&self) -> bool {
        self.clients.values().any(|client| matches!(client.state, State::Requesting { .. }))
    }

    /// Takes the best offer, if it is time and none is taken yet.
    fn choose(&mut self, now: Instant) {
        if self.is_requesting() || self.choose_at.is_none_or(|at| now < at) {
            return;
        }
        let offered = self.clients.values_mut().filter_map(|client| match &mut client.state {
            State::Discovering { offer, .. } => {
                let good = goodness(offer.as_ref()?);
                Some((good, client))
            }
            State::Requesting { .. } => None,
        });
        // Of equals the first link's.
        let best = offered.min_by_key(|(good, _)| std::cmp::Reverse(*good));
        let Some((_, client)) = best else {
            self.choose_at = None;
            return;
        };
        if let State::Discovering { offer, .. } = &mut client.state
            && let Some(offer) = offer.take()
        {
            client.state = State::Requesting { tries: 0, offer };
            client.next = now;
        }
        // The others stay for the case that this one is taken back.
        let waits =
            |client: &Client| matches!(client.state, State::Discovering { offer: Some(_), .. });
        self.choose_at = self.clients.values().any(waits).then_some(now);
    }
}

impl Client {
    /// The packet that is due, and when the next one will be.
    fn speak(&mut self, seed: u64, now: Instant) -> Vec<u8> {
        if matches!(self.state, State::Requesting { tries, .. } if tries >= REQUESTS) {
            self.state = State::Discovering { tries: 0, offer: None };
        }
        self.asked += 1;
        let spread = random((seed, self.asker.mac, self.asker.xid, self.asked));
        if let State::Discovering { tries, .. } = self.state {
            self.plain = tries >= 2 && tries % 2 == 0;
        }
        let identity = if self.plain { Identity::default() } else { self.asker.identity };
        let asker = Asker { identity, ..self.asker };
        let (packet, tries) = match &mut self.state {
            State::Discovering { tries, .. } => {
                let secs = now.duration_since(self.began).as_secs();
                self.secs = u16::try_from(secs).unwrap_or(u16::MAX);
                (asker.discover(self.secs), tries)
            }
            State::Requesting { tries, offer } => (asker.request(self.secs, offer), tries),
        };
        self.next = now + wait(*tries, spread);
        *tries += 1;
        packet
    }
}

/// Whether it is the answer to a request for that offer. A server that does not name itself is known by what it
/// gives.
fn is_for(lease: &Lease, offer: &Lease) -> bool {
    match lease.names_itself && offer.names_itself {
        true => lease.server == offer.server,
        false => lease.address.addr() == offer.address.addr(),
    }
}

/// How much an offer looks like that of the cluster's own server, the better the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Goodness {
    /// It gives an address.
    Plain,
    /// It says whom to boot from; dnsmasq names itself to everybody.
    NamesServer,
    /// It says what to boot as well.
    NamesFile,
}

fn goodness(offer: &Lease) -> Goodness {
    let names_server = !offer.boot_servers.is_empty() || offer.boot_host.is_some();
    match (offer.names_file, names_server) {
        (true, _) => Goodness::NamesFile,
        (false, true) => Goodness::NamesServer,
        (false, false) => Goodness::Plain,
    }
}

/// How long to wait for an answer after `tries` waits before.
fn wait(tries: usize, random: u64) -> Duration {
    let wait = if tries == 0 { FIRST_WAIT } else { WAIT };
    let millis = u64::try_from(JITTER.as_millis()).unwrap_or(1);
    wait - JITTER + Duration::from_millis(random % (2 * millis))
}

/// The same for the same cause, but with no pattern.
fn random(cause: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    cause.hash(&mut hasher);
    hasher.finish()
}

/// A packet that the link got, whatever it is, to a client that has asked.
#[cfg(fuzzing)]
pub fn fuzz_dhcp(bytes: &[u8]) {
    let identity = Identity { uuid: None, architecture: Some(7) };
    let asker = message::Asker { mac: [2, 0, 0, 0, 0, 1], xid: 0x7fff_0001, identity };
    // As a message too, since most of what a fuzzer makes is no packet.
    let whole = (bytes, Ipv4Addr::UNSPECIFIED);
    for (message, from) in [message_in(bytes, Checksum::Exempt), Some(whole)].into_iter().flatten()
    {
        let read = asker.read(message, from);
        let Some(Reply::Offer(lease) | Reply::Ack(lease)) = read else { continue };
        let names = lease.host_name.iter().chain(&lease.domains).chain(&lease.boot_host);
        assert!(names.flat_map(|name| name.bytes()).all(|byte| byte.is_ascii_graphic()));
    }
}
