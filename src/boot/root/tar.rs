//! Archives of tar in all the formats that are about: V7, ustar, GNU and pax (tar(5), POSIX pax, GNU tar's
//! manual).
//!
//! The values of pax records are bytes, which the length before each of them delimits: file capabilities
//! and access control lists hold any.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::acl;
use super::archive::invalid;
use super::unpack::{Attributes, Kind, Unpacker};
use crate::image::manifest::{Mtime, Owner};

const BLOCK_BYTES: usize = 512;
/// Long names and pax records of one entry; a map of a sparse file is the longest of them.
const MOST_RECORD_BYTES: u64 = 8 << 20;
/// How pax records name extended attributes, as GNU tar, star and bsdtar do; labels; access control lists,
/// which are texts; and sparse files.
const XATTR: &[u8] = b"SCHILY.xattr.";
const LABEL: &[u8] = b"RHT.security.selinux";
const ACL_ACCESS: &[u8] = b"SCHILY.acl.access";
const ACL_DEFAULT: &[u8] = b"SCHILY.acl.default";
const SPARSE: &[u8] = b"GNU.sparse.";

/// Whether a header is one of tar: its checksum is right, as V7's archives have nothing else to tell them by.
pub(super) fn is_header(block: &[u8]) -> bool {
    block.first_chunk().is_some_and(|block| {
        let header = Header(*block);
        !header.is_end() && header.is_whole()
    })
}

/// Unpacks one archive, to the block of zeros that ends it.
pub(super) fn unpack(bytes: &mut dyn Read, to: &mut Unpacker) -> io::Result<()> {
    let mut global = Records::new();
    let mut extra = Extra::default();
    loop {
        let mut block = [0; BLOCK_BYTES];
        if !read_block(bytes, &mut block)? {
            to.note_no_end();
            return extra.check_none();
        }
        let header = Header(block);
        if header.is_end() {
            return extra.check_none();
        }
        if !header.is_whole() {
            return Err(invalid("the header of an entry is damaged"));
        }
        match header.kind() {
            b'L' => extra.path = Some(text(&contents(bytes, header.size()?)?).to_vec()),
            b'K' => extra.link = Some(text(&contents(bytes, header.size()?)?).to_vec()),
            // X is how Solaris names x.
            b'x' | b'X' => extra.learn(&contents(bytes, header.size()?)?)?,
            b'g' => {
                for (key, value) in records(&contents(bytes, header.size()?)?)? {
                    global.insert(key, value);
                }
            }
            _ => add(&header, std::mem::take(&mut extra), &global, bytes, to)?,
        }
        to.between();
    }
}

/// Unpacks an entry, which the archive's global records and its own describe further.
fn add(
    header: &Header,
    extra: Extra,
    global: &Records,
    bytes: &mut dyn Read,
    to: &mut Unpacker,
) -> io::Result<()> {
    let has_records = !extra.records.is_empty();
    let mut records = global.clone();
    records.extend(extra.records);
    let entry = Entry { header, records };
    let sparse = sparse_records(&extra.sparse);
    let name = sparse.get(&b"name"[..]).copied().or(entry.get(b"path"));
    let path = match name.or(extra.path.as_deref()) {
        Some(path) => path.to_vec(),
        None => header.path(),
    };
    to.begin(&path)?;
    let target = match entry.get(b"linkpath").or(extra.link.as_deref()) {
        Some(target) => target.to_vec(),
        None => text(header.field(157, 100)).to_vec(),
    };
    let kind = match header.kind() {
        // Before there was a type for directories their names ended so.
        0 | b'0' if path.ends_with(b"/") => b'5',
        kind => kind,
    };
    let size = entry.size(kind, has_records)?;
    let mut content = bytes.take(size);
    let attributes = entry.attributes(to)?;
    match kind {
        0 | b'0' | b'7' if !sparse.is_empty() => {
            let (parts, size) = pax_map(&sparse, &extra.sparse, &mut content)?;
            to.add(&path, Kind::Sparse { content: &mut content, parts, size }, &attributes)?;
        }
        0 | b'0' | b'7' => to.add(&path, Kind::File(&mut content), &attributes)?,
        b'S' => {
            let (parts, size) = header.sparse_map(content.get_mut())?;
            to.add(&path, Kind::Sparse { content: &mut content, parts, size }, &attributes)?;
        }
        b'1' => to.add(&path, Kind::HardLink(&target), &attributes)?,
        b'2' => to.add(&path, Kind::Symlink(&target), &attributes)?,
        b'3' => to.add(&path, entry.device(false)?, &attributes)?,
        b'4' => to.add(&path, entry.device(true)?, &attributes)?,
        // D is a directory of GNU's incremental archives, with a list of what was in it.
        b'5' | b'D' => to.add(&path, Kind::Dir, &attributes)?,
        b'6' => to.add(&path, Kind::Node(libc::S_IFIFO), &attributes)?,
        // The name of a volume.
        b'V' => {}
        _ => to.skip(),
    }
    io::copy(&mut content, &mut io::sink())?;
    if content.limit() > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    skip_padding(bytes, size)
}

