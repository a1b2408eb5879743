//! What the program says while it works: messages and progress, on standard error.
//!
//! Where the journal reads that, each line begins with its priority (sd-daemon(3)). A boot says it in
//! the kernel's log as well, so that it can be read there afterwards.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::log::{self, Level, LogFormat, Logging};
use crate::printable::printable;

/// Between two progress lines where nobody sees them rewritten.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two updates of a line on a terminal.
const REWRITE_EVERY: Duration = Duration::from_millis(200);
/// The device and the inode of what a unit's output goes to, if that is the journal (systemd.exec(5)).
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// How much is said, and how.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    level: Level,
    progress: bool,
    /// Standard error is a terminal, and none that is a log.
    terminal: bool,
    /// Standard error is the system's console.
    console: bool,
    prefix: bool,
    kmsg: bool,
}

impl Reporter {
    /// Says what `logging` asks for.
    pub fn new(logging: Logging) -> Reporter {
        let Logging { level, progress, format } = logging;
        let stderr = io::stderr();
        let place = stderr.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
        let console = place.as_ref().is_ok_and(is_console);
        let journal = place.as_ref().is_ok_and(is_journal);
        Reporter {
            level,
            progress,
            terminal: stderr.is_terminal() && !console,
            console,
            prefix: match format {
                LogFormat::Plain => false,
                LogFormat::Prefix => true,
                LogFormat::Auto | LogFormat::Kmsg => journal,
            },
            // The journal reads the kernel's log, too.
            kmsg: format == LogFormat::Kmsg && !journal,
        }
    }

    /// What was asked for is not done.
    pub fn error(&self, text: impl Display) {
        self.say(Level::Error, &text);
    }

    /// Something is wrong that somebody should see to.
    pub(crate) fn warning(&self, text: impl Display) {
        self.say(Level::Warning, &text);
    }

    /// Something the user should know.
    pub(crate) fn notice(&self, text: impl Display) {
        self.say(Level::Notice, &text);
    }

    /// Something for who watches closely (`-v`).
    pub(crate) fn info(&self, text: impl Display) {
        self.say(Level::Info, &text);
    }

    /// Whether every 9P message is to be traced (`-D 2`).
    pub(crate) fn traces(&self) -> bool {
        self.level >= Level::Debug
    }

    /// Something that matters so much.
    pub(crate) fn say(&self, level: Level, text: &dyn Display) {
        if level > self.level {
            return;
        }
        let line = log::line(text);
        let kept = self.kmsg && write_kmsg(&log::kmsg_record(level, &line)).is_ok();
        // Once is enough on the console.
        if !(kept && self.console && kernel_prints(level)) {
            self.write(level, &line);
        }
    }

    fn write(&self, level: Level, line: &str) {
        // On a terminal a progress line may stand here.
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let prefix = if self.prefix { level.prefix() } else { "" };
        // At once, or lines of several processes could mix.
        let _ = io::stderr().write_all(format!("{clear}{prefix}{line}\n").as_bytes());
    }

    /// How often [`Reporter::progress`] is worth calling; None for never.
    pub(crate) fn progress_every(&self) -> Option<Duration> {
        self.progress.then_some(if self.terminal { REWRITE_EVERY } else { LINE_EVERY })
    }

    /// How far a long work has come: rewritten in place on a terminal, else a line.
    pub(crate) fn progress(&self, text: impl Display) {
        if !self.progress {
            return;
        }
        if self.terminal {
            let mut out = io::stderr();
            let _ = write!(out, "\r\x1b[K{}", printable(&text.to_string()));
            let _ = out.flush();
        } else {
            self.write(Level::Info, &log::line(&text));
        }
    }

    /// Clears what [`Reporter::progress`] left on a terminal.
    pub(crate) fn end_progress(&self) {
        if self.terminal && self.progress {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The system's console, which often is a serial line and a log: nothing is rewritten there.
fn is_console(stderr: &Metadata) -> bool {
    const CONSOLE: (u32, u32) = (5, 1);
    (libc::major(stderr.rdev()), libc::minor(stderr.rdev())) == CONSOLE
}

fn is_journal(stderr: &Metadata) -> bool {
    std::env::var(JOURNAL_STREAM).is_ok_and(|it| it == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// One record into the kernel's log. Each open counts by itself where the kernel limits their rate.
fn write_kmsg(record: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open("/dev/kmsg")?.write_all(record.as_bytes())
}

/// Whether the kernel prints what is in its log at this level on the console (proc_sys_kernel(5)).
fn kernel_prints(level: Level) -> bool {
    let setting = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    let most: Option<u8> = setting("printk").split_whitespace().next().and_then(|n| n.parse().ok());
    most.is_some_and(|most| (level as u8) < most) && setting("printk_devkmsg").trim() != "off"
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
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.every.filter(|_| now >= self.next) else { return false };
        self.next = now + every;
        true
    }

    /// When it is time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }
}
