//! A status for people: a summary, then a line a node, in columns.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Node, State, Status};
use crate::control::status::{LogLine, Progress};
use crate::image::path::shown;
use crate::units::{bytes, quantity, rate};

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Lines in all. Those who need attention most come first; what does not fit is counted.
    pub(crate) lines: usize,
    /// Columns of each line; longer ones are cut.
    pub(crate) columns: usize,
}

/// The text of `.xget/status` as a table, cut to fit if there is only so much `room`.
pub(crate) fn table(text: &str, room: Option<Room>) -> String {
    let status = Status::parse(text);
    let mut nodes = [status.departed.as_slice(), &status.nodes].concat();
    nodes.sort_by_cached_key(|node| urgency(*node, &status));
    let mut lines = summary(&status);
    if !nodes.is_empty() {
        let head = lines.len() + 2;
        let fit = room.map_or(nodes.len(), |room| room.lines.saturating_sub(head));
        // The last line says how many are left out.
        let fit = if fit < nodes.len() { fit.saturating_sub(1) } else { nodes.len() };
        let rows: Vec<_> = nodes.iter().take(fit).map(|node| row(*node, &status)).collect();
        lines.push(String::new());
        lines.extend(columns(&rows));
        if fit < nodes.len() {
            lines.push(format!("and {} more", nodes.len() - fit));
        }
    }
    let columns = room.map_or(usize::MAX, |room| room.columns);
    let most = room.map_or(usize::MAX, |room| room.lines);
    let fitting = lines.iter().take(most).map(|line| line.chars().take(columns));
    fitting.flat_map(|line| line.chain(['\n'])).collect()
}

/// Who is in trouble comes first, then who has least, then who is slowest.
fn urgency(node: Node, status: &Status<'_>) -> impl Ord + use<> {
    let Progress { held, wanted } = node.line.held;
    let permille = (u128::from(held) * 1000).checked_div(u128::from(wanted)).unwrap_or(0);
    let troubled = match node.state() {
        State::Departed => true,
        State::Whole => false,
        State::Stalled | State::Fetching => status.last_trouble(node).is_some(),
    };
    (!troubled, node.state(), permille, node.line.in_bytes_per_s, node.line.address)
}

fn summary(status: &Status<'_>) -> Vec<String> {
    let Status { server, nodes, departed, log } = status;
    let count = |state| nodes.iter().filter(|node| node.state() == state).count();
    let mut image = format!(
        "generation {}, {} in {} of {}",
        server.generation.unwrap_or("?").get(..16).unwrap_or("?"),
        bytes(server.image_bytes),
        quantity(server.held.wanted, "chunk"),
        bytes(server.chunk_bytes),
    );
    match server.only_here {
        Some(0) if !nodes.is_empty() => image += "; every chunk is on some node",
        Some(n) if !nodes.is_empty() => {
            _ = write!(image, "; {} not on any node yet", quantity(n, "chunk"))
        }
        // A node that is asked: it may not have all of it.
        None => _ = write!(image, "; {} of them are held here", server.held.held),
        _ => {}
    }
    let (held, wanted) = nodes.iter().map(|node| node.line.held).fold((0, 0), |sum, of_one| {
        (u64::saturating_add(sum.0, of_one.held), u64::saturating_add(sum.1, of_one.wanted))
    });
    let income = nodes.iter().filter_map(|node| node.line.in_bytes_per_s);
    let mut swarm = quantity(nodes.len() as u64, "node");
    if !nodes.is_empty() {
        let _ = write!(
            swarm,
            ": {} whole, {} fetching, {} stalled; {} of all data fetched, {}",
            count(State::Whole),
            count(State::Fetching),
            count(State::Stalled),
            percent(held, wanted),
            per_second(income.fold(0, u64::saturating_add)),
        );
    }
    if !departed.is_empty() {
        let _ = write!(swarm, "; {} left before they were whole", departed.len());
    }
    let mut sent = format!(
        "sent by this server {}, {}",
        bytes(server.sent_bytes),
        per_second(server.sent_bytes_per_s)
    );
    let fetching = nodes.iter().filter(|node| node.state() == State::Fetching);
    if let Some(last) = fetching.filter_map(|node| node.seconds_left(server.chunk_bytes)).max() {
        let _ = write!(sent, "; all nodes whole in {}", age(last));
    }
    let last = log.last().map(|line| format!("last problem: {}: {}", line.from, said_of(*line)));
    [image, swarm, sent].into_iter().chain(last).collect()
}

