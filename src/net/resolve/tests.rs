//! The pure half on texts and bytes, then all of it against a name server made of a thread.

use std::net::{TcpListener, UdpSocket};
use std::thread;

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 6, 6, 6));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(text: &str) -> Config {
    Config::parse(text, |zone| (zone == "eth0").then_some(3))
}

fn query() -> Query {
    Query { id: 0x1234, name: Name::new("node.example").unwrap(), kind: DnsQueryType::A }
}

/// The response to `query` with these flags, records and their count.
fn response(query: &[u8], flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&(0x8000 | flags).to_be_bytes());
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    [bytes, records.to_vec()].concat()
}

/// A record; the name `\xc0\x0c` points to the question's.
fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 9], &length, data].concat()
}

fn a_record(name: &[u8], address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => record(name, 1, &v4.octets()),
        IpAddr::V6(v6) => record(name, 28, &v6.octets()),
    }
}

/// What `query()` makes of a response with these records.
fn read(flags: u16, count: u16, records: &[u8]) -> Option<Answer> {
    query().read_answer(&response(&query().encode(), flags, count, records))
}

#[test]
fn hosts_and_ports_are_split() {
    let split = |text| split_host_port(text).unwrap();
    assert_eq!(split("node"), ("node".into(), None));
    assert_eq!(split("node:80"), ("node".into(), Some(80)));
    assert_eq!(split("10.0.0.1:65535"), ("10.0.0.1".into(), Some(65535)));
    assert_eq!(split("fe80::1"), ("fe80::1".into(), None));
    assert_eq!(split("[fe80::1]"), ("fe80::1".into(), None));
    assert_eq!(split("[fe80::1%eth0]:80"), ("fe80::1%eth0".into(), Some(80)));
}

#[test]
fn what_is_no_host_and_port_is_refused_with_a_reason() {
    let why = |text: &str| split_host_port(text).unwrap_err();
    for port in ["", "0", "65536", "+80", "-1", "8o"] {
        assert_eq!(why(&format!("n:{port}")), format!("\"{port}\" is not a port (1 to 65535)"));
    }
    assert_eq!(why(""), "\"\" has no host name");
    assert_eq!(why(":80"), "\":80\" has no host name");
    assert_eq!(why("[::1"), "\"[::1\" lacks the closing ]");
    assert_eq!(why("[::1]80"), "expected :PORT after ], not \"80\"");
    assert_eq!(why("[node]:80"), "\"node\" is not an IPv6 address");
    assert_eq!(why("a:b:c"), "\"a:b:c\" is not an IPv6 address");
}

#[test]
fn literals_need_no_look_up() {
    let until = Instant::now();
    assert_eq!(resolve(&Transport::Kernel, "10.0.0.7", until).unwrap(), [V4]);
    assert_eq!(resolve(&Transport::Kernel, "2001:db8::7", until).unwrap(), [V6]);
    assert_eq!(resolve(&Transport::Kernel, "[2001:db8::7]", until).unwrap(), [V6]);
    for localhost in ["localhost", "LocalHost.", "a.localhost"] {
        assert_eq!(
            resolve(&Transport::Kernel, localhost, until).unwrap(),
            [ip("127.0.0.1"), ip("::1")]
        );
    }
}

#[test]
fn what_can_be_no_host_is_refused_before_any_server_is_asked() {
    let why = |host| resolve(&Transport::Kernel, host, Instant::now()).unwrap_err().to_string();
    let text = |host, why| format!("cannot resolve {host}: {why}");
    assert_eq!(why("10.0.0.300"), text("10.0.0.300", "not an IPv4 address"));
    assert_eq!(why("[10.0.0.1]"), text("[10.0.0.1]", "not an IPv6 address"));
    assert_eq!(why("fe80::1%2"), text("fe80::1%2", "addresses with a zone (%) are not supported"));
    let long = "a".repeat(64);
    for host in ["", "a..b", "a:80", "a b", "n\u{f6}de", &long, &"a.".repeat(128)] {
        assert_eq!(why(host), text(host, "not a valid host name"));
    }
}

#[test]
fn the_longest_names_still_fit() {
    assert!(Name::new(&"a".repeat(63)).is_some());
    assert_eq!(Name::new(&"a.".repeat(127)).unwrap().0.len(), MAX_DNS_NAME_BYTES);
}

