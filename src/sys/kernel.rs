//! Loads kernel modules and other kernels, and restarts the machine.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::checked;

/// `KEXEC_FILE_NO_INITRAMFS` (linux/kexec.h): the kernel to load has no initrd.
const NO_INITRAMFS: libc::c_ulong = 4;

/// Loads a kernel module from an open file (finit_module(2)), unless it is loaded already.
pub(crate) fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: the options are an empty string that ends with a NUL.
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
/// From asm-generic/unistd.h, as the libc crate does not define it for this target.
#[cfg(all(target_arch = "aarch64", target_env = "musl"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// Loads a kernel that [`start_loaded_kernel`] then starts (kexec_file_load(2)).
pub(crate) fn load_kernel(kernel: &File, initrd: Option<&File>, cmdline: &str) -> io::Result<()> {
    let cmdline = CString::new(cmdline)?;
    let flags = if initrd.is_some() { 0 } else { NO_INITRAMFS };
    // SAFETY: the command line is readable for the length passed, which includes its NUL.
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

/// Starts the loaded kernel at once, which ends all processes; returns only on failure.
pub(crate) fn start_loaded_kernel() -> io::Error {
    restart(libc::LINUX_REBOOT_CMD_KEXEC)
}

/// Restarts the machine at once; returns only on failure.
pub(crate) fn restart_machine() -> io::Error {
    restart(libc::RB_AUTOBOOT)
}

fn restart(how: libc::c_int) -> io::Error {
    // Files are written to their disks first.
    // SAFETY: neither call accesses memory.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    io::Error::last_os_error()
}
