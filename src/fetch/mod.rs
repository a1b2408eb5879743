//! The asking side of a node: joins the connections to sources and the scheduler.
//!
//! [`Fetch`] is told of connections and of bytes that arrive, and says by [`Fetch::poll`] what its driver has to
//! do: dial, send, close. Chunks are hashed here as their bytes come, so that none is ever held in memory as a whole,
//! and only a chunk with the right hash is reported as verified.
//!
//! `scheduler` chooses which chunk is asked of whom, `dial` and `candidates` which nodes are dialed, of which `hearsay`
//! says whom to believe; `source` is one connection, on which `control_files` are read and written and chunks are on their way (`transfer`). `timers` names
//! all that happens because time has passed. Before all that, [`manifest`] gets the manifest.

mod candidates;
pub mod control_client;
mod control_files;
mod dial;
mod event;
mod hearsay;
pub mod manifest;
pub mod retry;
mod scheduler;
mod source;
mod timers;
mod transfer;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::control::Control;
use crate::image::chunks::{ChunkId, ChunkSet};
use crate::image::manifest::Manifest;
use crate::limits::{BAN, MAX_LOG_LINE_BYTES, MAX_REFUSED_CHUNKS, MAX_TROUBLES};
use crate::p9::errno::Errno;
use crate::printable::is_printable;
use crate::random::next_random;
use crate::serve::admission::Allowed;
use crate::swarm::rules::Rules;
use candidates::{Candidates, backoff};
pub use event::{Event, Fault};
use scheduler::{Command, Scheduler};
use source::{Arrived, Source, Token};
use timers::{Timer, Timers};

/// Wait before the origin is dialed again; doubled each time.
const REDIAL_ORIGIN: Duration = Duration::from_millis(250);
/// Longest wait between two attempts to dial the origin.
const REDIAL_ORIGIN_MOST: Duration = Duration::from_secs(8);
/// How long after the last chunk other sources may still bring what is missing.
const HOPE: Duration = Duration::from_secs(30);
/// Wait before the origin is dialed again after it sent wrong chunks: files that were changed under it it will serve
/// as another generation soon.
const REDIAL_LIAR: Duration = Duration::from_secs(3);
/// How often it may do that.
const MAX_ORIGIN_LIES: u32 = 3;
/// Wait before a server is dialed again that serves another generation than the one held here.
const REDIAL_OTHER: Duration = Duration::from_secs(60);
/// How often a master is told how much was sent from here.
const REPORT_SENT_EVERY: Duration = Duration::from_secs(2);
/// After so many failures in a row to reach the origin its name is looked up at each further one.
const MAY_HAVE_MOVED: u32 = 2;

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the address; then [`Fetch::connected`] or [`Fetch::closed`].
    Dial(Conn, SocketAddr),
    /// There is something to send: see [`Fetch::next_output`].
    Send(Conn),
    /// End the connection; it is forgotten here.
    Close(Conn),
    /// Look the origin's name up again; then [`Fetch::set_origin`].
    Resolve,
    /// Log this.
    Report(Event),
}

/// What is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Bytes of a chunk on its way, not verified yet.
    Bytes {
        /// Where they belong in the image.
        image_offset: u64,
        /// The bytes.
        bytes: Cow<'a, [u8]>,
    },
    /// All bytes of this chunk were given out before, and they have the right hash.
    Verified(ChunkId),
}

/// How long a fetch goes on without success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// How often in a row the origin may be unreachable while nobody else has the rest; None: as often as it likes.
    pub retries: Option<u32>,
    /// It ends at this moment.
    pub end: Option<Instant>,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Going,
    /// Everything that was wanted is verified.
    Whole,
    /// The origin serves another generation.
    Stale,
    /// The origin keeps sending wrong chunks, and nobody else can be asked.
    Deceived,
    /// The origin cannot be reached, and nobody else has the rest.
    Unreachable,
    /// Its time is over.
    TimedOut,
}

/// What came from one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of verified chunks.
    pub bytes: u64,
    /// Chunks with wrong contents.
    pub wrong: u32,
}

/// The server that was named.
#[derive(Debug)]
struct Origin {
    /// In the order to try them.
    addresses: Vec<SocketAddr>,
    turn: usize,
    failures: u32,
    lies: u32,
}

