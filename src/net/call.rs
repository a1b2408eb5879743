//! One question to a server, waited for: reads a control file over a connection of its own.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::reason;
use crate::p9::client::{Broken, Client, Event};
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::tree::Control;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes asked for at a time.
const READ_BYTES: u32 = 128 << 10;

const ROOT_FID: u32 = 0;
const FILE_FID: u32 = 1;

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// Nobody answered, or the connection broke.
    Network(io::Error),
    /// The other side is no 9P2000.L server that can be understood.
    Broken(Broken),
    /// A 9P server without xget's control files.
    NotXget,
    /// The server refused.
    Refused(Errno),
    /// The file is longer than it may be, in bytes.
    TooLong(u64),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Network(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => write!(f, "no answer"),
                io::ErrorKind::UnexpectedEof => write!(f, "the connection was closed"),
                _ => write!(f, "{}", reason(error)),
            },
            CallError::Broken(broken) => write!(f, "it {broken}"),
            CallError::NotXget => write!(f, "a 9P server, but not xget's"),
            CallError::Refused(errno) => write!(f, "{errno}"),
            CallError::TooLong(most) => write!(f, "more than {most} bytes"),
        }
    }
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> CallError {
        CallError::Network(error)
    }
}

/// What to ask after a reply.
enum Next {
    Attach,
    Open,
    Read,
}

/// Reads all of `.xget/FILE` at `address`, at most `most` bytes; `progress` hears the bytes so far.
pub fn read_control(
    address: SocketAddr,
    file: Control,
    most: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<u8>, CallError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut client = Client::new(false);
    client.version(());
    let mut buffer = vec![0; READ_BYTES as usize];
    let mut content: Vec<u8> = Vec::new();
    loop {
        stream.write_all(client.output())?;
        client.output().clear();
        let n = match stream.read(&mut buffer)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => n,
        };
        let mut bytes = buffer.get(..n).unwrap_or_default();
        loop {
            let next = match client.receive(&mut bytes).map_err(CallError::Broken)? {
                None => break,
                Some(Event::Reply((), Ok(Message::Rversion { .. }))) => Next::Attach,
                Some(Event::Reply((), Ok(Message::Rattach { .. }))) => Next::Open,
                Some(Event::Reply((), Ok(Message::Rwalk { wqid }))) if wqid.len() < 2 => {
                    return Err(CallError::NotXget);
                }
                Some(Event::Reply((), Ok(Message::Rlopen { .. }))) => Next::Read,
                Some(Event::Reply((), Ok(_))) => continue,
                Some(Event::Reply((), Err(Errno::ENOENT))) => return Err(CallError::NotXget),
                Some(Event::Reply((), Err(errno))) => return Err(CallError::Refused(errno)),
                Some(Event::Data { bytes, .. }) => {
                    content.extend_from_slice(bytes);
                    if content.len() as u64 > most {
                        return Err(CallError::TooLong(most));
                    }
                    progress(content.len() as u64);
                    continue;
                }
                Some(Event::End((), 0)) => return Ok(content),
                Some(Event::End((), _)) => Next::Read,
            };
            match next {
                Next::Attach => client.attach((), ROOT_FID),
                Next::Open => {
                    client.open((), ROOT_FID, FILE_FID, &[".xget", file.name()], 0);
                }
                Next::Read => {
                    let count = READ_BYTES.min(client.max_read_bytes());
                    let offset = content.len() as u64;
                    client.send((), &Message::Tread { fid: FILE_FID, offset, count });
                }
            }
        }
    }
}
