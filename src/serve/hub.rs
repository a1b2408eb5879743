//! One serving side of the swarm: what a 9P session asks, answered for the master and for nodes.
//!
//! The hub knows who is connected, what is held here and whose turn it is. Whatever it changes for
//! another connection it reports as a wake-up; the driver then resumes that session.

#[cfg(feature = "classic")]
mod classic_host;
mod rendered;
pub mod totals;
mod turns;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::classic_clients::ClassicClients;
use super::flows::Flows;
use super::grants::Grants;
use super::manifest_queue::{ManifestQueue, Turn};
use super::members::{Member, Members};
use super::rate_limit::RateLimit;
use super::reports::Reports;
use super::uploads::Uploads;
use crate::conn::Conn;
use crate::control::{Control, HaveHeader, Join, Report, Role, SourceAddress};
use crate::image::chunks::{ChunkId, ChunkSet, Layout};
use crate::image::manifest::Segment;
use crate::limits::{MASTER_HELD_BYTES, MAX_LOG_LINES, NODE_HELD_BYTES};
use crate::p9::errno::Errno;
use crate::serve::session::{Answer, At, Budget, Data, Host};
use crate::serve::tree::{Node, Tree};
use crate::swarm::meter::Meter;
use crate::swarm::rules::Rules;
use rendered::Rendered;

/// A node that fetches from here and got nothing for this long does not count as wanting anything.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// The serving side of the master or of a node.
#[derive(Debug)]
pub struct Hub {
    rules: Rules,
    tree: Arc<Tree>,
    members: Members,
    classic: ClassicClients,
    uploads: Uploads,
    flows: Flows,
    /// A master hands out chunks; at a node whoever fetches chooses them.
    grants: Option<Grants>,
    /// Chunks that may be sent.
    held: ChunkSet,
    /// Chunks that are or will be held.
    wanted: ChunkSet,
    /// What `have` reads: the generation and the role, then runs of chunks as they came.
    have: Vec<u8>,
    have_readers: BTreeSet<Conn>,
    have_due: Option<Instant>,
    /// What has come since readers of `have` were last told.
    news: Vec<ChunkId>,
    /// What has come since all of them were.
    news_for_all: Vec<ChunkId>,
    all_due: Option<Instant>,
    /// Who was told last.
    told: Conn,
    /// Connections that wait for image bytes which are not held yet.
    data_readers: BTreeSet<Conn>,
    /// A limit on what is sent, and who waits for it.
    rate_limit: Option<RateLimit>,
    wakes: BTreeSet<Conn>,
    manifest_queue: ManifestQueue,
    /// The manifest's signature, for whoever wants to check it.
    signature: Option<Arc<[u8]>>,
    joined: Vec<SocketAddr>,
    log: Reports,
    sent_bytes: u64,
    budget: Budget,
    sent_rate: Meter,
    /// Bytes of files that were sent to whoever takes no part in the swarm.
    plain_bytes: u64,
    /// What makes `metrics` of `status`, where there is such a file.
    metrics: Option<fn(&str) -> String>,
    rendered: Option<Rendered>,
}

impl Hub {
    /// A master that feeds at most `slots` nodes at a time.
    pub fn master(tree: Arc<Tree>, slots: usize, rules: Rules, seed: u64) -> Hub {
        let layout = *tree.manifest().layout();
        let full = ChunkSet::full(&layout);
        let grants = Grants::new(layout, slots, rules);
        Hub::new(tree, Uploads::new(slots), Some(grants), full.clone(), full, rules, seed)
    }

    /// A node that wants some chunks and holds part of them already.
    pub fn node(tree: Arc<Tree>, wanted: ChunkSet, held: ChunkSet, rules: Rules, seed: u64) -> Hub {
        let uploads = Uploads::new(rules.upload_slots);
        Hub::new(tree, uploads, None, wanted, held, rules, seed)
    }

    fn new(
        tree: Arc<Tree>,
        uploads: Uploads,
        grants: Option<Grants>,
        wanted: ChunkSet,
        held: ChunkSet,
        rules: Rules,
        seed: u64,
    ) -> Hub {
        let members = Members::new(*tree.manifest().layout(), rules, seed);
        let held_bytes = if grants.is_some() { MASTER_HELD_BYTES } else { NODE_HELD_BYTES };
        let have = first_have(&tree, grants.is_some(), &held);
        Hub {
            rules,
            tree,
            members,
            classic: ClassicClients::default(),
            uploads,
            flows: Flows::default(),
            grants,
            held,
            wanted,
            have,
            have_readers: BTreeSet::new(),
            have_due: None,
            news: Vec::new(),
            news_for_all: Vec::new(),
            all_due: None,
            told: Conn(0),
            data_readers: BTreeSet::new(),
            rate_limit: None,
            wakes: BTreeSet::new(),
            manifest_queue: ManifestQueue::new(rules),
            signature: None,
            joined: Vec::new(),
            log: Reports::default(),
            sent_bytes: 0,
            budget: Budget::new(held_bytes),
            sent_rate: Meter::default(),
            plain_bytes: 0,
            metrics: None,
            rendered: None,
        }
    }

