//! What a server says of its state: its file `status`, for people and for programs.
//!
//! Each line is words `NAME=VALUE`; the first is the server's own, the others are its nodes' and those of
//! its log. Readers skip words that they do not know, and do without those that are not there.

#[cfg(feature = "master")]
pub mod history;
#[cfg(feature = "master")]
pub mod metrics;
pub mod show;
pub mod table;

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::network;
use crate::serve::hub::totals::STALLED_AFTER;

/// How the line begins that tells of a line in the server's log, and its last word.
const LOG: &str = "log=";
const TEXT: &str = " text=";

/// One line of a status.
#[derive(Clone, Copy, Debug)]
struct Words<'t>(&'t str);

/// A status, by kinds of lines.
struct Status<'t> {
    server: Words<'t>,
    /// Those that have joined.
    nodes: Vec<Words<'t>>,
    /// Those that went away before they were whole.
    gone: Vec<Words<'t>>,
    /// What nodes wrote into the server's log, the oldest first.
    log: Vec<Words<'t>>,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It went away before it had all that it wants.
    Gone,
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
            State::Gone => "gone",
            State::Stalled => "stalled",
            State::Fetching => "fetching",
            State::Whole => "whole",
        }
    }
}

impl<'t> Status<'t> {
    fn of(text: &'t str) -> Status<'t> {
        let mut lines = text.lines().map(Words);
        let server = lines.next().unwrap_or(Words(""));
        let (log, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.0.starts_with(LOG));
        let with = |name| others.iter().filter(move |line| line.get(name).is_some()).copied();
        Status { server, nodes: with("node").collect(), gone: with("gone").collect(), log }
    }

    /// What a node last wrote into the log.
    fn last_trouble(&self, node: Words<'_>) -> Option<Words<'t>> {
        let by_it = |line: &&Words<'t>| line.get("log") == node.address();
        self.log.iter().rev().find(by_it).copied()
    }
}

impl<'t> Words<'t> {
    fn iter(self) -> impl Iterator<Item = (&'t str, &'t str)> {
        // What a node wrote may hold anything, and goes to the end of its line.
        let (line, text) = match self.0.split_once(TEXT).filter(|_| self.0.starts_with(LOG)) {
            Some((line, text)) => (line, Some(("text", text))),
            None => (self.0, None),
        };
        line.split(' ').filter_map(|word| word.split_once('=')).chain(text)
    }

    fn get(self, name: &str) -> Option<&'t str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn number(self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn seconds(self, name: &str) -> Option<f64> {
        self.get(name).filter(|value| is_number(value))?.parse().ok()
    }

    /// `held=A/B`: how many chunks it has of those it wants.
    fn held(self) -> (u64, u64) {
        let pair = self.get("held").and_then(|value| value.split_once('/'));
        let number = |text: &str| text.parse().unwrap_or(0);
        pair.map_or((0, 0), |(held, wanted)| (number(held), number(wanted)))
    }

    /// Where a node serves, or did.
    fn address(self) -> Option<&'t str> {
        self.get("node").or_else(|| self.get("gone"))
    }

    /// How far a node is.
    fn state(self) -> State {
        if self.get("gone").is_some() {
            return State::Gone;
        }
        let (held, wanted) = self.held();
        let quiet = self.seconds("quiet_seconds").unwrap_or(0.0);
        match wanted > 0 && held >= wanted {
            true => State::Whole,
            false if quiet >= STALLED_AFTER.as_secs_f64() => State::Stalled,
            false => State::Fetching,
        }
    }

    /// How long it takes until it is whole, in seconds, if what it lacks comes as fast as at present.
    fn seconds_left(self, chunk_bytes: u64) -> Option<u64> {
        let (held, wanted) = self.held();
        let lacks = wanted.checked_sub(held).filter(|chunks| *chunks > 0)?;
        lacks.saturating_mul(chunk_bytes).checked_div(self.number("in_bytes_per_s")?)
    }

    /// The network of which nodes count as near to each other: a /24, or a /64 of IPv6.
    fn subnet(self) -> Option<String> {
        let address: SocketAddr = self.address()?.parse().ok()?;
        Some(network::subnet(address.ip()).to_string())
    }
}

/// The text of `.xget/status` as JSON: an object with the server's own line, its nodes in a list, and
/// in another the last lines that nodes wrote into its log.
///
/// Each line is words `NAME=VALUE`. Numbers stay numbers, `A/B` becomes a list of two numbers, and
/// everything else is a string. Words without `=` are left out, so that a later server may add some. A node
/// has what follows from its words as well: `subnet`, `state`, and while it fetches `seconds_left`.
pub fn to_json(text: &str) -> String {
    let mut lines = text.lines().map(Words);
    let server = lines.next().unwrap_or(Words(""));
    let (log, nodes): (Vec<_>, Vec<_>) = lines.partition(|line| line.0.starts_with(LOG));
    let chunk_bytes = server.number("chunk_bytes").unwrap_or(0);
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

/// What follows from the words of a node; nothing where there is none.
fn derived(words: Words<'_>, chunk_bytes: u64) -> Vec<String> {
    let Some(subnet) = words.subnet() else { return Vec::new() };
    let left =
        words.seconds_left(chunk_bytes).map(|secs| member("seconds_left", &secs.to_string()));
    let derived = [member("subnet", &subnet), member("state", words.state().name())];
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

/// A JSON number without sign or exponent: the only ones that a status holds.
fn is_number(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(part) && (whole == "0" || !whole.starts_with('0'))
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
            c if c.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
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
    fn what_a_node_wrote_is_one_string_whatever_it_holds() {
        assert_eq!(
            to_json("held=3/8\nlog=10.0.0.1:20004 seconds=1.5 text=a=1 text=2 \"\n"),
            "{\"server\":{\"held\":[3,8]},\"nodes\":[],\
             \"log\":[{\"log\":\"10.0.0.1:20004\",\"seconds\":1.5,\"text\":\"a=1 text=2 \\\"\"}]}\n"
        );
    }

    #[test]
    fn what_a_server_writes_cannot_break_out_of_a_string() {
        assert_eq!(
            to_json("a=\"},\\\u{1}\n"),
            "{\"server\":{\"a\":\"\\\"},\\\\\\u0001\"},\"nodes\":[],\"log\":[]}\n"
        );
    }
}
