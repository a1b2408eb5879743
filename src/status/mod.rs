//! What a server says of its state: its file `status`, for people and for programs.
//!
//! Each line is words `NAME=VALUE`; the first is the server's own, the others are its nodes' and those of
//! its log. Readers skip words that they do not know, and do without those that are not there.

#[cfg(feature = "master")]
pub(crate) mod history;
#[cfg(feature = "master")]
pub(crate) mod metrics;
pub mod show;
mod table;

use std::fmt::Write as _;

use crate::control::status::{
    LogLine, NodeLine, Progress, ServerLine, StatusLine, Words, is_number,
};
use crate::network;
use crate::printable::is_printable;
use crate::serve::hub::totals::STALLED_AFTER;

/// A status, by kinds of lines.
struct Status<'t> {
    server: ServerLine<'t>,
    /// Nodes that have joined.
    nodes: Vec<Node>,
    /// Nodes that departed before they were whole.
    departed: Vec<Node>,
    /// What nodes wrote into the server's log, the oldest first.
    log: Vec<LogLine<'t>>,
}

/// A node that has joined, or one that departed and of which little is known.
#[derive(Clone, Copy)]
struct Node {
    line: NodeLine,
    is_departed: bool,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It departed before it was whole.
    Departed,
    /// It lacks something, and nothing has come for a while.
    Stalled,
    /// It lacks something.
    Fetching,
    /// It has all that it wants.
    Whole,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Departed => "gone",
            State::Stalled => "stalled",
            State::Fetching => "fetching",
            State::Whole => "whole",
        }
    }
}

impl<'t> Status<'t> {
    fn parse(text: &'t str) -> Status<'t> {
        let mut lines = text.lines();
        let server = ServerLine::parse(lines.next().unwrap_or_default());
        let (mut nodes, mut departed, mut log) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines.filter_map(StatusLine::parse) {
            match (line, Node::of(line)) {
                (StatusLine::Log(line), _) => log.push(line),
                (_, Some(node)) if node.is_departed => departed.push(node),
                (_, Some(node)) => nodes.push(node),
                (_, None) => {}
            }
        }
        Status { server, nodes, departed, log }
    }

    /// What a node last wrote into the log.
    fn last_trouble(&self, node: Node) -> Option<LogLine<'t>> {
        self.log.iter().rev().find(|line| line.from == node.line.address).copied()
    }
}

impl Node {
    fn of(line: StatusLine<'_>) -> Option<Node> {
        match line {
            StatusLine::Node(line) => Some(Node { line, is_departed: false }),
            StatusLine::Departed(line) => {
                let line = NodeLine {
                    address: line.address,
                    held: line.held,
                    quiet: line.quiet,
                    sent_bytes: None,
                    age: None,
                    in_bytes_per_s: None,
                    out_bytes_per_s: None,
                    out_bytes: None,
                    sources: None,
                };
                Some(Node { line, is_departed: true })
            }
            StatusLine::Classic(_) | StatusLine::Log(_) => None,
        }
    }

    fn state(self) -> State {
        let Progress { held, wanted } = self.line.held;
        if self.is_departed {
            State::Departed
        } else if wanted > 0 && held >= wanted {
            State::Whole
        } else if self.line.quiet.is_some_and(|quiet| quiet >= STALLED_AFTER) {
            State::Stalled
        } else {
            State::Fetching
        }
    }

    /// Seconds until it is whole, if what it lacks comes as fast as at present.
    fn seconds_left(self, chunk_bytes: u64) -> Option<u64> {
        let Progress { held, wanted } = self.line.held;
        let lacks = wanted.checked_sub(held).filter(|chunks| *chunks > 0)?;
        lacks.saturating_mul(chunk_bytes).checked_div(self.line.in_bytes_per_s?)
    }

    /// The network of which nodes count as near to each other: a /24, or a /64 of IPv6.
    fn subnet(self) -> String {
        network::subnet(self.line.address.ip()).to_string()
    }
}

/// The text of `.xget/status` as JSON: an object with the server's own line, its nodes in a list, and
/// in another the last lines that nodes wrote into its log.
///
/// Each line is words `NAME=VALUE`. Numbers stay numbers, `A/B` becomes a list of two numbers, and
/// everything else is a string. Words without `=` are left out, so that a later server may add some. A node
/// has what follows from its words as well: `subnet`, `state`, and while it fetches `seconds_left`.
pub(crate) fn to_json(text: &str) -> String {
    let mut lines = text.lines().map(Words);
    let server = lines.next().unwrap_or(Words(""));
    let (log, nodes): (Vec<_>, Vec<_>) = lines.partition(|line| line.is_log());
    let chunk_bytes = ServerLine::parse(server.0).chunk_bytes;
    let nodes =
        nodes.into_iter().map(|words| [members(words), derived(words, chunk_bytes)].concat());
    let nodes: Vec<_> = nodes.map(object).collect();
    let log: Vec<_> = log.into_iter().map(|words| object(members(words))).collect();
    let server = object(members(server));
    format!("{{\"server\":{server},\"nodes\":[{}],\"log\":[{}]}}\n", nodes.join(","), log.join(","))
}

