use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::*;

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
pub(crate) const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 6, 6, 6));
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

pub(crate) fn query() -> Query {
    Query { id: 0x1234, name: Name::new("node.example").unwrap(), kind: DnsQueryType::A }
}

/// The response to `query` with these flags, records and their count.
pub(crate) fn response(query: &[u8], flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2..4].copy_from_slice(&(0x8000 | flags).to_be_bytes());
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    [bytes, records.to_vec()].concat()
}

/// A record. The name `\xc0\x0c` is a pointer to that in the question.
fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 9], &length, data].concat()
}

pub(crate) fn a_record(name: &[u8], address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => record(name, 1, &v4.octets()),
        IpAddr::V6(v6) => record(name, 28, &v6.octets()),
    }
}

/// What `query()` reads from a response with these records.
fn read(flags: u16, count: u16, records: &[u8]) -> Option<Answer> {
    query().read_answer(&response(&query().encode(), flags, count, records))
}

#[test]
fn the_longest_label_and_name_are_valid() {
    assert!(Name::new(&"a".repeat(63)).is_some());
    assert_eq!(Name::new(&"a.".repeat(127)).unwrap().0.len(), MAX_DNS_NAME_BYTES);
}

#[test]
fn a_query_has_the_format_of_rfc_1035() {
    let mut wire = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    wire.extend(b"\x04node\x07example\0\0\x01\0\x01");
    assert_eq!(query().encode(), wire);
}

#[test]
fn all_addresses_in_an_answer_are_read() {
    let records = [a_record(b"\xc0\x0c", V4), a_record(b"\xc0\x0c", OTHER_V4)].concat();
    assert_eq!(read(0, 2, &records), Some(Answer::Addresses(vec![V4, OTHER_V4])));
}

#[test]
fn an_answer_may_spell_the_name_in_another_case() {
    let upper = query().encode().to_ascii_uppercase();
    let record = a_record(b"\x04NodE\x07eXample\0", V4);
    let answer = query().read_answer(&response(&upper, 0, 1, &record));
    assert_eq!(answer, Some(Answer::Addresses(vec![V4])));
}

#[test]
fn aliases_are_followed_in_any_order_and_other_names_ignored() {
    let records = [
        a_record(b"\x01x\0", OTHER_V4),
        a_record(b"\x01c\0", V4),
        record(b"\x01b\0", 5, b"\x01c\0"),
        record(b"\xc0\x0c", 16, b"text"),
        record(b"\xc0\x0c", 5, b"\x01b\0"),
    ];
    assert_eq!(read(0, 5, &records.concat()), Some(Answer::Addresses(vec![V4])));
}

#[test]
fn an_alias_without_an_address_is_no_address() {
    assert_eq!(read(0, 1, &record(b"\xc0\x0c", 5, b"\x01b\0")), Some(Answer::NoAddress));
}

#[test]
fn a_loop_of_aliases_is_a_failure() {
    let circle = [record(b"\xc0\x0c", 5, b"\x01b\0"), record(b"\x01b\0", 5, b"\xc0\x0c")].concat();
    assert!(matches!(read(0, 2, &circle), Some(Answer::Failed(_))));
}

#[test]
fn response_codes_are_distinguished() {
    assert_eq!(read(0, 0, b""), Some(Answer::NoAddress));
    assert_eq!(read(3, 0, b""), Some(Answer::NoSuchName));
    assert_eq!(read(0x200, 0, b""), Some(Answer::Truncated));
    for (rcode, why) in [
        (2, "reports a server failure"),
        (4, "reports error 4"),
        (5, "refuses the query"),
        (15, "reports error 15"),
    ] {
        assert_eq!(read(rcode, 0, b""), Some(Answer::Failed(why.into())));
    }
}

#[test]
fn an_answer_to_another_question_is_ignored() {
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
fn a_malformed_record_is_a_failure() {
    let malformed = Some(Answer::malformed());
    assert_eq!(read(0, 1, b""), malformed, "missing");
    assert_eq!(read(0, 1, &record(b"\xc0\x0c", 1, b"123")), malformed, "a short address");
    assert_eq!(read(0, 1, &record(b"\xc0\x0c", 5, b"\x05ab")), malformed, "a short name");
    assert_eq!(read(0, 1, &record(b"\x80\x0c", 1, b"1234")), malformed, "a reserved label");
    assert_eq!(read(0, 1, &record(b"\xff\xff", 1, b"1234")), malformed, "a pointer outside");
    let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(4);
    assert_eq!(read(0, 1, &record(&[&long, &b"\0"[..]].concat(), 1, b"1234")), malformed, "long");
}

#[test]
fn a_loop_of_compression_pointers_is_malformed() {
    let name_at = query().encode().len() as u8;
    for name in [b"\xc0".as_slice(), b"\x01a\xc0"] {
        let name = [name, &[name_at]].concat();
        assert_eq!(read(0, 1, &record(&name, 1, b"1234")), Some(Answer::malformed()));
    }
    let data_at = name_at + 12;
    for data in [[0xc0, data_at, 0, 0], [0xc0, data_at + 2, 0xc0, data_at]] {
        assert_eq!(read(0, 1, &record(b"\xc0\x0c", 5, &data)), Some(Answer::malformed()));
    }
}

#[test]
fn the_most_expensive_message_is_read_within_a_second() {
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
    let endless = Answer::Failed("sends too many aliases (CNAME)".into());
    assert_eq!(read(0, u16::MAX, &records), Some(endless), "each name is the question's");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_damaged_message_does_not_panic() {
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
