//! The rules of intro(5) and of its .u and .L additions, one test each.

use super::stat::*;
use super::*;
use crate::p9::message::NOTAG;
use crate::p9::testing::*;
use crate::p9::wire::{Field, IfPresent, Reader, Stat};

const DATA: u32 = 5;

fn clunk(fid: u32) -> Message<'static> {
    Message::Tclunk { fid }
}

fn flush(oldtag: u16) -> Message<'static> {
    Message::Tflush { oldtag }
}

fn walk<'a>(fid: u32, newfid: u32, path: &'a [&'a str]) -> Message<'a> {
    Message::Twalk { fid, newfid, wname: names(path) }
}

fn readdir(fid: u32, offset: u64, count: u32) -> Message<'static> {
    Message::Treaddir { fid, offset, count }
}

fn tags(replies: &[(u16, Message<'_>)]) -> Vec<u16> {
    replies.iter().map(|(tag, _)| *tag).collect()
}

fn steps(reply: &Message<'_>) -> usize {
    match reply {
        Message::Rwalk { wqid } => wqid.len(),
        other => panic!("{other}"),
    }
}

/// The names in a directory read by stat records.
fn stat_names(records: &[u8], dialect: Dialect) -> Vec<Vec<u8>> {
    let mut r = Reader::new("directory", records, dialect);
    let mut names = Vec::new();
    while r.left() > 0 {
        names.push(Stat::read_record(&mut r).unwrap().name.0.to_vec());
    }
    names
}

/// The entries of an Rreaddir: cookie and name.
fn entries(reply: &Message<'_>) -> Vec<(u64, Vec<u8>)> {
    let Message::Rreaddir { data } = reply else { panic!("{reply}") };
    let mut r = Reader::new("Rreaddir", data.0, Dialect::Linux);
    let mut entries = Vec::new();
    while r.left() > 0 {
        Qid::decode(&mut r, "qid").unwrap();
        let cookie = u64::decode(&mut r, "offset").unwrap();
        u8::decode(&mut r, "type").unwrap();
        entries.push((cookie, Text::decode(&mut r, "name").unwrap().0.to_vec()));
    }
    entries
}

fn names_in_many() -> Vec<Vec<u8>> {
    (0..MANY).map(|i| format!("{i:03}").into_bytes()).collect()
}

fn stat_of(peer: &mut Peer, fid: u32) -> Stat<'static> {
    match peer.ask(&Message::Tstat { fid }) {
        Message::Rstat { stat } => stat,
        other => panic!("{other}"),
    }
}

/// A Twstat that leaves every field alone.
fn no_change() -> Stat<'static> {
    Stat {
        dev_type: u16::MAX,
        dev: u32::MAX,
        qid: Qid { kind: u8::MAX, version: u32::MAX, path: u64::MAX },
        mode: u32::MAX,
        atime: u32::MAX,
        mtime: u32::MAX,
        length: u64::MAX,
        name: Text(b""),
        uid: Text(b""),
        gid: Text(b""),
        muid: Text(b""),
        extension: UnixOnly(Text(b"")),
        numeric: [UnixOnly(u32::MAX); 3],
    }
}

fn set_attributes(fid: u32) -> Message<'static> {
    Message::Tsetattr {
        fid,
        valid: 8,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        atime_sec: 0,
        atime_nsec: 0,
        mtime_sec: 0,
        mtime_nsec: 0,
    }
}

/// A .L peer with fid 5 open on a control file.
fn with_control(name: &str) -> Peer {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(DATA, &format!(".xget/{name}"));
    peer
}

/// A .L peer with a read of `have` waiting under tag 7.
fn with_waiting_read() -> Peer {
    let mut peer = with_control("have");
    peer.say(7, &read(DATA, 6, 100));
    assert!(peer.hear().is_empty());
    peer
}

// Versions

#[test]
fn a_version_is_recognized_by_its_prefix() {
    for (wanted, got) in [
        ("9P2000", "9P2000"),
        ("9P2000.u", "9P2000.u"),
        ("9P2000.L", "9P2000.L"),
        ("9P2000.L.Google.12", "9P2000.L"),
        ("9P2000.e", "9P2000"),
    ] {
        assert_eq!(Peer::silent().negotiate(MSIZE, wanted), (MSIZE, got.to_owned()));
    }
}

#[test]
fn another_version_is_answered_with_unknown() {
    for wanted in ["9P1999", "", "HTTP/1.1", "9p2000"] {
        assert_eq!(Peer::silent().negotiate(MSIZE, wanted).1, "unknown");
    }
}

#[test]
fn nothing_is_done_before_a_version_is_settled() {
    let mut peer = Peer::silent();
    assert_eq!(peer.refused(&attach(0)), Errno::EPROTO);
    peer.negotiate(MSIZE, "HTTP/1.1");
    assert_eq!(peer.refused(&attach(0)), Errno::EPROTO);
}

#[test]
fn the_message_size_is_the_smaller_of_both() {
    assert_eq!(Peer::silent().negotiate(u32::MAX, "9P2000.L").0, MAX_MSIZE);
    assert_eq!(Peer::silent().negotiate(32792, "9P2000.u").0, 32792);
}

#[test]
fn a_message_size_in_which_nothing_fits_is_answered_with_unknown() {
    assert_eq!(Peer::silent().negotiate(MIN_MSIZE - 1, "9P2000.L").1, "unknown");
    assert_eq!(Peer::silent().negotiate(MIN_MSIZE, "9P2000.L").1, "9P2000.L");
}

#[test]
fn a_new_version_clunks_every_fid() {
    let mut peer = with_control("have");
    peer.negotiate(MSIZE, "9P2000.L");
    assert!(!peer.host.is_open(Control::Have));
    assert_eq!(peer.refused(&clunk(ROOT_FID)), Errno::EBADF);
}

#[test]
fn a_new_version_drops_waiting_requests() {
    let mut peer = with_waiting_read();
    peer.negotiate(MSIZE, "9P2000.L");
    peer.host.have.extend(b"3\n");
    peer.resume();
    assert!(peer.hear().is_empty());
    peer.host.assert_balanced();
}

