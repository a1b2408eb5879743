//! Files reached from an open directory, and never by a path: the `*at` calls.
//!
//! A name is one path element; names with a NUL byte are refused with `InvalidInput`. Nothing here
//! follows a symbolic link unless its flags say so.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::checked;
use crate::image::manifest::{Mtime, Owner};

/// Longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
const MAX_TARGET_BYTES: usize = 4095;

/// Opens `name` in `dir` with the `O_` flags given, and `O_CLOEXEC`; `mode` is for a file that is
/// made and is subject to the umask.
pub fn open_at(dir: &File, name: &[u8], flags: i32, mode: u32) -> io::Result<File> {
    let name = CString::new(name)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: the name is a C string that outlives the call, the directory is open.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) };
    checked(fd)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// What `name` in `dir` is, without following a link; None if there is nothing.
pub fn look_at(dir: &File, name: &[u8]) -> io::Result<Option<Metadata>> {
    match open_at(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Ok(found) => found.metadata().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a directory; `mode` is subject to the umask.
pub fn make_dir_at(dir: &File, name: &[u8], mode: u32) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that outlives the call, the directory is open.
    checked(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) })
}

/// Removes a name that is no directory; one that is not there is no error.
pub fn unlink_at(dir: &File, name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that outlives the call, the directory is open.
    let removed = checked(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) });
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Renames within one directory; what had the name `to` is replaced in one step.
pub fn rename_at(dir: &File, from: &[u8], to: &[u8]) -> io::Result<()> {
    let (from, to, dir) = (CString::new(from)?, CString::new(to)?, dir.as_raw_fd());
    // SAFETY: both names are C strings that outlive the call, the directory is open.
    checked(unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) })
}

/// Makes a symbolic link to `target`, which is not looked at.
pub fn symlink_at(target: &[u8], dir: &File, name: &[u8]) -> io::Result<()> {
    let (target, name) = (CString::new(target)?, CString::new(name)?);
    // SAFETY: both are C strings that outlive the call, the directory is open.
    checked(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) })
}

/// The target of a symbolic link.
pub fn read_link_at(dir: &File, name: &[u8]) -> io::Result<Vec<u8>> {
    let name = CString::new(name)?;
    let mut target = vec![0u8; MAX_TARGET_BYTES];
    let (room, at) = (target.len(), target.as_mut_ptr().cast());
    // SAFETY: the name is a C string; the buffer is writable for the length that is given.
    let len = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), at, room) };
    target.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    Ok(target)
}

/// Sets the owner of a symbolic link itself.
pub fn set_link_owner(dir: &File, name: &[u8], owner: Owner) -> io::Result<()> {
    let name = CString::new(name)?;
    let (fd, flags) = (dir.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: the name is a C string that outlives the call, the directory is open.
    checked(unsafe { libc::fchownat(fd, name.as_ptr(), owner.uid, owner.gid, flags) })
}

/// Sets the mtime of a symbolic link itself; its atime stays.
pub fn set_link_mtime(dir: &File, name: &[u8], mtime: Mtime) -> io::Result<()> {
    let name = CString::new(name)?;
    set_mtime_at(dir.as_raw_fd(), &name, mtime)
}

fn set_mtime_at(dir: RawFd, name: &CStr, mtime: Mtime) -> io::Result<()> {
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos as libc::c_long },
    ];
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name is a C string, and `times` are the two that the call reads.
    checked(unsafe { libc::utimensat(dir, name.as_ptr(), times.as_ptr(), flags) })
}

/// Sets the mtime of what is at `path`, and not of what it links to; its atime stays.
pub fn set_mtime(path: &Path, mtime: Mtime) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    set_mtime_at(libc::AT_FDCWD, &path, mtime)
}

/// Makes a device or a fifo; `mode` has its kind and is subject to the umask (mknod(2)).
pub fn make_node(path: &Path, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    checked(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) })
}

/// Sets an extended attribute of what is at `path`, and not of what it links to (setxattr(2)).
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let (at, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: both are C strings; the value is readable for the length that is given.
    checked(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), at, len, 0) })
}

/// How a file is locked against other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Together with others that share it.
    Shared,
    /// Alone.
    Exclusive,
    /// Not any more.
    Free,
}

/// Takes or gives back an advisory lock (`flock`), which goes with the open file; where another
/// holds it the error is `WouldBlock`.
pub fn lock(file: &File, lock: Lock) -> io::Result<()> {
    let operation = match lock {
        Lock::Shared => libc::LOCK_SH,
        Lock::Exclusive => libc::LOCK_EX,
        Lock::Free => libc::LOCK_UN,
    };
    // SAFETY: the descriptor is open; no memory is involved.
    checked(unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) })
}

/// How many bytes an unprivileged process may still write to the file system of an open file; None
/// where that says nothing, as on file systems without blocks.
pub fn room(file: &File) -> io::Result<Option<u64>> {
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the descriptor is open; the call fills in the structure that it is given.
    checked(unsafe { libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: every bit pattern is a value of its fields, which are all numbers.
    let found = unsafe { found.assume_init() };
    let room = found.f_bavail.saturating_mul(found.f_frsize);
    Ok((found.f_blocks > 0).then_some(room))
}

/// The user that this process acts as; 0 may give files away.
pub fn effective_uid() -> u32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}