/// What is said of an entry: a record counts before the field of the same meaning.
struct Entry<'a> {
    header: &'a Header,
    records: Records,
}

impl Entry<'_> {
    /// A record; an empty one takes away what was said for all entries.
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.records.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    fn number(&self, key: &[u8], at: usize, length: usize) -> io::Result<i64> {
        self.get(key).map_or_else(|| self.header.number(at, length), decimal)
    }

    /// How many bytes of content follow.
    fn size(&self, kind: u8, has_records: bool) -> io::Result<u64> {
        let size = match kind {
            // Nothing follows them; where the field is set it says something else.
            b'2'..=b'6' => 0,
            // Only pax has links with the content of what they name.
            b'1' if !has_records => 0,
            _ => self.number(b"size", 124, 12)?,
        };
        u64::try_from(size).map_err(|_| invalid("the size of an entry is negative"))
    }

    fn attributes(&self, to: &mut Unpacker) -> io::Result<Attributes> {
        Ok(Attributes {
            mode: (self.header.number(100, 8)? & 0o7777) as u32,
            owner: Owner {
                uid: id(self.number(b"uid", 108, 8)?)?,
                gid: id(self.number(b"gid", 116, 8)?)?,
            },
            mtime: match self.get(b"mtime") {
                Some(value) => time(value)?,
                None => Mtime { secs: self.header.number(136, 12)?, nanos: 0 },
            },
            xattrs: xattrs(&self.records, to),
        })
    }

    fn device(&self, block: bool) -> io::Result<Kind<'static>> {
        let part = |key: &[u8], at| {
            u32::try_from(self.number(key, at, 8)?)
                .map_err(|_| invalid("the number of a device is too large"))
        };
        let (major, minor) = (part(b"SCHILY.devmajor", 329)?, part(b"SCHILY.devminor", 337)?);
        Ok(Kind::Device { block, major, minor })
    }
}

/// Extended attributes, as setxattr(2) takes them, access control lists among them.
fn xattrs(records: &Records, to: &mut Unpacker) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(XATTR) {
            match str::from_utf8(name) {
                Ok(name) => found.push((name.to_owned(), value.clone())),
                Err(_) => to.lose_attribute(),
            }
        } else if key == LABEL {
            found.push(("security.selinux".to_owned(), value.clone()));
        } else if key == ACL_ACCESS || key == ACL_DEFAULT {
            let name = match key == ACL_ACCESS {
                true => "system.posix_acl_access",
                false => "system.posix_acl_default",
            };
            match acl::from_text(value) {
                Some(list) => found.push((name.to_owned(), list)),
                None => to.lose_attribute(),
            }
        } else if key == b"SCHILY.fflags" {
            to.lose_attribute();
        }
    }
    found
}

// ---- headers

/// A header, 512 bytes; tar(5) has the fields.
struct Header([u8; BLOCK_BYTES]);

