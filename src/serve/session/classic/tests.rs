//! What an original client needs of a server, and what others must not notice of it.

use super::super::*;
use crate::p9::wire::{DMSETGID, DMSETUID, Qid, Reader, Stat, Text, UnixOnly};
use crate::serve::session::testing::*;

const LOG_FID: u32 = 90;
const FID: u32 = 5;
const DMDIR: u32 = 0x8000_0000;

impl ClassicHost for TestHost {}

/// A peer that has opened `log` as original clients do.
fn classic() -> Peer {
    let mut peer = Peer::new(Dialect::Unix);
    let opened = peer.open_for(LOG_FID, "log", 2);
    assert!(matches!(opened, Message::Ropen { .. }), "{opened}");
    peer
}

fn mode(peer: &mut Peer, fid: u32, path: &str) -> u32 {
    peer.walk(fid, path);
    match peer.ask(&Message::Tstat { fid }) {
        Message::Rstat { stat } => stat.mode,
        other => panic!("{other}"),
    }
}

fn listed(records: &[u8]) -> Vec<(String, u32)> {
    let mut r = Reader::new("directory", records, Dialect::Unix);
    let mut entries = Vec::new();
    while r.left() > 0 {
        let stat = Stat::read_record(&mut r).unwrap();
        entries.push((String::from_utf8_lossy(stat.name.0).into_owned(), stat.mode));
    }
    entries
}

#[test]
fn log_reads_as_a_short_decimal_level_and_takes_lines() {
    let mut peer = classic();
    assert_eq!(peer.read(LOG_FID, 0, 32), b"0");
    assert_eq!(peer.read(LOG_FID, 1, 32), b"");
    peer.ask(&Message::Twrite { fid: LOG_FID, offset: 0, data: Blob(b"fetched\n") });
    assert_eq!(peer.host.written, b"fetched\n");
    peer.close();
}

#[test]
fn a_file_is_a_directory_to_a_client_that_opened_log_and_a_file_to_others() {
    assert_eq!(mode(&mut classic(), FID, "boot.cfg"), DMDIR | 0o555);
    let mut other = Peer::new(Dialect::Unix);
    assert_eq!(mode(&mut other, FID, "boot.cfg"), 0o644);
}

#[test]
fn everything_belongs_to_root_which_a_classic_client_knows_by_name() {
    let owners = |mut peer: Peer| {
        peer.walk(FID, "boot.cfg");
        match peer.ask(&Message::Tstat { fid: FID }) {
            Message::Rstat { stat: Stat { uid, gid, muid, .. } } => {
                [uid, gid, muid].map(|name| String::from_utf8_lossy(name.0).into_owned())
            }
            other => panic!("{other}"),
        }
    };
    assert_eq!(owners(classic()), ["root"; 3]);
    assert_eq!(owners(Peer::new(Dialect::Unix)), ["7", "8", "7"]);
}

#[test]
fn what_runs_as_its_owner_does_not_run_as_root_at_a_classic_client() {
    let nothing = Text(b"");
    let shown = |numeric: [u32; 3]| {
        let mut stat = Stat {
            dev_type: 0,
            dev: 0,
            qid: Qid { kind: Qid::FILE, version: 0, path: 1 },
            mode: DMSETUID | DMSETGID | 0o755,
            atime: 0,
            mtime: 0,
            length: 0,
            name: nothing,
            uid: nothing,
            gid: nothing,
            muid: nothing,
            extension: UnixOnly(nothing),
            numeric: numeric.map(UnixOnly),
        };
        super::belongs_to_root(&mut stat);
        stat.mode
    };
    assert_eq!(shown([7, 8, 7]), 0o755);
    assert_eq!(shown([0, 0, 0]), DMSETUID | DMSETGID | 0o755);
}

#[test]
fn a_files_directory_lists_its_four_parts() {
    let mut peer = classic();
    peer.open(FID, "boot.cfg");
    let names: Vec<_> = listed(&peer.read(FID, 0, 8000)).into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["data", "redir", "avail", "checksum"]);
}

#[test]
fn directories_list_files_as_directories_and_leave_links_out() {
    let mut peer = classic();
    peer.open(FID, "boot");
    let entries = listed(&peer.read(FID, 0, 8000));
    let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["empty", "vmlinuz"]);
    assert!(entries.iter().all(|(_, mode)| mode & DMDIR != 0));
}

#[test]
fn a_directory_read_with_too_little_room_has_count_0() {
    let mut peer = classic();
    peer.open(FID, "boot.cfg");
    assert_eq!(peer.read(FID, 0, 10), b"");
}

