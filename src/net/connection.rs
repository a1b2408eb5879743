//! A connection to a 9P server that is waited for: requests leave together, and their replies are
//! taken as they come.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::call::connect;
use super::transport::Transport;
use crate::fetch::control_client::CallError;
use crate::p9::client::{Client, Event};
use crate::p9::errno::Errno;
use crate::p9::message::Message;

/// Most bytes that are received at a time.
const RECEIVED_BYTES: usize = 128 << 10;

/// The fid of the root, once a connection is open.
pub const ROOT_FID: u32 = 0;

/// What the caller remembers of a request.
pub type Token = u32;

/// A connection on which 9P2000.L is spoken.
pub struct Connection {
    stream: TcpStream,
    client: Client<Token>,
    buffer: Arc<Vec<u8>>,
}

/// An event's data, in the buffer in which it arrived; it may be kept.
pub struct Arrived<'a> {
    /// The buffer.
    pub buffer: &'a Arc<Vec<u8>>,
    /// Where the data ends in it.
    pub end: usize,
}

/// What to ask for when an event is dealt with.
pub type Next = Option<(Token, Message<'static>)>;

/// Deals with an event, or breaks off.
pub type Take<'t> = dyn FnMut(Event<'_, '_, Token>, Arrived<'_>) -> ControlFlow<(), Next> + 't;

impl Connection {
    /// Calls the server at `address`, which gets `patience` to take the call, and attaches to the
    /// tree that it has under the name `aname`.
    pub fn open(
        transport: &Transport,
        address: SocketAddr,
        patience: Duration,
        aname: &[u8],
    ) -> Result<Connection, CallError> {
        let stream = connect(transport, address, patience)?;
        let buffer = Arc::new(vec![0; RECEIVED_BYTES]);
        let mut opened = Connection { stream, client: Client::new(false), buffer };
        opened.client.version(0);
        opened.succeeds(CallError::Refused)?;
        opened.client.attach(0, ROOT_FID, aname);
        opened.succeeds(CallError::NoTree)?;
        Ok(opened)
    }

    /// Where requests are queued.
    pub fn client(&mut self) -> &mut Client<Token> {
        &mut self.client
    }

    /// Sends what is queued, and hands `take` what comes until everything has its reply, or until it
    /// breaks off; what `take` asks for is sent as well.
    ///
    /// Fails if the server cannot be understood or is silent for too long.
    pub fn exchange(&mut self, take: &mut Take<'_>) -> Result<(), CallError> {
        loop {
            self.stream.write_all(self.client.output())?;
            self.client.output().clear();
            if self.client.in_flight() == 0 {
                return Ok(());
            }
            // What is kept of the last buffer may still have to be written to its file.
            if Arc::get_mut(&mut self.buffer).is_none() {
                self.buffer = Arc::new(vec![0; RECEIVED_BYTES]);
            }
            let space = Arc::get_mut(&mut self.buffer).map(Vec::as_mut_slice).unwrap_or_default();
            let n = match self.stream.read(space)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => n,
            };
            let mut rest = self.buffer.get(..n).unwrap_or_default();
            loop {
                let dealt = match self.client.receive(&mut rest).map_err(CallError::Broken)? {
                    Some(event) => {
                        take(event, Arrived { buffer: &self.buffer, end: n - rest.len() })
                    }
                    None => break,
                };
                match dealt {
                    ControlFlow::Continue(None) => {}
                    ControlFlow::Continue(Some((token, message))) => {
                        self.client.send(token, &message);
                    }
                    ControlFlow::Break(()) => return Ok(()),
                }
            }
        }
    }

    /// Waits for a reply of which only an error matters.
    fn succeeds(&mut self, refused: fn(Errno) -> CallError) -> Result<(), CallError> {
        let mut result = Ok(());
        self.exchange(&mut |event, _| {
            if let Event::Reply(_, Err(errno)) = event {
                result = Err(refused(errno));
            }
            ControlFlow::Continue(None)
        })?;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CONNECTING, SILENCE};
    use crate::net::testing::{Deaf, mute, takes};

    const LONG: Duration = Duration::from_secs(3600);

    fn why_none_opens(address: SocketAddr) -> String {
        let opened = Connection::open(&Transport::Kernel, address, LONG, b"");
        opened.err().unwrap().to_string()
    }

    #[test]
    fn who_does_not_take_a_call_is_given_up() {
        let deaf = Deaf::new();
        assert_eq!(takes(CONNECTING, || why_none_opens(deaf.address)), "timed out");
    }

    #[test]
    fn who_takes_a_call_and_does_not_answer_is_given_up() {
        let (_listener, address) = mute();
        assert_eq!(takes(SILENCE, || why_none_opens(address)), "timed out");
    }
}
