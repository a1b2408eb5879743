use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
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
fn hosts_are_found_by_any_of_their_names() {
    let hosts = "# 10.0.0.1 node\n10.0.0.7\tfull.example Node # 10.0.0.2\nfe80::1%lo node\n\
                 junk node\n2001:db8::7 node\n10.0.0.9 other";
    assert_eq!(addresses_in_hosts(hosts, "nODE."), [V4, V6]);
    assert_eq!(addresses_in_hosts(hosts, "full.example"), [V4]);
    assert!(addresses_in_hosts(hosts, "10.0.0.2").is_empty());
    assert!(addresses_in_hosts(hosts, "").is_empty());
}

#[test]
fn the_search_list_is_tried_first_for_names_of_few_dots() {
    let config = Config::parse("search a.example b..bad b.example.\noptions ndots:2", |_| None);
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
