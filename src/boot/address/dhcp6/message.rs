//! DHCPv6 messages (RFC 8415, RFC 3646, RFC 5970): what is asked, and what an answer says.
//!
//! A message is its type, a number of 3 bytes and options, each of which is a number, a length and data. One with an
//! option that is cut off is none: what is missing could be anything.

use crate::boot::address::identity::Identity;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::boot::address::dhcp::{is_name, search_list};
use crate::limits::MAX_DHCP_LIST;
use crate::net::host_port::HostPort;
use crate::printable::printable;

/// Types of messages (RFC 8415, section 7.3).
pub(super) const SOLICIT: u8 = 1;
pub(super) const ADVERTISE: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const REPLY: u8 = 7;
pub(super) const DECLINE: u8 = 9;
pub(super) const INFORMATION_REQUEST: u8 = 11;
/// Numbers of options (RFC 8415, section 24; RFC 3646; RFC 5970; RFC 7083).
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const OPTION_REQUEST: u16 = 6;
const PREFERENCE: u16 = 7;
const ELAPSED_TIME: u16 = 8;
const STATUS_CODE: u16 = 13;
const VENDOR_CLASS: u16 = 16;
const NAME_SERVERS: u16 = 23;
const DOMAIN_LIST: u16 = 24;
const INFORMATION_REFRESH_TIME: u16 = 32;
const BOOT_FILE_URL: u16 = 59;
const BOOT_FILE_PARAMETERS: u16 = 60;
const CLIENT_ARCHITECTURE: u16 = 61;
const SOL_MAX_RT: u16 = 82;
const INF_MAX_RT: u16 = 83;
/// What a node asks for with an address, and without. SOL_MAX_RT and INF_MAX_RT have to be among them (RFC 8415, sections
/// 18.2.1 and 18.2.6); no server makes a node ask less often than it does anyway, since they are a minute or more.
const WITH_ADDRESS: [u16; 5] =
    [NAME_SERVERS, DOMAIN_LIST, BOOT_FILE_URL, BOOT_FILE_PARAMETERS, SOL_MAX_RT];
const WITHOUT: [u16; 6] = [
    NAME_SERVERS,
    DOMAIN_LIST,
    INFORMATION_REFRESH_TIME,
    BOOT_FILE_URL,
    BOOT_FILE_PARAMETERS,
    INF_MAX_RT,
];
/// Identifiers of clients (RFC 8415, section 11.4; RFC 6355).
const DUID_LL: u16 = 3;
const DUID_UUID: u16 = 4;
const ETHERNET: u16 = 1;
const EUI_64: u16 = 27;
/// Who says what `PXEClient` means (Intel), as firmware and iPXE write it.
const PXE_ENTERPRISE: u32 = 343;
/// Numbers in a message that has no limit (RFC 8415, section 7.7).
const FOR_EVER_S: u32 = u32::MAX;
/// The longest identifier of a server (RFC 8415, section 11.1).
const LONGEST_ID: usize = 130;
/// Bytes of an IA_NA and of an address in it before the options in them.
const IA_BYTES: usize = 12;
const IA_ADDRESS_BYTES: usize = 24;
/// Characters that are shown of what a server says.
const MOST_SHOWN: usize = 100;

/// What a server tells besides addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::boot::address) struct Told {
    pub(in crate::boot::address) name_servers: Vec<IpAddr>,
    /// Where names without a dot are looked for.
    pub(in crate::boot::address) domains: Vec<String>,
    /// Whom to boot from: the host of the boot file's URL.
    pub(in crate::boot::address) boot_server: Option<HostPort>,
}

impl Told {
    /// Adds what another has told, which comes after.
    pub(in crate::boot::address) fn add(&mut self, other: Option<&Told>) {
        let Some(other) = other else { return };
        self.add_lists(other.name_servers.iter().copied(), other.domains.iter().cloned());
        self.boot_server = self.boot_server.take().or_else(|| other.boot_server.clone());
    }

    /// Adds what is new of these. Routers say the same again and again.
    pub(in crate::boot::address) fn add_lists(
        &mut self,
        name_servers: impl IntoIterator<Item = IpAddr>,
        domains: impl IntoIterator<Item = String>,
    ) {
        let most = 2 * MAX_DHCP_LIST;
        for server in name_servers {
            if self.name_servers.len() < most && !self.name_servers.contains(&server) {
                self.name_servers.push(server);
            }
        }
        for domain in domains {
            if self.domains.len() < most && !self.domains.contains(&domain) {
                self.domains.push(domain);
            }
        }
    }
}

