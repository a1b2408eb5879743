//! xget puts files onto every node of a cluster, over 9P, as fast as one node's own link allows.
//!
//! A master serves a directory. Every node that fetches from it serves the others at once, chunk by
//! chunk, so that a thousand nodes take hardly longer than one.
//!
//! # Two halves
//!
//! The **pure half** has no clock, no sockets and no files. It is told what happens and when, and says what to
//! do. The **I/O half** waits, reads and writes, and decides nothing: the master, the node and the simulator drive
//! the same [`engine`].
//!
//! ```text
//!   I/O     boot   an initramfs             master  tokio, one thread      status  what is shown
//!           node   poll(2), the store       cli     command line           sim     a whole cluster
//!                     │                        │                              │
//!                     └────────────────────────┼──────────────────────────────┘
//!                                           engine
//!   pure                           ┌───────────┴───────────┐
//!                                fetch                   serve
//!                        asks others: scheduler,   is asked: sessions, hub,
//!                        sources, manifest         grants, uploads, admission
//!                                  └───────────┬───────────┘
//!                        p9  swarm  control  image  limits  network  random  units
//!
//!   I/O     net    names, sockets, sendfile      process  log, service manager      sys  every unsafe line
//! ```
//!
//! # What to read first
//!
//! 1. [`image`]: what travels. A tree becomes one image, cut into equal chunks, each with its hash; the manifest
//!    lists both, and [`image::trust`] says whether it is to be believed.
//! 2. [`p9`]: 9P alone, one table of messages, a client and the framing of requests. [`control`]: the files below
//!    `.xget`, and each of their lines with its parser beside its printer.
//! 3. [`swarm::rules`]: the numbers that all agree on, each with its reason.
//! 4. [`serve`]: the answering side. [`serve::server`] joins what the others do: sessions answer requests, the hub
//!    knows who takes part, grants (at a master) and uploads say whose turn it is, admission who may connect.
//! 5. [`fetch`]: the asking side. `fetch::scheduler` picks the next chunk; [`fetch::manifest`] is what comes first.
//! 6. [`engine`], then its drivers: [`node`] with poll(2), `master` with tokio, `sim` under a virtual clock.
//! 7. [`boot`]: what all of this is for, in an initramfs: the kernel command line, an address, and kexec or a root to
//!    go on with.
//!
//! What somebody may cost is in [`limits`].
//!
//! `docs/protocol.md` describes what goes over the wire, `docs/architecture.md` follows a request and a chunk through
//! the code.
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
mod printable;
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
