//! One connection to a source: what was asked on it, and what is half here.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::control::{Control, Role};
use crate::image::chunks::ChunkId;
use crate::limits::MAX_LINE_BYTES;
use crate::p9::client::{Broken, Client, Event};
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{Blob, List};

/// How much of `have` or `redir` is read at a time, in bytes.
const TEXT_BYTES: u32 = 64 << 10;

const ROOT_FID: u32 = 0;
const REDIR_FID: u32 = 100;
const LOG_FID: u32 = 101;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Version,
    Attach,
    /// The walk or the open of a control file.
    Open(Control),
    Read(Control),
    Write(Control),
    Clunk,
    /// Whether the source answers at all.
    Probe,
    /// A piece of a chunk that begins `offset` bytes into it.
    Chunk {
        chunk: ChunkId,
        offset: u32,
    },
}

/// One connection to a source.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) address: SocketAddr,
    /// It is the server that was named.
    pub(super) is_origin: bool,
    pub(super) client: Box<Client<Token>>,
    /// It has answered as a 9P server does.
    pub(super) speaks_9p: bool,
    /// Known once the first line of `have` has come.
    pub(super) role: Option<Role>,
    pub(super) have: Lines,
    /// Chunks that lines of `have` have named.
    pub(super) named: u64,
    pub(super) redir: Lines,
    /// Addresses that this `redir` has named so far.
    pub(super) named_nodes: usize,
    pub(super) next: Lines,
    pub(super) transfers: Vec<Transfer>,
    /// How many of the verified chunks it has been told of.
    pub(super) reported: usize,
    pub(super) reported_at: Instant,
    /// The wait before `redir` is read again.
    pub(super) redir_wait: Duration,
    /// Chunks with wrong hashes that it sent on this connection.
    pub(super) wrong: u32,
    /// Chunks that it has refused since it last brought one.
    pub(super) refused: u32,
    pub(super) since: Instant,
    /// Chunks that it has brought since sources were last compared.
    pub(super) brought: u32,
}

impl Source {
    /// A connection that is being made; with `traces` it keeps a line for every message.
    pub(super) fn new(address: SocketAddr, is_origin: bool, traces: bool, now: Instant) -> Source {
        Source {
            address,
            is_origin,
            client: Box::new(Client::new(traces)),
            speaks_9p: false,
            role: None,
            have: Lines::default(),
            named: 0,
            redir: Lines::default(),
            named_nodes: 0,
            next: Lines::default(),
            transfers: Vec::new(),
            reported: 0,
            reported_at: now,
            redir_wait: Duration::ZERO,
            wrong: 0,
            refused: 0,
            since: now,
            brought: 0,
        }
    }

    pub(super) fn attach(&mut self) {
        self.speaks_9p = true;
        self.client.attach(Token::Attach, ROOT_FID, b"");
    }

    /// Opens the control files that stay open, and begins to read `have`.
    pub(super) fn open_files(&mut self) {
        for (file, flags) in [
            (Control::Have, O_RDONLY),
            (Control::Image, O_RDONLY),
            (Control::Next, O_RDWR),
            (Control::Avail, O_WRONLY),
        ] {
            self.client.open(Token::Open(file), ROOT_FID, fid(file), &path(file), flags);
        }
        self.read(Control::Have);
    }

    /// Asks for what costs nothing, to see whether the source answers.
    pub(super) fn probe(&mut self) {
        let nowhere = Message::Twalk { fid: ROOT_FID, newfid: ROOT_FID, wname: List::new() };
        self.client.send(Token::Probe, &nowhere);
    }

    /// Asks for more of a control file; false with too many requests in flight.
    pub(super) fn read(&mut self, file: Control) -> bool {
        let offset = if file == Control::Have { self.have.offset } else { 0 };
        let read = Message::Tread { fid: fid(file), offset, count: TEXT_BYTES };
        self.client.send(Token::Read(file), &read).is_some()
    }

    pub(super) fn write(&mut self, file: Control, text: &str) {
        let write = Message::Twrite { fid: fid(file), offset: 0, data: Blob(text.as_bytes()) };
        self.client.send(Token::Write(file), &write);
    }

    /// Reads `redir` as it is now; false if that has to wait, with too many requests in flight.
    pub(super) fn ask_for_sources(&mut self) -> bool {
        let (file, fid) = (Control::Redir, fid(Control::Redir));
        if !self.client.open(Token::Open(file), ROOT_FID, fid, &path(file), O_RDONLY) {
            return false;
        }
        self.redir = Lines::default();
        self.named_nodes = 0;
        let asked = self.read(file);
        self.client.send(Token::Clunk, &Message::Tclunk { fid });
        asked
    }

