//! Adler-32 (RFC 1950, 8.2) of a stretch of a file, which classic clients compare.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The largest prime below 65536.
const BASE: u32 = 65_521;
/// Bytes that can be added before a sum of 32 bits might overflow.
const RUN_BYTES: usize = 5552;
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// Both sums of Adler-32.
struct Adler32 {
    a: u32,
    b: u32,
}

impl Adler32 {
    fn add(&mut self, bytes: &[u8]) {
        for run in bytes.chunks(RUN_BYTES) {
            for &byte in run {
                self.a += u32::from(byte);
                self.b += self.a;
            }
            self.a %= BASE;
            self.b %= BASE;
        }
    }

    fn value(&self) -> u32 {
        self.b << 16 | self.a
    }
}

/// Reads `len` bytes of a file from `offset` on; `UnexpectedEof` if it is shorter. Takes its time.
pub fn of_file(file: &File, mut offset: u64, len: u64) -> io::Result<u32> {
    let mut sum = Adler32 { a: 1, b: 0 };
    let mut buffer = vec![0; READ_BYTES];
    let mut left = len;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact_at(piece, offset)?;
        sum.add(piece);
        offset = offset.saturating_add(piece.len() as u64);
        left = left.saturating_sub(piece.len() as u64);
    }
    Ok(sum.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut sum = Adler32 { a: 1, b: 0 };
        sum.add(bytes);
        sum.value()
    }

    #[test]
    fn the_sums_are_those_of_rfc_1950() {
        // By Python's zlib.adler32.
        assert_eq!(of(b""), 1);
        assert_eq!(of(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(of(&vec![0xff; 100_000]), 0x149a_302c);
    }
}