#[test]
fn a_new_version_ends_the_turns_of_replies_that_have_not_left() {
    let mut peer = with_control("image");
    peer.say(2, &read(DATA, 0, 100));
    peer.say(NOTAG, &version(MSIZE, "9P2000.L"));
    assert_eq!(tags(&peer.hear()), [NOTAG]);
    peer.host.assert_balanced();
}

#[test]
fn two_versions_in_a_row_are_both_answered() {
    let mut peer = Peer::silent();
    peer.say(NOTAG, &version(MSIZE, "9P2000.L"));
    peer.say(NOTAG, &version(MSIZE, "9P2000.L"));
    assert_eq!(peer.hear().len(), 2);
}

// Authentication and attaching

#[test]
fn authentication_is_refused_as_not_needed() {
    for dialect in DIALECTS {
        let (uname, aname, n_uname) =
            (Text(b"root"), Text(b""), crate::p9::wire::NumericId(Some(0)));
        let auth = Message::Tauth { afid: 9, uname, aname, n_uname };
        assert_eq!(Peer::new(dialect).refused(&auth), Errno::ENOENT);
    }
}

#[test]
fn anybody_may_attach_to_any_tree() {
    for dialect in DIALECTS {
        for aname in ["", "/", "/srv/boot", "Tag"] {
            let attach = Message::Tattach {
                fid: 1,
                afid: NOFID,
                uname: Text(b"\xff\0?"),
                aname: Text(aname.as_bytes()),
                n_uname: crate::p9::wire::NumericId(Some(12)),
            };
            let reply = Peer::new(dialect).ask(&attach);
            let Message::Rattach { qid } = reply else { panic!("{reply}") };
            assert_eq!(qid.kind, Qid::DIR);
        }
    }
}

#[test]
fn an_attach_needs_a_fid_of_its_own() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(peer.refused(&attach(ROOT_FID)), Errno::EBADF);
    assert_eq!(peer.refused(&attach(NOFID)), Errno::EBADF);
}

#[test]
fn an_attach_with_an_afid_is_refused() {
    let (uname, aname, n_uname) = (Text(b""), Text(b""), crate::p9::wire::NumericId(Some(0)));
    let attach = Message::Tattach { fid: 3, afid: 2, uname, aname, n_uname };
    assert_eq!(Peer::new(Dialect::Linux).refused(&attach), Errno::EBADF);
}

// Walking

#[test]
fn a_walk_of_no_element_clones_a_fid() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &[]))), 0);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
}

#[test]
fn a_walk_may_have_sixteen_elements() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["d"; 16]))), 16);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
}

#[test]
fn a_walk_that_ends_early_makes_no_fid() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["boot", "nothing", "more"]))), 1);
    assert_eq!(peer.refused(&clunk(1)), Errno::EBADF);
}

#[test]
fn a_walk_whose_first_element_is_missing_is_an_error() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(peer.refused(&walk(ROOT_FID, 1, &["nothing"])), Errno::ENOENT);
}

#[test]
fn a_control_file_that_the_host_does_not_have_is_not_found() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget");
    assert_eq!(peer.refused(&walk(1, 2, &["manifest.minisig"])), Errno::ENOENT);
    assert_eq!(steps(&peer.ask(&walk(1, 2, &["manifest"]))), 1);
}

#[test]
fn names_that_no_file_can_have_are_not_found() {
    let mut peer = Peer::new(Dialect::Linux);
    let long = "x".repeat(5000);
    for name in ["", "/", "../boot", "boot/vmlinuz", "boot\0", long.as_str()] {
        assert_eq!(peer.refused(&walk(ROOT_FID, 1, &[name])), Errno::ENOENT, "{name:?}");
    }
}

#[test]
fn a_walk_to_a_fid_in_use_is_refused() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot");
    assert_eq!(peer.refused(&walk(ROOT_FID, 1, &["boot"])), Errno::EBADF);
    assert_eq!(peer.refused(&walk(ROOT_FID, NOFID, &["boot"])), Errno::EBADF);
}

#[test]
fn a_walk_may_move_its_own_fid() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 1, &["vmlinuz"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"vmlinuz");
}

#[test]
fn a_walk_that_ends_early_leaves_its_own_fid_where_it_was() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 1, &["..", "nothing"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot");
}

#[test]
fn dot_stays_and_dot_dot_goes_up_but_not_out() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.ask(&walk(ROOT_FID, 1, &["boot", ".", "..", "..", "..", "boot.cfg"]));
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot.cfg");
}

#[test]
fn no_walk_leads_through_a_file_or_a_link() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["boot", "vmlinuz", ".."]))), 2);
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["boot", "link", "x"]))), 2);
    peer.walk(2, "boot.cfg");
    assert_eq!(peer.refused(&walk(2, 3, &["x"])), Errno::ENOTDIR);
}

#[test]
fn a_walk_may_start_from_an_open_fid_but_not_move_it() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot");
    assert_eq!(steps(&peer.ask(&walk(1, 2, &["vmlinuz"]))), 1);
    assert_eq!(peer.refused(&walk(1, 1, &["vmlinuz"])), Errno::EBUSY);
}

#[test]
fn names_are_bytes_not_text() {
    let mut peer = Peer::new(Dialect::Unix);
    let wname = List::from_slice(&[Text(NOT_UTF8)]).unwrap();
    peer.ask(&Message::Twalk { fid: ROOT_FID, newfid: 1, wname });
    assert_eq!(stat_of(&mut peer, 1).name.0, NOT_UTF8);
}

#[test]
fn fids_are_limited() {
    let mut peer = Peer::new(Dialect::Linux);
    for fid in 1..MAX_FIDS as u32 {
        peer.say(TAG, &walk(ROOT_FID, fid, &[]));
        peer.drain();
    }
    assert_eq!(peer.refused(&walk(ROOT_FID, 1 << 20, &[])), Errno::EMFILE);
    peer.ask(&clunk(1));
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1 << 20, &[]))), 0);
}