#[test]
fn hosts_are_found_by_any_of_their_names() {
    let hosts = "# 10.0.0.1 node\n10.0.0.7\tfull.example Node # 10.0.0.2\nfe80::1%lo node\n\
                 junk node\n2001:db8::7 node\n10.0.0.9 other";
    assert_eq!(addresses_in_hosts(hosts, "nODE."), [V4, V6]);
    assert_eq!(addresses_in_hosts(hosts, "full.example"), [V4]);
    assert!(addresses_in_hosts(hosts, "10.0.0.2").is_empty());
    assert!(addresses_in_hosts(hosts, "").is_empty());
}

#[test]
fn an_empty_resolv_conf_asks_the_local_server() {
    let local = Config {
        servers: vec!["127.0.0.1:53".parse().unwrap()],
        search: vec![],
        ndots: 1,
        timeout: Duration::from_secs(5),
        attempts: 2,
    };
    assert_eq!(config(""), local);
    assert_eq!(config("nameserver\nnameserver node\noptions rotate ndots:x\nx"), local);
}

#[test]
fn resolv_conf_is_understood() {
    let full = config(
        "; comment\nnameserver 10.0.0.1 # first\nnameserver fe80::1%eth0\nnameserver fe80::1%no\n\
         nameserver 10.0.0.2\nnameserver 10.0.0.3\ndomain gone\nsearch a.example b.example\n\
         options ndots:99 timeout:0 attempts:3",
    );
    let servers = ["10.0.0.1:53", "[fe80::1%3]:53", "10.0.0.2:53"].map(|s| s.parse().unwrap());
    assert_eq!(full.servers, servers);
    assert_eq!(full.search, ["a.example", "b.example"]);
    assert_eq!((full.ndots, full.timeout.as_secs(), full.attempts), (15, 1, 3));
}

#[test]
fn the_search_list_is_tried_first_for_names_of_few_dots() {
    let config = config("search a.example b..bad b.example.\noptions ndots:2");
    let names = |host| candidates(host, &config).unwrap();
    let wire = |names: &[&str]| names.iter().map(|n| Name::new(n).unwrap()).collect::<Vec<_>>();
    assert_eq!(names("n.x"), wire(&["n.x.a.example", "n.x.b.example", "n.x"]));
    assert_eq!(names("n.x.y"), wire(&["n.x.y", "n.x.y.a.example", "n.x.y.b.example"]));
    assert_eq!(names("n."), wire(&["n"]));
}

#[test]
fn addresses_with_a_route_come_first_and_none_twice() {
    let list = |texts: &[&str]| texts.iter().map(|t| ip(t)).collect::<Vec<_>>();
    let all = list(&["fd00::1", "10.0.0.2", "10.0.0.1", "2001:db8::1", "10.0.0.2"]);
    let sorted = best_first(all.clone(), |_| true);
    assert_eq!(sorted, list(&["2001:db8::1", "10.0.0.2", "10.0.0.1", "fd00::1"]));
    let sorted = best_first(all, |address| address.is_ipv4());
    assert_eq!(sorted, list(&["10.0.0.2", "10.0.0.1", "2001:db8::1", "fd00::1"]));
}

#[test]
fn a_query_is_as_rfc_1035_draws_it() {
    let mut wire = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    wire.extend(b"\x04node\x07example\0\0\x01\0\x01");
    assert_eq!(query().encode(), wire);
}

#[test]
fn addresses_are_read() {
    let records = [a_record(b"\xc0\x0c", V4), a_record(b"\xc0\x0c", OTHER_V4)].concat();
    assert_eq!(read(0, 2, &records), Some(Answer::Addresses(vec![V4, OTHER_V4])));
}

#[test]
fn an_answer_may_spell_the_name_in_other_letters() {
    let upper = query().encode().to_ascii_uppercase();
    let record = a_record(b"\x04NodE\x07eXample\0", V4);
    let answer = query().read_answer(&response(&upper, 0, 1, &record));
    assert_eq!(answer, Some(Answer::Addresses(vec![V4])));
}

#[test]
fn aliases_are_followed_in_any_order_and_strangers_left_out() {
    let records = [
        a_record(b"\x01x\0", OTHER_V4),
        a_record(b"\x01c\0", V4),
        record(b"\x01b\0", 5, b"\x01c\0"),
        record(b"\xc0\x0c", 16, b"text"),
        record(b"\xc0\x0c", 5, b"\x01b\0"),
    ];
    assert_eq!(read(0, 5, &records.concat()), Some(Answer::Addresses(vec![V4])));
    assert_eq!(read(0, 1, &record(b"\xc0\x0c", 5, b"\x01b\0")), Some(Answer::NoAddress));
}

