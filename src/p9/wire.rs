//! The bounded reader and the writer under every 9P message, and the field types they carry.
//!
//! All integers are little-endian; a string is a 16-bit length and that many bytes (intro(5)).
//! Decoding borrows from the frame and allocates nothing, so a hostile length can cost no memory.

use std::fmt;

use heapless::Vec as Bounded;

use crate::limits::MAX_WALK_ELEMENTS;

/// The dialect that Tversion settled on; it decides which optional fields a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Plan 9's own, `9P2000`.
    Plain,
    /// The Unix extensions, `9P2000.u`.
    Unix,
    /// The Linux extensions, `9P2000.L`.
    Linux,
}

impl Dialect {
    /// The dialect that a client's version string asks for; None means "answer `unknown`".
    ///
    /// Compared by prefix, so that a suffix from a later draft still gets the dialect it extends.
    pub fn requested(version: &[u8]) -> Option<Dialect> {
        match version {
            v if v.starts_with(b"9P2000.L") => Some(Dialect::Linux),
            v if v.starts_with(b"9P2000.u") => Some(Dialect::Unix),
            v if v.starts_with(b"9P2000") => Some(Dialect::Plain),
            _ => None,
        }
    }

    /// The version string that names this dialect.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Plain => "9P2000",
            Dialect::Unix => "9P2000.u",
            Dialect::Linux => "9P2000.L",
        }
    }

    fn has_numeric_ids(self) -> bool {
        self != Dialect::Plain
    }
}

