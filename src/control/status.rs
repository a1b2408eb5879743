//! Lines of the control file `status`, each of words `NAME=VALUE`: the server's own line, then one for
//! each node, each node that departed, each classic client and each message in the log.
//!
//! Readers skip words that they do not know, and do without those that are not there.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::units::seconds;

/// How the line of a message in the log begins, and its last word, which goes to the end of the line.
const LOG: &str = "log=";
const TEXT: &str = " text=";

/// A line after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusLine<'t> {
    Node(NodeLine),
    Departed(DepartedLine),
    Classic(ClassicLine),
    Log(LogLine<'t>),
}

impl<'t> StatusLine<'t> {
    pub(crate) fn parse(line: &'t str) -> Option<StatusLine<'t>> {
        let (name, _) = line.split_once('=')?;
        match name {
            "node" => NodeLine::parse(line).map(StatusLine::Node),
            "gone" => DepartedLine::parse(line).map(StatusLine::Departed),
            "classic" => ClassicLine::parse(line).map(StatusLine::Classic),
            "log" => LogLine::parse(line).map(StatusLine::Log),
            _ => None,
        }
    }
}

impl fmt::Display for StatusLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusLine::Node(line) => line.fmt(f),
            StatusLine::Departed(line) => line.fmt(f),
            StatusLine::Classic(line) => line.fmt(f),
            StatusLine::Log(line) => line.fmt(f),
        }
    }
}

/// `held=A/B`: A chunks are held of the B that are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) held: u64,
    pub(crate) wanted: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.held, self.wanted)
    }
}

impl FromStr for Progress {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Progress, Self::Err> {
        let (held, wanted) = text.split_once('/').unwrap_or((text, ""));
        Ok(Progress { held: held.parse()?, wanted: wanted.parse()? })
    }
}

/// The first line: the server's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerLine<'t> {
    pub(crate) generation: Option<&'t str>,
    pub(crate) image_bytes: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) held: Progress,
    pub(crate) serving_nodes: u64,
    /// Image bytes sent to nodes.
    pub(crate) sent_bytes: u64,
    pub(crate) sent_bytes_per_s: u64,
    /// Bytes of files sent to other clients.
    pub(crate) plain_bytes: u64,
    /// At a master: chunks that no node has.
    pub(crate) only_here: Option<u64>,
}

impl<'t> ServerLine<'t> {
    pub(crate) fn parse(line: &'t str) -> ServerLine<'t> {
        let words = Words(line);
        let number = |name| words.parsed(name).unwrap_or(0);
        ServerLine {
            generation: words.get("generation"),
            image_bytes: number("image_bytes"),
            chunk_bytes: number("chunk_bytes"),
            held: words.parsed("held").unwrap_or_default(),
            serving_nodes: number("serving_nodes"),
            sent_bytes: number("sent_bytes"),
            sent_bytes_per_s: number("sent_bytes_per_s"),
            plain_bytes: number("plain_bytes"),
            only_here: words.parsed("only_here"),
        }
    }
}

impl fmt::Display for ServerLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(generation) = self.generation {
            write!(f, "generation={generation} ")?;
        }
        write!(
            f,
            "image_bytes={} chunk_bytes={} held={} serving_nodes={} sent_bytes={} \
             sent_bytes_per_s={} plain_bytes={}",
            self.image_bytes,
            self.chunk_bytes,
            self.held,
            self.serving_nodes,
            self.sent_bytes,
            self.sent_bytes_per_s,
            self.plain_bytes,
        )?;
        word(f, "only_here", self.only_here)
    }
}

/// A node that has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeLine {
    /// Where it serves.
    pub(crate) address: SocketAddr,
    pub(crate) held: Progress,
    /// Image bytes sent to it by this server.
    pub(crate) sent_bytes: Option<u64>,
    /// Time since it came.
    pub(crate) age: Option<Duration>,
    /// Time since it last reported a chunk.
    pub(crate) quiet: Option<Duration>,
    pub(crate) in_bytes_per_s: Option<u64>,
    pub(crate) out_bytes_per_s: Option<u64>,
    pub(crate) out_bytes: Option<u64>,
    pub(crate) sources: Option<u64>,
}

