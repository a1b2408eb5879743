//! The server's half of a 9P connection, without the connection: bytes in, replies out.
//!
//! A [`Session`] is fed the bytes that arrive and hands out [`Output`]s in the order in which they
//! must leave. It reads no file itself: the bytes of files go out as [`Output::Data`], so that the
//! driver may send them by sendfile(2). What it cannot know, namely the tree, the control files and
//! whose turn it is, it asks its [`Host`]; the master, the node and the tests each have one.
//!
//! A request that has to wait (for a chunk, a grant, a turn) is *parked* without holding up those
//! after it, and is tried again by [`Session::resume`].

mod access;
mod budget;
mod classic;
mod host;
mod output;
mod stat;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::conn::Conn;
use crate::control::Control;
use crate::image::manifest::Content;
use crate::limits::{
    FID_BYTES, MAX_BUILT_BYTES, MAX_FIDS, MAX_MSIZE, MAX_OUTPUT_BYTES, MAX_OUTPUTS, MAX_PARKED,
    MAX_REQUEST_BYTES, MIN_MSIZE,
};
use crate::p9::errno::Errno;
use crate::p9::message::{Frame, HEADER_BYTES, IO_HEADER_BYTES, Message, NOFID};
use crate::p9::wire::{Blob, Dialect, List, Qid, Text, UnixOnly};
use crate::serve::tree::{Classic, Node, ROOT, Tree};

use super::admission::Wait;
use access::Access;
pub use budget::Budget;
pub use classic::ClassicHost;
pub use host::{Answer, At, Host};
pub use output::{Data, Output};

/// Why a connection has to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// A frame whose size is smaller than a header, or before any version far larger than a
    /// Tversion: nothing after it can be understood.
    BadFrameSize(u32),
    /// What a classic client reads cannot be read on, and it takes an error for the end of the file.
    Classic(Errno),
}

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hangup::BadFrameSize(size) => {
                write!(f, "sent an invalid message size of {size} bytes")
            }
            Hangup::Classic(errno) => {
                write!(f, "closed: the rest of a file cannot be sent to a 2009 client: {errno}")
            }
        }
    }
}

#[derive(Debug)]
struct Fid {
    tree: Arc<Tree>,
    node: Node,
    open: Open,
}

#[derive(Debug)]
enum Open {
    No,
    File,
    /// Reads are answered from these bytes.
    Bytes(Arc<[u8]>),
    /// `next` is the index to list from, `offset` where the next stat records begin.
    Dir {
        next: usize,
        offset: u64,
    },
    Control {
        file: Control,
        bytes: Option<Arc<[u8]>>,
        read: bool,
        write: bool,
    },
    /// A classic client's `avail`.
    Offer,
    /// A classic client's `checksum`.
    Checksum,
}

impl Fid {
    /// What it is counted for.
    fn held_bytes(&self) -> usize {
        let text = match &self.open {
            Open::Bytes(bytes) | Open::Control { bytes: Some(bytes), .. } => bytes.len(),
            _ => 0,
        };
        FID_BYTES.saturating_add(text)
    }
}

#[derive(Debug)]
struct Parked {
    tag: u16,
    fid: u32,
    wish: Wish,
}

#[derive(Debug)]
enum Wish {
    Control { file: Control, tree: Arc<Tree>, offset: u64, count: usize },
    Data { tree: Arc<Tree>, range: Range<u64>, paced: bool },
    Checksum { tree: Arc<Tree>, entry: usize, offset: u64, count: usize },
}

impl Wish {
    /// The control file that the host keeps it waiting for.
    fn waits_for(&self) -> Option<Control> {
        match self {
            Wish::Control { file, .. } => Some(*file),
            Wish::Data { paced: true, .. } => Some(Control::Image),
            Wish::Data { .. } | Wish::Checksum { .. } => None,
        }
    }
}

