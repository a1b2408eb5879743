//! What the tests of both sessions share: a tree, a host that keeps books, and a peer to talk to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::{Answer, At, Budget, Data, Hangup, Host, Output, Session};
use crate::conn::Conn;
use crate::control::Control;
use crate::image::manifest::{Content, Entry, Listing, Manifest, Mtime, Owner};
use crate::image::path::TreePath;
use crate::limits::MASTER_HELD_BYTES;
use crate::p9::errno::Errno;
use crate::p9::message::{Frame, Message, NOFID};
pub(crate) use crate::p9::wire::Blob;
use crate::p9::wire::{Dialect, List, NumericId, Text};
use crate::serve::tree::Tree;

pub(crate) const DIALECTS: [Dialect; 3] = [Dialect::Plain, Dialect::Unix, Dialect::Linux];
/// The host that a client is on.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const MSIZE: u32 = 8192;
/// How many entries the directory `many` has; each tenth is a directory with something in it.
pub(crate) const MANY: usize = 300;
/// How many directories `d` lie in each other.
pub(crate) const DEEP: usize = 17;
pub(crate) const KERNEL_BYTES: u64 = 200_000;
pub(crate) const NOT_UTF8: &[u8] = b"na\xffme";
pub(crate) const TARGET: &[u8] = b"../boot.cfg";

/// What the image holds at an offset.
pub(crate) fn image_byte(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 16)) as u8
}

pub(crate) fn image_bytes(range: Range<u64>) -> Vec<u8> {
    range.map(image_byte).collect()
}

fn entry(path: &[u8], mode: u32, content: Content) -> Entry {
    Entry {
        path: TreePath::from_manifest(path).unwrap(),
        mode,
        owner: Some(Owner { uid: 7, gid: 8 }),
        mtime: Mtime { secs: 1_700_000_000, nanos: 5 },
        content,
    }
}

pub(crate) fn file(path: &[u8], bytes: u64) -> Entry {
    entry(path, 0o644, Content::File { bytes, image_offset: 0 })
}

fn dir(path: &[u8]) -> Entry {
    entry(path, 0o755, Content::Directory)
}

pub(crate) fn tree_with(more: impl IntoIterator<Item = Entry>) -> Arc<Tree> {
    let link = Content::Symlink { target: TARGET.into() };
    let mut entries = vec![
        dir(b"."),
        dir(b"boot"),
        file(b"boot/vmlinuz", KERNEL_BYTES),
        file(b"boot/empty", 0),
        entry(b"boot/link", 0o777, link),
        file(b"boot.cfg", 10),
        entry(b"su", 0o4755, Content::File { bytes: 3, image_offset: 0 }),
        entry(b"tmp", 0o1777, Content::Directory),
        file(NOT_UTF8, 4),
        dir(b"many"),
    ];
    for i in 0..MANY {
        let path = format!("many/{i:03}");
        match i % 10 {
            0 => entries.extend([dir(path.as_bytes()), file(format!("{path}/x").as_bytes(), 1)]),
            _ => entries.push(file(path.as_bytes(), 1)),
        }
    }
    entries.extend((1..=DEEP).map(|depth| dir(["d"].repeat(depth).join("/").as_bytes())));
    entries.extend(more);
    let listing = Listing::new(entries).unwrap();
    let hashes = listing.layout().iter().map(|_| blake3::hash(b"")).collect();
    Arc::new(Tree::new(Arc::new(Manifest::new(listing, hashes).unwrap())))
}

pub(crate) fn tree() -> Arc<Tree> {
    static TREE: OnceLock<Arc<Tree>> = OnceLock::new();
    TREE.get_or_init(|| tree_with([])).clone()
}

/// The tree after a change: one file more at its front, so that every index and offset moved.
pub(crate) fn changed_tree() -> Arc<Tree> {
    static TREE: OnceLock<Arc<Tree>> = OnceLock::new();
    TREE.get_or_init(|| tree_with([file(b"a-new-file", 1000)])).clone()
}

/// A host that does as it is told and notices what is not given back to it.
pub(crate) struct TestHost {
    pub(crate) tree: Arc<Tree>,
    /// Reads of the image and of files wait.
    pub(crate) image_waits: bool,
    /// What `have` holds; a read at its end waits.
    pub(crate) have: Vec<u8>,
    pub(crate) written: Vec<u8>,
    open: BTreeMap<&'static str, usize>,
    waiting: BTreeSet<&'static str>,
    turns: Vec<Range<u64>>,
    pub(crate) budget: Budget,
}

impl TestHost {
    pub(crate) fn new(tree: Arc<Tree>) -> TestHost {
        TestHost {
            tree,
            image_waits: false,
            have: b"0 1 2\n".to_vec(),
            written: Vec::new(),
            open: BTreeMap::new(),
            waiting: BTreeSet::new(),
            turns: Vec::new(),
            budget: Budget::new(MASTER_HELD_BYTES),
        }
    }

