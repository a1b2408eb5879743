//! A node's fetching, without sockets and files: joins the 9P client sessions and the scheduler.
//!
//! The driver dials when it is told to, hands in the bytes that arrive, sends what
//! [`Fetch::output`] holds, and stores what [`Fetch::receive`] gives it. Chunks are hashed here as
//! their bytes come, so that none is ever held in memory as a whole, and only a chunk with the right
//! hash is reported as verified.

mod link;
pub mod scheduler;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fetch::scheduler::{Command, Kind, Scheduler, SourceId};
use crate::image::chunks::{ChunkId, ChunkSet, parse_run};
use crate::image::manifest::Manifest;
use crate::limits::{
    BAN, MAX_ADDRESSES, MAX_LOG_LINE_BYTES, MAX_MUTE_DOUBLINGS, MAX_REFUSED_CHUNKS, MAX_TROUBLES,
    MAX_WRONG_CHUNKS, MUTE, MUTE_HOME,
};
use crate::network::is_near;
use crate::p9::client::Broken;
use crate::p9::errno::Errno;
use crate::random::next_random;
use crate::serve::hub::{HAVE_MASTER, HAVE_NODE};
use crate::serve::tree::Control;
use crate::swarm::rules::Rules;

pub(crate) use link::parse_address;
use link::{Arrived, Link, Token, runs_lines};

/// Wait before a node is dialled again after a failure; doubled each time.
const REDIAL_PEER: Duration = Duration::from_secs(2);
/// Wait before the named server is dialled again; doubled each time.
const REDIAL_HOME: Duration = Duration::from_millis(250);
/// Longest wait between two calls of the named server.
const REDIAL_HOME_MOST: Duration = Duration::from_secs(8);
/// How long other sources are hoped to come by what is missing.
const HOPE: Duration = Duration::from_secs(30);
/// Wait before the named server is called again after it sent wrong chunks: files that were changed
/// under it it will serve as another generation soon.
const REDIAL_LIAR: Duration = Duration::from_secs(3);
/// How often it may do that.
const MAX_HOME_LIES: u32 = 3;
/// Wait before a server is called again that serves another generation than the one held here.
const REDIAL_OTHER: Duration = Duration::from_secs(60);
/// How often a master is told how much was sent from here.
const TELL_SENT_EVERY: Duration = Duration::from_secs(2);

/// What the driver should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to `address`, and report [`Fetch::connected`] or [`Fetch::closed`].
    Dial {
        /// The number under which to report.
        source: SourceId,
        /// Where to.
        address: SocketAddr,
    },
    /// End the connection; it is forgotten here already.
    Close {
        /// Which one.
        source: SourceId,
    },
}

/// What came of received bytes.
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
    /// A source sent a chunk with a wrong hash; it will be had from another.
    Wrong {
        /// Who.
        address: SocketAddr,
        /// Which chunk.
        chunk: ChunkId,
    },
    /// The server serves another generation by now.
    Stale,
}

/// Why a source is not used any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks the protocol.
    Broken(Broken),
    /// It refused something without which nothing can be had from it.
    Refused(Control, Errno),
    /// It said something in a control file that makes no sense.
    Nonsense(Control),
    /// It serves another generation.
    OtherGeneration,
    /// It sent wrong chunks.
    WrongChunks,
    /// It was asked for chunks, and nothing came.
    Silent,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Broken(broken) => write!(f, "{broken}"),
            Fault::Refused(file, errno) => write!(f, "refused .xget/{}: {errno}", file.name()),
            Fault::Nonsense(file) => write!(f, "sent an invalid line in .xget/{}", file.name()),
            Fault::OtherGeneration => write!(f, "serves another generation"),
            Fault::WrongChunks => write!(f, "sent chunks with wrong hashes"),
            Fault::Silent => write!(f, "does not send requested chunks"),
        }
    }
}

/// What came from one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of verified chunks.
    pub bytes: u64,
    /// Chunks with wrong contents.
    pub wrong: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    linked: bool,
    /// It fetches from here.
    calls: bool,
    not_before: Option<Instant>,
    failures: u32,
}