// Opening

#[test]
fn files_and_directories_open_for_reading() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        for (fid, path, kind) in [(1, "boot/vmlinuz", Qid::FILE), (2, "boot", Qid::DIR)] {
            match peer.open(fid, path) {
                Message::Ropen { qid, iounit: 0 } | Message::Rlopen { qid, iounit: 0 } => {
                    assert_eq!(qid.kind, kind);
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn opens_that_would_change_a_file_are_refused() {
    const OTRUNC: u8 = 0x10;
    const ORCLOSE: u8 = 0x40;
    for (dialect, errno) in [(Dialect::Plain, Errno::EPERM), (Dialect::Unix, Errno::EROFS)] {
        let mut peer = Peer::new(dialect);
        peer.walk(1, "boot/vmlinuz");
        for mode in [1, 2, OTRUNC, ORCLOSE, 1 | OTRUNC, 3 | ORCLOSE] {
            assert_eq!(peer.refused(&Message::Topen { fid: 1, mode }), errno, "{mode:#x}");
        }
    }
}

#[test]
fn opens_that_would_change_a_file_are_refused_by_their_linux_flags() {
    const O_TRUNC: u32 = 0o1000;
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot/vmlinuz");
    for flags in [1, 2, 3, O_TRUNC, 1 | O_TRUNC] {
        assert_eq!(peer.refused(&Message::Tlopen { fid: 1, flags }), Errno::EROFS, "{flags:#o}");
    }
}

#[test]
fn flags_that_change_nothing_are_ignored() {
    // O_CREAT, O_NONBLOCK, O_LARGEFILE, O_NOFOLLOW, O_NOATIME, O_CLOEXEC
    let flags = 0o100 | 0o4000 | 0o100_000 | 0o400_000 | 0o1_000_000 | 0o2_000_000;
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot/vmlinuz");
    assert!(matches!(peer.ask(&Message::Tlopen { fid: 1, flags }), Message::Rlopen { .. }));
}

#[test]
fn execution_is_reading() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.open_for(1, "boot/vmlinuz", 3);
    assert_eq!(peer.read(1, 0, 10).len(), 10);
}

#[test]
fn a_directory_does_not_open_for_writing() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.walk(1, "boot");
        peer.walk(2, ".xget");
        for fid in [1, 2] {
            assert_eq!(peer.refused(&open(dialect, fid, 1)), Errno::EISDIR);
        }
    }
}

#[test]
fn only_a_directory_opens_as_a_directory() {
    const O_DIRECTORY: u32 = 0o200_000;
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot.cfg");
    peer.walk(2, ".xget/have");
    peer.walk(3, "boot");
    for fid in [1, 2] {
        assert_eq!(peer.refused(&Message::Tlopen { fid, flags: O_DIRECTORY }), Errno::ENOTDIR);
    }
    let reply = peer.ask(&Message::Tlopen { fid: 3, flags: O_DIRECTORY });
    assert!(matches!(reply, Message::Rlopen { .. }));
}

#[test]
fn a_fid_opens_once() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot");
    assert_eq!(peer.refused(&open(Dialect::Linux, 1, 0)), Errno::EBUSY);
}

#[test]
fn a_refused_open_leaves_the_fid_to_be_opened_otherwise() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot.cfg");
    peer.refused(&open(Dialect::Linux, 1, 1));
    assert!(matches!(peer.ask(&open(Dialect::Linux, 1, 0)), Message::Rlopen { .. }));
}

#[test]
fn a_link_is_not_followed() {
    for dialect in [Dialect::Unix, Dialect::Linux] {
        let mut peer = Peer::new(dialect);
        peer.walk(1, "boot/link");
        assert_eq!(peer.refused(&open(dialect, 1, 0)), Errno::ELOOP);
    }
}

#[test]
fn plain_9p2000_sees_a_link_as_a_file_that_holds_its_target() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.open(1, "boot/link");
    assert_eq!(peer.read(1, 0, 100), TARGET);
    assert_eq!(peer.read(1, 3, 4), b"boot");
    let stat = stat_of(&mut peer, 1);
    assert_eq!((stat.qid.kind, stat.length), (Qid::FILE, TARGET.len() as u64));
}

#[test]
fn control_files_open_only_as_their_permissions_say() {
    let mut peer = Peer::new(Dialect::Linux);
    let avail = ".xget/avail";
    for (path, mode) in [(".xget/have", 1), (".xget/have", 2), (avail, 0), (avail, 2)] {
        peer.walk(1, path);
        assert_eq!(peer.refused(&open(Dialect::Linux, 1, mode)), Errno::EPERM, "{path} {mode}");
        peer.ask(&clunk(1));
    }
    peer.close();
}

#[test]
fn truncation_is_allowed_where_writing_is() {
    const O_TRUNC: u32 = 0o1000;
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget/log");
    peer.walk(2, ".xget/have");
    assert!(matches!(
        peer.ask(&Message::Tlopen { fid: 1, flags: 1 | O_TRUNC }),
        Message::Rlopen { .. }
    ));
    assert_eq!(peer.refused(&Message::Tlopen { fid: 2, flags: O_TRUNC }), Errno::EROFS);
}

#[test]
fn the_hosts_refusal_to_open_is_passed_on() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget/redir");
    assert_eq!(peer.refused(&open(Dialect::Linux, 1, 0)), Errno::EIO);
    peer.close();
}

// Reading files

#[test]
fn a_file_is_read_from_any_offset() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.open(1, "boot/vmlinuz");
        let start = {
            let path = crate::path::TreePath::from_manifest(b"boot/vmlinuz").unwrap();
            let node = peer.host.tree.find(&path).unwrap();
            peer.host.tree.entry(node).unwrap().image_range().start
        };
        for (offset, count) in [(0, 1), (1, 4000), (KERNEL_BYTES - 5, 5), (99_999, 0)] {
            let expected = image_bytes(start + offset..start + offset + u64::from(count));
            assert_eq!(peer.read(1, offset, count), expected);
        }
    }
}

