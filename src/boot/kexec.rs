//! Going on with another kernel (kexec_file_load(2)).

mod image;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, reason};
use crate::sys::kernel::{load_kernel, start_loaded_kernel};
use image::{Form, HEAD_BYTES};

/// The kernel looks for the next archive of an initrd where four divides the offset.
const ALIGNMENT: u64 = 4;

/// Loads a kernel with its initrds, one behind the other, and its command line. `room` says how many bytes
/// of memory that may take besides the files.
pub(super) fn load(
    kernel: &Path,
    initrds: &[PathBuf],
    cmdline: &str,
    room: impl Fn() -> u64,
) -> Result<(), Error> {
    refuse_empty(kernel, initrds)?;
    let image = File::open(kernel).map_err(Error::file("open", kernel))?;
    let image = unpacked(kernel, image, room())?;
    let head = head(&image).map_err(Error::file("read", kernel))?;
    if let Some(most) = image::longest_cmdline(&head).filter(|most| cmdline.len() > *most) {
        return Err(Error::Boot(format!(
            "cannot load {}: its command line has {} bytes, and it takes at most {most}: shorten \
             rd.xget.append=",
            kernel.display(),
            cmdline.len()
        )));
    }
    let initrd = joined(initrds)?;
    let needed = memory_needed(&image, &head, initrd.as_ref())
        .map_err(Error::file("read the attributes of", kernel))?;
    let room = room();
    if needed > room {
        return Err(Error::Boot(format!(
            "cannot load {}: not enough memory: need {} MiB besides the files, {} MiB available",
            kernel.display(),
            needed.div_ceil(1 << 20),
            room >> 20
        )));
    }
    load_kernel(&image, initrd.as_ref(), cmdline).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ENOSYS) => {
                "the running kernel does not support kexec_file_load \
             (CONFIG_KEXEC_FILE)"
            }
            Some(libc::EPERM) => {
                "kexec is forbidden (kernel lockdown, or sysctl \
             kernel.kexec_load_disabled)"
            }
            Some(libc::ENOEXEC) => &format!(
                "it is not a kernel image for this architecture ({}): it is {}",
                std::env::consts::ARCH,
                image::name_of(&head)
            ),
            Some(libc::EINVAL) if cfg!(target_arch = "aarch64") => {
                "the running kernel refuses it (Invalid argument): it may be for another page size or \
                 byte order than this processor has; dmesg may say more"
            }
            Some(libc::EINVAL) => {
                "the running kernel refuses it (Invalid argument); dmesg may say more"
            }
            Some(libc::EADDRNOTAVAIL) => "there is no place in memory where it could be put",
            Some(libc::ENOMEM) => "not enough contiguous memory",
            Some(libc::EKEYREJECTED | libc::ENODATA | libc::ENOKEY) => {
                "its signature is missing or invalid, and the running kernel requires one"
            }
            _ => &reason(&error),
        };
        let with = if initrd.is_some() { " and its initrd" } else { "" };
        Error::Boot(format!("cannot load {}{with}: {why}", kernel.display()))
    })
}

