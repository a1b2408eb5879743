//! The network: links of a given rate, connections that share them fairly, racks, and delays.
//!
//! A sender's uplink serves its connections in turns of one segment. A segment then passes, in order of
//! arrival, the uplink of the sender's rack and the downlink of the receiver's, if these are two, and
//! the receiver's own downlink. As with `TCP_NOTSENT_LOWAT`, a sender may write only so far ahead of
//! what was sent.

mod pipe;
mod topology;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::queue::Queue;
use crate::random::next_random;
pub(super) use pipe::Piece;
use pipe::Pipe;
pub use topology::{HostId, HostLink, Racks};
pub(super) use topology::{PORT, dead_address};

/// Bytes that may be written and not sent, as `net/tcp.rs` sets it for the smallest chunks.
const UNSENT_BYTES: usize = 32 << 10;
/// Bytes that may be sent and not read, but for hosts that want less.
const WINDOW_BYTES: usize = 512 << 10;
/// After this time a connection to a host without power breaks, as `net/tcp.rs` sets it.
const BREAKS_AFTER: Duration = Duration::from_secs(30);

/// The number of a connection, in the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(pub(super) u64);

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The one that connected.
    Client,
    /// The one that accepted.
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

/// The direction of a connection in which this end sends.
type PipeId = (LinkId, End);

/// An event that a host has to react to, as poll(2) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Accepted(LinkId, SocketAddr),
    Connected(LinkId),
    Readable(LinkId, End),
    /// A write that found no room can go on.
    Writable(LinkId, End),
    Closed(LinkId, End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// The program has ended: connections are refused.
    Refuses,
    /// The host is off: it answers nothing.
    Off,
}

/// A host's end of its link.
#[derive(Debug)]
struct Port {
    link: HostLink,
    /// Bytes that may be sent to it on a connection and that it has not read.
    window_bytes: usize,
    power: Power,
    /// Until when the uplink is busy.
    uplink_busy_until: Instant,
    /// [`NetworkEvent::UplinkFree`] is scheduled.
    send_scheduled: bool,
    /// Pipes with something to send, served in turns.
    send_queue: VecDeque<PipeId>,
    downlink: FifoLink,
    ready: Vec<Ready>,
}

/// A link that carries segments in order of arrival.
#[derive(Clone, Copy, Debug)]
struct FifoLink {
    busy_until: Instant,
}

/// Bytes of one connection that travel together.
#[derive(Clone, Copy, Debug)]
struct Segment {
    pipe: PipeId,
    bytes: usize,
    /// Its last byte was sent so late that it cannot reach the next link before then.
    not_before: Instant,
}

impl FifoLink {
    /// Queues a segment that has reached the link; returns when its first byte passes.
    fn carry(&mut self, segment: &mut Segment, bytes_per_s: u64, now: Instant) -> Instant {
        let begins = self.busy_until.max(now);
        self.busy_until = begins + transmission_time(segment.bytes, bytes_per_s);
        segment.not_before = segment.not_before.max(self.busy_until);
        begins
    }
}

/// The links between one rack and the others.
#[derive(Clone, Copy, Debug)]
struct RackLinks {
    uplink: FifoLink,
    downlink: FifoLink,
    /// Bytes of the image that came from outside of the rack.
    image_bytes: u64,
}

#[derive(Debug)]
enum NetworkEvent {
    UplinkFree(HostId),
    /// A segment reaches the uplink of the sender's rack.
    AtRackUplink(Segment),
    /// A segment reaches the downlink of the receiver's rack.
    AtRackDownlink(Segment),
    /// A segment reaches the receiver's downlink.
    AtDownlink(Segment),
    Arrived(Segment),
    Syn(LinkId),
    SynAck(LinkId),
    /// This side learns that the connection is over.
    Ended(PipeId),
    /// A timer of the cluster.
    Timer(u64),
}

/// All hosts' links and connections, and the events to come.
#[derive(Debug)]
pub(super) struct Network {
    now: Instant,
    ports: Vec<Port>,
    racks: Racks,
    rack_links: Vec<RackLinks>,
    /// By the number of the connection: the client's pipe and the server's.
    pipes: Vec<[Option<Pipe>; 2]>,
    events: Queue<NetworkEvent>,
    /// Hosts with something in `ready`.
    woken: VecDeque<HostId>,
    /// All hosts' links have the same delay, and racks have no limit: segments that are sent first reach
    /// the receiver's downlink first.
    uniform: bool,
    /// Random state for short reads and writes; None: reads and writes take all they can.
    short_io: Option<u64>,
}