/// What a fetch begins with.
#[derive(Debug)]
pub struct Start {
    /// What is fetched.
    pub manifest: Arc<Manifest>,
    /// The chunks that are wanted.
    pub wanted: ChunkSet,
    /// Those of them that are here and verified already.
    pub held: ChunkSet,
    /// The addresses of the server that was named, in the order to try them.
    pub origin: Vec<SocketAddr>,
    /// The port on which this node serves others; 0 if it does not.
    pub port: u16,
    /// The networks in which nodes are dialed that somebody names.
    pub allowed: Allowed,
    /// Whether 2009 clients may be sent here: all files are shown, and a client that reads one is waited for.
    pub serves_files: bool,
    /// The rules of the swarm.
    pub rules: Rules,
    /// How long it goes on without success.
    pub patience: Patience,
    /// Drives all random choices.
    pub seed: u64,
    /// Whether every message is reported.
    pub traces: bool,
}

/// The fetch of one generation by one node.
#[derive(Debug)]
pub struct Fetch {
    rules: Rules,
    manifest: Arc<Manifest>,
    wanted: ChunkSet,
    scheduler: Scheduler,
    sources: BTreeMap<Conn, Source>,
    last: Conn,
    origin: Origin,
    candidates: Candidates,
    allowed: Allowed,
    port: u16,
    serves_files: bool,
    patience: Patience,
    /// Verified chunks in the order in which they came.
    order: Vec<ChunkId>,
    shares: BTreeMap<SocketAddr, Share>,
    ready: VecDeque<Incoming<'static>>,
    actions: VecDeque<Action>,
    /// Lines for the log of the origin.
    troubles: Vec<String>,
    timers: Timers,
    /// Something has happened that may change whom to dial, and whom to report to.
    changed: bool,
    /// When sources were last compared, and how many chunks were here then.
    compared: Option<(Instant, usize)>,
    /// Image bytes that were sent from here.
    sent_bytes: u64,
    /// When a chunk last came; before the first, when there was first somebody to ask.
    progress: Option<Instant>,
    /// How often in a row somebody was hung up on who had said nothing, while nobody else said anything.
    mute_doublings: u32,
    /// The number of failures at which the origin was last looked up.
    looked_up: u32,
    stale: bool,
    random: u64,
    traces: bool,
}

impl Fetch {
    /// The fetch of a master, which has everything and asks nobody.
    pub fn of_nothing(manifest: Arc<Manifest>) -> Fetch {
        let nothing = ChunkSet::empty(manifest.layout());
        Fetch::new(Start {
            manifest,
            wanted: nothing.clone(),
            held: nothing,
            origin: Vec::new(),
            port: 0,
            allowed: Allowed::default(),
            serves_files: false,
            rules: Rules::default(),
            patience: Patience::default(),
            seed: 0,
            traces: false,
        })
    }

    /// Nobody was asked yet.
    pub fn new(start: Start) -> Fetch {
        let Start {
            manifest,
            wanted,
            held,
            origin,
            port,
            allowed,
            serves_files,
            rules,
            patience,
            seed,
            traces,
        } = start;
        let mut missing = wanted.clone();
        for chunk in held.iter() {
            missing.remove(chunk);
        }
        Fetch {
            rules,
            scheduler: Scheduler::new(*manifest.layout(), missing, rules, seed),
            manifest,
            wanted,
            sources: BTreeMap::new(),
            last: Conn::DIALED,
            origin: Origin { addresses: origin, turn: 0, failures: 0, lies: 0 },
            candidates: Candidates::new(port),
            allowed,
            port,
            serves_files,
            patience,
            order: held.iter().collect(),
            shares: BTreeMap::new(),
            ready: VecDeque::new(),
            actions: VecDeque::new(),
            troubles: Vec::new(),
            timers: Timers::default(),
            changed: true,
            compared: None,
            sent_bytes: 0,
            progress: None,
            mute_doublings: 0,
            looked_up: 0,
            stale: false,
            random: seed | 1,
            traces,
        }
    }

    /// What is wanted and not verified yet.
    pub fn missing(&self) -> &ChunkSet {
        self.scheduler.missing()
    }

    /// Is everything here that was wanted?
    pub fn is_whole(&self) -> bool {
        self.missing().is_empty()
    }

    /// How far it is at this moment.
    pub fn outcome(&self, now: Instant) -> Outcome {
        if self.is_whole() {
            Outcome::Whole
        } else if self.stale {
            Outcome::Stale
        } else if self.origin.lies >= MAX_ORIGIN_LIES && self.sources() == 0 {
            Outcome::Deceived
        } else if self.patience.retries.is_some_and(|most| self.stranded(now) > most) {
            Outcome::Unreachable
        } else if self.patience.end.is_some_and(|end| end <= now) {
            Outcome::TimedOut
        } else {
            Outcome::Going
        }
    }