#[test]
fn aliases_in_a_circle_come_to_an_end() {
    let circle = [record(b"\xc0\x0c", 5, b"\x01b\0"), record(b"\x01b\0", 5, b"\xc0\x0c")].concat();
    assert!(matches!(read(0, 2, &circle), Some(Answer::Useless(_))));
}

#[test]
fn no_name_no_address_and_failures_are_told_apart() {
    assert_eq!(read(0, 0, b""), Some(Answer::NoAddress));
    assert_eq!(read(3, 0, b""), Some(Answer::NoSuchName));
    assert_eq!(read(0x200, 0, b""), Some(Answer::Truncated));
    for (rcode, why) in [
        (2, "reports a server failure"),
        (4, "reports error 4"),
        (5, "refuses the query"),
        (15, "reports error 15"),
    ] {
        assert_eq!(read(rcode, 0, b""), Some(Answer::Useless(why.into())));
    }
}

#[test]
fn answers_to_other_questions_are_passed_over() {
    let sent = query().encode();
    assert_eq!(query().read_answer(&sent), None, "a query is no answer");
    let good = response(&sent, 0, 0, b"");
    let type_at = good.len() - 3;
    for (at, byte) in [(1, 0x35), (2, 0x90), (5, 2), (13, b'm'), (type_at, 28), (type_at + 2, 3)] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        assert_eq!(query().read_answer(&bytes), None, "byte {at}");
    }
}

#[test]
fn garbled_records_are_told() {
    let garbled = Some(Answer::garbled());
    assert_eq!(read(0, 1, b""), garbled, "missing");
    assert_eq!(read(0, 1, &record(b"\xc0\x0c", 1, b"123")), garbled, "a short address");
    assert_eq!(read(0, 1, &record(b"\xc0\x0c", 5, b"\x05ab")), garbled, "a short name");
    assert_eq!(read(0, 1, &record(b"\x80\x0c", 1, b"1234")), garbled, "a reserved label");
    assert_eq!(read(0, 1, &record(b"\xff\xff", 1, b"1234")), garbled, "a pointer outside");
    let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
    assert_eq!(read(0, 1, &record(&[&long, &b"\0"[..]].concat(), 1, b"1234")), garbled, "long");
}

#[test]
fn names_that_point_in_circles_come_to_an_end() {
    let name_at = query().encode().len() as u8;
    for name in [b"\xc0".as_slice(), b"\x01a\xc0"] {
        let name = [name, &[name_at]].concat();
        assert_eq!(read(0, 1, &record(&name, 1, b"1234")), Some(Answer::garbled()));
    }
    let data_at = name_at + 12;
    for data in [[0xc0, data_at, 0, 0], [0xc0, data_at + 2, 0xc0, data_at]] {
        assert_eq!(read(0, 1, &record(b"\xc0\x0c", 5, &data)), Some(Answer::garbled()));
    }
}

#[test]
fn the_most_expensive_message_is_read_quickly() {
    let mut chain = vec![0xc0, 0x0c];
    let start = query().encode().len() + 12;
    while start + chain.len() < 0x3fff {
        chain.extend((0xc000 | (start + chain.len() - 2) as u16).to_be_bytes());
    }
    let last = [chain[chain.len() - 2], chain[chain.len() - 1]];
    let mut records = record(b"\xc0\x0c", 16, &chain);
    while records.len() < 65000 {
        records.extend(record(&last, 5, &last));
    }
    let begun = Instant::now();
    let endless = Answer::Useless("sends too many aliases (CNAME)".into());
    assert_eq!(read(0, u16::MAX, &records), Some(endless), "each name is the question's");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn no_damage_to_a_message_makes_the_reader_panic() {
    let alias = record(b"\xc0\x0c", 5, b"\x01b\xc0\x11");
    let records = [alias, a_record(b"\x01b\xc0\x11", V4), a_record(b"\xc0\x0c", V6)].concat();
    let good = response(&query().encode(), 0, 3, &records);
    for length in 0..good.len() {
        query().read_answer(&good[..length]);
    }
    for at in 0..good.len() {
        for byte in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = byte;
            query().read_answer(&bytes);
        }
    }
    let mut seed = 1_u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            bytes[(seed >> 40) as usize % good.len()] = (seed >> 32) as u8;
        }
        query().read_answer(&bytes);
    }
}

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
    let config = config("");
    let names = candidates("node", &config).unwrap();
    let miss = look_up(&Transport::Kernel, &names, &config, Instant::now()).unwrap_err();
    assert_eq!(miss.to_string(), "timed out before any name server was asked");
}
