//! The client's half of a 9P2000.L connection, without the connection.
//!
//! Requests are queued with a token that comes back with the reply; many may be in flight. The data
//! of an Rread is handed on in the pieces in which it arrives, so that a chunk is never held in
//! memory as a whole; every other reply is small and is handed on decoded.

use std::cmp::Ordering;
use std::fmt;

use super::errno::Errno;
use super::message::{
    Frame, HEADER_BYTES, IO_HEADER_BYTES, Message, NOFID, NOTAG, RREAD, RREAD_HEADER_BYTES,
};
use super::wire::{DecodeError, Dialect, List, NumericId, Text};
use crate::limits::{MAX_IN_FLIGHT, MAX_MSIZE, MAX_REPLY_BYTES, MAX_WALK_ELEMENTS, MIN_MSIZE};

const TVERSION: u8 = 100;
const TREAD: u8 = 116;
const RLERROR: u8 = 7;
const RERROR: u8 = 107;

/// Something that arrived: `'m` is the session's, `'d` that of the bytes that were received.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "an event is acted on at once and never kept")]
pub enum Event<'m, 'd, T> {
    /// The reply to the request with this token.
    Reply(T, Result<Message<'m>, Errno>),
    /// A piece of what a Tread asked for, `at` bytes after its offset.
    Data {
        /// The Tread's token.
        token: T,
        /// Where the piece begins, in bytes after the Tread's offset.
        at: u32,
        /// The piece.
        bytes: &'d [u8],
    },
    /// All of the Tread's reply has come: this many bytes, 0 at the end of the file.
    End(T, u32),
}

/// Why the server cannot be talked to any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A message that cannot be decoded.
    Decode(DecodeError),
    /// A size that no reply may have.
    Size(u32),
    /// A reply to a request that was not made, or of another type than the request's.
    Unasked {
        /// The reply's type.
        kind: u8,
        /// The tag that it bears.
        tag: u16,
    },
    /// More data than was asked for, or a length that contradicts itself.
    Count(u32),
    /// It does not speak 9P2000.L, or not with a useful message size.
    Version,
    /// It speaks 9P2000 or 9P2000.u, as the masters of 2009 do.
    OldVersion,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Decode(error) => write!(f, "sent an invalid message: {error}"),
            Broken::Size(size) => write!(f, "sent a message of invalid size ({size} bytes)"),
            Broken::Unasked { kind, tag } => {
                write!(
                    f,
                    "sent a reply of type {kind} to tag {tag}, which does not match the \
                 request"
                )
            }
            Broken::Count(count) => {
                write!(f, "sent a reply with an invalid data size ({count} bytes)")
            }
            Broken::Version => write!(f, "does not speak 9P2000.L"),
            Broken::OldVersion => write!(
                f,
                "speaks 9P2000 or 9P2000.u only: it may be a master of xget 1 (2009), which this \
                 version cannot fetch from"
            ),
        }
    }
}

impl std::error::Error for Broken {}

#[derive(Clone, Copy, Debug)]
enum Pending<T> {
    /// Waits for a reply of type `kind + 1`; a Tread asked for `count` bytes, a Twalk for as many
    /// steps.
    Request { token: T, kind: u8, count: u32 },
    /// Given up; its tag is free when the Rflush comes.
    Flushed { kind: u8, count: u32 },
    /// The Tflush of that tag.
    Flush { oldtag: u16 },
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    tag: u16,
    at: u32,
    left: u32,
}

/// One connection's state. `T` is what the caller remembers of a request.
#[derive(Debug)]
pub struct Client<T> {
    msize: u32,
    pending: heapless::Vec<Option<Pending<T>>, { 2 * MAX_IN_FLIGHT }>,
    out: Vec<u8>,
    /// Something was queued since [`Client::take_has_news`] was last asked.
    news: bool,
    partial: Vec<u8>,
    /// `partial` holds a message that was handed out already.
    used: bool,
    stream: Option<Stream>,
    trace: Option<Vec<String>>,
}

