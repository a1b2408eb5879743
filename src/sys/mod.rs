//! All calls of the operating system that the standard library does not wrap, and all `unsafe`.

#[cfg(feature = "master")]
pub mod beneath;
pub mod container;
pub mod crash;
pub mod descriptors;
pub mod frames;
pub mod fs;
pub mod kernel;
#[cfg(feature = "master")]
pub mod listen_fds;
pub mod loop_device;
pub mod mount;
pub mod netlink;
pub mod packet;
pub mod poll;
#[cfg(feature = "master")]
pub mod privileges;
pub mod process;
#[cfg(all(feature = "master", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod seccomp;
pub mod signals;
pub mod terminal;

/// What a call that returns a negative number on failure has come to.
fn checked(result: i32) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The same of one that returns how many bytes it has moved, or a descriptor.
fn counted(result: isize) -> std::io::Result<usize> {
    usize::try_from(result).map_err(|_| std::io::Error::last_os_error())
}
