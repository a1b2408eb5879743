//! The asking side of a node: joins the connections to sources and the scheduler.
//!
//! [`Fetch`] is told of connections and of bytes that arrive, and says by [`Fetch::poll`] what its driver has to
//! do: dial, send, close. Chunks are hashed here as their bytes come, so that none is ever held in memory as a whole,
//! and only a chunk with the right hash is reported as verified.
//!
//! `scheduler` chooses which chunk is asked of whom, `candidates` which nodes are dialed, `source` is one
//! connection; `timers` names all that happens because time has passed. Before all that, [`manifest`] gets the
//! manifest.

mod candidates;
pub mod control_client;
pub mod manifest;
pub mod retry;
mod scheduler;
mod source;
mod timers;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::control::{Control, HaveHeader, Join, Report, Role, SourceAddress, parse_grant};
use crate::image::chunks::{ChunkId, ChunkSet, parse_run};
use crate::image::manifest::Manifest;
use crate::level::Level;
use crate::limits::{
    BAN, CONNECTING, MAX_LOG_LINE_BYTES, MAX_MUTE_DOUBLINGS, MAX_REFUSED_CHUNKS, MAX_TROUBLES,
    MAX_WRONG_CHUNKS, MUTE, MUTE_HOME,
};
use crate::p9::client::Broken;
use crate::p9::errno::Errno;
use crate::random::next_random;
use crate::swarm::rules::Rules;
use candidates::{Candidate, Candidates, backoff};
use control_client::CallError;
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
    /// Tell whoever reads the log.
    Report(Event),
}

/// Something that an administrator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection ended, or could not be made.
    Closed(SocketAddr, String),
    /// A source is no longer used.
    Dropped(SocketAddr, Fault),
    /// A source sent a chunk with a wrong hash.
    WrongChunk(SocketAddr, ChunkId),
    /// A 9P message, both ways.
    Message(SocketAddr, String),
    /// An address of the origin has not sent the manifest.
    Unanswered(SocketAddr, CallError),
    /// Likewise, and another is asked.
    TryingNext(SocketAddr, CallError, SocketAddr),
    /// The manifest could not be had from anybody, which is tried again after this time.
    Retrying(String, Duration),
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Event::WrongChunk(..) | Event::TryingNext(..) | Event::Retrying(..) => Level::Warning,
            Event::Message(..) => Level::Debug,
            Event::Closed(..) | Event::Dropped(..) | Event::Unanswered(..) => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Closed(address, why) => write!(f, "{address}: {why}"),
            Event::Dropped(address, fault) => {
                write!(f, "{address}: {fault}; no longer used as a source")
            }
            Event::WrongChunk(address, chunk) => {
                write!(
                    f,
                    "{address} sent chunk {chunk} with a wrong hash; fetching it from another source"
                )
            }
            Event::Message(address, line) => write!(f, "{address} {line}"),
            Event::Unanswered(address, error) => write!(f, "{address}: {error}"),
            Event::TryingNext(address, error, next) => {
                write!(f, "{address}: {error}; trying {next}")
            }
            Event::Retrying(error, wait) => {
                write!(f, "{error}; retrying in {:.1} s", wait.as_secs_f64())
            }
        }
    }
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

