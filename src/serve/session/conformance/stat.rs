//! stat(5), and what 9P2000.L has in its place: Tgetattr, Tstatfs, Treadlink, locks.

use super::*;
use crate::p9::wire::{DMDIR, DMSETUID, DMSETVTX, DMSYMLINK};

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

#[test]
fn the_type_of_a_qid_is_the_top_of_its_mode() {
    let mut peer = Peer::new(Dialect::Unix);
    for (fid, path) in [(1, "boot"), (2, "boot.cfg"), (3, "boot/link"), (4, ".xget/have")] {
        peer.walk(fid, path);
        let stat = stat_of(&mut peer, fid);
        assert_eq!(u32::from(stat.qid.kind), stat.mode >> 24, "{path}");
    }
}

#[test]
fn an_open_file_has_the_same_stat() {
    for dialect in [Dialect::Plain, Dialect::Unix] {
        let mut peer = Peer::new(dialect);
        peer.walk(1, "boot.cfg");
        peer.open(2, "boot.cfg");
        assert_eq!(stat_of(&mut peer, 1), stat_of(&mut peer, 2));
    }
}

#[test]
fn one_file_has_one_qid_and_no_other_file_has_it() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.walk(1, "boot");
    peer.ask(&walk(1, 2, &["vmlinuz"]));
    peer.walk(3, "boot/vmlinuz");
    peer.walk(4, "boot/empty");
    let qid = |peer: &mut Peer, fid| stat_of(peer, fid).qid;
    assert_eq!(qid(&mut peer, 2), qid(&mut peer, 3));
    assert_ne!(qid(&mut peer, 3).path, qid(&mut peer, 4).path);
}

#[test]
fn getattr_counts_blocks_of_512_bytes() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot/vmlinuz");
    match peer.ask(&Message::Tgetattr { fid: 1, request_mask: 0x7ff }) {
        Message::Rgetattr { size, blocks, blksize, nlink, .. } => {
            assert_eq!(blocks, size.div_ceil(512));
            assert!(blksize > 0 && nlink > 0);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn the_attributes_of_a_link_are_its_own() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.walk(1, "boot/link");
    match peer.ask(&Message::Tgetattr { fid: 1, request_mask: 0x7ff }) {
        Message::Rgetattr { mode, size, .. } => {
            assert_eq!((mode, size), (0o120_777, TARGET.len() as u64));
        }
        other => panic!("{other}"),
    }
}
