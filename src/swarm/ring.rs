//! Which node of a subnet imports a chunk into it, agreed on without a message between its nodes.
//!
//! This is consistent hashing: nodes and chunks have positions on a ring, and a chunk belongs to the next
//! node after it. A node that knows its predecessor knows which chunks are its own; the master names
//! the predecessor.

use std::net::{IpAddr, SocketAddr};

use crate::image::chunks::ChunkId;
use crate::random::next_random;

/// A position on the ring. After the last comes the first.
pub(crate) type Position = u64;

/// The position of the node that serves at `address`.
pub(crate) fn position_of(address: SocketAddr) -> Position {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ ip.to_bits() as u64,
    };
    hash(ip.rotate_left(16) ^ u64::from(address.port()))
}

fn hash(from: u64) -> Position {
    let mut state = from.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    next_random(&mut state);
    next_random(&mut state)
}

/// The nodes of a subnet, as one of them knows them.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    own: Position,
    /// Sorted.
    others: Vec<Position>,
}

impl Ring {
    /// This node serves at `address`.
    pub(crate) fn set_own(&mut self, address: SocketAddr) {
        self.own = position_of(address);
    }

    pub(crate) fn add(&mut self, address: SocketAddr) {
        let position = position_of(address);
        if let Err(index) = self.others.binary_search(&position) {
            self.others.insert(index, position);
        }
    }

    pub(crate) fn remove(&mut self, address: SocketAddr) {
        if let Ok(index) = self.others.binary_search(&position_of(address)) {
            self.others.remove(index);
        }
    }

    /// How many other nodes are known.
    pub(crate) fn others(&self) -> usize {
        self.others.len()
    }

    /// How many nodes come after the chunk and before this one; 0 if the chunk is this node's own.
    pub(crate) fn nodes_before(&self, chunk: ChunkId) -> usize {
        let index = |position| self.others.partition_point(|other| *other < position);
        let position = hash(u64::from(chunk.get()) << 32);
        let (first, own) = (index(position), index(self.own));
        if position <= self.own { own - first } else { self.others.len() - first + own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::chunks::Layout;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::new([10, 0, 0, n].into(), 20_004)
    }

    /// The ring as node `n` of 50 sees it, if it knows those that are `known`.
    fn ring(n: u8, known: impl Fn(u8) -> bool) -> Ring {
        let mut ring = Ring::default();
        ring.set_own(address(n));
        for other in (1..=50).filter(|other| *other != n && known(*other)) {
            ring.add(address(other));
        }
        ring
    }

    #[test]
    fn each_chunk_belongs_to_one_node() {
        let rings: Vec<Ring> = (1..=50).map(|n| ring(n, |_| true)).collect();
        let layout = Layout::for_image(64 << 20);
        for chunk in layout.iter() {
            let mut before: Vec<usize> =
                rings.iter().map(|ring| ring.nodes_before(chunk)).collect();
            before.sort_unstable();
            assert_eq!(before, (0..50).collect::<Vec<usize>>(), "each node has another rank");
        }
    }

    #[test]
    fn a_node_that_knows_its_predecessor_knows_its_chunks() {
        let layout = Layout::for_image(64 << 20);
        let mut by_position: Vec<u8> = (1..=50).collect();
        by_position.sort_unstable_by_key(|n| position_of(address(*n)));
        for pair in by_position.windows(2) {
            let (all, one) = (ring(pair[1], |_| true), ring(pair[1], |n| n == pair[0]));
            let own = |ring: &Ring| layout.iter().filter(|c| ring.nodes_before(*c) == 0).count();
            assert_eq!(own(&one), own(&all));
        }
    }

    #[test]
    fn the_next_node_takes_over_the_chunks_of_one_that_has_gone() {
        let layout = Layout::for_image(64 << 20);
        let mut rings: Vec<Ring> = (1..50).map(|n| ring(n, |_| true)).collect();
        for ring in &mut rings {
            ring.remove(address(50));
        }
        for chunk in layout.iter() {
            assert_eq!(rings.iter().filter(|ring| ring.nodes_before(chunk) == 0).count(), 1);
        }
    }
}