fn object(members: Vec<String>) -> String {
    format!("{{{}}}", members.join(","))
}

fn members(words: Words<'_>) -> Vec<String> {
    words.iter().map(|(name, value)| member(name, value)).collect()
}

/// What follows from the words of a node; nothing for other lines.
fn derived(words: Words<'_>, chunk_bytes: u64) -> Vec<String> {
    let Some(node) = StatusLine::parse(words.0).and_then(Node::of) else { return Vec::new() };
    let left = node.seconds_left(chunk_bytes).map(|secs| member("seconds_left", &secs.to_string()));
    let derived = [member("subnet", &node.subnet()), member("state", node.state().name())];
    derived.into_iter().chain(left).collect()
}

fn member(name: &str, value: &str) -> String {
    format!("{}:{}", string(name), self::value(value))
}

fn value(text: &str) -> String {
    match text.split_once('/') {
        Some((a, b)) if is_number(a) && is_number(b) => format!("[{a},{b}]"),
        _ if is_number(text) => text.to_owned(),
        _ => string(text),
    }
}

/// A string of JSON (RFC 8259, section 7).
pub(crate) fn string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                json.push('\\');
                json.push(c);
            }
            c if is_printable(c) => json.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_an_object_and_numbers_stay_numbers() {
        let text = "generation=00ff held=3/8 sent_bytes=12\nclassic=10.0.0.1:20004 seconds=1.5\n";
        let json = to_json(text);
        assert_eq!(
            json,
            "{\"server\":{\"generation\":\"00ff\",\"held\":[3,8],\"sent_bytes\":12},\
             \"nodes\":[{\"classic\":\"10.0.0.1:20004\",\"seconds\":1.5}],\"log\":[]}\n"
        );
    }

    #[test]
    fn a_node_has_its_subnet_its_state_and_how_long_it_takes() {
        let server = "chunk_bytes=1000 held=8/8\n";
        let node = |words| to_json(&format!("{server}node={words}\n"));
        let has =
            |json: String, end: &str| assert!(json.contains(&format!(",{end}}}],")), "{json}");
        has(
            node("10.1.2.3:20004 held=3/8 in_bytes_per_s=500 quiet_seconds=0.1"),
            "\"subnet\":\"10.1.2.0/24\",\"state\":\"fetching\",\"seconds_left\":10",
        );
        has(
            node("[fd00:0:0:7::9]:1 held=3/8 in_bytes_per_s=0 quiet_seconds=60.0"),
            "\"subnet\":\"fd00:0:0:7::/64\",\"state\":\"stalled\"",
        );
        has(
            to_json("chunk_bytes=1000\ngone=10.1.2.3:20004 held=3/8 quiet_seconds=9.0\n"),
            "\"subnet\":\"10.1.2.0/24\",\"state\":\"gone\"",
        );
        has(
            node("10.1.2.3:20004 held=8/8 in_bytes_per_s=500"),
            "\"subnet\":\"10.1.2.0/24\",\"state\":\"whole\"",
        );
    }

    #[test]
    fn a_log_message_is_one_string_whatever_it_holds() {
        assert_eq!(
            to_json("held=3/8\nlog=10.0.0.1:20004 seconds=1.5 text=a=1 text=2 \"\n"),
            "{\"server\":{\"held\":[3,8]},\"nodes\":[],\
             \"log\":[{\"log\":\"10.0.0.1:20004\",\"seconds\":1.5,\"text\":\"a=1 text=2 \\\"\"}]}\n"
        );
    }

    #[test]
    fn json_has_nothing_that_a_terminal_does_not_show() {
        assert_eq!(string("a\u{202e}b\u{e0001}ü"), "\"a\\u202eb\\udb40\\udc01ü\"");
    }

    #[test]
    fn a_servers_words_cannot_break_out_of_a_string() {
        assert_eq!(
            to_json("a=\"},\\\u{1}\n"),
            "{\"server\":{\"a\":\"\\\"},\\\\\\u0001\"},\"nodes\":[],\"log\":[]}\n"
        );
    }
}
