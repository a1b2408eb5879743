//! The search over real sockets.

use std::net::SocketAddr;

use super::*;
use crate::control::Control;
use crate::limits::MAX_SIGNATURE_BYTES;
use crate::net::testing::{master, mute, serves};
use crate::process::log::Logging;
use crate::serve::hub::Hub;
use crate::serve::session::{At, Host};
use crate::swarm::rules::Rules;

fn fetched_from(origin: SocketAddr) -> Result<Found, Error> {
    let server = Server::named(&origin.to_string(), 20_004, Transport::Kernel).unwrap();
    fetch_manifest(&server, Retry::NEVER, Allowed::default(), &Reporter::new(Logging::default()))
}

fn with_signature_of(bytes: u64) -> Result<Found, Error> {
    let mut hub = master();
    hub.sign(Some(vec![b'x'; bytes as usize].into()));
    fetched_from(serves(hub))
}

#[test]
fn a_signature_that_is_too_long_is_an_error() {
    let found = with_signature_of(MAX_SIGNATURE_BYTES).unwrap();
    assert_eq!(found.signature.map(|s| s.len() as u64), Some(MAX_SIGNATURE_BYTES));
    let error = with_signature_of(MAX_SIGNATURE_BYTES + 1).unwrap_err();
    assert!(error.to_string().contains("larger than 16384 bytes"), "{error}");
}

/// A master that sends the manifest to nobody, and names these.
fn refuses_and_names(nodes: &[SocketAddr]) -> Hub {
    let tree = master().tree().clone();
    let generation = tree.manifest().generation().to_hex();
    let rules = Rules { manifest_readers: 0, manifest_line: 0, ..Rules::default() };
    let mut hub = Hub::master(tree, 4, rules, 1);
    for (conn, node) in (1000..).map(Conn).zip(nodes) {
        let now = Instant::now();
        hub.connected(conn, *node, now);
        let joins = format!("{} {generation}", node.port());
        hub.write(At { conn, now }, Control::Avail, joins.as_bytes()).unwrap();
    }
    hub
}

#[test]
fn a_node_that_does_not_send_the_manifest_soon_is_given_up_for_another() {
    let (_listener, silent) = mute();
    let origin = serves(refuses_and_names(&[silent, serves(master())]));
    assert!(fetched_from(origin).is_ok());
}