    pub(crate) fn is_open(&self, file: Control) -> bool {
        self.open.get(file.name()).is_some_and(|n| *n > 0)
    }

    pub(crate) fn is_waiting(&self, file: Control) -> bool {
        self.waiting.contains(file.name())
    }

    pub(crate) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Everything that was opened is closed, nobody is waited for, no turn is taken.
    pub(crate) fn assert_balanced(&self) {
        assert!(self.open.values().all(|n| *n == 0), "still open: {:?}", self.open);
        assert!(self.waiting.is_empty(), "still waiting for {:?}", self.waiting);
        assert!(self.turns.is_empty(), "turns not ended: {:?}", self.turns);
    }
}

impl Host for TestHost {
    fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    fn has(&self, file: Control) -> bool {
        file != Control::Signature
    }

    fn open(&mut self, _: At, file: Control) -> Result<Option<Arc<[u8]>>, Errno> {
        if file == Control::Redir {
            return Err(Errno::EIO);
        }
        *self.open.entry(file.name()).or_default() += 1;
        Ok((file == Control::Manifest).then(|| self.tree.manifest().text().clone()))
    }

    fn read(&mut self, _: At, file: Control, offset: u64, count: usize) -> Answer<Vec<u8>> {
        assert!(self.is_open(file), "a read of {}, which is not open", file.name());
        let rest = self.have.get(offset as usize..).unwrap_or_default();
        if rest.is_empty() {
            self.waiting.insert(file.name());
            return Answer::Wait;
        }
        Answer::Now(rest[..rest.len().min(count)].to_vec())
    }

    fn write(&mut self, _: At, file: Control, data: &[u8]) -> Result<(), Errno> {
        assert!(self.is_open(file), "a write to {}, which is not open", file.name());
        self.written.extend_from_slice(data);
        Ok(())
    }

    fn clunk(&mut self, _: At, file: Control) {
        let open = self.open.get_mut(file.name()).expect("a clunk of what was never opened");
        *open = open.checked_sub(1).expect("one clunk too many");
    }

    fn image(&mut self, _: At, _: &Arc<Tree>, range: &Range<u64>, paced: bool) -> Answer<u64> {
        let name = Control::Image.name();
        if paced {
            self.waiting.remove(name);
        }
        if self.image_waits {
            if paced {
                self.waiting.insert(name);
            }
            return Answer::Wait;
        }
        if paced {
            self.turns.push(range.clone());
        }
        Answer::Now(range.end)
    }

    fn sent(&mut self, _: At, data: &Data) {
        if !data.paced {
            return;
        }
        let turn = self.turns.iter().position(|turn| *turn == data.range);
        self.turns.remove(turn.expect("the end of a turn that was not given"));
    }

    fn cancel(&mut self, _: At, file: Control) {
        self.waiting.remove(file.name());
    }
}

/// A message as one frame.
pub(crate) fn encode(tag: u16, message: &Message<'_>, dialect: Dialect) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(tag, dialect, &mut frame);
    frame
}

/// Cuts a stream into messages. They live as long as the test does.
pub(crate) fn decode(stream: Vec<u8>, dialect: Dialect) -> Vec<(u16, Message<'static>)> {
    let mut rest: &'static [u8] = stream.leak();
    let mut messages = Vec::new();
    while let Some(size) = rest.first_chunk() {
        let (frame, after) = rest.split_at(u32::from_le_bytes(*size) as usize);
        let Frame { kind, tag, body } = Frame::parse(frame).unwrap();
        messages.push((tag, Message::decode(kind, body, dialect).unwrap()));
        rest = after;
    }
    messages
}

/// The bytes of an output, as a driver sends them.
pub(crate) fn sent_bytes(output: Output, host: &mut TestHost, now: Instant) -> Vec<u8> {
    match output {
        Output::Reply(bytes) => bytes,
        Output::Data(data) => {
            host.sent(At { conn: Conn(1), now }, &data);
            [&data.header()[..], &image_bytes(data.range.clone())].concat()
        }
    }
}

pub(crate) fn names<'a>(path: &'a [&'a str]) -> List<Text<'a>> {
    path.iter().map(|name| Text(name.as_bytes())).collect()
}

pub(crate) fn version(msize: u32, version: &str) -> Message<'_> {
    Message::Tversion { msize, version: Text(version.as_bytes()) }
}

pub(crate) fn attach(fid: u32) -> Message<'static> {
    let n_uname = NumericId(Some(u32::MAX));
    Message::Tattach { fid, afid: NOFID, uname: Text(b"nobody"), aname: Text(b""), n_uname }
}

pub(crate) fn read(fid: u32, offset: u64, count: u32) -> Message<'static> {
    Message::Tread { fid, offset, count }
}

/// A client at the other end of a session, which says one thing at a time.
pub(crate) struct Peer {
    pub(crate) session: Session,
    pub(crate) host: TestHost,
    pub(crate) dialect: Dialect,
    pub(crate) now: Instant,
}

