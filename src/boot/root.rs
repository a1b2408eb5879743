//! Making what was fetched the root file system: read-only as it came, and a tmpfs over it that takes
//! the changes. What was fetched stays as it is, so that it can be served on. An archive is unpacked
//! into a tmpfs.

mod acl;
mod archive;
mod cpio;
mod frames;
mod tar;
mod unpack;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use super::free_memory;
use crate::error::{Error, reason};
use crate::process::report::Reporter;
use crate::sys::loop_device;
use crate::sys::mount::{MountFlags, confine_thread, mount};
pub(super) use archive::{Packing, start};
use unpack::Unpacker;

const LOWER: &str = "/run/xget/lower";
const CHANGES: &str = "/run/xget/changes";
/// Where a root has its first program, below itself.
pub(super) const INITS: [&str; 5] =
    ["sbin/init", "usr/sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd", "init"];

/// A file system in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImageKind {
    Squashfs,
    Erofs,
    /// And ext2 and ext3, which its driver mounts.
    Ext4,
    Xfs,
    Btrfs,
    F2fs,
}

impl ImageKind {
    /// How it begins says what it is: the magic numbers of linux/magic.h.
    fn of(image: &File) -> io::Result<Option<ImageKind>> {
        let mut bytes = [0; 8];
        let mut at = |offset, magic: &[u8]| -> io::Result<bool> {
            let bytes = bytes.get_mut(..magic.len()).unwrap_or_default();
            match image.read_exact_at(bytes, offset) {
                Ok(()) => Ok(*bytes == *magic),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                Err(error) => Err(error),
            }
        };
        Ok(if at(0, b"hsqs")? {
            Some(ImageKind::Squashfs)
        } else if at(1024, &0xE0F5_E1E2_u32.to_le_bytes())? {
            Some(ImageKind::Erofs)
        } else if at(1024 + 56, &0xEF53_u16.to_le_bytes())? {
            Some(ImageKind::Ext4)
        } else if at(0, b"XFSB")? {
            Some(ImageKind::Xfs)
        } else if at((64 << 10) + 64, b"_BHRfS_M")? {
            Some(ImageKind::Btrfs)
        } else if at(1024, &0xF2F5_2010_u32.to_le_bytes())? {
            Some(ImageKind::F2fs)
        } else {
            None
        })
    }

    fn name(self) -> &'static str {
        match self {
            ImageKind::Squashfs => "squashfs",
            ImageKind::Erofs => "erofs",
            ImageKind::Ext4 => "ext4",
            ImageKind::Xfs => "xfs",
            ImageKind::Btrfs => "btrfs",
            ImageKind::F2fs => "f2fs",
        }
    }

    /// How to mount it although its journal is to be replayed, which a read-only mount cannot do (the kernel's
    /// `filesystems/ext4.rst`, `admin-guide/xfs.rst`, `filesystems/f2fs.rst`, btrfs(5)).
    fn without_journal(self) -> Option<&'static str> {
        match self {
            ImageKind::Squashfs | ImageKind::Erofs => None,
            ImageKind::Ext4 => Some("noload"),
            ImageKind::Xfs | ImageKind::F2fs => Some("norecovery"),
            ImageKind::Btrfs => Some("rescue=nologreplay"),
        }
    }
}

/// What became of what was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The root stands on it.
    InUse,
    /// The root is a copy of it.
    Copied,
}

/// Makes `fetched`, an image, an archive or a directory tree, the root file system on `new_root`; `init` is
/// its first program, if it is not a usual one.
pub(super) fn make_root(
    fetched: &Path,
    new_root: &Path,
    init: Option<&str>,
    report: &Reporter,
) -> Result<Fetched, Error> {
    let found = fs::metadata(fetched).map_err(Error::file("read the attributes of", fetched))?;
    if found.is_dir() {
        check_init(fetched, init)?;
        overlay(fetched, fetched, new_root, report)?;
        return Ok(Fetched::InUse);
    }
    let mut file = File::open(fetched).map_err(Error::file("open", fetched))?;
    let head = archive::head(&mut file).map_err(Error::file("read", fetched))?;
    match Packing::of(&head) {
        Some(_) => {
            unpack_root(fetched, found.len(), new_root, report)?;
            check_init(new_root, init)?;
            Ok(Fetched::Copied)
        }
        None => {
            let lower = mount_image(fetched, report)?;
            check_init(lower, init)?;
            overlay(fetched, lower, new_root, report)?;
            Ok(Fetched::InUse)
        }
    }
}

