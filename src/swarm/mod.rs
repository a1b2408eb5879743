//! The swarm: which chunk travels next, between whom, and until when somebody waits for it.
//!
//! The lower bound for S bytes onto N nodes with equal links of rate B is S/B, however many nodes:
//! each chunk has to leave the master once, and nodes can trade from there. These rules come close:
//!
//! - The master hands out first what nobody else holds ([`grants`]). A second copy goes only to a
//!   node that starves.
//! - A node asks its peers for their rarest chunk, one at a time and one queued behind it, and the
//!   least busy peer first ([`scheduler`]).
//! - Whoever uploads has few slots, and gives a free one to whoever has waited longest ([`uploads`]).
//!   Slow nodes get nothing from the master that is scarce ([`grants`]).
//! - A node trades the source that brings least for another, again and again ([`crate::fetch`]).
//! - Few read the manifest at a time, and have it to send soon ([`readers`]).
//! - A newcomer is sent to nodes half of which are near it, the least named first ([`members`]).
//! - Where what comes from other subnets comes slowly, each chunk is brought into a subnet by one of its
//!   nodes ([`ring`]).
//! - A request that takes several times as long as usual is made elsewhere, and near the end the
//!   last chunks are asked of two.
//!
//! How fast all of it goes is counted in [`meter`]. Clients of the 2009 xget are apart from it, in
//! `classic`, and what nodes complain of is in `log`. [`rules`] has all of their numbers. [`hub`] is the
//! side that is asked, for the master and for nodes; [`crate::fetch`] the side that asks.

pub mod meter;
pub mod ring;
pub mod rules;
