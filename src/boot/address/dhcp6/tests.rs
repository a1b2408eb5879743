use super::*;
use crate::random::next_random;
use crate::testing::for_seeds;

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
const LINK: u32 = 3;
const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The server's identifier.
const SERVER: [u8; 4] = [0, 9, 0, 1];

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn option(number: u16, data: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
}

/// An IA_NA of this client, with these times and what is in it.
fn association(times: [u32; 2], inside: &[u8]) -> Vec<u8> {
    let times = times.map(u32::to_be_bytes).concat();
    option(3, &[&MAC[2..], &times, inside].concat())
}

fn address(text: &str, preferred: u32, valid: u32) -> Vec<u8> {
    let times = [preferred, valid].map(u32::to_be_bytes).concat();
    option(5, &[&v6(text).octets()[..], &times].concat())
}

fn leased(text: &str) -> Vec<u8> {
    association([1800, 2880], &address(text, 3000, 3600))
}

fn status(code: u16, text: &str) -> Vec<u8> {
    option(13, &[&code.to_be_bytes(), text.as_bytes()].concat())
}

/// The options of a message that the client has sent.
fn options(message: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let (mut rest, mut found) = (&message[4..], Vec::new());
    while let [a, b, c, d, data @ ..] = rest {
        let (now, later) = data.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        found.push((u16::from_be_bytes([*a, *b]), now.to_vec()));
        rest = later;
    }
    found
}

fn of(message: &[u8], number: u16) -> Option<Vec<u8>> {
    options(message).into_iter().find(|(n, _)| *n == number).map(|(_, data)| data)
}

/// A link on which somebody asks; the test plays the servers.
struct Node {
    dhcp: Dhcp6,
    now: Instant,
    /// What was sent last.
    sent: Vec<u8>,
}

impl Node {
    fn new(wanted: Wanted) -> Node {
        Node::with_seed(wanted, 1)
    }

    fn with_seed(wanted: Wanted, seed: u64) -> Node {
        let mut dhcp = Dhcp6::new(Identity::default(), seed);
        let place = Place {
            link: LINK,
            name: "eth0".into(),
            mac: Some(MAC),
            source: v6("fe80::a"),
            wanted,
        };
        let now = Instant::now();
        dhcp.run_on(&[place], now);
        Node { dhcp, now, sent: Vec::new() }
    }

    /// Goes on to when something is sent; its type.
    fn sends(&mut self) -> u8 {
        for _ in 0..3 {
            self.now = self.dhcp.next_wake().expect("it waits for something").max(self.now);
            if let Some((link, packet)) = self.dhcp.poll(self.now).pop() {
                assert_eq!(link, LINK);
                self.sent = packet;
                return self.sent[0];
            }
        }
        panic!("nothing is sent");
    }

    /// An answer to what was sent last, with these options besides both identifiers.
    fn answer(&mut self, kind: u8, server: &[u8], more: &[&[u8]]) -> Option<Outcome> {
        let client = of(&self.sent, 1).unwrap();
        let head = [&[kind], &self.sent[1..4]].concat();
        let message = [&head[..], &option(1, &client), &option(2, server), &more.concat()].concat();
        self.dhcp.receive(LINK, FROM, &message, self.now)
    }

    fn hears(&mut self, kind: u8, more: &[&[u8]]) -> Option<Outcome> {
        self.answer(kind, &SERVER, more)
    }

    /// A server offers this, and gives it.
    fn is_given(&mut self, what: &[u8]) -> Option<Outcome> {
        self.hears(2, &[what, &option(7, &[255])]);
        if self.sends() == 3 { self.hears(7, &[what]) } else { None }
    }

    fn wait_for_next(&self) -> Duration {
        self.dhcp.next_wake().unwrap().duration_since(self.now)
    }
}

