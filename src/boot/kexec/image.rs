//! What a kernel's file is: by how it begins, what is to be undone before kexec can load it, and what people call it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;

use crate::boot::root::{Packing, start};

/// The beginning of a kernel, with its header.
pub(super) const HEAD_BYTES: usize = 1024;

/// What is in a kernel's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// What kexec takes, or what it will refuse.
    Plain,
    /// Compressed as a whole, as arm64's `Image.gz`.
    Packed(Packing),
    /// A program of EFI that unpacks itself (the kernel's drivers/firmware/efi/libstub/zboot-header.S): where in it the
    /// kernel is, how long that is, and how it is compressed.
    Zboot { offset: u64, bytes: u64, packing: Packing },
}

impl Form {
    /// Of a file that begins so; or a kind of compression that nothing here undoes.
    pub(super) fn of(head: &[u8]) -> Result<Form, String> {
        if has(head, 0, b"MZ") && has(head, 4, b"zimg") {
            let name = head.get(24..56).and_then(|name| name.split(|byte| *byte == 0).next());
            let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
            let packing = match name.as_str() {
                "gzip" => Packing::Gzip,
                "zstd" => Packing::By("zstd"),
                "xz" | "xzkern" => Packing::By("xz"),
                "lzma" => Packing::By("lzma"),
                "lz4" => Packing::By("lz4"),
                _ => return Err(name.chars().filter(|c| !c.is_control()).collect()),
            };
            let number = |at| u64::from(word(head, at).unwrap_or_default());
            return Ok(Form::Zboot { offset: number(8), bytes: number(12), packing });
        }
        Ok(match Packing::of(head) {
            Some(packing) if packing != Packing::Plain => Form::Packed(packing),
            _ => Form::Plain,
        })
    }
}

/// What people call a file that begins so, if it is a kernel of some kind or may be taken for one.
pub(super) fn name_of(head: &[u8]) -> &'static str {
    let pe = word(head, 0x3c).map(|at| at as usize).filter(|&at| has(head, at, b"PE\0\0"));
    let machine = |at: usize| head.get(at..)?.first_chunk().map(|&two| u16::from_le_bytes(two));
    if has(head, 0x202, b"HdrS") {
        "a kernel for x86 (bzImage)"
    } else if has(head, 56, b"ARM\x64") {
        "a kernel for arm64 (Image)"
    } else if has(head, 56, b"RSC\x05") {
        "a kernel for RISC-V (Image)"
    } else if has(head, 0, b"\x7fELF") {
        "an ELF file, as vmlinux is, which kexec does not take on x86 and arm64"
    } else if let Some(pe) = pe {
        match machine(pe + 4) {
            Some(0x8664) => "a program of EFI for x86-64, as unified kernel images are",
            Some(0xaa64) => "a program of EFI for arm64, as unified kernel images are",
            _ => "a program of EFI",
        }
    } else if has(head, 0, b"070701") {
        "a cpio archive, as initrds are"
    } else if head.is_empty() {
        "empty"
    } else if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        "a text"
    } else {
        "of no kind that is known here"
    }
}

/// How many bytes a kernel's command line may have, without its end; None if it does not tell.
pub(super) fn longest_cmdline(head: &[u8]) -> Option<usize> {
    match head {
        // cmdline_size, since version 2.06 of the protocol (the kernel's arch/x86/boot). The kernel that loads it adds
        // where ELF headers are, and counts the end (arch/x86/kernel/kexec-bzimage64.c).
        _ if has(head, 0x202, b"HdrS") => {
            word(head, 0x238).map(|bytes| (bytes as usize).saturating_sub(31))
        }
        // COMMAND_LINE_SIZE of arch/arm64, with the end.
        _ if has(head, 56, b"ARM\x64") => Some(2047),
        _ => None,
    }
}