/// The fetch of one generation by one node.
#[derive(Debug)]
pub struct Fetch {
    rules: Rules,
    manifest: Arc<Manifest>,
    wanted: ChunkSet,
    scheduler: Scheduler,
    links: BTreeMap<SourceId, Link>,
    last_source: u64,
    home: Vec<SocketAddr>,
    home_turn: usize,
    home_failures: u32,
    home_lies: u32,
    home_due: Option<Instant>,
    places: BTreeMap<SocketAddr, Place>,
    port: u16,
    serves_files: bool,
    own: Vec<IpAddr>,
    /// Verified chunks in the order in which they came.
    order: Vec<ChunkId>,
    shares: BTreeMap<SocketAddr, Share>,
    ready: VecDeque<Incoming<'static>>,
    outputs: VecDeque<Output>,
    faults: Vec<(SocketAddr, Fault)>,
    /// Lines for the log of the server that was named.
    troubles: Vec<String>,
    /// When the source that brings least gives way to another.
    redraw_due: Option<Instant>,
    /// When that last happened, and how many chunks were here then.
    redrawn: Option<(Instant, usize)>,
    /// Image bytes that were sent from here, and when masters are to be told.
    sent_bytes: u64,
    tell_sent: Option<Instant>,
    /// When a chunk last came; before the first, when there was first somebody to ask.
    progress: Option<Instant>,
    /// How often in a row somebody was hung up on who had said nothing, while nobody else said anything.
    mute_doublings: u32,
    /// Nothing but what the scheduler wants is to be done before then, unless something happens.
    /// None: look at once.
    look_at: Option<Option<Instant>>,
    random: u64,
    trace: bool,
}

impl Fetch {
    /// A node that serves on `port`, wants some chunks and holds a part of them already.
    ///
    /// `home` are the addresses of the server that was named, in the order to try them.
    pub fn new(
        manifest: Arc<Manifest>,
        wanted: ChunkSet,
        held: &ChunkSet,
        home: Vec<SocketAddr>,
        port: u16,
        rules: Rules,
        seed: u64,
    ) -> Fetch {
        let mut missing = wanted.clone();
        for chunk in held.iter() {
            missing.remove(chunk);
        }
        Fetch {
            rules,
            scheduler: Scheduler::new(*manifest.layout(), missing, rules, seed),
            manifest,
            wanted,
            links: BTreeMap::new(),
            last_source: 0,
            home,
            home_turn: 0,
            home_failures: 0,
            home_lies: 0,
            home_due: None,
            places: BTreeMap::new(),
            port,
            serves_files: false,
            own: Vec::new(),
            order: held.iter().collect(),
            shares: BTreeMap::new(),
            ready: VecDeque::new(),
            outputs: VecDeque::new(),
            faults: Vec::new(),
            troubles: Vec::new(),
            redraw_due: None,
            redrawn: None,
            sent_bytes: 0,
            tell_sent: None,
            progress: None,
            mute_doublings: 0,
            look_at: None,
            random: seed | 1,
            trace: false,
        }
    }

    /// Lets classic clients be sent here: all files are shown here, and whoever reads one is waited
    /// for.
    pub fn serve_files(&mut self) {
        self.serves_files = true;
    }

    /// Keeps a line for every message from now on.
    pub fn trace(&mut self) {
        self.trace = true;
    }

    /// What is wanted and not verified yet.
    pub fn missing(&self) -> &ChunkSet {
        self.scheduler.missing()
    }

    /// Is everything here that was wanted?
    pub fn is_whole(&self) -> bool {
        self.missing().is_empty()
    }

    /// How often in a row the named server could not be reached while nobody else had anything to
    /// give either; 0 as long as chunks come, or may come soon.
    pub fn stranded(&self, now: Instant) -> u32 {
        let recent = |at: Instant| now.saturating_duration_since(at) < HOPE;
        match self.sources() > 0 && self.progress.is_some_and(recent) {
            true => 0,
            false => self.home_failures,
        }
    }

    /// Whether the named server keeps sending wrong chunks, and nobody else can be asked.
    pub fn is_deceived(&self) -> bool {
        self.home_lies >= MAX_HOME_LIES && self.sources() == 0
    }

    /// Sources that can be asked at present.
    pub fn sources(&self) -> usize {
        self.links.values().filter(|link| link.kind.is_some()).count()
    }

    /// What came from whom.
    pub fn shares(&self) -> &BTreeMap<SocketAddr, Share> {
        &self.shares
    }

    /// The addresses of the server that was named.
    pub fn home(&self) -> &[SocketAddr] {
        &self.home
    }

    /// The named server was looked up again. If it has moved, it is called where it is by now.
    pub fn found_home(&mut self, home: Vec<SocketAddr>, now: Instant) {
        if home.iter().any(|address| !self.home.contains(address)) {
            (self.home, self.home_turn, self.home_due) = (home, 0, Some(now));
        }
    }

    /// The manifest of what is fetched.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Is this one of the addresses of the server that was named?
    pub fn is_home(&self, address: &SocketAddr) -> bool {
        self.home.contains(address)
    }

    /// Sources given up since the last call, and why.
    pub fn take_faults(&mut self) -> Vec<(SocketAddr, Fault)> {
        std::mem::take(&mut self.faults)
    }

