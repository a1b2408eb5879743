//! A host that asks the master for more than its share, on many connections at once.
//!
//! Its connections fetch nothing: each does one thing again and again, as a client of an attacker would that is written
//! for this. What honest nodes experience beside it is what the rules of `serve` are there for.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::host::{Served, Wrong};
use super::network::{End, HostId, LinkId, Network, PORT, Piece, Ready};
use crate::control::{Control, Join, Report};
use crate::image::chunks::ChunkSet;
use crate::limits::MAX_MSIZE;
use crate::p9::errno::Errno;
use crate::p9::message::{Frame, HEADER_BYTES, Message, NOFID, NOTAG, RREAD};
use crate::p9::wire::{Blob, Dialect, List, NumericId, Text};
use crate::serve::tree::CONTROL_DIR;

/// What is in flight to a connection at most, as with a small receive buffer.
const WINDOW_BYTES: usize = 16 << 10;
/// Reads of the image that each connection has made from the beginning: one chunk is sent, the others wait.
const IMAGE_READS: u16 = 16;

/// The fids of a connection.
const ROOT: u32 = 0;
const FILE: u32 = 1;
const AVAIL: u32 = 2;

const READ_IMAGE: Message<'_> = Message::Tread { fid: FILE, offset: 0, count: MAX_MSIZE };

/// Flags of Tlopen, as open(2) has them.
const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;

/// What a greedy host does on each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greed {
    /// Reads the image and takes 2 KB/s of it, so that every upload to it lasts.
    Image,
    /// Reads the image as fast as it comes.
    Readers,
    /// Says that it holds everything.
    Held,
    /// Reads the first byte of the manifest twice a second, and never ends.
    Manifest,
    /// Joins, lacks everything, asks for grants five times a second, and fetches nothing.
    Grants,
    /// The same, and says nothing to nodes that connect to it, instead of refusing them.
    Mute,
}

/// A host that takes more than its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greedy {
    /// What it does.
    pub greed: Greed,
    /// On how many connections.
    pub connections: usize,
}

impl Greed {
    /// How often each connection does what it does.
    fn period(self) -> Duration {
        match self {
            Greed::Image | Greed::Readers | Greed::Held => Duration::from_secs(8),
            Greed::Manifest => Duration::from_millis(500),
            Greed::Grants | Greed::Mute => Duration::from_millis(200),
        }
    }
}

/// The program on a greedy host.
#[derive(Debug)]
pub(super) struct Attacker {
    id: HostId,
    greed: Greed,
    links: BTreeMap<LinkId, Client>,
    /// When each connection does something next, the first one first.
    due: VecDeque<(Instant, LinkId)>,
    hello: Vec<u8>,
    ready: Vec<Ready>,
}

#[derive(Debug, Default)]
struct Client {
    outgoing: Option<Piece>,
    /// The tag of its last request.
    tag: u16,
    /// That request was answered.
    answered: bool,
}

impl Attacker {
    /// Connects to the master.
    pub(super) fn new(id: HostId, greedy: Greedy, served: &Served, net: &mut Network) -> Attacker {
        let Greedy { greed, connections } = greedy;
        let master = net.racks().address(HostId::MASTER);
        if greed == Greed::Image {
            net.limit_window(id, WINDOW_BYTES);
        }
        let (mut links, mut due) = (BTreeMap::new(), VecDeque::new());
        for n in 0..connections {
            let Some(link) = net.dial(id, master) else { continue };
            links.insert(link, Client::default());
            // They take turns, once all of them are connected.
            let after = greed.period().mul_f64(1.0 + n as f64 / connections as f64);
            due.push_back((net.now() + after, link));
        }
        Attacker { id, greed, links, due, hello: hello(greed, served), ready: Vec::new() }
    }

    /// Does what can be done at this moment; when it wants to be called again.
    pub(super) fn turn(&mut self, net: &mut Network) -> Result<Option<Instant>, Wrong> {
        let mut ready = std::mem::take(&mut self.ready);
        net.take_ready(self.id, &mut ready);
        for ready in &ready {
            self.react(*ready, net)?;
        }
        self.ready = ready;
        while let Some((at, link)) = self.due.front().copied()
            && at <= net.now()
        {
            self.due.pop_front();
            if self.links.contains_key(&link) {
                self.due.push_back((at + self.greed.period(), link));
                self.repeat(link, net)?;
            }
        }
        Ok(self.due.front().map(|(at, _)| *at))
    }

    fn react(&mut self, ready: Ready, net: &mut Network) -> Result<(), Wrong> {
        match ready {
            Ready::Accepted(..) if self.greed == Greed::Mute => {}
            // It says that it serves, and does not.
            Ready::Accepted(link, _) => net.close(link, End::Server),
            Ready::Connected(link) => self.ask(link, self.hello.clone(), net),
            // Of the image it takes the beginning, and more when it is time.
            Ready::Readable(link, End::Client)
                if self.greed != Greed::Image || !self.is_answered(link) =>
            {
                self.take(link, net)?;
            }
            Ready::Writable(link, End::Client) => self.send(link, net),
            Ready::Closed(link, end) => {
                net.close(link, end);
                self.links.remove(&link);
            }
            Ready::Readable(..) | Ready::Writable(..) => {}
        }
        Ok(())
    }

