//! One question to a server, waited for: reads a control file over a connection of its own, or writes
//! into its log.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use super::connection::{Connection, ROOT_FID, Token};
use crate::control::Control;
use crate::fetch::control_client::CallError;
use crate::net::transport::Transport;
use crate::p9::client::Event;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::Blob;

/// Bytes asked for at a time.
const READ_BYTES: u32 = 128 << 10;

const FILE_FID: u32 = 1;
/// Of open(2), as 9P2000.L has it.
const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;

/// The token of a question.
const QUESTION: Token = 0;
/// The token of the end of a question, for which nobody waits and which may fail if the beginning has.
const CLOSE: Token = 1;

/// A connection on which one question at a time is asked and waited for.
pub struct Call(Connection);

impl Call {
    /// Calls the server at `address`, which gets `patience` to take the call.
    pub fn connect(
        transport: &Transport,
        address: SocketAddr,
        patience: Duration,
    ) -> Result<Call, CallError> {
        Connection::open(transport, address, patience, b"").map(Call)
    }

    /// Reads all of `.xget/FILE`, at most `most` bytes; `progress` hears the bytes so far.
    pub fn read(
        &mut self,
        file: Control,
        most: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, CallError> {
        self.open(file, O_RDONLY);
        let content = self.read_all(most, progress);
        self.close();
        content
    }

    /// Writes lines into the server's log.
    pub fn log(&mut self, lines: &str) -> Result<(), CallError> {
        self.open(Control::Log, O_WRONLY);
        let data = Blob(lines.as_bytes());
        self.0.client().send(QUESTION, &Message::Twrite { fid: FILE_FID, offset: 0, data });
        let written = self.exchange(&mut |_| Ok(()));
        self.close();
        written
    }

    fn read_all(&mut self, most: u64, progress: &mut dyn FnMut(u64)) -> Result<Vec<u8>, CallError> {
        let mut content = Vec::new();
        while self.read_on(&mut content, most, progress)? > 0 {}
        Ok(content)
    }

    /// Queues it; the first read goes out with it.
    fn open(&mut self, file: Control, flags: u32) {
        let path = [".xget", file.name()];
        self.0.client().open(QUESTION, ROOT_FID, FILE_FID, &path, flags);
    }

    /// Queues it; it goes out with the next question, if there is one.
    fn close(&mut self) {
        self.0.client().send(CLOSE, &Message::Tclunk { fid: FILE_FID });
    }

    /// Reads what follows `content`; how many bytes came.
    fn read_on(
        &mut self,
        content: &mut Vec<u8>,
        most: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<usize, CallError> {
        let before = content.len();
        let count = READ_BYTES.min(self.0.client().max_read_bytes());
        let offset = before as u64;
        self.0.client().send(QUESTION, &Message::Tread { fid: FILE_FID, offset, count });
        self.exchange(&mut |bytes| {
            content.extend_from_slice(bytes);
            progress(content.len() as u64);
            match content.len() as u64 > most {
                true => Err(CallError::TooLong(most)),
                false => Ok(()),
            }
        })?;
        Ok(content.len() - before)
    }

    /// Sends what is queued and waits until everything has its reply.
    fn exchange(
        &mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let mut result = Ok(());
        self.0.exchange(&mut |event, _| {
            let error = match event {
                Event::Data { bytes, .. } => match take(bytes) {
                    Ok(()) => return ControlFlow::Continue(None),
                    Err(error) => {
                        result = Err(error);
                        return ControlFlow::Break(());
                    }
                },
                Event::Reply(CLOSE, _) => return ControlFlow::Continue(None),
                Event::Reply(_, Ok(Message::Rwalk { wqid })) if wqid.len() < 2 => {
                    CallError::NotXget
                }
                Event::Reply(_, Err(Errno::ENOENT)) => CallError::NotXget,
                Event::Reply(_, Err(errno)) => CallError::Refused(errno),
                Event::Reply(_, Ok(_)) | Event::End(..) => return ControlFlow::Continue(None),
            };
            // Of a walk, an open and a read in one breath all fail. The walk's error says why; other
            // servers may send it after those.
            if result.is_ok() || matches!(error, CallError::NotXget) {
                result = Err(error);
            }
            ControlFlow::Continue(None)
        })?;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{master, serves};

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
}
