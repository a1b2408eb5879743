use ipnet::IpNet;

use super::*;
use crate::boot::address::links::Address;
use crate::boot::cmdline::Cmdline;

const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

/// A node and its kernel; the test plays both, and the DHCP servers do not answer.
pub(super) struct Node {
    pub(super) setup: Setup,
    pub(super) kernel: Snapshot,
    pub(super) now: Instant,
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A card that is down.
pub(super) fn card(index: u32, name: &str) -> Link {
    let mac = MACS.get(index as usize - 1).copied();
    Link { index, name: name.into(), mac, ..Link::default() }
}

fn raise(index: u32, name: &str) -> Action {
    Action::Raise { link: index, name: name.into() }
}

impl Node {
    /// One with this command line, `lo`, and these links.
    pub(super) fn new(cmdline: &str, net: Net, links: &[Link]) -> Node {
        let wish = Cmdline::parse(cmdline.as_bytes()).unwrap().network;
        let loopback = Link { index: 9, name: "lo".into(), loopback: true, ..Link::default() };
        let links = [links, &[Link { up: true, carrier: true, ..loopback }]].concat();
        let kernel = Snapshot { links, ..Snapshot::default() };
        Node { setup: Setup::new(&wish, net, 1, Identity::default()), kernel, now: Instant::now() }
    }

    pub(super) fn acts(&mut self) -> Vec<Action> {
        self.setup.observe(self.kernel.clone(), self.now);
        self.setup.poll(self.now)
    }

    pub(super) fn after(&mut self, seconds: u64) -> &mut Node {
        self.now += Duration::from_secs(seconds);
        self
    }

    /// The links are up and their cables are in.
    pub(super) fn carrier(&mut self, links: &[u32]) -> &mut Node {
        for link in self.kernel.links.iter_mut().filter(|link| links.contains(&link.index)) {
            (link.up, link.carrier) = (true, true);
        }
        self
    }

    pub(super) fn address(&mut self, link: u32, text: &str) -> &mut Node {
        self.kernel.addresses.push(Address {
            link,
            ip: IpNet::new(ip(text), 24).unwrap(),
            usable: true,
        });
        self
    }

    pub(super) fn waits_for(&self) -> Vec<String> {
        let missing = self.setup.missing(self.now).into_iter();
        missing.map(|missing| missing.article.to_owned() + &missing.what).collect()
    }

    /// The links on which DHCP asks now.
    fn asks_on(&mut self) -> Vec<u32> {
        let sent = |action| match action {
            Action::Send { link, .. } => Some(link),
            _ => None,
        };
        self.acts().into_iter().filter_map(sent).collect()
    }

