//! The manifest: what a master serves, entry by entry, and the hash of every chunk of it.
//!
//! This is its only parser and its only printer; `docs/protocol.md` describes the text. The same
//! tree gives the same text on every machine, and the BLAKE3 hash of that text is the
//! **generation**, the name of one state of the served tree.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use blake3::Hash;

use crate::image::chunks::{ChunkId, Layout};
use crate::image::path::{BadPath, TreePath, escape, unescape};

/// First line of the text; its number is the version of format and protocol.
const HEADING: &str = "xget manifest 1";
/// Longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
pub const MAX_TARGET_BYTES: usize = 4095;

/// One directory, file or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is below the served root.
    pub path: TreePath,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Numeric owner; None leaves it to whoever fetches.
    pub owner: Option<Owner>,
    /// Time of the last change.
    pub mtime: Mtime,
    /// What it is.
    pub content: Content,
}

/// Numeric owner and group: early boot has no passwd file to look names up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtime {
    /// Seconds; before 1970 negative.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file; its bytes are a part of the image.
    File {
        /// Size in bytes.
        bytes: u64,
        /// Where the file begins in the image. [`Listing::new`] sets it.
        image_offset: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, kept as it is and never followed.
        target: Box<[u8]>,
    },
}

impl Entry {
    /// The part of the image that a file is; empty for what is no file.
    pub fn image_range(&self) -> Range<u64> {
        match self.content {
            Content::File { bytes, image_offset } => {
                image_offset..image_offset.saturating_add(bytes)
            }
            _ => 0..0,
        }
    }
}

/// A stretch of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the file's entry.
    pub entry: usize,
    /// Where the stretch begins in that file, in bytes.
    pub offset: u64,
    /// Its length in bytes, never 0.
    pub len: u64,
}

/// The entries in order, and the image that their files make when laid end to end.
///
/// Entries are sorted by path elements, so that a directory comes before what is in it and the
/// order does not depend on any file system. The first entry is the root.
#[derive(Clone, Debug)]
pub struct Listing {
    entries: Vec<Entry>,
    /// For each entry the index after the last entry below it.
    ends: Vec<usize>,
    /// The files that are not empty, in image order.
    files: Vec<usize>,
    layout: Layout,
}

impl Listing {
    /// Sorts entries, lays the files end to end and cuts the image.
    pub fn new(entries: Vec<Entry>) -> Result<Listing, Problem> {
        Listing::cut(entries, None)
    }

    fn cut(mut entries: Vec<Entry>, chunk_bytes: Option<u64>) -> Result<Listing, Problem> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut image_bytes = 0u64;
        let mut files = Vec::new();
        for (i, entry) in entries.iter_mut().enumerate() {
            if let Content::File { bytes, image_offset } = &mut entry.content {
                *image_offset = image_bytes;
                image_bytes = image_bytes.checked_add(*bytes).ok_or(Problem::TooLarge)?;
                if *bytes > 0 {
                    files.push(i);
                }
            }
        }
        let chunk_bytes = chunk_bytes.unwrap_or(Layout::for_image(image_bytes).chunk_bytes());
        let layout = Layout::new(image_bytes, chunk_bytes).ok_or(Problem::TooLarge)?;
        let ends = subtree_ends(&entries)?;
        Ok(Listing { entries, ends, files, layout })
    }

    /// All entries; the root is the first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at an index that came from this listing.
    pub fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// How the image is cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The index of the entry at `path`.
    pub fn find(&self, path: &TreePath) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    }

    /// The index after the last entry below `index`; `index + 1` for what is no directory.
    pub fn subtree_end(&self, index: usize) -> usize {
        self.ends.get(index).copied().unwrap_or(self.entries.len())
    }

    /// The entries directly in directory `dir`, in order, beginning at index `from` if that is
    /// larger: a place to go on from.
    pub fn children(&self, dir: usize, from: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.subtree_end(dir);
        let inside = move |i: usize| (i < end).then_some(i);
        std::iter::successors(inside(from.max(dir + 1)), move |&i| inside(self.subtree_end(i)))
    }

    /// The stretches of files that make up a part of the image, in order.
    pub fn segments(&self, range: Range<u64>) -> impl Iterator<Item = Segment> + '_ {
        let first = self.files.partition_point(|&i| {
            self.entry(i).is_some_and(|entry| entry.image_range().end <= range.start)
        });
        self.files.iter().skip(first).map_while(move |&entry| {
            let file = self.entry(entry)?.image_range();
            let start = range.start.max(file.start);
            let end = range.end.min(file.end);
            (start < end).then(|| Segment { entry, offset: start - file.start, len: end - start })
        })
    }
}

