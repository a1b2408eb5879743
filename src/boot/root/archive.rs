//! A root file system that came as archives, of tar or cpio (newc), as they are or compressed: as the kernel's
//! unpacker of initramfs images does it, all that follow each other in a file are unpacked, with zeros
//! between them.
//!
//! gzip is decompressed here: its programs are silent about what follows zeros, and only a decoder knows
//! where a stream ends. Other compression is undone by the program for it, if the initramfs has that: the
//! libraries for all of them would make every initramfs larger.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, PipeWriter, Read, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::unpack::Unpacker;
use super::{cpio, frames, tar};

/// Bytes that tell what a file is: a header of tar.
const HEAD_BYTES: usize = 512;
/// Read at a time.
const BUFFER_BYTES: usize = 128 << 10;
/// Of what a program says is kept.
const MOST_SAID_BYTES: u64 = 300;

/// How archives are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::boot) enum Packing {
    /// Not at all.
    Plain,
    Gzip,
    /// In a way that this program unpacks with `-dc`.
    By(&'static str),
}

/// What kind of archive it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Tar,
    Cpio,
}

impl Packing {
    /// How a file is packed that begins so; None if it is neither an archive nor packed.
    pub(in crate::boot) fn of(head: &[u8]) -> Option<Packing> {
        match head {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::By("zstd")),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::By("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => Some(Packing::By("bzip2")),
            // Frames of lz4, and the older kind that kernels know.
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Some(Packing::By("lz4")),
            [0x89, b'L', b'Z', b'O', 0, ..] => Some(Packing::By("lzop")),
            // Its properties, and a dictionary of a whole power of two.
            [0x5d, 0, 0, ..] => Some(Packing::By("lzma")),
            // A frame of user data, of zstd or lz4 as what follows it.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, rest @ ..] => {
                let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                Packing::of(rest.get(length..)?)
            }
            _ => Format::of(head).map(|_| Packing::Plain),
        }
    }
}

impl Format {
    /// What begins so: tar(5), cpio(5).
    fn of(head: &[u8]) -> Option<Format> {
        if head.starts_with(b"070701") || head.starts_with(b"070702") {
            Some(Format::Cpio)
        } else if tar::is_header(head) {
            Some(Format::Tar)
        } else {
            None
        }
    }
}

/// The first bytes of a file or a stream, fewer where it is short.
pub(super) fn head(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    from.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Starts the program of that name with that input; its output and what it says are pipes.
pub(super) type Start<'a> = dyn FnMut(&'static str, Stdio) -> io::Result<Child> + 'a;

/// [`Start`], by a program of the initramfs.
///
/// # Errors
///
/// Where there is none, which.
pub(in crate::boot) fn start(name: &'static str, input: Stdio) -> io::Result<Child> {
    let mut command = Command::new(name);
    command.arg("-dc").stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "it is compressed, and this initramfs has no program {name}: add it to the initramfs"
        )),
        _ => error,
    })
}

/// Unpacks all archives in a file.
pub(super) fn unpack(file: File, start: &mut Start<'_>, to: &mut Unpacker) -> io::Result<()> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    loop {
        skip_zeros(&mut file)?;
        let head = head(&mut file)?;
        file.seek_relative(-(head.len() as i64))?;
        if head.is_empty() {
            return to.finish();
        }
        match Packing::of(&head) {
            Some(Packing::Plain) => match Format::of(&head) {
                Some(format) => unpack_one(format, &mut file, to)?,
                None => return Err(invalid("it does not contain a tar or cpio archive")),
            },
            Some(Packing::Gzip) => through(to, |pipe| gunzip(&mut file, pipe))?,
            Some(Packing::By(name)) => {
                let begin = file.stream_position()?;
                let end = frames::end(name, &mut file)?;
                // Without what is read ahead: the program has the same place in the file.
                file.seek(SeekFrom::Start(begin))?;
                let packed = file.get_ref().try_clone()?.take(end - begin);
                run(name, packed, start, to)?;
                file.seek(SeekFrom::Start(end))?;
            }
            None => return Err(invalid("something else follows the archive in it")),
        }
        to.between();
    }
}

/// Unpacks all archives in a stream that was compressed.
fn unpack_all(bytes: &mut dyn Read, to: &mut Unpacker) -> io::Result<()> {
    let mut bytes =
        Bytes { ahead: Cursor::default(), rest: BufReader::with_capacity(BUFFER_BYTES, bytes) };
    let mut is_first = true;
    while let Some(head) = bytes.head_after_zeros()? {
        match (Format::of(&head), is_first) {
            (Some(format), _) => unpack_one(format, &mut bytes, to)?,
            (None, true) => return Err(invalid("it does not contain a tar or cpio archive")),
            (None, false) => return Err(invalid("something else follows the archive in it")),
        }
        is_first = false;
        to.between();
    }
    match is_first {
        true => Err(invalid("it does not contain a tar or cpio archive")),
        false => Ok(()),
    }
}