impl Header {
    fn field(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    /// A block of zeros is the end of an archive.
    fn is_end(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether its checksum is right: the sum of its bytes, with that field as spaces. Some old programs
    /// took the bytes as signed.
    fn is_whole(&self) -> bool {
        let Ok(expected) = self.number(148, 8) else { return false };
        let spaces = 8 * i64::from(b' ');
        let sum = |value: fn(u8) -> i64| -> i64 {
            let all: i64 = self.0.iter().map(|byte| value(*byte)).sum();
            let field: i64 = self.field(148, 8).iter().map(|byte| value(*byte)).sum();
            all - field + spaces
        };
        [sum(i64::from), sum(|byte| i64::from(byte.cast_signed()))].contains(&expected)
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn size(&self) -> io::Result<u64> {
        let size = self.number(124, 12)?;
        u64::try_from(size).map_err(|_| invalid("the size of an entry is negative"))
    }

    /// A number: octal digits, or GNU's base 256, which may be negative.
    fn number(&self, at: usize, length: usize) -> io::Result<i64> {
        let bytes = self.field(at, length);
        let wrong = || invalid("a number in the header of an entry is damaged");
        if let Some((first @ 0x80.., rest)) = bytes.split_first() {
            // The first byte's other bits are the number's first, and one of them its sign.
            let first = i64::from((first << 1).cast_signed() >> 1);
            return rest.iter().try_fold(first, |number, byte| {
                number.checked_mul(256).map(|number| number | i64::from(*byte)).ok_or_else(wrong)
            });
        }
        let digits = bytes.trim_ascii_start();
        let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
        let digits = digits.get(..end).unwrap_or_default();
        digits.iter().try_fold(0_i64, |number, byte| {
            let digit = char::from(*byte).to_digit(8).ok_or_else(wrong)?;
            number.checked_mul(8).map(|number| number | i64::from(digit)).ok_or_else(wrong)
        })
    }

    /// The name, which ustar may have split.
    fn path(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = text(self.field(345, 155));
        match self.field(257, 6) == b"ustar\0" && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        }
    }

    /// What GNU's older format says of a sparse file: four parts, and more of them in blocks that follow.
    fn sparse_map(&self, more: &mut dyn Read) -> io::Result<SparseMap> {
        let size = u64::try_from(self.number(483, 12)?);
        let size = size.map_err(|_| invalid("the size of an entry is negative"))?;
        let mut parts = Vec::new();
        let mut learn = |header: &Header, at: usize, count: usize| -> io::Result<()> {
            for at in (at..).step_by(24).take(count) {
                let (offset, length) = (header.number(at, 12)?, header.number(at + 12, 12)?);
                let part = (u64::try_from(offset), u64::try_from(length));
                let (Ok(offset), Ok(length)) = part else { return Err(invalid(WRONG_MAP)) };
                if length > 0 {
                    parts.push((offset, length));
                }
            }
            Ok(())
        };
        learn(self, 386, 4)?;
        let mut is_extended = self.0[482] != 0;
        while is_extended {
            let mut block = [0; BLOCK_BYTES];
            more.read_exact(&mut block)?;
            learn(&Header(block), 0, 21)?;
            is_extended = block[504] != 0;
        }
        Ok((parts, size))
    }
}

// ---- what describes the next entry

/// Pax records by their keys.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What stands before an entry.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
    /// Those of sparse files, in their order.
    sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extra {
    fn learn(&mut self, bytes: &[u8]) -> io::Result<()> {
        for (key, value) in records(bytes)? {
            match key.strip_prefix(SPARSE) {
                Some(name) => self.sparse.push((name.to_vec(), value)),
                None => _ = self.records.insert(key, value),
            }
        }
        Ok(())
    }

    /// The archive ends here.
    fn check_none(&self) -> io::Result<()> {
        let Extra { path: None, link: None, records, sparse } = self else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match records.is_empty() && sparse.is_empty() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Pax records: `LENGTH KEY=VALUE` and a newline, all of which the length counts.
fn records(mut bytes: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let wrong = || invalid("the pax records of an entry are damaged");
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let (length, _) = bytes.split_at(space);
        let length = usize::try_from(decimal(length)?).map_err(|_| wrong())?;
        let (record, rest) = bytes.split_at_checked(length).ok_or_else(wrong)?;
        let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(wrong)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = record.split_at(equals);
        found.push((key.to_vec(), value.get(1..).unwrap_or_default().to_vec()));
        bytes = rest;
    }
    Ok(found)
}

// ---- sparse files

const WRONG_MAP: &str = "the map of a sparse file is damaged";

/// Where the parts of a sparse file are, offset and length of each, and how long it is.
type SparseMap = (Vec<(u64, u64)>, u64);

fn sparse_records(records: &[(Vec<u8>, Vec<u8>)]) -> BTreeMap<&[u8], &[u8]> {
    records.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect()
}

/// The map of a sparse file in one of the formats 0.0, 0.1 and 1.0 of pax records (GNU tar's manual, "Storing
/// Sparse Files"), of which the last has it before the content.
fn pax_map(
    records: &BTreeMap<&[u8], &[u8]>,
    in_order: &[(Vec<u8>, Vec<u8>)],
    content: &mut dyn Read,
) -> io::Result<SparseMap> {
    let size = records.get(&b"realsize"[..]).or(records.get(&b"size"[..]));
    let size = unsigned(size.ok_or_else(|| invalid(WRONG_MAP))?)?;
    let numbers = if records.get(&b"major"[..]).is_some_and(|major| *major == b"1") {
        return Ok((map_before_content(content)?, size));
    } else if let Some(map) = records.get(&b"map"[..]) {
        map.split(|byte| *byte == b',').filter(|number| !number.is_empty()).map(unsigned).collect()
    } else {
        let parts = in_order.iter().filter(|(key, _)| matches!(&key[..], b"offset" | b"numbytes"));
        parts.map(|(_, value)| unsigned(value)).collect::<io::Result<Vec<_>>>()
    };
    let numbers = numbers?;
    let (pairs, rest) = numbers.as_chunks();
    match rest.is_empty() {
        true => Ok((pairs.iter().map(|&[offset, length]| (offset, length)).collect(), size)),
        false => Err(invalid(WRONG_MAP)),
    }
}

/// Decimal numbers, one a line, the first of which says how many parts there are; filled up to whole blocks.
fn map_before_content(content: &mut dyn Read) -> io::Result<Vec<(u64, u64)>> {
    let wrong = || invalid(WRONG_MAP);
    let (mut numbers, mut number) = (Vec::new(), 0_u64);
    loop {
        let mut block = [0; BLOCK_BYTES];
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

// ---- values

/// Up to the first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(text: &[u8]) -> io::Result<i64> {
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| invalid("a number in the pax records of an entry is damaged"))
}

fn unsigned(text: &[u8]) -> io::Result<u64> {
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| invalid(WRONG_MAP))
}

/// Seconds since 1970 with a fraction, before 1970 both of them negative (POSIX pax, "Extended Header").
fn time(value: &[u8]) -> io::Result<Mtime> {
    let wrong = || invalid("the time in the pax records of an entry is damaged");
    let text = str::from_utf8(value).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse().map_err(|_| wrong())?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let mut digits = digits.map(|digit| char::from(digit).to_digit(10));
    let nanos = digits.try_fold(0, |sum, digit| Some(sum * 10 + digit?)).ok_or_else(wrong)?;
    match nanos {
        1.. if whole.starts_with('-') => {
            let secs = secs.checked_sub(1).ok_or_else(wrong)?;
            Ok(Mtime { secs, nanos: 1_000_000_000 - nanos })
        }
        _ => Ok(Mtime { secs, nanos }),
    }
}

fn id(number: i64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| invalid("a user or group ID is not between 0 and 4294967295"))
}

// ---- blocks

/// False where nothing follows.
fn read_block(from: &mut dyn Read, block: &mut [u8; BLOCK_BYTES]) -> io::Result<bool> {
    let mut found = Vec::with_capacity(BLOCK_BYTES);
    from.take(BLOCK_BYTES as u64).read_to_end(&mut found)?;
    if found.is_empty() {
        return Ok(false);
    }
    *block = found.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(true)
}

/// A short content as a whole.
fn contents(from: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    if size > MOST_RECORD_BYTES {
        return Err(invalid("the pax records of an entry are larger than 8 MiB"));
    }
    let mut bytes = Vec::new();
    from.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    skip_padding(from, size)?;
    Ok(bytes)
}

/// Contents end with whole blocks; what is missing at the end of a file is missed with the next entry.
fn skip_padding(from: &mut dyn Read, bytes: u64) -> io::Result<()> {
    let padding = bytes.next_multiple_of(BLOCK_BYTES as u64) - bytes;
    io::copy(&mut from.take(padding), &mut io::sink()).map(|_| ())
}