fn subtree_ends(entries: &[Entry]) -> Result<Vec<usize>, Problem> {
    let root = entries.first().filter(|entry| entry.path.is_root());
    if !root.is_some_and(|root| root.content == Content::Directory) {
        return Err(Problem::NoRoot);
    }
    let twice = |pair: &&[Entry]| matches!(pair, [a, b] if a.path == b.path);
    if let Some([_, entry]) = entries.windows(2).find(twice) {
        return Err(Problem::Twice(entry.path.clone()));
    }
    let mut ends = vec![entries.len(); entries.len()];
    let mut open: Vec<usize> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let above = |dir: usize| {
            entries.get(dir).is_some_and(|dir| entry.path.parent().as_ref() == Some(&dir.path))
        };
        while let Some(&last) = open.last().filter(|&&dir| !above(dir)) {
            if let Some(end) = ends.get_mut(last) {
                *end = i;
            }
            open.pop();
        }
        let parent = open.last().and_then(|&dir| entries.get(dir));
        if i > 0 && !parent.is_some_and(|parent| parent.content == Content::Directory) {
            return Err(Problem::NoParent(entry.path.clone()));
        }
        open.push(i);
    }
    Ok(ends)
}

/// A listing with the hash of each chunk, in the text that others verify against.
#[derive(Clone, Debug)]
pub struct Manifest {
    listing: Listing,
    hashes: Vec<Hash>,
    text: Arc<[u8]>,
    generation: Hash,
}

impl Manifest {
    /// Joins a listing and the hashes of its chunks, one for each and in order.
    pub fn new(listing: Listing, hashes: Vec<Hash>) -> Result<Manifest, Problem> {
        if hashes.len() != listing.layout.count() as usize {
            return Err(Problem::HashCount);
        }
        let text: Arc<[u8]> = print(&listing, &hashes).into_bytes().into();
        let generation = blake3::hash(&text);
        Ok(Manifest { listing, hashes, text, generation })
    }

    /// Reads a manifest's text.
    ///
    /// Only the text that [`Manifest::new`] would print is accepted: one state of a tree has one
    /// text and so one generation.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let mut line_number = 0;
        let mut lines = text.split(|&b| b == b'\n').map(|line| {
            line_number += 1;
            (line_number, line)
        });
        let mut entries = Vec::new();
        let mut hashes = Vec::new();
        let mut chunk_bytes = None;
        for (number, line) in lines.by_ref() {
            let at = |problem| ManifestError { line: number, problem };
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
                (_, Some((kind, rest))) => entries.push(parse_entry(kind, rest).map_err(at)?),
                (_, None) if line.is_empty() => break,
                (_, None) => return Err(at(Problem::Syntax)),
            }
        }
        let whole = |problem| ManifestError { line: 0, problem };
        let listing = Listing::cut(entries, chunk_bytes).map_err(whole)?;
        let manifest = Manifest::new(listing, hashes).map_err(whole)?;
        if *manifest.text != *text {
            return Err(whole(Problem::NotCanonical));
        }
        Ok(manifest)
    }

    /// The entries and the cut.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// How the image is cut.
    pub fn layout(&self) -> &Layout {
        &self.listing.layout
    }

    /// The text, byte for byte what is hashed and signed.
    pub fn text(&self) -> &Arc<[u8]> {
        &self.text
    }

    /// The name of this state of the tree: the BLAKE3 hash of the text.
    pub fn generation(&self) -> Hash {
        self.generation
    }

    /// What a chunk must hash to.
    pub fn hash(&self, chunk: ChunkId) -> Option<&Hash> {
        self.hashes.get(chunk.index())
    }
}

