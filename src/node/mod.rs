//! A node: fetches files to a directory, and serves what it has to others, for a while or for good.
//!
//! [`client`] is the command, [`server`] whom it was told to fetch from, `manifest` gets the manifest from there,
//! [`keys`] reads key files, [`plan`] says what goes where, [`store`] has the files at the destination, [`driver`]
//! the poll(2) loop over all sockets, and [`resident`] what goes on once the files are whole.

pub mod client;
pub mod driver;
pub(crate) mod keys;
mod manifest;
pub mod plan;
mod progress;
pub mod resident;
pub mod server;
pub mod store;
