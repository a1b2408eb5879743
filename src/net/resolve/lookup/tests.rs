//! Against a name server made of a thread.

use std::net::{TcpListener, UdpSocket};
use std::thread;

use super::*;
use crate::net::resolve::candidates;
use crate::net::resolve::dns::tests::{OTHER_V4, V4, V6, a_record, query, response};

/// A name server on 127.0.0.1: sends back, for each query, the datagrams that `datagrams` makes,
/// and over TCP what `over_tcp` makes.
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

/// A response with the address of the family that is asked for.
fn answer(query: &[u8]) -> Vec<u8> {
    let address = if query[query.len() - 3] == 28 { V6 } else { V4 };
    response(query, 0, 1, &a_record(b"\xc0\x0c", address))
}

fn without_tcp(_: &[u8]) -> Vec<u8> {
    panic!("nobody should ask over TCP")
}

/// Looks `node` up with short timeouts.
fn look_up_node(servers: &[SocketAddr], search: &[&str]) -> Result<Vec<IpAddr>, Miss> {
    let config = Config {
        servers: servers.to_vec(),
        search: search.iter().map(|&domain| domain.to_owned()).collect(),
        ndots: 1,
        timeout: Duration::from_millis(400),
        attempts: 2,
    };
    let names = candidates("node", &config).unwrap();
    look_up(&Transport::Kernel, &names, &config, Instant::now() + Duration::from_secs(20))
}

#[test]
fn both_families_are_asked_for() {
    let server = name_server(|query| vec![answer(query)], without_tcp);
    assert_eq!(look_up_node(&[server], &[]), Ok(vec![V4, V6]));
}

#[test]
fn forged_ids_and_forged_senders_are_passed_over() {
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
fn a_stranger_who_knows_the_id_is_not_heard() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let asked = thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(10);
        exchange(&Transport::Kernel, address, &[query()], until).unwrap()
    });
    let mut buffer = [0; 600];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    let forged = response(&buffer[..length], 0, 1, &a_record(b"\xc0\x0c", OTHER_V4));
    stranger.send_to(&forged, from).unwrap();
    server.send_to(&answer(&buffer[..length]), from).unwrap();
    assert_eq!(asked.join().unwrap(), [Answer::Addresses(vec![V4])]);
}

#[test]
fn a_silent_server_is_named_and_the_next_one_asked() {
    let silent = name_server(|_| vec![], without_tcp);
    let good = name_server(|query| vec![answer(query)], without_tcp);
    assert_eq!(look_up_node(&[silent, good], &[]), Ok(vec![V4, V6]));
    let why = "the name server 127.0.0.1 does not answer";
    assert_eq!(look_up_node(&[silent], &["a", "b"]), Err(Miss::Silent(why.into())));
}

#[test]
fn a_lost_query_is_sent_again() {
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
fn a_port_without_a_server_is_told() {
    let unused = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = "the name server 127.0.0.1 refuses connections";
    assert_eq!(look_up_node(&[unused], &[]), Err(Miss::Silent(why.into())));
}

#[test]
fn one_family_is_enough() {
    let is_a = |query: &[u8]| query[query.len() - 3] == 1;
    let server = name_server(
        move |query| if is_a(query) { vec![answer(query)] } else { vec![] },
        without_tcp,
    );
    assert_eq!(look_up_node(&[server], &[]), Ok(vec![V4]));
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp() {
    let truncated = |query: &[u8]| vec![response(query, 0x200, 0, b"")];
    let mut found = look_up_node(&[name_server(truncated, answer)], &[]).unwrap();
    found.sort();
    assert_eq!(found, [V4, V6]);

    let server = name_server(truncated, |query| response(query, 0x200, 0, b""));
    let why = "the name server 127.0.0.1 sends malformed answers";
    assert_eq!(look_up_node(&[server], &[]), Err(Miss::Failed(why.into())));
}

#[test]
fn a_refusal_for_one_domain_does_not_end_the_search() {
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
fn a_missing_name_and_a_missing_address_are_told_apart() {
    let server = name_server(|query| vec![response(query, 3, 0, b"")], without_tcp);
    let miss = look_up_node(&[server], &["a"]).unwrap_err();
    assert_eq!(miss.to_string(), "no such host");

    let server = name_server(|query| vec![response(query, 0, 0, b"")], without_tcp);
    let miss = look_up_node(&[server], &["a"]).unwrap_err();
    assert_eq!(miss.to_string(), "the name has no address record");
}

#[test]
fn a_deadline_that_is_over_asks_nobody() {
    let config = Config::parse("", |_| None);
    let names = candidates("node", &config).unwrap();
    let miss = look_up(&Transport::Kernel, &names, &config, Instant::now()).unwrap_err();
    assert_eq!(miss.to_string(), "timed out before any name server was asked");
}
