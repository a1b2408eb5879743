use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A message as the kernel sends it.
fn message(kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let request = attributes
        .iter()
        .fold(Request::new(kind, 0, fixed), |request, &(number, data)| request.with(number, data));
    request.numbered(7)
}

fn only(bytes: &[u8]) -> Message<'_> {
    let mut all = Message::all(bytes);
    let first = all.next().unwrap();
    assert!(all.next().is_none());
    first
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn config(address: &str) -> Config {
    let address = net(address);
    Config { address, routes: vec![], mtu: None, lifetime: None, leased: true }
}

#[test]
fn a_request_is_laid_out_as_the_kernel_reads_it() {
    let bytes = Request::set_mtu(3, 1400).numbered(7);
    let mut expected = Vec::new();
    expected.extend(40u32.to_ne_bytes());
    expected.extend(16u16.to_ne_bytes());
    expected.extend(5u16.to_ne_bytes());
    expected.extend([7u32, 0, 0, 3, 0, 0].map(u32::to_ne_bytes).concat());
    expected.extend([8u16, 4].map(u16::to_ne_bytes).concat());
    expected.extend(1400u32.to_ne_bytes());
    assert_eq!(bytes, expected);
}

#[test]
fn a_vlan_is_asked_for_as_ip_does() {
    let bytes = Request::make_vlan("eth1.5", 5, 2).numbered(7);
    let sent: Vec<_> = attributes(&only(&bytes).body[LINK_BYTES..]).collect();
    let kind = [&[8, 0, 1, 0][..], b"vlan"].concat();
    let info = [&kind[..], &[12, 0, 2, 0, 6, 0, 1, 0, 5, 0, 0, 0]].concat();
    let little_endian = [
        (libc::IFLA_IFNAME, &b"eth1.5\0"[..]),
        (libc::IFLA_LINK, &[2, 0, 0, 0]),
        (libc::IFLA_LINKINFO, &info),
    ];
    if cfg!(target_endian = "little") {
        assert_eq!(sent, little_endian);
    }
}

