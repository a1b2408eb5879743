//! What a server says of its state, and the same for programs.

use std::fmt::Write as _;

/// The text of `.xget/status` as JSON: an object with the server's own line, its nodes in a list, and
/// in another the last lines that nodes wrote into its log.
///
/// Each line is words `NAME=VALUE`. Numbers stay numbers, `A/B` becomes a list of two numbers, and
/// everything else is a string. Words without `=` are left out, so that a later server may add some.
pub fn to_json(text: &str) -> String {
    let mut lines = text.lines();
    let server = object(lines.next().unwrap_or_default());
    let (log, nodes): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with(LOG));
    let list = |lines: Vec<&str>| lines.into_iter().map(object).collect::<Vec<_>>().join(",");
    format!("{{\"server\":{server},\"nodes\":[{}],\"log\":[{}]}}\n", list(nodes), list(log))
}

/// How the line begins that tells of a line in the server's log, and its last word.
const LOG: &str = "log=";
const TEXT: &str = " text=";

fn object(line: &str) -> String {
    // What a node wrote may hold anything, and goes to the end of its line.
    let (line, text) = match line.split_once(TEXT).filter(|_| line.starts_with(LOG)) {
        Some((line, text)) => (line, Some(text)),
        None => (line, None),
    };
    let words = line.split(' ').filter_map(|word| word.split_once('='));
    let words = words.map(|(name, value)| format!("{}:{}", string(name), self::value(value)));
    let text = text.map(|text| format!("\"text\":{}", string(text)));
    let members: Vec<String> = words.chain(text).collect();
    format!("{{{}}}", members.join(","))
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
        let text = "generation=00ff held=3/8 sent_bytes=12\nnode=10.0.0.1:20004 seconds=1.5\n";
        let json = to_json(text);
        assert_eq!(
            json,
            "{\"server\":{\"generation\":\"00ff\",\"held\":[3,8],\"sent_bytes\":12},\
             \"nodes\":[{\"node\":\"10.0.0.1:20004\",\"seconds\":1.5}],\"log\":[]}\n"
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