    /// How often in a row the origin could not be reached while nobody else had anything to give either; 0 as long
    /// as chunks come, or may come soon.
    fn stranded(&self, now: Instant) -> u32 {
        let recent = |at: Instant| now.saturating_duration_since(at) < HOPE;
        match self.progress {
            Some(at) if self.sources() > 0 && recent(at) => 0,
            _ => self.origin.failures,
        }
    }

    /// Sources that can be asked at present.
    pub fn sources(&self) -> usize {
        self.sources.values().filter(|source| source.role.is_some()).count()
    }

    /// What came from whom.
    pub fn shares(&self) -> &BTreeMap<SocketAddr, Share> {
        &self.shares
    }

    /// The manifest of what is fetched.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The addresses of the origin.
    pub fn origin(&self) -> &[SocketAddr] {
        &self.origin.addresses
    }

    /// The origin was looked up again. If it has moved, it is dialed where it is by now.
    pub fn set_origin(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        if addresses.iter().any(|address| !self.origin.addresses.contains(address)) {
            self.origin.addresses = addresses;
            self.origin.turn = 0;
            self.timers.set(Timer::DialOrigin, now);
        }
    }

    /// Something has gone wrong here: one line for the log of the origin, which gets it once it can be reached.
    /// What is not printable becomes spaces, and the line is cut where it is too long; where many lines wait, it is left
    /// out.
    pub fn trouble(&mut self, line: &str) {
        if self.troubles.len() < MAX_TROUBLES {
            let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_LOG_LINE_BYTES;
            let fitting = line.char_indices().take_while(fits).map(|(_, c)| c);
            self.troubles.push(fitting.map(|c| if is_printable(c) { c } else { ' ' }).collect());
            self.changed = true;
        }
    }

    /// A node that serves at `address` fetches from here.
    pub fn called_by(&mut self, address: SocketAddr) {
        self.learn(address);
        self.changed |= self.candidates.calls(address);
    }

    /// So many image bytes were sent from here so far, of which masters are told now and then.
    pub fn has_sent(&mut self, bytes: u64, now: Instant) {
        if bytes != self.sent_bytes {
            self.sent_bytes = bytes;
            if !self.timers.is_set(Timer::ReportSent) {
                self.timers.set(Timer::ReportSent, now + REPORT_SENT_EVERY);
            }
        }
    }

    /// A connection was made from the local address `own`.
    pub fn connected(&mut self, conn: Conn, own: IpAddr, now: Instant) {
        self.changed = true;
        if self.candidates.add_own(own) {
            self.scheduler.ring().set_own(SocketAddr::new(own, self.port));
        }
        if let Some(source) = self.sources.get_mut(&conn) {
            self.timers.stop(Timer::Connect(conn));
            source.reported_at = now;
            source.client.version(Token::Version);
        }
    }

    /// A connection has ended, or could not be made. Without a reason the other side has closed it.
    pub fn closed(&mut self, conn: Conn, why: Option<&str>, now: Instant) {
        if let Some(source) = self.sources.get(&conn) {
            let why = why.unwrap_or("connection closed by the other side").to_owned();
            let event = Event::Closed(source.address, why);
            self.actions.push_back(Action::Report(event));
            self.lose(conn, now);
        }
    }

    /// The source is gone.
    fn lose(&mut self, conn: Conn, now: Instant) {
        if let Some(source) = self.sources.get(&conn) {
            self.scheduler.ring().remove(source.address);
        }
        self.part(conn, now);
    }

    /// A connection is over, which does not say that the source is gone.
    fn part(&mut self, conn: Conn, now: Instant) {
        let Some(source) = self.sources.remove(&conn) else { return };
        self.changed = true;
        self.timers.stop_all(conn);
        self.scheduler.remove(conn);
        if source.is_origin {
            self.origin.failures = self.origin.failures.saturating_add(1);
            self.origin.turn = self.origin.turn.wrapping_add(1);
            let wait = backoff(REDIAL_ORIGIN, self.origin.failures, REDIAL_ORIGIN_MOST);
            let wait = self.jittered(wait);
            self.timers.set(Timer::DialOrigin, now + wait);
            self.look_up_again(now);
        } else {
            self.failed(source.address, now);
        }
    }

