//! xget.
#![allow(missing_docs)]
pub mod chunks;
pub mod cli;
pub mod error;
pub mod manifest;
#[cfg(feature = "master")]
pub mod master;
pub mod net;
pub mod p9;
pub mod path;
pub mod plan;
pub mod store;
pub mod swarm;
pub mod sys;
pub mod tree;