#[test]
fn a_read_stops_at_the_end_of_its_file() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    assert_eq!(peer.read(1, KERNEL_BYTES - 5, 1000).len(), 5);
    for offset in [KERNEL_BYTES, KERNEL_BYTES + 1, u64::MAX] {
        assert_eq!(peer.read(1, offset, 1000), b"");
    }
}

#[test]
fn an_empty_file_reads_as_nothing() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/empty");
    assert_eq!(peer.read(1, 0, 1000), b"");
}

#[test]
fn a_read_brings_no_more_than_fits_into_a_message() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    for count in [MSIZE, 0xffff_fff5, u32::MAX] {
        assert_eq!(peer.read(1, 0, count).len(), (MSIZE - IO_HEADER_BYTES) as usize);
    }
}

#[test]
fn a_read_of_an_unopened_or_unknown_fid_is_refused() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot.cfg");
    assert_eq!(peer.refused(&read(1, 0, 10)), Errno::EBADF);
    assert_eq!(peer.refused(&read(99, 0, 10)), Errno::EBADF);
}

#[test]
fn the_image_is_read_in_turns() {
    let mut peer = with_control("image");
    peer.say(2, &read(DATA, 0, 100));
    assert_eq!(peer.host.turns(), 1);
    let replies = peer.hear();
    assert_eq!(replies, [(2, Message::Rread { data: Blob(&image_bytes(0..100)) })]);
    assert_eq!(peer.host.turns(), 0);
}

#[test]
fn the_image_ends_without_a_turn() {
    let mut peer = with_control("image");
    peer.host.image_waits = true;
    assert_eq!(peer.read(DATA, 1 << 40, 100), b"");
}

#[test]
fn the_manifest_is_read_as_it_was_when_it_was_opened() {
    let mut peer = with_control("manifest");
    let text = peer.host.tree.manifest().text().clone();
    peer.host.tree = changed_tree();
    let mut read = Vec::new();
    while let Some(piece) = Some(peer.read(DATA, read.len() as u64, 3000)).filter(|p| !p.is_empty())
    {
        read.extend(piece);
    }
    assert_eq!(read, &text[..]);
}

#[test]
fn a_write_only_file_is_not_read() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open_for(1, ".xget/log", 1);
    assert_eq!(peer.refused(&read(1, 0, 10)), Errno::EBADF);
}

// Reading directories by stat records

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
fn the_control_directory_is_walked_to_but_not_listed() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, ".");
    let names = stat_names(&peer.read(1, 0, MSIZE), Dialect::Unix);
    assert!(names.contains(&b"boot".to_vec()) && !names.contains(&b".xget".to_vec()));
    peer.open(2, ".xget");
    assert_eq!(peer.read(2, 0, MSIZE), b"");
}

#[test]
fn a_directory_is_not_read_by_tread_in_9p2000_l() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "many");
    assert_eq!(peer.refused(&read(1, 0, 500)), Errno::EISDIR);
}

// Reading directories by Treaddir

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

// Attributes

#[test]
fn stat_says_what_a_file_is() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.walk(1, "boot/vmlinuz");
    let stat = stat_of(&mut peer, 1);
    assert_eq!((stat.name.0, stat.length, stat.mode), (&b"vmlinuz"[..], KERNEL_BYTES, 0o644));
    assert_eq!((stat.uid.0, stat.gid.0), (&b"7"[..], &b"8"[..]));
    assert_eq!(stat.numeric.map(|id| id.0), [7, 8, 7]);
    assert_eq!(stat.mtime, 1_700_000_000);
}

#[test]
fn stat_says_what_a_directory_is() {
    let mut peer = Peer::new(Dialect::Plain);
    peer.walk(1, "boot");
    let stat = stat_of(&mut peer, 1);
    assert_eq!((stat.mode, stat.length), (DMDIR | 0o755, 0));
    assert_eq!(stat_of(&mut peer, ROOT_FID).name.0, b"/");
}

#[test]
fn stat_of_9p2000_u_has_links_and_special_bits() {
    let mut peer = Peer::new(Dialect::Unix);
    for (fid, path, bits) in [
        (1, "boot/link", DMSYMLINK | 0o777),
        (2, "su", DMSETUID | 0o755),
        (3, "tmp", DMDIR | DMSETVTX | 0o777),
    ] {
        peer.walk(fid, path);
        assert_eq!(stat_of(&mut peer, fid).mode, bits, "{path}");
    }
    assert_eq!(stat_of(&mut peer, 1).extension.0.0, TARGET);
}

