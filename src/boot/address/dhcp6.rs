//! DHCPv6 on several links at once (RFC 8415, section 18.2): who is asked when, and which offer is taken. Packets and
//! `now` in, packets out.
//!
//! There is no renewal, as with DHCPv4: the resident process would have to know when somebody else has taken over.

mod message;
#[cfg(test)]
mod tests;

use crate::boot::address::identity::Identity;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use crate::limits::MAX_DHCP_WARNINGS;
use message::{ADVERTISE, Answer, Asker, REPLY, Refusal};
pub(super) use message::{Lease, Told};

/// The first wait for an answer (`SOL_TIMEOUT`, `REQ_TIMEOUT`, `INF_TIMEOUT`, `DEC_TIMEOUT` of RFC 8415, section 7.6), and
/// the longest. There it is an hour; but a switch port with spanning tree forwards after 30 s or more, and whoever asked
/// just before that would wait as long again. DHCPv4 asks as often here.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(7);
/// Before the first question (`SOL_MAX_DELAY`): a router's word reaches all nodes at the same time.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// How often an offer is asked for before it is given up, and an address given back.
const REQUESTS: usize = 5;
const DECLINES: usize = 4;
/// A server that wants to be taken at once says so (RFC 8415, section 18.2.1).
const AT_ONCE: u8 = 255;

/// What a link is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// An address and the rest (the router's M flag).
    Address,
    /// What there is besides addresses (its O flag).
    Information,
}

/// A link on which it can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) link: u32,
    pub(super) name: String,
    /// Of an Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    /// The link's own address, which nobody else was found to have.
    pub(super) source: Ipv6Addr,
    pub(super) wanted: Wanted,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Lease(Lease),
    Information(Told),
}

/// The clients, one a link.
#[derive(Debug)]
pub(super) struct Dhcp6 {
    identity: Identity,
    seed: u64,
    clients: Vec<Client>,
    warned: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Client {
    place: Place,
    asker: Asker,
    state: State,
    /// The number of what is asked, and when that was asked first; None: not yet.
    number: u32,
    began: Option<Instant>,
    /// When it speaks again if it hears nothing, and the wait before that.
    next: Instant,
    wait: Duration,
    /// How often this was sent, and anything.
    tries: usize,
    asked: usize,
}

#[derive(Debug)]
enum State {
    /// Asks all servers for an address; the best offer waits for better ones, in the first of the waits.
    Soliciting { best: Option<(u8, Lease)> },
    /// Has taken an offer.
    Requesting { offer: Lease },
    /// Asks for the rest.
    Informing,
    /// Somebody else has the address.
    Declining { lease: Lease },
    /// Has what was wanted.
    Done,
}

impl Dhcp6 {
    pub(super) fn new(identity: Identity, seed: u64) -> Dhcp6 {
        let (clients, warned, warnings) = (Vec::new(), Vec::new(), Vec::new());
        Dhcp6 { identity, seed, clients, warned, warnings }
    }

    /// Runs on these links and on no others. On a new one it asks soon.
    pub(super) fn run_on(&mut self, places: &[Place], now: Instant) {
        self.clients.retain(|client| places.contains(&client.place));
        for place in places {
            if self.client(place.link).is_some() {
                continue;
            }
            let asker = Asker { identity: self.identity, mac: place.mac, source: place.source };
            let delay = part_of(FIRST_DELAY, random((self.seed, place.source, place.link)));
            self.clients.push(Client {
                place: place.clone(),
                asker,
                state: begin(place.wanted),
                number: 0,
                began: None,
                next: now + delay,
                wait: Duration::ZERO,
                tries: 0,
                asked: 0,
            });
        }
    }

    fn client(&self, link: u32) -> Option<&Client> {
        self.clients.iter().find(|client| client.place.link == link)
    }

    /// Where packets are waited for.
    pub(super) fn source(&self, link: u32) -> Option<Ipv6Addr> {
        let client = self.client(link)?;
        (!matches!(client.state, State::Done)).then_some(client.place.source)
    }