impl NodeLine {
    pub(crate) fn parse(line: &str) -> Option<NodeLine> {
        let words = Words(line);
        Some(NodeLine {
            address: words.parsed("node")?,
            held: words.parsed("held").unwrap_or_default(),
            sent_bytes: words.parsed("sent_bytes"),
            age: words.duration("seconds"),
            quiet: words.duration("quiet_seconds"),
            in_bytes_per_s: words.parsed("in_bytes_per_s"),
            out_bytes_per_s: words.parsed("out_bytes_per_s"),
            out_bytes: words.parsed("out_bytes"),
            sources: words.parsed("sources"),
        })
    }
}

impl fmt::Display for NodeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node={} held={}", self.address, self.held)?;
        word(f, "sent_bytes", self.sent_bytes)?;
        word(f, "seconds", self.age.map(seconds))?;
        word(f, "quiet_seconds", self.quiet.map(seconds))?;
        word(f, "in_bytes_per_s", self.in_bytes_per_s)?;
        word(f, "out_bytes_per_s", self.out_bytes_per_s)?;
        word(f, "out_bytes", self.out_bytes)?;
        word(f, "sources", self.sources)
    }
}

/// A node that departed before it was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DepartedLine {
    /// Where it served.
    pub(crate) address: SocketAddr,
    pub(crate) held: Progress,
    /// Time since it departed.
    pub(crate) quiet: Option<Duration>,
}

impl DepartedLine {
    pub(crate) fn parse(line: &str) -> Option<DepartedLine> {
        let words = Words(line);
        Some(DepartedLine {
            address: words.parsed("gone")?,
            held: words.parsed("held").unwrap_or_default(),
            quiet: words.duration("quiet_seconds"),
        })
    }
}

impl fmt::Display for DepartedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gone={} held={}", self.address, self.held)?;
        word(f, "quiet_seconds", self.quiet.map(seconds))
    }
}

/// A classic client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassicLine {
    /// The other side's address on its connection.
    pub(crate) peer: SocketAddr,
    /// How many files it serves to others, and where.
    pub(crate) serves_files: u32,
    pub(crate) serves: Option<SocketAddr>,
    /// Time since it came.
    pub(crate) age: Option<Duration>,
}

impl ClassicLine {
    pub(crate) fn parse(line: &str) -> Option<ClassicLine> {
        let words = Words(line);
        Some(ClassicLine {
            peer: words.parsed("classic")?,
            serves_files: words.parsed("serves_files").unwrap_or(0),
            serves: words.parsed("serves"),
            age: words.duration("seconds"),
        })
    }
}

impl fmt::Display for ClassicLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "classic={} serves_files={}", self.peer, self.serves_files)?;
        word(f, "serves", self.serves)?;
        word(f, "seconds", self.age.map(seconds))
    }
}

/// A message that a node wrote into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLine<'t> {
    pub(crate) from: SocketAddr,
    /// Time since it was written.
    pub(crate) age: Option<Duration>,
    /// It may hold spaces and `=`.
    pub(crate) text: &'t str,
}

impl<'t> LogLine<'t> {
    pub(crate) fn parse(line: &'t str) -> Option<LogLine<'t>> {
        let words = Words(line);
        Some(LogLine {
            from: words.parsed("log")?,
            age: words.duration("seconds"),
            text: words.get("text").unwrap_or_default(),
        })
    }
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log={}", self.from)?;
        word(f, "seconds", self.age.map(seconds))?;
        write!(f, "{TEXT}{}", self.text)
    }
}

/// Any line, as its words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'t>(pub(crate) &'t str);

impl<'t> Words<'t> {
    /// Whether it is the line of a message in the log.
    pub(crate) fn is_log(self) -> bool {
        self.0.starts_with(LOG)
    }

