use ipnet::IpNet;

use super::super::tests::{Node, card, ip};
use super::super::*;
use crate::boot::address::links::{Address, Router};

const MANAGED: Router = Router { heard: true, managed: true, other: true };
const OTHER: Router = Router { heard: true, managed: false, other: true };

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A node whose link has carrier and its own address, and whose router says this.
fn node(cmdline: &str, router: Router) -> Node {
    let mut node = Node::new(cmdline, Net::Auto, &[card(1, "eth0")]);
    node.acts();
    node.carrier(&[1]).kernel.links[0].router = router;
    node.kernel.link_locals.push((1, v6("fe80::a")));
    node
}

/// What is sent to DHCPv6 servers within so many seconds, the last message.
fn asks(node: &mut Node, seconds: u64) -> Option<Vec<u8>> {
    let mut last = None;
    for _ in 0..=seconds {
        for action in node.acts() {
            if let Action::Send6 { link, source, packet } = action {
                assert_eq!((link, source), (1, v6("fe80::a")));
                last = Some(packet);
            }
        }
        node.after(1);
    }
    last
}

/// A server answers this message, and what follows: with 2001:db8::10, if one was asked for, and with a boot server.
fn answer(node: &mut Node, asked: &[u8], boot_url: &str) {
    let option = |number: u16, data: &[u8]| {
        [&number.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat()
    };
    // The client's identifier comes first.
    let length = usize::from(asked[7]);
    let client = &asked[4..8 + length];
    let mut message = [&asked[1..4], client, &option(2, b"server")].concat();
    message.extend(option(59, boot_url.as_bytes()));
    if asked[0] != 11 {
        let times = [3000u32, 3600].map(u32::to_be_bytes).concat();
        let address = option(5, &[&v6("2001:db8::10").octets()[..], &times].concat());
        let mac = node.kernel.links[0].mac.unwrap();
        message.extend(option(3, &[&mac[2..], &[0; 8], &address].concat()));
        message.extend(option(7, &[255]));
    }
    let kind = if asked[0] == 1 { 2 } else { 7 };
    let now = node.now;
    node.setup.receive6(1, v6("fe80::1"), &[&[kind], &message[..]].concat(), now);
    if kind == 2 {
        let asked = asks(node, 0).unwrap();
        answer(node, &asked, boot_url);
    }
}

fn has(node: &mut Node, address: &str) {
    let ip = IpNet::new(ip(address), 128).unwrap();
    node.kernel.addresses.push(Address { link: 1, ip, usable: true });
}

#[test]
fn without_a_routers_word_nobody_is_asked() {
    let mut node = node("ip=dhcp6", Router::default());
    assert_eq!(asks(&mut node, 20), None);
    assert_eq!(node.waits_for(), ["a router advertisement on eth0"]);
}

#[test]
fn nobody_is_asked_before_the_link_has_an_address_of_its_own() {
    let mut node = node("ip=dhcp6", MANAGED);
    node.kernel.link_locals.clear();
    assert_eq!(asks(&mut node, 5), None);
    node.kernel.link_locals.push((1, v6("fe80::a")));
    assert_eq!(asks(&mut node, 1).unwrap()[0], 1);
}

#[test]
fn the_address_of_a_server_counts_once_it_is_the_kernels() {
    let mut node = node("ip=dhcp6", MANAGED);
    let asked = asks(&mut node, 1).unwrap();
    assert_eq!(
        node.waits_for(),
        ["a DHCPv6 server on eth0, where the router says DHCPv6 (M flag; asked once)"]
    );
    answer(&mut node, &asked, "xget://head/x");
    let acts = node.acts();
    let [Action::Program6 { link: 1, lease, .. }] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!(lease.address, v6("2001:db8::10"));
    assert_eq!(node.setup.found(), None, "somebody else may have it");
    has(&mut node, "2001:db8::10");
    node.acts();
    let found = Found::Leased6 { link: "eth0".into(), lease: lease.clone() };
    assert_eq!(node.setup.found(), Some(&found));
    assert_eq!(node.setup.told().unwrap().boot_server.as_ref().unwrap().host, "head");
}

#[test]
fn an_address_that_somebody_else_has_is_given_back() {
    let mut node = node("ip=dhcp6", MANAGED);
    let asked = asks(&mut node, 1).unwrap();
    answer(&mut node, &asked, "xget://head/x");
    node.acts();
    node.kernel.duplicates.push((1, v6("2001:db8::10")));
    let acts = node.acts();
    assert_eq!(acts[0], Action::Drop6 { link: 1, address: v6("2001:db8::10") });
    let Action::Send6 { packet, .. } = &acts[1] else { panic!("{acts:?}") };
    assert_eq!(packet[0], 9);
    assert!(node.setup.take_warnings()[0].contains("another host on eth0 has the address"));
    assert_eq!(node.setup.found(), None);
}

#[test]
fn the_kernel_takes_away_one_that_somebody_else_has_if_it_is_not_for_ever() {
    let mut node = node("ip=dhcp6", MANAGED);
    let asked = asks(&mut node, 1).unwrap();
    answer(&mut node, &asked, "xget://head/x");
    node.acts();
    node.kernel.addresses.push(Address {
        link: 1,
        ip: IpNet::new(ip("2001:db8::10"), 128).unwrap(),
        usable: false,
    });
    assert_eq!(node.acts(), []);
    let waits = node.waits_for();
    assert!(waits[0].contains("whether another host on eth0 has 2001:db8::10"), "{waits:?}");
    node.kernel.addresses.clear();
    let acts = node.acts();
    let [Action::Send6 { packet, .. }] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!(packet[0], 9);
}

#[test]
fn with_an_address_from_the_router_the_rest_is_waited_for_a_while() {
    for (router, message, seconds) in [(OTHER, 11, 5), (MANAGED, 1, 10)] {
        let mut node = node("ip=auto6 rd.xget.server=head", router);
        node.address(1, "2001:db8::7");
        assert_eq!(asks(&mut node, seconds - 2).unwrap()[0], message);
        assert_eq!(node.setup.found(), None);
        asks(&mut node, 2);
        let found = Found::Advertised { link: "eth0".into(), address: ip("2001:db8::7") };
        assert_eq!(node.setup.found(), Some(&found));
        let warnings = node.setup.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("no server answers"), "{warnings:?}");
    }
}

