//! What would change the tree is refused, in the words of each dialect.

use super::*;

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

#[test]
fn a_refused_create_leaves_its_fid_where_it_was() {
    let mut peer = Peer::new(Dialect::Unix);
    peer.walk(1, "boot");
    let extension = UnixOnly(Text(b""));
    peer.refused(&Message::Tcreate { fid: 1, name: Text(b"x"), perm: 0, mode: 0, extension });
    assert_eq!(stat_of(&mut peer, 1).name.0, b"boot");
    assert_eq!(steps(&peer.ask(&walk(1, 2, &["vmlinuz"]))), 1);
}
