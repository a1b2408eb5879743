//! The server's half of a 9P connection, without the connection: bytes in, replies out.
//!
//! A [`Session`] is fed the bytes that arrive and hands out [`Output`]s in the order in which they
//! must leave. It reads no file itself: the bytes of files go out as [`Output::Data`], so that the
//! driver may send them by sendfile(2). It asks its [`Host`] for the tree, for the control files and
//! for turns to send. The master, the node and the tests each have one.
//!
//! A read that has to wait (for a chunk, a grant, a turn) is *parked* without holding up the requests
//! after it, and is tried again by [`Session::resume`]. This file decides what each request gets; its
//! parts are in files of their own: `fids`, `parked` reads, and `replies` with what leaves.

mod access;
mod answer;
mod budget;
#[cfg(feature = "classic")]
mod classic;
#[cfg(not(feature = "classic"))]
#[path = "session/classic_off.rs"]
mod classic;
mod fids;
mod host;
mod output;
mod parked;
mod read;
mod replies;
mod stat;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::conn::Conn;
use crate::control::Control;
use crate::image::manifest::Content;
use crate::limits::{MAX_REQUEST_BYTES, MAX_TURN_REQUESTS};
use crate::p9::errno::Errno;
use crate::p9::framing::{BadFrameSize, Request, RequestBuffer};
use crate::p9::message::{Frame, HEADER_BYTES, IO_HEADER_BYTES, Message, NOFID};
use crate::p9::wire::{Dialect, List, Qid, Text};
use crate::serve::tree::{Node, ROOT, Tree};

use super::admission::Wait;
use access::Access;
pub use answer::{Answer, At};
pub use budget::Budget;
pub use classic::{ClassicHost, ReadFailed};
use fids::{Fid, Fids, Open};
pub use host::Host;
pub use output::{Data, Output};
use parked::{ParkedRead, ParkedReads};
use replies::{Replies, Reply};

/// Why a connection has to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// A frame whose size is smaller than a header, or before any version far larger than a
    /// Tversion: nothing after it can be understood.
    BadFrameSize(u32),
    /// What a classic client reads cannot be read on, and it takes an error for the end of the file.
    Classic(ReadFailed),
}

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hangup::BadFrameSize(size) => {
                write!(f, "sent an invalid message size of {size} bytes")
            }
            Hangup::Classic(failed) => failed.fmt(f),
        }
    }
}

/// One connection's state.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    /// Whose memory it uses.
    host: IpAddr,
    input: RequestBuffer,
    fids: Fids,
    parked: ParkedReads,
    replies: Replies,
    /// What the budget is charged for them.
    charged: usize,
    /// How many requests have come.
    requests: u64,
    /// There are requests that were left for the next turn.
    has_more: bool,
    classic: classic::State,
    /// Why the connection has to be ended.
    hangup: Option<Hangup>,
}

impl Session {
    /// A session with a client on `host` before its Tversion; with `trace` it keeps a line for every message.
    pub fn new(conn: Conn, host: IpAddr, trace: bool) -> Session {
        Session {
            conn,
            host,
            input: RequestBuffer::default(),
            fids: Fids::new(host),
            parked: ParkedReads::default(),
            replies: Replies::new(trace),
            charged: 0,
            requests: 0,
            has_more: false,
            classic: classic::State::default(),
            hangup: None,
        }
    }

