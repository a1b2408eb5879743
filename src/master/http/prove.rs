//! Chunks are read before bytes of them are sent: who waits for that, and the thread that does it.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::{spawn_blocking, spawn_local};

use crate::conn::Conn;
use crate::image::chunks::ChunkId;
use crate::master::proofs::{Checksums, Proof};
use crate::master::shared::Shared;
use crate::serve::tree::Tree;

/// Who has seen what this process sees by itself.
const OURSELVES: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What is known of a chunk, or will be, for who is at the other end of a connection.
pub(super) fn proof(
    shared: &Rc<Shared>,
    conn: Conn,
    tree: &Arc<Tree>,
    chunk: ChunkId,
) -> Rc<Proof> {
    let peer = shared.engine.borrow().server().peer(conn);
    let host = peer.map_or(OURSELVES, |peer| peer.ip());
    let mut proofs = shared.proofs.borrow_mut();
    let proof = proofs.of(tree, chunk, host);
    if proofs.wants_work() {
        spawn_local(prove(shared.clone()));
    }
    proof
}

/// A chunk is not what was hashed: the watcher has to look at it.
pub(super) fn is_wrong(shared: &Shared, chunk: ChunkId) {
    shared.orders.doubt(OURSELVES, chunk.get());
}

/// Reads what waits, a chunk at a time and on another thread.
async fn prove(shared: Rc<Shared>) {
    loop {
        let next = shared.proofs.borrow_mut().next();
        let Some((tree, chunk)) = next else { return };
        let (scan, manifest) = (shared.files.borrow().scan_of(&tree), tree.manifest().clone());
        let checksums = match scan {
            Some(scan) => {
                let read = move || Checksums::of(&scan, &manifest, chunk);
                spawn_blocking(read).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        if matches!(checksums, Some(None)) {
            is_wrong(&shared, chunk);
        }
        let key = (tree.manifest().generation(), chunk);
        shared.proofs.borrow_mut().ended(key, checksums.flatten());
    }
}