fn unpack_one(format: Format, bytes: &mut dyn Read, to: &mut Unpacker) -> io::Result<()> {
    match format {
        Format::Tar => tar::unpack(bytes, to),
        Format::Cpio => cpio::unpack(bytes, to),
    }
}

/// A stream whose next bytes can be looked at.
struct Bytes<R> {
    ahead: Cursor<Vec<u8>>,
    rest: R,
}

impl<R: BufRead> Bytes<R> {
    /// What comes next but for zeros, which go; None if that is nothing.
    fn head_after_zeros(&mut self) -> io::Result<Option<Vec<u8>>> {
        skip_zeros(&mut self.ahead)?;
        if self.ahead.fill_buf()?.is_empty() {
            skip_zeros(&mut self.rest)?;
        }
        let head = head(self)?;
        // There may be more ahead than was looked at.
        let more = self.ahead.fill_buf()?.to_vec();
        self.ahead = Cursor::new([head.as_slice(), &more].concat());
        Ok((!head.is_empty()).then_some(head))
    }
}

impl<R: Read> Read for Bytes<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.ahead.read(to)? {
            0 => self.rest.read(to),
            count => Ok(count),
        }
    }
}

fn skip_zeros(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let (zeros, all) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
        from.consume(zeros);
        if zeros < all || all == 0 {
            return Ok(());
        }
    }
}

// ---- compression

/// Unpacks what `decompress` writes into a pipe, on another core.
fn through(
    to: &mut Unpacker,
    decompress: impl FnOnce(PipeWriter) -> io::Result<()> + Send,
) -> io::Result<()> {
    let (mut output, input) = io::pipe()?;
    thread::scope(|scope| {
        let decompressing = thread::Builder::new().spawn_scoped(scope, || decompress(input))?;
        let unpacked = unpack_all(&mut output, to);
        drop(output);
        let decompressed = decompressing.join().unwrap_or_else(|_| Err(invalid("it is damaged")));
        match decompressed {
            // Nobody reads it any more, as it could not be unpacked.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => unpacked,
            Err(error) => Err(error),
            Ok(()) => unpacked,
        }
    })
}

/// Members that follow each other are one stream (gzip(1), "Advanced usage"), with zeros between or without.
fn gunzip(file: &mut BufReader<File>, mut output: PipeWriter) -> io::Result<()> {
    loop {
        io::copy(&mut flate2::bufread::GzDecoder::new(&mut *file), &mut output).map_err(
            |error| match error.kind() {
                io::ErrorKind::BrokenPipe => error,
                _ => invalid("its gzip stream is damaged or cut off"),
            },
        )?;
        skip_zeros(file)?;
        let head = head(file)?;
        file.seek_relative(-(head.len() as i64))?;
        if Packing::of(&head) != Some(Packing::Gzip) {
            return Ok(());
        }
    }
}

/// Unpacks what a program makes of `packed`.
fn run(
    name: &'static str,
    mut packed: io::Take<File>,
    start: &mut Start<'_>,
    to: &mut Unpacker,
) -> io::Result<()> {
    let (input, mut feed) = io::pipe()?;
    let mut program = start(name, input.into())?;
    let mut output = program.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let said = program.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    thread::scope(|scope| {
        let feeding = move || io::copy(&mut packed, &mut feed);
        let feeding = thread::Builder::new().spawn_scoped(scope, feeding)?;
        let listening = thread::Builder::new().spawn_scoped(scope, || first_line(said))?;
        let unpacked = unpack_all(&mut output, to);
        // It would wait for somebody to take the rest.
        drop(output);
        if unpacked.is_err() {
            program.kill()?;
        }
        let status = program.wait()?;
        let said = listening.join().unwrap_or_default();
        match feeding.join() {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        // Some say that they have ignored something, and return 0.
        match (unpacked, status.code()) {
            (_, Some(code)) if code != 0 || !said.is_empty() => {
                Err(invalid(&format!("program {name} failed: {said}")))
            }
            (unpacked, _) => unpacked,
        }
    })
}

/// The first line of what a program says, without what cannot be shown.
fn first_line(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = (&mut from).take(MOST_SAID_BYTES).read_to_end(&mut bytes);
    let _ = io::copy(&mut from, &mut io::sink());
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).collect()
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_told_by_how_it_begins() {
        let skippable =
            [&[0x5e, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 1][..], &[0x28, 0xb5, 0x2f, 0xfd]];
        for (head, packing) in [
            (&b"0707010000"[..], Some(Packing::Plain)),
            (&[0x1f, 0x8b, 8], Some(Packing::Gzip)),
            (&[0x28, 0xb5, 0x2f, 0xfd, 1], Some(Packing::By("zstd"))),
            (&skippable.concat(), Some(Packing::By("zstd"))),
            (b"hsqs", None),
            (b"BZhello", None),
            (&[0; 512], None),
            (b"", None),
        ] {
            assert_eq!(Packing::of(head), packing, "{head:?}");
        }
    }
}