/// The root's fid after [`Peer::new`].
pub(crate) const ROOT_FID: u32 = 0;
/// The tag under which [`Peer::ask`] asks.
pub(crate) const TAG: u16 = 1;

impl Peer {
    /// A peer that has said nothing yet.
    pub(crate) fn silent() -> Peer {
        Peer {
            session: Session::new(Conn(1), CLIENT, false),
            host: TestHost::new(tree()),
            dialect: Dialect::Plain,
            now: Instant::now(),
        }
    }

    /// A peer that has settled on a dialect and has attached to the root.
    pub(crate) fn new(dialect: Dialect) -> Peer {
        let mut peer = Peer::silent();
        peer.negotiate(MSIZE, dialect.name());
        peer.ask(&attach(ROOT_FID));
        peer
    }

    /// Says Tversion; the message size and version of the reply.
    pub(crate) fn negotiate(&mut self, msize: u32, wanted: &str) -> (u32, String) {
        self.say(u16::MAX, &version(msize, wanted));
        self.dialect = Dialect::requested(wanted.as_bytes()).unwrap_or(Dialect::Plain);
        let replies = self.hear();
        let [(_, Message::Rversion { msize, version })] = &replies[..] else {
            panic!("{replies:?}")
        };
        (*msize, String::from_utf8(version.0.to_vec()).unwrap())
    }

    pub(crate) fn say(&mut self, tag: u16, message: &Message<'_>) {
        self.feed(&encode(tag, message, self.dialect)).unwrap();
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Hangup> {
        self.session.receive(bytes);
        self.session.process(&mut self.host, self.now)
    }

    /// All that the session sends, as bytes.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        let mut stream = Vec::new();
        while let Some(output) = self.session.next_output() {
            stream.extend(sent_bytes(output, &mut self.host, self.now));
            let _ = self.session.process(&mut self.host, self.now);
        }
        stream
    }

    /// All replies there are.
    pub(crate) fn hear(&mut self) -> Vec<(u16, Message<'static>)> {
        let stream = self.drain();
        decode(stream, self.dialect)
    }

    /// Says something and hears its one reply.
    pub(crate) fn ask(&mut self, message: &Message<'_>) -> Message<'static> {
        self.say(TAG, message);
        let mut replies = self.hear();
        assert_eq!(replies.len(), 1, "{message}: {replies:?}");
        let (tag, reply) = replies.remove(0);
        assert_eq!(tag, TAG, "{message}: {reply}");
        reply
    }

    /// Says something that has to be refused; the reason.
    pub(crate) fn refused(&mut self, message: &Message<'_>) -> Errno {
        let reply = self.ask(message);
        error_of(&reply).unwrap_or_else(|| panic!("{message}: not refused: {reply}"))
    }

    /// Walks from the root to a new fid.
    pub(crate) fn walk(&mut self, newfid: u32, path: &str) -> Message<'static> {
        let path: Vec<&str> = path.split('/').collect();
        let wname = names(&path);
        self.ask(&Message::Twalk { fid: ROOT_FID, newfid, wname })
    }

    /// Walks and opens for reading.
    pub(crate) fn open(&mut self, fid: u32, path: &str) -> Message<'static> {
        self.open_for(fid, path, 0)
    }

    /// Walks and opens; 0, 1 and 2 mean the same in all dialects.
    pub(crate) fn open_for(&mut self, fid: u32, path: &str, mode: u8) -> Message<'static> {
        let walked = self.walk(fid, path);
        assert!(matches!(walked, Message::Rwalk { .. }), "{path}: {walked}");
        self.ask(&open(self.dialect, fid, mode))
    }

    /// The data of a read.
    pub(crate) fn read(&mut self, fid: u32, offset: u64, count: u32) -> Vec<u8> {
        match self.ask(&read(fid, offset, count)) {
            Message::Rread { data } => data.0.to_vec(),
            other => panic!("{other}"),
        }
    }

    /// Lets the waiting requests be tried again.
    pub(crate) fn resume(&mut self) {
        self.session.resume(&mut self.host, self.now);
    }

    pub(crate) fn close(&mut self) {
        self.session.close(&mut self.host, self.now);
        self.host.assert_balanced();
        assert_eq!(self.host.budget.held(), 0, "bytes of fids that are gone");
    }
}

pub(crate) fn open(dialect: Dialect, fid: u32, mode: u8) -> Message<'static> {
    match dialect {
        Dialect::Linux => Message::Tlopen { fid, flags: u32::from(mode) },
        _ => Message::Topen { fid, mode },
    }
}

/// The reason that an error reply gives, by its number or its words.
pub(crate) fn error_of(reply: &Message<'_>) -> Option<Errno> {
    match reply {
        Message::Rlerror { ecode } => Some(Errno(*ecode)),
        Message::Rerror { ename, .. } => {
            (0..200).map(Errno).find(|errno| errno.text().as_bytes() == ename.0)
        }
        _ => None,
    }
}

/// A small deterministic source of numbers (Knuth's multiplier, the high bits).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}
