//! What the program says while it works: messages and progress, on standard error.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::cli::DebugLevel;

/// Between two progress lines where nobody sees them rewritten.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two updates of a line on a terminal.
const REWRITE_EVERY: Duration = Duration::from_millis(200);

/// How much is said, and how.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    level: DebugLevel,
    quiet: bool,
    terminal: bool,
}

impl Reporter {
    /// Says what `level` allows; no progress if `quiet`.
    pub fn new(level: DebugLevel, quiet: bool) -> Reporter {
        let stderr = std::io::stderr();
        Reporter { level, quiet, terminal: stderr.is_terminal() && !is_console(stderr.as_fd()) }
    }

    /// Something the user should know.
    pub fn say(&self, text: impl std::fmt::Display) {
        // On a terminal a progress line may stand here.
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(std::io::stderr(), "{clear}xget: {text}");
    }

    /// Something for who watches closely (`-D 1`).
    pub fn event(&self, text: impl std::fmt::Display) {
        if self.level >= DebugLevel::Events {
            self.say(text);
        }
    }

    /// Whether every 9P message is to be traced (`-D 2`).
    pub fn traces(&self) -> bool {
        self.level >= DebugLevel::Messages
    }

    /// A traced message.
    pub fn trace(&self, peer: SocketAddr, line: &str) {
        self.say(format_args!("{peer} {line}"));
    }

    /// How often [`Reporter::progress`] is worth calling; None for never.
    pub fn progress_every(&self) -> Option<Duration> {
        (!self.quiet).then_some(if self.terminal { REWRITE_EVERY } else { LINE_EVERY })
    }

    /// How far a long work has come: rewritten in place on a terminal, else a line.
    pub fn progress(&self, text: impl std::fmt::Display) {
        if self.quiet {
            return;
        }
        match self.terminal {
            true => {
                let mut out = std::io::stderr();
                let _ = write!(out, "\r\x1b[K{text}");
                let _ = out.flush();
            }
            false => self.say(text),
        }
    }

    /// Clears what [`Reporter::progress`] left on a terminal.
    pub fn end_progress(&self) {
        if self.terminal && !self.quiet {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// The system's console, which often is a serial line and a log: nothing is rewritten there.
fn is_console(output: BorrowedFd) -> bool {
    const CONSOLE: (u32, u32) = (5, 1);
    let found = output.try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    found.is_ok_and(|found| (libc::major(found.rdev()), libc::minor(found.rdev())) == CONSOLE)
}

/// Says when it is time for progress again.
#[derive(Debug)]
pub struct Pace {
    every: Option<Duration>,
    next: Instant,
}

impl Pace {
    /// The pace of `reporter`, the first time one interval after `now`.
    pub fn new(reporter: &Reporter, now: Instant) -> Pace {
        let every = reporter.progress_every();
        Pace { every, next: now + every.unwrap_or_default() }
    }

    /// Whether it is time, and then not again for an interval.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.every.filter(|_| now >= self.next) else { return false };
        self.next = now + every;
        true
    }

    /// When it is time.
    pub fn deadline(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }
}

/// A number of bytes for people: `64.0 MiB`.
pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in units.iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A rate for people: `11.2 MiB/s`.
pub fn rate(n: u64, time: Duration) -> String {
    let per_second = n as f64 / time.as_secs_f64().max(1e-6);
    format!("{}/s", bytes(per_second as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
