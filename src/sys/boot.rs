//! What a process does that boots a machine: mounts, modules, kexec.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::checked;

/// The next kernel gets no initrd: KEXEC_FILE_NO_INITRAMFS of linux/kexec.h.
const NO_INITRAMFS: libc::c_ulong = 4;

/// How a file system is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags {
    /// Nothing in it can be changed.
    pub read_only: bool,
    /// Neither devices nor set-user-ID programs work in it.
    pub no_privileges: bool,
    /// It is there already, and gets other options.
    pub again: bool,
}

/// Mounts `source` on the directory `target`; `data` is the file system's own options (mount(2)).
pub fn mount(
    source: &OsStr,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> io::Result<()> {
    let (source, kind) = (CString::new(source.as_bytes())?, CString::new(kind)?);
    let (target, data) = (CString::new(target.as_os_str().as_bytes())?, CString::new(data)?);
    let mut bits = 0;
    if flags.read_only {
        bits |= libc::MS_RDONLY;
    }
    if flags.no_privileges {
        bits |= libc::MS_NOSUID | libc::MS_NODEV;
    }
    if flags.again {
        bits |= libc::MS_REMOUNT;
    }
    // SAFETY: all four are C strings that outlive the call.
    checked(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), bits, data.as_ptr().cast())
    })
}

/// Makes `root` the root directory of this thread alone: no path and no symbolic link leads it out
/// (unshare(2), chroot(2)).
pub fn confine_thread(root: &Path) -> io::Result<()> {
    // SAFETY: the call takes a number; other threads keep their own root and working directory.
    checked(unsafe { libc::unshare(libc::CLONE_FS) })?;
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")
}

/// Moves the mount `source`, with all that is mounted below it, to the directory `target` (mount(2)).
pub fn move_mount(source: &Path, target: &Path) -> io::Result<()> {
    let source = CString::new(source.as_os_str().as_bytes())?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    let none = std::ptr::null();
    // SAFETY: both paths are C strings that outlive the call; MS_MOVE reads nothing else.
    checked(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), none, libc::MS_MOVE, none.cast())
    })
}

/// Loads a kernel module from an open file (finit_module(2)). One that is there already is no error.
pub fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, the options are an empty C string.
    let result = unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0 as libc::c_int)
    };
    match checked(result as libc::c_int) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

#[cfg(not(all(target_arch = "aarch64", target_env = "musl")))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
/// As in asm-generic/unistd.h: libc has no name for it there.
#[cfg(all(target_arch = "aarch64", target_env = "musl"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// Makes a kernel the one to go on with (kexec_file_load(2)). [`start_loaded_kernel`] goes on.
pub fn load_kernel(kernel: &File, initrd: Option<&File>, cmdline: &str) -> io::Result<()> {
    let cmdline = CString::new(cmdline)?;
    let flags = if initrd.is_some() { 0 } else { NO_INITRAMFS };
    // SAFETY: the descriptors are open, or -1 with the flag for it; the command line is a C string,
    // and its length counts the NUL.
    let result = unsafe {
        libc::syscall(
            KEXEC_FILE_LOAD,
            kernel.as_raw_fd(),
            initrd.map_or(-1, AsRawFd::as_raw_fd),
            cmdline.as_bytes_with_nul().len(),
            cmdline.as_ptr(),
            flags,
        )
    };
    checked(result as libc::c_int)
}

/// Ends everything here and starts the kernel that was loaded; returns only if that fails.
pub fn start_loaded_kernel() -> io::Error {
    restart(libc::LINUX_REBOOT_CMD_KEXEC)
}

/// Restarts the machine; returns only if that fails.
pub fn restart_machine() -> io::Error {
    restart(libc::RB_AUTOBOOT)
}

fn restart(how: libc::c_int) -> io::Error {
    // SAFETY: both calls take no memory. What is in files is written first.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    io::Error::last_os_error()
}
