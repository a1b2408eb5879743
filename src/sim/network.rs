//! The network: links of a given rate, connections that share them fairly, and delays.
//!
//! A sender's uplink serves its connections in turns of one segment; what leaves it arrives after
//! the delay and passes the receiver's downlink in the order in which it came. As with
//! `TCP_NOTSENT_LOWAT`, a sender may write only so far ahead of what has left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::content::Image;

/// Bytes of one connection that an uplink carries before the others have their turn.
const SEGMENT_BYTES: usize = 16 << 10;
/// Bytes that may be written and not have left, as `net/tcp.rs` sets it for the
/// smallest chunks.
const UNSENT_BYTES: usize = 32 << 10;
/// Bytes that may have left and not be read.
const WINDOW_BYTES: usize = 512 << 10;
/// After this time a connection to a host that has vanished breaks, as `net/tcp.rs` sets it.
const BREAKS_AFTER: Duration = Duration::from_secs(30);
/// The port that everybody serves on.
pub(super) const PORT: u16 = 20_004;

/// Names a host: 0 is the master, and the nodes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

impl HostId {
    /// The master.
    pub const MASTER: HostId = HostId(0);

    /// Hosts have addresses in racks of 64.
    pub(super) fn ip(self) -> IpAddr {
        let (rack, place) = (self.0 / 64, self.0 % 64 + 1);
        Ipv4Addr::new(10, (rack >> 8) as u8, rack as u8, place as u8).into()
    }

    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::new(self.ip(), PORT)
    }

    pub(super) fn of(address: SocketAddr) -> Option<HostId> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let [_, high, low, place] = ip.octets();
        let rack = usize::from(high) << 8 | usize::from(low);
        Some(HostId(rack * 64 + usize::from(place).checked_sub(1)?))
    }
}

/// How a host is connected to the switch.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// What leaves, in bytes a second.
    pub up_bytes_per_s: u64,
    /// What arrives, in bytes a second.
    pub down_bytes_per_s: u64,
    /// From the host to the switch, and from there to the host.
    pub delay: Duration,
}

/// Names a connection; none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(pub(super) u64);

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The one that called.
    Client,
    /// The one that was called.
    Server,
}

impl End {
    fn other(self) -> End {
        match self {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }
}

/// One side of one connection, and what it sends.
type PipeId = (LinkId, End);

/// Something that a host has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// Somebody has called.
    Accepted(LinkId, SocketAddr),
    /// A call was answered.
    Connected(LinkId),
    /// Bytes have come.
    Readable(LinkId, End),
    /// There is room again.
    Writable(LinkId, End),
    /// The connection is over.
    Closed(LinkId, End),
}

/// Bytes on their way. Those of the image are made when they arrive.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    Image { range: Range<u64>, spoilt: bool },
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Image { range, .. } => (range.end - range.start) as usize,
        }
    }

    /// Takes the first `count` bytes off, which must be fewer than there are.
    fn split_front(&mut self, count: usize) -> Piece {
        match self {
            Piece::Bytes(bytes) => {
                let rest = bytes.split_off(count);
                Piece::Bytes(std::mem::replace(bytes, rest))
            }
            Piece::Image { range, spoilt } => {
                let front = range.start..range.start + count as u64;
                range.start = front.end;
                Piece::Image { range: front, spoilt: *spoilt }
            }
        }
    }

    fn append_to(&self, to: &mut Vec<u8>) {
        match self {
            Piece::Bytes(bytes) => to.extend_from_slice(bytes),
            Piece::Image { range, spoilt } => {
                let start = to.len();
                Image.copy(range.clone(), to);
                if let Some(byte) = to.get_mut(start).filter(|_| *spoilt) {
                    *byte ^= 1;
                }
            }
        }
    }
}

/// Pieces in order, and how many bytes they are.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// At most `most` bytes off the front.
    fn take(&mut self, most: usize) -> Queue {
        let mut taken = Queue::default();
        while let Some(first) = self.pieces.front_mut() {
            let room = most - taken.bytes;
            if room == 0 {
                break;
            }
            match first.len() <= room {
                true => self.pieces.pop_front().into_iter().for_each(|piece| taken.push(piece)),
                false => taken.push(first.split_front(room)),
            }
        }
        self.bytes -= taken.bytes;
        taken
    }
}

