//! The answering side, for the master and for nodes: what others ask, and whose turn it is.

pub mod admission;
#[cfg(feature = "classic")]
mod classic_clients;
#[cfg(not(feature = "classic"))]
#[path = "classic_clients_off.rs"]
mod classic_clients;
mod departed;
mod fair;
mod flows;
mod grants;
pub mod hub;
mod intake;
mod lately;
mod manifest_queue;
pub(crate) mod members;
mod rate_limit;
mod reports;
pub mod server;
pub mod session;
pub mod tree;
mod uploads;

pub(crate) use classic_clients::SERVES_CLASSIC;
