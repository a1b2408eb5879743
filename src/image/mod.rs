//! What travels: a tree becomes one image, cut into equal chunks, each with its hash.
//!
//! [`path`] and [`chunks`] are valid by construction; [`manifest`] describes a whole tree by them; [`trust`]
//! decides whether a manifest is the one that was asked for.

pub mod chunks;
pub mod manifest;
pub mod path;
pub mod trust;
