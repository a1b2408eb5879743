//! The control files below `.xget`, and the lines that they hold: each one's printer beside its parser.
//!
//! `docs/protocol.md` describes them. What is longer than a line (the manifest, the image) is elsewhere.

pub(crate) mod status;

use std::fmt;
use std::net::SocketAddr;

use blake3::Hash;

use crate::image::chunks::{ChunkId, ChunkSet, Layout, parse_runs};
use crate::limits::MAX_REPORT_BYTES;

/// A file below `.xget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// The manifest's text.
    Manifest,
    /// The manifest's signature; it is absent where there is none.
    Signature,
    /// The bytes of the image; a read of what is still on its way waits.
    Image,
    /// A [`HaveHeader`], then the chunks held here, in the order in which they came; a read at its end waits.
    Have,
    /// Takes a [`Join`], which holds until the fid is clunked.
    Avail,
    /// Addresses of nodes to fetch from, as [`SourceAddress`] prints them.
    Redir,
    /// A master's grants, a chunk a line; takes [`Report`]s.
    Next,
    /// One line for this server, then one for each node.
    Status,
    /// The same as OpenMetrics; it is absent where nobody makes it.
    Metrics,
    /// Takes a node's messages; empty to readers, but kernel clients that cache open it for both.
    Log,
}

impl Control {
    const ALL: [(Control, &'static str, u32); 10] = [
        (Control::Manifest, "manifest", 0o444),
        (Control::Signature, "manifest.minisig", 0o444),
        (Control::Image, "image", 0o444),
        (Control::Have, "have", 0o444),
        (Control::Avail, "avail", 0o222),
        (Control::Redir, "redir", 0o444),
        (Control::Next, "next", 0o666),
        (Control::Status, "status", 0o444),
        (Control::Metrics, "metrics", 0o444),
        (Control::Log, "log", 0o666),
    ];

    /// The file of this name.
    pub(crate) fn named(name: &[u8]) -> Option<Control> {
        Control::ALL.iter().find(|(_, n, _)| n.as_bytes() == name).map(|(control, ..)| *control)
    }

    /// The file's name.
    pub fn name(self) -> &'static str {
        Control::ALL.iter().find(|(c, ..)| *c == self).map_or("", |(_, name, _)| name)
    }

    /// Its permissions.
    pub(crate) fn mode(self) -> u32 {
        Control::ALL.iter().find(|(c, ..)| *c == self).map_or(0, |(.., mode)| *mode)
    }

    /// May it be opened for reading?
    pub(crate) fn readable(self) -> bool {
        self.mode() & 0o444 != 0
    }

    /// May it be opened for writing?
    pub(crate) fn writable(self) -> bool {
        self.mode() & 0o222 != 0
    }
}

/// What a server is to those who fetch from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It has the whole image and grants chunks through `next`.
    Master,
    /// It fetches too, and its readers choose chunks for themselves.
    Node,
}

/// The first line of `have`: `GENERATION master|node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HaveHeader {
    pub(crate) generation: Hash,
    pub(crate) role: Role,
}

impl HaveHeader {
    pub(crate) fn parse(line: &str) -> Option<HaveHeader> {
        let (generation, role) = line.split_once(' ')?;
        let role = match role {
            "master" => Role::Master,
            "node" => Role::Node,
            _ => return None,
        };
        Some(HaveHeader { generation: parse_hash(generation)?, role })
    }
}

impl fmt::Display for HaveHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Master => "master",
            Role::Node => "node",
        };
        write!(f, "{} {role}", self.generation.to_hex())
    }
}

/// What `avail` takes: `PORT GENERATION`, the writer serves that generation on that port; and with a third word
/// `files`, all of its files, and it stays while a 2009 client reads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) port: u16,
    pub(crate) generation: Hash,
    pub(crate) all_files: bool,
}

impl Join {
    pub(crate) fn parse(line: &str) -> Option<Join> {
        let (port, rest) = line.trim_end().split_once(' ')?;
        let (generation, all_files) = match rest.strip_suffix(" files") {
            Some(generation) => (generation, true),
            None => (rest, false),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Join { port, generation: parse_hash(generation)?, all_files })
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.all_files { " files" } else { "" };
        writeln!(f, "{} {}{files}", self.port, self.generation.to_hex())
    }
}

/// A line of `redir`: `ADDRESS!PORT`, as Plan 9 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceAddress(pub(crate) SocketAddr);

impl SourceAddress {
    pub(crate) fn parse(line: &str) -> Option<SourceAddress> {
        let (ip, port) = line.rsplit_once('!')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(SourceAddress(SocketAddr::new(ip.parse().ok()?, port)))
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}!{}", self.0.ip(), self.0.port())
    }
}

/// A line that is written to `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// `want RUNS`: the writer lacks these chunks.
    Want(ChunkSet),
    /// `held RUNS`: the writer holds these by now.
    Held(ChunkSet),
    /// `sent BYTES SOURCES`: the writer has sent so many bytes of the image to others, and fetches from so many.
    Sent { bytes: u64, sources: u32 },
}

