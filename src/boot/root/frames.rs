//! Where compressed streams end that other things follow: programs that decompress them do not tell.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::archive::invalid;

const ZSTD: u32 = 0xfd2f_b528;
const LZ4: u32 = 0x184d_2204;
/// The format of kernels from before there were frames.
const LZ4_OLD: u32 = 0x184c_2102;
/// The last four bits may be any.
const SKIPPABLE: u32 = 0x184d_2a50;
/// Blocks of the older format of lz4 hold at most 8 MiB, which cannot become larger than this
/// (`LZ4_COMPRESSBOUND`); any other number is the magic number of what follows.
const LZ4_OLD_MOST: u32 = (8 << 20) + (8 << 20) / 255 + 16;

/// Where the streams end that program `name` decompresses and that follow each other from where `file` is
/// read. Of kinds whose streams do not tell it is the end of the file, but for zeros where these cannot
/// belong to the stream.
///
/// # Errors
///
/// Of reading, and where the file is cut off or damaged.
pub(super) fn end<R: Read + Seek>(name: &str, file: &mut BufReader<R>) -> io::Result<u64> {
    match name {
        "zstd" | "lz4" => {
            while frame(file)? {}
            file.stream_position()
        }
        // Its streams end with YZ (xz-file-format.txt, "Stream Footer").
        "xz" => last_byte(file),
        _ => file.seek(SeekFrom::End(0)),
    }
}

/// Goes behind a frame; false if there is none, and it stays where it is.
fn frame(file: &mut BufReader<impl Read + Seek>) -> io::Result<bool> {
    let Some(magic) = magic(file)? else { return Ok(false) };
    match magic {
        ZSTD => zstd(file)?,
        LZ4 => lz4(file)?,
        LZ4_OLD => lz4_old(file)?,
        _ if magic & !0xf == SKIPPABLE => {
            let size = u32::from_le_bytes(take(file)?);
            skip(file, size.into())?;
        }
        _ => {
            file.seek_relative(-4)?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// The next four bytes; None at the end of the file.
fn magic(file: &mut BufReader<impl Read + Seek>) -> io::Result<Option<u32>> {
    let mut bytes = Vec::new();
    file.by_ref().take(4).read_to_end(&mut bytes)?;
    match bytes.first_chunk() {
        Some(magic) => Ok(Some(u32::from_le_bytes(*magic))),
        None => {
            file.seek_relative(-(bytes.len() as i64))?;
            Ok(None)
        }
    }
}

/// A frame of zstd behind its magic number (RFC 8878 section 3.1.1).
fn zstd(file: &mut BufReader<impl Read + Seek>) -> io::Result<()> {
    let [descriptor] = take(file)?;
    let is_single = descriptor & 0x20 != 0;
    let dictionary = if descriptor & 3 == 0 { 0 } else { 1 << ((descriptor & 3) - 1) };
    let size = if descriptor >> 6 == 0 { u64::from(is_single) } else { 1 << (descriptor >> 6) };
    skip(file, u64::from(!is_single) + dictionary + size)?;
    loop {
        let [a, b, c] = take(file)?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        // A block of one byte, repeated, has only that.
        let size = if header >> 1 & 3 == 1 { 1 } else { header >> 3 };
        skip(file, size.into())?;
        if header & 1 != 0 {
            break;
        }
    }
    skip(file, if descriptor & 4 != 0 { 4 } else { 0 })
}

/// A frame of lz4 behind its magic number (lz4_Frame_format.md).
fn lz4(file: &mut BufReader<impl Read + Seek>) -> io::Result<()> {
    let [flags, _] = take(file)?;
    let has = |bit: u8, bytes: u64| if flags & bit != 0 { bytes } else { 0 };
    // The size of the content, the number of the dictionary, the checksum of this.
    skip(file, has(0x08, 8) + has(0x01, 4) + 1)?;
    loop {
        let size = u32::from_le_bytes(take(file)?);
        if size == 0 {
            break;
        }
        skip(file, u64::from(size & 0x7fff_ffff) + has(0x10, 4))?;
    }
    skip(file, has(0x04, 4))
}

/// Blocks up to something else.
fn lz4_old(file: &mut BufReader<impl Read + Seek>) -> io::Result<()> {
    while let Some(size) = magic(file)? {
        if !(1..=LZ4_OLD_MOST).contains(&size) {
            return file.seek_relative(-4);
        }
        skip(file, size.into())?;
    }
    Ok(())
}

fn take<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Goes on behind so many bytes, which may lie behind the end: the program says that they are missing.
fn skip(file: &mut BufReader<impl Read + Seek>, bytes: u64) -> io::Result<()> {
    let bytes = i64::try_from(bytes).map_err(|_| invalid("it is damaged"))?;
    file.seek_relative(bytes)
}

/// Behind the last byte that is not zero.
fn last_byte(file: &mut BufReader<impl Read + Seek>) -> io::Result<u64> {
    let mut at = file.stream_position()?;
    let mut end = at;
    loop {
        let bytes = file.fill_buf()?;
        let count = bytes.len();
        if count == 0 {
            return Ok(end);
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += count as u64;
        file.consume(count);
    }
}
