//! What travels: a tree becomes one image, cut into equal chunks, each with its hash.
//!
//! [`path`] and [`chunks`] are types that are valid by construction. [`manifest`] describes a whole tree
//! with them, and [`trust`] decides whether a manifest is the one that the user wants.

pub mod chunks;
pub mod manifest;
pub mod path;
pub mod trust;
