//! The network: names, sockets, and sending what a 9P session has to say.

pub(crate) mod adler32;
pub mod call;
#[cfg(feature = "plain")]
pub mod connection;
pub(crate) mod host_port;
pub mod own;
pub mod resolve;
pub mod send;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod transport;
