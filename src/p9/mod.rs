//! 9P: 9P2000, 9P2000.u and 9P2000.L (intro(5) of Plan 9, and the two Unix extensions of it).
//!
//! [`wire`] reads and writes fields, [`message`] is the table of all messages, `framing` cuts a
//! stream into requests, and [`client`] is the asking half of a connection, without the connection.

pub mod client;
pub mod errno;
pub(crate) mod framing;
pub mod message;
pub mod wire;
