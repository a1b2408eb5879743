//! Ordered maps and sets.
//!
//! A master has thousands of connections, and B-trees for them. A node has a few dozen of anything: what
//! is kept there in order in a vector is found as fast, and takes half as many bytes of program for each
//! kind of key and value, of which there are many.

#[cfg(any(test, not(feature = "master")))]
mod sorted;

#[cfg(not(feature = "master"))]
pub use sorted::{Map, Set};
#[cfg(feature = "master")]
pub use std::collections::{BTreeMap as Map, BTreeSet as Set};
