//! The text of a manifest: its only parser, and the printer of its lines. `docs/protocol.md` describes it.

use std::fmt::Write as _;
use std::sync::Arc;

use blake3::Hash;

use super::entry::{Content, Entry, Mtime, Owner};
use super::error::{HEADING, ManifestError, Problem};
use super::listing::{Builder, Listing};
use crate::image::path::{TreePath, escape, unescape};

/// Shortest line of an entry, in bytes.
const MIN_ENTRY_BYTES: usize = "d 0755 - - 0.000000000 .\n".len();

/// Parses a text into a listing and the hashes of its chunks. Their number is not checked.
///
/// Nothing is printed as a whole to be compared with the text: it may be 256 MiB long. Each line has to be the one
/// that would be printed, and lines have only one order.
pub(super) fn parse(text: Arc<[u8]>) -> Result<(Listing, Vec<Hash>), ManifestError> {
    let whole = |problem| ManifestError { line: None, problem };
    let lines = text.iter().filter(|&&b| b == b'\n').count();
    let mut parser = Parser {
        builder: Builder::with_capacity(lines.min(text.len() / MIN_ENTRY_BYTES)),
        chunk_bytes: None,
        hashes: Vec::new(),
        printed: String::new(),
    };
    let mut at = 0;
    for (line, number) in text.split_inclusive(|&b| b == b'\n').zip(1..) {
        // The last line has an end, too.
        let ended = line.strip_suffix(b"\n").ok_or(whole(Problem::NotCanonical))?;
        let ended = std::str::from_utf8(ended).map_err(|_| Problem::Syntax);
        match ended.and_then(|ended| parser.line(number, ended, at)) {
            Ok(()) => at += line.len(),
            Err(problem) if problem.is_of_a_line() => {
                return Err(ManifestError { line: Some(number), problem });
            }
            Err(problem) => return Err(whole(problem)),
        }
    }
    let Parser { builder, chunk_bytes, hashes, .. } = parser;
    let chunk_bytes = chunk_bytes.ok_or(whole(Problem::Heading))?;
    Ok((builder.finish(text, chunk_bytes).map_err(whole)?, hashes))
}

/// What the lines so far have said.
struct Parser {
    builder: Builder,
    chunk_bytes: Option<u64>,
    hashes: Vec<Hash>,
    /// The present line as it has to be.
    printed: String,
}

impl Parser {
    /// The line with this number, which begins at an offset of the text.
    fn line(&mut self, number: usize, line: &str, at: usize) -> Result<(), Problem> {
        self.printed.clear();
        let printed = &mut self.printed;
        match (number, line.split_once(' ')) {
            (1, _) if line == HEADING => return Ok(()),
            (1, _) => return Err(Problem::Heading),
            (2, Some(("chunk", bytes))) => {
                let bytes = bytes.parse().map_err(|_| Problem::Syntax)?;
                self.chunk_bytes = Some(bytes);
                let _ = write!(printed, "chunk {bytes}");
            }
            (2, _) => return Err(Problem::NotCanonical),
            (_, Some(("hash", hex))) => {
                let hash = Hash::from_hex(hex).map_err(|_| Problem::Syntax)?;
                let _ = write!(printed, "hash {}", hash.to_hex());
                self.hashes.push(hash);
            }
            _ => {
                let entry = parse_entry(line)?;
                let path_at = at.saturating_add(print_entry(printed, &entry));
                printed.pop();
                self.builder.add(entry, path_at)?;
                if !self.hashes.is_empty() {
                    return Err(Problem::NotCanonical);
                }
            }
        }
        if printed == line { Ok(()) } else { Err(Problem::NotCanonical) }
    }
}

/// Adds the line of an entry to a text, and says where its path begins in it.
pub(super) fn print_entry(text: &mut String, entry: &Entry) -> usize {
    let Entry { path, mode, mtime: Mtime { secs, nanos }, .. } = entry;
    let kind = match entry.content {
        Content::Directory => 'd',
        Content::File { .. } => 'f',
        Content::Symlink { .. } => 'l',
    };
    let _ = match entry.owner {
        None => write!(text, "{kind} {mode:04o} - - {secs}.{nanos:09} "),
        Some(Owner { uid, gid }) => {
            write!(text, "{kind} {mode:04o} {uid} {gid} {secs}.{nanos:09} ")
        }
    };
    let path_at = text.len();
    *text += &escape(path.as_bytes_or_dot());
    let _ = match &entry.content {
        Content::Directory => writeln!(text),
        Content::File { bytes, .. } => writeln!(text, " {bytes}"),
        Content::Symlink { target } => writeln!(text, " {}", escape(target)),
    };
    path_at
}

/// Parses the line of an entry. Where a file stands in the image it does not say.
pub(super) fn parse_entry(line: &str) -> Result<Entry, Problem> {
    let (kind, fields) = line.split_once(' ').ok_or(Problem::Syntax)?;
    let mut fields = fields.split(' ');
    let mut next = || fields.next().ok_or(Problem::Syntax);
    let mode = u32::from_str_radix(next()?, 8).ok().filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or(Problem::Syntax)?;
    let owner = match (next()?, next()?) {
        ("-", "-") => None,
        (uid, gid) => Some(Owner {
            uid: uid.parse().map_err(|_| Problem::Syntax)?,
            gid: gid.parse().map_err(|_| Problem::Syntax)?,
        }),
    };
    let (secs, nanos) = next()?.split_once('.').ok_or(Problem::Syntax)?;
    let mtime = Mtime {
        secs: secs.parse().map_err(|_| Problem::Syntax)?,
        nanos: nanos.parse().ok().filter(|n| *n < 1_000_000_000).ok_or(Problem::Syntax)?,
    };
    let path = unescape(next()?).ok_or(Problem::Syntax)?;
    let path = TreePath::from_manifest(&path).map_err(Problem::Path)?;
    let content = match kind {
        "d" => Content::Directory,
        "f" => {
            Content::File { bytes: next()?.parse().map_err(|_| Problem::Syntax)?, image_offset: 0 }
        }
        "l" => {
            let target = unescape(next()?).ok_or(Problem::Syntax)?;
            if target.is_empty() || target.len() > Content::MAX_TARGET_BYTES || target.contains(&0)
            {
                return Err(Problem::Target(path));
            }
            Content::Symlink { target: target.into() }
        }
        _ => return Err(Problem::Syntax),
    };
    if fields.next().is_some() {
        return Err(Problem::Syntax);
    }
    Ok(Entry { path, mode, owner, mtime, content })
}