    /// How often somebody was asked on that link.
    pub(super) fn asked(&self, link: u32) -> usize {
        self.client(link).map_or(0, |client| client.asked)
    }

    /// The server whose offer has been taken, and waits for its word.
    pub(super) fn requested_from(&self, link: u32) -> Option<Ipv6Addr> {
        match &self.client(link)?.state {
            State::Requesting { offer } => Some(offer.server),
            _ => None,
        }
    }

    /// What servers have said that the user should know of, each once.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes in a message that came from a server's port. Returns what it brings, if it was waited for.
    pub(super) fn receive(
        &mut self,
        link: u32,
        from: Ipv6Addr,
        message: &[u8],
        now: Instant,
    ) -> Option<Outcome> {
        let client = self.clients.iter_mut().find(|client| client.place.link == link)?;
        let answer = match client.asker.read(client.number, message, from) {
            Ok(answer) => answer?,
            Err(_) => {
                let name = &client.place.name;
                let text =
                    format!("a message of the DHCPv6 server {from} on {name} is cut off: ignored");
                self.warn(text);
                return None;
            }
        };
        let (outcome, refusal) = client.hear(&answer, now);
        let server = format!("the DHCPv6 server {from} on {}", client.place.name);
        if let Some(refusal) = refusal {
            self.warn(format!("{server} does not give an address: {refusal}"));
        }
        if let Some(url) = answer.odd_url {
            self.warn(format!("{server} names a boot file whose URL has no usable host: {url}"));
        }
        outcome
    }

    /// Gives an address back that somebody else has, and asks for another.
    pub(super) fn decline(&mut self, link: u32, lease: &Lease, now: Instant) {
        for client in self.clients.iter_mut().filter(|client| client.place.link == link) {
            client.enter(State::Declining { lease: lease.clone() }, now);
        }
    }

    /// The packets that are due, each with its link.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<(u32, Vec<u8>)> {
        let seed = self.seed;
        let due = self.clients.iter_mut().filter(|client| client.is_due(now));
        due.filter_map(|client| Some((client.place.link, client.speak(seed, now)?))).collect()
    }

    /// When [`Dhcp6::poll`] has something to do if nothing comes in.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let busy = self.clients.iter().filter(|client| !matches!(client.state, State::Done));
        busy.map(|client| client.next).min()
    }

    fn warn(&mut self, text: String) {
        if self.warned.len() < MAX_DHCP_WARNINGS && !self.warned.contains(&text) {
            self.warned.push(text.clone());
            self.warnings.push(text);
        }
    }
}

impl Client {
    fn is_due(&self, now: Instant) -> bool {
        !matches!(self.state, State::Done) && self.next <= now
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        (self.began, self.tries, self.next) = (None, 0, now);
    }

    /// What an answer brings, or why it brings nothing.
    fn hear(&mut self, answer: &Answer, now: Instant) -> (Option<Outcome>, Option<Refusal>) {
        match (&mut self.state, answer.kind, &answer.lease) {
            (State::Soliciting { best }, ADVERTISE, Ok(offer)) => {
                let rank =
                    |preference: u8, offer: &Lease| (preference, offer.told.boot_server.is_some());
                let is_better = best
                    .as_ref()
                    .is_none_or(|(p, old)| rank(answer.preference, offer) > rank(*p, old));
                if is_better {
                    *best = Some((answer.preference, offer.clone()));
                }
                // After the first wait the first offer is taken.
                if answer.preference == AT_ONCE || self.tries > 1 {
                    self.next = now;
                }
                (None, None)
            }
            (State::Soliciting { .. }, ADVERTISE, Err(refusal)) => (None, Some(refusal.clone())),
            (State::Requesting { offer }, REPLY, _) if offer.server_id != answer.server_id => {
                (None, None)
            }
            (State::Requesting { .. }, REPLY, Ok(lease)) => self.done(lease),
            (State::Requesting { .. }, REPLY, Err(refusal)) => {
                // These two are about this message alone, which is sent again.
                let again = matches!(
                    refusal,
                    Refusal::Status(message::UNSPECIFIC | message::USE_MULTICAST, _)
                );
                if !again {
                    self.enter(State::Soliciting { best: None }, now + LONGEST_WAIT);
                }
                (None, Some(refusal.clone()))
            }
            (State::Informing, REPLY, _) => match &answer.status {
                Some(refusal) => (None, Some(refusal.clone())),
                None => {
                    self.state = State::Done;
                    (Some(Outcome::Information(answer.told.clone())), None)
                }
            },
            (State::Declining { lease }, REPLY, _) if lease.server_id == answer.server_id => {
                self.enter(State::Soliciting { best: None }, now);
                (None, None)
            }
            _ => (None, None),
        }
    }

