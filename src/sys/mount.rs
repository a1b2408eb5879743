//! Mounts, and the root directory of one thread.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::checked;

/// Flags of [`mount`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountFlags {
    pub(crate) read_only: bool,
    /// `nosuid` and `nodev`.
    pub(crate) no_privileges: bool,
    /// Changes the options of an existing mount.
    pub(crate) remount: bool,
}

/// Mounts `source` on the directory `target`; `data` holds the file system's own options (mount(2)).
pub(crate) fn mount(
    source: &OsStr,
    target: &Path,
    fs_type: &str,
    flags: MountFlags,
    data: &str,
) -> io::Result<()> {
    let (source, fs_type) = (CString::new(source.as_bytes())?, CString::new(fs_type)?);
    let (target, data) = (CString::new(target.as_os_str().as_bytes())?, CString::new(data)?);
    let mut bits = 0;
    if flags.read_only {
        bits |= libc::MS_RDONLY;
    }
    if flags.no_privileges {
        bits |= libc::MS_NOSUID | libc::MS_NODEV;
    }
    if flags.remount {
        bits |= libc::MS_REMOUNT;
    }
    // SAFETY: all four strings end with a NUL and outlive the call.
    checked(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), fs_type.as_ptr(), bits, data.as_ptr().cast())
    })
}

/// Moves the mount `source`, with everything mounted below it, to the directory `target` (mount(2)).
pub(crate) fn move_mount(source: &Path, target: &Path) -> io::Result<()> {
    let source = CString::new(source.as_os_str().as_bytes())?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    let null = std::ptr::null();
    // SAFETY: both paths end with a NUL and outlive the call; MS_MOVE ignores the two null pointers.
    checked(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), null, libc::MS_MOVE, null.cast())
    })
}

/// Makes `root` the root directory of the calling thread alone, so that no path and no symbolic link leads
/// out of it (unshare(2), chroot(2)).
pub(crate) fn confine_thread(root: &Path) -> io::Result<()> {
    // SAFETY: the call accesses no memory. Other threads keep their root and working directory.
    checked(unsafe { libc::unshare(libc::CLONE_FS) })?;
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")
}