impl<T: Copy> Client<T> {
    /// A connection on which nothing was said yet; with `trace` it keeps a line for every message.
    pub fn new(trace: bool) -> Client<T> {
        Client {
            msize: 0,
            pending: heapless::Vec::new(),
            out: Vec::new(),
            news: false,
            partial: Vec::new(),
            used: false,
            stream: None,
            trace: trace.then(Vec::new),
        }
    }

    /// Queues the Tversion that has to come first; its reply is an Rversion.
    pub fn version(&mut self, token: T) {
        self.msize = MAX_MSIZE;
        let version = Text(Dialect::Linux.name().as_bytes());
        self.send(token, &Message::Tversion { msize: MAX_MSIZE, version });
    }

    /// Queues a Tattach to the root of the tree `aname`, with the numeric user 0 as Linux asks of root.
    pub fn attach(&mut self, token: T, fid: u32, aname: &[u8]) {
        let n_uname = NumericId(Some(0));
        let (uname, aname) = (Text(b"root"), Text(aname));
        self.send(token, &Message::Tattach { fid, afid: NOFID, uname, aname, n_uname });
    }

    /// Queues a walk and an open of the file at `path` below `root`, under the number `fid`.
    ///
    /// Both leave at once: a server answers in order, and an open of a fid that the walk did not
    /// make is answered with an error, too. The token comes back twice. False, and nothing is
    /// queued, if too many requests are in flight or the path is longer than one walk goes.
    pub fn open(&mut self, token: T, root: u32, fid: u32, path: &[&str], flags: u32) -> bool {
        if self.room() < 2 || path.len() > MAX_WALK_ELEMENTS {
            return false;
        }
        let wname: List<Text<'_>> = path.iter().map(|name| Text(name.as_bytes())).collect();
        self.send(token, &Message::Twalk { fid: root, newfid: fid, wname });
        self.send(token, &Message::Tlopen { fid, flags }).is_some()
    }

    /// Queues a request; the tag it travels under, or None if too many are in flight.
    pub fn send(&mut self, token: T, message: &Message<'_>) -> Option<u16> {
        let count = match message {
            Message::Tread { count, .. } => *count,
            Message::Twalk { wname, .. } => wname.len() as u32,
            _ => 0,
        };
        if self.room() == 0 {
            return None;
        }
        self.enqueue(Pending::Request { token, kind: message.kind(), count }, message)
    }

    /// Gives up the request under `tag`: whatever its reply is, it will not be reported.
    pub fn flush(&mut self, tag: u16) {
        let Some(slot) = self.pending.get_mut(usize::from(tag)) else { return };
        let Some(Pending::Request { kind, count, .. }) = *slot else { return };
        *slot = Some(Pending::Flushed { kind, count });
        self.enqueue(Pending::Flush { oldtag: tag }, &Message::Tflush { oldtag: tag });
    }

    /// How many more requests may be sent. Each of them has a slot left for its Tflush.
    fn room(&self) -> usize {
        let flushes = self.pending.iter().flatten().filter(|p| matches!(p, Pending::Flush { .. }));
        MAX_IN_FLIGHT.saturating_sub(self.in_flight() - flushes.count())
    }

    /// How many requests have no reply yet.
    pub fn in_flight(&self) -> usize {
        self.pending.iter().flatten().count()
    }

    /// The most bytes that one Tread can bring.
    pub fn max_read_bytes(&self) -> u32 {
        self.msize.saturating_sub(IO_HEADER_BYTES)
    }

    /// What waits to be sent; the driver removes from its front what it has sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether something was queued since this was last asked.
    pub fn take_has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// The trace lines since the last call.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes the next event off the front of `bytes`; None when all of them are used up.
    pub fn receive<'m, 'd>(
        &'m mut self,
        bytes: &mut &'d [u8],
    ) -> Result<Option<Event<'m, 'd, T>>, Broken> {
        if std::mem::take(&mut self.used) {
            self.partial.clear();
        }
        loop {
            if let Some(stream) = self.stream {
                match self.stream_piece(stream, bytes)? {
                    Piece::Event(event) => return Ok(Some(event)),
                    Piece::Ignored => continue,
                    Piece::Starved => return Ok(None),
                }
            }
            let Some(kind) = self.gather_header(bytes)? else { return Ok(None) };
            if kind == RREAD {
                self.begin_stream()?;
                continue;
            }
            if !self.gather(self.frame_bytes(), bytes) {
                return Ok(None);
            }
            match self.small_reply()? {
                Some((token, kind, count)) => {
                    self.used = true;
                    return self.decoded(token, kind, count).map(Some);
                }
                None => self.partial.clear(),
            }
        }
    }