fn lease(outcome: Option<Outcome>) -> Lease {
    match outcome {
        Some(Outcome::Lease(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

// ---- what is asked

#[test]
fn a_solicit_asks_for_an_address_and_for_what_belongs_to_it() {
    let mut node = Node::new(Wanted::Address);
    assert_eq!(node.sends(), 1);
    assert_eq!(of(&node.sent, 1), Some([&[0, 3, 0, 1], &MAC[..]].concat()), "DUID-LL");
    let wanted = [23u16, 24, 59, 60, 82].map(u16::to_be_bytes).concat();
    assert_eq!(of(&node.sent, 6), Some(wanted));
    assert_eq!(of(&node.sent, 8), Some(vec![0, 0]), "no time has passed");
    assert_eq!(of(&node.sent, 3), Some([&MAC[2..], &[0; 8]].concat()));
    assert_eq!(of(&node.sent, 14), None, "nobody is to give one before the best offer is known");
    node.sends();
    let hundredths = of(&node.sent, 8).unwrap();
    assert!(u16::from_be_bytes([hundredths[0], hundredths[1]]) >= 100);
}

#[test]
fn a_machine_with_a_number_of_its_own_is_known_by_that_and_says_what_firmware_it_has() {
    let identity = Identity { uuid: Some([0xab; 16]), architecture: Some(7) };
    let solicit = Asker { identity, mac: Some(MAC), source: FROM }.solicit(1, Duration::ZERO);
    assert_eq!(of(&solicit, 1), Some([&[0, 4], &[0xab; 16][..]].concat()), "RFC 6355");
    assert_eq!(of(&solicit, 61), Some(vec![0, 7]), "RFC 5970");
    let class = of(&solicit, 16).unwrap();
    assert_eq!(class[..6], [0, 0, 1, 87, 0, 32]);
    assert_eq!(class[6..], b"PXEClient:Arch:00007:UNDI:003016"[..]);
}

#[test]
fn a_link_that_is_no_ethernet_is_known_by_its_own_address() {
    let identity = Identity::default();
    let asker = Asker { identity, mac: None, source: v6("fe80::211:75ff:fe77:1234") };
    let solicit = asker.solicit(1, Duration::ZERO);
    let id = [0x02, 0x11, 0x75, 0xff, 0xfe, 0x77, 0x12, 0x34];
    assert_eq!(of(&solicit, 1), Some([&[0, 3, 0, 27], &id[..]].concat()));
    assert_eq!(of(&solicit, 3).unwrap()[..4], id[4..]);
}

#[test]
fn an_offer_is_taken_from_its_server_and_the_address_is_set() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    let dns = option(23, &v6("2001:db8::53").octets());
    let domains = option(24, b"\x07cluster\x03org\x00");
    let url = option(59, b"xget://[2001:db8::9]:7000/images/node.squashfs");
    let more: [&[u8]; 4] = [&leased("2001:db8::10"), &dns, &domains, &url];
    assert_eq!(node.hears(2, &more), None);
    let first = node.sent[1..4].to_vec();
    assert_eq!(node.sends(), 3);
    assert_ne!(node.sent[1..4], first, "a new number");
    assert_eq!(of(&node.sent, 2), Some(SERVER.to_vec()));
    let association = of(&node.sent, 3).unwrap();
    assert_eq!(association[16..32], v6("2001:db8::10").octets());
    let lease = lease(node.hears(7, &more));
    assert_eq!(lease.address, v6("2001:db8::10"));
    assert_eq!((lease.preferred, lease.valid), (Some(seconds(3000)), Some(seconds(3600))));
    assert_eq!(lease.told.name_servers, [std::net::IpAddr::from(v6("2001:db8::53"))]);
    assert_eq!(lease.told.domains, ["cluster.org"]);
    assert_eq!(lease.told.boot_server.unwrap().to_string(), "[2001:db8::9]:7000");
    assert_eq!(node.dhcp.next_wake(), None, "nothing more is asked");
}

#[test]
fn where_there_are_addresses_already_only_the_rest_is_asked_for() {
    let mut node = Node::new(Wanted::Information);
    assert_eq!(node.sends(), 11);
    assert_eq!((of(&node.sent, 3), of(&node.sent, 14)), (None, None));
    let dns = option(23, &v6("2001:db8::53").octets());
    // Such an answer may be without the client's identifier.
    let message = [&[7], &node.sent[1..4], &option(2, &SERVER), &dns].concat();
    let outcome = node.dhcp.receive(LINK, FROM, &message, node.now);
    let Some(Outcome::Information(told)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(told.name_servers.len(), 1);
}

// ---- which offer

#[test]
fn the_first_wait_is_for_better_offers_and_then_the_first_is_taken() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    node.answer(2, b"one", &[&leased("2001:db8::1"), &option(7, &[10])]);
    node.answer(2, b"two", &[&leased("2001:db8::2"), &option(7, &[20])]);
    node.answer(2, b"three", &[&leased("2001:db8::3")]);
    assert!(node.wait_for_next() >= seconds(1));
    assert_eq!((node.sends(), of(&node.sent, 2)), (3, Some(b"two".to_vec())));

    let mut node = Node::new(Wanted::Address);
    assert_eq!((node.sends(), node.sends()), (1, 1));
    node.answer(2, b"late", &[&leased("2001:db8::1")]);
    assert_eq!(node.wait_for_next(), Duration::ZERO);
}

#[test]
fn a_server_of_the_highest_preference_is_taken_at_once() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    node.hears(2, &[&leased("2001:db8::1"), &option(7, &[255])]);
    assert_eq!((node.wait_for_next(), node.sends()), (Duration::ZERO, 3));
}

#[test]
fn of_equal_offers_one_that_names_a_boot_server_is_taken() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    node.answer(2, b"one", &[&leased("2001:db8::1")]);
    node.answer(2, b"two", &[&leased("2001:db8::2"), &option(59, b"tftp://head/x")]);
    assert_eq!((node.sends(), of(&node.sent, 2)), (3, Some(b"two".to_vec())));
}

// ---- nobody, refusals

#[test]
fn whoever_begins_to_answer_late_is_asked_within_10_seconds() {
    for wanted in [Wanted::Address, Wanted::Information] {
        let mut node = Node::new(wanted);
        let mut last = node.now;
        assert!(node.wait_for_next() <= seconds(1));
        for n in 0..30 {
            node.sends();
            let wait = node.now.duration_since(last);
            assert!(wait < seconds(8) && (n == 0 || wait > seconds(1)), "{wait:?}");
            last = node.now;
        }
        assert_eq!(node.dhcp.asked(LINK), 30);
    }
}

#[test]
fn a_server_that_does_not_confirm_its_offer_is_given_up() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    node.hears(2, &[&leased("2001:db8::1"), &option(7, &[255])]);
    for _ in 0..5 {
        assert_eq!(node.sends(), 3);
        assert_eq!(node.dhcp.requested_from(LINK), Some(FROM));
    }
    assert_eq!(node.sends(), 1);
}