/// What an event of the network led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Hosts may be ready.
    Moved,
    /// A timer of the cluster has fired.
    Timer(u64),
}

impl Network {
    pub(super) fn new(
        links: impl Iterator<Item = HostLink>,
        racks: Racks,
        now: Instant,
    ) -> Network {
        let free = FifoLink { busy_until: now };
        let port = |link| Port {
            link,
            window_bytes: WINDOW_BYTES,
            power: Power::Refuses,
            uplink_busy_until: now,
            send_scheduled: false,
            send_queue: VecDeque::new(),
            downlink: free,
            ready: Vec::new(),
        };
        let ports: Vec<Port> = links.map(port).collect();
        let count = ports.len().div_ceil(racks.nodes);
        let delays = ports.first().map(|port| port.link.delay);
        let uniform = racks.uplink_bytes_per_s.is_none()
            && ports.iter().all(|port| Some(port.link.delay) == delays);
        Network {
            now,
            ports,
            racks,
            rack_links: vec![RackLinks { uplink: free, downlink: free, image_bytes: 0 }; count],
            pipes: Vec::new(),
            events: Queue::new(now),
            woken: VecDeque::new(),
            uniform,
            short_io: None,
        }
    }

    /// For each rack, the bytes of the image that came from outside of it.
    pub(super) fn image_bytes_into_racks(&self) -> impl Iterator<Item = u64> {
        self.rack_links.iter().map(|rack| rack.image_bytes)
    }

    pub(super) fn racks(&self) -> &Racks {
        &self.racks
    }

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// From now on, reads and writes take a random part of what they could take.
    #[cfg(test)]
    pub(super) fn shorten_io(&mut self, seed: u64) {
        self.short_io = Some(seed | 1);
    }

    fn random_part(&mut self, bytes: usize) -> usize {
        match &mut self.short_io {
            Some(random) if bytes > 1 => 1 + (next_random(random) >> 16) as usize % bytes,
            _ => bytes,
        }
    }

    /// Schedules [`Step::Timer`].
    pub(super) fn set_timer(&mut self, at: Instant, timer: u64) {
        self.schedule(at, NetworkEvent::Timer(timer));
    }

    /// Moves the clock to the next event; None if there is none.
    pub(super) fn step(&mut self) -> Option<Step> {
        let (at, event) = self.events.pop()?;
        self.now = at;
        match event {
            NetworkEvent::Timer(timer) => return Some(Step::Timer(timer)),
            NetworkEvent::UplinkFree(host) => {
                if let Some(port) = self.ports.get_mut(host.0) {
                    port.send_scheduled = false;
                }
                self.send(host);
            }
            NetworkEvent::AtRackUplink(segment) => self.pass_rack_uplink(segment),
            NetworkEvent::AtRackDownlink(segment) => self.pass_rack_downlink(segment),
            NetworkEvent::AtDownlink(segment) => self.pass_downlink(segment, at),
            NetworkEvent::Arrived(Segment { pipe: (link, end), bytes, .. }) => {
                if let Some(pipe) = self.pipe_mut((link, end)) {
                    let to = pipe.to;
                    pipe.in_flight_bytes -= bytes;
                    pipe.arrived_bytes += bytes;
                    self.wake(to, Ready::Readable(link, end.other()));
                }
            }
            NetworkEvent::Syn(link) => self.syn_arrived(link),
            NetworkEvent::SynAck(link) => {
                if let Some(pipe) = self.pipe((link, End::Client)).filter(|pipe| pipe.open) {
                    self.wake(pipe.from, Ready::Connected(link));
                }
            }
            NetworkEvent::Ended((link, end)) => {
                if let Some(pipe) = self.pipe((link, end)).filter(|pipe| pipe.open) {
                    self.wake(pipe.from, Ready::Closed(link, end));
                }
            }
        }
        Some(Step::Moved)
    }

    /// A host that is ready for something; once for all that it is ready for.
    pub(super) fn next_woken(&mut self) -> Option<HostId> {
        self.woken.pop_front()
    }