    fn is_answered(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|client| client.answered)
    }

    /// It is this connection's turn.
    fn repeat(&mut self, link: LinkId, net: &mut Network) -> Result<(), Wrong> {
        let Some(client) = self.links.get_mut(&link) else { return Ok(()) };
        let count = match self.greed {
            Greed::Image => return self.take(link, net),
            Greed::Readers | Greed::Held => return Ok(()),
            Greed::Manifest if !client.answered => return Ok(()),
            Greed::Manifest => 1,
            Greed::Grants | Greed::Mute => 64,
        };
        client.tag = client.tag.wrapping_add(1) % NOTAG;
        client.answered = false;
        let read = Message::Tread { fid: FILE, offset: 0, count };
        let requests = encoded(&[(client.tag, read)]);
        self.ask(link, requests, net);
        Ok(())
    }

    /// Reads what has come: all of it, or one segment of the image.
    fn take(&mut self, link: LinkId, net: &mut Network) -> Result<(), Wrong> {
        while let Some(piece) = net.read(link, End::Client) {
            let Piece::Bytes(bytes) = piece else {
                if self.greed == Greed::Readers {
                    continue;
                }
                return Ok(());
            };
            if let Some(errno) = refusals(&bytes).find(|errno| *errno != Errno::EBUSY) {
                return Err(Wrong::Attack(errno));
            }
            if let Some(client) = self.links.get_mut(&link) {
                client.answered = true;
            }
            let chunk = Frame::parse(&bytes).ok().filter(|frame| frame.kind == RREAD);
            if let Some(Frame { tag, .. }) = chunk
                && self.greed == Greed::Readers
            {
                self.ask(link, encoded(&[(tag, READ_IMAGE)]), net);
            }
        }
        Ok(())
    }

    fn ask(&mut self, link: LinkId, requests: Vec<u8>, net: &mut Network) {
        let Some(client) = self.links.get_mut(&link) else { return };
        match &mut client.outgoing {
            Some(Piece::Bytes(bytes)) => bytes.extend(requests),
            outgoing => *outgoing = Some(Piece::Bytes(requests)),
        }
        self.send(link, net);
    }

    fn send(&mut self, link: LinkId, net: &mut Network) {
        if let Some(client) = self.links.get_mut(&link) {
            net.write(link, End::Client, &mut client.outgoing);
        }
    }
}

/// The first requests of a connection, which do not wait for replies.
fn hello(greed: Greed, served: &Served) -> Vec<u8> {
    let mut requests = greeting();
    match greed {
        Greed::Image | Greed::Readers => {
            requests.extend(opening(FILE, Control::Image, O_RDONLY));
            let reads = (2..2 + IMAGE_READS).map(|tag| (tag, READ_IMAGE));
            requests.extend(encoded(&reads.collect::<Vec<_>>()));
        }
        Greed::Held => {
            requests.extend(opening(FILE, Control::Next, O_RDWR));
            requests.extend(report(Report::Held, served));
        }
        Greed::Manifest => requests.extend(opening(FILE, Control::Manifest, O_RDONLY)),
        Greed::Grants | Greed::Mute => {
            let generation = served.manifest.generation();
            let join = Join { port: PORT, generation, all_files: false }.to_string();
            requests.extend(opening(AVAIL, Control::Avail, O_WRONLY));
            requests.extend(encoded(&[(1, write(AVAIL, &join))]));
            requests.extend(opening(FILE, Control::Next, O_RDWR));
            requests.extend(report(Report::Want, served));
        }
    }
    requests
}

/// A report of all chunks.
fn report(of: fn(ChunkSet) -> Report, served: &Served) -> Vec<u8> {
    let lines = of(ChunkSet::full(served.manifest.layout())).lines();
    lines.iter().flat_map(|line| encoded(&[(1, write(FILE, line))])).collect()
}

fn greeting() -> Vec<u8> {
    let version = Message::Tversion { msize: MAX_MSIZE, version: Text(b"9P2000.L") };
    let attach = Message::Tattach {
        fid: ROOT,
        afid: NOFID,
        uname: Text(b""),
        aname: Text(b""),
        n_uname: NumericId(Some(0)),
    };
    encoded(&[(NOTAG, version), (1, attach)])
}

fn opening(fid: u32, file: Control, flags: u32) -> Vec<u8> {
    let path = [CONTROL_DIR, file.name().as_bytes()];
    let wname: List<Text<'_>> = path.into_iter().map(Text).collect();
    let walk = Message::Twalk { fid: ROOT, newfid: fid, wname };
    encoded(&[(1, walk), (1, Message::Tlopen { fid, flags })])
}

fn write(fid: u32, text: &str) -> Message<'_> {
    Message::Twrite { fid, offset: 0, data: Blob(text.as_bytes()) }
}

fn encoded(requests: &[(u16, Message<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, message) in requests {
        message.encode(*tag, Dialect::Linux, &mut bytes);
    }
    bytes
}

/// The errors among replies.
fn refusals(mut replies: &[u8]) -> impl Iterator<Item = Errno> {
    let frames = std::iter::from_fn(move || {
        let size = u32::from_le_bytes(*replies.first_chunk()?) as usize;
        let (reply, rest) = replies.split_at_checked(size.max(HEADER_BYTES))?;
        replies = rest;
        Frame::parse(reply).ok()
    });
    frames.filter_map(|frame| {
        match Message::decode(frame.kind, frame.body, Dialect::Linux).ok()? {
            Message::Rlerror { ecode } => Some(Errno(ecode)),
            _ => None,
        }
    })
}
