//! The network below the swarm.