/// Why a frame is not a message: which message, which field, what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The message's name, as in intro(5).
    pub message: &'static str,
    /// The field at which decoding stopped.
    pub field: &'static str,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The frame ends before the field does.
    Short,
    /// This many bytes follow the last field.
    Trailing(usize),
    /// A counted list is longer than the protocol allows.
    TooMany(usize),
    /// No message has this type number.
    UnknownType(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DecodeError { message, field, problem } = self;
        match problem {
            Problem::Short => write!(f, "{message}: truncated in field {field}"),
            Problem::Trailing(n) => write!(f, "{message}: {n} extra bytes after the last field"),
            Problem::TooMany(n) => {
                write!(f, "{message}: {n} elements in {field}, limit {MAX_WALK_ELEMENTS}")
            }
            Problem::UnknownType(n) => write!(f, "unknown message type {n}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads fields off the front of a frame; every read is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    dialect: Dialect,
    message: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`; `message` names what is being read in its errors.
    pub fn new(message: &'static str, bytes: &'a [u8], dialect: Dialect) -> Reader<'a> {
        Reader { rest: bytes, dialect, message }
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) =
            self.rest.split_at_checked(n).ok_or_else(|| self.error(field, Problem::Short))?;
        self.rest = rest;
        Ok(head)
    }

    /// How many bytes have not been read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading: anything left over is an error.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(self.error("end", Problem::Trailing(n))),
        }
    }

    fn error(&self, field: &'static str, problem: Problem) -> DecodeError {
        DecodeError { message: self.message, field, problem }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.rest.split_first_chunk().ok_or_else(|| self.error(field, Problem::Short))?;
        self.rest = rest;
        Ok(*head)
    }
}

/// Appends fields to a frame.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    dialect: Dialect,
}

impl<'b> Writer<'b> {
    /// A writer that appends to `out`.
    pub fn new(out: &'b mut Vec<u8>, dialect: Dialect) -> Writer<'b> {
        Writer { out, dialect }
    }

    /// Appends raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn quantity(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(usize::from(u16::MAX));
        self.bytes(&(n as u16).to_le_bytes());
        self.bytes(bytes.get(..n).unwrap_or_default());
    }
}

/// A value that stands in messages: one way in, one way out, one way to print it.
pub trait Field<'a>: Sized {
    /// Reads the value; `field` is its name for the error.
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError>;
    /// Appends the value.
    fn encode(&self, w: &mut Writer<'_>);
    /// Prints the value for a trace.
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

macro_rules! integer_fields {
    ($($int:ty),*) => {$(
        impl<'a> Field<'a> for $int {
            fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
                r.array(field).map(<$int>::from_le_bytes)
            }
            fn encode(&self, w: &mut Writer<'_>) {
                w.bytes(&self.to_le_bytes());
            }
            fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    )*};
}
integer_fields!(u8, u16, u32, u64);

/// A string: up to 65,535 bytes. 9P asks for UTF-8, Unix names are any bytes; bytes are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Text<'a> {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        let n = u16::decode(r, field)?;
        r.bytes(usize::from(n), field).map(Text)
    }
    fn encode(&self, w: &mut Writer<'_>) {
        w.quantity(self.0);
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Data with a 32-bit count before it: what Rread and Twrite carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blob<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Blob<'a> {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        let n = u32::decode(r, field)?;
        r.bytes(usize::try_from(n).unwrap_or(usize::MAX), field).map(Blob)
    }
    fn encode(&self, w: &mut Writer<'_>) {
        w.bytes(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        w.bytes(self.0);
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Server's name for a file (intro(5)): two are the same file if and only if their paths match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qid {
    /// The high bits of the file's mode: [`Qid::DIR`], [`Qid::SYMLINK`] or [`Qid::FILE`].
    pub kind: u8,
    /// Changes with the contents; 0 keeps Linux clients from caching.
    pub version: u32,
    /// Unique among the server's files.
    pub path: u64,
}

impl Qid {
    /// A directory.
    pub const DIR: u8 = 0x80;
    /// A symbolic link (9P2000.u and .L).
    pub const SYMLINK: u8 = 0x02;
    /// A plain file.
    pub const FILE: u8 = 0;
    /// Bytes of a qid on the wire.
    pub const WIRE_BYTES: usize = 13;
}

impl<'a> Field<'a> for Qid {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        Ok(Qid {
            kind: u8::decode(r, field)?,
            version: u32::decode(r, field)?,
            path: u64::decode(r, field)?,
        })
    }
    fn encode(&self, w: &mut Writer<'_>) {
        self.kind.encode(w);
        self.version.encode(w);
        self.path.encode(w);
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Qid::DIR => "d",
            Qid::SYMLINK => "l",
            _ => "",
        };
        write!(f, "({:016x} {} {kind})", self.path, self.version)
    }
}

/// Up to 16 of something behind a 16-bit count: Twalk's names, Rwalk's qids.
pub type List<T> = Bounded<T, MAX_WALK_ELEMENTS>;

impl<'a, T: Field<'a>> Field<'a> for List<T> {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        let n = usize::from(u16::decode(r, field)?);
        let mut list = List::new();
        for _ in 0..n {
            list.push(T::decode(r, field)?).map_err(|_| r.error(field, Problem::TooMany(n)))?;
        }
        Ok(list)
    }
    fn encode(&self, w: &mut Writer<'_>) {
        (self.len() as u16).encode(w);
        for item in self {
            item.encode(w);
        }
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (i, item) in self.iter().enumerate() {
            write!(f, "{}", if i == 0 { "" } else { " " })?;
            item.print(f)?;
        }
        write!(f, "]")
    }
}

/// A field that 9P2000.u and .L have and plain 9P2000 lacks (n_uname).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumericId(pub Option<u32>);

impl<'a> Field<'a> for NumericId {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        if !r.dialect.has_numeric_ids() {
            return Ok(NumericId(None));
        }
        u32::decode(r, field).map(|id| NumericId(Some(id)))
    }
    fn encode(&self, w: &mut Writer<'_>) {
        if w.dialect.has_numeric_ids() {
            self.0.unwrap_or(u32::MAX).encode(w);
        }
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "{id}"),
            None => write!(f, "-"),
        }
    }
}

/// A field that 9P2000.u alone has: Rerror's errno, Tcreate's extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnixOnly<T>(pub T);

impl<'a, T: Field<'a> + Default> Field<'a> for UnixOnly<T> {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        if r.dialect != Dialect::Unix {
            return Ok(UnixOnly::default());
        }
        T::decode(r, field).map(UnixOnly)
    }
    fn encode(&self, w: &mut Writer<'_>) {
        if w.dialect == Dialect::Unix {
            self.0.encode(w);
        }
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.print(f)
    }
}

/// A last field that older clients leave out (Tfsync's datasync).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IfPresent(pub Option<u32>);

impl<'a> Field<'a> for IfPresent {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        if r.left() == 0 {
            return Ok(IfPresent(None));
        }
        u32::decode(r, field).map(|v| IfPresent(Some(v)))
    }
    fn encode(&self, w: &mut Writer<'_>) {
        if let Some(v) = self.0 {
            v.encode(w);
        }
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(v) => write!(f, "{v}"),
            None => write!(f, "-"),
        }
    }
}

/// Bits of [`Stat::mode`].
pub(crate) const DMDIR: u32 = 0x8000_0000;
pub(crate) const DMSYMLINK: u32 = 0x0200_0000;
pub(crate) const DMSETUID: u32 = 0x0008_0000;
pub(crate) const DMSETGID: u32 = 0x0004_0000;
/// The sticky bit, as Linux sends it.
pub(crate) const DMSETVTX: u32 = 0x0001_0000;

/// A directory entry of 9P2000 and .u (stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// For the server's own use; 0 here.
    pub dev_type: u16,
    /// For the server's own use; 0 here.
    pub dev: u32,
    /// The file's qid.
    pub qid: Qid,
    /// Permissions and `DM*` bits.
    pub mode: u32,
    /// Last access, seconds since 1970, 32 bits as the protocol has it.
    pub atime: u32,
    /// Last change, seconds since 1970.
    pub mtime: u32,
    /// Size in bytes; 0 for directories.
    pub length: u64,
    /// Last path element.
    pub name: Text<'a>,
    /// Owner's name.
    pub uid: Text<'a>,
    /// Group's name.
    pub gid: Text<'a>,
    /// Name of the user who last changed the file.
    pub muid: Text<'a>,
    /// Target of a symbolic link (.u).
    pub extension: UnixOnly<Text<'a>>,
    /// Numeric owner, group, last writer (.u).
    pub numeric: [UnixOnly<u32>; 3],
}

impl Stat<'_> {
    /// Appends the entry with its own length before it, as a directory read returns it.
    pub fn record(&self, w: &mut Writer<'_>) {
        let at = w.out.len();
        0u16.encode(w);
        self.dev_type.encode(w);
        self.dev.encode(w);
        self.qid.encode(w);
        self.mode.encode(w);
        self.atime.encode(w);
        self.mtime.encode(w);
        self.length.encode(w);
        for text in [self.name, self.uid, self.gid, self.muid] {
            text.encode(w);
        }
        self.extension.encode(w);
        for id in &self.numeric {
            id.encode(w);
        }
        let size = w.out.len().saturating_sub(at + 2) as u16;
        if let Some(place) = w.out.get_mut(at..at + 2) {
            place.copy_from_slice(&size.to_le_bytes());
        }
    }

    /// Reads one entry with its own length before it.
    pub fn read_record<'a>(r: &mut Reader<'a>) -> Result<Stat<'a>, DecodeError> {
        let size = u16::decode(r, "stat.size")?;
        let mut inner = Reader { rest: r.bytes(usize::from(size), "stat")?, ..r.clone() };
        let r = &mut inner;
        let stat = Stat {
            dev_type: u16::decode(r, "stat.type")?,
            dev: u32::decode(r, "stat.dev")?,
            qid: Qid::decode(r, "stat.qid")?,
            mode: u32::decode(r, "stat.mode")?,
            atime: u32::decode(r, "stat.atime")?,
            mtime: u32::decode(r, "stat.mtime")?,
            length: u64::decode(r, "stat.length")?,
            name: Text::decode(r, "stat.name")?,
            uid: Text::decode(r, "stat.uid")?,
            gid: Text::decode(r, "stat.gid")?,
            muid: Text::decode(r, "stat.muid")?,
            extension: UnixOnly::decode(r, "stat.extension")?,
            numeric: [
                UnixOnly::decode(r, "stat.n_uid")?,
                UnixOnly::decode(r, "stat.n_gid")?,
                UnixOnly::decode(r, "stat.n_muid")?,
            ],
        };
        inner.finish()?;
        Ok(stat)
    }
}

/// Rstat and Twstat wrap the entry in a second length (stat(5), BUGS).
impl<'a> Field<'a> for Stat<'a> {
    fn decode(r: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        let size = u16::decode(r, field)?;
        let mut inner = Reader { rest: r.bytes(usize::from(size), field)?, ..r.clone() };
        let stat = Stat::read_record(&mut inner)?;
        inner.finish()?;
        Ok(stat)
    }
    fn encode(&self, w: &mut Writer<'_>) {
        let mut record = Vec::new();
        self.record(&mut Writer::new(&mut record, w.dialect));
        w.quantity(&record);
    }
    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.print(f)?;
        write!(f, " ")?;
        self.qid.print(f)?;
        write!(f, " mode {:o} length {} mtime {}", self.mode, self.length, self.mtime)
    }
}
