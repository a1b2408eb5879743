//! The answering side, for the master and for nodes: what others ask, and whose turn it is.

pub mod admission;
mod classic;
mod gone;
pub mod grants;
pub mod hub;
pub mod members;
pub mod rate_limit;
pub mod readers;
mod reports;
pub mod server;
pub mod session;
pub mod tree;
pub mod uploads;