impl Report {
    /// Reads a line; None if it is malformed.
    pub(crate) fn parse(line: &str, layout: &Layout) -> Option<Report> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "want" => Some(Report::Want(parse_runs(rest, layout)?)),
            "held" => Some(Report::Held(parse_runs(rest, layout)?)),
            "sent" => {
                let (bytes, sources) = rest.split_once(' ')?;
                Some(Report::Sent { bytes: bytes.parse().ok()?, sources: sources.parse().ok()? })
            }
            _ => None,
        }
    }

    /// The report as lines, each short enough for one write.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Report::Want(chunks) => runs_lines("want", chunks),
            Report::Held(chunks) => runs_lines("held", chunks),
            Report::Sent { bytes, sources } => vec![format!("sent {bytes} {sources}")],
        }
    }
}

/// The one line of `log` that a master does something about: somebody has sent a chunk with a wrong hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongChunk {
    pub(crate) from: SocketAddr,
    pub(crate) chunk: u32,
}

impl WrongChunk {
    #[cfg(any(test, fuzzing, feature = "master"))]
    pub(crate) fn parse(line: &str) -> Option<WrongChunk> {
        let (from, rest) = line.split_once(" sent chunk ")?;
        let chunk = rest.strip_suffix(" with a wrong hash")?;
        Some(WrongChunk { from: from.parse().ok()?, chunk: chunk.parse().ok()? })
    }
}

impl fmt::Display for WrongChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent chunk {} with a wrong hash", self.from, self.chunk)
    }
}

/// Reads a line of `next`: a chunk that is granted.
pub(crate) fn parse_grant(line: &str, layout: &Layout) -> Option<ChunkId> {
    line.parse().ok().and_then(|n| layout.chunk(n))
}

fn runs_lines(word: &str, set: &ChunkSet) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for run in set.runs().split(' ').filter(|run| !run.is_empty()) {
        match lines.last_mut().filter(|line| line.len() + run.len() < MAX_REPORT_BYTES) {
            Some(line) => *line += &format!(" {run}"),
            None => lines.push(format!("{word} {run}")),
        }
    }
    lines
}

/// 64 hexadecimal digits, in lower case as they are printed.
fn parse_hash(text: &str) -> Option<Hash> {
    let hash = Hash::from_hex(text).ok()?;
    (hash.to_hex().as_str() == text).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::chunks::MIN_CHUNK_BYTES;

    fn layout() -> Layout {
        Layout::new(10_000 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES).unwrap()
    }

    fn every_third() -> ChunkSet {
        let mut set = ChunkSet::empty(&layout());
        for chunk in layout().iter().step_by(3) {
            set.insert(chunk);
        }
        set
    }

    #[test]
    fn every_printed_line_reads_back() {
        let generation = blake3::hash(b"a tree");
        for role in [Role::Master, Role::Node] {
            let header = HaveHeader { generation, role };
            assert_eq!(HaveHeader::parse(&header.to_string()), Some(header));
        }
        for all_files in [false, true] {
            let join = Join { port: 20004, generation, all_files };
            assert_eq!(Join::parse(&join.to_string()), Some(join));
        }
        for address in ["10.0.0.7:20004", "[fd00::7]:1"] {
            let address = SourceAddress(address.parse().unwrap());
            assert_eq!(SourceAddress::parse(&address.to_string()), Some(address));
        }
        let wrong = WrongChunk { from: "10.0.0.7:20004".parse().unwrap(), chunk: 17 };
        assert_eq!(WrongChunk::parse(&wrong.to_string()), Some(wrong));
        let sent = Report::Sent { bytes: 1 << 40, sources: 3 };
        assert_eq!(Report::parse(&sent.lines()[0], &layout()), Some(sent));
    }

    #[test]
    fn a_large_report_is_several_lines_that_read_back_to_the_same_chunks() {
        let lines = Report::Held(every_third()).lines();
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= MAX_REPORT_BYTES + 5));
        let mut back = ChunkSet::empty(&layout());
        for line in &lines {
            let Some(Report::Held(chunks)) = Report::parse(line, &layout()) else {
                panic!("{line}");
            };
            back.add_all(&chunks);
        }
        assert_eq!(back, every_third());
    }

    #[test]
    fn malformed_lines_are_refused() {
        let generation = blake3::hash(b"a tree").to_hex();
        for line in
            ["", "node", "abc node", &format!("{generation} boss"), &format!("{generation}")]
        {
            assert_eq!(HaveHeader::parse(line), None, "{line}");
        }
        for line in ["", "20004", &format!("0 {generation}"), &format!("65536 {generation}"), "7 x"]
        {
            assert_eq!(Join::parse(line), None, "{line}");
        }
        for line in ["", "10.0.0.7", "10.0.0.7!0", "10.0.0.7!65536", "host!1", "10.0.0.7:1"] {
            assert_eq!(SourceAddress::parse(line), None, "{line}");
        }
        for line in ["", "want 10000", "held 1-", "sent 5", "sent -1 2", "lost 1"] {
            assert_eq!(Report::parse(line, &layout()), None, "{line}");
        }
    }
}
