//! xget puts files onto every node of a cluster, over 9P, as fast as one node's own link allows.
//!
//! A master serves a directory. Every node that fetches from it serves the others at once, chunk by
//! chunk, so that a thousand nodes take hardly longer than one.
//!
//! # Two halves
//!
//! The **pure half** has no clock, no sockets and no files. It is handed bytes and `now`, and says
//! what to do. The **I/O half** waits, reads, writes, and decides nothing. The master and the node
//! are two drivers of the same pure code; tests and simulations are further ones.
//!
//! ```text
//!            pure                                        I/O
//!  ┌───────────────────────────────┐      ┌────────────────────────────────────┐
//!  │ fetch     asks others         │      │ node      poll(2)                  │
//!  │  ├ p9::client                 │◄─────┤  ├ store  files at the destination │
//!  │  └ swarm::scheduler           │      │  └ get    the client's command     │
//!  │                               │      │ resident  serves on, hands over    │
//!  │ p9::server  is asked          │◄─────┤ master    tokio, one thread        │
//!  │  └ swarm::hub                 │      │  ├ scan, hash, cache, watch        │
//!  │     ├ grants   (master only)  │      │  └ files  the served tree          │
//!  │     ├ uploads                 │      │                                    │
//!  │     └ members                 │      │ net       names, sockets, sendfile │
//!  │ door        who may ask       │      │ sys       every unsafe line        │
//!  │ tree ─ manifest ─ chunks ─ path      │ boot      an initramfs             │
//!  │ log       what is said, how loud     │ report    where people read it     │
//!  └───────────────────────────────┘      └────────────────────────────────────┘
//! ```
//!
//! # What to read first
//!
//! 1. [`manifest`] and [`chunks`]: what travels. A tree becomes one image, cut into equal chunks,
//!    each with its hash.
//! 2. [`p9::message`], then [`p9::server`]: one table of messages; a session that is fed bytes.
//! 3. [`tree`]: what a 9P client sees, and the control files below `.xget`; [`trust`]: whether a
//!    manifest is to be believed.
//! 4. [`swarm`]: which chunk goes next, between whom. The rules are why all this exists.
//! 5. [`door`] and [`limits`]: who may connect, and what anybody may cost.
//! 6. [`fetch`], then [`node`]: how a node puts these together, and how it waits.
//!    [`resident`] is what it does once its files are whole, and how another process goes on with that.
//! 7. `master`: the same sessions and the same hub for thousands of connections.
//! 8. [`boot`]: what all of this is for, in an initramfs: the kernel command line, an address, and
//!    kexec or a root to go on with.
//! 9. `sim`: all of the pure half, a whole cluster of it, under a virtual clock.
//!
//! `docs/protocol.md` describes what goes over the wire, `docs/architecture.md` follows one chunk
//! through the code.
//!
//! # Features
//!
//! `master` (on by default) adds the module `master` and with it the only async code. A build without
//! it is the node that an initramfs holds. It implies two more:
//!
//! `plain` fetches from 9P servers that are not xget's. `classic` serves clients of 2009; without it the three
//! modules that know them, `serve::session::classic`, `serve::tree::classic_file` and
//! `serve::classic_clients`, are replaced by their `_off` files, which leave out what these clients ask for.
//!
//! `simulator` adds the module `sim` for the example `cluster-sim`; tests have it anyway, and the
//! programs do not.
#![deny(unsafe_code)]

pub mod boot;
pub mod cli;
pub mod conn;
pub mod control;
pub mod engine;
pub mod error;
pub mod fetch;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod image;
pub mod level;
pub mod limits;
#[cfg(feature = "master")]
pub mod master;
pub mod net;
pub mod network;
pub mod node;
pub mod p9;
mod percent;
pub mod process;
pub mod random;
pub mod serve;
#[cfg(any(test, feature = "simulator"))]
pub mod sim;
pub mod status;
pub mod swarm;
#[allow(unsafe_code, reason = "the one place for it")]
pub mod sys;
#[cfg(test)]
mod testing;
pub mod units;
