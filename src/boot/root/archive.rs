//! A root file system that came as an archive, tar or cpio (newc), as it is or packed.
//!
//! What is packed is unpacked by the program for it, if the initramfs has that: it works on another
//! core meanwhile, and the libraries for it would make every initramfs larger.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::unpack::{Attributes, Kind, Unpacker};
use crate::image::manifest::{Mtime, Owner};

/// Bytes that tell what a file is: tar's magic number is at its byte 257.
const HEAD_BYTES: usize = 512;
/// How a tar archive names extended attributes among its pax records, as GNU tar and bsdtar do.
const PAX_XATTR: &str = "SCHILY.xattr.";
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
}

impl Archive {
    /// Opens the archive at `path`, which is packed like that.
    ///
    /// # Errors
    ///
    /// What is wrong with the file; where it is packed in a way that no program is here for, which.
    pub(super) fn open(path: &Path, packing: Packing) -> io::Result<Archive> {
        let file = File::open(path)?;
        let (mut bytes, program): (Box<dyn Read + Send>, _) = match packing {
            Packing::Plain => (Box::new(file), None),
            Packing::By(name) => {
                let mut program = start(name, file)?;
                let output = program.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                (Box::new(output), Some((name, program)))
            }
        };
        let head = head(&mut bytes)?;
        let format = Format::of(&head)
            .ok_or_else(|| invalid("it does not contain a tar or cpio archive"))?;
        Ok(Archive { format, bytes: Box::new(Cursor::new(head).chain(bytes)), program })
    }

    /// Unpacks all of it.
    pub(super) fn unpack(mut self, to: &mut Unpacker) -> io::Result<()> {
        let bytes = io::BufReader::with_capacity(128 << 10, &mut self.bytes);
        let unpacked = match self.format {
            Format::Tar => unpack_tar(bytes, to),
            Format::Cpio => unpack_cpio(bytes, to),
        };
        let unpacked = unpacked.and_then(|()| to.finish());
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
        let path = entry.path_bytes().into_owned();
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        let (mut xattrs, mut exact, mut sparse) = (Vec::new(), None, Sparse::default());
        for record in entry.pax_extensions()?.into_iter().flatten() {
            let record = record?;
            match record.key() {
                Ok("mtime") => exact = record.value().ok().and_then(parse_time),
                Ok(key) => {
                    if let Some(name) = key.strip_prefix(PAX_XATTR) {
                        xattrs.push((name.to_owned(), record.value_bytes().to_vec()));
                    } else if let Some(name) = key.strip_prefix(PAX_SPARSE) {
                        sparse.learn(name, record.value_bytes());
                    }
                }
                Err(_) => {}
            }
        }
        let header = entry.header();
        let whole = Mtime { secs: header.mtime()?.try_into().unwrap_or(i64::MAX), nanos: 0 };
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
            // Labels of volumes, comments, and the like.
            _ => continue,
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

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| invalid("a user or group ID is larger than 4294967295"))
}

fn unpack_cpio(mut bytes: impl Read, to: &mut Unpacker) -> io::Result<()> {
    // A file with several names comes several times, and its content with one of them.
    let mut names: BTreeMap<(u32, u32, u32), Vec<u8>> = BTreeMap::new();
    loop {
        let mut reader = cpio::newc::Reader::new(bytes)?;
        let entry = reader.entry().clone();
        if entry.is_trailer() {
            return Ok(());
        }
        let path = entry.name().as_bytes();
        let attributes = Attributes {
            mode: entry.mode(),
            owner: Owner { uid: entry.uid(), gid: entry.gid() },
            mtime: Mtime { secs: entry.mtime().into(), nanos: 0 },
            xattrs: Vec::new(),
        };
        let (major, minor) = (entry.rdev_major(), entry.rdev_minor());
        let mut target = Vec::new();
        let kind = match entry.mode() & libc::S_IFMT {
            libc::S_IFREG if entry.nlink() > 1 => {
                let inode = (entry.dev_major(), entry.dev_minor(), entry.ino());
                let first = names.entry(inode).or_insert_with(|| path.to_vec());
                if first.as_slice() == path {
                    Some(Kind::File(&mut reader))
                } else {
                    to.add(path, Kind::HardLink(first), &attributes)?;
                    (entry.file_size() > 0).then_some(Kind::Content(&mut reader))
                }
            }
            libc::S_IFREG => Some(Kind::File(&mut reader)),
            libc::S_IFDIR => Some(Kind::Dir),
            libc::S_IFLNK => {
                reader.read_to_end(&mut target)?;
                Some(Kind::Symlink(&target))
            }
            libc::S_IFCHR => Some(Kind::Device { block: false, major, minor }),
            libc::S_IFBLK => Some(Kind::Device { block: true, major, minor }),
            libc::S_IFIFO => Some(Kind::Fifo),
            _ => None,
        };
        if let Some(kind) = kind {
            to.add(path, kind, &attributes)?;
        }
        bytes = reader.finish()?;
    }
}

fn invalid(what: &str) -> io::Error {
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
