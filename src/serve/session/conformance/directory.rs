//! read(5) of directories: whole stat entries, in order.

use super::*;

#[test]
fn a_directory_is_read_in_whole_records() {
    for dialect in [Dialect::Plain, Dialect::Unix] {
        let mut peer = Peer::new(dialect);
        peer.open(1, "many");
        let mut offset = 0;
        let mut names = Vec::new();
        loop {
            let records = peer.read(1, offset, 500);
            if records.is_empty() {
                break;
            }
            offset += records.len() as u64;
            names.extend(stat_names(&records, dialect));
        }
        assert_eq!(names, names_in_many());
        assert_eq!(peer.read(1, offset, 500), b"", "the end stays the end");
    }
}

#[test]
fn a_directory_is_read_on_or_from_its_start_only() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, "many");
    let first = peer.read(1, 0, 500);
    for offset in [1, first.len() as u64 + 1, u64::MAX] {
        assert_eq!(peer.refused(&read(1, offset, 500)), Errno::EINVAL);
    }
    assert_eq!(peer.read(1, 0, 500), first, "offset 0 rewinds");
}

#[test]
fn a_directory_read_with_too_little_room_brings_nothing_and_loses_nothing() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, "many");
    for count in [0, 1, 40] {
        assert_eq!(peer.read(1, 0, count), b"");
    }
    assert_eq!(stat_names(&peer.read(1, 0, 500), Dialect::Unix)[0], b"000");
}

#[test]
fn a_directory_is_not_read_by_tread_in_9p2000_l() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    assert_eq!(peer.refused(&read(1, 0, 500)), Errno::EISDIR);
}

#[test]
fn a_directory_says_of_an_entry_what_stat_says() {
    for dialect in [Dialect::Plain, Dialect::Unix] {
        let mut peer = Peer::new(dialect);
        peer.open(1, "boot");
        let records = peer.read(1, 0, MSIZE);
        let mut r = Reader::new("directory", &records, dialect);
        while r.left() > 0 {
            let record = Stat::read_record(&mut r).unwrap();
            let name = std::str::from_utf8(record.name.0).unwrap();
            peer.walk(2, &format!("boot/{name}"));
            assert_eq!(record, stat_of(&mut peer, 2));
            peer.ask(&clunk(2));
        }
    }
}

#[test]
fn two_fids_of_a_directory_are_read_each_from_its_own_place() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, "many");
    peer.open(2, "many");
    let first = peer.read(1, 0, 500);
    let second = peer.read(1, first.len() as u64, 500);
    assert_eq!(peer.read(2, 0, 500), first);
    assert_ne!(first, second);
}