/// One connection's state.
#[derive(Debug)]
pub struct Session {
    conn: Conn,
    dialect: Dialect,
    /// 0 until Tversion.
    msize: u32,
    fids: HashMap<u32, Fid>,
    /// What the fids are counted for, in bytes.
    held: usize,
    parked: Vec<Parked>,
    outputs: VecDeque<Output>,
    input: Vec<u8>,
    /// How much of `input` was acted on.
    taken: usize,
    /// Bytes of an oversized request that are still to be thrown away.
    skip: usize,
    /// How many requests have come.
    requests: u64,
    trace: Option<Vec<String>>,
    classic: classic::State,
    /// Why the connection has to be ended.
    hangup: Option<Hangup>,
}

type Reply<'m> = Result<Message<'m>, Errno>;

impl Session {
    /// A session before its Tversion; with `trace` it keeps a line for every message.
    pub fn new(conn: Conn, trace: bool) -> Session {
        Session {
            conn,
            dialect: Dialect::Plain,
            msize: 0,
            fids: HashMap::new(),
            held: 0,
            parked: Vec::new(),
            outputs: VecDeque::new(),
            input: Vec::new(),
            taken: 0,
            skip: 0,
            requests: 0,
            trace: trace.then(Vec::new),
            classic: classic::State::default(),
            hangup: None,
        }
    }

    /// Takes bytes that arrived. [`Session::process`] then acts on them.
    pub fn receive(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.input.drain(..self.taken);
        self.taken = 0;
        self.input.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
    }

    /// Whether more bytes should be read: not while replies pile up.
    pub fn wants_input(&self) -> bool {
        self.has_room() && self.input.len() - self.taken < MAX_REQUEST_BYTES
    }

    /// Answers the requests that have arrived whole, as long as there is room for replies.
    pub fn process(&mut self, host: &mut impl Host, now: Instant) -> Result<(), Hangup> {
        // What is not acted on stays where it is: nothing is copied however often this is called.
        let input = std::mem::take(&mut self.input);
        let mut rest = input.get(self.taken..).unwrap_or_default();
        let result = self.requests(&mut rest, host, now);
        self.taken = input.len() - rest.len();
        self.input = input;
        self.hangup.take().map_or(result, Err)
    }

    /// Tries the parked requests again.
    pub fn resume(&mut self, host: &mut impl Host, now: Instant) {
        if self.classic.marked && host.classic_is_lost(self.at(now)) {
            self.hangup = Some(Hangup::Classic(Errno::ESTALE));
        }
        let parked = std::mem::take(&mut self.parked);
        let mut cancelled = Vec::new();
        for Parked { wish, .. } in &parked {
            let again = match wish {
                Wish::Control { file, .. } => Some(*file),
                Wish::Data { tree, .. } if Arc::ptr_eq(tree, host.tree()) => None,
                Wish::Data { .. } | Wish::Checksum { .. } => wish.waits_for(),
            };
            if let Some(file) = again.filter(|file| !cancelled.contains(file)) {
                host.cancel(self.at(now), file);
                cancelled.push(file);
            }
        }
        for parked in parked {
            self.attempt(parked, host, now);
        }
    }

