//! Host names to addresses, without the C library's resolver.
//!
//! `getaddrinfo` of a static glibc loads shared objects of whatever root it runs in, and may die
//! of them. So names are looked up here: `localhost`, `/etc/hosts`, then DNS as
//! `/etc/resolv.conf` says. First comes the half that reads files and asks servers, then the pure
//! half: text or bytes in, values out.
//!
//! DNS messages are read and written by smoltcp. What it leaves open is closed here: a message is
//! measured before any field is looked at, a name ends at 255 bytes and at its first error (the
//! iterator over a bad name repeats that error for ever), and only so many records are read, since
//! each can follow thousands of compression pointers.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::str::SplitWhitespace;
use std::time::{Duration, Instant};

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
    DnsRepr,
};

use super::tcp;
use super::transport::Transport;
use crate::error::{Error, reason};
use crate::limits::{MAX_DNS_ALIASES, MAX_DNS_NAME_BYTES, MAX_DNS_RECORDS};

const HOSTS: &str = "/etc/hosts";
/// Where the name servers are named (resolv.conf(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;
/// Servers, dots, seconds and rounds that `resolv.conf(5)` can ask for at most.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT_S: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;
/// How long a telling answer for one address family waits for the other family's.
const OTHER_FAMILY_WAIT: Duration = Duration::from_millis(300);
/// Most bytes of one label (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: u8 = 63;
/// Room for one datagram; without EDNS none is longer than 512 bytes (RFC 1035, section 4.2.1).
const DATAGRAM_BYTES: usize = 2048;

/// Resolves `host`, an address (IPv6 also in brackets) or a name, to its addresses, best first.
///
/// `localhost` and names below it are 127.0.0.1 and ::1 (RFC 6761, section 6.3). Other names are
/// looked for in `/etc/hosts`, then asked of the name servers, as `hosts(5)` and `resolv.conf(5)`
/// describe; A and AAAA are asked together (RFC 1035; RFC 3596). Addresses that the routing table
/// can reach come first; among these global IPv6, then IPv4, then local IPv6 (RFC 6724, section
/// 2.1). There is at least one.
///
/// # Errors
/// [`Error::Resolve`]: `host` is neither an address nor a name, no such name exists, it has no
/// address, or no name server has told by `deadline`.
pub fn resolve(transport: &Transport, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, Error> {
    let failed = |why: String| Error::Resolve { host: host.to_owned(), why };
    if let Some(address) = literal(host).map_err(|why| failed(why.to_owned()))? {
        return Ok(vec![address]);
    }
    if is_localhost(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let mut addresses = addresses_in_hosts(&text_of(HOSTS), host);
    if addresses.is_empty() {
        let config = Config::parse(&text_of(RESOLV_CONF), interface_index);
        let names =
            candidates(host, &config).ok_or_else(|| failed("not a valid host name".into()))?;
        let found = look_up(transport, &names, &config, deadline);
        addresses = found.map_err(|miss| failed(miss.to_string()))?;
    }
    Ok(best_first(addresses, |address| transport.reaches(address)))
}

/// The name servers that `/etc/resolv.conf` names, which may be none.
pub fn name_servers() -> Vec<IpAddr> {
    servers_in_resolv_conf(&text_of(RESOLV_CONF), interface_index)
        .map(|server| server.ip())
        .collect()
}

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
                (host, Some(port.ok_or_else(|| format!("expected :PORT after ], not \"{tail}\""))?))
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
        return Err(format!("\"{text}\" has no host name"));
    }
    let must_be_ipv6 = text.starts_with('[') || host.contains(':');
    if must_be_ipv6 && without_zone(host).0.parse::<Ipv6Addr>().is_err() {
        return Err(format!("\"{host}\" is not an IPv6 address"));
    }
    Ok((host.to_owned(), port.map(parse_port).transpose()?))
}

