//! The pure half on texts.

use super::*;

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
        assert_eq!(why(&format!("n:{port}")), format!("\"{port}\" is no port (1 to 65535)"));
    }
    assert_eq!(why(""), "\"\" names no host");
    assert_eq!(why(":80"), "\":80\" names no host");
    assert_eq!(why("[::1"), "\"[::1\" lacks the closing ]");
    assert_eq!(why("[::1]80"), "\"80\" after ] is no :PORT");
    assert_eq!(why("[node]:80"), "\"node\" is no IPv6 address");
    assert_eq!(why("a:b:c"), "\"a:b:c\" is no IPv6 address");
}