/// Mounts a tmpfs on `new_root` and unpacks the archive there, which has `size` bytes.
fn unpack_root(path: &Path, size: u64, new_root: &Path, report: &Reporter) -> Result<(), Error> {
    let room = free_memory();
    let too_large = |bytes: u64, what: &str| {
        let (mib, room) = (bytes >> 20, room >> 20);
        Error::Boot(format!(
            "not enough memory for {}: {what} {mib} MiB, {room} MiB available",
            path.display()
        ))
    };
    if size > room {
        return Err(too_large(size, "need"));
    }
    let file = File::open(path).map_err(Error::file("open", path))?;
    fs::create_dir_all(new_root).map_err(Error::file("create directory", new_root))?;
    let options = format!("mode=755,size={room}");
    mount("xget".as_ref(), new_root, "tmpfs", MountFlags::default(), &options)
        .map_err(Error::file("mount a tmpfs on", new_root))?;
    report.notice(format_args!("unpacking {} into memory", path.display()));
    let mut unpacker = Unpacker::new(Path::new("/"));
    let unpacked = confined(new_root, |start| archive::unpack(file, start, &mut unpacker));
    let bytes = unpacker.bytes();
    unpacked.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => too_large(bytes, "its files need more than"),
        _ => Error::Boot(format!(
            "cannot unpack {} {}: {}",
            path.display(),
            unpacker.place(),
            reason(&error)
        )),
    })?;
    for missed in unpacker.missed() {
        report.warning(format_args!("not unpacked from {}: {missed}", path.display()));
    }
    report.notice(format_args!(
        "the root is in memory: {} MiB unpacked from {}",
        bytes >> 20,
        path.display()
    ));
    Ok(())
}

/// Runs `unpack` in a thread for which `root` is the root directory: no link in an archive leads out of it. The
/// programs that it starts are those of the initramfs, where this thread is.
fn confined(
    root: &Path,
    unpack: impl FnOnce(&mut archive::Start<'_>) -> io::Result<()> + Send,
) -> io::Result<()> {
    let (ask, asked) = mpsc::channel();
    let (give, given) = mpsc::channel();
    thread::scope(|scope| {
        let inside = move || {
            confine_thread(root)?;
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            unpack(&mut |name, input| {
                ask.send((name, input)).map_err(|_| gone(mpsc::RecvError))?;
                given.recv().map_err(gone)?
            })
        };
        let thread = thread::Builder::new().spawn_scoped(scope, inside)?;
        // It ends with the thread, whose end of the channel goes with it.
        for (name, input) in asked {
            let _ = give.send(archive::start(name, input));
        }
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the archive is damaged")))
    })
}

/// Mounts `lower`, which is or came from `fetched`, on `new_root` with a tmpfs over it.
fn overlay(fetched: &Path, lower: &Path, new_root: &Path, report: &Reporter) -> Result<(), Error> {
    for dir in [Path::new(CHANGES), new_root] {
        fs::create_dir_all(dir).map_err(Error::file("create directory", dir))?;
    }
    let flags = MountFlags::default();
    mount("xget".as_ref(), Path::new(CHANGES), "tmpfs", flags, "mode=755")
        .map_err(Error::file("mount a tmpfs on", CHANGES))?;
    let [upper, work] = ["upper", "work"].map(|name| Path::new(CHANGES).join(name));
    for dir in [&upper, &work] {
        fs::create_dir(dir).map_err(Error::file("create directory", dir))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        escaped(lower),
        upper.display(),
        work.display()
    );
    mount_with_module("xget".as_ref(), new_root, "overlay", flags, &options)
        .map_err(|error| cannot_mount("overlay", new_root, &error))?;
    report.notice(format_args!(
        "the root is {} with a writable overlay in memory",
        fetched.display()
    ));
    Ok(())
}

/// A path among the options of an overlay, where commas and colons stand between others.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, ',' | ':' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn mount_image(path: &Path, report: &Reporter) -> Result<&'static Path, Error> {
    let image = File::open(path).map_err(Error::file("open", path))?;
    let kind = ImageKind::of(&image).map_err(Error::file("read", path))?.ok_or_else(|| {
        Error::Boot(format!(
            "unknown format of {}: expected a squashfs, erofs, ext4, xfs, btrfs or f2fs image, or a \
             tar or cpio archive",
            path.display()
        ))
    })?;
    load("loop");
    let (device, kept) = loop_device::attach(&image).map_err(|error| {
        let why = reason(&error);
        Error::Boot(format!("cannot attach {} to a loop device: {why}", path.display()))
    })?;
    let lower = Path::new(LOWER);
    fs::create_dir_all(lower).map_err(Error::file("create directory", lower))?;
    let flags = MountFlags { read_only: true, ..MountFlags::default() };
    let mount = |options| mount_with_module(device.as_os_str(), lower, kind.name(), flags, options);
    match (mount(""), kind.without_journal()) {
        (Err(error), Some(option))
            if error.raw_os_error() == Some(libc::EROFS) || has_btrfs_log(kind, &image) =>
        {
            mount(option).map_err(|error| cannot_mount(kind.name(), lower, &error))?;
            report.warning(format_args!(
                "{} was in use when it was copied, and its journal is not replayed: what was \
                 written last may be missing or damaged",
                path.display()
            ));
        }
        (mounted, _) => mounted.map_err(|error| cannot_mount(kind.name(), lower, &error))?,
    }
    drop(kept);
    Ok(lower)
}