    /// Sends at most so many image bytes a second from now on, to all connections together.
    pub(crate) fn limit_upload(&mut self, bytes_per_s: NonZeroU64) {
        self.rate_limit = Some(RateLimit::new(bytes_per_s));
    }

    /// The manifest's signature.
    pub(crate) fn signature(&self) -> Option<&Arc<[u8]>> {
        self.signature.as_ref()
    }

    /// The manifest has this signature, or none, from now on.
    pub(crate) fn sign(&mut self, signature: Option<Arc<[u8]>>) {
        self.signature = signature;
    }

    /// There is a file `metrics` from now on, which this makes of the text of `status`.
    pub fn export(&mut self, metrics: fn(&str) -> String) {
        self.metrics = Some(metrics);
    }

    /// A connection was accepted.
    pub fn connected(&mut self, conn: Conn, peer: SocketAddr, now: Instant) {
        self.members.connected(conn, peer, now);
    }

    /// A connection ended; its session was closed before.
    pub fn disconnected(&mut self, conn: Conn, now: Instant) {
        let host = self.members.host(conn);
        self.flows.ended(conn, host);
        self.members.disconnected(conn, now);
        self.classic.disconnected(conn);
        self.have_readers.remove(&conn);
        self.data_readers.remove(&conn);
        if let Some(rate_limit) = &mut self.rate_limit {
            rate_limit.cancel(conn);
        }
        self.manifest_was_read(At { conn, now });
        self.wakes.remove(&conn);
        if let Some(grants) = &mut self.grants {
            grants.gone(conn);
        }
        let next = self.uploads.cancel(conn, now);
        self.wakes.extend(next);
        let next = self.uploads.done(conn, now);
        self.wakes.extend(next);
        self.assign(now);
    }

    /// A chunk was verified and can be sent from now on.
    pub(crate) fn holds(&mut self, chunk: ChunkId, now: Instant) {
        if self.held.insert(chunk) {
            let _ = writeln!(Text(&mut self.have), "{chunk}");
            self.news.push(chunk);
            self.have_due.get_or_insert(now + self.rules.have_delay);
            self.wakes.append(&mut self.data_readers);
        }
    }

    /// Another state of the tree takes the place of this one (master), unsigned. Everybody who waits is
    /// woken, to be told that what it waits for is no longer served.
    pub fn publish(&mut self, tree: Arc<Tree>, slots: usize, seed: u64, now: Instant) {
        let mut next = Hub::master(tree, slots, self.rules, seed);
        for (conn, member) in self.members.iter() {
            next.connected(conn, member.peer, now);
            next.wakes.insert(conn);
        }
        next.classic = std::mem::take(&mut self.classic).after_change(&self.tree, &next.tree);
        next.sent_bytes = self.sent_bytes;
        next.sent_rate = self.sent_rate;
        next.plain_bytes = self.plain_bytes;
        next.members.count_on(&self.members);
        next.metrics = self.metrics;
        next.rate_limit = self.rate_limit.as_ref().map(RateLimit::without_waiting);
        next.budget = std::mem::replace(&mut self.budget, Budget::new(0));
        next.log = std::mem::take(&mut self.log);
        *self = next;
    }

    /// Does what is due by now; [`Hub::deadline`] says when to come back.
    pub fn tick(&mut self, now: Instant) {
        if let Some(rate_limit) = &mut self.rate_limit {
            self.wakes.extend(rate_limit.next(now));
        }
        let limit = self.upload_limit(now);
        let next = self.uploads.tick(limit, now);
        self.wakes.extend(next);
        self.offer_pieces(now);
        if self.have_due.is_some_and(|due| due <= now) {
            self.have_due = None;
            self.tell(self.rules.told_at_once);
            self.news_for_all.append(&mut self.news);
            self.all_due.get_or_insert(now + self.rules.all_told_after);
        }
        if self.all_due.is_some_and(|due| due <= now) {
            self.all_due = None;
            self.news = std::mem::take(&mut self.news_for_all);
            self.tell(usize::MAX);
            self.news.clear();
        }
        while let Some(conn) = self.manifest_queue.next(now) {
            self.wakes.insert(conn);
        }
        self.assign(now);
    }

