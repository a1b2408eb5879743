//! The master.

pub mod cache;
pub mod hash;
pub mod scan;
