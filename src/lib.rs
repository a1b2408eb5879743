//! xget.
#![allow(missing_docs)]
pub mod chunks;
pub mod cli;
pub mod error;
pub mod fetch;
pub mod get;
pub mod manifest;
#[cfg(feature = "master")]
pub mod master;
pub mod net;
pub mod node;
pub mod p9;
pub mod path;
pub mod plan;
pub mod report;
pub mod store;
pub mod swarm;
pub mod sys;
pub mod tree;
