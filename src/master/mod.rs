//! The master.

pub mod scan;