/// What one side of a connection sends.
#[derive(Debug)]
struct Pipe {
    from: HostId,
    to: HostId,
    /// Whether the sender still has it.
    open: bool,
    unsent: Queue,
    /// Bytes that have left and were not read.
    in_flight: usize,
    arrived: Queue,
    /// It stands in its uplink's queue.
    in_line: bool,
    /// Its writer found no room.
    blocked: bool,
}

impl Pipe {
    fn new(from: HostId, to: HostId) -> Pipe {
        Pipe {
            from,
            to,
            open: true,
            unsent: Queue::default(),
            in_flight: 0,
            arrived: Queue::default(),
            in_line: false,
            blocked: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// The program has ended: calls are refused.
    Refuses,
    /// The host is off: calls are not answered.
    Off,
}

#[derive(Debug)]
struct Port {
    link: Link,
    power: Power,
    sending: bool,
    line: VecDeque<PipeId>,
    /// Until when the downlink is taken.
    taken_until: Instant,
    ready: Vec<Ready>,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// An uplink is free again.
    Sent(HostId),
    /// A segment stands before the receiver's downlink; its last byte left the sender so late that
    /// it cannot have arrived before then.
    Reaches(PipeId, Queue, Instant),
    Arrives(PipeId, Queue),
    Calls(LinkId),
    Answers(LinkId),
    /// This side learns that the connection is over.
    Ends(PipeId),
    /// The cluster's business.
    Timer(u64),
}

/// The earlier comes first, and of those at the same moment what was planned first.
#[derive(Debug)]
struct Planned(Instant, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// All hosts' links and connections, and what will happen.
#[derive(Debug)]
pub(super) struct Network {
    now: Instant,
    ports: Vec<Port>,
    pipes: BTreeMap<PipeId, Pipe>,
    last_link: u64,
    planned: BinaryHeap<Reverse<Planned>>,
    last_event: u64,
    /// Who has something to look at.
    woken: Vec<HostId>,
}

/// What a step of the network led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Hosts may have something to look at.
    Moved,
    /// A timer of the cluster's has come.
    Timer(u64),
}

impl Network {
    pub(super) fn new(links: impl Iterator<Item = Link>, now: Instant) -> Network {
        let port = |link| Port {
            link,
            power: Power::Refuses,
            sending: false,
            line: VecDeque::new(),
            taken_until: now,
            ready: Vec::new(),
        };
        Network {
            now,
            ports: links.map(port).collect(),
            pipes: BTreeMap::new(),
            last_link: 0,
            planned: BinaryHeap::new(),
            last_event: 0,
            woken: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Plans [`Step::Timer`].
    pub(super) fn set_timer(&mut self, at: Instant, timer: u64) {
        self.plan(at, Event::Timer(timer));
    }

    /// Lets the next thing happen; None if nothing ever will.
    pub(super) fn step(&mut self) -> Option<Step> {
        let Reverse(Planned(at, _, event)) = self.planned.pop()?;
        self.now = at;
        match event {
            Event::Timer(timer) => return Some(Step::Timer(timer)),
            Event::Sent(host) => {
                if let Some(port) = self.ports.get_mut(host.0) {
                    port.sending = false;
                }
                self.send(host);
            }
            Event::Reaches(pipe, segment, not_before) => self.reaches(pipe, segment, not_before),
            Event::Arrives(id, segment) => {
                if let Some(pipe) = self.pipes.get_mut(&id) {
                    let to = pipe.to;
                    segment.pieces.into_iter().for_each(|piece| pipe.arrived.push(piece));
                    self.wake(to, Ready::Readable(id.0, id.1.other()));
                }
            }
            Event::Calls(link) => self.calls(link),
            Event::Answers(link) => {
                if let Some(pipe) = self.pipes.get(&(link, End::Client)).filter(|pipe| pipe.open) {
                    self.wake(pipe.from, Ready::Connected(link));
                }
            }
            Event::Ends((link, end)) => {
                if let Some(pipe) = self.pipes.get(&(link, end)).filter(|pipe| pipe.open) {
                    self.wake(pipe.from, Ready::Closed(link, end));
                }
            }
        }
        Some(Step::Moved)
    }

    /// Whom something has happened to since the last call.
    pub(super) fn take_woken(&mut self) -> Vec<HostId> {
        std::mem::take(&mut self.woken)
    }

    /// What has happened to a host since the last call.
    pub(super) fn take_ready(&mut self, host: HostId) -> Vec<Ready> {
        self.ports.get_mut(host.0).map(|port| std::mem::take(&mut port.ready)).unwrap_or_default()
    }

    /// A program starts on a host.
    pub(super) fn start(&mut self, host: HostId) {
        if let Some(port) = self.ports.get_mut(host.0) {
            port.power = Power::On;
            port.ready.clear();
        }
    }

    /// A program ends; with `notice` its connections do so at once, else its host is off.
    pub(super) fn stop(&mut self, host: HostId, notice: bool) {
        let Some(port) = self.ports.get_mut(host.0) else { return };
        port.power = if notice { Power::Refuses } else { Power::Off };
        port.line.clear();
        port.ready.clear();
        let own: Vec<PipeId> =
            self.pipes.iter().filter(|(_, pipe)| pipe.from == host).map(|(id, _)| *id).collect();
        for (link, end) in own {
            match notice {
                true => self.close(link, end),
                false => {
                    self.forget((link, end));
                    self.plan(self.now + BREAKS_AFTER, Event::Ends((link, end.other())));
                }
            }
        }
    }

    /// Both sides of one of a host's connections learn that it is over.
    pub(super) fn cut(&mut self, host: HostId, random: u64) {
        let own: Vec<PipeId> =
            self.pipes.iter().filter(|(_, pipe)| pipe.from == host).map(|(id, _)| *id).collect();
        let chosen = random.checked_rem(own.len() as u64).and_then(|at| own.get(at as usize));
        if let Some(&(link, end)) = chosen {
            self.plan(self.now, Event::Ends((link, end)));
            self.plan(self.now, Event::Ends((link, end.other())));
        }
    }

    /// Another rate, as if the link had fallen back to a lower one.
    pub(super) fn divide_rate(&mut self, host: HostId, by: u64) {
        if let Some(port) = self.ports.get_mut(host.0) {
            port.link.up_bytes_per_s = (port.link.up_bytes_per_s / by.max(1)).max(1);
            port.link.down_bytes_per_s = (port.link.down_bytes_per_s / by.max(1)).max(1);
        }
    }

    pub(super) fn dial(&mut self, from: HostId, address: SocketAddr) -> Option<LinkId> {
        let to = HostId::of(address).filter(|to| to.0 < self.ports.len())?;
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.pipes.insert((link, End::Client), Pipe::new(from, to));
        let delay = self.delay(from, to);
        self.plan(self.now + delay, Event::Calls(link));
        Some(link)
    }

    /// Writes as much as there is room for, from the front of `piece`; whether that was all.
    pub(super) fn write(&mut self, link: LinkId, end: End, piece: &mut Option<Piece>) -> bool {
        let Some(pipe) = self.pipes.get_mut(&(link, end)) else { return false };
        let Some(whole) = piece else { return true };
        let room = UNSENT_BYTES.saturating_sub(pipe.unsent.bytes);
        match whole.len() <= room {
            true => piece.take().into_iter().for_each(|piece| pipe.unsent.push(piece)),
            false if room > 0 => pipe.unsent.push(whole.split_front(room)),
            false => {}
        }
        pipe.blocked = piece.is_some();
        let all = !pipe.blocked;
        self.line_up((link, end));
        all
    }

    /// Bytes that wait to be read.
    pub(super) fn readable(&self, link: LinkId, end: End) -> usize {
        self.pipes.get(&(link, end.other())).map_or(0, |pipe| pipe.arrived.bytes)
    }

    /// Replaces what is in `buffer` by what has arrived, at most `most` bytes.
    pub(super) fn read(&mut self, link: LinkId, end: End, most: usize, buffer: &mut Vec<u8>) {
        buffer.clear();
        let id = (link, end.other());
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let read = pipe.arrived.take(most);
        pipe.in_flight = pipe.in_flight.saturating_sub(read.bytes);
        read.pieces.iter().for_each(|piece| piece.append_to(buffer));
        self.line_up(id);
    }

    /// One side ends a connection; what it has written and not sent is lost.
    pub(super) fn close(&mut self, link: LinkId, end: End) {
        if let Some(pipe) = self.pipes.get(&(link, end)).filter(|pipe| pipe.open) {
            let delay = self.delay(pipe.from, pipe.to);
            self.plan(self.now + delay, Event::Ends((link, end.other())));
        }
        self.forget((link, end));
    }

    fn forget(&mut self, id: PipeId) {
        let other = (id.0, id.1.other());
        if let Some(pipe) = self.pipes.get_mut(&id) {
            pipe.open = false;
            pipe.unsent = Queue::default();
        }
        if self.pipes.get(&other).is_none_or(|pipe| !pipe.open) {
            self.pipes.remove(&id);
            self.pipes.remove(&other);
        }
    }

    fn calls(&mut self, link: LinkId) {
        let Some(pipe) = self.pipes.get(&(link, End::Client)) else { return };
        let (from, to, open) = (pipe.from, pipe.to, pipe.open);
        let back = self.now + self.delay(to, from);
        match self.ports.get(to.0).map(|port| port.power) {
            Some(Power::On) if open => {
                self.pipes.insert((link, End::Server), Pipe::new(to, from));
                let address = SocketAddr::new(from.ip(), 32_768 + (link.0 % 16_384) as u16);
                self.wake(to, Ready::Accepted(link, address));
                self.plan(back, Event::Answers(link));
            }
            Some(Power::Off) => {}
            _ => self.plan(back, Event::Ends((link, End::Client))),
        }
    }

    /// Puts a pipe into its uplink's queue if it has something to send and may.
    fn line_up(&mut self, id: PipeId) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let idle = !pipe.in_line && pipe.open;
        if idle && pipe.unsent.bytes > 0 && pipe.in_flight < WINDOW_BYTES {
            pipe.in_line = true;
            let from = pipe.from;
            if let Some(port) = self.ports.get_mut(from.0) {
                port.line.push_back(id);
            }
            self.send(from);
        }
    }

    /// Sends a segment if the uplink is free.
    fn send(&mut self, host: HostId) {
        let Some(port) = self.ports.get_mut(host.0).filter(|port| !port.sending) else { return };
        let (id, pipe) = loop {
            let Some(id) = port.line.pop_front() else { return };
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.in_line = false;
                if pipe.open && pipe.unsent.bytes > 0 {
                    break (id, pipe);
                }
            }
        };
        let segment = pipe.unsent.take(SEGMENT_BYTES);
        pipe.in_flight += segment.bytes;
        // The kernel wakes a writer when half of the room is free.
        let wakes = pipe.blocked && pipe.unsent.bytes < UNSENT_BYTES / 2;
        pipe.blocked &= !wakes;
        let (from, to) = (pipe.from, pipe.to);
        port.sending = true;
        let free = self.now + takes(segment.bytes, port.link.up_bytes_per_s);
        let delay = self.delay(from, to);
        self.plan(free, Event::Sent(host));
        self.plan(self.now + delay, Event::Reaches(id, segment, free + delay));
        if wakes {
            self.wake(from, Ready::Writable(id.0, id.1));
        }
        self.line_up(id);
    }

    fn reaches(&mut self, id: PipeId, segment: Queue, not_before: Instant) {
        let Some(to) = self.pipes.get(&id).map(|pipe| pipe.to) else { return };
        let Some(port) = self.ports.get_mut(to.0) else { return };
        if port.power == Power::Off {
            return;
        }
        let begun = port.taken_until.max(self.now);
        port.taken_until = begun + takes(segment.bytes, port.link.down_bytes_per_s);
        let arrives = port.taken_until.max(not_before);
        self.plan(arrives, Event::Arrives(id, segment));
    }

    fn wake(&mut self, host: HostId, ready: Ready) {
        let Some(port) = self.ports.get_mut(host.0).filter(|port| port.power == Power::On) else {
            return;
        };
        if port.ready.last() != Some(&ready) {
            port.ready.push(ready);
        }
        self.woken.push(host);
    }

    fn delay(&self, from: HostId, to: HostId) -> Duration {
        let delay = |host: HostId| self.ports.get(host.0).map_or(Duration::ZERO, |p| p.link.delay);
        delay(from) + delay(to)
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.last_event += 1;
        self.planned.push(Reverse(Planned(at, self.last_event, event)));
    }
}

fn takes(bytes: usize, bytes_per_s: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / bytes_per_s.max(1))
}