/// What a server gives, or offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::boot::address) struct Lease {
    pub(in crate::boot::address) address: Ipv6Addr,
    /// How long it may be used for what begins, and at all. None: for ever.
    pub(in crate::boot::address) preferred: Option<Duration>,
    pub(in crate::boot::address) valid: Option<Duration>,
    /// Where the server is.
    pub(in crate::boot::address) server: Ipv6Addr,
    pub(super) server_id: Vec<u8>,
    pub(in crate::boot::address) told: Told,
}

/// Why a server does not give an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A status code other than success, and what the server says to it.
    Status(u16, String),
    /// It gives none that a node can have.
    NoAddress,
}

/// Codes of [`Refusal::Status`] (RFC 8415, section 21.13).
pub(super) const UNSPECIFIC: u16 = 1;
pub(super) const NO_ADDRESSES: u16 = 2;
pub(super) const NOT_ON_LINK: u16 = 4;
pub(super) const USE_MULTICAST: u16 = 5;

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, text) = match self {
            Refusal::NoAddress => return f.write_str("it gives no address that a node can have"),
            Refusal::Status(code, text) => (*code, text),
        };
        match code {
            UNSPECIFIC => f.write_str("it fails (UnspecFail)")?,
            NO_ADDRESSES => f.write_str("it has no address for this node (NoAddrsAvail)")?,
            NOT_ON_LINK => f.write_str("the address is not for this link (NotOnLink)")?,
            USE_MULTICAST => f.write_str("it wants to be asked by multicast (UseMulticast)")?,
            code => write!(f, "status {code}")?,
        }
        if text.is_empty() { Ok(()) } else { write!(f, ": \"{text}\"") }
    }
}

/// What a server says to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// [`ADVERTISE`] or [`REPLY`].
    pub(super) kind: u8,
    pub(super) server_id: Vec<u8>,
    /// The greater, the sooner it is to be taken; 255 is at once.
    pub(super) preference: u8,
    pub(super) lease: Result<Lease, Refusal>,
    /// A status of the whole message that is not success.
    pub(super) status: Option<Refusal>,
    pub(super) told: Told,
    /// A URL that names no host that could be asked.
    pub(super) odd_url: Option<String>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) identity: Identity,
    /// Of an Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    /// The link's own address.
    pub(super) source: Ipv6Addr,
}

impl Asker {
    /// Asks all servers for an address. None is to give it at once (Rapid Commit): the first to answer may not be the one
    /// that knows what is to be booted.
    pub(super) fn solicit(&self, number: u32, elapsed: Duration) -> Vec<u8> {
        let message = self.message(SOLICIT, number, elapsed, &WITH_ADDRESS);
        message.with(IA_NA, &self.association(&[])).bytes
    }

    /// Takes what a server has offered.
    pub(super) fn request(&self, number: u32, elapsed: Duration, offer: &Lease) -> Vec<u8> {
        let message = self.message(REQUEST, number, elapsed, &WITH_ADDRESS);
        self.about(message, offer).bytes
    }

    /// Gives back an address that somebody else has.
    pub(super) fn decline(&self, number: u32, elapsed: Duration, lease: &Lease) -> Vec<u8> {
        let message = self.message(DECLINE, number, elapsed, &[]);
        self.about(message, lease).bytes
    }

    /// Asks all servers for what they have besides addresses.
    pub(super) fn ask(&self, number: u32, elapsed: Duration) -> Vec<u8> {
        self.message(INFORMATION_REQUEST, number, elapsed, &WITHOUT).bytes
    }

    fn message(&self, kind: u8, number: u32, elapsed: Duration, wanted: &[u16]) -> Builder {
        let [_, number @ ..] = number.to_be_bytes();
        // In hundredths of a second (RFC 8415, section 21.9).
        let elapsed = u16::try_from(elapsed.as_millis() / 10).unwrap_or(u16::MAX);
        let mut message = Builder { bytes: [[kind].as_slice(), &number].concat() }
            .with(CLIENT_ID, &self.id())
            .with(ELAPSED_TIME, &elapsed.to_be_bytes());
        if wanted.is_empty() {
            return message;
        }
        let wanted: Vec<u8> = wanted.iter().flat_map(|number| number.to_be_bytes()).collect();
        message = message.with(OPTION_REQUEST, &wanted);
        let Identity { architecture: Some(architecture), .. } = self.identity else {
            return message;
        };
        let class = self.identity.vendor_class().unwrap_or_default();
        let length = u16::try_from(class.len()).unwrap_or_default().to_be_bytes();
        let class = [&PXE_ENTERPRISE.to_be_bytes()[..], &length, class.as_bytes()].concat();
        message.with(VENDOR_CLASS, &class).with(CLIENT_ARCHITECTURE, &architecture.to_be_bytes())
    }

