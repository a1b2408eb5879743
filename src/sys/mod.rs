//! System calls that the standard library does not wrap. All `unsafe` code of the crate is here.
//!
//! Each module wraps the calls of one kernel interface and names its manual page. Errors are those of the
//! system call, as [`std::io::Error`].

#[cfg(feature = "master")]
pub(crate) mod beneath;
pub mod container;
pub mod crash;
pub(crate) mod descriptors;
pub(crate) mod frames;
pub(crate) mod fs;
pub(crate) mod kernel;
#[cfg(feature = "master")]
pub(crate) mod listen_fds;
pub(crate) mod loop_device;
pub(crate) mod mount;
pub(crate) mod netlink;
pub(crate) mod packet;
pub(crate) mod poll;
#[cfg(feature = "master")]
pub(crate) mod privileges;
pub mod process;
pub(crate) mod rights;
#[cfg(all(feature = "master", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod seccomp;
pub(crate) mod signals;
pub(crate) mod terminal;

/// The result of a system call that returns a negative number on failure, and sets `errno`.
fn checked(result: i32) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The same for a call whose result is a number of bytes.
fn counted(result: isize) -> std::io::Result<usize> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error())
}
