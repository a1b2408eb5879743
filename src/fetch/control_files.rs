//! What a fetch reads from its sources' control files, and what it writes into them.

use std::time::Instant;

use super::source::Source;
use super::timers::Timer;
use super::{Fault, Fetch};
use crate::conn::Conn;
use crate::control::{Control, HaveHeader, Join, Report, Role, SourceAddress, parse_grant};
use crate::image::chunks::{ChunkSet, parse_run};

impl Fetch {
    /// A piece of a control file has come.
    pub(super) fn text(
        &mut self,
        conn: Conn,
        file: Control,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(source) = self.sources.get_mut(&conn) else { return Ok(()) };
        let lines = match file {
            Control::Have => &mut source.have,
            Control::Next => &mut source.next,
            _ => &mut source.redir,
        };
        let malformed = Fault::Malformed(file);
        for line in lines.add(bytes).ok_or(malformed.clone())?.lines() {
            match file {
                Control::Have => self.have_line(conn, line, now)?,
                Control::Next => {
                    let chunk = parse_grant(line, self.manifest.layout());
                    self.scheduler.granted(conn, chunk.ok_or(malformed.clone())?, now);
                }
                _ => {
                    let address = SourceAddress::parse(line).ok_or(malformed.clone())?;
                    self.named(address.0, conn, now);
                }
            }
        }
        Ok(())
    }

    pub(super) fn have_line(&mut self, conn: Conn, line: &str, now: Instant) -> Result<(), Fault> {
        let malformed = Fault::Malformed(Control::Have);
        let Some(source) = self.sources.get_mut(&conn) else { return Ok(()) };
        if source.role.is_none() {
            let header = HaveHeader::parse(line).ok_or(malformed)?;
            if header.generation != self.manifest.generation() {
                return Err(Fault::OtherGeneration);
            }
            self.greeted(conn, header.role, now);
            return Ok(());
        }
        for chunk in parse_run(line, self.manifest.layout()).ok_or(malformed.clone())? {
            self.scheduler.has(conn, chunk, now);
            source.named += 1;
        }
        // Each chunk comes once: a short line that names all of them again is much work.
        let most = 2 * u64::from(self.manifest.layout().count());
        if source.named > most { Err(malformed) } else { Ok(()) }
    }

    /// A source has said what it is: it can be asked from now on.
    pub(super) fn greeted(&mut self, conn: Conn, role: Role, now: Instant) {
        let Some(source) = self.sources.get_mut(&conn) else { return };
        let address = source.address;
        source.role = Some(role);
        source.redir_wait = self.rules.redir_first;
        if source.is_origin {
            self.origin.failures = 0;
        }
        self.changed = true;
        self.progress.get_or_insert(now);
        self.timers.stop(Timer::Greet(conn));
        self.timers.set(Timer::AskForSources(conn), now + self.rules.redir_first);
        self.somebody_speaks();
        self.candidates.answered(address);
        let near = self.candidates.is_near(address);
        if near && role == Role::Node {
            self.scheduler.ring().add(address);
        }
        self.scheduler.add(conn, role, near, now);
        self.join(conn, now);
    }

    /// Tells a source what is wanted and held here, and where others can have it from.
    pub(super) fn join(&mut self, conn: Conn, now: Instant) {
        let generation = self.manifest.generation();
        let join = Join { port: self.port, generation, all_files: self.serves_files };
        self.write(conn, Control::Avail, &join.to_string());
        for line in Report::Want(self.wanted.clone()).lines() {
            self.write(conn, Control::Next, &line);
        }
        self.report_held(conn, now);
    }

    /// Tells a source which chunks have come since it was last told.
    pub(super) fn report_held(&mut self, conn: Conn, now: Instant) {
        let Some(source) = self.sources.get_mut(&conn) else { return };
        self.timers.stop(Timer::ReportHeld(conn));
        let news = self.order.get(source.reported..).unwrap_or_default();
        if news.is_empty() || source.role.is_none() {
            return;
        }
        let mut held = ChunkSet::empty(self.manifest.layout());
        for chunk in news {
            held.insert(*chunk);
        }
        source.reported = self.order.len();
        source.reported_at = now;
        for line in Report::Held(held).lines() {
            self.write(conn, Control::Next, &line);
        }
    }

    /// Sees to it that every source is told soon what it does not know; at once of the last chunk.
    pub(super) fn report_news(&mut self, now: Instant) {
        let whole = self.is_whole();
        let behind = |source: &Source| source.role.is_some() && source.reported < self.order.len();
        let behind: Vec<(Conn, Instant)> = self
            .sources
            .iter()
            .filter(|(_, source)| behind(source))
            .map(|(conn, source)| (*conn, source.reported_at + self.rules.report_every))
            .collect();
        for (conn, due) in behind {
            if whole || due <= now {
                self.report_held(conn, now);
            } else if !self.timers.is_set(Timer::ReportHeld(conn)) {
                self.timers.set(Timer::ReportHeld(conn), due);
            }
        }
    }

    /// Writes into the log of the origin.
    pub(super) fn report_troubles(&mut self) {
        if self.troubles.is_empty() {
            return;
        }
        let origin = self.sources.values_mut().find(|s| s.is_origin && s.role.is_some());
        if origin.is_some_and(|origin| origin.write_log(&self.troubles.join("\n"))) {
            self.troubles.clear();
        }
    }

    pub(super) fn report_sent(&mut self) {
        let report = Report::Sent { bytes: self.sent_bytes, sources: self.sources() as u32 };
        let masters = self.sources.iter().filter(|(_, s)| s.role == Some(Role::Master));
        let masters: Vec<Conn> = masters.map(|(conn, _)| *conn).collect();
        for conn in masters {
            for line in report.lines() {
                self.write(conn, Control::Next, &line);
            }
        }
    }

    /// Reads `redir` again where more sources could be of use.
    pub(super) fn ask_for_sources(&mut self, conn: Conn, now: Instant) {
        // Where distance matters, each has to know the one before it of those near.
        let enough = self.is_whole()
            || self.peers() >= self.rules.max_dialled && !self.scheduler.far_is_slow();
        let Some(source) = self.sources.get_mut(&conn) else { return };
        let is_in_vain = !source.is_origin && self.candidates.is_untrusted(source.address.ip());
        // If it is asked, it is asked again only after it has answered: where answers come late, as in a storm, more
        // questions would only make them later.
        if enough || is_in_vain || !source.ask_for_sources() {
            self.ask_again_later(conn, now);
        }
    }

    pub(super) fn ask_again_later(&mut self, conn: Conn, now: Instant) {
        if self.is_whole() {
            return;
        }
        let most = self.rules.redir_most;
        let Some(source) = self.sources.get_mut(&conn) else { return };
        let wait = source.redir_wait;
        source.redir_wait = (wait * 3 / 2).min(most);
        let due = now + self.jittered(wait * 4 / 3);
        self.timers.set(Timer::AskForSources(conn), due);
    }

    pub(super) fn read(&mut self, conn: Conn, file: Control) {
        if let Some(source) = self.sources.get_mut(&conn) {
            source.read(file);
        }
    }

    pub(super) fn write(&mut self, conn: Conn, file: Control, text: &str) {
        if let Some(source) = self.sources.get_mut(&conn) {
            source.write(file, text);
        }
    }
}
