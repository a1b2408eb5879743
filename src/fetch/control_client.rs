//! A connection on which one control file at a time is read, or written.

use std::fmt;

use crate::control::Control;
use crate::limits::MAX_FIRST_LINE_BYTES;
use crate::p9::client::{Broken, Client, Event};
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::Blob;

/// Bytes asked for at a time.
const READ_BYTES: u32 = 128 << 10;
const ROOT_FID: u32 = 0;
const FILE_FID: u32 = 1;
/// Of open(2), as 9P2000.L has it.
const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;

/// Why a server has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// There is no connection, or it broke.
    Network(String),
    /// Nothing came for too long.
    TimedOut,
    /// The other side has closed the connection.
    Closed,
    /// The other side is no 9P2000.L server that can be understood.
    Broken(Broken),
    /// A 9P server without this control file, and so hardly xget's.
    NotXget,
    /// The server refused.
    Refused(Errno),
    /// There is nothing to attach to, or not for us.
    NoTree(Errno),
    /// The file is longer than it may be, in bytes.
    TooLong(u64),
}

impl CallError {
    /// Whether the same may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            CallError::Network(_) | CallError::TimedOut | CallError::Closed => true,
            // It has no place at present, or is about to serve something else.
            CallError::Refused(errno) => {
                matches!(*errno, Errno::EBUSY | Errno::EMFILE | Errno::ESTALE)
            }
            _ => false,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Network(why) => write!(f, "{why}"),
            CallError::TimedOut => write!(f, "timed out"),
            CallError::Closed => write!(f, "the connection was closed"),
            CallError::Broken(broken) => write!(f, "it {broken}"),
            CallError::NotXget => write!(f, "it is a 9P server, but not an xget master"),
            CallError::Refused(errno) => write!(f, "{errno}"),
            CallError::NoTree(errno) => write!(
                f,
                "attach refused ({errno}); a 9P server other than xget may require --aname=DIR, \
                 the directory that it exports"
            ),
            CallError::TooLong(most) => write!(f, "the reply is larger than {most} bytes"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Version,
    Attach,
    /// Of the file that is being read.
    File,
    /// The end of a file, for which nobody waits and which may fail if the beginning has.
    Clunk,
}

/// The file that is being read, or written.
#[derive(Debug)]
struct Reading {
    file: Control,
    /// What is written into it; empty where it is read.
    written: Vec<u8>,
    /// Most bytes that it may have.
    most: u64,
    /// Only its first line is wanted.
    first_line: bool,
    content: Vec<u8>,
    /// How much of it was here when the last Tread was sent.
    before: usize,
    error: Option<CallError>,
}

/// A 9P client that reads and writes control files, one at a time.
#[derive(Debug)]
pub(crate) struct ControlClient {
    client: Client<Token>,
    attached: bool,
    reading: Option<Reading>,
}

impl ControlClient {
    /// The connection is not made yet.
    pub(crate) fn new() -> ControlClient {
        ControlClient { client: Client::new(false), attached: false, reading: None }
    }

    /// The connection is made.
    pub(crate) fn connected(&mut self) {
        self.client.version(Token::Version);
    }

    /// Reads a whole file. One of more than `most` bytes is an error.
    pub(crate) fn read(&mut self, file: Control, most: u64) {
        self.begin(file, most, false, Vec::new());
    }

    /// Writes into a file. Its answer is empty.
    pub(crate) fn write(&mut self, file: Control, data: &[u8]) {
        self.begin(file, 0, false, data.to_vec());
    }

    /// Reads the first line of a file.
    pub(crate) fn read_first_line(&mut self, file: Control) {
        self.begin(file, MAX_FIRST_LINE_BYTES, true, Vec::new());
    }

    /// What has come of the file so far, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.reading.as_ref().map_or(0, |reading| reading.content.len() as u64)
    }