#[test]
fn getattr_says_all_that_stat_2_has() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot/vmlinuz");
    for request_mask in [0x7ff, 0x17ff, 0x3fff, 0] {
        match peer.ask(&Message::Tgetattr { fid: 1, request_mask }) {
            Message::Rgetattr { valid, qid, mode, uid, gid, size, mtime_sec, .. } => {
                assert_eq!((valid, mode, uid, gid), (0x7ff, 0o100_644, 7, 8));
                assert_eq!((size, mtime_sec), (KERNEL_BYTES, 1_700_000_000));
                assert_ne!(qid.version, 0);
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn stat_and_getattr_belong_to_their_dialects() {
    let fid = ROOT_FID;
    let mut linux = Peer::new(Dialect::Linux);
    assert_eq!(linux.refused(&Message::Tstat { fid }), Errno::EOPNOTSUPP);
    let mut unix = Peer::new(Dialect::Unix);
    assert_eq!(unix.refused(&Message::Tgetattr { fid, request_mask: 0 }), Errno::EOPNOTSUPP);
}

#[test]
fn statfs_counts_the_image() {
    let mut peer = Peer::new(Dialect::Linux);
    let image_bytes = peer.host.tree.manifest().layout().image_bytes();
    match peer.ask(&Message::Tstatfs { fid: ROOT_FID }) {
        Message::Rstatfs { fstype, bsize, blocks, bfree, namelen, .. } => {
            assert_eq!((fstype, bfree, namelen), (0x0102_1997, 0, 255));
            assert!(blocks * u64::from(bsize) >= image_bytes);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn readlink_gives_the_target_as_it_is() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot/link");
    assert_eq!(
        peer.ask(&Message::Treadlink { fid: 1 }),
        Message::Rreadlink { target: Text(TARGET) }
    );
    assert_eq!(peer.refused(&Message::Treadlink { fid: ROOT_FID }), Errno::EINVAL);
}

#[test]
fn there_are_no_extended_attributes() {
    let walk = Message::Txattrwalk { fid: ROOT_FID, newfid: 1, name: Text(b"user.x") };
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(peer.refused(&walk), Errno::EOPNOTSUPP);
    assert_eq!(peer.refused(&clunk(1)), Errno::EBADF);
}

#[test]
fn locks_are_granted_and_nobody_holds_one() {
    let mut peer = Peer::new(Dialect::Linux);
    let (fid, start, length, proc_id, client_id) = (ROOT_FID, 3, 4, 5, Text(b"node"));
    let lock = Message::Tlock { fid, kind: 1, flags: 0, start, length, proc_id, client_id };
    assert_eq!(peer.ask(&lock), Message::Rlock { status: 0 });
    let lock = Message::Tgetlock { fid, kind: 1, start, length, proc_id, client_id };
    let none = Message::Rgetlock { kind: 2, start, length, proc_id, client_id };
    assert_eq!(peer.ask(&lock), none);
}

#[test]
fn fsync_succeeds_with_and_without_its_newer_field() {
    let mut peer = Peer::new(Dialect::Linux);
    for datasync in [None, Some(1)] {
        let fsync = Message::Tfsync { fid: ROOT_FID, datasync: IfPresent(datasync) };
        assert_eq!(peer.ask(&fsync), Message::Rfsync {});
    }
}

// Changes

#[test]
fn a_wstat_of_nothing_is_an_fsync() {
    for dialect in [Dialect::Plain, Dialect::Unix] {
        let wstat = Message::Twstat { fid: ROOT_FID, stat: no_change() };
        assert_eq!(Peer::new(dialect).ask(&wstat), Message::Rwstat {});
    }
}

#[test]
fn a_wstat_of_anything_is_refused() {
    for (dialect, errno) in [(Dialect::Plain, Errno::EPERM), (Dialect::Unix, Errno::EROFS)] {
        let mut peer = Peer::new(dialect);
        for stat in [
            Stat { mode: 0o777, ..no_change() },
            Stat { length: 0, ..no_change() },
            Stat { name: Text(b"new"), ..no_change() },
            Stat { mtime: 1, ..no_change() },
            Stat { gid: Text(b"0"), ..no_change() },
        ] {
            assert_eq!(peer.refused(&Message::Twstat { fid: ROOT_FID, stat }), errno);
        }
    }
}

#[test]
fn every_change_is_refused_as_read_only() {
    let (fid, dfid, name, gid) = (ROOT_FID, ROOT_FID, Text(b"x"), 0);
    let mut peer = Peer::new(Dialect::Linux);
    for change in [
        Message::Tlcreate { fid, name, flags: 0, mode: 0, gid },
        Message::Tsymlink { fid, name, symtgt: Text(b"/"), gid },
        Message::Tmknod { dfid, name, mode: 0, major: 0, minor: 0, gid },
        Message::Trename { fid, dfid, name },
        set_attributes(fid),
        Message::Txattrcreate { fid, name, attr_size: 1, flags: 0 },
        Message::Tlink { dfid, fid, name },
        Message::Tmkdir { dfid, name, mode: 0, gid },
        Message::Trenameat { olddirfid: fid, oldname: name, newdirfid: fid, newname: name },
        Message::Tunlinkat { dirfid: fid, name, flags: 0 },
    ] {
        assert_eq!(peer.refused(&change), Errno::EROFS, "{change}");
    }
}

#[test]
fn create_is_refused_in_the_older_dialects() {
    for (dialect, errno) in [(Dialect::Plain, Errno::EPERM), (Dialect::Unix, Errno::EROFS)] {
        let extension = UnixOnly(Text(b""));
        let create =
            Message::Tcreate { fid: ROOT_FID, name: Text(b"x"), perm: 0, mode: 0, extension };
        assert_eq!(Peer::new(dialect).refused(&create), errno);
    }
}

#[test]
fn a_file_opened_for_reading_is_not_written() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot.cfg");
    let write = Message::Twrite { fid: 1, offset: 0, data: Blob(b"x") };
    assert_eq!(peer.refused(&write), Errno::EBADF);
}

#[test]
fn what_is_written_to_a_control_file_reaches_the_host() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.open_for(1, ".xget/log", 1);
        let write = Message::Twrite { fid: 1, offset: 99, data: Blob(b"hello") };
        assert_eq!(peer.ask(&write), Message::Rwrite { count: 5 });
        assert_eq!(peer.host.written, b"hello");
    }
}

#[test]
fn a_file_that_is_written_tells_how_long_a_write_may_be() {
    let mut peer = Peer::silent();
    peer.negotiate(1 << 20, "9P2000.L");
    peer.ask(&attach(ROOT_FID));
    let reply = peer.open_for(1, ".xget/log", 1);
    let Message::Rlopen { iounit, .. } = reply else { panic!("{reply}") };
    let data = vec![b'x'; iounit as usize];
    let write = Message::Twrite { fid: 1, offset: 0, data: Blob(&data) };
    assert_eq!(peer.ask(&write), Message::Rwrite { count: iounit });
}

#[test]
fn a_control_file_lets_itself_be_truncated() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, ".xget/log");
    assert_eq!(peer.ask(&set_attributes(1)), Message::Rsetattr {});
}