/// Whether it is a btrfs with a log to be replayed, `log_root` of its superblock, of which the kernel says no more than
/// EIO.
fn has_btrfs_log(kind: ImageKind, image: &File) -> bool {
    let mut log_root = [0; 8];
    let found = image.read_exact_at(&mut log_root, (64 << 10) + 96);
    kind == ImageKind::Btrfs && found.is_ok() && log_root != [0; 8]
}

/// Mounts; where the kernel does not know that kind of file system it may be in a module.
fn mount_with_module(
    source: &std::ffi::OsStr,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> io::Result<()> {
    let result = mount(source, target, kind, flags, options);
    if !result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV)) {
        return result;
    }
    load(kind);
    mount(source, target, kind, flags, options)
}

fn cannot_mount(kind: &str, target: &Path, error: &io::Error) -> Error {
    let why = match error.raw_os_error() {
        Some(libc::ENODEV) => "the kernel or its initramfs lacks this file system",
        _ => &reason(error),
    };
    Error::Boot(format!("cannot mount {kind} on {}: {why}", target.display()))
}

/// Loads a module by the initramfs's own program; what uses it says if it is not there.
fn load(module: &str) {
    let mut modprobe = Command::new("modprobe");
    let _ = modprobe.args(["-q", module]).stdin(Stdio::null()).stderr(Stdio::null()).status();
}

/// Better said here than by a switch to a root that has nothing to run.
fn check_init(root: &Path, init: Option<&str>) -> Result<(), Error> {
    let has = |path: &str| fs::symlink_metadata(root.join(path.trim_start_matches('/'))).is_ok();
    match init {
        _ if INITS.into_iter().chain(init).any(has) => Ok(()),
        Some(init) => Err(Error::Boot(format!(
            "the fetched root has neither {init}, which init= names, nor /sbin/init"
        ))),
        None => Err(Error::Boot(
            "the fetched root has no /sbin/init; name its first program with init=PATH".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(content: &[u8]) -> Option<ImageKind> {
        let path = std::env::temp_dir().join(format!(
            "xget-kind-{}-{}",
            std::process::id(),
            content.len()
        ));
        fs::write(&path, content).unwrap();
        let kind = ImageKind::of(&File::open(&path).unwrap()).unwrap();
        fs::remove_file(path).unwrap();
        kind
    }

    #[test]
    fn an_image_is_told_by_its_magic_number() {
        let mut erofs = vec![0; 2000];
        erofs[1024..1028].copy_from_slice(&[0xE2, 0xE1, 0xF5, 0xE0]);
        let mut ext4 = vec![0; 2001];
        ext4[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        let mut btrfs = vec![0; 70_000];
        btrfs[65_600..65_608].copy_from_slice(b"_BHRfS_M");
        assert_eq!(kind_of(&btrfs), Some(ImageKind::Btrfs));
        assert_eq!(kind_of(b"XFSB and so on"), Some(ImageKind::Xfs));
        assert_eq!(kind_of(b"hsqs and so on"), Some(ImageKind::Squashfs));
        assert_eq!(kind_of(&erofs), Some(ImageKind::Erofs));
        assert_eq!(kind_of(&ext4), Some(ImageKind::Ext4));
        assert_eq!(kind_of(&vec![7; 3000]), None);
        assert_eq!(kind_of(b""), None);
    }
}