/// The text of a file that may be missing, and then says nothing.
fn text_of(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The number of a network interface that is named or numbered in an address's zone.
fn interface_index(zone: &str) -> Option<u32> {
    let named = || text_of(&format!("/sys/class/net/{zone}/ifindex")).trim().parse().ok();
    zone.parse().ok().or_else(named)
}

/// Unpredictable enough that an answer cannot be forged unseen: a hash under the system's keys.
fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

/// Asks for one name after the other, until one has addresses or no server speaks any more.
fn look_up(
    transport: &Transport,
    names: &[Name],
    config: &Config,
    deadline: Instant,
) -> Result<Vec<IpAddr>, Miss> {
    let mut worst = Miss::NoSuchName;
    for name in names {
        match ask_servers(transport, name, config, deadline) {
            Err(miss @ Miss::Silent(_)) => return Err(miss),
            Err(miss) => worst = worst.max(miss),
            found => return found,
        }
    }
    Err(worst)
}

/// Asks for one name, server after server, until one knows; in rounds, since datagrams get lost.
fn ask_servers(
    transport: &Transport,
    name: &Name,
    config: &Config,
    deadline: Instant,
) -> Result<Vec<IpAddr>, Miss> {
    let mut problems = Vec::new();
    let mut any_answered = false;
    let rounds = (0..config.attempts).flat_map(|_| &config.servers);
    for &server in rounds {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        let what = match ask(transport, server, name, deadline.min(now + config.timeout)) {
            Err(Miss::Silent(what)) => what,
            Err(Miss::Failed(what)) => {
                any_answered = true;
                what
            }
            known => return known,
        };
        let problem = format!("the name server {} {what}", server.ip());
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() {
        return Err(Miss::Silent("timed out before any name server was asked".into()));
    }
    let why = problems.join(", ");
    Err(if any_answered { Miss::Failed(why) } else { Miss::Silent(why) })
}

/// Asks one server for both families, and judges what it has answered by `until`.
fn ask(
    transport: &Transport,
    server: SocketAddr,
    name: &Name,
    until: Instant,
) -> Result<Vec<IpAddr>, Miss> {
    let queries = [DnsQueryType::A, DnsQueryType::Aaaa].map(|kind| Query {
        id: random_id(),
        name: name.clone(),
        kind,
    });
    let answers = exchange(transport, server, &queries, until);
    answers.map_err(|e| Miss::Silent(server_problem(&e))).and_then(judge)
}

/// Sends all queries, in datagrams where there are any, and collects the answers.
fn exchange(
    transport: &Transport,
    server: SocketAddr,
    queries: &[Query],
    until: Instant,
) -> io::Result<Vec<Answer>> {
    if let Transport::Own(_) = transport {
        // It has no datagrams, and every name server takes connections (RFC 7766).
        return queries.iter().map(|q| ask_over_tcp(transport, server, q, until)).collect();
    }
    let socket = tcp::datagrams(server)?;
    for query in queries {
        socket.send(&query.encode())?;
    }
    let mut pending: Vec<&Query> = queries.iter().collect();
    let mut answers = Vec::new();
    let mut wait_until = until;
    let mut buffer = [0; DATAGRAM_BYTES];
    while !pending.is_empty() {
        let received = left(wait_until)
            .and_then(|left| socket.set_read_timeout(Some(left)))
            .and_then(|()| socket.recv(&mut buffer));
        let datagram = match received {
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if answers.is_empty() => return Err(error),
            Err(_) => break,
        };
        let read = |(at, query): (usize, &&Query)| Some((at, query.read_answer(datagram)?));
        let Some((at, mut answer)) = pending.iter().enumerate().find_map(read) else { continue };
        let query = pending.swap_remove(at);
        if answer == Answer::Truncated {
            answer = ask_over_tcp(transport, server, query, until).unwrap_or_else(|error| {
                Answer::Useless(format!("cannot be asked over TCP: {}", reason(&error)))
            });
        }
        if matches!(answer, Answer::Addresses(_) | Answer::NoSuchName) {
            wait_until = until.min(Instant::now() + OTHER_FAMILY_WAIT);
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Asks for an answer that is too long for a datagram (RFC 1035, section 4.2.2; RFC 7766).
fn ask_over_tcp(
    transport: &Transport,
    server: SocketAddr,
    query: &Query,
    until: Instant,
) -> io::Result<Answer> {
    let message = query.encode();
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut stream = transport.call(server, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(&[length.to_be_bytes().as_slice(), &message].concat())?;
    let mut length = [0; 2];
    read_all(&mut stream, &mut length, until)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    read_all(&mut stream, &mut message, until)?;
    Ok(match query.read_answer(&message) {
        None | Some(Answer::Truncated) => Answer::garbled(),
        Some(answer) => answer,
    })
}

/// Fills `buffer`, however slowly the bytes drip in, but not beyond `until`.
fn read_all(stream: &mut TcpStream, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = buffer.get_mut(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time until `until`, never zero, which sockets take for "no timeout".
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Why a name has no addresses; of several names' reasons the greatest is told.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Miss {
    /// NXDOMAIN.
    NoSuchName,
    /// Servers answer, but not the question.
    Failed(String),
    /// The name exists.
    NoAddress,
    /// No server answers.
    Silent(String),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::NoSuchName => f.write_str("no such host"),
            Miss::NoAddress => f.write_str("the name has no address record"),
            Miss::Failed(why) | Miss::Silent(why) => f.write_str(why),
        }
    }
}

/// What an error of the socket says about the server, as in "the name server X ...".
fn server_problem(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "does not answer".into(),
        ErrorKind::ConnectionRefused => "refuses connections".into(),
        _ => format!("cannot be asked: {}", reason(error)),
    }
}

/// Sums up a server's answers to both questions; one may be missing.
fn judge(answers: Vec<Answer>) -> Result<Vec<IpAddr>, Miss> {
    let both_answered = answers.len() == 2;
    let (mut addresses, mut no_such_name, mut useless) = (Vec::new(), false, None);
    for answer in answers {
        match answer {
            Answer::Addresses(more) => addresses.extend(more),
            Answer::NoSuchName => no_such_name = true,
            Answer::Useless(why) => useless = Some(why),
            Answer::NoAddress | Answer::Truncated => {}
        }
    }
    match useless {
        _ if !addresses.is_empty() => Ok(addresses),
        _ if no_such_name => Err(Miss::NoSuchName),
        Some(why) => Err(Miss::Failed(why)),
        None if both_answered => Err(Miss::NoAddress),
        None => Err(Miss::Silent("sends a truncated answer".into())),
    }
}

/// The address that `host` is; None if it has to be looked up.
fn literal(host: &str) -> Result<Option<IpAddr>, &'static str> {
    let (address, zone) = without_zone(host);
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if zone.is_some() {
        return Err("addresses with a zone (%) are not supported");
    }
    if let Some(inner) = bracketed {
        let address: Ipv6Addr = inner.parse().map_err(|_| "not an IPv6 address")?;
        return Ok(Some(address.into()));
    }
    match host.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) if host.contains('.') && host.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.')) => {
            Err("not an IPv4 address")
        }
        Err(_) => Ok(None),
    }
}

