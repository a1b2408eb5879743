//! What a session sends, in order, in the dialect and the message size that Tversion settled on.

use std::collections::VecDeque;

use super::output::{Data, Output};
use crate::limits::{MAX_MSIZE, MAX_OUTPUT_BYTES, MAX_OUTPUTS, MAX_REQUEST_BYTES, MIN_MSIZE};
use crate::p9::errno::Errno;
use crate::p9::message::{IO_HEADER_BYTES, Message};
use crate::p9::wire::{DecodeError, Dialect, Text, UnixOnly};

pub(super) type Reply<'m> = Result<Message<'m>, Errno>;

#[derive(Debug)]
pub(super) struct Replies {
    dialect: Dialect,
    /// 0 until Tversion.
    msize: u32,
    outputs: VecDeque<Output>,
    trace: Option<Vec<String>>,
}

impl Replies {
    /// With `trace` it keeps a line for every message, both ways.
    pub(super) fn new(trace: bool) -> Replies {
        Replies {
            dialect: Dialect::Plain,
            msize: 0,
            outputs: VecDeque::new(),
            trace: trace.then(Vec::new),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// 0 until Tversion.
    pub(super) fn msize(&self) -> u32 {
        self.msize
    }

    /// Most bytes of data in a reply.
    pub(super) fn max_data_bytes(&self) -> u32 {
        self.msize.saturating_sub(IO_HEADER_BYTES)
    }

    /// Settles on a dialect and a message size; the reply to Tversion.
    pub(super) fn negotiate(&mut self, msize: u32, version: Text<'_>) -> Message<'static> {
        let dialect = Dialect::requested(version.0).filter(|_| msize >= MIN_MSIZE);
        let msize = msize.min(MAX_MSIZE);
        self.msize = if dialect.is_some() { msize } else { 0 };
        self.dialect = dialect.unwrap_or(Dialect::Plain);
        let version = dialect.map_or("unknown", Dialect::name);
        Message::Rversion { msize, version: Text(version.as_bytes()) }
    }

    pub(super) fn reply(&mut self, tag: u16, reply: Reply<'_>) {
        let message = reply.unwrap_or_else(|errno| match self.dialect {
            Dialect::Linux => Message::Rlerror { ecode: errno.0 },
            _ => Message::Rerror { ename: Text(errno.text().as_bytes()), errno: UnixOnly(errno.0) },
        });
        self.note("<-", tag, &message);
        if !matches!(self.outputs.back(), Some(Output::Reply(bytes)) if bytes.len() < MAX_REQUEST_BYTES)
        {
            self.outputs.push_back(Output::Reply(Vec::new()));
        }
        let Some(Output::Reply(bytes)) = self.outputs.back_mut() else { return };
        let start = bytes.len();
        message.encode(tag, self.dialect, bytes);
        // Only a very small msize can make a reply too long, and then an error still fits.
        if self.msize > 0 && bytes.len() - start > self.msize as usize {
            bytes.truncate(start);
            self.reply(tag, Err(Errno::EMSGSIZE));
        }
    }

    /// Replies with a part of the image.
    pub(super) fn reply_image(&mut self, data: Data) {
        if let Some(trace) = &mut self.trace {
            let Data { tag, range, .. } = &data;
            trace.push(format!("<- tag {tag} Rread image {}..{}", range.start, range.end));
        }
        self.outputs.push_back(Output::Data(data));
    }

    /// Whether there is room for more: requests are not answered while replies pile up.
    pub(super) fn has_room(&self) -> bool {
        self.len() < MAX_OUTPUTS && self.bytes() < MAX_OUTPUT_BYTES
    }

    /// Bytes that the replies hold; those of the image hold none.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |output: &Output| match output {
            Output::Reply(bytes) => bytes.len(),
            Output::Data(_) => 0,
        };
        self.outputs.iter().map(bytes).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    pub(super) fn next(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.outputs.clear();
    }

    /// Whether a part of the image waits to leave under this tag.
    pub(super) fn has_image(&self, tag: u16) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Data(data) if data.tag == tag))
    }

    /// Takes back the part of the image that waits to leave under this tag.
    pub(super) fn take_image(&mut self, tag: u16) -> Option<Data> {
        let unsent = |output: &Output| matches!(output, Output::Data(data) if data.tag == tag);
        match self.outputs.remove(self.outputs.iter().position(unsent)?)? {
            Output::Data(data) => Some(data),
            Output::Reply(_) => None,
        }
    }

    /// Takes back all parts of the image. Replies that are already made may leave: a client that
    /// begins anew ignores them.
    pub(super) fn take_all_images(&mut self) -> Vec<Data> {
        let mut images = Vec::new();
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Data(data) => images.push(data),
                reply @ Output::Reply(_) => self.outputs.push_back(reply),
            }
        }
        images
    }

    pub(super) fn note(&mut self, way: &str, tag: u16, message: &Message<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{way} tag {tag} {message}"));
        }
    }

    pub(super) fn note_invalid(&mut self, tag: u16, error: &DecodeError) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("-> tag {tag} {error}"));
        }
    }

    pub(super) fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
