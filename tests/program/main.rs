//! The program as its users run it, over real sockets on loopback. One test program holds all of these, since
//! most of what each would cost is linking.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_input;
mod cli;
mod common;
mod hand_over;
mod liars;
mod limits;
mod manager;
mod swarm;
