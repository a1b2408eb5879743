//! What nodes write into this server's log: of their own trouble, and of others that lie.
//!
//! One node's word proves nothing, so nothing follows from it but that people can read it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::control::status::LogLine;
use crate::image::path::shown;
use crate::limits::{
    LOG_WINDOW, MAX_LAST_LINES, MAX_LAST_LINES_OF_ONE, MAX_LOG_LINE_BYTES, MAX_LOG_LINES,
    MAX_WINDOW_LINES, MAX_WINDOW_LINES_OF_ONE,
};

/// Lines for the driver, and the last of them for `status`.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: Vec<(SocketAddr, String)>,
    /// The oldest first.
    last: VecDeque<Line>,
    /// When the present stretch of time began, and how many lines each host has written in it.
    window: Option<Instant>,
    counts: BTreeMap<IpAddr, u32>,
}

#[derive(Debug)]
struct Line {
    from: SocketAddr,
    at: Instant,
    text: String,
}

impl Reports {
    /// Takes the lines of `text`; those beyond what one host, or all of them, may write are left out.
    pub(super) fn add(&mut self, from: SocketAddr, text: &[u8], now: Instant) {
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            if self.waiting.len() < MAX_LOG_LINES && self.may_write(from.ip(), now) {
                let text = shown(line.get(..MAX_LOG_LINE_BYTES).unwrap_or(line));
                self.waiting.push((from, text.clone()));
                self.keep(Line { from, at: now, text });
            }
        }
    }

    /// The lines that have come since the last call, and from whom.
    pub(super) fn take(&mut self) -> Vec<(SocketAddr, String)> {
        std::mem::take(&mut self.waiting)
    }

    /// The lines of `status` that tell of them. The word `text` goes to the end of its line.
    pub(super) fn status(&self, now: Instant) -> String {
        let mut text = String::new();
        for line in &self.last {
            let line = LogLine {
                from: line.from,
                age: Some(now.saturating_duration_since(line.at)),
                text: &line.text,
            };
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn may_write(&mut self, host: IpAddr, now: Instant) -> bool {
        if self.window.is_none_or(|began| now.saturating_duration_since(began) >= LOG_WINDOW) {
            self.window = Some(now);
            self.counts.clear();
        }
        let all: u32 = self.counts.values().sum();
        let own = self.counts.get(&host).copied().unwrap_or(0);
        let may = own < MAX_WINDOW_LINES_OF_ONE && all < MAX_WINDOW_LINES;
        if may {
            self.counts.insert(host, own + 1);
        }
        may
    }

    /// Keeps a line in place of the same host's oldest, so that none can hide what others say.
    fn keep(&mut self, line: Line) {
        let own = |kept: &Line| kept.from.ip() == line.from.ip();
        let gives_way = match self.last.iter().filter(|kept| own(kept)).count() {
            MAX_LAST_LINES_OF_ONE.. => self.last.iter().position(own),
            _ if self.last.len() >= MAX_LAST_LINES => Some(0),
            _ => None,
        };
        gives_way.map(|at| self.last.remove(at));
        self.last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn host(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 20_004))
    }

    #[test]
    fn a_line_is_short_and_has_no_control_bytes() {
        let mut log = Reports::default();
        let now = Instant::now();
        log.add(host(1), b"disk \x1b[2Jfull\n\nsecond", now);
        log.add(host(2), &[b'x'; 1000], now);
        let lines = log.take();
        assert_eq!(lines[0], (host(1), "disk \\x1b[2Jfull".into()));
        assert_eq!(lines[1], (host(1), "second".into()));
        assert_eq!(lines[2].1.len(), MAX_LOG_LINE_BYTES);
        assert!(log.take().is_empty());
    }

    #[test]
    fn one_host_writes_so_many_lines_a_minute_and_hides_none_of_others() {
        let mut log = Reports::default();
        let mut now = Instant::now();
        log.add(host(2), b"10.0.0.9:20004: lies", now);
        let flood = |log: &mut Reports, now| {
            for n in 0..1000 {
                log.add(host(1), format!("line {n}").as_bytes(), now);
                log.take();
            }
        };
        flood(&mut log, now);
        now += Duration::from_secs(5);
        assert_eq!(log.counts.get(&host(1).ip()), Some(&MAX_WINDOW_LINES_OF_ONE));
        let status = log.status(now);
        assert!(status.starts_with("log=10.0.0.2:20004 seconds=5.0 text=10.0.0.9:20004: lies\n"));
        assert_eq!(status.lines().count(), 1 + MAX_LAST_LINES_OF_ONE);
        now += LOG_WINDOW;
        log.add(host(1), b"again", now);
        assert_eq!(log.take().len(), 1);
    }

    #[test]
    fn many_hosts_write_so_many_lines_a_minute() {
        let mut log = Reports::default();
        let now = Instant::now();
        let mut taken = 0;
        for n in 0..2 * MAX_WINDOW_LINES {
            let host = SocketAddr::from(((0x0A00_0000 + n).to_be_bytes(), 20_004));
            log.add(host, b"trouble", now);
            taken += log.take().len();
        }
        assert_eq!(taken, MAX_WINDOW_LINES as usize);
        assert_eq!(log.last.len(), MAX_LAST_LINES);
    }
}
