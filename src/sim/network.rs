//! The network: links of a given rate, connections that share them fairly, racks, and delays.
//!
//! A sender's uplink serves its connections in turns of one segment; what leaves it passes, in the
//! order in which it comes, the uplink of the sender's rack and the downlink of the receiver's, if
//! these are two, and the receiver's own downlink. As with `TCP_NOTSENT_LOWAT`, a sender may write
//! only so far ahead of what has left.

mod pipe;
mod topology;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::queue::Queue;
use crate::random::next_random;
pub(super) use pipe::Piece;
use pipe::Pipe;
pub(super) use topology::PORT;
pub use topology::{HostId, Link, Racks};

/// Bytes that may be written and not have left, as `net/tcp.rs` sets it for the
/// smallest chunks.
const UNSENT_BYTES: usize = 32 << 10;
/// Bytes that may have left and not be read.
const WINDOW_BYTES: usize = 512 << 10;
/// After this time a connection to a host that has vanished breaks, as `net/tcp.rs` sets it.
const BREAKS_AFTER: Duration = Duration::from_secs(30);

/// Names a connection, in the order in which they were made.
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
    /// Until when the uplink is taken.
    sends_until: Instant,
    /// Its queue is looked at then.
    looked_at: bool,
    line: VecDeque<PipeId>,
    downlink: Line,
    ready: Vec<Ready>,
}

/// A link that carries what comes in the order in which it comes.
#[derive(Clone, Copy, Debug)]
struct Line {
    taken_until: Instant,
}

/// A part of a connection's bytes under way.
#[derive(Clone, Copy, Debug)]
struct Segment {
    pipe: PipeId,
    bytes: usize,
    /// Its last byte left so late that it cannot have come to the next link before then.
    not_before: Instant,
}

impl Line {
    /// A segment stands before it; when its first byte is carried.
    fn carry(&mut self, segment: &mut Segment, bytes_per_s: u64, now: Instant) -> Instant {
        let begins = self.taken_until.max(now);
        self.taken_until = begins + takes(segment.bytes, bytes_per_s);
        segment.not_before = segment.not_before.max(self.taken_until);
        begins
    }
}

/// The links of one rack.
#[derive(Clone, Copy, Debug)]
struct Rack {
    out: Line,
    into: Line,
    /// Bytes of the image that came from elsewhere.
    image_bytes: u64,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// An uplink is free again.
    Sent(HostId),
    /// A segment stands before the uplink of the sender's rack.
    Leaves(Segment),
    /// Before the downlink of the receiver's rack.
    Enters(Segment),
    /// Before the receiver's downlink.
    Reaches(Segment),
    Arrives(Segment),
    Calls(LinkId),
    Answers(LinkId),
    /// This side learns that the connection is over.
    Ends(PipeId),
    /// The cluster's business.
    Timer(u64),
}

/// All hosts' links and connections, and what will happen.
#[derive(Debug)]
pub(super) struct Network {
    now: Instant,
    ports: Vec<Port>,
    racks: Racks,
    rack_links: Vec<Rack>,
    /// The connections by their number, and of each the client's side and the server's.
    pipes: Vec<[Option<Pipe>; 2]>,
    planned: Queue<Event>,
    /// Who has something to look at.
    woken: VecDeque<HostId>,
    /// All hosts' links have the same delay, and racks carry whatever comes.
    even: bool,
    /// Drives how much of what there is a read or a write takes; None: all.
    shortens: Option<u64>,
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
    pub(super) fn new(links: impl Iterator<Item = Link>, racks: Racks, now: Instant) -> Network {
        let free = Line { taken_until: now };
        let port = |link| Port {
            link,
            power: Power::Refuses,
            sends_until: now,
            looked_at: false,
            line: VecDeque::new(),
            downlink: free,
            ready: Vec::new(),
        };
        let ports: Vec<Port> = links.map(port).collect();
        let count = ports.len().div_ceil(racks.nodes);
        let delays = ports.first().map(|port| port.link.delay);
        let even = racks.uplink_bytes_per_s.is_none()
            && ports.iter().all(|port| Some(port.link.delay) == delays);
        Network {
            now,
            ports,
            racks,
            rack_links: vec![Rack { out: free, into: free, image_bytes: 0 }; count],
            pipes: Vec::new(),
            planned: Queue::new(now),
            woken: VecDeque::new(),
            even,
            shortens: None,
        }
    }