/// Writes what is compressed in `kernel` to a new file at `to`, of at most `most` bytes.
pub(super) fn unpack(kernel: &File, form: &Form, to: &Path, most: u64) -> io::Result<File> {
    let mut from = kernel.try_clone()?;
    let (offset, bytes, packing) = match *form {
        Form::Plain => (0, u64::MAX, Packing::Plain),
        Form::Packed(packing) => (0, u64::MAX, packing),
        Form::Zboot { offset, bytes, packing } => (offset, bytes, packing),
    };
    from.seek(SeekFrom::Start(offset))?;
    let from = from.take(bytes);
    let mut out = OpenOptions::new().write(true).create_new(true).open(to)?;
    let mut write = |unpacked: &mut dyn Read| match io::copy(&mut unpacked.take(most), &mut out)? {
        bytes if bytes >= most => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    };
    match packing {
        Packing::Plain => write(&mut { from })?,
        Packing::Gzip => write(&mut flate2::read::GzDecoder::new(from))?,
        Packing::By(name) => by_program(name, from, &mut write)?,
    }
    drop(out);
    // The kernel takes no file that is open for writing.
    File::open(to)
}

fn by_program(
    name: &'static str,
    mut from: io::Take<File>,
    write: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let (input, mut feed) = io::pipe()?;
    let mut program = start(name, input.into())?;
    // What it has to say is nothing that could be heard of a kernel.
    drop(program.stderr.take());
    let mut output = program.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    thread::scope(|scope| {
        let feeding = move || io::copy(&mut from, &mut feed);
        thread::Builder::new().spawn_scoped(scope, feeding)?;
        let written = write(&mut output);
        drop(output);
        let status = program.wait()?;
        match status.success() {
            true => written,
            false => written.and(Err(io::Error::other(format!("{name} failed to decompress it")))),
        }
    })
}

fn has(head: &[u8], at: usize, magic: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn word(head: &[u8], at: usize) -> Option<u32> {
    head.get(at..)?.first_chunk().map(|&bytes| u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An arm64 Image of that many bytes.
    fn image(bytes: usize) -> Vec<u8> {
        let mut image = vec![7; bytes];
        image[56..60].copy_from_slice(b"ARM\x64");
        image
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A program of EFI with that payload at 256, compressed as the name says.
    fn zboot(name: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..8].copy_from_slice(b"MZ\0\0zimg");
        bytes[8..12].copy_from_slice(&256_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes[24..24 + name.len()].copy_from_slice(name.as_bytes());
        bytes.extend(payload);
        bytes.extend([0; 77]);
        bytes
    }

    /// What is left to load of a kernel's file.
    fn unpacked(test: &str, file: &[u8], most: u64) -> io::Result<Vec<u8>> {
        let dir = std::env::temp_dir().join(format!("xget-kernel-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let path = dir.join("kernel");
        fs::write(&path, file)?;
        let form = Form::of(&file[..file.len().min(HEAD_BYTES)]).unwrap();
        let unpacked = unpack(&File::open(&path)?, &form, &dir.join("unpacked"), most);
        let bytes = unpacked.and_then(|mut file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| bytes)
        });
        fs::remove_dir_all(&dir)?;
        bytes
    }

    #[test]
    fn a_kernel_that_was_compressed_comes_out_of_it() {
        let image = image(100_000);
        for (test, file) in [
            ("gzip", gzip(&image)),
            ("zboot", zboot("gzip", &gzip(&image))),
            ("plain", image.clone()),
        ] {
            assert!(unpacked(test, &file, 1 << 20).unwrap() == image, "{test}");
        }
        let cut = &gzip(&image)[..200];
        assert!(unpacked("cut", cut, 1 << 20).is_err());
        let error = unpacked("large", &gzip(&image), 5000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn compression_that_nothing_here_undoes_is_named() {
        assert_eq!(Form::of(&zboot("lzo", b"")), Err("lzo".into()));
        assert_eq!(Form::of(&image(2000)), Ok(Form::Plain));
    }

    #[test]
    fn what_is_no_kernel_for_this_machine_is_named() {
        let mut bzimage = vec![0; 1024];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        bzimage[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes());
        assert_eq!(longest_cmdline(&bzimage), Some(2016));
        for (head, name) in [
            (&bzimage[..], "bzImage"),
            (&image(1024), "arm64"),
            (b"\x7fELF\x02", "vmlinux"),
            (b"not here\n", "a text"),
            (b"", "empty"),
            (b"070701000", "initrds"),
            (&[0; 1024], "no kind"),
        ] {
            assert!(name_of(head).contains(name), "{name}");
        }
    }
}
