//! Treaddir of 9P2000.L: whole entries, from any cookie.

use super::*;

#[test]
fn a_listing_begins_with_dot_and_dot_dot() {
    let mut peer = Peer::new(Dialect::Linux);
    for (fid, path) in [(1, "."), (2, "boot"), (3, ".xget")] {
        peer.open(fid, path);
        let listed = entries(&peer.ask(&readdir(fid, 0, MSIZE)));
        assert_eq!((&listed[0].1[..], &listed[1].1[..]), (&b"."[..], &b".."[..]), "{path}");
    }
}

#[test]
fn a_listing_goes_on_from_every_cookie() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    let mut all = vec![b".".to_vec(), b"..".to_vec()];
    all.extend(names_in_many());
    let mut cookie = 0;
    for (i, name) in all.iter().enumerate() {
        let listed = entries(&peer.ask(&readdir(1, cookie, 60)));
        assert_eq!(&listed[0].1, name, "entry {i}");
        cookie = listed[0].0;
    }
    assert_eq!(entries(&peer.ask(&readdir(1, cookie, 60))), []);
}

#[test]
fn a_listing_may_go_back() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    let first = peer.ask(&readdir(1, 0, 4000));
    let (last, _) = entries(&first).pop().unwrap();
    peer.ask(&readdir(1, last, 4000));
    assert_eq!(peer.ask(&readdir(1, 0, 4000)), first);
}

#[test]
fn a_made_up_cookie_lists_nothing_of_other_directories() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    let all = names_in_many();
    for cookie in (0..800).chain([u64::MAX - 1, u64::MAX, 1 << 32, 1 << 63]) {
        let listed = entries(&peer.ask(&readdir(1, cookie, 4000)));
        let strange =
            listed.iter().find(|(_, name)| !name.starts_with(b".") && !all.contains(name));
        assert_eq!(strange, None, "from {cookie}");
    }
}

#[test]
fn a_listing_has_whole_entries_within_the_count() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    for count in [0, 1, 24, 25, 26, 100, 0xffff_fff5] {
        let reply = peer.ask(&readdir(1, 0, count));
        let Message::Rreaddir { data } = &reply else { panic!("{reply}") };
        assert!(data.0.len() <= count.min(MSIZE - IO_HEADER_BYTES) as usize);
        entries(&reply);
    }
}

#[test]
fn only_an_open_directory_is_listed() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot");
    peer.open(2, "boot.cfg");
    assert_eq!(peer.refused(&readdir(1, 0, 1000)), Errno::EBADF);
    assert_eq!(peer.refused(&readdir(2, 0, 1000)), Errno::ENOTDIR);
}

#[test]
fn a_listing_has_the_qid_and_the_type_of_each_entry() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot");
    let Message::Rreaddir { data } = peer.ask(&readdir(1, 0, MSIZE)) else { panic!("not listed") };
    let mut r = Reader::new("Rreaddir", data.0, Dialect::Linux);
    while r.left() > 0 {
        let qid = Qid::decode(&mut r, "qid").unwrap();
        u64::decode(&mut r, "offset").unwrap();
        let kind = u8::decode(&mut r, "type").unwrap();
        let name = std::str::from_utf8(Text::decode(&mut r, "name").unwrap().0).unwrap();
        let Message::Rwalk { wqid } = peer.walk(2, &format!("boot/{name}")) else {
            panic!("{name} is not there")
        };
        assert_eq!(wqid[1], qid, "{name}");
        // As in readdir(3): DT_DIR, DT_LNK, DT_REG.
        let expected = match qid.kind {
            Qid::DIR => 4,
            Qid::SYMLINK => 10,
            _ => 8,
        };
        assert_eq!(kind, expected, "{name}");
        peer.ask(&clunk(2));
    }
}

#[test]
fn two_listings_of_a_directory_do_not_disturb_each_other() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    peer.open(2, "many");
    let first = entries(&peer.ask(&readdir(1, 0, 500)));
    assert_eq!(entries(&peer.ask(&readdir(2, 0, 500))), first);
    let on = entries(&peer.ask(&readdir(1, first.last().unwrap().0, 500)));
    assert_ne!(on, first);
}
