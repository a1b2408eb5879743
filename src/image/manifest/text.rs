//! The text of a manifest: its only parser and its only printer. `docs/protocol.md` describes it.

use std::fmt::Write as _;

use blake3::Hash;

use super::entry::{Content, Entry, Mtime, Owner};
use super::error::{HEADING, ManifestError, Problem};
use super::listing::Listing;
use crate::image::path::{TreePath, escape, unescape};

/// Parses a text into a listing and the hashes of its chunks. Whether it is the only text that says this is
/// not checked.
pub(super) fn parse(text: &[u8]) -> Result<(Listing, Vec<Hash>), ManifestError> {
    let mut entries = Vec::new();
    let mut hashes = Vec::new();
    let mut chunk_bytes = None;
    for (line, number) in text.split(|&b| b == b'\n').zip(1..) {
        let at = |problem| ManifestError { line: Some(number), problem };
        let line = std::str::from_utf8(line).map_err(|_| at(Problem::Syntax))?;
        match (number, line.split_once(' ')) {
            (1, _) if line == HEADING => {}
            (1, _) => return Err(at(Problem::Heading)),
            (_, Some(("chunk", bytes))) => {
                chunk_bytes = Some(bytes.parse().map_err(|_| at(Problem::Syntax))?);
            }
            (_, Some(("hash", hex))) => {
                hashes.push(Hash::from_hex(hex).map_err(|_| at(Problem::Syntax))?);
            }
            (_, Some((kind, fields))) => entries.push(parse_entry(kind, fields).map_err(at)?),
            (_, None) if line.is_empty() => break,
            (_, None) => return Err(at(Problem::Syntax)),
        }
    }
    let listing = Listing::with_chunk_bytes(entries, chunk_bytes)
        .map_err(|problem| ManifestError { line: None, problem })?;
    Ok((listing, hashes))
}

pub(super) fn print(listing: &Listing, hashes: &[Hash]) -> String {
    let mut text = format!("{HEADING}\nchunk {}\n", listing.layout().chunk_bytes());
    for entry in listing.entries() {
        let Entry { path, mode, mtime: Mtime { secs, nanos }, .. } = entry;
        let path = escape(path.as_bytes_or_dot());
        let owner = entry.owner.map_or("- -".into(), |Owner { uid, gid }| format!("{uid} {gid}"));
        let (kind, rest) = match &entry.content {
            Content::Directory => ('d', path),
            Content::File { bytes, .. } => ('f', format!("{path} {bytes}")),
            Content::Symlink { target } => ('l', format!("{path} {}", escape(target))),
        };
        let _ = writeln!(text, "{kind} {mode:04o} {owner} {secs}.{nanos:09} {rest}");
    }
    for hash in hashes {
        let _ = writeln!(text, "hash {}", hash.to_hex());
    }
    text
}

fn parse_entry(kind: &str, fields: &str) -> Result<Entry, Problem> {
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
