//! Going on with another kernel (kexec_file_load(2)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, reason};
use crate::sys::boot::{load_kernel, start_loaded_kernel};

/// The kernel looks for the next archive of an initrd where four divides the offset.
const ALIGNMENT: u64 = 4;

/// Loads a kernel with its initrds, one behind the other, and its command line.
pub(super) fn load(kernel: &Path, initrds: &[PathBuf], cmdline: &str) -> Result<(), Error> {
    let image = File::open(kernel).map_err(Error::file("open", kernel))?;
    let initrd = joined(initrds)?;
    load_kernel(&image, initrd.as_ref(), cmdline).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::ENOSYS) => "this kernel cannot start another (it lacks CONFIG_KEXEC_FILE)",
            Some(libc::EPERM) => "it is forbidden here (lockdown, or kexec_load_disabled)",
            Some(libc::ENOEXEC) => "it is no kernel for this machine",
            Some(libc::ENOMEM) => "there is not enough memory in one piece",
            Some(libc::EKEYREJECTED | libc::ENODATA | libc::ENOKEY) => {
                "its signature is missing or wrong, and this kernel insists on one"
            }
            _ => &reason(&error),
        };
        let with = if initrd.is_some() { " and what goes with it" } else { "" };
        Error::Boot(format!("cannot load {}{with}: {why}", kernel.display()))
    })
}

/// Starts it; returns only if that fails.
pub(super) fn start() -> Error {
    Error::System { action: "start the kernel that was loaded", error: start_loaded_kernel() }
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
    use super::*;
    use std::io::Read;

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