    fn done(&mut self, lease: &Lease) -> (Option<Outcome>, Option<Refusal>) {
        self.state = State::Done;
        (Some(Outcome::Lease(lease.clone())), None)
    }

    /// The packet that is due, and when the next one will be.
    fn speak(&mut self, seed: u64, now: Instant) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Soliciting { best } => {
                if let Some((_, offer)) = best.take() {
                    self.enter(State::Requesting { offer }, now);
                }
            }
            State::Requesting { .. } if self.tries >= REQUESTS => {
                self.enter(State::Soliciting { best: None }, now);
            }
            State::Declining { .. } if self.tries >= DECLINES => {
                self.enter(State::Soliciting { best: None }, now);
            }
            _ => {}
        }
        self.asked += 1;
        let chance = random((seed, self.place.source, self.place.link, self.asked));
        let began = *self.began.get_or_insert_with(|| {
            // All that is sent again has the same number (RFC 8415, section 16.1).
            self.number = (chance >> 32) as u32 & 0x00ff_ffff;
            now
        });
        let elapsed = now.duration_since(began);
        let packet = match &self.state {
            State::Soliciting { .. } => self.asker.solicit(self.number, elapsed),
            State::Requesting { offer } => self.asker.request(self.number, elapsed, offer),
            State::Informing => self.asker.ask(self.number, elapsed),
            State::Declining { lease } => self.asker.decline(self.number, elapsed, lease),
            State::Done => return None,
        };
        let wait = if self.tries == 0 { FIRST_WAIT } else { (self.wait * 2).min(LONGEST_WAIT) };
        // RFC 8415, section 15, has a tenth more or less. It is never less here, which the first has to be anyway.
        self.wait = wait;
        self.next = now + wait + part_of(wait / 10, chance);
        self.tries += 1;
        Some(packet)
    }
}

fn begin(wanted: Wanted) -> State {
    match wanted {
        Wanted::Address => State::Soliciting { best: None },
        Wanted::Information => State::Informing,
    }
}

/// More than nothing and no more than `time`.
fn part_of(time: Duration, chance: u64) -> Duration {
    let millis = u64::try_from(time.as_millis()).unwrap_or(1).max(1);
    Duration::from_millis(1 + chance % millis)
}

/// The same for the same cause, but with no pattern.
fn random(cause: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    cause.hash(&mut hasher);
    hasher.finish()
}

/// A message that the link got, whatever it is, to a client that has asked.
#[cfg(fuzzing)]
pub fn fuzz_dhcp6(bytes: &[u8]) {
    let identity = Identity { uuid: Some([0x5a; 16]), architecture: Some(7) };
    let asker = Asker { identity, mac: None, source: Ipv6Addr::LOCALHOST };
    let Ok(Some(answer)) = asker.read(0x0012_3456, bytes, Ipv6Addr::LOCALHOST) else { return };
    let host = answer.told.boot_server.as_ref().map(|server| server.host.as_str());
    let names = answer.told.domains.iter().map(String::as_str).chain(host);
    assert!(names.flat_map(str::bytes).all(|byte| byte.is_ascii_graphic()));
    if let Ok(lease) = &answer.lease {
        assert!(asker.request(1, Duration::ZERO, lease).len() < 1232);
    }
}