    fn set(&mut self) -> Vec<(String, IpAddr)> {
        let set = |action| match action {
            Action::Program { name, config, .. } => Some((name, config.address.addr())),
            _ => None,
        };
        self.acts().into_iter().filter_map(set).collect()
    }
}

fn two_cards() -> [Link; 2] {
    [card(1, "eth0"), card(2, "eth1")]
}

// ---- which links

#[test]
fn all_cards_come_up_and_each_is_asked_on_once_it_has_carrier() {
    let mut node = Node::new("", Net::Auto, &two_cards());
    let raised = node.acts().into_iter().filter(|a| matches!(a, Action::Raise { .. }));
    assert_eq!(raised.collect::<Vec<_>>(), [raise(1, "eth0"), raise(2, "eth1")]);
    assert_eq!(node.waits_for(), ["carrier on eth0, eth1"]);
    assert_eq!(node.carrier(&[2]).asks_on(), [2]);
    let expected = ["carrier on eth0", "a DHCP offer on eth1 (asked once)"];
    assert_eq!(node.waits_for()[..2], expected);
    assert_eq!(node.carrier(&[1]).asks_on(), [1]);
}

#[test]
fn cables_have_5_seconds_to_come_to_life() {
    let mut node = Node::new("", Net::Auto, &two_cards());
    node.acts();
    let began = node.now;
    node.kernel.links[1].up = true;
    node.after(1).carrier(&[1]).acts();
    assert_eq!(node.setup.others_until(), Some(began + Duration::from_secs(5)));
    node.carrier(&[2]).acts();
    assert_eq!(node.setup.others_until(), None);
}

#[test]
fn what_is_no_card_is_left_alone() {
    let of_kind = |index, kind: &str| Link { kind: Some(kind.into()), ..card(index, kind) };
    let enslaved = Link { enslaved: true, ..card(3, "eth2") };
    let links = [of_kind(1, "bridge"), of_kind(2, "dummy"), enslaved];
    let mut node = Node::new("ip=dhcp", Net::Auto, &links);
    assert_eq!(node.acts(), []);
    assert_eq!(node.waits_for(), ["a network link"]);
}

#[test]
fn unless_it_is_named() {
    let bridge = Link { kind: Some("bridge".into()), ..card(1, "br0") };
    let mut node = Node::new("ip=br0:dhcp", Net::Auto, &[bridge, card(2, "eth0")]);
    assert_eq!(node.acts(), [raise(1, "br0")]);
}

#[test]
fn bootif_chooses_one_and_waits_for_it_to_appear() {
    let mut node = Node::new("BOOTIF=01-02-00-00-00-00-02 ip=dhcp", Net::Auto, &[card(1, "eth0")]);
    assert_eq!(node.acts(), []);
    assert_eq!(node.waits_for(), ["a link with the hardware address 02:00:00:00:00:02"]);
    node.kernel.links.push(card(2, "eth1"));
    assert_eq!(node.acts(), [raise(2, "eth1")]);
}

#[test]
fn ip_chooses_one_by_name_and_waits_for_it_to_appear() {
    let mut node = Node::new("ip=eth1:dhcp", Net::Auto, &[card(1, "eth0")]);
    assert_eq!(node.acts(), []);
    assert_eq!(node.waits_for(), ["a link called eth1"]);
    node.kernel.links.push(card(2, "eth1"));
    assert_eq!(node.acts(), [raise(2, "eth1")]);
}

#[test]
fn a_link_that_is_off_is_left_alone() {
    let mut node = Node::new("ip=eth0:off ip=dhcp", Net::Auto, &two_cards());
    assert_eq!(node.acts(), [raise(2, "eth1")]);
}

#[test]
fn a_vlan_is_made_on_its_link_and_asked_on() {
    let mut node = Node::new("vlan=eth0.5:eth0 ip=dhcp", Net::Auto, &two_cards());
    let make = Action::MakeVlan { name: "eth0.5".into(), id: 5, below: 1 };
    assert_eq!(node.acts(), [make, raise(1, "eth0")]);
    let vlan = Link { mac: Some(MACS[0]), kind: Some("vlan".into()), ..card(4, "eth0.5") };
    node.kernel.links.push(vlan);
    assert_eq!(node.carrier(&[1]).acts(), [raise(4, "eth0.5")]);
    assert_eq!(node.carrier(&[4]).asks_on(), [4]);
}

#[test]
fn a_link_gets_the_hardware_address_that_is_wished_before_it_comes_up() {
    let mut node = Node::new("ip=eth0:dhcp::02:00:00:00:00:99", Net::Auto, &[card(1, "eth0")]);
    let mac = [2, 0, 0, 0, 0, 0x99];
    assert_eq!(node.acts(), [Action::SetMac { link: 1, mac }, raise(1, "eth0")]);
}

#[test]
fn a_link_that_does_not_come_up_is_told_again_after_5_seconds() {
    let mut node = Node::new("ip=dhcp", Net::Auto, &[card(1, "eth0")]);
    assert_eq!(node.acts(), [raise(1, "eth0")]);
    assert_eq!(node.after(4).acts(), []);
    assert_eq!(node.setup.next_wake(node.now), Some(node.now + Duration::from_secs(1)));
    assert_eq!(node.after(1).acts(), [raise(1, "eth0")]);
}

#[test]
fn after_a_minute_without_carrier_the_cable_is_asked_for() {
    let mut node = Node::new("ip=dhcp", Net::Auto, &two_cards());
    node.acts();
    node.after(75).acts();
    assert_eq!(
        node.waits_for(),
        ["carrier on eth0, eth1 for 75 s: check the cable and the switch port"]
    );
}

// ---- what is there already

#[test]
fn an_address_that_is_there_is_used_and_nothing_touched() {
    let mut node = Node::new("ip=dhcp", Net::Auto, &two_cards());
    node.carrier(&[2]).address(2, "192.0.2.7");
    assert_eq!(node.acts(), []);
    let found = Found::Present { link: "eth1".into(), address: ip("192.0.2.7") };
    assert_eq!(node.setup.found(), Some(&found));
}

#[test]
fn one_without_a_route_to_the_server_is_not() {
    let mut node = Node::new("ip=:198.51.100.1::::eth0:dhcp", Net::Auto, &two_cards());
    node.carrier(&[2]).address(2, "192.0.2.7");
    assert_eq!(node.acts(), [raise(1, "eth0")]);
    assert_eq!(node.setup.found(), None);
    node.kernel.routes.push("198.51.0.0/16".parse().unwrap());
    node.acts();
    assert!(node.setup.found().is_some());
}

#[test]
fn one_that_is_lost_or_local_is_not() {
    let mut node = Node::new("ip=eth0:dhcp", Net::Auto, &two_cards());
    node.address(2, "192.0.2.7").address(9, "192.0.2.8");
    assert_eq!(node.acts(), [raise(1, "eth0")]);
}

#[test]
fn own_asks_although_there_is_an_address() {
    let mut node = Node::new("ip=dhcp", Net::Own, &[card(1, "eth0")]);
    assert_eq!(node.carrier(&[1]).address(1, "192.0.2.7").asks_on(), [1]);
}

#[test]
fn own_takes_no_ipv6_address_of_the_kernel() {
    let mut node = Node::new("", Net::Own, &[card(1, "eth0")]);
    assert_eq!(node.acts(), [raise(1, "eth0")]);
    node.carrier(&[1]).acts();
    node.after(60).address(1, "2001:db8::7").acts();
    assert_eq!(node.setup.found(), None);
}

#[test]
fn kernel_only_waits() {
    let mut node = Node::new("ip=dhcp", Net::Kernel, &[card(1, "eth0")]);
    assert_eq!(node.carrier(&[1]).acts(), []);
    assert_eq!(node.waits_for(), ["an address that the kernel or the initramfs sets"]);
    node.address(1, "2001:db8::7").acts();
    assert!(node.setup.found().is_some());
}

// ---- static addresses

#[test]
fn a_static_address_is_set_once_its_link_has_carrier() {
    let line = "ip=192.0.2.5:192.0.2.1:192.0.2.254:255.255.255.0:n5:eth1:none:1400";
    let mut node = Node::new(line, Net::Auto, &two_cards());
    assert_eq!(node.acts(), [raise(2, "eth1")]);
    assert_eq!(node.waits_for(), ["carrier on eth1"]);
    assert_eq!(node.setup.found(), None);
    let acts = node.carrier(&[2]).acts();
    let [Action::Program { link: 2, config, .. }] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!((config.address, config.mtu), ("192.0.2.5/24".parse().unwrap(), Some(1400)));
    assert_eq!(config.routes.len(), 1);
    let found = Found::Given { link: "eth1".into(), address: ip("192.0.2.5") };
    assert_eq!(node.setup.found(), Some(&found));
}

#[test]
fn one_for_no_link_goes_to_the_first_with_carrier() {
    let mut node = Node::new("ip=192.0.2.5:::24", Net::Auto, &two_cards());
    node.acts();
    assert_eq!(node.carrier(&[2]).set(), [("eth1".into(), ip("192.0.2.5"))]);
    assert_eq!(node.carrier(&[1]).set(), []);
}

#[test]
fn all_that_was_asked_for_has_to_be_there() {
    let line = "ip=192.0.2.5:::24::eth0:none ip=198.51.100.5:::24::eth1:none";
    let mut node = Node::new(line, Net::Auto, &two_cards());
    assert_eq!(node.carrier(&[1]).set(), [("eth0".into(), ip("192.0.2.5"))]);
    assert_eq!(node.address(1, "192.0.2.5").setup.found(), None);
    assert_eq!(node.carrier(&[2]).set(), [("eth1".into(), ip("198.51.100.5"))]);
    assert!(node.setup.found().is_some());
}

// ---- IPv6

#[test]
fn an_advertised_address_is_used_at_once_where_ipv6_is_asked_for() {
    let mut node = Node::new("ip=auto6", Net::Auto, &[card(1, "eth0")]);
    let accept = Action::AcceptAdvertisements { name: "eth0".into() };
    assert_eq!(node.acts(), [accept, raise(1, "eth0")]);
    assert_eq!(node.carrier(&[1]).acts(), [], "no DHCP");
    assert_eq!(node.waits_for(), ["a router advertisement on eth0"]);
    node.kernel.links[0].router.heard = true;
    node.acts();
    assert_eq!(node.waits_for(), ["an address from an IPv6 router on eth0"]);
    node.address(1, "2001:db8::7").acts();
    let found = Found::Advertised { link: "eth0".into(), address: ip("2001:db8::7") };
    assert_eq!(node.setup.found(), Some(&found));
}

#[test]
fn where_ipv4_would_do_as_well_that_is_asked_for_again_and_has_10_seconds() {
    let mut node = Node::new("rd.xget.server=head", Net::Auto, &[card(1, "eth0")]);
    node.acts();
    assert_eq!(node.carrier(&[1]).asks_on(), [1]);
    // The switch lets packets through only now, and the next question is far away.
    for seconds in [5, 9, 17] {
        assert_eq!(node.after(seconds).asks_on(), [1]);
    }
    assert_eq!(node.after(1).address(1, "2001:db8::7").asks_on(), []);
    assert_eq!(node.after(1).asks_on(), [1]);
    node.after(8).acts();
    assert_eq!(node.setup.found(), None);
    assert_eq!(node.setup.next_wake(node.now), Some(node.now + Duration::from_secs(1)));
    node.after(1).acts();
    assert!(node.setup.found().is_some());
}

#[test]
fn where_no_server_is_known_that_ipv6_reaches_it_does_not_count() {
    for line in ["", "rd.xget.server=192.0.2.1", "root=xget:///image", "ip=either6"] {
        let mut node = Node::new(line, Net::Auto, &[card(1, "eth0")]);
        node.carrier(&[1]).address(1, "2001:db8::7").acts();
        node.after(100).acts();
        assert_eq!(node.setup.found(), None, "{line}");
    }
}

#[test]
fn an_ipv6_address_that_was_there_before_is_used_where_a_server_may_have_one() {
    for line in ["root=xget://head/image", "rd.xget.server=192.0.2.1,[2001:db8::1]"] {
        let mut node = Node::new(line, Net::Auto, &[card(1, "eth0")]);
        node.carrier(&[1]).address(1, "2001:db8::7").acts();
        assert!(node.setup.found().is_some(), "{line}");
    }
}

#[test]
fn where_only_dhcp_is_asked_for_it_does_not_count() {
    let mut node = Node::new("ip=dhcp", Net::Auto, &[card(1, "eth0")]);
    node.carrier(&[1]).address(1, "2001:db8::7").acts();
    node.after(100).acts();
    assert_eq!(node.setup.found(), None);
}

#[test]
fn a_link_is_known_by_its_hardware_address_where_the_command_line_says_so() {
    for line in [
        "ifname=bootnet:02:00:00:00:00:02 ip=bootnet:dhcp",
        "ip=02:00:00:00:00:02:dhcp",
        // Whoever is called so otherwise is not meant.
        "ifname=eth0:02-00-00-00-00-02 ip=eth0:dhcp",
    ] {
        let mut node = Node::new(line, Net::Auto, &two_cards());
        node.acts();
        assert_eq!(node.carrier(&[1, 2]).asks_on(), [2], "{line}");
    }
    let node = Node::new("ip=02:00:00:00:00:0a:dhcp", Net::Auto, &two_cards());
    assert_eq!(node.waits_for(), ["a link with the hardware address 02:00:00:00:00:0a"]);
}

#[test]
fn static_routes_go_by_the_link_from_which_their_gateway_is_reached() {
    let line = "ip=192.0.2.5::192.0.2.254:24::eth0:none rd.route=10.1.0.0/16:192.0.2.7 \
                rd.route=10.2.0.0/16:198.51.100.7 rd.route=10.3.0.0/16:198.51.100.7:eth0";
    let mut node = Node::new(line, Net::Auto, &two_cards());
    node.acts();
    let configs = node.carrier(&[1]).acts().into_iter().filter_map(|action| match action {
        Action::Program { config, .. } => Some(config),
        _ => None,
    });
    let routes: Vec<_> =
        configs.flat_map(|config| config.routes).map(|r| r.to.to_string()).collect();
    assert_eq!(routes, ["0.0.0.0/0", "10.1.0.0/16", "10.3.0.0/16"]);
}

// ---- what is enough

#[test]
fn a_link_that_gives_nothing_is_not_waited_for_where_the_server_can_be_reached() {
    let line = "ip=192.0.2.5::192.0.2.254:24::eth0:none ip=eth1:dhcp rd.xget.server=";
    for (server, seconds) in
        [("192.0.2.1", 6), ("198.51.100.1", 41), ("head nameserver=192.0.2.53", 41)]
    {
        let mut node = Node::new(&format!("{line}{server}"), Net::Auto, &two_cards());
        node.acts();
        assert_eq!(node.carrier(&[1, 2]).set(), [("eth0".to_owned(), ip("192.0.2.5"))]);
        for network in ["192.0.2.0/24", "0.0.0.0/0"] {
            node.kernel.routes.push(network.parse().unwrap());
        }
        node.address(1, "192.0.2.5").acts();
        node.after(seconds - 2).acts();
        assert!(node.setup.found().is_none());
        node.after(2).acts();
        assert!(node.setup.found().is_some(), "{server}");
        let told = node.setup.take_warnings();
        assert!(told.len() == 1 && told[0].contains("DHCP offer on eth1"), "{told:?}");
    }
}

#[test]
fn a_link_that_gives_nothing_is_waited_for_where_the_server_is_not_known() {
    let line = "ip=192.0.2.5::192.0.2.254:24::eth0:none ip=eth1:dhcp rd.xget.server=head";
    let mut node = Node::new(line, Net::Auto, &two_cards());
    node.acts();
    node.carrier(&[1, 2]).acts();
    node.kernel.routes.push("0.0.0.0/0".parse().unwrap());
    node.address(1, "192.0.2.5").acts();
    node.after(600).acts();
    assert!(node.setup.found().is_none());
}