#[test]
fn data_is_the_file_even_before_log_is_opened() {
    for mut peer in [classic(), Peer::new(Dialect::Unix)] {
        peer.open(FID, "boot/vmlinuz/data");
        assert_eq!(peer.read(FID, KERNEL_BYTES - 2, 100).len(), 2);
        assert_eq!(peer.read(FID, KERNEL_BYTES, 100), b"");
    }
}

#[test]
fn redir_says_me_where_nobody_else_serves() {
    let mut peer = classic();
    peer.open(FID, "boot.cfg/redir");
    assert_eq!(peer.read(FID, 0, 128), b"me");
}

#[test]
fn a_failed_data_read_ends_the_connection_of_a_classic_client() {
    let mut peer = classic();
    peer.open(FID, "boot.cfg/data");
    peer.say(7, &read(FID, 0, 10));
    let Some(Output::Data(data)) = peer.session.next_output() else { panic!("no data") };
    peer.session.refuse(&data, Errno::EIO);
    assert!(!peer.session.has_output());
    let result = peer.session.process(&mut peer.host, peer.now);
    assert_eq!(result, Err(Hangup::Classic(ReadFailed(Errno::EIO))));
}

#[test]
fn a_classic_client_that_runs_out_of_fids_is_hung_up_on() {
    let mut peer = classic();
    peer.host.budget = Budget::new(0);
    let result = (0..1 << 18).find_map(|n| {
        let mut request = Vec::new();
        let walk = Message::Twalk { fid: 0, newfid: 1000 + n, wname: List::new() };
        walk.encode(7, Dialect::Unix, &mut request);
        peer.session.receive(&request);
        let result = peer.session.process(&mut peer.host, peer.now);
        while peer.session.next_output().is_some() {}
        result.err()
    });
    assert_eq!(result, Some(Hangup::Classic(ReadFailed(Errno::EMFILE))));
}

#[test]
fn an_ordinary_read_that_cannot_be_answered_gets_its_error() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.open(FID, "boot.cfg");
    peer.say(7, &read(FID, 0, 10));
    let Some(Output::Data(data)) = peer.session.next_output() else { panic!("no data") };
    peer.session.refuse(&data, Errno::EIO);
    assert_eq!(error_of(&peer.hear()[0].1), Some(Errno::EIO));
}

#[test]
fn a_partial_walk_makes_no_fid() {
    let mut peer = classic();
    let Message::Rwalk { wqid } = peer.walk(FID, "boot.cfg/data/x") else { panic!() };
    assert_eq!(wqid.len(), 2);
    assert_eq!(peer.refused(&Message::Tstat { fid: FID }), Errno::EBADF);
}

#[test]
fn a_stray_clunk_gets_an_error_and_no_more() {
    let mut peer = classic();
    assert_eq!(peer.refused(&Message::Tclunk { fid: 12345 }), Errno::EBADF);
    assert_eq!(mode(&mut peer, FID, "boot.cfg"), DMDIR | 0o555);
}

#[test]
fn three_fids_for_each_of_1500_files_and_four_more_fit() {
    let mut peer = classic();
    for fid in 100..100 + 3 * 1500 + 4 {
        let walked = peer.walk(fid, "boot.cfg/data");
        assert!(matches!(walked, Message::Rwalk { .. }), "{fid}: {walked}");
    }
}

#[test]
fn more_reads_wait_than_of_ordinary_clients() {
    let mut peer = classic();
    peer.open(FID, "boot.cfg/data");
    peer.host.image_waits = true;
    for tag in 0..1500 {
        peer.say(tag, &read(FID, 0, 10));
    }
    assert!(peer.hear().is_empty());
}

#[test]
fn other_dialects_show_no_classic_files() {
    for dialect in [Dialect::Plain, Dialect::Linux] {
        let mut peer = Peer::new(dialect);
        let log = Message::Twalk { fid: ROOT_FID, newfid: FID, wname: names(&["log"]) };
        assert_eq!(peer.refused(&log), Errno::ENOENT);
        let Message::Rwalk { wqid } = peer.walk(FID, "boot.cfg/data") else { panic!() };
        assert_eq!(wqid.len(), 1);
    }
}

#[test]
fn a_client_that_has_looked_around_finds_no_log() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.ask(&Message::Tstat { fid: ROOT_FID });
    let log = Message::Twalk { fid: ROOT_FID, newfid: FID, wname: names(&["log"]) };
    assert_eq!(peer.refused(&log), Errno::ENOENT);
}

#[test]
fn all_files_but_avail_are_read_only() {
    let mut peer = classic();
    for part in ["data", "redir", "checksum"] {
        peer.walk(FID, &format!("boot.cfg/{part}"));
        assert_eq!(peer.refused(&Message::Topen { fid: FID, mode: 1 }), Errno::EROFS, "{part}");
        peer.ask(&Message::Tclunk { fid: FID });
    }
}