    /// Replaces `ready` by what a host has become ready for since the last call.
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

    /// A program ends, and its connections with it; without `notice` its host is off, and the others are
    /// told nothing.
    pub(super) fn stop(&mut self, host: HostId, notice: bool) {
        let Some(port) = self.ports.get_mut(host.0) else { return };
        port.power = if notice { Power::Refuses } else { Power::Off };
        port.send_queue.clear();
        port.ready.clear();
        for (link, end) in self.pipes_of(host) {
            if notice {
                self.close(link, end);
            } else {
                self.forget((link, end));
                self.schedule(self.now + BREAKS_AFTER, NetworkEvent::Ended((link, end.other())));
            }
        }
    }

    /// Ends one of a host's connections, on both sides.
    pub(super) fn cut(&mut self, host: HostId, random: u64) {
        let own = self.pipes_of(host);
        let chosen = random.checked_rem(own.len() as u64).and_then(|at| own.get(at as usize));
        if let Some(&(link, end)) = chosen {
            self.schedule(self.now, NetworkEvent::Ended((link, end)));
            self.schedule(self.now, NetworkEvent::Ended((link, end.other())));
        }
    }

    /// As if the link had fallen back to a lower rate.
    pub(super) fn divide_rate(&mut self, host: HostId, by: u64) {
        if let Some(port) = self.ports.get_mut(host.0) {
            port.link.up_bytes_per_s = (port.link.up_bytes_per_s / by.max(1)).max(1);
            port.link.down_bytes_per_s = (port.link.down_bytes_per_s / by.max(1)).max(1);
        }
    }

    /// From now on, so few bytes are in flight to a host on one connection.
    pub(super) fn limit_window(&mut self, host: HostId, bytes: usize) {
        if let Some(port) = self.ports.get_mut(host.0) {
            port.window_bytes = bytes;
        }
    }

    pub(super) fn dial(&mut self, from: HostId, address: SocketAddr) -> Option<LinkId> {
        let to = self.racks.host(address)?;
        let link = LinkId(self.pipes.len() as u64);
        self.pipes.push([Some(Pipe::new(from, to)), None]);
        let delay = self.delay(from, to);
        if !topology::is_silent(address) {
            self.schedule(self.now + delay, NetworkEvent::Syn(link));
        }
        Some(link)
    }

