//! A connection to a 9P server that is waited for: requests leave together, and their replies are
//! taken as they come.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::call::CallError;
use crate::limits::{CONNECTING, SILENCE};
use crate::p9::client::{Client, Event};
use crate::p9::errno::Errno;
use crate::p9::message::Message;

/// Most bytes that are received at a time.
const RECEIVED_BYTES: usize = 128 << 10;

/// The fid of the root, once a connection is open.
pub const ROOT_FID: u32 = 0;

/// A connection on which 9P2000.L is spoken. `T` is what the caller remembers of a request.
pub struct Connection<T> {
    stream: TcpStream,
    client: Client<T>,
    buffer: Arc<Vec<u8>>,
}

/// An event's data, in the buffer in which it arrived; it may be kept.
pub struct Arrived<'a> {
    /// The buffer.
    pub buffer: &'a Arc<Vec<u8>>,
    /// Where the data ends in it.
    pub end: usize,
}

/// What to ask for when an event is dealt with, and what to remember of it.
pub type Next<T> = Option<(T, Message<'static>)>;

/// Deals with an event.
pub type Take<'t, T, E> = dyn FnMut(Event<'_, '_, T>, Arrived<'_>) -> Result<Next<T>, E> + 't;

impl<T: Copy> Connection<T> {
    /// Calls the server at `address`, which gets `patience` to take the call, and attaches to the
    /// tree that it has under the name `aname`. `token` stands for that, and is used no further.
    pub fn open(
        address: SocketAddr,
        patience: Duration,
        aname: &[u8],
        token: T,
    ) -> Result<Connection<T>, CallError> {
        let stream = TcpStream::connect_timeout(&address, patience.min(CONNECTING))?;
        stream.set_read_timeout(Some(patience.min(SILENCE)))?;
        stream.set_write_timeout(Some(patience.min(SILENCE)))?;
        stream.set_nodelay(true)?;
        let buffer = Arc::new(vec![0; RECEIVED_BYTES]);
        let mut opened = Connection { stream, client: Client::new(false), buffer };
        opened.client.version(token);
        opened.all_succeed(CallError::Refused)?;
        opened.client.attach(token, ROOT_FID, aname);
        opened.all_succeed(CallError::NoTree)?;
        Ok(opened)
    }

    /// Where requests are queued.
    pub fn client(&mut self) -> &mut Client<T> {
        &mut self.client
    }

    /// Sends what is queued, and hands `take` what comes until everything has its reply; what `take`
    /// asks for is sent as well.
    ///
    /// Fails as `take` does, and if the server cannot be understood or is silent for too long.
    pub fn exchange<E: From<CallError>>(&mut self, take: &mut Take<'_, T, E>) -> Result<(), E> {
        loop {
            self.stream.write_all(self.client.output()).map_err(CallError::Network)?;
            self.client.output().clear();
            if self.client.in_flight() == 0 {
                return Ok(());
            }
            // What is kept of the last buffer may still have to be written to its file.
            if Arc::get_mut(&mut self.buffer).is_none() {
                self.buffer = Arc::new(vec![0; RECEIVED_BYTES]);
            }
            let space = Arc::get_mut(&mut self.buffer).map(Vec::as_mut_slice).unwrap_or_default();
            let n = match self.stream.read(space).map_err(CallError::Network)? {
                0 => return Err(CallError::from(io::ErrorKind::UnexpectedEof).into()),
                n => n,
            };
            let mut rest = self.buffer.get(..n).unwrap_or_default();
            loop {
                let next = match self.client.receive(&mut rest).map_err(CallError::Broken)? {
                    Some(event) => {
                        take(event, Arrived { buffer: &self.buffer, end: n - rest.len() })?
                    }
                    None => break,
                };
                if let Some((token, message)) = next {
                    self.client.send(token, &message);
                }
            }
        }
    }

    /// Waits for replies of which only the errors matter.
    fn all_succeed(&mut self, refused: fn(Errno) -> CallError) -> Result<(), CallError> {
        self.exchange(&mut |event, _| match event {
            Event::Reply(_, Err(errno)) => Err(refused(errno)),
            _ => Ok(None),
        })
    }
}
