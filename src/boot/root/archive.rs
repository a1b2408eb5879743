//! A root file system that came as an archive, tar or cpio (newc), as it is or packed.
//!
//! What is packed is unpacked by the program for it, if the initramfs has that: it works on another
//! core meanwhile, and the libraries for it would make every initramfs larger.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::cpio;
use super::unpack::{Attributes, Kind, Unpacker};
use crate::image::manifest::{Mtime, Owner};

/// Bytes that tell what a file is: tar's magic number is at its byte 257.
const HEAD_BYTES: usize = 512;
/// How a tar archive names extended attributes among its pax records, as GNU tar and bsdtar do.
const PAX_XATTR: &str = "SCHILY.xattr.";
/// How GNU tar names labels, and access control lists, which are texts there.
const PAX_LABEL: &str = "RHT.security.selinux";
const PAX_ACL: &str = "SCHILY.acl.";
/// Types of entries that only GNU tar has: a directory of an incremental archive, and a volume's label.
const GNU_DIR: u8 = b'D';
const GNU_LABEL: u8 = b'V';
/// And how it describes sparse files.
const PAX_SPARSE: &str = "GNU.sparse.";
const TAR_BLOCK_BYTES: usize = 512;

/// How the bytes of an archive are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    Plain,
    /// In a way that this program unpacks with `-dc`.
    By(&'static str),
}

/// What kind of archive it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    Cpio,
}

impl Packing {
    /// How a file is packed that begins so; None if it is neither an archive nor packed.
    pub(super) fn of(head: &[u8]) -> Option<Packing> {
        match head {
            _ if Format::of(head).is_some() => Some(Packing::Plain),
            [0x1f, 0x8b, ..] => Some(Packing::By("gzip")),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::By("zstd")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::By("xz")),
            [b'B', b'Z', b'h', ..] => Some(Packing::By("bzip2")),
            // Frames of lz4, and the older kind that kernels know.
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Some(Packing::By("lz4")),
            _ => None,
        }
    }
}

impl Format {
    /// What begins so: tar(5), cpio(5).
    fn of(head: &[u8]) -> Option<Format> {
        if head.starts_with(b"070701") || head.starts_with(b"070702") {
            Some(Format::Cpio)
        } else if head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            Some(Format::Tar)
        } else {
            None
        }
    }
}