    fn about(&self, message: Builder, lease: &Lease) -> Builder {
        // Lifetimes are for the server to choose.
        let address = Builder::default()
            .with(IA_ADDRESS, &[&lease.address.octets()[..], &[0; 8]].concat())
            .bytes;
        message.with(SERVER_ID, &lease.server_id).with(IA_NA, &self.association(&address))
    }

    /// An IA_NA with the options `inside`. Machines of one maker may all have one UUID; the number is of the card's
    /// address, so that they get different addresses all the same.
    fn association(&self, inside: &[u8]) -> Vec<u8> {
        [&self.association_number()[..], &[0; 8], inside].concat()
    }

    fn association_number(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.source.octets();
        self.mac.map_or([a, b, c, d], |[_, _, number @ ..]| number)
    }

    fn id(&self) -> Vec<u8> {
        let own = |hardware: u16, address: &[u8]| {
            [&DUID_LL.to_be_bytes(), &hardware.to_be_bytes(), address].concat()
        };
        match (self.identity.uuid, self.mac) {
            (Some(uuid), _) => [&DUID_UUID.to_be_bytes()[..], &uuid].concat(),
            (None, Some(mac)) => own(ETHERNET, &mac),
            // InfiniBand and the like: the kernel has made the end of the address of the hardware's.
            (None, None) => own(EUI_64, self.source.octets().get(8..).unwrap_or_default()),
        }
    }

    /// What a server at `from` says to the question with this number; None if it is not for this client. An error is a
    /// message that is garbled.
    pub(super) fn read(
        &self,
        number: u32,
        message: &[u8],
        from: Ipv6Addr,
    ) -> Result<Option<Answer>, Garbled> {
        let Some((&[kind, hash @ ..], rest)) = message.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let [_, expected @ ..] = number.to_be_bytes();
        if !matches!(kind, ADVERTISE | REPLY) || hash != expected {
            return Ok(None);
        }
        let options = Options::parse(rest)?;
        let (Some(server_id), client) = (options.first(SERVER_ID), options.first(CLIENT_ID)) else {
            return Ok(None);
        };
        // Only an answer to an Information-request may be without the client's.
        let is_ours = client.is_none_or(|client| client == self.id());
        if !is_ours || !(1..=LONGEST_ID).contains(&server_id.len()) {
            return Ok(None);
        }
        let (told, odd_url) = options.told();
        let status = options.status();
        let lease = match client {
            Some(_) => self.lease(&options, from, server_id, &told)?,
            None => Err(Refusal::NoAddress),
        };
        let lease = status.clone().map_or(lease, Err);
        Ok(Some(Answer {
            kind,
            server_id: server_id.to_vec(),
            preference: options.first(PREFERENCE).and_then(|p| p.first()).copied().unwrap_or(0),
            lease,
            status,
            told,
            odd_url,
        }))
    }

    fn lease(
        &self,
        options: &Options<'_>,
        from: Ipv6Addr,
        server_id: &[u8],
        told: &Told,
    ) -> Result<Result<Lease, Refusal>, Garbled> {
        let mut refusal = Refusal::NoAddress;
        for association in options.all(IA_NA) {
            let (head, inside) = association.split_at_checked(IA_BYTES).ok_or(Garbled)?;
            let times = (seconds_at(head, 4), seconds_at(head, 8));
            // Such times are the server's fault (RFC 8415, section 21.4).
            let is_odd = matches!(times, (Some(one), Some(two)) if one > two && two > 0);
            if !head.starts_with(&self.association_number()) || is_odd {
                continue;
            }
            let inside = Options::parse(inside)?;
            if let Some(status) = inside.status() {
                refusal = status;
                continue;
            }
            for address in inside.all(IA_ADDRESS) {
                match address_in(address)? {
                    Ok((address, preferred, valid)) => {
                        let (server_id, told) = (server_id.to_vec(), told.clone());
                        let server = from;
                        return Ok(Ok(Lease {
                            address,
                            preferred,
                            valid,
                            server,
                            server_id,
                            told,
                        }));
                    }
                    Err(why) => refusal = why,
                }
            }
        }
        Ok(Err(refusal))
    }
}

/// The message is cut off somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

type Times = (Ipv6Addr, Option<Duration>, Option<Duration>);