#[test]
fn a_file_is_not_removed_but_its_fid_is() {
    for (dialect, errno) in [(Dialect::Plain, Errno::EPERM), (Dialect::Linux, Errno::EROFS)] {
        let mut peer = Peer::new(dialect);
        peer.walk(1, "boot.cfg");
        assert_eq!(peer.refused(&Message::Tremove { fid: 1 }), errno);
        assert_eq!(peer.refused(&clunk(1)), Errno::EBADF);
        assert!(matches!(peer.walk(1, "boot.cfg"), Message::Rwalk { .. }));
    }
}

#[test]
fn a_request_on_an_unknown_fid_is_refused() {
    let (fid, dfid, name, gid) = (77, 77, Text(b"x"), 0);
    let mut peer = Peer::new(Dialect::Linux);
    for request in [
        walk(fid, 78, &[]),
        clunk(fid),
        readdir(fid, 0, 100),
        set_attributes(fid),
        Message::Tlopen { fid, flags: 0 },
        Message::Tremove { fid },
        Message::Tgetattr { fid, request_mask: 0 },
        Message::Tstatfs { fid },
        Message::Treadlink { fid },
        Message::Tfsync { fid, datasync: IfPresent(None) },
        Message::Twrite { fid, offset: 0, data: Blob(b"x") },
        Message::Txattrwalk { fid, newfid: 78, name },
        Message::Tmkdir { dfid, name, mode: 0, gid },
    ] {
        assert_eq!(peer.refused(&request), Errno::EBADF, "{request}");
    }
}

// Clunking

#[test]
fn a_clunked_fid_is_free_again() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot.cfg");
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
    assert!(matches!(peer.open(1, "boot"), Message::Rlopen { .. }));
}

#[test]
fn the_host_is_told_when_an_open_control_file_is_clunked() {
    let mut peer = with_control("have");
    assert!(peer.host.is_open(Control::Have));
    peer.ask(&clunk(DATA));
    assert!(!peer.host.is_open(Control::Have));
}

#[test]
fn a_clunk_ends_the_reads_that_wait_on_its_fid() {
    let mut peer = with_waiting_read();
    peer.say(8, &clunk(DATA));
    let replies = peer.hear();
    assert_eq!(tags(&replies), [7, 8]);
    assert_eq!(error_of(&replies[0].1), Some(Errno::EBADF));
    peer.host.assert_balanced();
}

// Messages that are none

#[test]
fn a_message_of_unknown_type_gets_an_error_under_its_tag() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        for kind in [0, 1, 6, 99, 106, 128, 255] {
            peer.feed(&[11, 0, 0, 0, kind, 0x34, 0x12, 1, 2, 3, 4]).unwrap();
            let replies = peer.hear();
            assert_eq!(tags(&replies), [0x1234]);
            assert!(error_of(&replies[0].1).is_some());
        }
    }
}

#[test]
fn a_reply_is_no_request() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        for reply in [Message::Rclunk {}, Message::Rread { data: Blob(b"x") }, Message::Rflush {}] {
            peer.refused(&reply);
        }
    }
}

#[test]
fn a_request_of_another_dialect_gets_one_reply() {
    let mut plain = Peer::new(Dialect::Plain);
    plain.walk(1, "boot");
    plain.ask(&Message::Tlopen { fid: 1, flags: 0 });
    plain.ask(&readdir(1, 0, 1000));
    let mut linux = Peer::new(Dialect::Linux);
    linux.walk(1, "boot.cfg");
    linux.ask(&Message::Topen { fid: 1, mode: 0 });
    linux.refused(&Message::Tstat { fid: 1 });
}

#[test]
fn a_request_with_a_bad_body_keeps_its_tag() {
    let mut peer = Peer::new(Dialect::Linux);
    let seventeen = [&[0; 8][..], &[17, 0], &[1, 0, b'a'].repeat(17)].concat();
    for (kind, body) in [
        (120, &[1, 2][..]),
        (120, &[1, 2, 3, 4, 5]),
        (100, &[1]),
        (110, &[0, 0, 0, 0, 1, 0, 0, 0, 255, 255]),
        (110, &seventeen),
        (118, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]),
        (104, &[]),
    ] {
        let size = (HEADER_BYTES + body.len()) as u32;
        peer.feed(&[&size.to_le_bytes()[..], &[kind, 9, 1], body].concat()).unwrap();
        let replies = peer.hear();
        assert_eq!(tags(&replies), [0x0109]);
        assert_eq!(error_of(&replies[0].1), Some(Errno::EPROTO));
    }
}

#[test]
fn a_message_larger_than_agreed_is_skipped_and_refused_under_its_tag() {
    let mut peer = Peer::new(Dialect::Linux);
    for size in [MSIZE + 1, MAX_REQUEST_BYTES as u32 + 1, 1 << 20] {
        let header = [&size.to_le_bytes()[..], &[118, 9, 1]].concat();
        peer.feed(&header).unwrap();
        let replies = peer.hear();
        assert_eq!(tags(&replies), [0x0109]);
        assert_eq!(error_of(&replies[0].1), Some(Errno::EMSGSIZE));
        peer.feed(&vec![0; size as usize - HEADER_BYTES]).unwrap();
        assert_eq!(steps(&peer.ask(&walk(ROOT_FID, ROOT_FID, &[]))), 0, "the next is understood");
    }
}

#[test]
fn a_message_smaller_than_its_header_ends_the_connection() {
    for size in 0..HEADER_BYTES as u8 {
        let mut peer = Peer::new(Dialect::Linux);
        assert_eq!(
            peer.feed(&[size, 0, 0, 0, 120, 1, 0]),
            Err(Hangup::BadFrameSize(u32::from(size)))
        );
    }
}

#[test]
fn a_peer_that_does_not_speak_9p_is_hung_up_on() {
    for greeting in ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\x16\x03\x01\x02\0\x01"]
    {
        assert!(Peer::silent().feed(greeting.as_bytes()).is_err(), "{greeting:?}");
    }
}