const HEADS: [&str; 9] =
    ["NODE", "SUBNET", "HELD", "IN", "OUT", "BY MASTER", "SOURCES", "JOINED", "LAST PROBLEM"];
/// Words stand to the left, numbers to the right.
const TO_THE_LEFT: [usize; 3] = [0, 1, 8];

fn row(node: Node, status: &Status<'_>) -> [String; 9] {
    let Progress { held, wanted } = node.line.held;
    let speed = |rate: Option<u64>| rate.map_or("-".into(), per_second);
    // The last chunk of an image is shorter, which nobody sees in a percentage.
    let came = held.saturating_mul(status.server.chunk_bytes);
    let from_here = node.line.sent_bytes.map_or("-".into(), |n| percent(n.min(came), came));
    let sources = node.line.sources.filter(|n| *n > 0).map_or("-".into(), |n| n.to_string());
    [
        node.line.address.to_string(),
        node.subnet(),
        percent(held, wanted),
        if node.state() == State::Whole { "-".into() } else { speed(node.line.in_bytes_per_s) },
        speed(node.line.out_bytes_per_s),
        from_here,
        sources,
        node.line.age.map_or("-".into(), |time| age(time.as_secs())),
        trouble(node, status),
    ]
}

/// The last thing that it said went wrong, that nothing comes, or that it is gone.
fn trouble(node: Node, status: &Status<'_>) -> String {
    let quiet = node.line.quiet.unwrap_or_default().as_secs();
    let seen = match node.state() {
        State::Departed => Some(format!("gone for {}", age(quiet))),
        State::Stalled => Some(format!("no data for {}", age(quiet))),
        State::Fetching | State::Whole => None,
    };
    let said = status.last_trouble(node).map(said_of);
    [seen, said].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn said_of(line: LogLine<'_>) -> String {
    let text = shown(line.text.as_bytes());
    match line.age {
        Some(time) => format!("{text} ({} ago)", age(time.as_secs())),
        None => text,
    }
}

fn columns(rows: &[[String; 9]]) -> Vec<String> {
    let heads = HEADS.map(str::to_owned);
    let all: Vec<&[String; 9]> = std::iter::once(&heads).chain(rows).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &&[String; 9]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if TO_THE_LEFT.contains(&column) {
                format!("{cell:width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

/// Rounded down, so that 100 % is all of it.
fn percent(part: u64, whole: u64) -> String {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole));
    percent.map_or("-".into(), |percent| format!("{percent} %"))
}

fn per_second(bytes_per_s: u64) -> String {
    rate(bytes_per_s, Duration::from_secs(1))
}

/// A time for people: `12 s`, `3 min`, `5 h`, `9 d`.
fn age(seconds: u64) -> String {
    match seconds {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "generation=0123456789abcdef0123 image_bytes=1048576 chunk_bytes=65536 \
        held=16/16 sent_bytes=524288 sent_bytes_per_s=2048 only_here=8\n";

    fn node(last: u8, held: u32, more: &str) -> String {
        format!("node=10.0.0.{last}:20004 held={held}/16 sent_bytes=65536 seconds=9.5{more}\n")
    }

    /// The addresses in the order of their lines.
    fn order(table: &str) -> Vec<&str> {
        table.lines().filter_map(|line| line.split(':').next()?.strip_prefix("10.0.0.")).collect()
    }

    #[test]
    fn a_node_is_a_line_below_a_summary() {
        let words = " quiet_seconds=0.1 in_bytes_per_s=1024 out_bytes_per_s=0 sources=3";
        let text = SERVER.to_owned() + &node(7, 8, words);
        let expected =
            "generation 0123456789abcdef, 1.0 MiB in 16 chunks of 64.0 KiB; 8 chunks not on any node yet
1 node: 0 whole, 1 fetching, 0 stalled; 50 % of all data fetched, 1.0 KiB/s
sent by this server 512.0 KiB, 2.0 KiB/s; all nodes whole in 8 min

NODE            SUBNET       HELD         IN    OUT  BY MASTER  SOURCES  JOINED  LAST PROBLEM
10.0.0.7:20004  10.0.0.0/24  50 %  1.0 KiB/s  0 B/s       12 %        3     9 s
";
        assert_eq!(table(&text, None), expected);
    }

    #[test]
    fn nodes_in_trouble_come_first_and_whole_nodes_last() {
        let text = SERVER.to_owned()
            + &node(1, 16, "")
            + &node(2, 9, "")
            + &node(3, 4, "")
            + &node(4, 12, " quiet_seconds=60")
            + &node(5, 15, "")
            + "log=10.0.0.5:20004 seconds=9.0 text=slow\n"
            + "log=10.0.0.5:20004 seconds=3.0 text=disk full, node=1\n";
        let table = table(&text, None);
        assert_eq!(order(&table), ["5", "4", "3", "2", "1"]);
        assert!(table.contains("  disk full, node=1 (3 s ago)\n"), "{table}");
        assert!(table.contains("  no data for 60 s\n"), "{table}");
    }

    #[test]
    fn departed_nodes_come_first_and_are_not_counted_as_nodes() {
        let text = SERVER.to_owned()
            + &node(1, 8, "")
            + "gone=10.0.0.2:20004 held=1/16 quiet_seconds=130.0\n"
            + "log=10.0.0.2:20004 seconds=140.0 text=disk full\n";
        let table = table(&text, None);
        assert_eq!(order(&table), ["2", "1"]);
        assert!(table.contains("  gone for 2 min; disk full (2 min ago)\n"), "{table}");
        let summary = "1 node: 0 whole, 1 fetching, 0 stalled; 50 % of all data fetched";
        assert!(table.contains(summary), "{table}");
        assert!(table.contains("; 1 left before they were whole\n"), "{table}");
    }

    #[test]
    fn the_last_problem_is_shown_though_its_node_has_departed() {
        let text = SERVER.to_owned() + "log=10.0.0.9:1 seconds=130.0 text=gone\n";
        assert!(table(&text, None).ends_with("\nlast problem: 10.0.0.9:1: gone (2 min ago)\n"));
    }

    #[test]
    fn rows_that_do_not_fit_are_counted() {
        let nodes: String = (1..=100).map(|n| node(n, u32::from(n) % 16, "")).collect();
        let text = SERVER.to_owned() + &nodes;
        let table = table(&text, Some(Room { lines: 10, columns: 40 }));
        assert_eq!(table.lines().count(), 10);
        assert_eq!(table.lines().last(), Some("and 96 more"));
        assert!(table.lines().all(|line| line.chars().count() <= 40));
        assert_eq!(order(&table).first(), Some(&"16"), "which has nothing yet");
    }

    #[test]
    fn a_terminal_of_one_line_gets_one_line() {
        let text = SERVER.to_owned() + &node(1, 1, "");
        assert_eq!(table(&text, Some(Room { lines: 1, columns: 5 })), "gener\n");
    }

    #[test]
    fn missing_and_malformed_words_do_no_harm() {
        for text in ["", "\n\n", "node=\n", "x\nnode=a held=9/0 seconds=-1\nlog=\n"] {
            assert!(!table(text, None).is_empty());
        }
    }

    #[test]
    fn a_log_message_cannot_move_the_cursor() {
        let text = SERVER.to_owned() + &node(1, 1, "") + "log=10.0.0.1:20004 text=\x1b[2Jgone\n";
        assert!(!table(&text, None).contains('\x1b'));
    }
}
