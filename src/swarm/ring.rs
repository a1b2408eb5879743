//! Who of a subnet brings a chunk into it, without a word between its nodes.
//!
//! The nodes of a subnet stand on a ring, each at a place drawn from its address, and so do the chunks.
//! A chunk is brought in by the node that comes next after its place; whoever knows the node before
//! its own place knows all that is its own to bring. The master names that one.

use std::net::{IpAddr, SocketAddr};

use crate::image::chunks::ChunkId;
use crate::random::next_random;

/// A place on the ring. After the last comes the first.
pub type Place = u64;

/// Where a node stands that serves at `address`.
pub fn place_of(address: SocketAddr) -> Place {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 ^ ip.to_bits() as u64,
    };
    drawn(ip.rotate_left(16) ^ u64::from(address.port()))
}

fn drawn(from: u64) -> Place {
    let mut state = from.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    next_random(&mut state);
    next_random(&mut state)
}

/// A node's place among those of its subnet that it knows.
#[derive(Debug, Default)]
pub struct Ring {
    own: Place,
    /// In order.
    others: Vec<Place>,
}

impl Ring {
    /// This node serves at `address`.
    pub fn stand_at(&mut self, address: SocketAddr) {
        self.own = place_of(address);
    }

    /// Another node of the subnet serves at `address`.
    pub fn add(&mut self, address: SocketAddr) {
        let place = place_of(address);
        if let Err(index) = self.others.binary_search(&place) {
            self.others.insert(index, place);
        }
    }

    /// That node is gone.
    pub fn remove(&mut self, address: SocketAddr) {
        if let Ok(index) = self.others.binary_search(&place_of(address)) {
            self.others.remove(index);
        }
    }

    /// How many others are known.
    pub fn others(&self) -> usize {
        self.others.len()
    }

    /// How many of them come after the chunk and before this node: 0 if it is this node's to bring.
    pub fn before(&self, chunk: ChunkId) -> usize {
        let index = |place| self.others.partition_point(|other| *other < place);
        let place = drawn(u64::from(chunk.get()) << 32);
        let (first, own) = (index(place), index(self.own));
        match place <= self.own {
            true => own - first,
            false => self.others.len() - first + own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::chunks::Layout;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::new([10, 0, 0, n].into(), 20_004)
    }

    /// The ring as the node at place `n` of 50 sees it.
    fn ring(n: u8, known: impl Fn(u8) -> bool) -> Ring {
        let mut ring = Ring::default();
        ring.stand_at(address(n));
        (1..=50).filter(|other| *other != n && known(*other)).for_each(|n| ring.add(address(n)));
        ring
    }

    #[test]
    fn each_chunk_is_one_nodes_to_bring() {
        let rings: Vec<Ring> = (1..=50).map(|n| ring(n, |_| true)).collect();
        let layout = Layout::for_image(64 << 20);
        for chunk in layout.iter() {
            let mut before: Vec<usize> = rings.iter().map(|ring| ring.before(chunk)).collect();
            before.sort_unstable();
            assert_eq!(before, (0..50).collect::<Vec<usize>>(), "everybody has another turn");
        }
    }

    #[test]
    fn to_know_the_one_before_is_enough() {
        let layout = Layout::for_image(64 << 20);
        let mut by_place: Vec<u8> = (1..=50).collect();
        by_place.sort_unstable_by_key(|n| place_of(address(*n)));
        for pair in by_place.windows(2) {
            let (all, one) = (ring(pair[1], |_| true), ring(pair[1], |n| n == pair[0]));
            let own = |ring: &Ring| layout.iter().filter(|c| ring.before(*c) == 0).count();
            assert_eq!(own(&one), own(&all));
        }
    }

    #[test]
    fn what_was_of_one_that_is_gone_is_the_next_ones_to_bring() {
        let layout = Layout::for_image(64 << 20);
        let mut rings: Vec<Ring> = (1..50).map(|n| ring(n, |_| true)).collect();
        rings.iter_mut().for_each(|ring| ring.remove(address(50)));
        for chunk in layout.iter() {
            assert_eq!(rings.iter().filter(|ring| ring.before(chunk) == 0).count(), 1);
        }
    }
}