    /// Something has gone wrong here: one line for the log of the server that was named, which gets it
    /// once it can be reached. Control characters become spaces, and the line is cut where it is too
    /// long; where many lines wait, it is left out.
    pub fn trouble(&mut self, line: &str) {
        if self.troubles.len() < MAX_TROUBLES {
            let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_LOG_LINE_BYTES;
            let fitting = line.char_indices().take_while(fits).map(|(_, c)| c);
            self.troubles.push(fitting.map(|c| if c.is_control() { ' ' } else { c }).collect());
        }
    }

    /// The trace lines since the last call.
    pub fn take_trace(&mut self) -> Vec<(SocketAddr, String)> {
        let lines = |link: &mut Link| {
            let address = link.address;
            link.client.take_trace().into_iter().map(move |line| (address, line))
        };
        self.links.values_mut().flat_map(lines).collect()
    }

    /// A node that serves at `address` fetches from here.
    pub fn called_by(&mut self, address: SocketAddr) {
        self.learn(address);
        if let Some(place) = self.places.get_mut(&address).filter(|place| !place.calls) {
            place.calls = true;
            self.look_at = None;
        }
    }

    /// So many image bytes were sent from here so far, of which masters are told now and then.
    pub fn has_sent(&mut self, bytes: u64, now: Instant) {
        if bytes != self.sent_bytes {
            self.sent_bytes = bytes;
            self.tell_sent.get_or_insert(now + TELL_SENT_EVERY);
        }
    }

    /// A node that serves has come to be known.
    pub fn learn(&mut self, address: SocketAddr) {
        let myself = address.port() == self.port && self.own.contains(&address.ip());
        let known = self.places.contains_key(&address);
        if !known && !myself && !self.home.contains(&address) && self.places.len() < MAX_ADDRESSES {
            let place = Place { linked: false, calls: false, not_before: None, failures: 0 };
            self.look_at = None;
            if self.places.insert(address, place).is_none() && self.is_near(address) {
                self.scheduler.ring().add(address);
            }
        }
    }

    fn is_near(&self, address: SocketAddr) -> bool {
        self.own.iter().any(|own| is_near(*own, address.ip()))
    }

    /// Whether it goes to a node of another subnet.
    fn is_far(&self, link: &Link) -> bool {
        !link.home && !self.is_near(link.address)
    }

    /// A connection was made from the local address `own`.
    pub fn connected(&mut self, source: SourceId, own: IpAddr, now: Instant) {
        self.look_at = None;
        if !self.own.contains(&own) {
            self.own.push(own);
            self.scheduler.ring().stand_at(SocketAddr::new(own, self.port));
        }
        if let Some(link) = self.links.get_mut(&source) {
            link.reported_at = now;
            link.client.version(Token::Version);
        }
    }

    /// A connection ended or could not be made.
    pub fn closed(&mut self, source: SourceId, now: Instant) {
        if let Some(link) = self.links.get(&source) {
            self.scheduler.ring().remove(link.address);
        }
        self.part(source, now);
    }

    /// A connection is over, which does not say that the source is gone.
    fn part(&mut self, source: SourceId, now: Instant) {
        let Some(link) = self.links.remove(&source) else { return };
        self.look_at = None;
        self.scheduler.remove(source);
        if link.home {
            self.home_failures = self.home_failures.saturating_add(1);
            self.home_turn = self.home_turn.wrapping_add(1);
            let wait = backoff(REDIAL_HOME, self.home_failures, REDIAL_HOME_MOST);
            self.home_due = Some(now + self.jittered(wait));
        } else if let Some(place) = self.places.get_mut(&link.address) {
            place.linked = false;
            place.failures = place.failures.saturating_add(1);
            let wait = backoff(REDIAL_PEER, place.failures, BAN);
            place.not_before = Some(place.not_before.unwrap_or(now).max(now + wait));
        }
    }

    /// What waits to be sent to a source; the driver removes what it has sent from its front.
    pub fn output(&mut self, source: SourceId) -> Option<&mut Vec<u8>> {
        self.links.get_mut(&source).map(|link| link.client.output())
    }