#[test]
fn requests_that_arrive_byte_by_byte_get_the_same_replies() {
    let script = [
        encode(NOTAG, &version(MSIZE, "9P2000.L"), Dialect::Linux),
        encode(1, &attach(0), Dialect::Linux),
        encode(2, &walk(0, 1, &["boot", "vmlinuz"]), Dialect::Linux),
        vec![9, 0, 0, 0, 120, 4, 0, 1, 1],
        encode(3, &open(Dialect::Linux, 1, 0), Dialect::Linux),
        [&[1, 0, 2, 0, 118, 5, 0][..], &vec![0; 0x20001 - 7]].concat(),
        encode(NOTAG, &version(MSIZE, "9P2000.L"), Dialect::Linux),
        encode(1, &attach(0), Dialect::Linux),
        encode(2, &walk(0, 1, &["boot", "vmlinuz"]), Dialect::Linux),
        encode(3, &open(Dialect::Linux, 1, 0), Dialect::Linux),
        encode(4, &read(1, 100, 50), Dialect::Linux),
    ]
    .concat();
    let replies = |split: usize, step: usize| {
        let mut peer = Peer::silent();
        let (head, rest) = script.split_at(split);
        let mut stream = Vec::new();
        for piece in std::iter::once(head).chain(rest.chunks(step)) {
            peer.feed(piece).unwrap();
            stream.extend(peer.drain());
        }
        stream
    };
    let whole = replies(script.len(), 1);
    assert_eq!(replies(0, 1), whole);
    let head = 200.min(script.len());
    for split in (1..head).chain(script.len() - head..script.len()) {
        assert_eq!(replies(split, script.len()), whole, "split at {split}");
    }
}

// Limits

#[test]
fn thousands_of_reads_at_once_are_answered_a_few_at_a_time() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    let requests: Vec<u8> =
        (0..2800).flat_map(|tag| encode(tag, &read(1, 0, 100), Dialect::Linux)).collect();
    peer.feed(&requests).unwrap();
    assert!(!peer.session.wants_input());
    let mut waiting = 0;
    while peer.session.next_output().is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, MAX_OUTPUTS);
    peer.session.process(&mut peer.host, peer.now).unwrap();
    let answered = tags(&peer.hear());
    assert_eq!(answered, (MAX_OUTPUTS as u16..2800).collect::<Vec<_>>());
    assert!(peer.session.wants_input());
}

#[test]
fn a_client_that_asks_and_never_reads_costs_little_memory() {
    let mut peer = Peer::silent();
    peer.negotiate(1 << 20, "9P2000.L");
    peer.ask(&attach(ROOT_FID));
    peer.open(DATA, ".xget/manifest");
    let mut tag = 0;
    while peer.session.wants_input() {
        peer.say(tag, &read(DATA, 0, 1 << 20));
        tag += 1;
    }
    let bytes: usize = peer.drain().len();
    assert!(bytes <= MAX_OUTPUT_BYTES + (1 << 20), "{bytes} bytes");
}

#[test]
fn an_image_read_may_be_as_large_as_the_largest_chunk() {
    let mut peer = Peer::silent();
    peer.negotiate(MAX_MSIZE, "9P2000.L");
    peer.ask(&attach(ROOT_FID));
    peer.open(DATA, ".xget/image");
    let image_bytes = peer.host.tree.manifest().layout().image_bytes();
    assert_eq!(peer.read(DATA, 0, u32::MAX).len() as u64, image_bytes);
}

#[test]
fn while_many_requests_wait_others_are_answered() {
    let mut peer = with_control("have");
    for tag in 10..10 + MAX_PARKED as u16 {
        peer.say(tag, &read(DATA, 6, 100));
    }
    assert!(peer.hear().is_empty());
    assert!(peer.session.wants_input());
    assert_eq!(peer.refused(&read(DATA, 6, 100)), Errno::EBUSY);
    assert_eq!(peer.ask(&flush(10)), Message::Rflush {});
    peer.close();
}

#[test]
fn no_reply_is_longer_than_agreed() {
    for dialect in DIALECTS {
        let mut peer = Peer::silent();
        let long = Content::Symlink { target: vec![b'x'; 4000].into() };
        peer.host.tree = tree_with([crate::manifest::tests::entry("long", long)]);
        peer.negotiate(MIN_MSIZE, dialect.name());
        peer.ask(&attach(ROOT_FID));
        peer.walk(1, "long");
        peer.open(2, "many");
        for request in [
            Message::Tstat { fid: 1 },
            Message::Treadlink { fid: 1 },
            Message::Tgetattr { fid: 1, request_mask: 0 },
            Message::Tstatfs { fid: 1 },
            read(2, 0, u32::MAX),
            readdir(2, 0, u32::MAX),
        ] {
            peer.say(TAG, &request);
            let bytes = peer.drain().len();
            assert!((1..=MIN_MSIZE as usize).contains(&bytes), "{request}: {bytes} bytes");
        }
    }
}

// Waiting and flushing

#[test]
fn a_read_that_waits_is_answered_when_there_is_something() {
    let mut peer = with_waiting_read();
    peer.resume();
    assert!(peer.hear().is_empty(), "there is still nothing");
    peer.host.have.extend(b"3\n");
    peer.resume();
    assert_eq!(peer.hear(), [(7, Message::Rread { data: Blob(b"3\n") })]);
}

#[test]
fn a_read_that_waits_holds_up_nobody() {
    let mut peer = with_waiting_read();
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 9, &["boot"]))), 1);
}

#[test]
fn a_read_of_a_file_that_is_not_there_yet_waits() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(1, "boot/vmlinuz");
    peer.host.image_waits = true;
    peer.say(7, &read(1, 0, 10));
    assert!(peer.hear().is_empty());
    peer.host.image_waits = false;
    peer.resume();
    assert_eq!(tags(&peer.hear()), [7]);
}

#[test]
fn a_flushed_read_gets_no_reply() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    assert_eq!(peer.hear(), [(8, Message::Rflush {})]);
    assert!(!peer.host.is_waiting(Control::Have));
    peer.host.have.extend(b"3\n");
    peer.resume();
    assert!(peer.hear().is_empty());
}

