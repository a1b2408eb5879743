//! Getting the manifest and its signature, which everybody needs before anything else.
//!
//! It comes from the server that was named; but that sends it to few at a time, and lets few wait, or
//! a whole cluster that starts at once would get nothing else for a while. Whom it refuses asks those
//! that have it already. The server's word for the generation, which is the manifest's hash, makes that
//! safe. The signature is small, and comes from the server itself.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::call::{Call, CallError};
use super::transport::Transport;
use crate::control::{Control, SourceAddress};
use crate::limits::{MAX_MANIFEST_BYTES, MAX_SIGNATURE_BYTES, NODE_SILENCE, SILENCE};
use crate::p9::errno::Errno;
use crate::random::next_random;

/// First and longest wait before the server is asked again.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_MOST: Duration = Duration::from_secs(1);
/// How many nodes are asked before the server is again.
const NODES_A_TURN: usize = 2;
/// After this long the server is told to be faulty: it sends the manifest to nobody.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// A manifest and the signature that came with it, neither of them looked into.
#[derive(Debug)]
pub struct Signed {
    /// The manifest.
    pub text: Vec<u8>,
    /// Its signature, if the server has one.
    pub signature: Option<Vec<u8>>,
}

/// Reads the manifest of the server at `home`, or the same from a node, and its signature.
pub fn read_manifest(
    transport: &Transport,
    home: SocketAddr,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Signed, CallError> {
    let began = Instant::now();
    let mut server = Call::connect(transport, home, SILENCE)?;
    let mut signature = read_signature(&mut server)?;
    loop {
        let text = read_text(transport, &mut server, seed, progress)?;
        let before = signature;
        signature = read_signature(&mut server)?;
        // Else the server may have gone over to another generation between the two.
        if signature == before || began.elapsed() >= REFUSED_FOR {
            return Ok(Signed { text, signature });
        }
    }
}

/// None if there is none, or if the server knows of no signatures.
fn read_signature(server: &mut Call) -> Result<Option<Vec<u8>>, CallError> {
    match server.read(Control::Signature, MAX_SIGNATURE_BYTES, &mut |_| {}) {
        Ok(signature) => Ok(Some(signature)),
        Err(CallError::NotXget) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_text(
    transport: &Transport,
    server: &mut Call,
    seed: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<u8>, CallError> {
    let began = Instant::now();
    let mut random = seed | 1;
    let mut wait = AGAIN_FIRST;
    loop {
        match server.read(Control::Manifest, MAX_MANIFEST_BYTES, progress) {
            Err(CallError::Refused(Errno::EBUSY | Errno::ESTALE))
                if began.elapsed() < REFUSED_FOR => {}
            other => return other,
        }
        let redir = server.read(Control::Redir, MAX_MANIFEST_BYTES, &mut |_| {})?;
        let redir = String::from_utf8_lossy(&redir);
        let sources = redir.lines().filter_map(SourceAddress::parse);
        let mut nodes: Vec<SocketAddr> = sources.map(|source| source.0).collect();
        let generation = match nodes.is_empty() {
            true => String::new(),
            false => server.first_line(Control::Have)?,
        };
        let generation = generation.split(' ').next().unwrap_or_default();
        for _ in 0..NODES_A_TURN.min(nodes.len()) {
            let chosen = next_random(&mut random) as usize % nodes.len();
            let node = nodes.swap_remove(chosen);
            let answer = Call::connect(transport, node, NODE_SILENCE)
                .and_then(|mut node| node.read(Control::Manifest, MAX_MANIFEST_BYTES, progress));
            if let Ok(text) = answer
                && blake3::hash(&text).to_hex().as_str() == generation
            {
                return Ok(text);
            }
        }
        let part = (next_random(&mut random) % 1024) as f64 / 1024.0;
        thread::sleep(wait.mul_f64(0.5 + part));
        wait = (wait * 3 / 2).min(AGAIN_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::Conn;
    use crate::net::testing::{master, mute, serves, takes};
    use crate::serve::hub::Hub;
    use crate::serve::session::{At, Host};
    use crate::swarm::rules::Rules;

    fn signature_of(bytes: u64) -> Result<Option<Vec<u8>>, CallError> {
        let mut hub = master();
        hub.sign(Some(vec![b'x'; bytes as usize].into()));
        let read = read_manifest(&Transport::Kernel, serves(hub), 1, &mut |_| {});
        read.map(|signed| signed.signature)
    }

    #[test]
    fn a_signature_that_is_too_long_is_an_error() {
        assert!(signature_of(MAX_SIGNATURE_BYTES).is_ok());
        assert!(matches!(
            signature_of(MAX_SIGNATURE_BYTES + 1),
            Err(CallError::TooLong(MAX_SIGNATURE_BYTES))
        ));
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
        let (_silent, silent) = mute();
        let home = serves(refuses_and_names(&[silent, serves(master())]));
        // By this seed the silent one is asked first.
        let read = || read_manifest(&Transport::Kernel, home, 4, &mut |_| {});
        assert!(takes(NODE_SILENCE, read).is_ok());
    }
}
