//! Adler-32 (RFC 1950, section 8.2) of a range of a file, which 2009 clients compare with their own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use adler2::Adler32;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// The sum over `len` bytes from `offset` on. Blocks while it reads them; `UnexpectedEof` if the file is
/// shorter.
pub(crate) fn of_file(file: &File, mut offset: u64, len: u64) -> io::Result<u32> {
    let mut sum = Adler32::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut left = len;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact_at(piece, offset)?;
        sum.write_slice(piece);
        offset = offset.saturating_add(piece.len() as u64);
        left = left.saturating_sub(piece.len() as u64);
    }
    Ok(sum.checksum())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file that has no name any more.
    fn file(name: &str, bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("xget-{name}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn a_range_has_the_sum_of_its_bytes() {
        let long = READ_BYTES as u64 + 100_000;
        let mut bytes = b"Wikipedia".to_vec();
        bytes.resize(bytes.len() + long as usize, 0xff);
        let file = file("sum", &bytes);
        // By Python's zlib.adler32.
        assert_eq!(of_file(&file, 0, 0).unwrap(), 1);
        assert_eq!(of_file(&file, 0, 9).unwrap(), 0x11e6_0398);
        assert_eq!(of_file(&file, 9, 100_000).unwrap(), 0x149a_302c);
        assert_eq!(of_file(&file, 9, long).unwrap(), 0x7ed2_6bf0);
    }

    #[test]
    fn a_range_beyond_the_end_of_its_file_is_an_error() {
        let error = of_file(&file("short", b"Wikipedia"), 1, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