    fn enqueue(&mut self, pending: Pending<T>, message: &Message<'_>) -> Option<u16> {
        let free = self.pending.iter().position(Option::is_none);
        let slot = match free {
            Some(slot) => slot,
            None => {
                self.pending.push(None).ok()?;
                self.pending.len() - 1
            }
        };
        *self.pending.get_mut(slot)? = Some(pending);
        let tag = if message.kind() == TVERSION { NOTAG } else { slot as u16 };
        if let Some(trace) = &mut self.trace {
            trace.push(format!("-> tag {tag} {message}"));
        }
        message.encode(tag, Dialect::Linux, &mut self.out);
        self.news = true;
        Some(slot as u16)
    }

    /// Fills `partial` up to `size` bytes; true when it is full.
    fn gather(&mut self, size: usize, bytes: &mut &[u8]) -> bool {
        let missing = size.saturating_sub(self.partial.len()).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        self.partial.extend_from_slice(head);
        *bytes = rest;
        self.partial.len() >= size
    }

    fn frame_bytes(&self) -> usize {
        self.partial.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize)
    }

    /// Gathers as much as tells how to go on, and checks it; None if there is not enough yet.
    fn gather_header(&mut self, bytes: &mut &[u8]) -> Result<Option<u8>, Broken> {
        if !self.gather(HEADER_BYTES, bytes) {
            return Ok(None);
        }
        let size = self.frame_bytes();
        let kind = self.partial.get(4).copied().unwrap_or(0);
        let most = if kind == RREAD { self.msize as usize } else { MAX_REPLY_BYTES };
        if size > most || size < HEADER_BYTES || (kind == RREAD && size < RREAD_HEADER_BYTES) {
            return Err(Broken::Size(size as u32));
        }
        let header = if kind == RREAD { RREAD_HEADER_BYTES } else { HEADER_BYTES };
        Ok(self.gather(header, bytes).then_some(kind))
    }

    fn begin_stream(&mut self) -> Result<(), Broken> {
        let size = self.frame_bytes() as u32;
        let tag = self.tag();
        let count = self.partial.get(7..11).and_then(|b| b.first_chunk());
        let count = count.map_or(0, |count| u32::from_le_bytes(*count));
        let asked = match self.pending.get(usize::from(tag)) {
            Some(Some(
                Pending::Request { kind: TREAD, count, .. }
                | Pending::Flushed { kind: TREAD, count },
            )) => *count,
            _ => return Err(Broken::Unasked { kind: RREAD, tag }),
        };
        if count > asked || count != size.saturating_sub(RREAD_HEADER_BYTES as u32) {
            return Err(Broken::Count(count));
        }
        if let Some(trace) = &mut self.trace {
            trace.push(format!("<- tag {tag} Rread data {count} bytes"));
        }
        self.partial.clear();
        self.stream = Some(Stream { tag, at: 0, left: count });
        Ok(())
    }

    fn stream_piece<'m, 'd>(
        &mut self,
        stream: Stream,
        bytes: &mut &'d [u8],
    ) -> Result<Piece<'m, 'd, T>, Broken> {
        let Stream { tag, at, left } = stream;
        let slot = self.pending.get_mut(usize::from(tag)).ok_or(Broken::Count(left))?;
        let token = match slot {
            Some(Pending::Request { token, .. }) => Some(*token),
            _ => None,
        };
        if left == 0 {
            self.stream = None;
            return Ok(match token {
                Some(token) => {
                    *slot = None;
                    Piece::Event(Event::End(token, at))
                }
                // The tag of a flushed request stays taken until its Rflush.
                None => Piece::Ignored,
            });
        }
        if bytes.is_empty() {
            return Ok(Piece::Starved);
        }
        let taken = (left as usize).min(bytes.len());
        let (piece, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
        *bytes = rest;
        let taken = taken as u32;
        self.stream = Some(Stream { tag, at: at.saturating_add(taken), left: left - taken });
        Ok(match token {
            Some(token) => Piece::Event(Event::Data { token, at, bytes: piece }),
            None => Piece::Ignored,
        })
    }

    fn tag(&self) -> u16 {
        let bytes = self.partial.get(5..7).and_then(|b| b.first_chunk());
        bytes.map_or(NOTAG, |tag| u16::from_le_bytes(*tag))
    }

    /// Finds what the reply in `partial` answers; None where nobody is to be told.
    fn small_reply(&mut self) -> Result<Option<(T, u8, u32)>, Broken> {
        let kind = self.partial.get(4).copied().unwrap_or(0);
        let tag = self.tag();
        let unasked = Broken::Unasked { kind, tag };
        let slot = if tag == NOTAG { 0 } else { usize::from(tag) };
        let pending = self.pending.get_mut(slot).ok_or(unasked.clone())?;
        let to_version = matches!(pending, Some(Pending::Request { kind: TVERSION, .. }));
        if to_version != (tag == NOTAG) {
            return Err(unasked);
        }
        let failed = kind == RLERROR || kind == RERROR;
        match *pending {
            Some(Pending::Request { token, kind: asked, count }) if failed || kind == asked + 1 => {
                *pending = None;
                Ok(Some((token, kind, count)))
            }
            // It was on its way when it was given up; the Rflush follows.
            Some(Pending::Flushed { kind: asked, .. }) if failed || kind == asked + 1 => Ok(None),
            Some(Pending::Flush { oldtag }) if kind == 109 => {
                *pending = None;
                if let Some(old) = self.pending.get_mut(usize::from(oldtag)) {
                    *old = None;
                }
                Ok(None)
            }
            _ => Err(unasked),
        }
    }

    fn decoded<'d>(&mut self, token: T, kind: u8, count: u32) -> Result<Event<'_, 'd, T>, Broken> {
        let frame = Frame::parse(&self.partial).map_err(Broken::Decode)?;
        // A server that knows no 9P2000.L says so with a plain Rerror; its text cannot be used. But
        // nfs-ganesha sends all its errors under that type, with a number in place of the text.
        if kind == RERROR {
            let errno = frame.body.try_into().map_or(Errno::EOPNOTSUPP.0, u32::from_le_bytes);
            return Ok(Event::Reply(token, Err(Errno(errno))));
        }
        let message = Message::decode(kind, frame.body, Dialect::Linux).map_err(Broken::Decode)?;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("<- tag {} {message}", frame.tag));
        }
        match message {
            Message::Rlerror { ecode } => Ok(Event::Reply(token, Err(Errno(ecode)))),
            // A walk that stopped on its way made no fid (walk(5)).
            Message::Rwalk { wqid } => match (wqid.len() as u32).cmp(&count) {
                Ordering::Less => Ok(Event::Reply(token, Err(Errno::ENOENT))),
                Ordering::Equal => Ok(Event::Reply(token, Ok(Message::Rwalk { wqid }))),
                Ordering::Greater => Err(Broken::Count(wqid.len() as u32)),
            },
            Message::Rversion { msize, version } => {
                let useful = (MIN_MSIZE..=self.msize).contains(&msize);
                if matches!(version.0, b"9P2000" | b"9P2000.u") {
                    return Err(Broken::OldVersion);
                }
                if version.0 != Dialect::Linux.name().as_bytes() || !useful {
                    return Err(Broken::Version);
                }
                self.msize = msize;
                Ok(Event::Reply(token, Ok(message)))
            }
            message => Ok(Event::Reply(token, Ok(message))),
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "as for Event")]
enum Piece<'m, 'd, T> {
    Event(Event<'m, 'd, T>),
    Ignored,
    Starved,
}

#[cfg(test)]
mod tests;