#[test]
fn what_a_server_tells_besides_addresses_counts_at_once() {
    let mut node = node("ip=auto6", OTHER);
    node.address(1, "2001:db8::7");
    let asked = asks(&mut node, 1).unwrap();
    answer(&mut node, &asked, "tftp://[2001:db8::9]/x");
    node.acts();
    let found = Found::Advertised { link: "eth0".into(), address: ip("2001:db8::7") };
    assert_eq!(node.setup.found(), Some(&found));
    assert_eq!(node.setup.told().unwrap().boot_server.as_ref().unwrap().host, "2001:db8::9");
    assert!(node.setup.take_warnings().is_empty());
}

#[test]
fn where_no_server_is_known_ipv6_counts_if_dhcpv6_names_one() {
    for line in ["", "ip=dhcp,dhcp6", "root=xget:///image"] {
        let mut node = node(line, OTHER);
        node.address(1, "2001:db8::7");
        let asked = asks(&mut node, 30).unwrap();
        assert_eq!(node.setup.found(), None, "{line}");
        answer(&mut node, &asked, "xget://head/x");
        node.acts();
        assert!(node.setup.found().is_some(), "{line}");
    }
    // It cannot reach this one.
    assert_eq!(asks(&mut node("rd.xget.server=192.0.2.1", OTHER), 30), None);
}

#[test]
fn where_nobody_is_known_to_boot_from_the_server_that_the_router_promises_is_waited_for() {
    let mut node = node("ip=auto6", OTHER);
    node.address(1, "2001:db8::7");
    let asked = asks(&mut node, 60).unwrap();
    assert_eq!(node.setup.found(), None);
    let waits = node.waits_for();
    assert!(waits[0].starts_with("a DHCPv6 server on eth0"), "{waits:?}");
    answer(&mut node, &asked, "");
    node.acts();
    assert!(node.setup.found().is_some());
}

#[test]
fn a_link_that_loses_its_router_begins_anew() {
    let mut node = node("ip=dhcp6", MANAGED);
    let asked = asks(&mut node, 1).unwrap();
    answer(&mut node, &asked, "xget://head/x");
    node.acts();
    node.kernel.links[0].carrier = false;
    assert_eq!(asks(&mut node, 3), None);
    node.carrier(&[1]);
    assert_eq!(asks(&mut node, 1).unwrap()[0], 1);
}

#[test]
fn the_next_wake_is_when_waiting_for_a_server_ends() {
    let mut node = node("ip=auto6 rd.xget.server=head", OTHER);
    node.address(1, "2001:db8::7");
    node.acts();
    for _ in 0..20 {
        node.now = node.setup.next_wake(node.now).expect("something is to come");
        node.acts();
        if node.setup.found().is_some() {
            return;
        }
    }
    panic!("it waits too often");
}

#[test]
fn own_asks_no_dhcpv6_server() {
    let mut node = Node::new("", Net::Own, &[card(1, "eth0")]);
    node.carrier(&[1]).kernel.links[0].router = MANAGED;
    node.kernel.link_locals.push((1, v6("fe80::a")));
    assert_eq!(asks(&mut node, 5), None);
}
