//! The running kernel: modules, kexec, restart.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::checked;

/// The next kernel gets no initrd: KEXEC_FILE_NO_INITRAMFS of linux/kexec.h.
const NO_INITRAMFS: libc::c_ulong = 4;

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