/// The first bytes of a file or a stream, fewer where it is short.
pub(super) fn head(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    from.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// An archive that is open, and unpacked as it is read.
pub(super) struct Archive {
    format: Format,
    bytes: Box<dyn Read + Send>,
    program: Option<(&'static str, Child)>,
    /// What follows in the same file.
    next: Option<Box<Archive>>,
}

impl Archive {
    /// Opens the archive at `path`, which is packed like that.
    ///
    /// # Errors
    ///
    /// What is wrong with the file; where it is packed in a way that no program is here for, which.
    pub(super) fn open(path: &Path, packing: Packing) -> io::Result<Archive> {
        Archive::open_at(File::open(path)?, packing)
    }

    /// The same from where the file is read next.
    fn open_at(mut file: File, packing: Packing) -> io::Result<Archive> {
        let next = if packing == Packing::Plain { next_archive(&mut file)? } else { None };
        let (mut bytes, program): (Box<dyn Read + Send>, _) = match packing {
            Packing::Plain => match &next {
                Some((at, ..)) => (Box::new(file.take(*at)), None),
                None => (Box::new(file), None),
            },
            Packing::By(name) => {
                let mut program = start(name, file)?;
                let output = program.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                (Box::new(output), Some((name, program)))
            }
        };
        let head = head(&mut bytes)?;
        let format = Format::of(&head)
            .ok_or_else(|| invalid("it does not contain a tar or cpio archive"))?;
        let next = match next {
            Some((_, file, packing)) => Some(Box::new(Archive::open_at(file, packing)?)),
            None => None,
        };
        Ok(Archive { format, bytes: Box::new(Cursor::new(head).chain(bytes)), program, next })
    }

    /// Unpacks all of it, and what follows.
    pub(super) fn unpack(mut self, to: &mut Unpacker) -> io::Result<()> {
        let mut next = self.next.take();
        self.unpack_this(to)?;
        while let Some(mut archive) = next {
            next = archive.next.take();
            archive.unpack_this(to)?;
        }
        to.finish()
    }

    fn unpack_this(mut self, to: &mut Unpacker) -> io::Result<()> {
        let bytes = io::BufReader::with_capacity(128 << 10, &mut self.bytes);
        let unpacked = match self.format {
            Format::Tar => unpack_tar(bytes, to),
            Format::Cpio => cpio::unpack(bytes, to),
        };
        let Some((name, mut program)) = self.program else { return unpacked };
        match unpacked {
            // It waits for somebody to take what follows the archive's end.
            Ok(()) => _ = io::copy(&mut self.bytes, &mut io::sink())?,
            Err(_) => program.kill()?,
        }
        match program.wait()?.success() {
            false if unpacked.is_ok() => Err(invalid(&format!("{name} failed to decompress it"))),
            _ => unpacked,
        }
    }
}

/// What follows the plain cpio archives at the beginning of a file, as initramfs images have it: where, the file to be read
/// from there, and how it is packed.
fn next_archive(file: &mut File) -> io::Result<Option<(u64, File, Packing)>> {
    let start = file.stream_position()?;
    let mut at = start;
    let end = loop {
        file.seek(SeekFrom::Start(at))?;
        let Some((zeros, head)) = head_after_zeros(file)? else { break None };
        at += zeros;
        if Format::of(&head) != Some(Format::Cpio) {
            // A file that begins otherwise is one archive to its end.
            break (at > start).then_some(head);
        }
        file.seek(SeekFrom::Start(at))?;
        at += cpio::length(file)?;
    };
    file.seek(SeekFrom::Start(start))?;
    let Some(head) = end else { return Ok(None) };
    let packing = Packing::of(&head).filter(|packing| *packing != Packing::Plain);
    let packing = packing.ok_or_else(|| invalid("something else follows the archive in it"))?;
    // With a place of its own.
    let mut next = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    next.seek(SeekFrom::Start(at))?;
    Ok(Some((at - start, next, packing)))
}

/// How many zeros come next, and the first bytes behind them; None if that is all.
fn head_after_zeros(file: &mut File) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut zeros = 0;
    loop {
        let head = head(file)?;
        match head.iter().position(|byte| *byte != 0) {
            Some(first) => {
                file.seek_relative(first as i64 - head.len() as i64)?;
                return Ok(Some((zeros + first as u64, self::head(file)?)));
            }
            None if head.is_empty() => return Ok(None),
            None => zeros += head.len() as u64,
        }
    }
}

fn start(name: &'static str, file: File) -> io::Result<Child> {
    let mut command = Command::new(name);
    command.arg("-dc").stdin(file).stdout(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "it is compressed with {name}, and this initramfs has no program {name}: add it to \
             the initramfs"
        )),
        _ => error,
    })
}

fn unpack_tar(bytes: impl Read, to: &mut Unpacker) -> io::Result<()> {
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if matches!(kind.as_byte(), GNU_LABEL) || kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        let path = entry.path_bytes().into_owned();
        to.begin(&path)?;
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        let (mut xattrs, mut exact, mut sparse) = (Vec::new(), None, Sparse::default());
        for record in entry.pax_extensions()?.into_iter().flatten() {
            let record = record?;
            match record.key() {
                Ok("mtime") => exact = record.value().ok().and_then(parse_time),
                Ok(key) => {
                    if let Some(name) = key.strip_prefix(PAX_XATTR) {
                        xattrs.push((name.to_owned(), record.value_bytes().to_vec()));
                    } else if key == PAX_LABEL {
                        xattrs.push(("security.selinux".to_owned(), record.value_bytes().to_vec()));
                    } else if key.starts_with(PAX_ACL) {
                        to.lose_attribute();
                    } else if let Some(name) = key.strip_prefix(PAX_SPARSE) {
                        sparse.learn(name, record.value_bytes());
                    }
                }
                Err(_) => {}
            }
        }
        let header = entry.header();
        let whole = Mtime { secs: seconds(header)?, nanos: 0 };
        let attributes = Attributes {
            mode: header.mode()?,
            owner: Owner { uid: id(header.uid()?)?, gid: id(header.gid()?)? },
            mtime: exact.unwrap_or(whole),
            xattrs,
        };
        let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
        let (major, minor) = (number(header.device_major()), number(header.device_minor()));
        if sparse.is_so {
            let Sparse { version: (1, 0), size: Some(size), name: Some(name), .. } = sparse else {
                return Err(invalid("unknown format of a sparse file"));
            };
            let parts = sparse_parts(&mut entry)?;
            to.add(&name, Kind::Sparse { content: &mut entry, parts, size }, &attributes)?;
            continue;
        }
        use tar::EntryType as Type;
        let kind = match header.entry_type() {
            Type::Regular | Type::Continuous | Type::GNUSparse => Kind::File(&mut entry),
            Type::Directory => Kind::Dir,
            Type::Symlink => Kind::Symlink(&target),
            Type::Link => Kind::HardLink(&target),
            Type::Char => Kind::Device { block: false, major, minor },
            Type::Block => Kind::Device { block: true, major, minor },
            Type::Fifo => Kind::Fifo,
            other if other.as_byte() == GNU_DIR => Kind::Dir,
            _ => {
                to.skip();
                continue;
            }
        };
        to.add(&path, kind, &attributes)?;
    }
    Ok(())
}