/// An address and the zone behind its `%` (RFC 4007, section 11).
fn without_zone(text: &str) -> (&str, Option<&str>) {
    text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|&port| digits && port != 0);
    port.ok_or_else(|| format!("\"{text}\" is not a port (1 to 65535)"))
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// The lines of a configuration file as words, up to a comment; no word holds a `#` or `;`.
fn lines_of_words(text: &str) -> impl Iterator<Item = SplitWhitespace<'_>> {
    let comment = ['#', ';'];
    text.lines().map(move |line| line.split(comment).next().unwrap_or_default().split_whitespace())
}

/// All addresses that `hosts(5)` gives to `host`, in its order.
fn addresses_in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = |mut words: SplitWhitespace<'_>| {
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    lines_of_words(text).filter_map(address).collect()
}

/// What `resolv.conf(5)` says.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with so many dots is asked for as it stands first.
    ndots: usize,
    /// How long each server may take, each time.
    timeout: Duration,
    /// Rounds over the servers.
    attempts: u32,
}

impl Config {
    /// Reads a `resolv.conf`; what it does not say, or says wrongly, stands at its default.
    fn parse(text: &str, zone_index: impl Fn(&str) -> Option<u32>) -> Config {
        let mut config = Config {
            servers: servers_in_resolv_conf(text, zone_index).take(MAX_SERVERS).collect(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for mut words in lines_of_words(text) {
            match words.next() {
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| config.set_option(option)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        config
    }

    fn set_option(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = MAX_NDOTS.min(value as usize),
            "timeout" => {
                self.timeout = Duration::from_secs(u64::from(value).clamp(1, MAX_TIMEOUT_S))
            }
            "attempts" => self.attempts = value.clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }
}

/// The servers that it names, however many.
fn servers_in_resolv_conf(
    text: &str,
    zone_index: impl Fn(&str) -> Option<u32>,
) -> impl Iterator<Item = SocketAddr> {
    let named = lines_of_words(text).filter(|words| words.clone().next() == Some("nameserver"));
    named.filter_map(move |mut words| server_address(words.nth(1)?, &zone_index))
}

fn server_address(text: &str, zone_index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match without_zone(text) {
        (address, None) => Some(SocketAddr::new(address.parse().ok()?, DNS_PORT)),
        (address, Some(zone)) => {
            let (address, index) = (address.parse().ok()?, zone_index(zone)?);
            Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
        }
    }
}

/// The names to ask for, in order; None if `host` is none.
fn candidates(host: &str, config: &Config) -> Option<Vec<Name>> {
    let plain = Name::new(host)?;
    if host.ends_with('.') {
        return Some(vec![plain]);
    }
    let domains = config.search.iter();
    let mut names: Vec<Name> =
        domains.filter_map(|domain| Name::new(&format!("{host}.{domain}"))).collect();
    let dots = host.matches('.').count();
    names.insert(if dots >= config.ndots { 0 } else { names.len() }, plain);
    Some(names)
}

/// Without doubles, those with a route first, then as RFC 6724 prefers destinations.
fn best_first(mut addresses: Vec<IpAddr>, has_route: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    addresses.retain(|&address| seen.insert(address));
    addresses.sort_by_cached_key(|&address| {
        let preference = match address {
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => 2,
            IpAddr::V6(_) => 0,
            IpAddr::V4(_) => 1,
        };
        (!has_route(address), preference)
    });
    addresses
}

/// A name as messages carry it (RFC 1035, section 3.1): labels behind their lengths, a zero at the
/// end, at most 255 bytes. In lower case, so that equal names are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name(Vec<u8>);

impl Name {
    /// A host name: labels of letters, digits, `-` and `_`, with or without a dot at the end.
    fn new(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let in_names = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let labels = text.split('.').map(|label| Some(label.as_bytes()));
        text.bytes().all(in_names).then(|| Name::from_labels(labels))?
    }

    /// The name that `field` of a message holds or points to.
    fn read(message: &DnsPacket<&[u8]>, field: &[u8]) -> Option<Name> {
        Name::from_labels(message.parse_name(field).map(Result::ok))
    }

    /// Stops at the first label that is None, empty or too long.
    fn from_labels<'a>(labels: impl Iterator<Item = Option<&'a [u8]>>) -> Option<Name> {
        let mut name = Vec::new();
        for label in labels {
            let label = label?;
            let length = u8::try_from(label.len()).ok()?;
            if length == 0 || length > MAX_LABEL_BYTES {
                return None;
            }
            name.push(length);
            name.extend(label.iter().map(u8::to_ascii_lowercase));
            if name.len() >= MAX_DNS_NAME_BYTES {
                return None;
            }
        }
        name.push(0);
        Some(Name(name))
    }
}

/// One question to a name server.
#[derive(Debug)]
struct Query {
    id: u16,
    name: Name,
    kind: DnsQueryType,
}

/// What a server says to a question.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Addresses(Vec<IpAddr>),
    /// The name has none of this family.
    NoAddress,
    NoSuchName,
    /// To be asked for over TCP.
    Truncated,
    /// What the server did, as in "the name server X ...".
    Useless(String),
}

impl Answer {
    fn garbled() -> Answer {
        Answer::Useless("sends malformed answers".into())
    }
}

impl Query {
    /// The message that asks it (RFC 1035, section 4.1).
    fn encode(&self) -> Vec<u8> {
        let message = DnsRepr {
            transaction_id: self.id,
            opcode: DnsOpcode::Query,
            flags: DnsFlags::RECURSION_DESIRED,
            question: DnsQuestion { name: &self.name.0, type_: self.kind },
        };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut DnsPacket::new_unchecked(&mut bytes));
        bytes
    }

    /// Reads a message; None if it does not answer this very question.
    fn read_answer(&self, bytes: &[u8]) -> Option<Answer> {
        let message = DnsPacket::new_checked(bytes).ok()?;
        let (records, question) = DnsQuestion::parse(message.payload()).ok()?;
        let answers_this = message.transaction_id() == self.id
            && message.flags().contains(DnsFlags::RESPONSE)
            && message.opcode() == DnsOpcode::Query
            && message.question_count() == 1
            && question.type_ == self.kind
            && Name::read(&message, question.name)? == self.name;
        if !answers_this {
            return None;
        }
        Some(match message.rcode() {
            _ if message.flags().contains(DnsFlags::TRUNCATED) => Answer::Truncated,
            DnsRcode::NoError => {
                self.read_records(&message, records).unwrap_or_else(Answer::garbled)
            }
            DnsRcode::NXDomain => Answer::NoSuchName,
            DnsRcode::Refused => Answer::Useless("refuses the query".into()),
            DnsRcode::ServFail => Answer::Useless("reports a server failure".into()),
            other => Answer::Useless(format!("reports error {}", u8::from(other))),
        })
    }

    /// The addresses in an answer section, behind any aliases (RFC 1035, section 3.6.2); None if
    /// it is garbled.
    fn read_records(&self, message: &DnsPacket<&[u8]>, mut records: &[u8]) -> Option<Answer> {
        let (mut addresses, mut aliases) = (Vec::new(), Vec::new());
        for _ in 0..message.answer_record_count().min(MAX_DNS_RECORDS) {
            let (rest, record) = DnsRecord::parse(records).ok()?;
            records = rest;
            let name = Name::read(message, record.name)?;
            match record.data {
                DnsRecordData::A(address) => addresses.push((name, IpAddr::V4(address))),
                // smoltcp reads these itself only with its own IPv6, which nothing else here needs.
                DnsRecordData::Other(DnsQueryType::Aaaa, address) => {
                    let address = <[u8; 16]>::try_from(address).ok()?;
                    addresses.push((name, address.into()));
                }
                DnsRecordData::Cname(target) => aliases.push((name, Name::read(message, target)?)),
                DnsRecordData::Other(..) => {}
            }
        }
        let mut wanted = &self.name;
        for _ in 0..=MAX_DNS_ALIASES {
            let own = addresses.iter().filter(|(name, _)| name == wanted);
            let own: Vec<IpAddr> = own.map(|&(_, address)| address).collect();
            if !own.is_empty() {
                return Some(Answer::Addresses(own));
            }
            match aliases.iter().find(|(name, _)| name == wanted) {
                Some((_, target)) => wanted = target,
                None => return Some(Answer::NoAddress),
            }
        }
        Some(Answer::Useless("sends too many aliases (CNAME)".into()))
    }
}

#[cfg(test)]
mod tests;

/// An answer to a question for the addresses of `kernel.example`.
#[cfg(fuzzing)]
pub fn fuzz_answer(bytes: &[u8]) {
    let name = Name::new("kernel.example").expect("a name");
    let query = Query { id: 0x4142, name, kind: DnsQueryType::A };
    query.read_answer(bytes);
}