    /// What the other side keeps this one waiting for, as far as its messages tell.
    pub fn waits(&self) -> Option<Wait> {
        if self.msize == 0 {
            Some(Wait::Greeting)
        } else if self.skip > 0 || (self.taken < self.input.len() && self.has_room()) {
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
        self.outputs.pop_front()
    }

    /// Data that was handed out cannot be sent after all: its request gets this error.
    pub fn refuse(&mut self, data: &Data, errno: Errno) {
        self.fail(data.tag, errno);
    }

    /// Whether anything waits to be sent.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The connection is over: everything that the host keeps for it is given back.
    pub fn close(&mut self, host: &mut impl Host, now: Instant) {
        self.reset(host, now);
        self.outputs.clear();
    }

    /// The trace lines since the last call.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Acts on the whole requests at the front of `rest` and takes them off it.
    fn requests(
        &mut self,
        rest: &mut &[u8],
        host: &mut impl Host,
        now: Instant,
    ) -> Result<(), Hangup> {
        while self.has_room() && self.hangup.is_none() {
            let Some(size) = rest.first_chunk().map(|size| u32::from_le_bytes(*size)) else {
                break;
            };
            let speaks_9p = self.msize > 0 || size as usize <= MAX_REQUEST_BYTES;
            if (size as usize) < HEADER_BYTES || !speaks_9p {
                return Err(Hangup::BadFrameSize(size));
            }
            if size as usize > MAX_REQUEST_BYTES || (self.msize > 0 && size > self.msize) {
                let Some(header) = rest.get(..HEADER_BYTES) else { break };
                self.refuse_oversized(header);
                let here = (size as usize).min(rest.len());
                self.skip = size as usize - here;
                *rest = rest.get(here..).unwrap_or_default();
                continue;
            }
            let Some((frame, after)) = rest.split_at_checked(size as usize) else { break };
            *rest = after;
            self.requests += 1;
            self.request(frame, host, now);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let bytes = |output: &Output| match output {
            Output::Reply(bytes) => bytes.len(),
            Output::Data(_) => 0,
        };
        self.outputs.len() < MAX_OUTPUTS
            && self.outputs.iter().map(bytes).sum::<usize>() < MAX_OUTPUT_BYTES
    }

    fn at(&self, now: Instant) -> At {
        At { conn: self.conn, now }
    }

    fn reset(&mut self, host: &mut impl Host, now: Instant) {
        let at = self.at(now);
        while let Some(Parked { wish, .. }) = self.parked.pop() {
            self.give_up(&wish, host, at);
        }
        // Replies that are already made may leave; a client that begins anew ignores them.
        self.outputs.retain(|output| match output {
            Output::Reply(_) => true,
            Output::Data(Data { range, paced, .. }) => {
                if *paced {
                    host.sent(at, range);
                }
                false
            }
        });
        for (_, fid) in std::mem::take(&mut self.fids) {
            release(&fid, host, at);
        }
        let held = self.held;
        host.budget().give_back(&mut self.held, held);
        self.classic = classic::State::default();
    }

    fn request(&mut self, frame: &[u8], host: &mut impl Host, now: Instant) {
        let Ok(Frame { kind, tag, body }) = Frame::parse(frame) else { return };
        match Message::decode(kind, body, self.dialect) {
            Ok(message) => {
                self.note("->", tag, &message);
                self.answer(tag, message, host, now);
            }
            Err(error) => {
                if let Some(trace) = &mut self.trace {
                    trace.push(format!("-> tag {tag} {error}"));
                }
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
                Ok(self.version(msize, version))
            }
            _ if self.msize == 0 => Err(Errno::EPROTO),
            Message::Tflush { oldtag } => {
                self.flush(oldtag, host, at);
                Ok(Message::Rflush {})
            }
            _ if self.is_outstanding(tag) => Err(Errno::EPROTO),
            Message::Tread { fid, offset, count } => match self.read(tag, fid, offset, count) {
                Ok(Some(wish)) => return self.attempt(Parked { tag, fid, wish }, host, now),
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
                .fid(fid)
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
            Message::Twalk { fid, newfid, wname } => self.walk(fid, newfid, &wname, host),
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
            Message::Tgetattr { fid, .. } if self.dialect == Dialect::Linux => {
                self.getattr(fid, host.tree())
            }
            Message::Tstatfs { fid } => {
                let tree = &self.fid(fid)?.tree;
                Ok(stat::statfs(tree))
            }
            Message::Twstat { fid, stat } => {
                match self.may_change(fid)? || stat::touches_nothing(&stat) {
                    true => Ok(Message::Rwstat {}),
                    false => Err(self.read_only()),
                }
            }
            Message::Tsetattr { fid, .. } => match self.may_change(fid)? {
                true => Ok(Message::Rsetattr {}),
                false => Err(self.read_only()),
            },
            Message::Tfsync { fid, .. } => self.fid(fid).map(|_| Message::Rfsync {}),
            Message::Tlock { fid, .. } => {
                self.fid(fid).map(|_| Message::Rlock { status: LOCK_SUCCESS })
            }
            Message::Txattrwalk { fid, .. } => self.fid(fid).and(Err(Errno::EOPNOTSUPP)),
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
                self.fid(fid)?;
                Err(self.read_only())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn version(&mut self, msize: u32, version: Text<'_>) -> Message<'static> {
        let dialect = Dialect::requested(version.0).filter(|_| msize >= MIN_MSIZE);
        let msize = msize.min(MAX_MSIZE);
        self.msize = if dialect.is_some() { msize } else { 0 };
        self.dialect = dialect.unwrap_or(Dialect::Plain);
        let version = dialect.map_or("unknown", Dialect::name);
        Message::Rversion { msize, version: Text(version.as_bytes()) }
    }

    fn attach(&mut self, fid: u32, afid: u32, host: &mut impl Host) -> Reply<'static> {
        if afid != NOFID {
            return Err(Errno::EBADF);
        }
        let tree = host.tree().clone();
        let qid = tree.attributes(ROOT).qid;
        self.add_fid(fid, Fid { tree, node: ROOT, open: Open::No }, host)?;
        Ok(Message::Rattach { qid })
    }

    /// Tflush: the old request gets no reply any more, unless its reply is already leaving, which
    /// then comes before this one (flush(5)).
    fn flush(&mut self, oldtag: u16, host: &mut impl Host, at: At) {
        if let Some(i) = self.parked.iter().position(|parked| parked.tag == oldtag) {
            let Parked { wish, .. } = self.parked.remove(i);
            self.give_up(&wish, host, at);
        }
        let unsent = |output: &Output| matches!(output, Output::Data(data) if data.tag == oldtag);
        if let Some(i) = self.outputs.iter().position(unsent)
            && let Some(Output::Data(Data { range, paced: true, .. })) = self.outputs.remove(i)
        {
            host.sent(at, &range);
        }
    }

    /// Tells the host that a request waits no longer, unless another one waits for the same file.
    fn give_up(&self, wish: &Wish, host: &mut impl Host, at: At) {
        let file = wish.waits_for();
        if let Some(file) = file
            && !self.parked.iter().any(|other| other.wish.waits_for() == Some(file))
        {
            host.cancel(at, file);
        }
    }

    fn is_outstanding(&self, tag: u16) -> bool {
        self.parked.iter().any(|parked| parked.tag == tag)
            || self.outputs.iter().any(|o| matches!(o, Output::Data(data) if data.tag == tag))
    }

    fn walk(
        &mut self,
        fid: u32,
        newfid: u32,
        names: &[Text<'_>],
        host: &mut impl Host,
    ) -> Reply<'static> {
        let from = self.fid(fid)?;
        if fid == newfid && !matches!(from.open, Open::No) {
            return Err(Errno::EBUSY);
        }
        let tree = host.tree();
        let mut node = match Arc::ptr_eq(tree, &from.tree) {
            true => from.node,
            false => tree.same_place(&from.tree, from.node).ok_or(Errno::ESTALE)?,
        };
        let mut wqid = List::new();
        for name in names {
            let is_there = |node: &Node| !matches!(node, Node::Control(file) if !host.has(*file));
            let step = match tree.is_dir(node) {
                true => tree.walk(node, name.0).filter(is_there).ok_or(Errno::ENOENT),
                false => Err(Errno::ENOTDIR),
            };
            let classic = || self.classic.walk(self.dialect, tree, node, name.0);
            node = match step.or_else(|errno| classic().ok_or(errno)) {
                Ok(next) => next,
                Err(errno) if wqid.is_empty() => return Err(errno),
                Err(_) => break,
            };
            // The list has room for as many as Twalk can name.
            let _ = wqid.push(tree.attributes(node).qid);
        }
        if wqid.len() == names.len() {
            let walked = Fid { tree: tree.clone(), node, open: Open::No };
            if fid == newfid {
                // Neither is open.
                self.fids.insert(fid, walked);
            } else {
                self.add_fid(newfid, walked, host)?;
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
        let longest = self.msize.min(MAX_REQUEST_BYTES as u32).saturating_sub(IO_HEADER_BYTES);
        let dialect = self.dialect;
        let read_only = self.read_only();
        let Session { fids, classic, held, .. } = self;
        let fid = current(fids, fid, host.tree())?;
        if !matches!(fid.open, Open::No) {
            return Err(Errno::EBUSY);
        }
        let change = access.write || access.truncate || access.remove_on_close;
        fid.open = match (fid.node, fid.tree.entry(fid.node).map(|entry| &entry.content)) {
            (node, _)
                if access.read && access.write && classic.is_mark(dialect, &fid.tree, node) =>
            {
                classic.marked = true;
                host.classic_seen(at);
                host.open(at, Control::Log)?;
                let bytes = Some(Arc::from(classic::DEBUG_LEVEL));
                Open::Control { file: Control::Log, bytes, read: true, write: true }
            }
            (Node::Classic(_, Classic::Avail), _) if access.write => Open::Offer,
            _ if change && matches!(fid.node, Node::Classic(..)) => return Err(read_only),
            (Node::Classic(i, part), _) => match part {
                Classic::Data => {
                    classic.reads = true;
                    Open::File
                }
                Classic::Redir => Open::Bytes(host.classic_redirect(at, i).into_bytes().into()),
                Classic::Checksum => Open::Checksum,
                Classic::Avail => return Err(Errno::EPERM),
            },
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
            _ if change => return Err(read_only),
            (Node::ControlDir, _) | (_, Some(Content::Directory)) => {
                Open::Dir { next: 0, offset: 0 }
            }
            _ if access.directory => return Err(Errno::ENOTDIR),
            // Plain 9P2000 knows no links: it sees a file that holds the target.
            (_, Some(Content::Symlink { target })) if dialect == Dialect::Plain => {
                Open::Bytes(Arc::from(&target[..]))
            }
            (_, Some(Content::Symlink { .. })) => return Err(Errno::ELOOP),
            (_, Some(Content::File { .. })) if classic.marked => Open::Dir { next: 0, offset: 0 },
            (_, Some(Content::File { .. })) => Open::File,
            (Node::Entry(_), None) => return Err(Errno::ESTALE),
        };
        let text_bytes = fid.held_bytes().saturating_sub(FID_BYTES);
        if let Err(errno) = host.budget().take(held, text_bytes) {
            release(fid, host, at);
            fid.open = Open::No;
            return Err(errno);
        }
        let iounit = if access.write { longest } else { 0 };
        Ok((fid.tree.attributes(fid.node).qid, iounit))
    }

    /// What a Tread asks for, or None where it is already answered.
    fn read(&mut self, tag: u16, fid: u32, offset: u64, count: u32) -> Result<Option<Wish>, Errno> {
        let dialect = self.dialect;
        let count = count.min(self.msize.saturating_sub(IO_HEADER_BYTES));
        let built = count.min(MAX_BUILT_BYTES) as usize;
        let classic = &self.classic;
        let fid = self.fids.get_mut(&fid).ok_or(Errno::EBADF)?;
        let tree = fid.tree.clone();
        let part = |whole: Range<u64>| {
            let start = whole.start.saturating_add(offset).min(whole.end);
            start..start.saturating_add(u64::from(count)).min(whole.end)
        };
        let data = |range, paced| Ok(Some(Wish::Data { tree: tree.clone(), range, paced }));
        let bytes = match &mut fid.open {
            Open::No | Open::Offer => return Err(Errno::EBADF),
            Open::Checksum => {
                let Node::Classic(entry, _) = fid.node else { return Err(Errno::ESTALE) };
                return Ok(Some(Wish::Checksum { tree, entry, offset, count: built }));
            }
            Open::File => {
                let entry = fid.tree.entry(fid.node).ok_or(Errno::ESTALE)?;
                return data(part(entry.image_range()), false);
            }
            Open::Control { read: false, .. } => return Err(Errno::EBADF),
            Open::Control { file: Control::Image, .. } => {
                return data(part(0..tree.manifest().layout().image_bytes()), true);
            }
            Open::Control { file, bytes: None, .. } => {
                return Ok(Some(Wish::Control { file: *file, tree, offset, count: built }));
            }
            Open::Control { bytes: Some(bytes), .. } | Open::Bytes(bytes) => bytes.clone(),
            Open::Dir { .. } if dialect == Dialect::Linux => return Err(Errno::EISDIR),
            Open::Dir { next, offset: expected } => {
                if offset == 0 {
                    (*next, *expected) = (0, 0);
                }
                if offset != *expected {
                    return Err(Errno::EINVAL);
                }
                let (records, after) =
                    stat::records(&tree, fid.node, *next, built, dialect, classic);
                *next = after;
                *expected += records.len() as u64;
                self.reply(tag, Ok(Message::Rread { data: Blob(&records) }));
                return Ok(None);
            }
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(built).min(bytes.len());
        let data = Blob(bytes.get(start..end).unwrap_or_default());
        self.reply(tag, Ok(Message::Rread { data }));
        Ok(None)
    }

    /// Carries out a read or parks it.
    fn attempt(&mut self, request: Parked, host: &mut impl Host, now: Instant) {
        let Parked { tag, fid, wish } = request;
        let at = self.at(now);
        let answer = match &wish {
            Wish::Control { tree, .. } | Wish::Data { tree, paced: true, .. }
                if !Arc::ptr_eq(tree, host.tree()) =>
            {
                Answer::Error(Errno::ESTALE)
            }
            Wish::Control { file, offset, count, .. } => host.read(at, *file, *offset, *count),
            Wish::Checksum { tree, entry, offset, count } => match Arc::ptr_eq(tree, host.tree()) {
                true => host.classic_checksum(at, *entry),
                false => Answer::Error(Errno::ESTALE),
            }
            .map(|sum| sum.to_string().bytes().skip(*offset as usize).take(*count).collect()),
            Wish::Data { range, .. } if range.is_empty() => Answer::Now(Vec::new()),
            Wish::Data { tree, range, paced } => {
                if self.classic.reads {
                    host.classic_reads(at);
                }
                host.image(at, tree, range, *paced).map(|()| Vec::new())
            }
        };
        match (answer, wish) {
            // Tags bound how many reads of a classic client wait, one for each of its files.
            (Answer::Wait, wish) if self.parked.len() >= MAX_PARKED && !self.classic.reads => {
                self.give_up(&wish, host, at);
                self.reply(tag, Err(Errno::EBUSY));
            }
            (Answer::Wait, wish) => self.parked.push(Parked { tag, fid, wish }),
            (Answer::Error(errno), Wish::Control { .. }) => self.reply(tag, Err(errno)),
            (Answer::Error(errno), _) => self.fail(tag, errno),
            (Answer::Now(_), Wish::Data { tree, range, paced }) if !range.is_empty() => {
                if let Some(trace) = &mut self.trace {
                    trace.push(format!("<- tag {tag} Rread image {}..{}", range.start, range.end));
                }
                self.outputs.push_back(Output::Data(Data { tag, tree, range, paced }));
            }
            (Answer::Now(bytes), _) => self.reply(tag, Ok(Message::Rread { data: Blob(&bytes) })),
        }
    }

    fn readdir(&mut self, tag: u16, fid: u32, offset: u64, count: u32) -> Result<(), Errno> {
        let most = count.min(self.msize.saturating_sub(IO_HEADER_BYTES)).min(MAX_BUILT_BYTES);
        let fid = self.fid(fid)?;
        match fid.open {
            Open::Dir { .. } => {}
            Open::No => return Err(Errno::EBADF),
            _ => return Err(Errno::ENOTDIR),
        }
        let records = stat::dirents(&fid.tree, fid.node, offset, most as usize);
        self.reply(tag, Ok(Message::Rreaddir { data: Blob(&records) }));
        Ok(())
    }

    fn readlink(&mut self, tag: u16, fid: u32) {
        let fid = match self.fid(fid) {
            Ok(fid) => fid,
            Err(errno) => return self.reply(tag, Err(errno)),
        };
        let tree = fid.tree.clone();
        let reply = match tree.entry(fid.node).map(|entry| &entry.content) {
            Some(Content::Symlink { target })
                if target.len() + HEADER_BYTES + 2 <= self.msize as usize =>
            {
                Ok(Message::Rreadlink { target: Text(target) })
            }
            Some(Content::Symlink { .. }) => Err(Errno::EMSGSIZE),
            _ => Err(Errno::EINVAL),
        };
        self.reply(tag, reply);
    }

    fn stat(&mut self, tag: u16, fid: u32, tree: &Arc<Tree>) {
        let dialect = self.dialect;
        if dialect == Dialect::Linux {
            return self.reply(tag, Err(Errno::EOPNOTSUPP));
        }
        let (tree, node) = match self.current_fid(fid, tree) {
            Ok(fid) => (fid.tree.clone(), fid.node),
            Err(errno) => return self.reply(tag, Err(errno)),
        };
        stat::with_stat(&tree, node, dialect, |stat| {
            let stat = self.classic.shown(node, stat);
            self.reply(tag, Ok(Message::Rstat { stat }));
        });
    }

    fn getattr(&mut self, fid: u32, tree: &Arc<Tree>) -> Reply<'static> {
        let fid = self.current_fid(fid, tree)?;
        Ok(stat::getattr(fid.tree.attributes(fid.node)))
    }

    fn write(&mut self, fid: u32, data: &[u8], host: &mut impl Host, at: At) -> Reply<'static> {
        let Fid { tree, node, open } = self.fid(fid)?;
        match (open, *node) {
            (Open::Control { file, write: true, .. }, _) => {
                host.write(at, *file, data)?;
                Ok(Message::Rwrite { count: data.len() as u32 })
            }
            (Open::Offer, Node::Classic(entry, _)) => {
                // What was opened before a change of the tree is not offered any more.
                if Arc::ptr_eq(tree, host.tree()) {
                    host.classic_offer(at, entry, data)?;
                }
                Ok(Message::Rwrite { count: data.len() as u32 })
            }
            _ => Err(Errno::EBADF),
        }
    }

    fn clunk(&mut self, fid: u32, host: &mut impl Host, at: At) -> Result<(), Errno> {
        let gone = self.fids.remove(&fid).ok_or(Errno::EBADF)?;
        while let Some(i) = self.parked.iter().position(|parked| parked.fid == fid) {
            let Parked { tag, wish, .. } = self.parked.remove(i);
            self.give_up(&wish, host, at);
            self.reply(tag, Err(Errno::EBADF));
        }
        release(&gone, host, at);
        host.budget().give_back(&mut self.held, gone.held_bytes());
        // What many fids took is not kept for a few.
        if self.fids.capacity() > FEW_FIDS && self.fids.len() < self.fids.capacity() / 8 {
            self.fids.shrink_to_fit();
        }
        Ok(())
    }

    /// Whether attributes may be set: only control files let a client pretend to truncate them.
    fn may_change(&self, fid: u32) -> Result<bool, Errno> {
        Ok(matches!(self.fid(fid)?.node, Node::Control(file) if file.writable()))
    }

    fn fid(&self, fid: u32) -> Result<&Fid, Errno> {
        self.fids.get(&fid).ok_or(Errno::EBADF)
    }

    /// The fid, moved to the tree of now if it is not open: long-lived fids see new generations.
    fn current_fid(&mut self, fid: u32, tree: &Arc<Tree>) -> Result<&mut Fid, Errno> {
        current(&mut self.fids, fid, tree)
    }

    /// A read of a file's bytes or checksum cannot be answered.
    fn fail(&mut self, tag: u16, errno: Errno) {
        match self.classic.reads {
            true => self.hangup = Some(Hangup::Classic(errno)),
            false => self.reply(tag, Err(errno)),
        }
    }

    fn add_fid(&mut self, number: u32, fid: Fid, host: &mut impl Host) -> Result<(), Errno> {
        if number == NOFID || self.fids.contains_key(&number) {
            return Err(Errno::EBADF);
        }
        if self.fids.len() >= MAX_FIDS {
            return Err(Errno::EMFILE);
        }
        host.budget().take(&mut self.held, fid.held_bytes())?;
        self.fids.insert(number, fid);
        Ok(())
    }

    /// The error for what would change the tree.
    fn read_only(&self) -> Errno {
        if self.dialect == Dialect::Plain { Errno::EPERM } else { Errno::EROFS }
    }

    fn refuse_oversized(&mut self, header: &[u8]) {
        if let Ok(frame) = Frame::parse(header) {
            self.reply(frame.tag, Err(Errno::EMSGSIZE));
        }
    }

    fn reply(&mut self, tag: u16, reply: Reply<'_>) {
        let message = reply.unwrap_or_else(|errno| match self.dialect {
            Dialect::Linux => Message::Rlerror { ecode: errno.0 },
            _ => Message::Rerror { ename: Text(errno.text().as_bytes()), errno: UnixOnly(errno.0) },
        });
        self.note("<-", tag, &message);
        if !matches!(self.outputs.back(), Some(Output::Reply(bytes)) if bytes.len() < MAX_REQUEST_BYTES)
        {
            self.outputs.push_back(Output::Reply(Vec::new()));
        }
        let Some(Output::Reply(bytes)) = self.outputs.back_mut() else { return };
        let start = bytes.len();
        message.encode(tag, self.dialect, bytes);
        // Only a very small msize can make a reply too long, and then an error still fits.
        if self.msize > 0 && bytes.len() - start > self.msize as usize {
            bytes.truncate(start);
            self.reply(tag, Err(Errno::EMSGSIZE));
        }
    }

    fn note(&mut self, way: &str, tag: u16, message: &Message<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{way} tag {tag} {message}"));
        }
    }
}

/// A table of this many fids is kept however few there are.
const FEW_FIDS: usize = 64;
/// `P9_LOCK_SUCCESS`.
const LOCK_SUCCESS: u8 = 0;
/// "Nobody holds it" in Tgetlock.
const F_UNLCK: u8 = 2;

fn current<'f>(
    fids: &'f mut HashMap<u32, Fid>,
    fid: u32,
    tree: &Arc<Tree>,
) -> Result<&'f mut Fid, Errno> {
    let fid = fids.get_mut(&fid).ok_or(Errno::EBADF)?;
    if matches!(fid.open, Open::No) && !Arc::ptr_eq(&fid.tree, tree) {
        fid.node = tree.same_place(&fid.tree, fid.node).ok_or(Errno::ESTALE)?;
        fid.tree = tree.clone();
    }
    Ok(fid)
}

fn release(fid: &Fid, host: &mut impl Host, at: At) {
    match (&fid.open, fid.node) {
        (Open::Control { file, .. }, _) => host.clunk(at, *file),
        (Open::Offer, Node::Classic(entry, _)) if Arc::ptr_eq(&fid.tree, host.tree()) => {
            host.classic_withdraw(at, entry);
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