#[test]
fn a_flushed_read_frees_its_tag() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    peer.say(7, &read(DATA, 0, 100));
    assert_eq!(tags(&peer.hear()), [8, 7]);
}

#[test]
fn a_flush_of_one_read_leaves_the_place_of_another_in_line() {
    for (file, control) in [("have", Control::Have), ("image", Control::Image)] {
        let mut peer = with_control(file);
        peer.host.image_waits = true;
        peer.say(7, &read(DATA, 6, 100));
        peer.say(8, &read(DATA, 6, 100));
        peer.ask(&flush(7));
        assert!(peer.host.is_waiting(control), "{file}: nobody would wake the other read");
        peer.ask(&flush(8));
        peer.host.is_waiting(control).then(|| panic!("{file}: nobody waits any more"));
    }
}

#[test]
fn a_flush_of_a_reply_that_has_not_left_takes_it_back() {
    let mut peer = with_control("image");
    peer.say(7, &read(DATA, 0, 100));
    peer.say(8, &flush(7));
    assert_eq!(peer.host.turns(), 0, "its turn has ended");
    assert_eq!(tags(&peer.hear()), [8]);
}

#[test]
fn a_flush_comes_after_the_reply_that_it_was_too_late_for() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.say(7, &walk(ROOT_FID, 1, &["boot"]));
    peer.say(8, &flush(7));
    assert_eq!(tags(&peer.hear()), [7, 8]);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {}, "it was carried out");
}

#[test]
fn a_flush_of_an_unknown_tag_is_answered() {
    assert_eq!(Peer::new(Dialect::Linux).ask(&flush(4242)), Message::Rflush {});
}

#[test]
fn a_flush_of_its_own_tag_is_answered() {
    assert_eq!(Peer::new(Dialect::Linux).ask(&flush(TAG)), Message::Rflush {});
}

#[test]
fn two_flushes_of_one_request_are_both_answered() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    peer.say(9, &flush(7));
    assert_eq!(tags(&peer.hear()), [8, 9]);
}

#[test]
fn a_flush_of_a_flush_is_answered() {
    let mut peer = with_waiting_read();
    peer.say(8, &flush(7));
    peer.say(9, &flush(8));
    assert_eq!(tags(&peer.hear()), [8, 9]);
}

#[test]
fn a_second_request_under_a_tag_in_use_is_refused() {
    let mut peer = with_waiting_read();
    peer.say(7, &clunk(DATA));
    let replies = peer.hear();
    assert_eq!(tags(&replies), [7]);
    assert_eq!(error_of(&replies[0].1), Some(Errno::EPROTO));
    assert!(peer.host.is_open(Control::Have));
}

// The end, and a tree that changes

#[test]
fn the_end_of_a_connection_gives_everything_back() {
    let mut peer = with_waiting_read();
    peer.open(1, ".xget/image");
    peer.open_for(2, ".xget/avail", 1);
    peer.open_for(3, ".xget/next", 2);
    peer.say(20, &read(1, 0, 100));
    peer.host.image_waits = true;
    peer.say(21, &read(1, 100, 100));
    peer.close();
    assert!(!peer.session.has_output());
}

#[test]
fn control_files_of_an_older_tree_are_stale() {
    for file in ["have", "image"] {
        let mut peer = with_control(file);
        peer.host.tree = changed_tree();
        assert_eq!(peer.refused(&read(DATA, 0, 100)), Errno::ESTALE);
        peer.close();
    }
}

#[test]
fn a_read_that_waited_for_an_older_tree_is_stale() {
    for (file, control) in [("have", Control::Have), ("image", Control::Image)] {
        let mut peer = with_control(file);
        peer.host.image_waits = true;
        peer.say(7, &read(DATA, 6, 100));
        peer.host.tree = changed_tree();
        peer.resume();
        let replies = peer.hear();
        assert_eq!(error_of(&replies[0].1), Some(Errno::ESTALE));
        assert!(!peer.host.is_waiting(control), "{file}");
    }
}

#[test]
fn walks_see_the_new_tree_from_old_fids() {
    let mut peer = Peer::new(Dialect::Linux);
    assert_eq!(peer.refused(&walk(ROOT_FID, 1, &["a-new-file"])), Errno::ENOENT);
    peer.host.tree = changed_tree();
    assert_eq!(steps(&peer.ask(&walk(ROOT_FID, 1, &["a-new-file"]))), 1);
}

#[test]
fn a_fid_that_is_not_open_follows_its_path_into_the_new_tree() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.walk(1, "boot/vmlinuz");
    peer.host.tree = changed_tree();
    assert_eq!(stat_of(&mut peer, 1).length, KERNEL_BYTES);
}

#[test]
fn a_fid_whose_file_is_gone_is_stale() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.host.tree = changed_tree();
    peer.walk(1, "a-new-file");
    peer.host.tree = tree();
    assert_eq!(peer.refused(&Message::Tstat { fid: 1 }), Errno::ESTALE);
    assert_eq!(peer.refused(&Message::Topen { fid: 1, mode: 0 }), Errno::ESTALE);
    assert_eq!(peer.refused(&walk(1, 2, &[])), Errno::ESTALE);
    assert_eq!(peer.ask(&clunk(1)), Message::Rclunk {});
}

#[test]
fn an_open_file_is_read_on_from_the_tree_in_which_it_was_opened() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    let before = peer.read(1, 0, 100);
    peer.host.tree = changed_tree();
    assert_eq!(peer.read(1, 0, 100), before);
}

#[test]
fn the_trace_has_a_line_for_each_message() {
    let mut peer = Peer::silent();
    peer.session = Session::new(Conn(1), true);
    peer.negotiate(MSIZE, "9P2000.L");
    assert_eq!(
        peer.session.take_trace(),
        [
            r#"-> tag 65535 Tversion msize 8192 version "9P2000.L""#,
            r#"<- tag 65535 Rversion msize 8192 version "9P2000.L""#,
        ]
    );
    assert!(peer.session.take_trace().is_empty());
}