    /// What waits to be sent.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        self.client.output()
    }

    /// Takes bytes that came; the file once all of it is here, or why it cannot be had.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) -> Option<Result<Vec<u8>, CallError>> {
        loop {
            match self.next_reply(&mut bytes) {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(Token::Version)) => self.client.attach(Token::Attach, ROOT_FID, b""),
                Ok(Some(Token::Attach)) => {
                    self.attached = true;
                    self.open();
                }
                Ok(Some(Token::File | Token::Clunk)) => {
                    if self.client.in_flight() == 0
                        && let Some(end) = self.go_on()
                    {
                        return Some(end);
                    }
                }
            }
        }
    }

    /// Takes the next thing off the front of `bytes`, and says what it belongs to; None when all of them are used up.
    fn next_reply(&mut self, bytes: &mut &[u8]) -> Result<Option<Token>, CallError> {
        let event = self.client.receive(bytes).map_err(CallError::Broken)?;
        let (token, error) = match event {
            None => return Ok(None),
            Some(Event::Data { token, bytes, .. }) => {
                if let Some(reading) = &mut self.reading {
                    reading.content.extend_from_slice(bytes);
                }
                (token, None)
            }
            Some(Event::Reply(Token::Version, Err(errno))) => {
                return Err(CallError::Refused(errno));
            }
            Some(Event::Reply(Token::Attach, Err(errno))) => return Err(CallError::NoTree(errno)),
            // A walk that stops half-way has not made its fid.
            Some(Event::Reply(Token::File, Ok(Message::Rwalk { wqid }))) if wqid.len() < 2 => {
                (Token::File, Some(CallError::NotXget))
            }
            Some(Event::Reply(Token::File, Err(Errno::ENOENT))) => {
                (Token::File, Some(CallError::NotXget))
            }
            Some(Event::Reply(Token::File, Err(errno))) => {
                (Token::File, Some(CallError::Refused(errno)))
            }
            Some(Event::Reply(token, _) | Event::End(token, _)) => (token, None),
        };
        // Of a walk, an open and a read in one breath all fail. The walk's error says why; other servers may send it
        // after those.
        if let Some((reading, error)) = self.reading.as_mut().zip(error)
            && (reading.error.is_none() || error == CallError::NotXget)
        {
            reading.error = Some(error);
        }
        Ok(Some(token))
    }

    fn begin(&mut self, file: Control, most: u64, first_line: bool, written: Vec<u8>) {
        let (content, before, error) = (Vec::new(), 0, None);
        self.reading = Some(Reading { file, written, most, first_line, content, before, error });
        if self.attached {
            self.open();
        }
    }

    /// The open leaves together with the first read, or the write.
    fn open(&mut self) {
        let Some(reading) = &self.reading else { return };
        let path = [".xget", reading.file.name()];
        if reading.written.is_empty() {
            self.client.open(Token::File, ROOT_FID, FILE_FID, &path, O_RDONLY);
            self.read_on();
        } else {
            self.client.open(Token::File, ROOT_FID, FILE_FID, &path, O_WRONLY);
            let data = Blob(&reading.written);
            let write = Message::Twrite { fid: FILE_FID, offset: 0, data };
            self.client.send(Token::File, &write);
        }
    }

    fn read_on(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.before = reading.content.len();
            let count = READ_BYTES.min(self.client.max_read_bytes());
            let offset = reading.before as u64;
            self.client.send(Token::File, &Message::Tread { fid: FILE_FID, offset, count });
        }
    }

    /// Everything that was asked for was answered: the end of the file, or the next read.
    fn go_on(&mut self) -> Option<Result<Vec<u8>, CallError>> {
        let reading = self.reading.as_mut()?;
        let line = reading.content.iter().position(|&b| b == b'\n').filter(|_| reading.first_line);
        let is_end = reading.content.len() == reading.before;
        let end = if let Some(error) = reading.error.take() {
            Err(error)
        } else if reading.content.len() as u64 > reading.most {
            Err(CallError::TooLong(reading.most))
        } else if let Some(line) = line {
            reading.content.truncate(line);
            Ok(std::mem::take(&mut reading.content))
        } else if !is_end {
            self.read_on();
            return None;
        } else if reading.first_line {
            Err(CallError::Broken(Broken::Count(0)))
        } else {
            Ok(std::mem::take(&mut reading.content))
        };
        self.reading = None;
        // It leaves with the next request, if there is one.
        self.client.send(Token::Clunk, &Message::Tclunk { fid: FILE_FID });
        Some(end)
    }
}
