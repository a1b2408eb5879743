//! How many copies of each chunk the nodes have, as far as the master knows.
//!
//! What it granted it knows of. Of what they say that they hold besides, having it from others or from before,
//! one copy a host counts: somebody with a thousand connections cannot make everything look plentiful, which
//! would then be handed out no more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::image::chunks::{ChunkId, ChunkSet, Layout};

#[derive(Debug)]
pub(super) struct Copies {
    layout: Layout,
    counts: Vec<u32>,
    /// Chunks of which there is no copy, in the order in which they go out.
    fresh: ChunkSet,
    /// Chunks of which there is one copy.
    single: ChunkSet,
    hosts: BTreeMap<IpAddr, Host>,
}

#[derive(Debug)]
struct Host {
    connections: usize,
    /// Chunks that it says it holds, and was not granted.
    claims: ChunkSet,
}

impl Copies {
    pub(super) fn new(layout: Layout) -> Copies {
        Copies {
            layout,
            counts: vec![0; layout.count() as usize],
            fresh: ChunkSet::full(&layout),
            single: ChunkSet::empty(&layout),
            hosts: BTreeMap::new(),
        }
    }

    /// Chunks that are to go out next: those of which there is no copy, or else those of which there is one.
    pub(super) fn scarce(&self) -> &ChunkSet {
        if self.fresh.is_empty() { &self.single } else { &self.fresh }
    }

    pub(super) fn of(&self, chunk: ChunkId) -> u32 {
        self.counts.get(chunk.index()).copied().unwrap_or(0)
    }

    /// One more connection of a host.
    pub(super) fn connected(&mut self, host: IpAddr) {
        let none = || Host { connections: 0, claims: ChunkSet::empty(&self.layout) };
        self.hosts.entry(host).or_insert_with(none).connections += 1;
    }

    /// One fewer. What they have claimed counts until the last has gone; whether something is scarce that was
    /// not.
    pub(super) fn disconnected(&mut self, host: IpAddr) -> bool {
        let Some(found) = self.hosts.get_mut(&host) else { return false };
        found.connections = found.connections.saturating_sub(1);
        if found.connections > 0 {
            return false;
        }
        let mut scarce = false;
        for chunk in self.hosts.remove(&host).iter().flat_map(|host| host.claims.iter()) {
            scarce |= self.drop(chunk);
        }
        scarce
    }

    /// A host says that it holds a chunk that it was not granted; whether others are scarce now.
    pub(super) fn claimed(&mut self, host: IpAddr, chunk: ChunkId) -> bool {
        let is_new = self.hosts.get_mut(&host).is_some_and(|host| host.claims.insert(chunk));
        is_new && self.add(chunk)
    }

    /// There is one copy more; whether that was the last chunk without one, so that others are scarce now.
    pub(super) fn add(&mut self, chunk: ChunkId) -> bool {
        let Some(count) = self.counts.get_mut(chunk.index()) else { return false };
        *count = count.saturating_add(1);
        match *count {
            1 => self.single.insert(chunk),
            _ => self.single.remove(chunk),
        };
        self.fresh.remove(chunk) && self.fresh.is_empty()
    }

    /// There is one copy fewer; whether the chunk is scarce now.
    pub(super) fn drop(&mut self, chunk: ChunkId) -> bool {
        let Some(count) = self.counts.get_mut(chunk.index()) else { return false };
        *count = count.saturating_sub(1);
        match *count {
            0 => {
                self.single.remove(chunk);
                self.fresh.insert(chunk);
                true
            }
            1 => {
                self.single.insert(chunk);
                true
            }
            _ => false,
        }
    }
}