/// The address of an option, with its two lifetimes.
fn address_in(option: &[u8]) -> Result<Result<Times, Refusal>, Garbled> {
    let (head, inside) = option.split_at_checked(IA_ADDRESS_BYTES).ok_or(Garbled)?;
    if let Some(status) = Options::parse(inside)?.status() {
        return Ok(Err(status));
    }
    let address = head.first_chunk::<16>().map(|&octets| Ipv6Addr::from(octets)).ok_or(Garbled)?;
    let (preferred, valid) = (seconds_at(head, 16), seconds_at(head, 20));
    let (Some(preferred), Some(valid)) = (preferred, valid) else { return Err(Garbled) };
    if valid == 0 || preferred > valid || !is_host(address) {
        return Ok(Err(Refusal::NoAddress));
    }
    let time = |seconds| (seconds != FOR_EVER_S).then(|| Duration::from_secs(u64::from(seconds)));
    Ok(Ok((address, time(preferred), time(valid))))
}

/// What a message or an option holds.
struct Options<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Options<'a> {
    fn parse(mut bytes: &'a [u8]) -> Result<Options<'a>, Garbled> {
        let mut options = Vec::new();
        while !bytes.is_empty() {
            let (&[a, b, c, d], rest) = bytes.split_first_chunk::<4>().ok_or(Garbled)?;
            let length = usize::from(u16::from_be_bytes([c, d]));
            let (data, rest) = rest.split_at_checked(length).ok_or(Garbled)?;
            options.push((u16::from_be_bytes([a, b]), data));
            bytes = rest;
        }
        Ok(Options(options))
    }

    fn all(&self, number: u16) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(n, _)| *n == number).map(|&(_, data)| data)
    }

    fn first(&self, number: u16) -> Option<&'a [u8]> {
        self.all(number).next()
    }

    /// None: success.
    fn status(&self) -> Option<Refusal> {
        let (&code, text) = self.first(STATUS_CODE)?.split_first_chunk::<2>()?;
        let code = u16::from_be_bytes(code);
        let text: String = String::from_utf8_lossy(text).trim().chars().take(MOST_SHOWN).collect();
        (code != 0).then(|| Refusal::Status(code, printable(&text).into_owned()))
    }

    /// And a URL that could not be used.
    fn told(&self) -> (Told, Option<String>) {
        let servers = self.first(NAME_SERVERS).unwrap_or_default().as_chunks::<16>().0;
        let servers = servers.iter().map(|&octets| Ipv6Addr::from(octets));
        let name_servers = servers.filter(|&ip| is_host(ip)).map(IpAddr::from);
        let domains = search_list(self.first(DOMAIN_LIST).unwrap_or_default()).into_iter();
        let url = self.first(BOOT_FILE_URL).map(|url| String::from_utf8_lossy(url));
        let url = url.as_deref().map(|url| url.trim_matches(['\0', ' '])).unwrap_or_default();
        let boot_server = server_in(url);
        let odd = boot_server.is_none() && !url.is_empty();
        let odd = odd.then(|| {
            let shown: String = url.chars().take(MOST_SHOWN).collect();
            printable(&shown).into_owned()
        });
        let name_servers = name_servers.take(MAX_DHCP_LIST).collect();
        let domains = domains.filter(|name| is_name(name)).take(MAX_DHCP_LIST).collect();
        (Told { name_servers, domains, boot_server }, odd)
    }
}

/// The host of `SCHEME://[USER@]HOST[:PORT][/PATH]`. The port counts if the scheme is xget's; else it is that of another
/// protocol.
fn server_in(url: &str) -> Option<HostPort> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut server = HostPort::parse(host).ok()?;
    if !scheme.eq_ignore_ascii_case("xget") {
        server.port = None;
    }
    // An address of a link alone is nothing without the link.
    let is_good = match server.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => is_host(ip),
        Ok(IpAddr::V4(ip)) => !ip.is_unspecified() && !ip.is_loopback(),
        Err(_) => is_name(&server.host),
    };
    is_good.then_some(server)
}

/// Whether one host can have it, and others elsewhere can reach it.
fn is_host(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || ip.is_unicast_link_local()
        || ip.to_ipv4_mapped().is_some())
}

fn seconds_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_be_bytes(bytes))
}

#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// An option; its length has 16 bits, which none here comes near.
    fn with(mut self, number: u16, data: &[u8]) -> Builder {
        self.bytes.extend(number.to_be_bytes());
        self.bytes.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        self.bytes.extend(data);
        self
    }
}