#[test]
fn a_link_is_understood() {
    let up = (libc::IFF_UP | libc::IFF_LOWER_UP) as u32;
    let mut fixed = vec![0, 0, 1, 0];
    fixed.extend([3, up, 0].map(u32::to_ne_bytes).concat());
    let kind = attribute(libc::IFLA_INFO_KIND, b"veth\0");
    // The kernel counts more of IPv6, and has other families.
    let flags = [attribute(8, &[1; 4]), attribute(1, &0x8000_0070u32.to_ne_bytes())].concat();
    let families = [attribute(2, &[7; 8]), attribute(10, &flags)].concat();
    let attributes: [(u16, &[u8]); 5] = [
        (libc::IFLA_IFNAME, b"eth0\0"),
        (libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
        (libc::IFLA_MTU, &[0xdc, 5, 0, 0]),
        (libc::IFLA_LINKINFO, &kind),
        (libc::IFLA_AF_SPEC, &families),
    ];
    let bytes = message(libc::RTM_NEWLINK, &fixed, &attributes);
    let link = Link {
        index: 3,
        name: "eth0".into(),
        up: true,
        carrier: true,
        mac: Some([2, 0, 0, 0, 0, 1]),
        kind: Some("veth".into()),
        router: Router { heard: true, managed: true, other: false },
        ..Link::default()
    };
    assert_eq!(only(&bytes).link(), Some(link));
    assert_eq!((only(&bytes).address(), only(&bytes).route()), (None, None));
}

#[test]
fn an_address_is_usable_once_it_is_global_and_nobody_elses() {
    let usable = |scope: u8, flags: u32, address: &str| {
        let prefix = if ip(address).is_ipv4() { 24 } else { 64 };
        let mut fixed = vec![family(ip(address)), prefix, flags as u8, scope];
        fixed.extend(3u32.to_ne_bytes());
        let (bytes, flags) = (octets(ip(address)), flags.to_ne_bytes());
        let attributes = [(libc::IFA_ADDRESS, &bytes[..]), (libc::IFA_FLAGS, &flags)];
        let bytes = message(libc::RTM_NEWADDR, &fixed, &attributes);
        let found = only(&bytes).address().unwrap();
        assert_eq!((found.link, found.ip), (3, IpNet::new(ip(address), prefix).unwrap()));
        found.usable
    };
    assert!(usable(0, 0, "192.0.2.1") && usable(0, libc::IFA_F_PERMANENT, "2001:db8::1"));
    assert!(!usable(0, libc::IFA_F_TENTATIVE, "2001:db8::1"));
    assert!(!usable(0, libc::IFA_F_DADFAILED, "2001:db8::1"));
    assert!(!usable(libc::RT_SCOPE_LINK, 0, "fe80::1"));
    assert!(!usable(0, 0, "169.254.1.1"));
}

#[test]
fn a_routers_name_servers_are_understood() {
    let servers =
        ["2001:db8::53", "fe80::53", "2001:db8::54"].map(|ip| ip.parse::<Ipv6Addr>().unwrap());
    let option = |kind: u8, lifetime: u32| {
        let mut bytes = vec![kind, 1 + 2 * servers.len() as u8, 0, 0];
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend(servers.iter().flat_map(Ipv6Addr::octets));
        bytes
    };
    let named = |option: &[u8], length: usize| {
        let mut fixed = vec![libc::AF_INET6 as u8, 0];
        fixed.extend((length as u16).to_ne_bytes());
        fixed.extend([3, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0]);
        fixed.extend(option);
        only(&message(libc::RTM_NEWNDUSEROPT, &fixed, &[(1, &[7; 16])])).name_servers()
    };
    let right = option(25, 600);
    assert_eq!(named(&right, right.len()), [servers[0], servers[2]], "but for the link-local one");
    assert!(named(&option(25, 0), right.len()).is_empty(), "they are not to be used any more");
    assert!(named(&option(31, 600), right.len()).is_empty(), "another option");
    for length in [0, 7, 8, 23, usize::from(u16::MAX)] {
        assert!(named(&right, length).is_empty(), "cut off at {length}");
    }
}

#[test]
fn a_routers_search_list_is_understood() {
    let names = b"\x07cluster\x03org\x00\x02hp\x01c\x00";
    let mut option = [&[31, 4, 0, 0, 0, 0, 2, 88], &names[..]].concat();
    option.resize(32, 0);
    let mut fixed = vec![libc::AF_INET6 as u8, 0];
    fixed.extend((option.len() as u16).to_ne_bytes());
    fixed.extend([3, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0]);
    fixed.extend(option);
    let bytes = message(libc::RTM_NEWNDUSEROPT, &fixed, &[]);
    assert_eq!(only(&bytes).domains(), ["cluster.org", "hp.c"]);
    assert!(only(&bytes).name_servers().is_empty());
}

#[test]
fn an_address_of_ipv6_is_the_links_own_or_somebody_elses() {
    let seen = |scope: u8, flags: u32, address: &str| {
        let mut fixed = vec![libc::AF_INET6 as u8, 64, flags as u8, scope];
        fixed.extend(3u32.to_ne_bytes());
        let octets = octets(ip(address));
        let bytes = message(libc::RTM_NEWADDR, &fixed, &[(libc::IFA_ADDRESS, &octets)]);
        (only(&bytes).link_local().is_some(), only(&bytes).duplicate().is_some())
    };
    assert_eq!(seen(libc::RT_SCOPE_LINK, libc::IFA_F_PERMANENT, "fe80::1"), (true, false));
    assert_eq!(seen(libc::RT_SCOPE_LINK, libc::IFA_F_TENTATIVE, "fe80::1"), (false, false));
    assert_eq!(seen(0, libc::IFA_F_DADFAILED, "2001:db8::1"), (false, true));
    assert_eq!(seen(0, 0, "2001:db8::1"), (false, false));
}

#[test]
fn what_was_set_is_what_is_seen() {
    let bytes = Request::set_address(3, &config("192.0.2.10/24")).numbered(7);
    let address = Address { link: 3, ip: net("192.0.2.10/24"), usable: true };
    assert_eq!(only(&bytes).address(), Some(address));
    let config = config("192.0.2.10/24");
    for (to, via) in [("0.0.0.0/0", Some("192.0.2.1")), ("198.51.100.0/25", None)] {
        let route = Route { to: net(to), via: via.map(ip) };
        let bytes = Request::set_route(3, &config, &route).numbered(7);
        assert_eq!(only(&bytes).route(), Some(net(to)));
    }
}

#[test]
fn a_router_outside_the_network_is_on_the_link_all_the_same() {
    let flags = |via| {
        let route = Route::default(ip(via));
        let bytes = Request::set_route(3, &config("192.0.2.10/24"), &route).numbered(7);
        number_at(only(&bytes).body, 8)
    };
    assert_eq!((flags("192.0.2.1"), flags("198.51.100.1")), (Some(0), Some(ON_LINK)));
}

#[test]
fn the_broadcast_address_is_the_networks_last() {
    assert_eq!(broadcast(&config("192.0.2.10/26")), Some([192, 0, 2, 63].into()));
    assert_eq!(broadcast(&config("192.0.2.10/31")), None);
    assert_eq!(broadcast(&config("192.0.2.10/32")), None);
    assert_eq!(broadcast(&config("2001:db8::1/64")), None);
}

#[test]
fn answers_tell_of_success_and_failure_and_the_end() {
    let answer = |kind: i32, error: i32| message(kind as u16, &error.to_ne_bytes(), &[]);
    assert_eq!(only(&answer(libc::NLMSG_ERROR, 0)).error(), Some(0));
    assert_eq!(only(&answer(libc::NLMSG_ERROR, -libc::EPERM)).error(), Some(libc::EPERM));
    assert_eq!(only(&answer(libc::NLMSG_DONE, 0)).error(), None);
    assert!(only(&answer(libc::NLMSG_DONE, 0)).is_end());
    assert_eq!(only(&answer(libc::NLMSG_DONE, 0)).number, 7);
}

#[test]
fn a_message_cut_off_anywhere_does_no_harm() {
    let two = [
        Request::set_address(3, &config("192.0.2.10/24")).numbered(7),
        Request::make_vlan("eth0.5", 5, 3).numbered(8),
    ];
    let both = two.concat();
    assert_eq!(Message::all(&both).count(), 2);
    for length in 0..both.len() {
        for message in Message::all(&both[..length]) {
            let _ = (message.link(), message.address(), message.route(), message.error());
        }
    }
    // Lengths that are shorter than what they are the length of.
    for length in 0..20u8 {
        let mut bytes = two[0].clone();
        bytes[24..26].copy_from_slice(&u16::from(length).to_ne_bytes());
        let _ = only(&bytes).address();
        bytes[..4].copy_from_slice(&u32::from(length).to_ne_bytes());
        let _ = Message::all(&bytes).count();
    }
}
