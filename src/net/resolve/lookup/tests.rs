//! Look-ups with name servers that are threads of the test.

use std::net::{TcpListener, UdpSocket};
use std::thread;

use super::*;
use crate::net::resolve::dns::tests::{OTHER_V4, V4, V6, a_record, query, response};
use crate::net::resolve::names_to_query;

/// Starts a name server on 127.0.0.1. It replies to each query with the datagrams that `datagrams` returns,
/// and over TCP with what `over_tcp` returns.
fn name_server(
    mut datagrams: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    over_tcp: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
) -> SocketAddr {
    let (listener, socket) = loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
            break (listener, socket);
        }
    };
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 600];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for datagram in datagrams(&buffer[..length]) {
                socket.send_to(&datagram, from).unwrap();
            }
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut length) = (stream.unwrap(), [0; 2]);
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            let answer = over_tcp(&query);
            for byte in [&(answer.len() as u16).to_be_bytes(), &answer[..]].concat() {
                stream.write_all(&[byte]).unwrap();
            }
        }
    });
    address
}

/// A response with an address of the family that the query asks for.
fn answer(query: &[u8]) -> Vec<u8> {
    let address = if query[query.len() - 3] == 28 { V6 } else { V4 };
    response(query, 0, 1, &a_record(b"\xc0\x0c", address))
}

fn without_tcp(_: &[u8]) -> Vec<u8> {
    panic!("no query should use TCP")
}

fn truncated(query: &[u8]) -> Vec<Vec<u8>> {
    vec![response(query, 0x200, 0, b"")]
}

/// Looks up `node` with short timeouts.
fn look_up_node(servers: &[SocketAddr], search: &[&str]) -> Result<Vec<IpAddr>, LookupError> {
    let config = ResolvConf {
        servers: servers.to_vec(),
        search: search.iter().map(|&domain| domain.to_owned()).collect(),
        ndots: 1,
        timeout: Duration::from_millis(400),
        attempts: 2,
    };
    let names = names_to_query("node", &config).unwrap();
    look_up(&Transport::Kernel, &names, &config, Instant::now() + Duration::from_secs(20))
}

#[test]
fn both_address_families_are_looked_up() {
    let server = name_server(|query| vec![answer(query)], without_tcp);
    assert_eq!(look_up_node(&[server], &[]), Ok(vec![V4, V6]));
}

#[test]
fn invalid_datagrams_and_wrong_ids_are_ignored() {
    let server = name_server(
        |query| {
            let mut forged = response(query, 0, 1, &a_record(b"\xc0\x0c", OTHER_V4));
            forged[0] ^= 1;
            vec![b"junk".to_vec(), forged, answer(query)]
        },
        without_tcp,
    );
    assert_eq!(look_up_node(&[server], &[]), Ok(vec![V4, V6]));
}

#[test]
fn an_answer_from_another_address_is_ignored() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let asked = thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(10);
        exchange(&Transport::Kernel, address, &[query()], until).unwrap()
    });
    let mut buffer = [0; 600];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    let forged = response(&buffer[..length], 0, 1, &a_record(b"\xc0\x0c", OTHER_V4));
    other.send_to(&forged, from).unwrap();
    server.send_to(&answer(&buffer[..length]), from).unwrap();
    assert_eq!(asked.join().unwrap(), [Answer::Addresses(vec![V4])]);
}

#[test]
fn after_a_server_that_does_not_answer_the_next_one_is_asked() {
    let silent = name_server(|_| vec![], without_tcp);
    let good = name_server(|query| vec![answer(query)], without_tcp);
    assert_eq!(look_up_node(&[silent, good], &[]), Ok(vec![V4, V6]));
}

#[test]
fn a_server_that_does_not_answer_is_reported() {
    let silent = name_server(|_| vec![], without_tcp);
    let why = "the name server 127.0.0.1 does not answer";
    assert_eq!(look_up_node(&[silent], &["a", "b"]), Err(LookupError::NoResponse(why.into())));
}

#[test]
fn a_lost_query_is_repeated() {
    let mut seen = 0;
    let server = name_server(
        move |query| {
            seen += 1;
            if seen <= 2 { vec![] } else { vec![answer(query)] }
        },
        without_tcp,
    );
    assert_eq!(look_up_node(&[server], &[]), Ok(vec![V4, V6]));
}

#[test]
fn a_server_that_refuses_connections_is_reported() {
    let unused = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = "the name server 127.0.0.1 refuses connections";
    assert_eq!(look_up_node(&[unused], &[]), Err(LookupError::NoResponse(why.into())));
}

#[test]
fn an_answer_for_one_address_family_is_enough() {
    let is_a = |query: &[u8]| query[query.len() - 3] == 1;
    let server = name_server(
        move |query| if is_a(query) { vec![answer(query)] } else { vec![] },
        without_tcp,
    );
    assert_eq!(look_up_node(&[server], &[]), Ok(vec![V4]));
}

#[test]
fn a_query_with_a_truncated_answer_is_repeated_over_tcp() {
    let mut found = look_up_node(&[name_server(truncated, answer)], &[]).unwrap();
    found.sort();
    assert_eq!(found, [V4, V6]);
}

#[test]
fn a_truncated_answer_over_tcp_is_malformed() {
    let server = name_server(truncated, |query| response(query, 0x200, 0, b""));
    let why = "the name server 127.0.0.1 sends malformed answers";
    assert_eq!(look_up_node(&[server], &[]), Err(LookupError::ServerFailure(why.into())));
}

#[test]
fn a_refused_query_for_one_search_domain_does_not_end_the_search() {
    let server = name_server(
        |query| match query[17] {
            0 => vec![answer(query)],
            1 => vec![response(query, 5, 0, b"")],
            _ => vec![response(query, 3, 0, b"")],
        },
        without_tcp,
    );
    assert_eq!(look_up_node(&[server], &["a", "bb"]), Ok(vec![V4, V6]));
}

#[test]
fn a_name_that_does_not_exist_is_an_error() {
    let server = name_server(|query| vec![response(query, 3, 0, b"")], without_tcp);
    let error = look_up_node(&[server], &["a"]).unwrap_err();
    assert_eq!(error.to_string(), "no such host");
}

#[test]
fn a_name_without_an_address_is_an_error() {
    let server = name_server(|query| vec![response(query, 0, 0, b"")], without_tcp);
    let error = look_up_node(&[server], &["a"]).unwrap_err();
    assert_eq!(error.to_string(), "the name has no address record");
}

#[test]
fn after_the_deadline_no_server_is_asked() {
    let config = ResolvConf::parse("", |_| None);
    let names = names_to_query("node", &config).unwrap();
    let error = look_up(&Transport::Kernel, &names, &config, Instant::now()).unwrap_err();
    assert_eq!(error.to_string(), "timed out before any name server was asked");
}
