//! All calls of the operating system that the standard library does not wrap, and all `unsafe`.

pub mod boot;
pub mod fs;
pub mod loop_device;
pub mod netlink;
pub mod packet;
pub mod poll;
pub mod process;