    /// For each rack, the bytes of the image that came into it from elsewhere.
    pub(super) fn image_bytes_into_racks(&self) -> impl Iterator<Item = u64> {
        self.rack_links.iter().map(|rack| rack.image_bytes)
    }

    pub(super) fn racks(&self) -> &Racks {
        &self.racks
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Reads and writes take any part of what they could take, from now on.
    #[cfg(test)]
    pub(super) fn shorten(&mut self, seed: u64) {
        self.shortens = Some(seed | 1);
    }

    fn part(&mut self, bytes: usize) -> usize {
        match &mut self.shortens {
            Some(random) if bytes > 1 => 1 + (next_random(random) >> 16) as usize % bytes,
            _ => bytes,
        }
    }

    /// Plans [`Step::Timer`].
    pub(super) fn set_timer(&mut self, at: Instant, timer: u64) {
        self.plan(at, Event::Timer(timer));
    }

    /// Lets the next thing happen; None if nothing ever will.
    pub(super) fn step(&mut self) -> Option<Step> {
        let (at, event) = self.planned.pop()?;
        self.now = at;
        match event {
            Event::Timer(timer) => return Some(Step::Timer(timer)),
            Event::Sent(host) => {
                if let Some(port) = self.ports.get_mut(host.0) {
                    port.looked_at = false;
                }
                self.send(host);
            }
            Event::Leaves(segment) => self.leaves(segment),
            Event::Enters(segment) => self.enters(segment),
            Event::Reaches(segment) => self.reaches(segment, at),
            Event::Arrives(Segment { pipe: (link, end), bytes, .. }) => {
                if let Some(pipe) = self.pipe_mut((link, end)) {
                    let to = pipe.to;
                    pipe.under_way_bytes -= bytes;
                    pipe.arrived_bytes += bytes;
                    self.wake(to, Ready::Readable(link, end.other()));
                }
            }
            Event::Calls(link) => self.calls(link),
            Event::Answers(link) => {
                if let Some(pipe) = self.pipe((link, End::Client)).filter(|pipe| pipe.open) {
                    self.wake(pipe.from, Ready::Connected(link));
                }
            }
            Event::Ends((link, end)) => {
                if let Some(pipe) = self.pipe((link, end)).filter(|pipe| pipe.open) {
                    self.wake(pipe.from, Ready::Closed(link, end));
                }
            }
        }
        Some(Step::Moved)
    }

    /// Somebody whom something has happened to; each once for all of it.
    pub(super) fn next_woken(&mut self) -> Option<HostId> {
        self.woken.pop_front()
    }

    /// Puts what has happened to a host since the last call into `ready`, in the place of what is
    /// there.
    pub(super) fn take_ready(&mut self, host: HostId, ready: &mut Vec<Ready>) {
        ready.clear();
        if let Some(port) = self.ports.get_mut(host.0) {
            std::mem::swap(&mut port.ready, ready);
        }
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
        for (link, end) in self.pipes_of(host) {
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
        let own = self.pipes_of(host);
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
        let to = self.racks.host(address).filter(|to| to.0 < self.ports.len())?;
        let link = LinkId(self.pipes.len() as u64);
        self.pipes.push([Some(Pipe::new(from, to)), None]);
        let delay = self.delay(from, to);
        self.plan(self.now + delay, Event::Calls(link));
        Some(link)
    }

    /// Writes as much as there is room for, from the front of `piece`; whether that was all.
    pub(super) fn write(&mut self, link: LinkId, end: End, piece: &mut Option<Piece>) -> bool {
        let Some(pipe) = self.pipe_mut((link, end)) else { return false };
        let Some(whole) = piece else { return true };
        let room = UNSENT_BYTES.saturating_sub(pipe.unsent_bytes);
        let room = self.part(room);
        let Some(pipe) = self.pipe_mut((link, end)) else { return false };
        let written = match whole.len() <= room {
            true => piece.take(),
            false if room > 0 => Some(whole.split_front(room)),
            false => None,
        };
        let all = piece.is_none();
        pipe.blocked = !all;
        let (from, to) = (pipe.from, pipe.to);
        if let Some(written) = written {
            let image_bytes = matches!(written, Piece::Image { .. }).then(|| written.len() as u64);
            pipe.push(written);
            let rack = self.racks.rack(to).filter(|rack| self.racks.rack(from) != Some(*rack));
            if let Some(rack) = rack.and_then(|rack| self.rack_links.get_mut(rack)) {
                rack.image_bytes += image_bytes.unwrap_or(0);
            }
        }
        self.line_up((link, end));
        all
    }

    /// Takes the next piece of what has arrived.
    pub(super) fn read(&mut self, link: LinkId, end: End) -> Option<Piece> {
        let id = (link, end.other());
        let first = self.pipe(id).filter(|pipe| pipe.arrived_bytes > 0)?.sent.front()?.len();
        let part = self.part(first);
        let pipe = self.pipe_mut(id)?;
        let piece = match pipe.sent.front_mut() {
            Some(piece) if part < first => piece.split_front(part),
            _ => pipe.sent.pop_front()?,
        };
        pipe.arrived_bytes -= piece.len();
        self.line_up(id);
        Some(piece)
    }

    /// One side ends a connection; what it has written and not sent is lost.
    pub(super) fn close(&mut self, link: LinkId, end: End) {
        if let Some(pipe) = self.pipe((link, end)).filter(|pipe| pipe.open) {
            let delay = self.delay(pipe.from, pipe.to);
            self.plan(self.now + delay, Event::Ends((link, end.other())));
        }
        self.forget((link, end));
    }

    fn forget(&mut self, id: PipeId) {
        if let Some(pipe) = self.pipe_mut(id) {
            pipe.open = false;
            pipe.unsent.clear();
            pipe.unsent_bytes = 0;
        }
        if self.pipe((id.0, id.1.other())).is_none_or(|pipe| !pipe.open)
            && let Some(pipes) = self.pipes.get_mut(id.0.0 as usize)
        {
            *pipes = [None, None];
        }
    }

    fn pipe(&self, (link, end): PipeId) -> Option<&Pipe> {
        self.pipes.get(link.0 as usize)?.get(end as usize)?.as_ref()
    }

    fn pipe_mut(&mut self, (link, end): PipeId) -> Option<&mut Pipe> {
        self.pipes.get_mut(link.0 as usize)?.get_mut(end as usize)?.as_mut()
    }

    /// Those that a host sends through.
    fn pipes_of(&self, host: HostId) -> Vec<PipeId> {
        let links = (0..).map(LinkId).zip(&self.pipes);
        let pipes = links.flat_map(|(link, [client, server])| {
            [((link, End::Client), client), ((link, End::Server), server)]
        });
        let own = |(id, pipe): (PipeId, &Option<Pipe>)| {
            pipe.as_ref().filter(|pipe| pipe.from == host).map(|_| id)
        };
        pipes.filter_map(own).collect()
    }

    fn calls(&mut self, link: LinkId) {
        let Some(pipe) = self.pipe((link, End::Client)) else { return };
        let (from, to, open) = (pipe.from, pipe.to, pipe.open);
        let back = self.now + self.delay(to, from);
        match self.ports.get(to.0).map(|port| port.power) {
            Some(Power::On) if open => {
                if let Some([_, server]) = self.pipes.get_mut(link.0 as usize) {
                    *server = Some(Pipe::new(to, from));
                }
                let port = 32_768 + (link.0 % 16_384) as u16;
                let address = SocketAddr::new(self.racks.ip(from), port);
                self.wake(to, Ready::Accepted(link, address));
                self.plan(back, Event::Answers(link));
            }
            Some(Power::Off) => {}
            _ => self.plan(back, Event::Ends((link, End::Client))),
        }
    }

    /// Puts a pipe into its uplink's queue if it has something to send and may.
    fn line_up(&mut self, id: PipeId) {
        let Some(pipe) = self.pipe_mut(id) else { return };
        let idle = !pipe.in_line && pipe.open;
        if idle && pipe.unsent_bytes > 0 && pipe.arrived_bytes + pipe.under_way_bytes < WINDOW_BYTES
        {
            pipe.in_line = true;
            let from = pipe.from;
            if let Some(port) = self.ports.get_mut(from.0) {
                port.line.push_back(id);
            }
            self.send(from);
        }
    }

    /// Sends a segment if the uplink is free; else it is looked at again when that is so.
    fn send(&mut self, host: HostId) {
        let Some(port) = self.ports.get_mut(host.0) else { return };
        if port.sends_until > self.now {
            if !std::mem::replace(&mut port.looked_at, true) {
                let free = port.sends_until;
                self.plan(free, Event::Sent(host));
            }
            return;
        }
        let (id, pipe) = loop {
            let Some(port) = self.ports.get_mut(host.0) else { return };
            let Some(id) = port.line.pop_front() else { return };
            if let Some(pipe) = self.pipe_mut(id) {
                pipe.in_line = false;
                if pipe.open && pipe.unsent_bytes > 0 {
                    break (id, pipe);
                }
            }
        };
        let bytes = pipe.send();
        // The kernel wakes a writer when half of the room is free.
        let wakes = pipe.blocked && pipe.unsent_bytes < UNSENT_BYTES / 2;
        pipe.blocked &= !wakes;
        let (from, to) = (pipe.from, pipe.to);
        let delay = self.delay(from, to);
        let Some(port) = self.ports.get_mut(host.0) else { return };
        port.sends_until = self.now + takes(bytes, port.link.up_bytes_per_s);
        let waits = !port.line.is_empty();
        let segment = Segment { pipe: id, bytes, not_before: port.sends_until + delay };
        let reaches = self.now + delay;
        let near =
            self.racks.uplink_bytes_per_s.is_none() || self.racks.rack(from) == self.racks.rack(to);
        match near {
            // What is sent first reaches its end first, so that it need not be waited for.
            true if self.even => self.reaches(segment, reaches),
            true => self.plan(reaches, Event::Reaches(segment)),
            false => self.plan(reaches, Event::Leaves(segment)),
        }
        if wakes {
            self.wake(from, Ready::Writable(id.0, id.1));
        }
        self.line_up(id);
        if waits {
            self.send(host);
        }
    }

    fn leaves(&mut self, mut segment: Segment) {
        let Some(from) = self.pipe(segment.pipe).map(|pipe| pipe.from) else { return };
        let rate = self.racks.uplink_bytes_per_s.unwrap_or(u64::MAX);
        let rack = self.racks.rack(from).and_then(|rack| self.rack_links.get_mut(rack));
        let begins = rack.map_or(self.now, |r| r.out.carry(&mut segment, rate, self.now));
        self.plan(begins, Event::Enters(segment));
    }

    fn enters(&mut self, mut segment: Segment) {
        let Some(to) = self.pipe(segment.pipe).map(|pipe| pipe.to) else { return };
        let rate = self.racks.uplink_bytes_per_s.unwrap_or(u64::MAX);
        let rack = self.racks.rack(to).and_then(|rack| self.rack_links.get_mut(rack));
        let begins = rack.map_or(self.now, |r| r.into.carry(&mut segment, rate, self.now));
        self.plan(begins, Event::Reaches(segment));
    }

    fn reaches(&mut self, mut segment: Segment, at: Instant) {
        let Some(to) = self.pipe(segment.pipe).map(|pipe| pipe.to) else { return };
        let Some(port) = self.ports.get_mut(to.0).filter(|p| p.power != Power::Off) else { return };
        let rate = port.link.down_bytes_per_s;
        port.downlink.carry(&mut segment, rate, at);
        self.plan(segment.not_before, Event::Arrives(segment));
    }

    fn wake(&mut self, host: HostId, ready: Ready) {
        let Some(port) = self.ports.get_mut(host.0).filter(|port| port.power == Power::On) else {
            return;
        };
        if port.ready.is_empty() {
            self.woken.push_back(host);
        }
        if port.ready.last() != Some(&ready) {
            port.ready.push(ready);
        }
    }

    fn delay(&self, from: HostId, to: HostId) -> Duration {
        let delay = |host: HostId| self.ports.get(host.0).map_or(Duration::ZERO, |p| p.link.delay);
        delay(from) + delay(to)
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.planned.push(at, event);
    }
}

fn takes(bytes: usize, bytes_per_s: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / bytes_per_s.max(1))
}
