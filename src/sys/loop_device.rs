//! Attaches an image file to a block device (loop(4)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::checked;

/// `LOOP_CTL_GET_FREE` and the other requests and flags are in linux/loop.h.
const GET_FREE: libc::c_ulong = 0x4C82;
const SET_FD: libc::c_ulong = 0x4C00;
const SET_STATUS: libc::c_ulong = 0x4C04;
/// `SET_FD` and `SET_STATUS` in one request, since Linux 5.8.
const CONFIGURE: libc::c_ulong = 0x4C0A;
const READ_ONLY: u32 = 1;
/// The kernel detaches the file when the device is unmounted and closed.
const AUTOCLEAR: u32 = 4;
/// Another process may take the free device first, so that the next one is tried.
const ATTEMPTS: u32 = 16;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Attaches `image` to a read-only block device. Returns its path, and the open device, which the caller
/// keeps open until it has mounted the path.
pub(crate) fn attach(image: &File) -> io::Result<(PathBuf, File)> {
    attach_with(configure, image)
}

fn attach_with(
    configure: fn(&File, &File) -> io::Result<()>,
    image: &File,
) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTEMPTS {
        // SAFETY: this request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).open(&path)?;
        match configure(&device, image) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            result => return result.map(|()| (path, device)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn info() -> LoopInfo {
    LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: READ_ONLY | AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

fn configure(device: &File, image: &File) -> io::Result<()> {
    let fd = image.as_raw_fd() as u32;
    let config = LoopConfig { fd, block_size: 0, info: info(), reserved: [0; 8] };
    // SAFETY: `config` has the layout of the kernel's structure and outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) };
    match checked(result) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => {
            configure_in_two_steps(device, image)
        }
        result => result,
    }
}

/// The same for kernels before 5.8. The device is read-only in between too, because neither the file nor the
/// device is open for writing.
fn configure_in_two_steps(device: &File, image: &File) -> io::Result<()> {
    let info = info();
    // SAFETY: the argument of this request is a descriptor, not a pointer.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), SET_FD as _, image.as_raw_fd()) })?;
    // SAFETY: `info` has the layout of the kernel's structure and outlives the call.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), SET_STATUS as _, &raw const info) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_kernel_before_5_8_attaches_a_read_only_device_too() {
        if let Err(error) = File::open("/dev/loop-control") {
            eprintln!("SKIPPED: no loop devices here: {error}");
            return;
        }
        let path = std::env::temp_dir().join(format!("xget-loop-{}", std::process::id()));
        std::fs::write(&path, [7; 8192]).unwrap();
        let image = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (_, device) = attach_with(configure_in_two_steps, &image).unwrap();
        let mut bytes = [0; 8192];
        device.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 8192]);
        assert!(device.write_all_at(&bytes, 0).is_err());
    }
}