#[test]
fn a_refusal_is_told_once_with_its_reason() {
    let refusals: [(&[u8], &str); 4] = [
        (&status(2, "pool \u{1b}[2J full"), "NoAddrsAvail): \"pool \\u{1b}[2J full\""),
        (&association([0, 0], &status(2, "")), "no address for this node (NoAddrsAvail)"),
        (&association([0, 0], &address("2001:db8::1", 1, 0)), "gives no address"),
        (&[], "gives no address"),
    ];
    for (refusal, text) in refusals {
        let mut node = Node::new(Wanted::Address);
        node.sends();
        assert_eq!(node.hears(2, &[refusal]), None);
        node.hears(2, &[refusal]);
        let warnings = node.dhcp.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(text), "{warnings:?}");
        assert_eq!(node.sends(), 1, "others are asked on");
        node.hears(2, &[refusal]);
        assert!(node.dhcp.take_warnings().is_empty());
    }
}

#[test]
fn an_offer_that_is_taken_back_begins_it_anew() {
    for (code, next) in [(2, 1), (4, 1), (9, 1), (1, 3), (5, 3)] {
        let mut node = Node::new(Wanted::Address);
        node.sends();
        node.hears(2, &[&leased("2001:db8::1"), &option(7, &[255])]);
        node.sends();
        assert_eq!(node.hears(7, &[&leased("2001:db8::1"), &status(code, "")]), None);
        assert_eq!(node.dhcp.take_warnings().len(), 1);
        assert!(node.wait_for_next() >= seconds(1), "it does not ask in a rush");
        assert_eq!(node.sends(), next, "status {code}");
    }
}

#[test]
fn an_address_that_somebody_else_has_is_given_back_and_another_asked_for() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    let given = lease(node.is_given(&leased("2001:db8::1")));
    node.dhcp.decline(LINK, &given, node.now);
    assert_eq!(node.sends(), 9);
    assert_eq!(of(&node.sent, 3).unwrap()[16..32], v6("2001:db8::1").octets());
    node.hears(7, &[]);
    assert_eq!(node.sends(), 1);
    // Whether or not the server takes note.
    let given = lease(node.is_given(&leased("2001:db8::1")));
    node.dhcp.decline(LINK, &given, node.now);
    assert_eq!([(); 5].map(|()| node.sends()), [9, 9, 9, 9, 1]);
}

// ---- what does not count

#[test]
fn answers_to_others_do_not_count() {
    let offer = leased("2001:db8::1");
    let mut node = Node::new(Wanted::Address);
    node.sends();
    let client = option(1, &of(&node.sent, 1).unwrap());
    let server = option(2, &SERVER);
    let number = node.sent[1..4].to_vec();
    let other = option(1, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 0x0b]);
    let mut hears = |message: Vec<u8>| {
        node.dhcp.receive(LINK, FROM, &message, node.now);
        node.dhcp.take_warnings()
    };
    let rest = [&client[..], &server, &offer, &option(7, &[255])].concat();
    assert!(hears([&[2, 9, 9, 9], &rest[..]].concat()).is_empty(), "another number");
    assert!(hears([&[10], &number[..], &rest].concat()).is_empty(), "another type");
    assert!(hears([&[2], &number[..], &other, &server, &offer].concat()).is_empty());
    assert!(hears([&[2], &number[..], &client, &offer].concat()).is_empty(), "no server");
    assert!(hears([&[2], &number[..], &client, &option(2, &[0; 131])].concat()).is_empty());
    assert_eq!(node.sends(), 1);
}

