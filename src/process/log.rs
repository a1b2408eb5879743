//! A line of the log: how much it matters, and what keeps it one line.
//!
//! `docs/logs.md` lists what is logged. [`crate::process::report`] writes it.

use std::fmt::Display;

pub use crate::level::Level;
use crate::printable::printable;

/// Longest record that every kernel takes whole, in bytes: `LOG_LINE_MAX` of its printk is 1024 less
/// what it puts before the text, up to 48.
const MAX_KMSG_BYTES: usize = 976;
/// What ends a record that was cut.
const CUT: &str = "...";

impl Level {
    /// The next level that says more.
    pub(crate) fn more(self) -> Level {
        match self {
            Level::Error => Level::Warning,
            Level::Warning => Level::Notice,
            Level::Notice => Level::Info,
            Level::Info | Level::Debug => Level::Debug,
        }
    }

    /// What sd-daemon(3) and `/dev/kmsg` want before a line.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Level::Error => "<3>",
            Level::Warning => "<4>",
            Level::Notice => "<5>",
            Level::Info => "<6>",
            Level::Debug => "<7>",
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// What matters less is left out.
    pub level: Level,
    /// Whether it is told how far a long work has come.
    pub progress: bool,
    /// The form of a line, and where it goes besides standard error.
    pub format: LogFormat,
}

impl Default for Logging {
    fn default() -> Logging {
        Logging { level: Level::Notice, progress: true, format: LogFormat::Auto }
    }
}

/// The form of a line of the log, and where it goes besides standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// With its priority if standard error is the journal's, else plain.
    Auto,
    /// Nothing but the line.
    Plain,
    /// Its priority before it, as sd-daemon(3) has it.
    Prefix,
    /// As by itself, and into the kernel's log as well.
    Kmsg,
}

impl LogFormat {
    pub(crate) const ALL: [LogFormat; 4] =
        [LogFormat::Auto, LogFormat::Plain, LogFormat::Prefix, LogFormat::Kmsg];

    /// As it is called on a command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Plain => "plain",
            LogFormat::Prefix => "prefix",
            LogFormat::Kmsg => "kmsg",
        }
    }
}

/// A message as a line without its end: whatever stands in it, it stays one, and text.
pub(crate) fn line(text: &dyn Display) -> String {
    printable(&format!("xget: {text}")).into_owned()
}

/// The line as a record of the kernel's log (dev-kmsg of the kernel's ABI documentation).
pub(crate) fn kmsg_record(level: Level, line: &str) -> String {
    let prefix = level.prefix();
    if prefix.len() + line.len() <= MAX_KMSG_BYTES {
        return format!("{prefix}{line}");
    }
    let room = MAX_KMSG_BYTES - prefix.len() - CUT.len();
    let end = (0..=room).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
    format!("{prefix}{}{CUT}", line.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays_one_line() {
        assert_eq!(line(&"a\nb\x1b[2J\r"), "xget: a\\nb\\u{1b}[2J\\r");
        assert_eq!(line(&"grün"), "xget: grün");
        assert_eq!(line(&"10.0.0.9 \u{202e}: ok\u{2028}"), "xget: 10.0.0.9 \\u{202e}: ok\\u{2028}");
    }

    #[test]
    fn a_record_begins_with_its_priority() {
        assert_eq!(kmsg_record(Level::Warning, "xget: careful"), "<4>xget: careful");
    }

    #[test]
    fn a_record_is_no_longer_than_the_kernel_takes() {
        let fits = "x".repeat(MAX_KMSG_BYTES - 3);
        assert_eq!(kmsg_record(Level::Info, &fits), format!("<6>{fits}"));
        for odd in ["x".repeat(MAX_KMSG_BYTES - 2), "ü".repeat(MAX_KMSG_BYTES)] {
            let record = kmsg_record(Level::Info, &odd);
            assert!(
                record.len() <= MAX_KMSG_BYTES && record.len() > MAX_KMSG_BYTES - 3,
                "{record}"
            );
            assert!(record.ends_with(CUT), "{record}");
        }
    }
}
