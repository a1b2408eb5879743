//! attach(5): who may attach, and to what.

use super::*;

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

#[test]
fn a_refused_authentication_makes_no_fid() {
    let mut peer = Peer::new(Dialect::Plain);
    let (uname, aname, n_uname) = (Text(b""), Text(b""), crate::p9::wire::NumericId(None));
    peer.refused(&Message::Tauth { afid: 9, uname, aname, n_uname });
    assert_eq!(peer.refused(&clunk(9)), Errno::EBADF);
}

#[test]
fn several_users_attach_on_one_connection() {
    for dialect in DIALECTS {
        let mut peer = Peer::new(dialect);
        assert!(matches!(peer.ask(&attach(1)), Message::Rattach { .. }));
        assert_eq!(peer.ask(&clunk(ROOT_FID)), Message::Rclunk {});
        assert_eq!(steps(&peer.ask(&walk(1, 2, &["boot"]))), 1);
    }
}

#[test]
fn the_qid_of_an_attach_is_the_roots() {
    let mut peer = Peer::new(Dialect::Unix);
    let reply = peer.ask(&attach(1));
    assert_eq!(reply, Message::Rattach { qid: stat_of(&mut peer, ROOT_FID).qid });
}

#[test]
fn a_refused_attach_makes_no_fid() {
    let mut peer = Peer::new(Dialect::Linux);
    let (uname, aname, n_uname) = (Text(b""), Text(b""), crate::p9::wire::NumericId(Some(0)));
    peer.refused(&Message::Tattach { fid: 3, afid: 2, uname, aname, n_uname });
    assert_eq!(peer.refused(&clunk(3)), Errno::EBADF);
}
