//! The swarm: which chunk travels next, between whom, and until when somebody waits for it.
//!
//! The lower bound for S bytes onto N nodes with equal links of rate B is S/B, however many nodes:
//! each chunk has to leave the master once, and nodes can trade from there. These rules come close:
//!
//! - The master hands out first what nobody else holds. A second copy goes only to a node that starves,
//!   and slow nodes get nothing that is scarce (`serve::grants`).
//! - A node requests from each peer the rarest chunk that it has, the least busy peer first, and near
//!   the end late chunks from two (`fetch::scheduler`).
//! - A node sends a few chunks at a time. A free slot goes to the client that has waited longest
//!   (`serve::uploads`).
//! - A node replaces the source that brings least by another, again and again (`fetch`).
//! - Few clients read the manifest at a time, and soon have it to pass on.
//! - A new node is sent to nodes half of which are near it, the least named first.
//! - Where chunks from other subnets arrive slowly, each is imported into a subnet by one of its nodes
//!   ([`ring`], `fetch::scheduler`).
//!
//! This module holds what both sides share: the numbers of all of these rules ([`rules`]), the ring of a subnet,
//! and rates ([`meter`]).

pub(crate) mod meter;
pub(crate) mod ring;
pub mod rules;
