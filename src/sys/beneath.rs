//! Opens and lists what is below an open directory, and never anything outside of it, even while another
//! process renames directories or replaces them by symbolic links.

use std::ffi::CString;
use std::fs::{File, FileType};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd};

use super::fs::open_at;
use super::{checked, counted};
use crate::image::path::TreePath;

/// The path never leaves the directory, and follows no symbolic link, not even a magic link such as
/// `/proc/self/fd/3` (openat2(2)).
const RESOLVE: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS;
/// Size of the buffer for directory entries.
const LIST_BYTES: usize = 32 << 10;

/// Opens `path` below `dir` for reading, without blocking. If a FIFO or a device has replaced a file, the
/// open succeeds, and the file's attributes show it.
///
/// # Errors
///
/// `ELOOP` if a component of `path` is a symbolic link (before Linux 5.6 `ENOTDIR`, unless it is the last
/// one), and those of openat(2).
pub(crate) fn open_beneath(dir: &File, path: &TreePath, flags: i32) -> io::Result<File> {
    let flags = flags | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match openat2(dir, path, flags) {
        // The kernel or a seccomp filter is older than the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            open_by_components(dir, path, flags)
        }
        opened => opened,
    }
}

fn openat2(dir: &File, path: &TreePath, flags: i32) -> io::Result<File> {
    let path = CString::new(path.as_bytes_or_dot())?;
    // SAFETY: an `open_how` consists of integers, for which zeros are valid values.
    let mut how: libc::open_how = unsafe { mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC | libc::O_NOCTTY) as u64;
    how.resolve = RESOLVE;
    let (fd, room) = (dir.as_raw_fd(), size_of_val(&how));
    // SAFETY: the path ends with a NUL, `how` is as large as the size says, and both outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, room) };
    let fd = fd as i32;
    checked(fd)?;
    // SAFETY: the call has just returned this descriptor, so nothing else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The same without openat2: opens each directory of the path relative to its parent.
fn open_by_components(dir: &File, path: &TreePath, flags: i32) -> io::Result<File> {
    let Some(parent) = path.parent() else { return open_at(dir, b".", flags, 0) };
    let directory_flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut above = open_at(dir, b".", directory_flags, 0)?;
    for name in parent.elements() {
        above = open_at(&above, name, directory_flags, 0)?;
    }
    open_at(&above, path.name(), flags, 0)
}

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryType {
    Directory,
    File,
    Symlink,
    /// A device, a FIFO or a socket.
    Special,
    /// Some file systems store no types in directories.
    Unknown,
}

impl From<FileType> for EntryType {
    fn from(file_type: FileType) -> EntryType {
        if file_type.is_dir() {
            EntryType::Directory
        } else if file_type.is_file() {
            EntryType::File
        } else if file_type.is_symlink() {
            EntryType::Symlink
        } else {
            EntryType::Special
        }
    }
}

/// The entries of an open directory except `.` and `..`, in no order (getdents64(2)).
pub(crate) fn list(dir: &File) -> io::Result<Vec<(Vec<u8>, EntryType)>> {
    let (mut names, mut buffer) = (Vec::new(), vec![0u8; LIST_BYTES]);
    loop {
        let (fd, at, room) = (dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the kernel writes at most as many bytes as the buffer has.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, fd, at, room) };
        let mut rest = buffer.get(..counted(got as isize)?).unwrap_or_default();
        if rest.is_empty() {
            return Ok(names);
        }
        while !rest.is_empty() {
            let (name, entry_type, next) = entry(rest).ok_or(io::ErrorKind::InvalidData)?;
            if !matches!(name, b"." | b"..") {
                names.push((name.to_vec(), entry_type));
            }
            rest = next;
        }
    }
}

/// Splits off the first `struct linux_dirent64`: its name, its type, and the bytes after it. The layout is 8
/// bytes of inode, 8 of offset, 2 of the record's length, 1 of the type, and the name, which ends with a NUL.
fn entry(bytes: &[u8]) -> Option<(&[u8], EntryType, &[u8])> {
    let length = bytes.get(16..)?.first_chunk()?;
    let (entry, next) = bytes.split_at_checked(u16::from_ne_bytes(*length).into())?;
    let entry_type = match *entry.get(18)? {
        libc::DT_DIR => EntryType::Directory,
        libc::DT_REG => EntryType::File,
        libc::DT_LNK => EntryType::Symlink,
        libc::DT_UNKNOWN => EntryType::Unknown,
        _ => EntryType::Special,
    };
    let name = entry.get(19..)?.split(|byte| *byte == 0).next()?;
    Some((name, entry_type, next))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    type Open = fn(&File, &TreePath, i32) -> io::Result<File>;
    const IMPLEMENTATIONS: [Open; 2] = [openat2, open_by_components];

    fn tree(name: &str) -> (PathBuf, File) {
        let dir = std::env::temp_dir().join(format!("xget-beneath-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("top/a/b")).unwrap();
        fs::write(dir.join("top/a/b/file"), "inside").unwrap();
        fs::write(dir.join("outside"), "outside").unwrap();
        let top = File::open(dir.join("top")).unwrap();
        (dir, top)
    }

    fn path(path: &str) -> TreePath {
        TreePath::from_manifest(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_below_the_directory_is_opened_at_any_depth() {
        let (dir, top) = tree("depth");
        for open in IMPLEMENTATIONS {
            assert!(open(&top, &path("."), libc::O_NOFOLLOW).unwrap().metadata().unwrap().is_dir());
            let file = open(&top, &path("a/b/file"), libc::O_NOFOLLOW).unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), "inside");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_symbolic_link_is_never_followed() {
        let (dir, top) = tree("links");
        symlink(&dir, dir.join("top/up")).unwrap();
        symlink("a", dir.join("top/same")).unwrap();
        symlink("file", dir.join("top/a/b/link")).unwrap();
        for open in IMPLEMENTATIONS {
            for through in ["up/outside", "same/b/file", "a/b/link"] {
                let error = open(&top, &path(through), libc::O_NOFOLLOW).unwrap_err();
                let expected = [libc::ELOOP, libc::ENOTDIR].map(Some);
                assert!(expected.contains(&error.raw_os_error()), "{through}: {error}");
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn opening_a_fifo_does_not_block() {
        let (dir, top) = tree("fifo");
        super::super::fs::make_node(&dir.join("top/fifo"), libc::S_IFIFO | 0o600, 0, 0).unwrap();
        assert!(!open_beneath(&top, &path("fifo"), 0).unwrap().metadata().unwrap().is_file());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn every_entry_is_listed_once_with_its_type() {
        let (dir, top) = tree("list");
        // More names than fit into the buffer at once.
        let files: Vec<String> = (0..2000).map(|i| format!("{i:060}")).collect();
        for name in &files {
            File::create(dir.join("top").join(name)).unwrap();
        }
        symlink("a", dir.join("top/link")).unwrap();
        let mut expected =
            vec![(b"a".to_vec(), EntryType::Directory), (b"link".to_vec(), EntryType::Symlink)];
        expected.extend(files.into_iter().map(|name| (name.into_bytes(), EntryType::File)));
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut listed = list(&top).unwrap();
        listed.sort_by(|(a, _), (b, _)| a.cmp(b));
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(listed, expected);
    }
}
