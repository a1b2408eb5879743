//! Asks the name servers, one after the other, for the addresses of a name.

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
use super::resolv_conf::ResolvConf;
use crate::error::reason;
use crate::net::tcp;
use crate::net::transport::Transport;

/// After a conclusive answer for one address family, how long to wait for that for the other family.
const OTHER_FAMILY_WAIT: Duration = Duration::from_millis(300);
/// Without EDNS no message over UDP is longer than 512 bytes (RFC 1035, section 4.2.1).
const DATAGRAM_BYTES: usize = 2048;

/// Why there are no addresses. If several names were tried, the greatest of their errors is reported.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LookupError {
    /// NXDOMAIN.
    NoSuchName,
    /// Servers answer, but not with addresses: what they do instead.
    ServerFailure(String),
    /// The name exists.
    NoAddress,
    /// No server answers.
    NoResponse(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::NoSuchName => f.write_str("no such host"),
            LookupError::NoAddress => f.write_str("the name has no address record"),
            LookupError::ServerFailure(why) | LookupError::NoResponse(why) => f.write_str(why),
        }
    }
}

/// Looks up one name after the other, until one has addresses or no server responds.
pub(super) fn look_up(
    transport: &Transport,
    names: &[Name],
    config: &ResolvConf,
    deadline: Instant,
) -> Result<Vec<IpAddr>, LookupError> {
    let mut worst = LookupError::NoSuchName;
    for name in names {
        match query_servers(transport, name, config, deadline) {
            Err(error @ LookupError::NoResponse(_)) => return Err(error),
            Err(error) => worst = worst.max(error),
            found => return found,
        }
    }
    Err(worst)
}

/// Queries one server after the other, until one gives a conclusive answer. Goes through the list several
/// times, since datagrams may get lost.
fn query_servers(
    transport: &Transport,
    name: &Name,
    config: &ResolvConf,
    deadline: Instant,
) -> Result<Vec<IpAddr>, LookupError> {
    let mut problems = Vec::new();
    let mut any_answered = false;
    let attempts = (0..config.attempts).flat_map(|_| &config.servers);
    for &server in attempts {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        let problem =
            match query_server(transport, server, name, deadline.min(now + config.timeout)) {
                Err(LookupError::NoResponse(problem)) => problem,
                Err(LookupError::ServerFailure(problem)) => {
                    any_answered = true;
                    problem
                }
                conclusive => return conclusive,
            };
        let problem = format!("the name server {} {problem}", server.ip());
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() {
        return Err(LookupError::NoResponse("timed out before any name server was asked".into()));
    }
    let why = problems.join(", ");
    Err(if any_answered { LookupError::ServerFailure(why) } else { LookupError::NoResponse(why) })
}

/// Queries one server for both address families, and combines what it answers by `until`.
fn query_server(
    transport: &Transport,
    server: SocketAddr,
    name: &Name,
    until: Instant,
) -> Result<Vec<IpAddr>, LookupError> {
    let queries = [DnsQueryType::A, DnsQueryType::Aaaa].map(|kind| Query {
        id: random_id(),
        name: name.clone(),
        kind,
    });
    exchange(transport, server, &queries, until)
        .map_err(|error| LookupError::NoResponse(server_problem(&error)))
        .and_then(combined)
}

/// Sends all queries and collects the answers; over UDP if the network has it.
fn exchange(
    transport: &Transport,
    server: SocketAddr,
    queries: &[Query],
    until: Instant,
) -> io::Result<Vec<Answer>> {
    if let Transport::Own(_) = transport {
        // xget's own network has no UDP, and every name server accepts TCP (RFC 7766).
        return queries.iter().map(|q| query_over_tcp(transport, server, q, until)).collect();
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
        let received = remaining(wait_until)
            .and_then(|remaining| socket.set_read_timeout(Some(remaining)))
            .and_then(|()| socket.recv(&mut buffer));
        let datagram = match received {
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if answers.is_empty() => return Err(error),
            Err(_) => break,
        };
        let read = |(i, query): (usize, &&Query)| Some((i, query.read_answer(datagram)?));
        let Some((i, mut answer)) = pending.iter().enumerate().find_map(read) else { continue };
        let query = pending.swap_remove(i);
        if answer == Answer::Truncated {
            answer = query_over_tcp(transport, server, query, until).unwrap_or_else(|error| {
                Answer::Failed(format!("cannot be asked over TCP: {}", reason(&error)))
            });
        }
        if matches!(answer, Answer::Addresses(_) | Answer::NoSuchName) {
            wait_until = until.min(Instant::now() + OTHER_FAMILY_WAIT);
        }
        answers.push(answer);
    }
    Ok(answers)
}

/// Sends one query over TCP (RFC 1035, section 4.2.2; RFC 7766).
fn query_over_tcp(
    transport: &Transport,
    server: SocketAddr,
    query: &Query,
    until: Instant,
) -> io::Result<Answer> {
    let message = query.encode();
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut stream = transport.call(server, remaining(until)?)?;
    stream.set_write_timeout(Some(remaining(until)?))?;
    stream.write_all(&[length.to_be_bytes().as_slice(), &message].concat())?;
    let mut length = [0; 2];
    read_exact_until(&mut stream, &mut length, until)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    read_exact_until(&mut stream, &mut message, until)?;
    Ok(match query.read_answer(&message) {
        None | Some(Answer::Truncated) => Answer::malformed(),
        Some(answer) => answer,
    })
}

/// Fills `buffer` by `until`, however slowly the bytes arrive.
fn read_exact_until(
    stream: &mut TcpStream,
    mut buffer: &mut [u8],
    until: Instant,
) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(remaining(until)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = buffer.get_mut(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time until `until`; an error instead of zero, which would disable a socket's timeout.
fn remaining(until: Instant) -> io::Result<Duration> {
    let remaining = until.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

/// Hard to guess, so that an answer is hard to forge: a hash with the random keys of [`RandomState`].
fn random_id() -> u16 {
    RandomState::new().build_hasher().finish() as u16
}

/// What an error of the socket says about the server, as in "the name server X ...".
fn server_problem(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "does not answer".into(),
        ErrorKind::ConnectionRefused => "refuses connections".into(),
        _ => format!("cannot be asked: {}", reason(error)),
    }
}

/// Combines a server's answers for the two address families; one may be missing.
fn combined(answers: Vec<Answer>) -> Result<Vec<IpAddr>, LookupError> {
    let both_answered = answers.len() == 2;
    let (mut addresses, mut no_such_name, mut failure) = (Vec::new(), false, None);
    for answer in answers {
        match answer {
            Answer::Addresses(more) => addresses.extend(more),
            Answer::NoSuchName => no_such_name = true,
            Answer::Failed(why) => failure = Some(why),
            Answer::NoAddress | Answer::Truncated => {}
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    if no_such_name {
        return Err(LookupError::NoSuchName);
    }
    Err(match failure {
        Some(why) => LookupError::ServerFailure(why),
        None if both_answered => LookupError::NoAddress,
        None => LookupError::NoResponse("sends a truncated answer".into()),
    })
}