    /// Wakes readers of `have` that lack something of the news, at most so many, by turns.
    fn tell(&mut self, most: usize) {
        let (news, members) = (&self.news, &self.members);
        let useful = |conn: &&Conn| members.get(**conn).is_none_or(|m| m.lacks_any(news));
        let later = self.have_readers.range((Bound::Excluded(self.told), Bound::Unbounded));
        let turns = later.chain(self.have_readers.range(..=self.told));
        let told: Vec<Conn> = turns.filter(useful).take(most).copied().collect();
        for conn in told {
            self.have_readers.remove(&conn);
            self.wakes.insert(conn);
            self.told = conn;
        }
    }

    /// When [`Hub::tick`] has something to do, if it ever has.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let grants = self.grants.as_ref().and_then(Grants::deadline);
        let have = [self.have_due, self.all_due].into_iter().flatten().min();
        let have = have.filter(|_| !self.have_readers.is_empty());
        let paid = self.rate_limit.as_ref().and_then(|rate_limit| rate_limit.deadline(now));
        let manifest = self.manifest_queue.deadline(now);
        let upload = self.uploads.deadline(self.upload_limit(now));
        let flow = self.flows.deadline();
        [grants, have, paid, manifest, upload, flow].into_iter().flatten().min()
    }

    /// How long one chunk may take to be sent while others wait: four times as long as all slots take by the present
    /// rate.
    fn upload_limit(&self, now: Instant) -> Duration {
        let least = self.rules.upload_turn;
        let slots_bytes = self.layout().chunk_bytes().saturating_mul(self.uploads.slots() as u64);
        match slots_bytes.saturating_mul(4_000).checked_div(self.sent_rate.rate(now)) {
            Some(millis) => Duration::from_millis(millis).max(least),
            None => least.saturating_mul(4),
        }
    }

    /// The connections whose sessions have to be resumed.
    pub fn take_wakes(&mut self) -> BTreeSet<Conn> {
        std::mem::take(&mut self.wakes)
    }

    /// Addresses of nodes that have joined since the last call.
    pub(crate) fn take_joined(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.joined)
    }

    /// What nodes wrote into the log since the last call.
    pub fn take_log(&mut self) -> Vec<(SocketAddr, String)> {
        self.log.take()
    }

    /// Who is connected.
    #[cfg(any(fuzzing, feature = "master"))]
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// Image bytes that were sent from here, to everybody.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Whether anybody is served, or is still fetching and so could want something.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        let fetches = |member: &Member| {
            !member.lacks.is_empty() && now.saturating_duration_since(member.progress) < GIVEN_UP
        };
        self.uploads.active() > 0
            || !self.data_readers.is_empty()
            || self.classic.is_drawn_from(now)
            || self.members.iter().any(|(_, member)| fetches(member))
    }

    /// A file whose Adler-32 a classic client wants: its driver computes it and calls
    /// [`Hub::checksum_found`].
    pub(crate) fn next_checksum(&mut self) -> Option<(Arc<Tree>, Segment)> {
        let entry = self.classic.next_checksum()?;
        let range = self.tree.entry(Node::Entry(entry)).map_or(0..0, |entry| entry.image_range());
        let len = range.end.saturating_sub(range.start);
        Some((self.tree.clone(), Segment { entry, offset: 0, len }))
    }

    /// The Adler-32 of a file of `tree`, or None if the file cannot be read or has changed.
    pub(crate) fn checksum_found(&mut self, tree: &Arc<Tree>, entry: usize, sum: Option<u32>) {
        if Arc::ptr_eq(tree, &self.tree) {
            self.wakes.append(&mut self.classic.checksum_found(entry, sum));
        }
    }

    /// How the image is cut into chunks.
    pub(crate) fn layout(&self) -> &Layout {
        self.tree.manifest().layout()
    }

    fn assign(&mut self, now: Instant) {
        if let Some(grants) = &mut self.grants {
            self.wakes.extend(grants.assign(&self.members, now));
        }
    }

    /// A piece of the manifest, for those whose turn it is.
    fn read_manifest(&mut self, at: At, offset: u64, count: usize) -> Answer<Vec<u8>> {
        let text = self.tree.manifest().text();
        let rest = usize::try_from(offset).ok().and_then(|start| text.get(start..));
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            // Who asks for more has got all of it. What was sent may wait in queues for long.
            self.manifest_was_read(at);
            return Answer::Now(Vec::new());
        };
        match self.manifest_queue.ask(at.conn, self.members.host(at.conn), at.now) {
            Turn::Now => {}
            Turn::Wait => return Answer::Wait,
            Turn::Refused => return Answer::Error(Errno::EBUSY),
        }
        Answer::Now(rest.get(..count).unwrap_or(rest).to_vec())
    }

    fn manifest_was_read(&mut self, at: At) {
        self.manifest_queue.done(at.conn);
        self.wakes.extend(self.manifest_queue.next(at.now));
    }

    /// A node serves others from now on.
    fn join(&mut self, conn: Conn, text: &str) -> Result<(), Errno> {
        let Join { port, generation, all_files } = Join::parse(text).ok_or(Errno::EINVAL)?;
        if generation != self.tree.manifest().generation() {
            return Err(Errno::ESTALE);
        }
        let most = self.rules.max_fetchers;
        if self.grants.is_none() && !self.members.has_place_for_fetcher(conn, most) {
            return Err(Errno::EBUSY);
        }
        let address = self.members.joined(conn, port).ok_or(Errno::EIO)?;
        self.classic.node_joined(conn, all_files);
        if self.joined.len() < MAX_LOG_LINES {
            self.joined.push(address);
        }
        Ok(())
    }

    /// Lines of `next`: what the writer lacks, what it holds, and what it has sent.
    ///
    /// Many lines cost no more than one that says the same.
    fn report(&mut self, at: At, text: &str) -> Result<(), Errno> {
        let (mut wanted, mut held, mut sent) = (None, None, None);
        for line in text.lines() {
            let (set, chunks) = match Report::parse(line, self.layout()).ok_or(Errno::EINVAL)? {
                Report::Want(chunks) => (&mut wanted, chunks),
                Report::Held(chunks) => (&mut held, chunks),
                Report::Sent { bytes, sources } => {
                    sent = Some((bytes, sources));
                    continue;
                }
            };
            match set {
                None => *set = Some(chunks),
                Some(set) => set.add_all(&chunks),
            }
        }
        if let Some(wanted) = wanted {
            self.members.wants(at.conn, wanted.iter());
        }
        if let Some(held) = held {
            let new = self.members.has(at.conn, held.iter(), at.now);
            if let Some(grants) = &mut self.grants {
                grants.held(at.conn, self.members.host(at.conn), &new, at.now);
            }
        }
        if let Some((bytes, sources)) = sent {
            self.members.passes_on(at.conn, bytes, sources, at.now);
        }
        if let Some(grants) = &mut self.grants {
            grants.reported(at.conn, self.members.host(at.conn));
        }
        self.assign(at.now);
        Ok(())
    }

    /// Lines for the log, by whoever serves where or called from where.
    fn note(&mut self, at: At, data: &[u8]) {
        if let Some(member) = self.members.get(at.conn) {
            self.log.add(member.serves.unwrap_or(member.peer), data, at.now);
        }
    }

    fn redir(&mut self, conn: Conn) -> String {
        let mut text = String::new();
        for source in self.members.sources(conn) {
            let _ = writeln!(text, "{}", SourceAddress(source));
        }
        text
    }

    /// What is to be sent and not held: it comes, or it never does.
    fn wait_for_chunks<T>(&mut self, at: At, tree: &Arc<Tree>, range: &Range<u64>) -> Answer<T> {
        let layout = *tree.manifest().layout();
        if layout.covering(range.clone()).any(|chunk| !self.wanted.contains(chunk)) {
            return Answer::Error(Errno::EIO);
        }
        self.data_readers.insert(at.conn);
        Answer::Wait
    }
}

