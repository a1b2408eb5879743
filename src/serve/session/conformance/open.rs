//! open(5), and Tlopen of 9P2000.L: what opens, for what, and once.

use super::*;

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
fn the_qid_of_an_open_is_that_of_the_walk() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        let Message::Rwalk { wqid } = peer.walk(1, "boot.cfg") else { panic!("not walked") };
        match peer.ask(&open(dialect, 1, 0)) {
            Message::Ropen { qid, .. } | Message::Rlopen { qid, .. } => assert_eq!(qid, wqid[0]),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn one_file_is_open_under_several_fids() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot.cfg");
    peer.open(2, "boot.cfg");
    peer.ask(&clunk(1));
    assert_eq!(peer.read(2, 0, 100).len(), 10);
}
