//! System calls that std does not offer, behind safe functions: the only unsafe code of the crate.

pub mod fs;
