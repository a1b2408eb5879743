use std::net::IpAddr;

use super::*;

fn parsed(text: &str) -> Cmdline {
    Cmdline::parse(text.as_bytes()).unwrap_or_else(|bad| panic!("{bad}"))
}

/// What is said of a command line that cannot be understood.
fn refused(text: &str) -> String {
    Cmdline::parse(text.as_bytes()).map_or_else(|bad| bad.to_string(), |_| "understood".into())
}

fn ip(text: &str) -> Ip {
    parsed(&format!("ip={text}")).network.ips.remove(0)
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn host(name: &str, port: Option<u16>) -> HostPort {
    HostPort { host: name.into(), port }
}

#[test]
fn what_is_for_others_is_left_to_them() {
    let cmdline = parsed("BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet -- single\n");
    assert_eq!(cmdline, Cmdline::default());
    assert!(!cmdline.asks());
}

#[test]
fn a_native_root_names_server_and_path() {
    let root = parsed("root=xget://master:7000/images/node.squashfs").root.unwrap();
    let url = Url { host: Some(host("master", Some(7000))), path: "images/node.squashfs".into() };
    assert_eq!(root, Root { url, live: false });
}

#[test]
fn a_live_root_is_dracuts_to_mount() {
    assert!(parsed("root=live:xget://[2001:db8::1]:9/a").root.unwrap().live);
}

#[test]
fn a_url_without_host_means_the_server_that_was_booted_from() {
    let url = parsed("root=xget:///a%20b/c").root.unwrap().url;
    assert_eq!(url, Url { host: None, path: "a b/c".into() });
}

#[test]
fn the_last_root_counts() {
    assert_eq!(parsed("root=xget:///a root=/dev/sda1").root, None);
}

#[test]
fn a_kernel_has_initrds_and_a_command_line() {
    let text = r#"rd.xget.kernel=k/vmlinuz rd.xget.initramfs=a,b rd.xget.initrd=c rd.xget.append="x y=1" rd.xget.append=z"#;
    let kernel = Kernel {
        path: "k/vmlinuz".into(),
        initrds: vec!["a".into(), "b".into(), "c".into()],
        append: "x y=1 z".into(),
    };
    assert_eq!(parsed(text).kernel, Some(kernel));
}

#[test]
fn servers_come_in_their_order() {
    let servers = parsed("rd.xget.server=10.0.0.1,b:7,[fe80::1]:8,2001:db8::2").servers;
    let expected = [
        host("10.0.0.1", None),
        host("b", Some(7)),
        host("fe80::1", Some(8)),
        host("2001:db8::2", None),
    ];
    assert_eq!(servers, expected);
}

#[test]
fn how_long_and_how_often() {
    let cmdline = parsed("rd.xget.timeout=90 rd.xget.retry=5 rd.xget.serve=30 rd.xget.debug");
    assert_eq!(cmdline.timeout, Some(Duration::from_secs(90)));
    assert_eq!(cmdline.retry, Some(Duration::from_secs(5)));
    assert_eq!(cmdline.serve, Serve::Seconds(30));
    assert!(cmdline.debug);
}

#[test]
fn what_is_wrong_is_said_with_the_word() {
    for (text, expected) in [
        ("rd.xget.net=mine", "rd.xget.net=mine: expected auto, kernel or own"),
        ("rd.xget.serve=maybe", "rd.xget.serve=maybe: expected yes, no or a number of seconds"),
        ("rd.xget.timeout=1m", "rd.xget.timeout=1m: expected a number of seconds"),
        ("rd.xget.key=RWabc", "rd.xget.key=RWabc: expected a minisign public key"),
        ("rd.xget.hash=abc", "rd.xget.hash=abc: expected a generation (64 hexadecimal digits)"),
        ("rd.xget.server=", "rd.xget.server=: requires a value"),
        ("rd.xget.server=a:99999", "rd.xget.server=a:99999:"),
        ("root=xget:/a", "root=xget:/a: expected xget://HOST/PATH"),
        ("root=xget://a", "root=xget://a: the path is missing"),
        ("root=xget://a/%zz", "root=xget://a/%zz: % must be followed by"),
        ("rd.xget.initrd=a", "rd.xget.kernel=: missing"),
    ] {
        let said = refused(text);
        assert!(said.starts_with("kernel command line: "), "{said}");
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
}

#[test]
fn a_wrong_word_of_the_network_is_told_and_the_boot_goes_on() {
    for (text, expected) in [
        ("ip=dchp", "unknown method dchp"),
        ("ip=10.0.0.1", "the netmask is missing"),
        ("ip=10.0.0.1:::255.0.255.0::eth0:off", "255.0.255.0 is not a netmask"),
        ("ip=[fe80::1", "missing closing bracket"),
        ("BOOTIF=01-aa-bb", "is not a hardware address"),
        ("nameserver=dns", "dns is not an IP address"),
        ("vlan=vlan:eth0", "expected a name that ends in a VLAN"),
    ] {
        let Cmdline { network, ignored, .. } = parsed(text);
        assert_eq!(network, NetworkWish::default(), "{text}");
        let [BadWord { word, why }] = &ignored[..] else { panic!("{text}: {ignored:?}") };
        assert!(word == text && why.contains(expected), "{text}: {why}");
    }
}

#[test]
fn what_a_template_has_left_empty_counts_as_absent() {
    for text in ["BOOTIF=01-", "BOOTIF=", "nameserver=", "ip=", "vlan="] {
        let Cmdline { network, ignored, .. } = parsed(text);
        assert_eq!((network, ignored.len()), (NetworkWish::default(), 1), "{text}");
    }
}

#[test]
fn one_word_may_name_several_name_servers() {
    let servers = |text: &str| parsed(text).network.name_servers;
    let both = ["10.9.0.53", "10.9.0.54"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(servers("nameserver=10.9.0.53,10.9.0.54"), both);
    let cmdline = parsed("nameserver=10.9.0.53,dns,10.9.0.54");
    assert_eq!(
        (cmdline.network.name_servers.as_slice(), cmdline.ignored[0].word.as_str()),
        (&both[..], "nameserver=dns")
    );
}

#[test]
fn a_second_method_is_not_dropped() {
    let method = |text: &str| ip(text).method;
    assert_eq!(method("dhcp,dhcp6"), Method::Either);
    assert_eq!(method("eth0:dhcp6,dhcp"), Method::Either);
    assert_eq!(method("dhcp,1,name"), Method::Dhcp, "a client identifier");
    for text in ["ip=dhcp,dchp6", "ip=dhcp,off"] {
        assert_eq!(parsed(text).ignored.len(), 1, "{text}");
    }
}

#[test]
fn a_misspelt_option_is_told() {
    assert_eq!(parsed("rd.xget.sever=a b").unknown, ["rd.xget.sever=a"]);
}

#[test]
fn ip_takes_a_method_alone_or_with_a_link() {
    assert_eq!(ip("dhcp"), Ip::default());
    assert_eq!(ip("auto6").method, Method::V6);
    let with_link = ip("eth1:dhcp:9000:02:00:00:00:00:01");
    assert_eq!(with_link.link.as_deref(), Some("eth1"));
    assert_eq!((with_link.mtu, with_link.mac), (Some(9000), Some([2, 0, 0, 0, 0, 1])));
}

#[test]
fn ip_takes_the_kernels_seven_fields() {
    let ip = ip("10.0.0.9:10.0.0.1:10.0.0.254:255.255.255.0:n9:eth0:none");
    let expected = Ip {
        method: Method::Static,
        link: Some("eth0".into()),
        address: Some("10.0.0.9/24".parse().unwrap()),
        server: Some([10, 0, 0, 1].into()),
        gateway: Some([10, 0, 0, 254].into()),
        host_name: Some("n9".into()),
        ..Ip::default()
    };
    assert_eq!(ip, expected);
}

#[test]
fn what_follows_the_method_is_name_servers_or_mtu_and_address() {
    let first = ip("10.0.0.9::::n9:eth0:off:10.0.0.2:10.0.0.3:10.0.0.4");
    assert_eq!(
        first.name_servers,
        ["10.0.0.2", "10.0.0.3"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
    );
    assert_eq!(first.address, Some("10.0.0.9/8".parse().unwrap()), "as its class has it");
    let second = ip("::::n9:eth0:dhcp:1400:02:00:00:00:00:01");
    assert_eq!((second.mtu, second.mac), (Some(1400), Some([2, 0, 0, 0, 0, 1])));
}

#[test]
fn forms_of_ip_that_are_for_others_are_no_errors() {
    let without_first = ip("10.0.0.9::10.0.0.254:255.255.255.0::eth0:off::10.0.0.3");
    assert_eq!(without_first.name_servers, ["10.0.0.3".parse::<std::net::IpAddr>().unwrap()]);
    let time_server_alone = ip("10.0.0.9::10.0.0.254:255.255.255.0::eth0:off:::10.0.0.4");
    assert_eq!((time_server_alone.name_servers, time_server_alone.mac), (vec![], None));
    assert_eq!(ip("dhcp,1,0a").method, Method::Dhcp);
    assert_eq!(ip("ibft").method, Method::Off);
    let infiniband = format!("BOOTIF=20{} ip=eth0:dhcp", "-00".repeat(20));
    assert_eq!(parsed(&infiniband).network.boot_mac, None);
}

#[test]
fn ipv6_is_of_use_where_a_server_may_be_reached_by_it() {
    let by_ipv6 = |text: &str| parsed(text).network.by_ipv6;
    for text in
        ["root=xget://head/r", "rd.xget.server=10.0.0.1,head", "ip=:[2001:db8::1]::::eth0:either6"]
    {
        assert!(by_ipv6(text), "{text}");
    }
    for text in [
        "",
        "root=xget:///r",
        "root=xget://head/r rd.xget.server=10.0.0.1",
        "root=xget://10.0.0.1/r",
    ] {
        assert!(!by_ipv6(text), "{text}");
    }
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let ip = ip("[2001:db8::9]::[2001:db8::1]:64:n9:eth0:none");
    assert_eq!(ip.address, Some("2001:db8::9/64".parse().unwrap()));
    assert_eq!(ip.gateway, Some("2001:db8::1".parse().unwrap()));
}

#[test]
fn bootif_is_understood_with_dashes_with_colons_and_without_type() {
    for text in ["01-52-54-00-12-34-56", "01:52:54:00:12:34:56", "52:54:00:12:34:56"] {
        let mac = parsed(&format!("BOOTIF={text}")).network.boot_mac;
        assert_eq!(mac, Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]), "{text}");
    }
}

#[test]
fn a_link_may_be_named_by_its_hardware_address() {
    let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    for text in [
        "52:54:00:12:34:56:dhcp",
        "52-54-00-12-34-56:dhcp",
        "10.0.0.9::10.0.0.1:24:n9:52:54:00:12:34:56:none",
        "10.0.0.9::10.0.0.1:24:n9:52-54-00-12-34-56:none:1400",
    ] {
        assert_eq!(ip(text).link.as_deref().and_then(mac_of), Some(mac), "{text}");
    }
    let names =
        parsed("ifname=bootnet:52:54:00:12:34:56 ifname=other:52-54-00-12-34-57").network.names;
    assert_eq!(names[0], ("bootnet".to_owned(), mac));
    assert_eq!(names.len(), 2);
    assert_eq!(parsed("ifname=bootnet ifname=:52:54:00:12:34:56").ignored.len(), 2);
}

#[test]
fn a_wrong_part_of_ip_is_left_out_and_the_rest_counts() {
    let cmdline = parsed("ip=10.0.0.9:head:10.0.0.1:24:n9:eth0:none:mtu:52:54");
    let ip = &cmdline.network.ips[0];
    assert_eq!((ip.gateway, ip.server, ip.mtu, ip.mac), (address("10.0.0.1"), None, None, None));
    let whys: Vec<_> = cmdline.ignored.iter().map(|bad| bad.to_string()).collect();
    assert_eq!(whys.len(), 3, "{whys:?}");
    assert!(whys.iter().all(|why| why.contains("a part of ip=")), "{whys:?}");
    assert!(parsed("ip=nine::10.0.0.1:24::eth0:none").network.ips.is_empty());
}

#[test]
fn a_static_route_has_a_gateway_and_may_have_a_link() {
    let routes =
        parsed("rd.route=10.1.0.0/16:10.0.0.1:eth0 rd.route=[fd00::/8]:[fe80::1]").network.routes;
    assert_eq!(routes[0].to, "10.1.0.0/16".parse().unwrap());
    assert_eq!(
        (Some(routes[0].gateway), routes[0].link.as_deref()),
        (address("10.0.0.1"), Some("eth0"))
    );
    assert_eq!((routes[1].to, routes[1].link.as_deref()), ("fd00::/8".parse().unwrap(), None));
    for text in ["10.1.0.0:10.0.0.1", "10.1.0.0/16", "10.1.0.0/16:[fd00::1]"] {
        assert_eq!(parsed(&format!("rd.route={text}")).ignored.len(), 1, "{text}");
    }
}

#[test]
fn a_vlan_has_a_name_a_number_and_a_link() {
    let vlan = |name: &str, id, link: &str| Vlan { name: name.into(), id, link: link.into() };
    let vlans = parsed("vlan=vlan0005:eth1 vlan=eth0.7").network.vlans;
    assert_eq!(vlans, [vlan("vlan0005", 5, "eth1"), vlan("eth0.7", 7, "eth0")]);
}

#[test]
fn the_next_kernel_keeps_what_is_for_every_kernel() {
    let text = r#"BOOT_IMAGE=vmlinuz initrd=stage1 console=tty0 console=ttyS0,115200 quiet BOOTIF=01-52-54-00-12-34-56 rd.xget.kernel=k rd.xget.append="a b""#;
    assert_eq!(
        next_cmdline(text.as_bytes(), "root=xget:///r ro opt=\"1 2\""),
        "console=tty0 console=ttyS0,115200 BOOTIF=01-52-54-00-12-34-56 root=xget:///r ro opt=\"1 2\""
    );
}

#[test]
fn no_bytes_break_it() {
    for text in [&b"\"\"\"=\"= ip=: ip=::::::::: \xff\xfe=\xff"[..], b"ip=[]:[]", b"\0\0\n"] {
        let _ = Cmdline::parse(text);
    }
}
