//! Sends a session's outputs over a non-blocking socket, file contents by sendfile(2).
//!
//! The master and the node share it; they differ only in how they wait for the socket.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use socket2::SockRef;

use crate::image::manifest::Segment;
use crate::limits::MAX_TURN_FILES;
use crate::net::tcp::is_passing;
use crate::serve::session::{Data, Output};
use crate::serve::tree::Tree;

/// Where the bytes of the image are stored.
pub trait Files {
    /// The file that holds a stretch of an entry of `tree`, and where in it the stretch begins.
    fn source(&mut self, tree: &Tree, segment: &Segment) -> io::Result<(Arc<File>, u64)>;
}

/// How far sending has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The output has left as a whole.
    Done,
    /// The socket takes no more at present.
    Blocked,
    /// So many files were opened that others should have their turn first.
    Paused,
}

/// One output on its way.
#[derive(Debug)]
pub struct Outgoing {
    head: Vec<u8>,
    head_sent: usize,
    data: Option<Data>,
    /// Where in the image the next byte is.
    at: u64,
    /// The stretch that is being sent: the file, the place in it, and the bytes left.
    open: Option<Stretch>,
}

type Stretch = (Arc<File>, u64, u64);

impl Outgoing {
    /// Begins to send an output. An error means that its file cannot be opened, or is not what it was; that can
    /// still be answered.
    pub(crate) fn new(output: Output, files: &mut impl Files) -> io::Result<Outgoing> {
        let data = match output {
            Output::Reply(head) => {
                return Ok(Outgoing { head, head_sent: 0, data: None, at: 0, open: None });
            }
            Output::Data(data) => data,
        };
        let stretch = next_stretch(&data, data.range.start, files)?;
        Ok(Outgoing {
            head: data.header().to_vec(),
            head_sent: 0,
            at: data.range.start,
            open: Some(stretch),
            data: Some(data),
        })
    }

    /// Grows with every byte that has left.
    pub(crate) fn sent(&self) -> u64 {
        self.head_sent as u64 + self.at
    }

    /// Sends as much as the socket takes, of at most [`MAX_TURN_FILES`] files.
    ///
    /// An error means that the connection has to be ended: a reply that was begun cannot be taken
    /// back. `UnexpectedEof` is a file that has become shorter than it was.
    pub(crate) fn advance(
        &mut self,
        socket: &SockRef<'_>,
        files: &mut impl Files,
    ) -> io::Result<Progress> {
        // A header waits for the data behind it, so that it costs no packet of its own.
        let more = if self.data.is_some() { libc::MSG_MORE } else { 0 };
        while let Some(rest) = self.head.get(self.head_sent..).filter(|rest| !rest.is_empty()) {
            match socket.send_with_flags(rest, more) {
                Ok(n) => self.head_sent += n,
                Err(error) => return blocked(error),
            }
        }
        let Some(data) = &self.data else { return Ok(Progress::Done) };
        let mut opened = 0;
        while self.at < data.range.end {
            let (file, offset, left) = match self.open.take() {
                Some(open) => open,
                None if opened == MAX_TURN_FILES => return Ok(Progress::Paused),
                None => {
                    opened += 1;
                    next_stretch(data, self.at, files)?
                }
            };
            let count = NonZeroUsize::new(usize::try_from(left).unwrap_or(usize::MAX));
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            match socket.sendfile(&*file, start, count) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    let n = n as u64;
                    self.at += n;
                    self.open = (left > n).then(|| (file, offset + n, left - n));
                }
                Err(error) => {
                    self.open = Some((file, offset, left));
                    // sendfile(2) holds the last, short segment back for what follows it. Where segments are large
                    // and the queue is short, nothing could follow until a timer sends it, 200 ms later: to set this
                    // option again sends it at once (tcp(7)). Local sockets neither do that nor have the option.
                    let _ = socket.set_tcp_nodelay(true);
                    return blocked(error);
                }
            }
        }
        Ok(Progress::Done)
    }
}

fn next_stretch(data: &Data, at: u64, files: &mut impl Files) -> io::Result<Stretch> {
    let segment = data.tree.manifest().listing().segments(at..data.range.end).next();
    let segment = segment.ok_or(io::ErrorKind::UnexpectedEof)?;
    let (file, offset) = files.source(&data.tree, &segment)?;
    Ok((file, offset, segment.len))
}

fn blocked(error: io::Error) -> io::Result<Progress> {
    if is_passing(&error) { Ok(Progress::Blocked) } else { Err(error) }
}