fn print(listing: &Listing, hashes: &[Hash]) -> String {
    let mut text = format!("{HEADING}\nchunk {}\n", listing.layout.chunk_bytes());
    for entry in &listing.entries {
        let Entry { path, mode, mtime, content, .. } = entry;
        let owner = entry.owner.map_or("- -".into(), |Owner { uid, gid }| format!("{uid} {gid}"));
        let path = escape(path.as_bytes_or_dot());
        let rest = match content {
            Content::Directory => path,
            Content::File { bytes, .. } => format!("{path} {bytes}"),
            Content::Symlink { target } => format!("{path} {}", escape(target)),
        };
        let kind = match content {
            Content::Directory => 'd',
            Content::File { .. } => 'f',
            Content::Symlink { .. } => 'l',
        };
        let Mtime { secs, nanos } = mtime;
        let _ = writeln!(text, "{kind} {mode:04o} {owner} {secs}.{nanos:09} {rest}");
    }
    for hash in hashes {
        let _ = writeln!(text, "hash {}", hash.to_hex());
    }
    text
}

fn parse_entry(kind: &str, rest: &str) -> Result<Entry, Problem> {
    let mut fields = rest.split(' ');
    let mut next = || fields.next().ok_or(Problem::Syntax);
    let mode = u32::from_str_radix(next()?, 8).ok().filter(|mode| *mode <= 0o7777);
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
            if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                return Err(Problem::Target(path));
            }
            Content::Symlink { target: target.into() }
        }
        _ => return Err(Problem::Syntax),
    };
    if fields.next().is_some() {
        return Err(Problem::Syntax);
    }
    Ok(Entry { path, mode: mode.ok_or(Problem::Syntax)?, owner, mtime, content })
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The line, counted from 1; 0 if it is the whole that does not fit together.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a manifest or a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not a manifest, or one of another version.
    Heading,
    /// A line that does not have the form it should have.
    Syntax,
    /// A path that no entry may have.
    Path(BadPath),
    /// A symbolic link with an impossible target.
    Target(TreePath),
    /// The first entry is not the root directory.
    NoRoot,
    /// The entry is not in a directory that is listed.
    NoParent(TreePath),
    /// Two entries have this path.
    Twice(TreePath),
    /// The image or its number of chunks is beyond what is supported.
    TooLarge,
    /// As many hashes as chunks are needed.
    HashCount,
    /// It says what it says in another form than the one that is hashed.
    NotCanonical,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "bad manifest: {}", self.problem),
            line => write!(f, "bad manifest, line {line}: {}", self.problem),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Heading => write!(f, "it does not begin with \"{HEADING}\""),
            Problem::Syntax => write!(f, "malformed"),
            Problem::Path(bad) => write!(f, "{bad}"),
            Problem::Target(path) => write!(f, "{path} has an invalid link target"),
            Problem::NoRoot => write!(f, "the first entry is not the root directory"),
            Problem::NoParent(path) => write!(f, "the directory of {path} is not listed"),
            Problem::Twice(path) => write!(f, "{path} is listed twice"),
            Problem::TooLarge => write!(f, "the image is larger than 4 TiB"),
            Problem::HashCount => {
                write!(f, "the number of hashes differs from the number of chunks")
            }
            Problem::NotCanonical => write!(f, "not in canonical form"),
        }
    }
}

impl std::error::Error for ManifestError {}
impl std::error::Error for Problem {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(path: &str, content: Content) -> Entry {
        Entry {
            path: TreePath::from_manifest(path.as_bytes()).unwrap(),
            mode: 0o755,
            owner: Some(Owner { uid: 0, gid: 0 }),
            mtime: Mtime { secs: 1_700_000_000, nanos: 5 },
            content,
        }
    }

    fn file(bytes: u64) -> Content {
        Content::File { bytes, image_offset: 0 }
    }