    /// Writes into the server's log; false if that has to wait, with too many requests in flight.
    pub(super) fn write_log(&mut self, text: &str) -> bool {
        let (file, fid) = (Control::Log, fid(Control::Log));
        let opens = self.client.open(Token::Open(file), ROOT_FID, fid, &path(file), O_WRONLY);
        if opens {
            self.write(file, text);
            self.client.send(Token::Clunk, &Message::Tclunk { fid });
        }
        opens
    }

    /// Asks for the bytes of a chunk, which lies at `range` in the image; false if there is no room
    /// for that many requests. With `apart` they are kept until all of them are verified.
    pub(super) fn fetch(&mut self, chunk: ChunkId, range: &Range<u64>, apart: bool) -> bool {
        let piece_bytes = u64::from(self.client.max_read_bytes().max(1));
        let mut tags = Vec::new();
        let mut offset = range.start;
        while offset < range.end {
            let count = piece_bytes.min(range.end - offset) as u32;
            let piece = (offset - range.start) as u32;
            let read = Message::Tread { fid: fid(Control::Image), offset, count };
            let Some(tag) = self.client.send(Token::Chunk { chunk, offset: piece }, &read) else {
                for (_, tag) in tags {
                    self.client.flush(tag);
                }
                return false;
            };
            tags.push((piece, tag));
            offset += u64::from(count);
        }
        let hasher = Box::new(blake3::Hasher::new());
        let apart = apart.then(Vec::new);
        self.transfers.push(Transfer { chunk, tags, hasher, came: 0, apart });
        true
    }

    /// Gives up what is still on its way of a chunk; `answered` is the piece whose request ended.
    pub(super) fn abandon(&mut self, chunk: ChunkId, answered: Option<u32>) {
        if let Some(i) = self.transfers.iter().position(|transfer| transfer.chunk == chunk) {
            let tags = self.transfers.swap_remove(i).tags;
            for (_, tag) in tags.iter().filter(|(piece, _)| Some(*piece) != answered) {
                self.client.flush(*tag);
            }
        }
    }
}

/// What an event says, less what is borrowed from the session.
pub(super) enum Arrived<'d> {
    Data(Token, u32, &'d [u8]),
    End(Token, u32),
    Done(Token),
    Refused(Token, Errno),
    Broken(Broken),
}

impl<'d> Arrived<'d> {
    pub(super) fn of(event: Event<'_, 'd, Token>) -> Arrived<'d> {
        match event {
            Event::Data { token, at, bytes } => Arrived::Data(token, at, bytes),
            Event::End(token, count) => Arrived::End(token, count),
            // A walk that stops half-way has not made its fid.
            Event::Reply(token @ Token::Open(_), Ok(Message::Rwalk { wqid })) if wqid.len() < 2 => {
                Arrived::Refused(token, Errno::ENOENT)
            }
            Event::Reply(token, Ok(_)) => Arrived::Done(token),
            Event::Reply(token, Err(errno)) => Arrived::Refused(token, errno),
        }
    }
}

/// A text that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) partial: Vec<u8>,
    pub(super) offset: u64,
}

impl Lines {
    /// Adds a piece and takes out the lines that are whole; None if what is left is too long for a
    /// line, or they are not text.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Option<String> {
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        self.partial.extend_from_slice(bytes);
        let end = self.partial.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.partial.drain(..end).collect();
        let text = String::from_utf8(whole).ok()?;
        (self.partial.len() <= MAX_LINE_BYTES).then_some(text)
    }
}

/// A chunk on its way from one source.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) chunk: ChunkId,
    /// The requests that have not ended, by the offset of their piece in the chunk.
    pub(super) tags: Vec<(u32, u16)>,
    pub(super) hasher: Box<blake3::Hasher>,
    pub(super) came: u64,
    /// Some: another source's bytes of the same chunk go to the store directly, so these are kept
    /// apart until they are verified, and neither can spoil the other.
    pub(super) apart: Option<Vec<u8>>,
}

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;

/// The fid that a control file is opened under.
fn fid(file: Control) -> u32 {
    match file {
        Control::Have => 1,
        Control::Image => 2,
        Control::Next => 3,
        Control::Avail => 4,
        Control::Log => LOG_FID,
        _ => REDIR_FID,
    }
}

fn path(file: Control) -> [&'static str; 2] {
    [".xget", file.name()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_end_is_refused() {
        let mut lines = Lines::default();
        let piece = [b'1'; MAX_LINE_BYTES / 2];
        assert_eq!(lines.add(&piece), Some(String::new()));
        assert_eq!(lines.add(&piece), Some(String::new()));
        assert_eq!(lines.add(b"2"), None);
    }
}
