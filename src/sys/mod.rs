//! All calls of the operating system that the standard library does not wrap, and all `unsafe`.

pub mod fs;
pub mod netlink;
pub mod packet;
pub mod poll;
pub mod process;
