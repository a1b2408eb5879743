//! Where requests begin and end in the bytes that a server receives.

use super::message::HEADER_BYTES;
use crate::limits::MAX_REQUEST_BYTES;

/// The next request at the front of a [`RequestBuffer`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// A whole frame, its size field included.
    Whole(&'a [u8]),
    /// Only the header of a frame that is larger than is allowed. The rest of it is skipped.
    Oversized(&'a [u8]),
}

/// A size field after which nothing can be understood: smaller than a header, or before any version
/// far larger than a Tversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrameSize(pub(crate) u32);

/// Received bytes that nobody has acted on. Taking a request off copies nothing.
#[derive(Debug, Default)]
pub(crate) struct RequestBuffer {
    bytes: Vec<u8>,
    /// How many of `bytes` were handed out.
    taken: usize,
    /// Bytes of an oversized request that have not arrived yet.
    skip: usize,
}

impl RequestBuffer {
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
    }

    /// The next request; None until more bytes arrive. `msize` is 0 before Tversion.
    pub(crate) fn next(&mut self, msize: u32) -> Result<Option<Request<'_>>, BadFrameSize> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some(size) = rest.first_chunk().map(|size| u32::from_le_bytes(*size)) else {
            return Ok(None);
        };
        let bytes = size as usize;
        let too_large = bytes > MAX_REQUEST_BYTES;
        if bytes < HEADER_BYTES || (msize == 0 && too_large) {
            return Err(BadFrameSize(size));
        }
        if too_large || (msize > 0 && size > msize) {
            let Some(header) = rest.get(..HEADER_BYTES) else { return Ok(None) };
            let here = bytes.min(rest.len());
            self.skip = bytes - here;
            self.taken += here;
            return Ok(Some(Request::Oversized(header)));
        }
        let Some(frame) = rest.get(..bytes) else { return Ok(None) };
        self.taken += bytes;
        Ok(Some(Request::Whole(frame)))
    }

    /// How many bytes wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether the rest of an oversized request is still to come.
    pub(crate) fn is_skipping(&self) -> bool {
        self.skip > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSIZE: u32 = 1000;

    fn frame(size: u32) -> Vec<u8> {
        let mut frame = vec![0; size as usize];
        frame[..4].copy_from_slice(&size.to_le_bytes());
        frame
    }

    #[test]
    fn requests_come_out_whole_however_their_bytes_arrive() {
        let stream = [frame(7), frame(20), frame(11)].concat();
        for piece in 1..stream.len() {
            let mut buffer = RequestBuffer::default();
            let mut sizes = Vec::new();
            for bytes in stream.chunks(piece) {
                buffer.receive(bytes);
                while let Some(Request::Whole(frame)) = buffer.next(MSIZE).unwrap() {
                    sizes.push(frame.len());
                }
            }
            assert_eq!(sizes, [7, 20, 11], "in pieces of {piece} bytes");
            assert_eq!(buffer.len(), 0);
        }
    }

    #[test]
    fn an_oversized_request_is_skipped_and_the_next_one_is_found() {
        let stream = [frame(MSIZE + 1), frame(7)].concat();
        for piece in [1, 100, MSIZE as usize, stream.len()] {
            let mut buffer = RequestBuffer::default();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                buffer.receive(bytes);
                while let Some(request) = buffer.next(MSIZE).unwrap() {
                    seen.push(matches!(request, Request::Oversized(header) if header.len() == 7));
                }
            }
            assert_eq!(seen, [true, false], "in pieces of {piece} bytes");
            assert!(!buffer.is_skipping());
        }
    }

    #[test]
    fn a_size_that_no_request_has_is_an_error() {
        for (size, msize) in [(0, MSIZE), (6, MSIZE), (6, 0), (MAX_REQUEST_BYTES as u32 + 1, 0)] {
            let mut buffer = RequestBuffer::default();
            buffer.receive(&size.to_le_bytes());
            assert_eq!(buffer.next(msize), Err(BadFrameSize(size)));
        }
    }
}
