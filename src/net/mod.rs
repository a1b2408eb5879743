//! The network below the swarm.
pub mod resolve;