    /// The words in order. Those without `=` are left out.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'t str, &'t str)> {
        let (line, text) = match self.0.split_once(TEXT).filter(|_| self.is_log()) {
            Some((line, text)) => (line, Some(("text", text))),
            None => (self.0, None),
        };
        line.split(' ').filter_map(|word| word.split_once('=')).chain(text)
    }

    fn get(self, name: &str) -> Option<&'t str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn parsed<T: FromStr>(self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    fn duration(self, name: &str) -> Option<Duration> {
        let seconds = self.get(name).filter(|value| is_number(value))?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// A number as status lines hold it, without sign or exponent. It is also a JSON number.
pub(crate) fn is_number(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(part) && (whole == "0" || !whole.starts_with('0'))
}

fn word(f: &mut fmt::Formatter<'_>, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {name}={value}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 20_004);
    const HALF: Progress = Progress { held: 8, wanted: 16 };

    fn seconds(n: u64) -> Option<Duration> {
        Some(Duration::from_millis(n * 1000 + 500))
    }

    #[test]
    fn the_servers_line_reads_back() {
        let line = ServerLine {
            generation: Some("00ff"),
            image_bytes: 1,
            chunk_bytes: 2,
            held: HALF,
            serving_nodes: 3,
            sent_bytes: 4,
            sent_bytes_per_s: 5,
            plain_bytes: 6,
            only_here: Some(7),
        };
        let text = "generation=00ff image_bytes=1 chunk_bytes=2 held=8/16 serving_nodes=3 \
                    sent_bytes=4 sent_bytes_per_s=5 plain_bytes=6 only_here=7";
        assert_eq!(line.to_string(), text);
        assert_eq!(ServerLine::parse(text), line);
        let of_node = ServerLine { only_here: None, ..line };
        assert_eq!(ServerLine::parse(&of_node.to_string()), of_node);
    }

    #[test]
    fn every_other_line_reads_back() {
        let node = NodeLine {
            address: ADDRESS,
            held: HALF,
            sent_bytes: Some(1),
            age: seconds(2),
            quiet: seconds(3),
            in_bytes_per_s: Some(4),
            out_bytes_per_s: Some(5),
            out_bytes: Some(6),
            sources: Some(7),
        };
        let departed = DepartedLine { address: ADDRESS, held: HALF, quiet: seconds(8) };
        let classic =
            ClassicLine { peer: ADDRESS, serves_files: 1, serves: Some(ADDRESS), age: seconds(9) };
        let log = LogLine { from: ADDRESS, age: seconds(10), text: "disk full, node=1 text=2" };
        for (line, text) in [
            (
                StatusLine::Node(node),
                "node=10.0.0.1:20004 held=8/16 sent_bytes=1 seconds=2.5 quiet_seconds=3.5 \
                 in_bytes_per_s=4 out_bytes_per_s=5 out_bytes=6 sources=7",
            ),
            (StatusLine::Departed(departed), "gone=10.0.0.1:20004 held=8/16 quiet_seconds=8.5"),
            (
                StatusLine::Classic(classic),
                "classic=10.0.0.1:20004 serves_files=1 serves=10.0.0.1:20004 seconds=9.5",
            ),
            (StatusLine::Log(log), "log=10.0.0.1:20004 seconds=10.5 text=disk full, node=1 text=2"),
        ] {
            assert_eq!(line.to_string(), text);
            assert_eq!(StatusLine::parse(text), Some(line));
        }
    }

    #[test]
    fn missing_and_unknown_words_do_no_harm() {
        assert_eq!(ServerLine::parse("later=1 held=x/2"), ServerLine::default());
        let node = NodeLine::parse("node=10.0.0.1:20004 later=1 seconds=-1 sources=x").unwrap();
        assert_eq!((node.held, node.age, node.sources), (Progress::default(), None, None));
        for line in ["", "node", "node=", "gone=here", "classic=1", "log=", "later=10.0.0.1:1"] {
            assert_eq!(StatusLine::parse(line), None, "{line}");
        }
    }
}