    /// Writes as much as there is room for, from the front of `piece`; returns whether that was all.
    pub(super) fn write(&mut self, link: LinkId, end: End, piece: &mut Option<Piece>) -> bool {
        let Some(pipe) = self.pipe_mut((link, end)) else { return false };
        let Some(whole) = piece else { return true };
        let room = UNSENT_BYTES.saturating_sub(pipe.unsent_bytes);
        let room = self.random_part(room);
        let Some(pipe) = self.pipe_mut((link, end)) else { return false };
        let written = if whole.len() <= room {
            piece.take()
        } else {
            (room > 0).then(|| whole.split_front(room))
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
        self.enqueue((link, end));
        all
    }

    /// Takes the next piece of what has arrived.
    pub(super) fn read(&mut self, link: LinkId, end: End) -> Option<Piece> {
        let id = (link, end.other());
        let first = self.pipe(id).filter(|pipe| pipe.arrived_bytes > 0)?.sent.front()?.len();
        let part = self.random_part(first);
        let pipe = self.pipe_mut(id)?;
        let piece = match pipe.sent.front_mut() {
            Some(piece) if part < first => piece.split_front(part),
            _ => pipe.sent.pop_front()?,
        };
        pipe.arrived_bytes -= piece.len();
        self.enqueue(id);
        Some(piece)
    }

    /// One side closes a connection; what it has written and not sent is lost.
    pub(super) fn close(&mut self, link: LinkId, end: End) {
        if let Some(pipe) = self.pipe((link, end)).filter(|pipe| pipe.open) {
            let delay = self.delay(pipe.from, pipe.to);
            self.schedule(self.now + delay, NetworkEvent::Ended((link, end.other())));
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

    /// The pipes that a host sends through.
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

    fn syn_arrived(&mut self, link: LinkId) {
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
                self.schedule(back, NetworkEvent::SynAck(link));
            }
            Some(Power::Off) => {}
            _ => self.schedule(back, NetworkEvent::Ended((link, End::Client))),
        }
    }

    /// Puts a pipe into its uplink's queue if it may send something.
    fn enqueue(&mut self, id: PipeId) {
        let Some(pipe) = self.pipe(id) else { return };
        let window = self.ports.get(pipe.to.0).map_or(WINDOW_BYTES, |port| port.window_bytes);
        let Some(pipe) = self.pipe_mut(id) else { return };
        let idle = !pipe.queued && pipe.open;
        if idle && pipe.unsent_bytes > 0 && pipe.arrived_bytes + pipe.in_flight_bytes < window {
            pipe.queued = true;
            let from = pipe.from;
            if let Some(port) = self.ports.get_mut(from.0) {
                port.send_queue.push_back(id);
            }
            self.send(from);
        }
    }

    /// Sends a segment if the uplink is free; else as soon as it is.
    fn send(&mut self, host: HostId) {
        let Some(port) = self.ports.get_mut(host.0) else { return };
        if port.uplink_busy_until > self.now {
            if !std::mem::replace(&mut port.send_scheduled, true) {
                let free = port.uplink_busy_until;
                self.schedule(free, NetworkEvent::UplinkFree(host));
            }
            return;
        }
        let (id, pipe) = loop {
            let Some(port) = self.ports.get_mut(host.0) else { return };
            let Some(id) = port.send_queue.pop_front() else { return };
            if let Some(pipe) = self.pipe_mut(id) {
                pipe.queued = false;
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
        port.uplink_busy_until = self.now + transmission_time(bytes, port.link.up_bytes_per_s);
        let more = !port.send_queue.is_empty();
        let segment = Segment { pipe: id, bytes, not_before: port.uplink_busy_until + delay };
        let at_next_link = self.now + delay;
        let within_rack =
            self.racks.uplink_bytes_per_s.is_none() || self.racks.rack(from) == self.racks.rack(to);
        if !within_rack {
            self.schedule(at_next_link, NetworkEvent::AtRackUplink(segment));
        } else if self.uniform {
            // Segments reach the downlink in the order in which they are sent: no event is needed.
            self.pass_downlink(segment, at_next_link);
        } else {
            self.schedule(at_next_link, NetworkEvent::AtDownlink(segment));
        }
        if wakes {
            self.wake(from, Ready::Writable(id.0, id.1));
        }
        self.enqueue(id);
        if more {
            self.send(host);
        }
    }

    fn pass_rack_uplink(&mut self, mut segment: Segment) {
        let Some(from) = self.pipe(segment.pipe).map(|pipe| pipe.from) else { return };
        let rate = self.racks.uplink_bytes_per_s.unwrap_or(u64::MAX);
        let rack = self.racks.rack(from).and_then(|rack| self.rack_links.get_mut(rack));
        let begins = rack.map_or(self.now, |r| r.uplink.carry(&mut segment, rate, self.now));
        self.schedule(begins, NetworkEvent::AtRackDownlink(segment));
    }

    fn pass_rack_downlink(&mut self, mut segment: Segment) {
        let Some(to) = self.pipe(segment.pipe).map(|pipe| pipe.to) else { return };
        let rate = self.racks.uplink_bytes_per_s.unwrap_or(u64::MAX);
        let rack = self.racks.rack(to).and_then(|rack| self.rack_links.get_mut(rack));
        let begins = rack.map_or(self.now, |r| r.downlink.carry(&mut segment, rate, self.now));
        self.schedule(begins, NetworkEvent::AtDownlink(segment));
    }

    fn pass_downlink(&mut self, mut segment: Segment, at: Instant) {
        let Some(to) = self.pipe(segment.pipe).map(|pipe| pipe.to) else { return };
        let Some(port) = self.ports.get_mut(to.0).filter(|p| p.power != Power::Off) else { return };
        let rate = port.link.down_bytes_per_s;
        port.downlink.carry(&mut segment, rate, at);
        self.schedule(segment.not_before, NetworkEvent::Arrived(segment));
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

    fn schedule(&mut self, at: Instant, event: NetworkEvent) {
        self.events.push(at, event);
    }
}

fn transmission_time(bytes: usize, bytes_per_s: u64) -> Duration {
    Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / bytes_per_s.max(1))
}