/// What pax records say of a sparse file (GNU tar's manual, "Storing Sparse Files").
#[derive(Default)]
struct Sparse {
    is_so: bool,
    version: (u32, u32),
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Sparse {
    fn learn(&mut self, name: &str, value: &[u8]) {
        self.is_so = true;
        let number = || str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        let part = || number().and_then(|number| u32::try_from(number).ok()).unwrap_or(u32::MAX);
        match name {
            "major" => self.version.0 = part(),
            "minor" => self.version.1 = part(),
            "name" => self.name = Some(value.to_vec()),
            "realsize" => self.size = number(),
            _ => {}
        }
    }
}

/// The parts of a sparse file, offset and length of each, which stand before its content in the format that
/// GNU tar calls 1.0: decimal numbers, one a line, the first of which says how many parts there are; filled
/// up to whole blocks.
fn sparse_parts(content: &mut dyn Read) -> io::Result<Vec<(u64, u64)>> {
    let wrong = || invalid("invalid map of a sparse file");
    let (mut numbers, mut number) = (Vec::new(), 0_u64);
    loop {
        let mut block = [0; TAR_BLOCK_BYTES];
        content.read_exact(&mut block)?;
        for byte in block {
            match char::from(byte).to_digit(10) {
                Some(digit) => {
                    let longer = number.checked_mul(10).and_then(|n| n.checked_add(digit.into()));
                    number = longer.ok_or_else(wrong)?;
                }
                None if byte == b'\n' => numbers.push(std::mem::take(&mut number)),
                None => return Err(wrong()),
            }
            if let Some((&parts, rest)) = numbers.split_first()
                && byte == b'\n'
                && rest.len() as u64 / 2 >= parts
            {
                let (pairs, _) = rest.as_chunks();
                return Ok(pairs.iter().map(|&[offset, length]| (offset, length)).collect());
            }
        }
    }
}

/// A time of a pax record: seconds since 1970 with a fraction (pax(1), "Extended Header").
fn parse_time(text: &str) -> Option<Mtime> {
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs = secs.parse().ok()?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let mut nanos = digits.map(|digit| char::from(digit).to_digit(10));
    let nanos = nanos.try_fold(0, |sum, digit| Some(sum * 10 + digit?))?;
    // Before 1970 the fraction counts backwards; a second does not matter there.
    Some(Mtime { secs, nanos: if text.starts_with('-') { 0 } else { nanos } })
}

/// A header's time, which is negative before 1970 in GNU tar's format (its manual, "Basic Tar Format").
fn seconds(header: &tar::Header) -> io::Result<i64> {
    match header.as_old().mtime {
        [0xff, _, _, _, low @ ..] => Ok(i64::from_be_bytes(low)),
        _ => Ok(header.mtime()?.try_into().unwrap_or(i64::MAX)),
    }
}

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| invalid("a user or group ID is larger than 4294967295"))
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_told_by_how_it_begins() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(Packing::of(&tar), Some(Packing::Plain));
        assert_eq!(Packing::of(b"0707010000"), Some(Packing::Plain));
        assert_eq!(Packing::of(&[0x1f, 0x8b, 8]), Some(Packing::By("gzip")));
        assert_eq!(Packing::of(&[0x28, 0xb5, 0x2f, 0xfd, 1]), Some(Packing::By("zstd")));
        assert_eq!(Packing::of(b"hsqs"), None);
        assert_eq!(Packing::of(b""), None);
    }

    #[test]
    fn a_time_has_its_fraction() {
        assert_eq!(parse_time("12.5"), Some(Mtime { secs: 12, nanos: 500_000_000 }));
        assert_eq!(parse_time("12"), Some(Mtime { secs: 12, nanos: 0 }));
        assert_eq!(parse_time("12.0000000019"), Some(Mtime { secs: 12, nanos: 1 }));
        assert_eq!(parse_time("12.x"), None);
        assert_eq!(parse_time("noon"), None);
    }
}
