//! The master.

pub mod cache;
pub mod scan;
