//! Mounts, and the root directory of a thread.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::checked;

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