#[test]
fn a_message_that_is_cut_off_is_told_of_and_counts_for_nothing() {
    let whole = [leased("2001:db8::1"), option(23, &[0; 16])].concat();
    for length in 1..whole.len() {
        let is_between = length == leased("2001:db8::1").len();
        let mut node = Node::new(Wanted::Address);
        node.sends();
        node.hears(2, &[&whole[..length]]);
        let told = node.dhcp.take_warnings();
        assert_eq!(told.iter().any(|text| text.contains("is cut off")), !is_between, "{length}");
    }
}

#[test]
fn only_addresses_that_a_node_can_have_count() {
    let gives = |association: Vec<u8>| {
        let mut node = Node::new(Wanted::Address);
        node.sends();
        node.is_given(&association).is_some()
    };
    assert!(gives(leased("2001:db8::1")) && gives(leased("fd00::1")));
    for odd in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
        assert!(!gives(leased(odd)), "{odd}");
    }
    assert!(!gives(association([1800, 2880], &address("2001:db8::1", 3600, 3000))));
    assert!(!gives(association([2880, 1800], &address("2001:db8::1", 3000, 3600))), "T1 > T2");
    let other_number = option(3, &[&[9; 12], &address("2001:db8::1", 1, 2)[..]].concat());
    assert!(!gives(other_number));
    // The second of two is good.
    let two = [address("2001:db8::1", 0, 0), address("2001:db8::2", 1, 2)].concat();
    assert!(gives(association([0, 0], &two)));
}

#[test]
fn a_lease_may_be_for_ever() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    let given = association([u32::MAX; 2], &address("2001:db8::1", u32::MAX, u32::MAX));
    let lease = lease(node.is_given(&given));
    assert_eq!((lease.preferred, lease.valid), (None, None));
}

#[test]
fn the_host_of_a_boot_files_url_is_the_boot_server() {
    let server = |url: &[u8]| {
        let mut node = Node::new(Wanted::Information);
        node.sends();
        let outcome = node.hears(7, &[&option(59, url)]);
        let Some(Outcome::Information(told)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(told.boot_server.is_none(), !node.dhcp.take_warnings().is_empty());
        told.boot_server.map(|server| server.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(server(b"xget://head.cluster:7000/node.squashfs"), some("head.cluster:7000"));
    assert_eq!(server(b"xget://[2001:db8::1]"), some("[2001:db8::1]"));
    assert_eq!(server(b"tftp://[2001:db8::1]/snponly.efi\0"), some("[2001:db8::1]"));
    assert_eq!(server(b"http://head:8080/boot.ipxe?a=b"), some("head"), "another protocol's port");
    assert_eq!(server(b"ftp://me:secret@head/x"), some("head"));
    assert_eq!(server(b"tftp://192.0.2.1/x"), some("192.0.2.1"));
    for odd in [
        &b"snponly.efi"[..],
        b"tftp://",
        b"tftp:///x",
        b"tftp://[fe80::1]/x",
        b"tftp://[fe80::1%25eth0]/x",
        b"tftp://he\nad/x",
        b"xget://head:99999/x",
        b"\xff://\xff/",
    ] {
        assert_eq!(server(odd), None, "{}", String::from_utf8_lossy(odd));
    }
}

#[test]
fn lists_have_an_end() {
    let mut node = Node::new(Wanted::Information);
    node.sends();
    let servers = option(23, &v6("2001:db8::53").octets().repeat(60));
    let domains = option(24, &b"\x01a\x00".repeat(60));
    let outcome = node.hears(7, &[&servers, &domains]);
    let Some(Outcome::Information(told)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((told.name_servers.len(), told.domains.len()), (16, 16));
}

#[test]
fn a_servers_warnings_have_an_end() {
    let mut node = Node::new(Wanted::Address);
    node.sends();
    for n in 0..100 {
        node.hears(2, &[&status(n + 1, "no")]);
    }
    assert_eq!(node.dhcp.take_warnings().len(), 16);
}

#[test]
fn no_message_whatever_does_harm() {
    let usual = [leased("2001:db8::1"), option(23, &[0x20; 32]), status(0, "fine")].concat();
    for_seeds(200, |mut seed| {
        let mut node = Node::new(Wanted::Address);
        node.sends();
        let mut options = usual.clone();
        for _ in 0..3 {
            let at = next_random(&mut seed) as usize % options.len();
            options[at] = next_random(&mut seed) as u8;
        }
        node.is_given(&options);
    });
}