/// Why a source is not used any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks the protocol.
    Broken(Broken),
    /// It refused something without which nothing can be had from it.
    Refused(Control, Errno),
    /// A line of a control file is malformed.
    Malformed(Control),
    /// It serves another generation.
    OtherGeneration,
    /// It sent wrong chunks.
    WrongChunks,
    /// It was asked for chunks, and nothing came.
    Silent,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Broken(broken) => write!(f, "{broken}"),
            Fault::Refused(file, errno) => write!(f, "refused .xget/{}: {errno}", file.name()),
            Fault::Malformed(file) => write!(f, "sent an invalid line in .xget/{}", file.name()),
            Fault::OtherGeneration => write!(f, "serves another generation"),
            Fault::WrongChunks => write!(f, "sent chunks with wrong hashes"),
            Fault::Silent => write!(f, "does not send requested chunks"),
        }
    }
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
    /// Control characters become spaces, and the line is cut where it is too long; where many lines wait, it is left
    /// out.
    pub fn trouble(&mut self, line: &str) {
        if self.troubles.len() < MAX_TROUBLES {
            let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_LOG_LINE_BYTES;
            let fitting = line.char_indices().take_while(fits).map(|(_, c)| c);
            self.troubles.push(fitting.map(|c| if c.is_control() { ' ' } else { c }).collect());
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

    /// A node that serves has come to be known.
    fn learn(&mut self, address: SocketAddr) {
        if !self.origin.addresses.contains(&address) && self.candidates.learn(address) {
            self.changed = true;
            if self.candidates.is_near(address) {
                self.scheduler.ring().add(address);
            }
        }
    }

    /// Whether it goes to a node of another subnet.
    fn is_far(&self, source: &Source) -> bool {
        !source.is_origin && !self.candidates.is_near(source.address)
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
            self.candidates.failed(source.address, now);
        }
    }

    fn look_up_again(&mut self, now: Instant) {
        let stranded = self.stranded(now);
        if stranded >= MAY_HAVE_MOVED && stranded > self.looked_up {
            self.actions.push_back(Action::Resolve);
        }
        self.looked_up = stranded;
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
                    self.succeeded(conn, token);
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
            Command::Drop { source } => self.drop_silent(source, now),
        }
    }

    fn drop_silent(&mut self, conn: Conn, now: Instant) {
        if let Some(source) = self.sources.get(&conn) {
            self.accuse(source.address, source.is_origin, Fault::Silent);
        }
        self.lose(conn, now);
        self.actions.push_back(Action::Close(conn));
    }

    /// Ends connections to those who take calls and say nothing: they keep others from a place. Twice the time is
    /// waited from then on, until somebody speaks: behind a very slow link, or in a storm, nobody is heard in time,
    /// and to hang up and dial again only makes more of it.
    fn drop_mute(&mut self, now: Instant) {
        let mute: Vec<Conn> = self
            .sources
            .iter()
            .filter(|(_, source)| self.mute_at(source).is_some_and(|at| at <= now))
            .map(|(conn, _)| *conn)
            .collect();
        self.mute_doublings = (self.mute_doublings + 1).min(MAX_MUTE_DOUBLINGS);
        for conn in mute {
            self.drop_silent(conn, now);
        }
        self.set_greeting_timers();
    }

    /// When a source has said nothing for too long.
    fn mute_at(&self, source: &Source) -> Option<Instant> {
        let patience = if source.is_origin { MUTE_HOME } else { MUTE };
        let patience = patience.saturating_mul(1 << self.mute_doublings);
        source.role.is_none().then(|| source.since + patience)
    }

    fn set_greeting_timers(&mut self) {
        let due: Vec<(Conn, Instant)> = self
            .sources
            .iter()
            .filter_map(|(conn, source)| Some((*conn, self.mute_at(source)?)))
            .collect();
        for (conn, at) in due {
            self.timers.set(Timer::Greet(conn), at);
        }
    }

    /// Somebody has said or sent something: others have no more time than usual from now on.
    fn somebody_speaks(&mut self) {
        if std::mem::take(&mut self.mute_doublings) != 0 {
            self.set_greeting_timers();
        }
    }

    fn request(&mut self, conn: Conn, chunk: ChunkId, now: Instant) {
        let apart = self.sources.values().any(|source| {
            source.transfers.iter().any(|other| other.chunk == chunk && other.apart.is_none())
        });
        let range = self.manifest.layout().range(chunk);
        let Some(source) = self.sources.get_mut(&conn) else { return };
        if !source.fetch(chunk, &range, apart) {
            // Too many small pieces: this source has to wait until some of them have come.
            self.scheduler.ended(conn, chunk, false, now);
        }
    }

    /// Bytes of a chunk: hashed, then stored at once or kept apart.
    fn chunk_bytes<'a>(
        &mut self,
        conn: Conn,
        chunk: ChunkId,
        offset: u64,
        bytes: &'a [u8],
        now: Instant,
    ) -> Option<Incoming<'a>> {
        self.scheduler.progressed(conn, chunk, now);
        let needed = self.missing().contains(chunk);
        let range = self.manifest.layout().range(chunk);
        let source = self.sources.get_mut(&conn)?;
        let transfer = source.transfers.iter_mut().find(|transfer| transfer.chunk == chunk)?;
        // Pieces come in the order in which they were asked for; a gap ends as a wrong hash.
        transfer.hasher.update(bytes);
        transfer.came += bytes.len() as u64;
        if let Some(apart) = &mut transfer.apart {
            apart.extend_from_slice(bytes);
            return None;
        }
        let image_offset = range.start.saturating_add(offset);
        needed.then_some(Incoming::Bytes { image_offset, bytes: Cow::Borrowed(bytes) })
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

    fn piece_ended(
        &mut self,
        conn: Conn,
        chunk: ChunkId,
        offset: u32,
        count: u32,
        now: Instant,
    ) -> Result<(), Fault> {
        let range = self.manifest.layout().range(chunk);
        let expected = range.end - range.start;
        let Some(source) = self.sources.get_mut(&conn) else { return Ok(()) };
        let Some(i) = source.transfers.iter().position(|t| t.chunk == chunk) else { return Ok(()) };
        if let Some(transfer) = source.transfers.get_mut(i) {
            transfer.tags.retain(|(piece, _)| *piece != offset);
            if transfer.came < expected && count > 0 && !transfer.tags.is_empty() {
                return Ok(());
            }
        }
        let transfer = source.transfers.swap_remove(i);
        for (_, tag) in &transfer.tags {
            source.client.flush(*tag);
        }
        let address = source.address;
        let right = self.manifest.hash(chunk) == Some(&transfer.hasher.finalize());
        self.changed = true;
        let since = self.scheduler.asked_since(conn, chunk);
        let needed = self.scheduler.missing().contains(chunk);
        self.scheduler.ended(conn, chunk, right, now);
        let share = self.shares.entry(address).or_default();
        if !right {
            share.wrong = share.wrong.saturating_add(1);
            source.wrong += 1;
            // A source that lies once and is dialed again has lied twice; but the files of the origin may have
            // changed under it.
            let wrong = if source.is_origin { source.wrong } else { share.wrong };
            self.trouble(&format!("{address} sent chunk {chunk} with a wrong hash"));
            self.actions.push_back(Action::Report(Event::WrongChunk(address, chunk)));
            return if wrong >= MAX_WRONG_CHUNKS { Err(Fault::WrongChunks) } else { Ok(()) };
        }
        if let Some(since) = since {
            self.scheduler.measured(conn, now.saturating_duration_since(since));
        }
        if !needed {
            return Ok(());
        }
        share.bytes = share.bytes.saturating_add(expected);
        source.brought += 1;
        source.refused = 0;
        if let Some(bytes) = transfer.apart {
            let bytes = Cow::Owned(bytes);
            self.ready.push_back(Incoming::Bytes { image_offset: range.start, bytes });
        }
        self.order.push(chunk);
        self.progress = Some(now);
        self.somebody_speaks();
        self.ready.push_back(Incoming::Verified(chunk));
        Ok(())
    }

    /// A piece of a control file has come.
    fn text(&mut self, conn: Conn, file: Control, bytes: &[u8], now: Instant) -> Result<(), Fault> {
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
                _ => self.learn(SourceAddress::parse(line).ok_or(malformed.clone())?.0),
            }
        }
        Ok(())
    }

    fn have_line(&mut self, conn: Conn, line: &str, now: Instant) -> Result<(), Fault> {
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
    fn greeted(&mut self, conn: Conn, role: Role, now: Instant) {
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
    fn join(&mut self, conn: Conn, now: Instant) {
        let generation = self.manifest.generation();
        let join = Join { port: self.port, generation, all_files: self.serves_files };
        self.write(conn, Control::Avail, &join.to_string());
        for line in Report::Want(self.wanted.clone()).lines() {
            self.write(conn, Control::Next, &line);
        }
        self.report_held(conn, now);
    }

    /// Tells a source which chunks have come since it was last told.
    fn report_held(&mut self, conn: Conn, now: Instant) {
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
    fn report_news(&mut self, now: Instant) {
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
    fn report_troubles(&mut self) {
        if self.troubles.is_empty() {
            return;
        }
        let origin = self.sources.values_mut().find(|s| s.is_origin && s.role.is_some());
        if origin.is_some_and(|origin| origin.write_log(&self.troubles.join("\n"))) {
            self.troubles.clear();
        }
    }

    fn report_sent(&mut self) {
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
    fn ask_for_sources(&mut self, conn: Conn, now: Instant) {
        // Where distance matters, each has to know the one before it of those near.
        let enough = self.is_whole()
            || self.peers() >= self.rules.max_dialled && !self.scheduler.far_is_slow();
        let Some(source) = self.sources.get_mut(&conn) else { return };
        // If it is asked, it is asked again only after it has answered: where answers come late, as in a storm, more
        // questions would only make them later.
        if enough || !source.ask_for_sources() {
            self.ask_again_later(conn, now);
        }
    }

    fn ask_again_later(&mut self, conn: Conn, now: Instant) {
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

    /// Lets the source that has brought least give way to one that was not asked yet. A node that comes early finds
    /// few others, and some have sources that many draw from.
    fn replace_worst(&mut self, now: Instant) {
        let (last, held) = self.compared.unwrap_or((now, self.order.len()));
        let came = self.order.len() - held;
        let early = self.timers.is_set(Timer::ReplaceWorst);
        if self.is_whole() || (early && came < self.rules.redraw_chunks) {
            return;
        }
        self.compared = Some((now, self.order.len()));
        let wait = self.jittered(self.rules.redraw_every * 4 / 3);
        self.timers.set(Timer::ReplaceWorst, now + wait);
        if self.peers() < self.rules.max_dialled {
            return;
        }
        let Some(other) = self.choose(now, |candidate| !candidate.in_use) else { return };
        let peers = self.sources.iter().filter(|(_, s)| s.role == Some(Role::Node));
        let is_near = |source: &Source| self.candidates.is_near(source.address);
        let far = peers.clone().filter(|(_, source)| !is_near(source)).count();
        let spared = |source: &Source| {
            self.scheduler.far_is_slow() && far <= self.rules.far_kept && !is_near(source)
        };
        // Those that have had the time to bring something.
        let old = peers.filter(|(_, source)| source.since <= last && !spared(source));
        let worst = old.min_by_key(|(_, source)| source.brought).map(|(conn, _)| *conn);
        for source in self.sources.values_mut() {
            source.brought = 0;
        }
        if let Some(worst) = worst {
            self.replace(worst, other, now);
        }
    }

    /// Where distance matters, sources that are not near give way to near ones at once: nearly all has to come from
    /// those.
    fn prefer_near(&mut self, now: Instant) {
        while self.scheduler.far_is_slow() && !self.is_whole() {
            let far: Vec<(&Conn, &Source)> =
                self.sources.iter().filter(|(_, source)| self.is_far(source)).collect();
            if far.len() <= self.rules.far_kept {
                return;
            }
            let idle = far.iter().find(|(_, source)| source.transfers.is_empty());
            let Some(conn) = idle.map(|(conn, _)| **conn) else { return };
            let near = self.choose(now, |candidate| !candidate.in_use);
            let Some(near) = near.filter(|address| self.candidates.is_near(*address)) else {
                return;
            };
            self.replace(conn, near, now);
        }
    }

    /// Ends the connection to a source, and dials another in its place.
    fn replace(&mut self, conn: Conn, other: SocketAddr, now: Instant) {
        let Some(source) = self.sources.remove(&conn) else { return };
        self.timers.stop_all(conn);
        self.scheduler.remove(conn);
        self.candidates.replaced(source.address, now + self.rules.redraw_every * 8);
        self.actions.push_back(Action::Close(conn));
        self.dial_one(other, false, now);
    }

    fn dial(&mut self, now: Instant) {
        let has_origin = self.sources.values().any(|source| source.is_origin);
        if !has_origin && !self.timers.is_set(Timer::DialOrigin) {
            let turn = self.origin.turn % self.origin.addresses.len().max(1);
            if let Some(address) = self.origin.addresses.get(turn).copied() {
                self.dial_one(address, true, now);
            }
        }
        while let Some(useful) = self.usefulness()
            && let Some(address) = self.choose(now, useful)
        {
            self.dial_one(address, false, now);
        }
        let due = self.usefulness().and_then(|useful| self.candidates.next_due(now, useful));
        match due {
            Some(due) => self.timers.set(Timer::DialCandidate, due),
            None => self.timers.stop(Timer::DialCandidate),
        }
    }

    /// Any node of those that may be dialed now and are `wanted`.
    fn choose(&mut self, now: Instant, wanted: impl Fn(&Candidate) -> bool) -> Option<SocketAddr> {
        let random = next_random(&mut self.random);
        let far = self.sources.values().filter(|source| self.is_far(source));
        let near_first = self.scheduler.far_is_slow() && far.count() >= self.rules.far_kept;
        self.candidates.choose(now, random, near_first, wanted)
    }

    /// Which nodes could be of use, now or when their time has come; None if nobody could.
    fn usefulness(&self) -> Option<impl Fn(&Candidate) -> bool + use<>> {
        let peers = if self.is_whole() { usize::MAX } else { self.peers() };
        let (any, callers) = (peers < self.rules.max_dialled, peers < self.rules.max_peers);
        callers
            .then_some(move |candidate: &Candidate| !candidate.in_use && (any || candidate.calls))
    }

    fn dial_one(&mut self, address: SocketAddr, is_origin: bool, now: Instant) {
        self.last = self.last.next();
        let conn = self.last;
        self.candidates.dialed(address);
        self.sources.insert(conn, Source::new(address, is_origin, self.traces, now));
        self.timers.set(Timer::Connect(conn), now + CONNECTING);
        self.set_greeting_timers();
        self.actions.push_back(Action::Dial(conn, address));
    }

    fn succeeded(&mut self, conn: Conn, token: Token) {
        let Some(source) = self.sources.get_mut(&conn) else { return };
        match token {
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
            | Token::Clunk => Ok(()),
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
        self.candidates.rest(address, now + BAN);
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
        self.accuse(address, is_origin, fault);
        self.actions.push_back(Action::Close(conn));
    }

    /// Says why a source is not used any longer. The origin is told of it, but for what it knows of itself.
    fn accuse(&mut self, address: SocketAddr, is_origin: bool, fault: Fault) {
        if !is_origin || fault == Fault::WrongChunks {
            self.trouble(&format!("{address}: {fault}"));
        }
        self.actions.push_back(Action::Report(Event::Dropped(address, fault)));
    }

    fn read(&mut self, conn: Conn, file: Control) {
        if let Some(source) = self.sources.get_mut(&conn) {
            source.read(file);
        }
    }

    fn write(&mut self, conn: Conn, file: Control, text: &str) {
        if let Some(source) = self.sources.get_mut(&conn) {
            source.write(file, text);
        }
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
