//! One question to a server, waited for: reads a control file over a connection of its own, or writes
//! into its log. [`ControlClient`] knows how; this has the socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::control::Control;
use crate::error::reason;
use crate::fetch::control_client::{CallError, ControlClient};
use crate::limits::{CONNECTING, SILENCE};
use crate::net::transport::Transport;

/// Most bytes that are received at a time.
const RECEIVED_BYTES: usize = 128 << 10;

/// A connection on which one question at a time is asked and waited for.
pub struct Call {
    stream: TcpStream,
    client: ControlClient,
    buffer: Vec<u8>,
}

impl Call {
    /// Connects to the server at `address`, which gets `patience` for that and for each reply.
    pub fn connect(
        transport: &Transport,
        address: SocketAddr,
        patience: Duration,
    ) -> Result<Call, CallError> {
        let stream = connect(transport, address, patience)?;
        let mut client = ControlClient::new();
        client.connected();
        Ok(Call { stream, client, buffer: vec![0; RECEIVED_BYTES] })
    }

    /// Reads all of `.xget/FILE`, at most `most` bytes; `progress` hears the bytes so far.
    pub fn read(
        &mut self,
        file: Control,
        most: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, CallError> {
        self.client.read(file, most);
        self.answer(progress)
    }

    /// Writes lines into the server's log.
    pub fn log(&mut self, lines: &str) -> Result<(), CallError> {
        self.client.write(Control::Log, lines.as_bytes());
        self.answer(&mut |_| {}).map(drop)
    }

    fn answer(&mut self, progress: &mut dyn FnMut(u64)) -> Result<Vec<u8>, CallError> {
        loop {
            self.stream.write_all(self.client.output())?;
            self.client.output().clear();
            let n = match self.stream.read(&mut self.buffer)? {
                0 => return Err(CallError::Closed),
                n => n,
            };
            let answer = self.client.receive(self.buffer.get(..n).unwrap_or_default());
            progress(self.client.bytes());
            if let Some(answer) = answer {
                return answer;
            }
        }
    }
}

/// A blocking connection; the server gets `patience` to accept it and for each reply.
pub(super) fn connect(
    transport: &Transport,
    address: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    let stream = transport.call(address, patience.min(CONNECTING))?;
    stream.set_read_timeout(Some(patience.min(SILENCE)))?;
    stream.set_write_timeout(Some(patience.min(SILENCE)))?;
    Ok(stream)
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> CallError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CallError::TimedOut,
            io::ErrorKind::UnexpectedEof => CallError::Closed,
            _ => CallError::Network(reason(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CONNECTING, SILENCE};
    use crate::net::testing::{Deaf, master, mute, serves, takes};

    #[test]
    fn a_file_that_is_longer_than_it_may_be_is_an_error() {
        let server = serves(master());
        let length = include_bytes!("../../fuzz/manifest").len() as u64;
        let patience = Duration::from_secs(60);
        let mut call = Call::connect(&Transport::Kernel, server, patience).unwrap();
        let mut read = |most| call.read(Control::Manifest, most, &mut |_| {});
        assert!(matches!(read(length - 1), Err(CallError::TooLong(most)) if most == length - 1));
    }

    #[test]
    fn a_file_that_is_as_long_as_it_may_be_is_read() {
        let server = serves(master());
        let manifest = include_bytes!("../../fuzz/manifest");
        let patience = Duration::from_secs(60);
        let mut call = Call::connect(&Transport::Kernel, server, patience).unwrap();
        let text = call.read(Control::Manifest, manifest.len() as u64, &mut |_| {});
        assert_eq!(text.unwrap(), manifest);
    }

    fn why_nothing_is_read(address: SocketAddr) -> String {
        let call = Call::connect(&Transport::Kernel, address, Duration::from_secs(3600));
        let read = call.and_then(|mut call| call.read(Control::Status, 1000, &mut |_| {}));
        read.unwrap_err().to_string()
    }

    #[test]
    fn a_server_that_accepts_no_connection_is_given_up() {
        let deaf = Deaf::new();
        assert_eq!(takes(CONNECTING, || why_nothing_is_read(deaf.address)), "timed out");
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let (_listener, address) = mute();
        assert_eq!(takes(SILENCE, || why_nothing_is_read(address)), "timed out");
    }
}