    pub(crate) fn sample() -> Manifest {
        let entries = vec![
            entry("boot/vmlinuz", file(70_000)),
            entry(".", Content::Directory),
            entry("boot.cfg", file(10)),
            entry("boot", Content::Directory),
            entry("boot/empty", file(0)),
            entry("boot/link", Content::Symlink { target: b"../a b\n".as_slice().into() }),
        ];
        let listing = Listing::new(entries).unwrap();
        let hashes =
            listing.layout().iter().map(|c| blake3::hash(&c.get().to_le_bytes())).collect();
        Manifest::new(listing, hashes).unwrap()
    }

    fn paths(listing: &Listing, of: impl Iterator<Item = usize>) -> Vec<String> {
        of.map(|i| listing.entries()[i].path.to_string()).collect()
    }

    #[test]
    fn what_is_printed_parses_to_the_same_manifest() {
        let manifest = sample();
        let back = Manifest::parse(manifest.text()).unwrap();
        assert_eq!(back.listing().entries(), manifest.listing().entries());
        assert_eq!(back.generation(), manifest.generation());
    }

    #[test]
    fn entries_are_ordered_by_path_elements_whatever_order_they_came_in() {
        let manifest = sample();
        let listing = manifest.listing();
        let all = paths(listing, 0..listing.entries().len());
        assert_eq!(all, [".", "boot", "boot/empty", "boot/link", "boot/vmlinuz", "boot.cfg"]);
    }

    #[test]
    fn children_are_those_directly_inside_and_can_be_resumed() {
        let manifest = sample();
        let listing = manifest.listing();
        assert_eq!(paths(listing, listing.children(0, 0)), ["boot", "boot.cfg"]);
        assert_eq!(paths(listing, listing.children(1, 3)), ["boot/link", "boot/vmlinuz"]);
        assert_eq!(paths(listing, listing.children(0, 6)), [] as [&str; 0]);
    }

    #[test]
    fn segments_skip_empty_files_and_split_at_borders() {
        let manifest = sample();
        let segments: Vec<_> = manifest.listing().segments(69_990..70_005).collect();
        assert_eq!(
            segments,
            [
                Segment { entry: 4, offset: 69_990, len: 10 },
                Segment { entry: 5, offset: 0, len: 5 }
            ]
        );
    }

    #[test]
    fn names_with_newlines_and_spaces_stay_on_one_line() {
        let text = String::from_utf8(sample().text().to_vec()).unwrap();
        assert!(text.contains(r"boot/link ../a\x20b\x0a"), "{text}");
    }

    #[test]
    fn damaged_manifests_are_refused_with_the_line() {
        let good = String::from_utf8(sample().text().to_vec()).unwrap();
        for (from, to, why) in [
            ("manifest 1", "manifest 2", "line 1: it does not begin"),
            ("f 0755", "q 0755", "line 5: malformed"),
            ("boot/empty", "boot/../../etc", "line 5: invalid path \"boot/../../etc\""),
            ("boot/empty", "nowhere/empty", "the directory of nowhere/empty is not listed"),
            (" 70000", " 70000000000000000000", "malformed"),
            (" 70000", " 18446744073709551615", "larger than 4 TiB"),
            ("0755", "755", "not in canonical form"),
            ("boot.cfg 10", "boot.cfg 10\nf 0755 0 0 1700000000.000000005 boot.cfg 10", "twice"),
            ("chunk 65536", "chunk 65535", "larger than 4 TiB"),
            ("hash ", "hash f", "malformed"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = Manifest::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(why), "{to}: {error}");
        }
        assert!(Manifest::parse(&good.as_bytes()[..good.len() - 1]).is_err());
    }

    #[test]
    fn a_link_cannot_have_children() {
        let link = entry("a", Content::Symlink { target: b"/etc".as_slice().into() });
        let entries = vec![entry(".", Content::Directory), link, entry("a/passwd", file(1))];
        assert!(matches!(Listing::new(entries), Err(Problem::NoParent(_))));
    }
}
