//! read(5) of files, and write(5).

use super::*;

#[test]
fn a_file_is_read_from_any_offset() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.open(1, "boot/vmlinuz");
        let start = {
            let path = crate::image::path::TreePath::from_manifest(b"boot/vmlinuz").unwrap();
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
fn a_read_of_no_bytes_brings_none() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.open(1, "boot/vmlinuz");
        assert_eq!(peer.read(1, 0, 0), b"");
    }
}

#[test]
fn a_read_does_not_move_the_fid() {
    let mut peer = Peer::new(Dialect::Linux);
    peer.open(1, "boot/vmlinuz");
    let first = peer.read(1, 0, 100);
    peer.read(1, 500, 100);
    assert_eq!(peer.read(1, 0, 100), first);
}

#[test]
fn nothing_is_written_to_what_is_not_open_for_it() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        peer.walk(1, "boot.cfg");
        peer.open(2, "boot");
        for fid in [1, 2] {
            peer.refused(&Message::Twrite { fid, offset: 0, data: Blob(b"x") });
        }
    }
}