    /// The next thing to do, or None until something happens or [`Fetch::deadline`] comes.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        while let Some(command) = self.scheduler.poll(now) {
            self.carry_out(command, now);
        }
        self.report_troubles();
        self.report_sent(now);
        if !self.is_quiet(now) {
            self.drop_mute(now);
            self.report_news(now);
            self.ask_for_sources(now);
            self.redraw(now);
            self.draw_near(now);
            self.dial(now);
            self.look_at = self.outputs.is_empty().then(|| self.next_look());
        }
        self.outputs.pop_front()
    }

    /// Whether [`Fetch::poll`] would do nothing: nothing has happened since that matters to it, and
    /// nothing is due.
    pub fn is_idle(&self, now: Instant) -> bool {
        let told = self.tell_sent.is_none_or(|due| now < due);
        told && self.outputs.is_empty() && self.is_quiet(now) && self.scheduler.is_idle(now)
    }

    /// When [`Fetch::poll`] has something to do by itself.
    pub fn deadline(&self) -> Option<Instant> {
        let own = self.look_at.unwrap_or_else(|| self.next_look());
        [own, self.tell_sent, self.scheduler.deadline()].into_iter().flatten().min()
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.look_at.is_some_and(|at| at.is_none_or(|at| now < at))
    }

    fn next_look(&self) -> Option<Instant> {
        let news = self.order.len();
        let report_every = self.rules.report_every;
        let links = self.links.values().flat_map(|link| {
            let behind = link.kind.is_some() && link.reported < news;
            [link.redir_due, behind.then(|| link.reported_at + report_every), self.mute_at(link)]
        });
        let rests = self.usefulness().and_then(|useful| {
            let rests = self.places.values().filter(|place| useful(place));
            rests.filter_map(|place| place.not_before).min()
        });
        let home = self.home_due.filter(|_| !self.has_home_link());
        let redraw = self.redraw_due.filter(|_| !self.is_whole());
        links.flatten().chain(rests).chain(home).chain(redraw).min()
    }

    /// Takes the next thing off the front of `bytes`; None when all of them are used up.
    ///
    /// A source at fault is closed by itself; [`Fetch::take_faults`] says why.
    pub fn receive<'a>(
        &mut self,
        source: SourceId,
        bytes: &mut &'a [u8],
        now: Instant,
    ) -> Option<Incoming<'a>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let link = self.links.get_mut(&source)?;
            let arrived = match link.client.receive(bytes) {
                Ok(event) => Arrived::of(event?),
                Err(broken) => Arrived::Broken(broken),
            };
            let result = match arrived {
                Arrived::Data(Token::Chunk { chunk, offset }, at, bytes) => {
                    let offset = u64::from(offset) + u64::from(at);
                    match self.chunk_bytes(source, chunk, offset, bytes, now) {
                        Some(incoming) => return Some(incoming),
                        None => Ok(()),
                    }
                }
                Arrived::Data(Token::Read(file), _, bytes) => self.text(source, file, bytes, now),
                Arrived::Data(..) => Ok(()),
                Arrived::End(token, count) => self.read_ended(source, token, count, now),
                Arrived::Done(token) => {
                    self.went_well(source, token);
                    Ok(())
                }
                Arrived::Refused(token, errno) => self.refused(source, token, errno, now),
                Arrived::Broken(broken) => Err(Fault::Broken(broken)),
            };
            if let Err(fault) = result {
                self.give_up(source, fault, now);
            }
        }
    }

    fn carry_out(&mut self, command: Command, now: Instant) {
        match command {
            Command::Fetch { source, chunk } => {
                self.report(source, now);
                self.fetch(source, chunk, now);
            }
            Command::AskNext { source } => {
                self.report(source, now);
                self.read(source, Control::Next);
            }
            Command::Abandon { source, chunk } => {
                if let Some(link) = self.links.get_mut(&source) {
                    link.abandon(chunk, None);
                }
            }
            Command::Drop { source } => self.drop_silent(source, now),
        }
    }

    fn drop_silent(&mut self, source: SourceId, now: Instant) {
        if let Some(link) = self.links.get(&source) {
            self.accuse(link.address, link.home, Fault::Silent);
        }
        self.closed(source, now);
        self.outputs.push_back(Output::Close { source });
    }

    /// Ends connections to those who take calls and say nothing: they keep others from a place. Twice
    /// the time is waited from then on, until somebody speaks: behind a very slow link, or in a storm,
    /// nobody is heard in time, and who hangs up and calls again only makes more of it.
    fn drop_mute(&mut self, now: Instant) {
        let mute = |link: &Link| self.mute_at(link).is_some_and(|at| at <= now);
        let mute = self.links.iter().filter(|(_, link)| mute(link));
        let mute: Vec<SourceId> = mute.map(|(source, _)| *source).collect();
        if !mute.is_empty() {
            self.mute_doublings = (self.mute_doublings + 1).min(MAX_MUTE_DOUBLINGS);
        }
        mute.into_iter().for_each(|source| self.drop_silent(source, now));
    }

    /// When a source has said nothing for too long.
    fn mute_at(&self, link: &Link) -> Option<Instant> {
        let patience = if link.home { MUTE_HOME } else { MUTE };
        let patience = patience.saturating_mul(1 << self.mute_doublings);
        link.kind.is_none().then(|| link.since + patience)
    }

    fn fetch(&mut self, source: SourceId, chunk: ChunkId, now: Instant) {
        let apart = self.links.values().any(|link| {
            link.transfers.iter().any(|other| other.chunk == chunk && other.apart.is_none())
        });
        let range = self.manifest.layout().range(chunk);
        let Some(link) = self.links.get_mut(&source) else { return };
        if !link.fetch(chunk, &range, apart) {
            // Too many small pieces: this source has to wait until some of them have come.
            self.scheduler.ended(source, chunk, false, now);
        }
    }

    /// Bytes of a chunk: hashed, then stored at once or kept apart.
    fn chunk_bytes<'a>(
        &mut self,
        source: SourceId,
        chunk: ChunkId,
        offset: u64,
        bytes: &'a [u8],
        now: Instant,
    ) -> Option<Incoming<'a>> {
        self.scheduler.progressed(source, chunk, now);
        let needed = self.missing().contains(chunk);
        let range = self.manifest.layout().range(chunk);
        let link = self.links.get_mut(&source)?;
        let transfer = link.transfers.iter_mut().find(|transfer| transfer.chunk == chunk)?;
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
        source: SourceId,
        token: Token,
        count: u32,
        now: Instant,
    ) -> Result<(), Fault> {
        match token {
            Token::Chunk { chunk, offset } => self.piece_ended(source, chunk, offset, count, now),
            // The end of `have` is never reached by a server that means it.
            Token::Read(Control::Have) if count == 0 => Err(Fault::Nonsense(Control::Have)),
            Token::Read(Control::Have) => {
                self.read(source, Control::Have);
                Ok(())
            }
            Token::Read(Control::Next) if count == 0 => Err(Fault::Nonsense(Control::Next)),
            Token::Read(Control::Redir) => {
                self.ask_again_later(source, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn piece_ended(
        &mut self,
        source: SourceId,
        chunk: ChunkId,
        offset: u32,
        count: u32,
        now: Instant,
    ) -> Result<(), Fault> {
        let range = self.manifest.layout().range(chunk);
        let expected = range.end - range.start;
        let Some(link) = self.links.get_mut(&source) else { return Ok(()) };
        let Some(i) = link.transfers.iter().position(|t| t.chunk == chunk) else { return Ok(()) };
        if let Some(transfer) = link.transfers.get_mut(i) {
            transfer.tags.retain(|(piece, _)| *piece != offset);
            if transfer.came < expected && count > 0 && !transfer.tags.is_empty() {
                return Ok(());
            }
        }
        let transfer = link.transfers.swap_remove(i);
        transfer.tags.iter().for_each(|(_, tag)| link.client.flush(*tag));
        let address = link.address;
        let right = self.manifest.hash(chunk) == Some(&transfer.hasher.finalize());
        self.look_at = None;
        let since = self.scheduler.asked_since(source, chunk);
        let needed = self.scheduler.missing().contains(chunk);
        self.scheduler.ended(source, chunk, right, now);
        let share = self.shares.entry(address).or_default();
        if !right {
            share.wrong = share.wrong.saturating_add(1);
            link.wrong += 1;
            self.ready.push_back(Incoming::Wrong { address, chunk });
            // Who lies once and calls again has lied twice; but the files of the server that was named
            // may have changed under it.
            let wrong = if link.home { link.wrong } else { share.wrong };
            return if wrong >= MAX_WRONG_CHUNKS { Err(Fault::WrongChunks) } else { Ok(()) };
        }
        if let Some(since) = since {
            self.scheduler.measured(source, now.saturating_duration_since(since));
        }
        if !needed {
            return Ok(());
        }
        share.bytes = share.bytes.saturating_add(expected);
        link.brought += 1;
        link.refused = 0;
        if let Some(bytes) = transfer.apart {
            let bytes = Cow::Owned(bytes);
            self.ready.push_back(Incoming::Bytes { image_offset: range.start, bytes });
        }
        self.order.push(chunk);
        self.progress = Some(now);
        self.mute_doublings = 0;
        self.ready.push_back(Incoming::Verified(chunk));
        Ok(())
    }

    /// A piece of a control file has come.
    fn text(
        &mut self,
        source: SourceId,
        file: Control,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(link) = self.links.get_mut(&source) else { return Ok(()) };
        let lines = match file {
            Control::Have => &mut link.have,
            Control::Next => &mut link.next,
            _ => &mut link.redir,
        };
        let nonsense = Fault::Nonsense(file);
        for line in lines.add(bytes).ok_or(nonsense.clone())?.lines() {
            match file {
                Control::Have => self.have_line(source, line, now)?,
                Control::Next => {
                    let chunk = line.parse().ok().and_then(|n| self.manifest.layout().chunk(n));
                    self.scheduler.granted(source, chunk.ok_or(nonsense.clone())?, now);
                }
                _ => self.learn(parse_address(line).ok_or(nonsense.clone())?),
            }
        }
        Ok(())
    }

    fn have_line(&mut self, source: SourceId, line: &str, now: Instant) -> Result<(), Fault> {
        let nonsense = Fault::Nonsense(Control::Have);
        let Some(link) = self.links.get_mut(&source) else { return Ok(()) };
        if link.kind.is_some() {
            for chunk in parse_run(line, self.manifest.layout()).ok_or(nonsense.clone())? {
                self.scheduler.has(source, chunk, now);
                link.named += 1;
            }
            // Each chunk comes once: a short line that names all of them again is much work.
            let most = 2 * u64::from(self.manifest.layout().count());
            return if link.named > most { Err(nonsense) } else { Ok(()) };
        }
        let (generation, role) = line.split_once(' ').ok_or(nonsense.clone())?;
        if generation != self.manifest.generation().to_hex().as_str() {
            return Err(Fault::OtherGeneration);
        }
        let address = link.address;
        let kind = match role {
            HAVE_MASTER => Kind::Master,
            HAVE_NODE => Kind::Peer,
            _ => return Err(nonsense),
        };
        self.look_at = None;
        link.kind = Some(kind);
        self.progress.get_or_insert(now);
        self.mute_doublings = 0;
        link.redir_due = Some(now + self.rules.redir_first);
        link.redir_wait = self.rules.redir_first;
        if link.home {
            self.home_failures = 0;
        }
        if let Some(place) = self.places.get_mut(&link.address) {
            place.failures = 0;
        }
        let near = self.is_near(address);
        if near && kind == Kind::Peer {
            self.scheduler.ring().add(address);
        }
        self.scheduler.add(source, kind, near, now);
        self.join(source, now);
        Ok(())
    }

    /// Tells a source what is wanted and held here, and where others can have it from.
    fn join(&mut self, source: SourceId, now: Instant) {
        let files = if self.serves_files { " files" } else { "" };
        let text = format!("{} {}{files}\n", self.port, self.manifest.generation().to_hex());
        let want = runs_lines("want", &self.wanted);
        self.write(source, Control::Avail, &text);
        want.iter().for_each(|line| self.write(source, Control::Next, line));
        self.report(source, now);
    }

    /// Tells a source which chunks have come since it was last told.
    fn report(&mut self, source: SourceId, now: Instant) {
        let Some(link) = self.links.get_mut(&source) else { return };
        let news = self.order.get(link.reported..).unwrap_or_default();
        if news.is_empty() || link.kind.is_none() {
            return;
        }
        let mut held = ChunkSet::empty(self.manifest.layout());
        news.iter().for_each(|chunk| {
            held.insert(*chunk);
        });
        link.reported = self.order.len();
        link.reported_at = now;
        for line in runs_lines("held", &held) {
            self.write(source, Control::Next, &line);
        }
    }

    fn report_news(&mut self, now: Instant) {
        let behind = |link: &Link| {
            link.kind.is_some()
                && link.reported < self.order.len()
                && (self.is_whole() || link.reported_at + self.rules.report_every <= now)
        };
        let due: Vec<SourceId> =
            self.links.iter().filter(|(_, link)| behind(link)).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|source| self.report(source, now));
    }

    /// Writes into the log of the server that was named.
    fn report_troubles(&mut self) {
        let home = self.links.values_mut().find(|link| link.home && link.kind.is_some());
        if let Some(home) = home.filter(|_| !self.troubles.is_empty())
            && home.write_log(&self.troubles.join("\n"))
        {
            self.troubles.clear();
        }
    }

    fn report_sent(&mut self, now: Instant) {
        if self.tell_sent.is_none_or(|due| due > now) {
            return;
        }
        self.tell_sent = None;
        let line = format!("sent {} {}", self.sent_bytes, self.sources());
        let masters = self.links.iter().filter(|(_, link)| link.kind == Some(Kind::Master));
        let masters: Vec<SourceId> = masters.map(|(id, _)| *id).collect();
        masters.into_iter().for_each(|source| self.write(source, Control::Next, &line));
    }

    /// Reads `redir` again where more sources could be of use.
    fn ask_for_sources(&mut self, now: Instant) {
        // Where distance matters, each has to know the one before it of those near.
        let enough = self.is_whole()
            || self.peers() >= self.rules.max_dialled && !self.scheduler.far_is_dear();
        let due = |link: &Link| link.redir_due.is_some_and(|due| due <= now);
        let due: Vec<SourceId> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(id, _)| *id).collect();
        for source in due {
            let Some(link) = self.links.get_mut(&source) else { continue };
            // Not again before the answer: where it comes late, as in a storm, that would only make more
            // of it.
            link.redir_due = None;
            if enough || !link.ask_for_sources() {
                self.ask_again_later(source, now);
            }
        }
    }

    fn ask_again_later(&mut self, source: SourceId, now: Instant) {
        let most = self.rules.redir_most;
        let Some(link) = self.links.get_mut(&source) else { return };
        let wait = link.redir_wait;
        link.redir_wait = (wait * 3 / 2).min(most);
        let due = now + self.jittered(wait * 4 / 3);
        if !self.is_whole()
            && let Some(link) = self.links.get_mut(&source)
        {
            link.redir_due = Some(due);
            self.look_at = None;
        }
    }

    /// Lets the source that has brought least give way to one that was not asked yet. Who comes early
    /// finds few others, and some have sources that many draw from.
    fn redraw(&mut self, now: Instant) {
        let (last, held) = self.redrawn.unwrap_or((now, self.order.len()));
        let came = self.order.len() - held;
        let early = self.redraw_due.is_some_and(|due| due > now);
        if self.is_whole() || (early && came < self.rules.redraw_chunks) {
            return;
        }
        self.redrawn = Some((now, self.order.len()));
        self.redraw_due = Some(now + self.jittered(self.rules.redraw_every * 4 / 3));
        if self.peers() < self.rules.max_dialled {
            return;
        }
        let Some(other) = self.choose(now, |place| !place.linked) else { return };
        let peers = self.links.iter().filter(|(_, link)| link.kind == Some(Kind::Peer));
        let far = peers.clone().filter(|(_, link)| !self.is_near(link.address)).count();
        let spared = |link: &Link| {
            self.scheduler.far_is_dear()
                && far <= self.rules.far_kept
                && !self.is_near(link.address)
        };
        // Those that have had the time to bring something.
        let old = peers.filter(|(_, link)| link.since <= last && !spared(link));
        let worst = old.min_by_key(|(_, link)| link.brought).map(|(source, _)| *source);
        self.links.values_mut().for_each(|link| link.brought = 0);
        let Some(source) = worst else { return };
        self.replace(source, other, now);
    }

    /// Where distance matters, sources that are not near give way to near ones at once: nearly all
    /// has to come from those.
    fn draw_near(&mut self, now: Instant) {
        while self.scheduler.far_is_dear() && !self.is_whole() {
            let far = self.links.iter().filter(|(_, link)| self.is_far(link));
            let far: Vec<SourceId> = far.map(|(source, _)| *source).collect();
            let idle = |source: &SourceId| {
                self.links.get(source).is_some_and(|link| link.transfers.is_empty())
            };
            let enough = far.len() > self.rules.far_kept;
            let Some(source) = far.into_iter().find(idle).filter(|_| enough) else { return };
            let near = self.choose(now, |place| !place.linked);
            let Some(near) = near.filter(|address| self.is_near(*address)) else { return };
            self.replace(source, near, now);
        }
    }

    /// Ends the connection to a source, and dials another in its place.
    fn replace(&mut self, source: SourceId, other: SocketAddr, now: Instant) {
        let Some(link) = self.links.remove(&source) else { return };
        self.scheduler.remove(source);
        if let Some(place) = self.places.get_mut(&link.address) {
            place.linked = false;
            place.not_before = Some(now + self.rules.redraw_every * 8);
        }
        self.outputs.push_back(Output::Close { source });
        self.link(other, false, now);
    }

    fn dial(&mut self, now: Instant) {
        if !self.has_home_link() && self.home_due.is_none_or(|due| due <= now) {
            let turn = self.home_turn % self.home.len().max(1);
            if let Some(address) = self.home.get(turn).copied() {
                self.link(address, true, now);
            }
        }
        while let Some(useful) = self.usefulness()
            && let Some(address) = self.choose(now, useful)
        {
            self.link(address, false, now);
        }
    }

    /// Any node of those that can be dialled now and are `wanted`.
    fn choose(&mut self, now: Instant, wanted: impl Fn(&Place) -> bool) -> Option<SocketAddr> {
        let random = next_random(&mut self.random);
        let due = |place: &Place| wanted(place) && place.not_before <= Some(now);
        let due = self.places.iter().filter(|(_, place)| due(place));
        let far = self.links.values().filter(|link| self.is_far(link));
        let enough = self.scheduler.far_is_dear() && far.count() >= self.rules.far_kept;
        due.map(|(address, _)| *address).min_by_key(|address| {
            let mixed =
                (u64::from(address.port()) << 32 | low_bits(address.ip())).wrapping_mul(random);
            (enough && !self.is_near(*address), mixed)
        })
    }

    /// Which nodes could be of use, now or when their time has come; None if nobody could.
    fn usefulness(&self) -> Option<impl Fn(&Place) -> bool + use<>> {
        let peers = if self.is_whole() { usize::MAX } else { self.peers() };
        let (any, callers) = (peers < self.rules.max_dialled, peers < self.rules.max_peers);
        callers.then_some(move |place: &Place| !place.linked && (any || place.calls))
    }

    fn link(&mut self, address: SocketAddr, home: bool, now: Instant) {
        self.last_source += 1;
        let source = SourceId(self.last_source);
        if let Some(place) = self.places.get_mut(&address) {
            place.linked = true;
        }
        let link = Link::new(address, home, self.trace, now);
        self.links.insert(source, link);
        self.outputs.push_back(Output::Dial { source, address });
    }

    fn went_well(&mut self, source: SourceId, token: Token) {
        let Some(link) = self.links.get_mut(&source) else { return };
        match token {
            Token::Version => link.attach(),
            Token::Attach => link.open_files(),
            _ => {}
        }
    }

    fn refused(
        &mut self,
        source: SourceId,
        token: Token,
        errno: Errno,
        now: Instant,
    ) -> Result<(), Fault> {
        if errno == Errno::ESTALE {
            return Err(Fault::OtherGeneration);
        }
        match token {
            Token::Version | Token::Attach => Err(Fault::Refused(Control::Image, errno)),
            // It feeds as many as it can. The server that was named is all that some have.
            Token::Write(Control::Avail) if errno == Errno::EBUSY => {
                if self.links.get(&source).is_some_and(|link| !link.home) {
                    self.part(source, now);
                    self.outputs.push_back(Output::Close { source });
                }
                Ok(())
            }
            // Without these there are fewer sources, or nobody comes: no reason to part.
            Token::Open(Control::Redir | Control::Avail | Control::Log)
            | Token::Write(_)
            | Token::Clunk => Ok(()),
            Token::Read(Control::Redir) => {
                self.ask_again_later(source, now);
                Ok(())
            }
            Token::Open(file) | Token::Read(file) => Err(Fault::Refused(file, errno)),
            Token::Chunk { chunk, offset } => {
                let Some(link) = self.links.get_mut(&source) else { return Ok(()) };
                link.abandon(chunk, Some(offset));
                link.refused += 1;
                let vain = link.refused >= MAX_REFUSED_CHUNKS && !link.home;
                self.scheduler.ended(source, chunk, false, now);
                if vain { Err(Fault::Refused(Control::Image, errno)) } else { Ok(()) }
            }
        }
    }

    fn give_up(&mut self, source: SourceId, fault: Fault, now: Instant) {
        let Some(link) = self.links.get(&source) else { return };
        let (address, home) = (link.address, link.home);
        if let Some(place) = self.places.get_mut(&address) {
            place.not_before = Some(now + BAN);
        }
        if home && fault == Fault::OtherGeneration {
            self.ready.push_back(Incoming::Stale);
        }
        self.closed(source, now);
        if home && fault == Fault::WrongChunks {
            self.home_lies += 1;
            self.home_due = Some(now + REDIAL_LIAR);
        }
        if home && fault == Fault::OtherGeneration && self.is_whole() {
            self.home_due = Some(now + REDIAL_OTHER);
        }
        self.accuse(address, home, fault);
        self.outputs.push_back(Output::Close { source });
    }

    /// Keeps why a source is not used any longer. The server that was named is told of it, but for
    /// what it knows of itself.
    fn accuse(&mut self, address: SocketAddr, home: bool, fault: Fault) {
        if !home || fault == Fault::WrongChunks {
            self.trouble(&format!("{address}: {fault}"));
        }
        self.faults.push((address, fault));
    }

    fn read(&mut self, source: SourceId, file: Control) {
        if let Some(link) = self.links.get_mut(&source) {
            link.read(file);
        }
    }

    fn write(&mut self, source: SourceId, file: Control, text: &str) {
        if let Some(link) = self.links.get_mut(&source) {
            link.write(file, text);
        }
    }

    fn has_home_link(&self) -> bool {
        self.links.values().any(|link| link.home)
    }

    fn peers(&self) -> usize {
        self.links.values().filter(|link| !link.home).count()
    }

    /// Between a half and the whole of `wait`.
    fn jittered(&mut self, wait: Duration) -> Duration {
        let part = (next_random(&mut self.random) % 1024) as f64 / 2048.0;
        wait.mul_f64(0.5 + part)
    }
}

fn backoff(first: Duration, failures: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}

fn low_bits(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() as u64,
    }
}

#[cfg(test)]
mod tests;
