//! Operations on files: the `*at` calls, which work relative to an open directory, and a few others.
//!
//! A name is one path component. A name or path with a NUL byte is an `InvalidInput` error. No function follows
//! a symbolic link in the last component, except [`open_at`] without `O_NOFOLLOW`.

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

/// Opens `name` in `dir` with these `O_` flags and `O_CLOEXEC`. `mode` is that of a created file, and subject
/// to the umask.
pub(crate) fn open_at(dir: &File, name: &[u8], flags: i32, mode: u32) -> io::Result<File> {
    let name = CString::new(name)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: the name ends with a NUL and outlives the call.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) };
    checked(fd)?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The metadata of `name` in `dir`, of a symbolic link itself; None if it does not exist.
pub(crate) fn look_at(dir: &File, name: &[u8]) -> io::Result<Option<Metadata>> {
    match open_at(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Ok(found) => found.metadata().map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a directory; `mode` is subject to the umask.
pub(crate) fn make_dir_at(dir: &File, name: &[u8], mode: u32) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name ends with a NUL and outlives the call.
    checked(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) })
}

/// Removes a name that is not a directory. It need not exist.
pub(crate) fn unlink_at(dir: &File, name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name ends with a NUL and outlives the call.
    let removed = checked(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) });
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Renames within one directory, and atomically replaces what has the name `to`.
pub(crate) fn rename_at(dir: &File, from: &[u8], to: &[u8]) -> io::Result<()> {
    let (from, to, dir) = (CString::new(from)?, CString::new(to)?, dir.as_raw_fd());
    // SAFETY: both names end with a NUL and outlive the call.
    checked(unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) })
}

/// Creates a symbolic link to `target`, which need not exist.
pub(crate) fn symlink_at(target: &[u8], dir: &File, name: &[u8]) -> io::Result<()> {
    let (target, name) = (CString::new(target)?, CString::new(name)?);
    // SAFETY: both strings end with a NUL and outlive the call.
    checked(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) })
}

/// The target of the symbolic link `name` in `dir`; with an empty name of `dir` itself, a link that is open with
/// `O_PATH`.
pub(crate) fn read_link_at(dir: &File, name: &[u8]) -> io::Result<Vec<u8>> {
    let name = CString::new(name)?;
    let mut target = vec![0u8; MAX_TARGET_BYTES];
    let (room, at) = (target.len(), target.as_mut_ptr().cast());
    // SAFETY: the name ends with a NUL, and the buffer is writable for the length passed.
    let len = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), at, room) };
    target.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    Ok(target)
}

/// Sets the owner of a symbolic link that is open with `O_PATH`.
pub(crate) fn set_link_owner(link: &File, owner: Owner) -> io::Result<()> {
    let (fd, flags) = (link.as_raw_fd(), libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: the empty name ends with a NUL.
    checked(unsafe { libc::fchownat(fd, c"".as_ptr(), owner.uid, owner.gid, flags) })
}

/// Sets the mtime of a symbolic link itself; its atime stays.
pub(crate) fn set_link_mtime(dir: &File, name: &[u8], mtime: Mtime) -> io::Result<()> {
    let name = CString::new(name)?;
    set_mtime_at(dir.as_raw_fd(), &name, mtime)
}

fn set_mtime_at(dir: RawFd, name: &CStr, mtime: Mtime) -> io::Result<()> {
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos as libc::c_long },
    ];
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name ends with a NUL, and `times` has the two elements that the call reads.
    checked(unsafe { libc::utimensat(dir, name.as_ptr(), times.as_ptr(), flags) })
}

/// Sets the mtime of `path`, of a symbolic link itself; the atime stays.
pub(crate) fn set_mtime(path: &Path, mtime: Mtime) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    set_mtime_at(libc::AT_FDCWD, &path, mtime)
}

/// Creates a device or a FIFO; `mode` includes the file type, and is subject to the umask (mknod(2)).
pub(crate) fn make_node(path: &Path, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a NUL and outlives the call.
    checked(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) })
}

/// Sets an extended attribute of `path`, of a symbolic link itself (setxattr(2)).
pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let (at, len) = (value.as_ptr().cast(), value.len());
    // SAFETY: path and name end with a NUL, and the value is readable for the length passed.
    checked(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), at, len, 0) })
}

