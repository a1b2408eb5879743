//! What is below an open directory, and nothing else, whoever rearranges the names meanwhile.

use std::ffi::CString;
use std::fs::{File, FileType};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd};

use super::fs::open_at;
use super::{checked, counted};
use crate::image::path::TreePath;

/// Nothing above the directory is reached, and no symbolic link is followed, be it one of a process's
/// descriptors in /proc (openat2(2)).
const RESOLVE: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS;
/// Bytes of names that are read at a time.
const LIST_BYTES: usize = 32 << 10;

/// Opens what is at `path` below `dir` for reading. It never waits: whoever opens a fifo or a device
/// that has taken a file's place is told by its attributes.
///
/// # Errors
///
/// `ELOOP` for a symbolic link on the way or at its end (`ENOTDIR` for one on the way on kernels
/// before 5.6), and those of openat(2).
pub fn open_beneath(dir: &File, path: &TreePath, flags: i32) -> io::Result<File> {
    let flags = flags | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match openat2(dir, path, flags) {
        // Not known, or kept from this process by a filter that is older than it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            open_name_by_name(dir, path, flags)
        }
        opened => opened,
    }
}

fn openat2(dir: &File, path: &TreePath, flags: i32) -> io::Result<File> {
    let path = CString::new(path.as_bytes_or_dot())?;
    // SAFETY: all of its fields are numbers.
    let mut how: libc::open_how = unsafe { mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC | libc::O_NOCTTY) as u64;
    how.resolve = RESOLVE;
    let (fd, room) = (dir.as_raw_fd(), size_of_val(&how));
    // SAFETY: the path is a C string and `how` has the size that is given; both outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, room) };
    let fd = fd as i32;
    checked(fd)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The same where the kernel does not do it: each directory on the way is opened in the one above it.
fn open_name_by_name(dir: &File, path: &TreePath, flags: i32) -> io::Result<File> {
    let Some(parent) = path.parent() else { return open_at(dir, b".", flags, 0) };
    let on_the_way = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut above = open_at(dir, b".", on_the_way, 0)?;
    for name in parent.elements() {
        above = open_at(&above, name, on_the_way, 0)?;
    }
    open_at(&above, path.name(), flags, 0)
}

/// What a directory says that a name in it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, a fifo or a socket.
    Special,
    /// Not every file system says it.
    Unknown,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Kind {
        match () {
            () if kind.is_dir() => Kind::Directory,
            () if kind.is_file() => Kind::File,
            () if kind.is_symlink() => Kind::Symlink,
            () => Kind::Special,
        }
    }
}

/// The names in an open directory, but for `.` and `..`, in no order (getdents64(2)).
pub fn list(dir: &File) -> io::Result<Vec<(Vec<u8>, Kind)>> {
    let (mut names, mut buffer) = (Vec::new(), vec![0u8; LIST_BYTES]);
    loop {
        let (fd, at, room) = (dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the directory is open, and the buffer is writable for the length that is given.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, fd, at, room) };
        let mut rest = buffer.get(..counted(got as isize)?).unwrap_or_default();
        if rest.is_empty() {
            return Ok(names);
        }
        while !rest.is_empty() {
            let (name, kind, next) = entry(rest).ok_or(io::ErrorKind::InvalidData)?;
            if !matches!(name, b"." | b"..") {
                names.push((name.to_vec(), kind));
            }
            rest = next;
        }
    }
}

/// The first `struct linux_dirent64`, and what is behind it: 8 bytes each of inode and offset, 2 of the
/// length of all, 1 of the type, and the name with a NUL behind it.
fn entry(bytes: &[u8]) -> Option<(&[u8], Kind, &[u8])> {
    let length = bytes.get(16..)?.first_chunk()?;
    let (entry, next) = bytes.split_at_checked(u16::from_ne_bytes(*length).into())?;
    let kind = match *entry.get(18)? {
        libc::DT_DIR => Kind::Directory,
        libc::DT_REG => Kind::File,
        libc::DT_LNK => Kind::Symlink,
        libc::DT_UNKNOWN => Kind::Unknown,
        _ => Kind::Special,
    };
    let name = entry.get(19..)?.split(|byte| *byte == 0).next()?;
    Some((name, kind, next))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    type Open = fn(&File, &TreePath, i32) -> io::Result<File>;
    const WAYS: [Open; 2] = [openat2, open_name_by_name];

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
    fn what_is_below_is_opened_at_any_depth() {
        let (dir, top) = tree("depth");
        for open in WAYS {
            assert!(open(&top, &path("."), libc::O_NOFOLLOW).unwrap().metadata().unwrap().is_dir());
            let file = open(&top, &path("a/b/file"), libc::O_NOFOLLOW).unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), "inside");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_link_is_followed_wherever_it_leads() {
        let (dir, top) = tree("links");
        symlink(&dir, dir.join("top/up")).unwrap();
        symlink("a", dir.join("top/same")).unwrap();
        symlink("file", dir.join("top/a/b/link")).unwrap();
        for open in WAYS {
            for through in ["up/outside", "same/b/file", "a/b/link"] {
                let error = open(&top, &path(through), libc::O_NOFOLLOW).unwrap_err();
                let expected = [libc::ELOOP, libc::ENOTDIR].map(Some);
                assert!(expected.contains(&error.raw_os_error()), "{through}: {error}");
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nobody_is_waited_for() {
        let (dir, top) = tree("fifo");
        super::super::fs::make_node(&dir.join("top/fifo"), libc::S_IFIFO | 0o600, 0, 0).unwrap();
        assert!(!open_beneath(&top, &path("fifo"), 0).unwrap().metadata().unwrap().is_file());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn every_name_is_listed_once_with_what_it_is() {
        let (dir, top) = tree("list");
        // More than fit into the buffer at once.
        let files: Vec<String> = (0..2000).map(|i| format!("{i:060}")).collect();
        files.iter().for_each(|name| drop(File::create(dir.join("top").join(name)).unwrap()));
        symlink("a", dir.join("top/link")).unwrap();
        let mut expected =
            vec![(b"a".to_vec(), Kind::Directory), (b"link".to_vec(), Kind::Symlink)];
        expected.extend(files.into_iter().map(|name| (name.into_bytes(), Kind::File)));
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut listed = list(&top).unwrap();
        listed.sort_by(|(a, _), (b, _)| a.cmp(b));
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(listed, expected);
    }
}