    /// Takes bytes that arrived. [`Session::process`] then acts on them.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.receive(bytes);
    }

    /// Whether more bytes should be read: not while replies pile up.
    pub fn wants_input(&self) -> bool {
        self.replies.has_room() && self.input.len() < MAX_REQUEST_BYTES
    }

    /// Answers the requests that have arrived whole, as long as there is room for replies, and at most
    /// [`MAX_TURN_REQUESTS`] of them: [`Session::has_more`] then says that there are others.
    pub fn process(&mut self, host: &mut impl Host, now: Instant) -> Result<(), Hangup> {
        // The frames borrow from it.
        let mut input = std::mem::take(&mut self.input);
        let result = self.requests(&mut input, host, now);
        self.input = input;
        host.budget().charge(self.host, &mut self.charged, self.replies.bytes());
        self.hangup.take().map_or(result, Err)
    }

    /// Whether requests were left for the next turn.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Tries the parked requests again.
    pub fn resume(&mut self, host: &mut impl Host, now: Instant) {
        if let Some(failed) = self.classic.lost(host, self.at(now)) {
            self.hangup = Some(Hangup::Classic(failed));
        }
        let parked = self.parked.take_all(host, self.at(now));
        for parked in parked {
            self.attempt(parked, host, now);
        }
    }

    /// What the other side keeps this one waiting for, as far as its messages tell.
    pub fn waits(&self) -> Option<Wait> {
        if self.replies.msize() == 0 {
            Some(Wait::Greeting)
        } else if self.input.is_skipping() || (self.input.len() > 0 && self.replies.has_room()) {
            Some(Wait::Message)
        } else {
            None
        }
    }

    /// How many requests have come so far.
    pub fn requests_so_far(&self) -> u64 {
        self.requests
    }

    /// The next thing to send.
    pub fn next_output(&mut self) -> Option<Output> {
        self.replies.next()
    }

    /// Data that was handed out cannot be sent after all: its request gets this error.
    pub fn refuse(&mut self, data: &Data, errno: Errno) {
        self.fail(data.tag, errno);
    }

    /// Whether anything waits to be sent.
    pub fn has_output(&self) -> bool {
        self.replies.len() > 0
    }

    /// The connection is over: everything that the host keeps for it is given back.
    pub fn close(&mut self, host: &mut impl Host, now: Instant) {
        self.reset(host, now);
        self.replies.clear();
        host.budget().charge(self.host, &mut self.charged, 0);
    }

    /// The trace lines since the last call.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.replies.take_trace()
    }

    fn requests(
        &mut self,
        input: &mut RequestBuffer,
        host: &mut impl Host,
        now: Instant,
    ) -> Result<(), Hangup> {
        let mut handled = 0;
        self.has_more = false;
        while self.may_answer(host) && self.hangup.is_none() {
            if handled == MAX_TURN_REQUESTS {
                self.has_more = true;
                break;
            }
            handled += 1;
            match input.next(self.replies.msize()) {
                Ok(Some(Request::Whole(frame))) => {
                    self.requests += 1;
                    self.request(frame, host, now);
                }
                Ok(Some(Request::Oversized(header))) => {
                    if let Ok(frame) = Frame::parse(header) {
                        self.replies.reply(frame.tag, Err(Errno::EMSGSIZE));
                    }
                }
                Ok(None) => break,
                Err(BadFrameSize(size)) => return Err(Hangup::BadFrameSize(size)),
            }
        }
        Ok(())
    }

    /// Whether there is room for another reply. Where its host holds all the memory that it may, one has to leave
    /// before the next is made.
    fn may_answer(&self, host: &mut impl Host) -> bool {
        let unsent = self.replies.bytes();
        let more = unsent.saturating_sub(self.charged);
        self.replies.has_room() && (unsent == 0 || host.budget().has_room(self.host, more))
    }

    fn at(&self, now: Instant) -> At {
        At { conn: self.conn, now }
    }

    fn reset(&mut self, host: &mut impl Host, now: Instant) {
        let at = self.at(now);
        self.parked.give_up_all(host, at);
        for data in self.replies.take_all_images() {
            host.sent(at, &data);
        }
        for fid in self.fids.remove_all(host.budget()) {
            release(&fid.tree, &fid.open, host, at);
        }
        self.classic = classic::State::default();
    }

    fn request(&mut self, frame: &[u8], host: &mut impl Host, now: Instant) {
        let Ok(Frame { kind, tag, body }) = Frame::parse(frame) else { return };
        match Message::decode(kind, body, self.replies.dialect()) {
            Ok(message) => {
                self.replies.note("->", tag, &message);
                self.answer(tag, message, host, now);
            }
            Err(error) => {
                self.replies.note_invalid(tag, &error);
                self.reply(tag, Err(Errno::EPROTO));
            }
        }
    }

    fn answer(&mut self, tag: u16, message: Message<'_>, host: &mut impl Host, now: Instant) {
        let at = self.at(now);
        self.classic.notice(&message);
        let reply = match message {
            Message::Tversion { msize, version } => {
                self.reset(host, now);
                Ok(self.replies.negotiate(msize, version))
            }
            _ if self.replies.msize() == 0 => Err(Errno::EPROTO),
            Message::Tflush { oldtag } => {
                self.flush(oldtag, host, at);
                Ok(Message::Rflush {})
            }
            _ if self.parked.has_tag(tag) || self.replies.has_image(tag) => Err(Errno::EPROTO),
            Message::Tread { fid, offset, count } => match self.read(tag, fid, offset, count) {
                Ok(Some(read)) => return self.attempt(ParkedRead { tag, fid, read }, host, now),
                Ok(None) => return,
                Err(errno) => Err(errno),
            },
            Message::Treaddir { fid, offset, count } => {
                match self.readdir(tag, fid, offset, count) {
                    Ok(()) => return,
                    Err(errno) => Err(errno),
                }
            }
            Message::Treadlink { fid } => return self.readlink(tag, fid),
            Message::Tstat { fid } => return self.stat(tag, fid, host.tree()),
            Message::Tgetlock { fid, kind: _, start, length, proc_id, client_id } => self
                .fids
                .get(fid)
                .map(|_| Message::Rgetlock { kind: F_UNLCK, start, length, proc_id, client_id }),
            other => self.simple(other, host, at),
        };
        self.reply(tag, reply);
    }

    /// Requests whose replies hold nothing that has to be borrowed or waited for.
    fn simple(&mut self, message: Message<'_>, host: &mut impl Host, at: At) -> Reply<'static> {
        match message {
            // No authentication is needed, and "no such file" is how 9P2000.L says so.
            Message::Tauth { .. } => Err(Errno::ENOENT),
            Message::Tattach { fid, afid, .. } => self.attach(fid, afid, host),
            Message::Twalk { fid, newfid, wname } => {
                let walked = self.walk(fid, newfid, &wname, host);
                let error = walked.as_ref().err();
                if let Some(failed) = error.and_then(|errno| self.classic.lacks_fids(*errno)) {
                    self.hangup = Some(Hangup::Classic(failed));
                }
                walked
            }
            Message::Topen { fid, mode } => self
                .open(fid, Access::of_plan9(mode), host, at)
                .map(|(qid, iounit)| Message::Ropen { qid, iounit }),
            Message::Tlopen { fid, flags } => self
                .open(fid, Access::of_linux(flags), host, at)
                .map(|(qid, iounit)| Message::Rlopen { qid, iounit }),
            Message::Tclunk { fid } => self.clunk(fid, host, at).map(|()| Message::Rclunk {}),
            Message::Tremove { fid } => {
                self.clunk(fid, host, at)?;
                Err(self.read_only())
            }
            Message::Twrite { fid, data, .. } => self.write(fid, data.0, host, at),
            Message::Tgetattr { fid, .. } if self.replies.dialect() == Dialect::Linux => {
                self.getattr(fid, host.tree())
            }
            Message::Tstatfs { fid } => {
                let tree = &self.fids.get(fid)?.tree;
                Ok(stat::statfs(tree))
            }
            Message::Twstat { fid, stat } => {
                if self.may_change(fid)? || stat::touches_nothing(&stat) {
                    Ok(Message::Rwstat {})
                } else {
                    Err(self.read_only())
                }
            }
            Message::Tsetattr { fid, .. } => {
                if self.may_change(fid)? {
                    Ok(Message::Rsetattr {})
                } else {
                    Err(self.read_only())
                }
            }
            Message::Tfsync { fid, .. } => self.fids.get(fid).map(|_| Message::Rfsync {}),
            Message::Tlock { fid, .. } => {
                self.fids.get(fid).map(|_| Message::Rlock { status: LOCK_SUCCESS })
            }
            Message::Txattrwalk { fid, .. } => self.fids.get(fid).and(Err(Errno::EOPNOTSUPP)),
            Message::Tcreate { fid, .. }
            | Message::Tlcreate { fid, .. }
            | Message::Tsymlink { fid, .. }
            | Message::Tmknod { dfid: fid, .. }
            | Message::Trename { fid, .. }
            | Message::Txattrcreate { fid, .. }
            | Message::Tlink { dfid: fid, .. }
            | Message::Tmkdir { dfid: fid, .. }
            | Message::Trenameat { olddirfid: fid, .. }
            | Message::Tunlinkat { dirfid: fid, .. } => {
                self.fids.get(fid)?;
                Err(self.read_only())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn attach(&mut self, fid: u32, afid: u32, host: &mut impl Host) -> Reply<'static> {
        if afid != NOFID {
            return Err(Errno::EBADF);
        }
        let tree = host.tree().clone();
        let qid = tree.attributes(ROOT).qid;
        self.fids.add(fid, tree, ROOT, host.budget())?;
        Ok(Message::Rattach { qid })
    }

    /// Tflush: the old request gets no reply any more, unless its reply is already leaving, which
    /// then comes before this one (flush(5)).
    fn flush(&mut self, oldtag: u16, host: &mut impl Host, at: At) {
        self.parked.give_up_tag(oldtag, host, at);
        if let Some(data) = self.replies.take_image(oldtag) {
            host.sent(at, &data);
        }
    }

    fn walk(
        &mut self,
        fid: u32,
        newfid: u32,
        names: &[Text<'_>],
        host: &mut impl Host,
    ) -> Reply<'static> {
        let from = self.fids.get(fid)?;
        if fid == newfid && !matches!(from.open, Open::No) {
            return Err(Errno::EBUSY);
        }
        let tree = host.tree();
        let mut node = if Arc::ptr_eq(tree, &from.tree) {
            from.node
        } else {
            tree.same_place(&from.tree, from.node).ok_or(Errno::ESTALE)?
        };
        let mut wqid = List::new();
        for name in names {
            let is_there = |node: &Node| !matches!(node, Node::Control(file) if !host.has(*file));
            let step = if tree.is_dir(node) {
                tree.walk(node, name.0).filter(is_there).ok_or(Errno::ENOENT)
            } else {
                Err(Errno::ENOTDIR)
            };
            let classic = || self.classic.walk(self.replies.dialect(), tree, node, name.0);
            node = match step.or_else(|errno| classic().ok_or(errno)) {
                Ok(next) => next,
                Err(errno) if wqid.is_empty() => return Err(errno),
                Err(_) => break,
            };
            // The list has room for as many as Twalk can name.
            let _ = wqid.push(tree.attributes(node).qid);
        }
        if wqid.len() == names.len() {
            let tree = tree.clone();
            if fid == newfid {
                let fid = self.fids.get_mut(fid)?;
                (fid.tree, fid.node) = (tree, node);
            } else {
                self.fids.add(newfid, tree, node, host.budget())?;
            }
        }
        Ok(Message::Rwalk { wqid })
    }

    /// Opens a fid; its qid, and its iounit, which is 0 (as much as a message holds) unless that
    /// would be more than is read of a Twrite.
    fn open(
        &mut self,
        fid: u32,
        access: Access,
        host: &mut impl Host,
        at: At,
    ) -> Result<(Qid, u32), Errno> {
        let longest =
            self.replies.msize().min(MAX_REQUEST_BYTES as u32).saturating_sub(IO_HEADER_BYTES);
        let dialect = self.replies.dialect();
        let read_only = self.read_only();
        let Session { fids, classic, .. } = self;
        let Fid { tree, node, open: Open::No } = fids.get_in(fid, host.tree())? else {
            return Err(Errno::EBUSY);
        };
        let (tree, node) = (tree.clone(), *node);
        let log = classic.open_log(dialect, &tree, node, &access, host, at);
        let open = match (node, tree.entry(node).map(|entry| entry.content)) {
            _ if log.is_some() => {
                host.open(at, Control::Log)?;
                let bytes = log.map(Arc::from);
                Open::Control { file: Control::Log, bytes, read: true, write: true }
            }
            (Node::Classic(entry, file), _) => {
                let open = classic.open(entry, file, &access, host, at)?;
                open.unwrap_or(Open::Classic(entry, file))
            }
            (Node::Control(file), _) => {
                if access.remove_on_close || access.truncate && !file.writable() {
                    return Err(read_only);
                }
                if access.directory {
                    return Err(Errno::ENOTDIR);
                }
                if access.write && !file.writable() || access.read && !file.readable() {
                    return Err(Errno::EPERM);
                }
                let bytes = host.open(at, file)?;
                Open::Control { file, bytes, read: access.read, write: access.write }
            }
            (Node::ControlDir, _) | (_, Some(Content::Directory)) if access.write => {
                return Err(Errno::EISDIR);
            }
            _ if access.changes() => return Err(read_only),
            (Node::ControlDir, _) | (_, Some(Content::Directory)) => Open::DIR,
            _ if access.directory => return Err(Errno::ENOTDIR),
            // Plain 9P2000 knows no links: it sees a file that holds the target.
            (_, Some(Content::Symlink { target })) if dialect == Dialect::Plain => {
                Open::Bytes(Arc::from(&target[..]))
            }
            (_, Some(Content::Symlink { .. })) => return Err(Errno::ELOOP),
            (_, Some(Content::File { .. })) if classic.files_are_directories() => Open::DIR,
            (_, Some(Content::File { .. })) => Open::File,
            (Node::Entry(_), None) => return Err(Errno::ESTALE),
        };
        if let Err((open, errno)) = fids.set_open(fid, open, host.budget()) {
            release(&tree, &open, host, at);
            return Err(errno);
        }
        let iounit = if access.write { longest } else { 0 };
        Ok((tree.attributes(node).qid, iounit))
    }

    fn readlink(&mut self, tag: u16, fid: u32) {
        let fid = match self.fids.get(fid) {
            Ok(fid) => fid,
            Err(errno) => return self.reply(tag, Err(errno)),
        };
        let tree = fid.tree.clone();
        let content = tree.entry(fid.node).map(|entry| entry.content);
        let reply = match &content {
            Some(Content::Symlink { target })
                if target.len() + HEADER_BYTES + 2 <= self.replies.msize() as usize =>
            {
                Ok(Message::Rreadlink { target: Text(target) })
            }
            Some(Content::Symlink { .. }) => Err(Errno::EMSGSIZE),
            _ => Err(Errno::EINVAL),
        };
        self.reply(tag, reply);
    }

    fn stat(&mut self, tag: u16, fid: u32, tree: &Arc<Tree>) {
        let dialect = self.replies.dialect();
        if dialect == Dialect::Linux {
            return self.reply(tag, Err(Errno::EOPNOTSUPP));
        }
        let (tree, node) = match self.fids.get_in(fid, tree) {
            Ok(fid) => (fid.tree.clone(), fid.node),
            Err(errno) => return self.reply(tag, Err(errno)),
        };
        stat::with_stat(&tree, node, dialect, |stat| {
            let stat = self.classic.shown(node, stat);
            self.reply(tag, Ok(Message::Rstat { stat }));
        });
    }

    fn getattr(&mut self, fid: u32, tree: &Arc<Tree>) -> Reply<'static> {
        let fid = self.fids.get_in(fid, tree)?;
        Ok(stat::getattr(fid.tree.attributes(fid.node)))
    }

    fn write(&mut self, fid: u32, data: &[u8], host: &mut impl Host, at: At) -> Reply<'static> {
        let Fid { tree, open, .. } = self.fids.get(fid)?;
        match open {
            Open::Control { file, write: true, .. } => {
                host.write(at, *file, data)?;
                Ok(Message::Rwrite { count: data.len() as u32 })
            }
            Open::Classic(entry, file) => {
                // What was opened before a change of the tree is not served any more.
                if Arc::ptr_eq(tree, host.tree()) {
                    classic::write(host, at, *entry, *file, data)?;
                }
                Ok(Message::Rwrite { count: data.len() as u32 })
            }
            _ => Err(Errno::EBADF),
        }
    }

    fn clunk(&mut self, fid: u32, host: &mut impl Host, at: At) -> Result<(), Errno> {
        let Fid { tree, open, .. } = self.fids.remove(fid, host.budget())?;
        for tag in self.parked.give_up_fid(fid, host, at) {
            self.reply(tag, Err(Errno::EBADF));
        }
        release(&tree, &open, host, at);
        Ok(())
    }

    /// Whether attributes may be set: only control files let a client pretend to truncate them.
    fn may_change(&self, fid: u32) -> Result<bool, Errno> {
        Ok(matches!(self.fids.get(fid)?.node, Node::Control(file) if file.writable()))
    }

    /// A read of a file's bytes or checksum cannot be answered.
    fn fail(&mut self, tag: u16, errno: Errno) {
        match self.classic.failed(errno) {
            Some(failed) => self.hangup = Some(Hangup::Classic(failed)),
            None => self.reply(tag, Err(errno)),
        }
    }

    /// The error for what would change the tree.
    fn read_only(&self) -> Errno {
        if self.replies.dialect() == Dialect::Plain { Errno::EPERM } else { Errno::EROFS }
    }

    fn reply(&mut self, tag: u16, reply: Reply<'_>) {
        self.replies.reply(tag, reply);
    }
}

/// `P9_LOCK_SUCCESS`.
const LOCK_SUCCESS: u8 = 0;
/// "Nobody holds it" in Tgetlock.
const F_UNLCK: u8 = 2;

/// Tells the host that a fid is no longer open.
fn release(tree: &Arc<Tree>, open: &Open, host: &mut impl Host, at: At) {
    match open {
        Open::Control { file, .. } => host.clunk(at, *file),
        Open::Classic(entry, file) if Arc::ptr_eq(tree, host.tree()) => {
            classic::release(host, at, *entry, *file);
        }
        _ => {}
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod pair;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