/// A lock of [`lock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    Shared,
    Exclusive,
    /// Releases the lock.
    Free,
}

/// Acquires or releases an advisory lock (flock(2)), which belongs to the open file description.
///
/// # Errors
///
/// `WouldBlock` if another process holds a conflicting lock.
pub(crate) fn lock(file: &File, lock: Lock) -> io::Result<()> {
    let operation = match lock {
        Lock::Shared => libc::LOCK_SH,
        Lock::Exclusive => libc::LOCK_EX,
        Lock::Free => libc::LOCK_UN,
    };
    // SAFETY: the call accesses no memory.
    checked(unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) })
}

/// The free space, in bytes, that an unprivileged process can use on the file system of an open file; None if
/// the file system does not count blocks.
pub(crate) fn room(file: &File) -> io::Result<Option<u64>> {
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the call writes one statvfs, and `found` has room for it.
    checked(unsafe { libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: a statvfs consists of integers, for which all bit patterns are valid values.
    let found = unsafe { found.assume_init() };
    let room = found.f_bavail.saturating_mul(found.f_frsize);
    Ok((found.f_blocks > 0).then_some(room))
}

/// Whether any other open file description, or a mapping made through one, can write this file, which must be open
/// for reading only; None if the file system cannot say. A read lease (fcntl(2)) is refused for such a file.
pub(crate) fn has_writer(file: &File) -> Option<bool> {
    /// From asm-generic/fcntl.h, as the libc crate does not define it.
    const F_SETSIG: i32 = 10;
    let fd = file.as_raw_fd();
    // Breaking the lease sends a signal that is ignored by default, in place of SIGIO, which ends the process.
    // SAFETY: the calls access no memory.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        checked(libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK))
    };
    match leased {
        Ok(()) => {
            // SAFETY: the call accesses no memory.
            unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
            Some(false)
        }
        // Where another host has the file, it may refuse for any reason.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_remote(file) => Some(true),
        Err(_) => None,
    }
}

/// Whether the file is on a file system of another host, whose leases depend on that host (statfs(2)).
fn is_remote(file: &File) -> bool {
    /// NFS, SMB, CIFS, Ceph, 9P (linux/magic.h).
    const REMOTE: [u32; 5] = [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x0102_1997];
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the call writes one statfs, and `found` has room for it.
    let read = checked(unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) });
    // SAFETY: a statfs consists of integers, for which all bit patterns are valid values.
    let found = unsafe { found.assume_init() };
    read.is_err() || REMOTE.contains(&(found.f_type as u32))
}

/// Gives the space of a part of the file back to the file system, and leaves a hole there (fallocate(2)).
pub(crate) fn punch_hole(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let number = |n: u64| libc::off_t::try_from(n).map_err(|_| io::ErrorKind::InvalidInput);
    let (offset, bytes) = (number(offset)?, number(bytes)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the call accesses no memory.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) })
}

/// The umask of the process (umask(2)).
pub(crate) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or_else(|| {
        // Without proc(5) it is known only once it is changed. What another thread makes meanwhile gets too few rights,
        // not too many.
        // SAFETY: the calls access no memory.
        unsafe {
            let mask = libc::umask(0o077);
            libc::umask(mask);
            mask
        }
    })
}

/// The effective group ID.
pub(crate) fn effective_gid() -> u32 {
    // SAFETY: the call accesses no memory.
    unsafe { libc::getegid() }
}

/// The effective user ID. Only 0 may change the owner of files.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: the call accesses no memory.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_somebody_has_open_for_writing_has_a_writer() {
        let path = std::env::temp_dir().join(format!("xget-writer-of-{}", std::process::id()));
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let with_writer = has_writer(&reader);
        drop(writer);
        // Another test may be starting a process, which holds all descriptors for a moment.
        let without = (0..1000).map(|_| has_writer(&reader)).find(|found| *found != Some(true));
        fs::remove_file(path).unwrap();
        if with_writer.is_none() {
            return eprintln!("SKIPPED: a_file_that_somebody_has_open: no leases here");
        }
        assert_eq!((with_writer, without), (Some(true), Some(Some(false))));
    }
}