/// The beginning of a kernel, with its header.
fn head(kernel: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    while filled < head.len() {
        match kernel.read_at(head.get_mut(filled..).unwrap_or_default(), filled as u64)? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// Of empty files the kernel says no more than that an argument is invalid.
fn refuse_empty(kernel: &Path, initrds: &[PathBuf]) -> Result<(), Error> {
    for path in std::iter::once(kernel).chain(initrds.iter().map(PathBuf::as_path)) {
        let found = fs::metadata(path).map_err(Error::file("read the attributes of", path))?;
        if found.len() == 0 {
            return Err(Error::Boot(format!("cannot load {}: it is empty", path.display())));
        }
    }
    Ok(())
}

/// What kexec can load of a kernel's file: that itself, or, of one that is compressed as a whole, what it holds, in a
/// file beside it. That may take `room` bytes of memory.
fn unpacked(kernel: &Path, file: File, room: u64) -> Result<File, Error> {
    let failed = |why: &str| Error::Boot(format!("cannot unpack {}: {why}", kernel.display()));
    let head = head(&file).map_err(Error::file("read", kernel))?;
    let form = Form::of(&head).map_err(|name| {
        failed(&format!("it is compressed with {name}, and nothing here undoes that"))
    })?;
    if form == Form::Plain {
        return Ok(file);
    }
    let mut to = kernel.as_os_str().to_owned();
    to.push(".unpacked");
    let to = PathBuf::from(to);
    // Of a try before.
    let _ = fs::remove_file(&to);
    image::unpack(&file, &form, &to, room).map_err(|error| {
        let _ = fs::remove_file(&to);
        match error.kind() {
            io::ErrorKind::StorageFull => failed("not enough memory"),
            _ => failed(&reason(&error)),
        }
    })
}

/// How many bytes of memory the system takes to load them. It reads both whole, then copies them into
/// pages of their own, of which the kernel gets as many as it takes until it runs. Where they are not there
/// the system has nobody to end for them but this process, and dies itself.
fn memory_needed(kernel: &File, head: &[u8], initrd: Option<&File>) -> io::Result<u64> {
    let bytes = |file: &File| file.metadata().map(|found| found.len());
    let (size, initrd_bytes) = (bytes(kernel)?, initrd.map_or(Ok(0), bytes)?);
    let running = running_bytes(head).unwrap_or(0).max(size);
    Ok(size.saturating_add(running).saturating_add(initrd_bytes.saturating_mul(2)))
}

/// What the kernel that begins so takes until it runs, unpacked: `init_size` of a bzImage (the kernel's
/// arch/x86/boot), `image_size` of an arm64 Image (arch/arm64/booting).
fn running_bytes(head: &[u8]) -> Option<u64> {
    let begins =
        |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|at| at.starts_with(magic));
    if begins(0x202, b"HdrS") {
        let bytes = head.get(0x260..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes).into())
    } else if begins(56, b"ARM\x64") {
        head.get(16..)?.first_chunk().map(|&bytes| u64::from_le_bytes(bytes))
    } else {
        None
    }
}

/// Starts it; returns only if that fails.
pub(super) fn start() -> Error {
    Error::System { action: "start the loaded kernel", error: start_loaded_kernel() }
}

/// Several initrds as one: the second and all that follow it are appended to the first.
fn joined(initrds: &[PathBuf]) -> Result<Option<File>, Error> {
    let Some((first, others)) = initrds.split_first() else { return Ok(None) };
    let open = |path: &PathBuf| File::open(path).map_err(Error::file("open", path));
    if others.is_empty() {
        return open(first).map(Some);
    }
    let whole = OpenOptions::new().read(true).append(true).open(first);
    let mut whole = whole.map_err(Error::file("open", first))?;
    for path in others {
        let mut next = open(path)?;
        append(&mut whole, &mut next).map_err(Error::file("append an initrd to", first))?;
        fs::remove_file(path).map_err(Error::file("remove", path))?;
    }
    // The kernel takes no file that is open for writing.
    drop(whole);
    open(first).map(Some)
}

fn append(whole: &mut File, next: &mut File) -> io::Result<()> {
    let end = whole.metadata()?.len();
    let padding = end.next_multiple_of(ALIGNMENT) - end;
    whole.write_all([0; ALIGNMENT as usize].get(..padding as usize).unwrap_or_default())?;
    io::copy(next, whole).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_kernel_says_how_much_it_takes_until_it_runs() {
        let mut bzimage = vec![0; 1024];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        bzimage[0x260..0x264].copy_from_slice(&0x0340_0000_u32.to_le_bytes());
        assert_eq!(running_bytes(&bzimage), Some(52 << 20));
        let mut image = vec![0; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        image[16..24].copy_from_slice(&(40_u64 << 20).to_le_bytes());
        assert_eq!(running_bytes(&image), Some(40 << 20));
        assert_eq!(running_bytes(&[0; 1024]), None);
        assert_eq!(running_bytes(b"HdrS"), None);
    }

    #[test]
    fn each_initrd_begins_where_four_divides_the_offset() {
        let dir = std::env::temp_dir().join(format!("xget-initrds-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let paths = ["a", "b", "c"].map(|name| dir.join(name));
        for (path, content) in paths.iter().zip(["12345", "1234", "1"]) {
            fs::write(path, content).unwrap();
        }
        let mut content = Vec::new();
        joined(&paths).unwrap().unwrap().read_to_end(&mut content).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(content, b"12345\x00\x00\x0012341");
    }
}