    /// The requests that are to be sent to a source; None if there are none.
    pub fn next_output(&mut self, conn: Conn) -> Option<Vec<u8>> {
        let requests = std::mem::take(self.sources.get_mut(&conn)?.client.output());
        (!requests.is_empty()).then_some(requests)
    }

    /// The next thing to do, or None until something happens or [`Fetch::next_timeout`] comes.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        while let Some(command) = self.scheduler.poll(now) {
            self.carry_out(command, now);
        }
        while let Some(timer) = self.timers.expired(now) {
            self.expired(timer, now);
        }
        if std::mem::take(&mut self.changed) {
            self.report_troubles();
            self.report_news(now);
            self.replace_worst(now);
            self.prefer_near(now);
            self.dial(now);
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let mut sources = self.sources.iter_mut();
        sources
            .find_map(|(conn, source)| source.client.take_has_news().then_some(Action::Send(*conn)))
    }

    /// When to call [`Fetch::poll`], though nothing happens until then.
    pub fn next_timeout(&self) -> Option<Instant> {
        let end = self.patience.end.filter(|_| !self.is_whole());
        [self.timers.next(), self.scheduler.deadline(), end].into_iter().flatten().min()
    }

    fn expired(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::DialOrigin | Timer::DialCandidate | Timer::ReplaceWorst => self.changed = true,
            Timer::Connect(conn) => {
                self.actions.push_back(Action::Close(conn));
                self.closed(conn, Some("connection timed out"), now);
            }
            Timer::Greet(_) => self.drop_mute(now),
            Timer::AskForSources(conn) => self.ask_for_sources(conn, now),
            Timer::ReportHeld(conn) => self.report_held(conn, now),
            Timer::ReportSent => self.report_sent(),
        }
    }

    /// Takes the next thing off the front of `bytes`; None when all of them are used up.
    ///
    /// A source at fault is closed by itself; [`Event::Dropped`] says why.
    pub fn receive<'a>(
        &mut self,
        conn: Conn,
        bytes: &mut &'a [u8],
        now: Instant,
    ) -> Option<Incoming<'a>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let source = self.sources.get_mut(&conn)?;
            let arrived = match source.client.receive(bytes) {
                Ok(event) => Arrived::of(event?),
                Err(broken) => Arrived::Broken(broken),
            };
            let result = match arrived {
                Arrived::Data(Token::Chunk { chunk, offset }, at, bytes) => {
                    let offset = u64::from(offset) + u64::from(at);
                    match self.chunk_bytes(conn, chunk, offset, bytes, now) {
                        Some(incoming) => return Some(incoming),
                        None => Ok(()),
                    }
                }
                Arrived::Data(Token::Read(file), _, bytes) => self.text(conn, file, bytes, now),
                Arrived::Data(..) => Ok(()),
                Arrived::End(token, count) => self.read_ended(conn, token, count, now),
                Arrived::Done(token) => {
                    self.succeeded(conn, token, now);
                    Ok(())
                }
                Arrived::Refused(token, errno) => self.refused(conn, token, errno, now),
                Arrived::Broken(broken) => Err(Fault::Broken(broken)),
            };
            self.report_messages(conn);
            if let Err(fault) = result {
                self.drop_source(conn, fault, now);
            }
        }
    }

    fn report_messages(&mut self, conn: Conn) {
        if self.traces
            && let Some(source) = self.sources.get_mut(&conn)
        {
            let address = source.address;
            for line in source.client.take_trace() {
                self.actions.push_back(Action::Report(Event::Message(address, line)));
            }
        }
    }

    fn carry_out(&mut self, command: Command, now: Instant) {
        match command {
            Command::Fetch { source, chunk } => {
                self.report_held(source, now);
                self.request(source, chunk, now);
            }
            Command::AskNext { source } => {
                self.report_held(source, now);
                self.read(source, Control::Next);
            }
            Command::Abandon { source, chunk } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.abandon(chunk, None);
                }
            }
            Command::Probe { source } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.probe();
                }
            }
            Command::Drop { source } => self.drop_silent(source, now),
        }
    }

    fn read_ended(
        &mut self,
        conn: Conn,
        token: Token,
        count: u32,
        now: Instant,
    ) -> Result<(), Fault> {
        match token {
            Token::Chunk { chunk, offset } => self.piece_ended(conn, chunk, offset, count, now),
            // The end of `have` is never reached by a server that means it.
            Token::Read(Control::Have) if count == 0 => Err(Fault::Malformed(Control::Have)),
            Token::Read(Control::Have) => {
                self.read(conn, Control::Have);
                Ok(())
            }
            Token::Read(Control::Next) if count == 0 => Err(Fault::Malformed(Control::Next)),
            Token::Read(Control::Redir) => {
                self.ask_again_later(conn, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn succeeded(&mut self, conn: Conn, token: Token, now: Instant) {
        let Some(source) = self.sources.get_mut(&conn) else { return };
        match token {
            Token::Probe => self.scheduler.answered(conn, now),
            Token::Version => source.attach(),
            Token::Attach => source.open_files(),
            _ => {}
        }
    }

    fn refused(
        &mut self,
        conn: Conn,
        token: Token,
        errno: Errno,
        now: Instant,
    ) -> Result<(), Fault> {
        if errno == Errno::ESTALE {
            return Err(Fault::OtherGeneration);
        }
        match token {
            Token::Version | Token::Attach => Err(Fault::Refused(Control::Image, errno)),
            // It feeds as many as it can. The origin is all that some have.
            Token::Write(Control::Avail) if errno == Errno::EBUSY => {
                if self.sources.get(&conn).is_some_and(|source| !source.is_origin) {
                    self.part(conn, now);
                    self.actions.push_back(Action::Close(conn));
                }
                Ok(())
            }
            // Without these there are fewer sources, or nobody comes: no reason to part.
            Token::Open(Control::Redir | Control::Avail | Control::Log)
            | Token::Write(_)
            | Token::Clunk
            | Token::Probe => Ok(()),
            Token::Read(Control::Redir) => {
                self.ask_again_later(conn, now);
                Ok(())
            }
            Token::Open(file) | Token::Read(file) => Err(Fault::Refused(file, errno)),
            Token::Chunk { chunk, offset } => {
                let Some(source) = self.sources.get_mut(&conn) else { return Ok(()) };
                source.abandon(chunk, Some(offset));
                source.refused += 1;
                let in_vain = source.refused >= MAX_REFUSED_CHUNKS && !source.is_origin;
                self.scheduler.ended(conn, chunk, false, now);
                if in_vain { Err(Fault::Refused(Control::Image, errno)) } else { Ok(()) }
            }
        }
    }

    fn drop_source(&mut self, conn: Conn, fault: Fault, now: Instant) {
        let Some(source) = self.sources.get(&conn) else { return };
        let (address, is_origin) = (source.address, source.is_origin);
        self.accuse(conn, fault.clone());
        self.candidates.avoid(address, now + BAN);
        self.lose(conn, now);
        if is_origin && fault == Fault::OtherGeneration {
            self.stale = true;
            if self.is_whole() {
                self.timers.set(Timer::DialOrigin, now + REDIAL_OTHER);
            }
        }
        if is_origin && fault == Fault::WrongChunks {
            self.origin.lies += 1;
            self.timers.set(Timer::DialOrigin, now + REDIAL_LIAR);
        }
        self.actions.push_back(Action::Close(conn));
    }

    /// Says why a source is not used any longer. The origin is told of it, but for what it knows of itself.
    ///
    /// What a host has sent is told only if it speaks 9P at an address where somebody has seen it, or has answered as a
    /// node does: else nobody would be safe from being called and read by way of this node.
    fn accuse(&mut self, conn: Conn, fault: Fault) {
        let Some(source) = self.sources.get(&conn) else { return };
        let (address, is_origin) = (source.address, source.is_origin);
        let informant = self.candidates.hearsay_of(address).filter(|_| source.role.is_none());
        let is_known = is_origin || source.speaks_9p && informant.is_none();
        let (event, told) = if is_known {
            let told =
                (!is_origin || fault == Fault::WrongChunks).then(|| format!("{address}: {fault}"));
            (Event::Dropped(address, fault), told)
        } else {
            let event = Event::NoNode { address, informant, fault };
            let told = informant.is_none().then(|| event.to_string());
            (event, told)
        };
        if let Some(told) = told {
            self.trouble(&told);
        }
        self.actions.push_back(Action::Report(event));
    }

    fn peers(&self) -> usize {
        self.sources.values().filter(|source| !source.is_origin).count()
    }

    /// Between a half and the whole of `wait`.
    fn jittered(&mut self, wait: Duration) -> Duration {
        let part = (next_random(&mut self.random) % 1024) as f64 / 2048.0;
        wait.mul_f64(0.5 + part)
    }
}

#[cfg(test)]
mod tests;