fn first_have(tree: &Tree, grants: bool, held: &ChunkSet) -> Vec<u8> {
    let role = if grants { Role::Master } else { Role::Node };
    let mut text = format!("{}\n", HaveHeader { generation: tree.manifest().generation(), role });
    for run in held.runs().split(' ').filter(|run| !run.is_empty()) {
        text += run;
        text.push('\n');
    }
    text.into_bytes()
}

/// Lets `write!` append to bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Host for Hub {
    fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn has(&self, file: Control) -> bool {
        match file {
            Control::Signature => self.signature.is_some(),
            Control::Metrics => self.metrics.is_some(),
            _ => true,
        }
    }

    fn open(&mut self, at: At, file: Control) -> Result<Option<Arc<[u8]>>, Errno> {
        Ok(match file {
            Control::Signature => Some(self.signature.clone().ok_or(Errno::ENOENT)?),
            Control::Redir => Some(self.redir(at.conn).into_bytes().into()),
            Control::Status => Some(self.shared_status(at.now).into()),
            Control::Metrics => Some(self.shared_metrics(at.now).ok_or(Errno::ENOENT)?.into()),
            _ => None,
        })
    }

    fn read(&mut self, at: At, file: Control, offset: u64, count: usize) -> Answer<Vec<u8>> {
        match (file, &mut self.grants) {
            (Control::Have, _) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                match self.have.get(start..).filter(|rest| !rest.is_empty()) {
                    Some(rest) => Answer::Now(rest.get(..count).unwrap_or(rest).to_vec()),
                    None => {
                        self.have_readers.insert(at.conn);
                        Answer::Wait
                    }
                }
            }
            (Control::Manifest, _) => self.read_manifest(at, offset, count),
            (Control::Next, Some(grants)) => {
                self.members.asks(at.conn);
                match grants.ask(at.conn, self.members.host(at.conn), at.now) {
                    Some(chunk) => Answer::Now(format!("{chunk}\n").into_bytes()),
                    None => {
                        self.assign(at.now);
                        Answer::Wait
                    }
                }
            }
            // The end of the file: a node leaves the choice to whoever asks.
            _ => Answer::Now(Vec::new()),
        }
    }

    fn write(&mut self, at: At, file: Control, data: &[u8]) -> Result<(), Errno> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL);
        match file {
            Control::Avail => self.join(at.conn, text?),
            Control::Next => self.report(at, text?),
            Control::Log => {
                self.note(at, data);
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    fn clunk(&mut self, at: At, file: Control) {
        match file {
            Control::Avail => self.members.left(at.conn, at.now),
            Control::Manifest => self.manifest_was_read(at),
            _ => {}
        }
    }

    fn image(&mut self, at: At, tree: &Arc<Tree>, range: &Range<u64>, paced: bool) -> Answer<u64> {
        // Of a file that was opened in an older state of the tree the driver looks whether it is still what it was.
        let layout = *self.layout();
        if Arc::ptr_eq(tree, &self.tree)
            && layout.covering(range.clone()).any(|chunk| !self.held.contains(chunk))
        {
            return self.wait_for_chunks(at, tree, range);
        }
        let host = self.members.host(at.conn);
        if let Some(rate_limit) = &mut self.rate_limit
            && !rate_limit.ask(at.conn, host, at.now)
        {
            return Answer::Wait;
        }
        let Some(end) = self.turn(at, host, range, paced) else {
            if let Some(rate_limit) = &mut self.rate_limit {
                rate_limit.cancel(at.conn);
            }
            return Answer::Wait;
        };
        let bytes = end.saturating_sub(range.start);
        if let Some(rate_limit) = &mut self.rate_limit {
            rate_limit.spend(at.conn, host, bytes, at.now);
        }
        if !paced {
            self.plain_bytes = self.plain_bytes.saturating_add(bytes);
        }
        Answer::Now(end)
    }

    fn sent(&mut self, at: At, data: &Data) {
        let range = &data.range;
        self.file_piece_sent(at);
        if !data.paced {
            return;
        }
        let bytes = range.end.saturating_sub(range.start);
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        self.sent_rate.add(bytes, at.now);
        self.members.sent(at.conn, bytes);
        let last = self.layout().covering(range.clone()).last();
        let whole = last.filter(|chunk| self.layout().range(*chunk).end == range.end);
        if let Some((grants, chunk)) = self.grants.as_mut().zip(whole) {
            grants.sent(at.conn, chunk, at.now);
        }
        let next = self.uploads.done(at.conn, at.now);
        self.wakes.extend(next);
        self.assign(at.now);
    }

    fn cancel(&mut self, at: At, file: Control) {
        match (file, &mut self.grants) {
            (Control::Have, _) => {
                self.have_readers.remove(&at.conn);
            }
            (Control::Manifest, _) => self.manifest_queue.cancel(at.conn),
            (Control::Next, Some(grants)) => grants.cancel(at.conn),
            (Control::Image, _) => {
                self.data_readers.remove(&at.conn);
                self.flows.cancel(at.conn, self.members.host(at.conn));
                if let Some(rate_limit) = &mut self.rate_limit {
                    rate_limit.cancel(at.conn);
                }
                let next = self.uploads.cancel(at.conn, at.now);
                self.wakes.extend(next);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
