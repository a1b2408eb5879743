//! Asks name servers.

#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use smoltcp::wire::DnsQueryType;

use super::dns::{Answer, Name, Query};
use super::resolv_conf::Config;
use crate::error::reason;
use crate::net::tcp;
use crate::net::transport::Transport;

/// How long a telling answer for one address family waits for the other family's.
const OTHER_FAMILY_WAIT: Duration = Duration::from_millis(300);
/// Room for one datagram; without EDNS none is longer than 512 bytes (RFC 1035, section 4.2.1).
const DATAGRAM_BYTES: usize = 2048;

/// Unpredictable enough that an answer cannot be forged unseen: a hash under the system's keys.
fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

/// Asks for one name after the other, until one has addresses or no server speaks any more.
pub(super) fn look_up(
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
pub(super) enum Miss {
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
