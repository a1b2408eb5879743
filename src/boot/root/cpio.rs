//! Archives of cpio in the format newc, as the kernel's own unpacker reads them (the kernel's
//! `driver-api/early-userspace/buffer-format`). Names are any bytes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::archive::invalid;
use super::unpack::{Attributes, Kind, Unpacker};
use crate::image::manifest::{Mtime, Owner};

const HEADER_BYTES: usize = 110;
const FIELDS: usize = 13;
/// The name that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";
/// The kernel takes no longer names (`PATH_MAX`), nor targets of links.
const LONGEST_NAME: u32 = 4096;

/// What stands before a file's content.
struct Entry {
    inode: (u32, u32, u32),
    mode: u32,
    owner: Owner,
    links: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
    name: Vec<u8>,
}

impl Entry {
    fn read(from: &mut dyn Read) -> io::Result<Entry> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header)?;
        let (magic, fields) = header.split_at(6);
        if !matches!(magic, b"070701" | b"070702") {
            return Err(invalid("the header of an entry is damaged"));
        }
        let mut numbers = [0; FIELDS];
        for (number, digits) in numbers.iter_mut().zip(fields.chunks_exact(8)) {
            let digits = str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
            let parsed = digits.and_then(|text| u32::from_str_radix(text, 16).ok());
            *number =
                parsed.ok_or_else(|| invalid("a number in the header of an entry is damaged"))?;
        }
        let [ino, mode, uid, gid, links, mtime, size, major, minor, rmajor, rminor, name, _] =
            numbers;
        if !(1..=LONGEST_NAME).contains(&name) {
            return Err(invalid("the name of an entry is too long"));
        }
        let mut bytes = vec![0; name as usize];
        from.read_exact(&mut bytes)?;
        skip_padding(from, HEADER_BYTES as u64 + u64::from(name))?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(Entry {
            inode: (major, minor, ino),
            mode,
            owner: Owner { uid, gid },
            links,
            mtime,
            size,
            device: (rmajor, rminor),
            name: bytes,
        })
    }

    fn is_trailer(&self) -> bool {
        self.name == TRAILER
    }
}

/// Unpacks one archive, to its trailer.
pub(super) fn unpack(bytes: &mut dyn Read, to: &mut Unpacker) -> io::Result<()> {
    // A file with several names comes several times, and its content with one of them.
    let mut names: BTreeMap<(u32, u32, u32), Vec<u8>> = BTreeMap::new();
    loop {
        let entry = Entry::read(bytes)?;
        if entry.is_trailer() {
            return Ok(());
        }
        to.begin(&entry.name)?;
        let size = u64::from(entry.size);
        let mut content = (&mut *bytes).take(size);
        add(&entry, &mut content, &mut names, to)?;
        io::copy(&mut content, &mut io::sink())?;
        if content.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        skip_padding(bytes, size)?;
        to.between();
    }
}

fn add(
    entry: &Entry,
    content: &mut dyn Read,
    names: &mut BTreeMap<(u32, u32, u32), Vec<u8>>,
    to: &mut Unpacker,
) -> io::Result<()> {
    let path = entry.name.as_slice();
    let mtime = Mtime { secs: entry.mtime.into(), nanos: 0 };
    let attributes = Attributes { mode: entry.mode, owner: entry.owner, mtime, xattrs: Vec::new() };
    let (major, minor) = entry.device;
    let kind = entry.mode & libc::S_IFMT;
    // Links to symbolic links are not made, as the kernel does it.
    if entry.links > 1 && !matches!(kind, libc::S_IFDIR | libc::S_IFLNK) {
        let first = names.entry(entry.inode).or_insert_with(|| path.to_vec());
        if first.as_slice() != path {
            to.add(path, Kind::HardLink(first), &attributes)?;
            if entry.size == 0 {
                return Ok(());
            }
            return to.add(path, Kind::Content(content), &attributes);
        }
    }
    let mut target = Vec::new();
    let kind = match kind {
        libc::S_IFREG => Kind::File(content),
        libc::S_IFDIR => Kind::Dir,
        libc::S_IFLNK => {
            content.take(LONGEST_NAME.into()).read_to_end(&mut target)?;
            Kind::Symlink(&target)
        }
        libc::S_IFCHR => Kind::Device { block: false, major, minor },
        libc::S_IFBLK => Kind::Device { block: true, major, minor },
        libc::S_IFIFO | libc::S_IFSOCK => Kind::Node(kind),
        _ => {
            to.skip();
            return Ok(());
        }
    };
    to.add(path, kind, &attributes)
}

/// Names and contents end at multiples of four.
fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(4) - bytes
}

fn skip_padding(from: &mut dyn Read, bytes: u64) -> io::Result<()> {
    let mut zeros = [0; 3];
    // What is missing at the end of a file is missed with the next entry.
    from.take(padding(bytes)).read(&mut zeros).map(|_| ())
}
