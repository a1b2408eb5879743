//! The thread that has the link and the connections.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config as InterfaceConfig, Interface, PollIngressSingleResult, PollResult};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Cidr};

use super::config::Config;
use super::connection::{Buffers, Connection};
use super::link::Link;
use super::{Accepted, Order, drain, pair, wake};
use crate::sys::poll::{self, PollFd};

/// Connections that are made here, and what each may hold: a window for 1 Gbit/s where a turn of this
/// thread comes late by a few milliseconds.
const MOST_DIALLED: usize = 16;
const DIALLED: Buffers = Buffers { incoming: 512 << 10, outgoing: 32 << 10 };
/// Connections that others make, and what each may hold.
const MOST_ACCEPTED: usize = 16;
const ACCEPTED: Buffers = Buffers { incoming: 32 << 10, outgoing: 256 << 10 };
/// Sockets that wait for somebody to connect. Who comes when there is none is refused.
const LISTENING: usize = 4;
/// Frames that are taken before the connections have their turn.
const FRAMES_A_TURN: usize = 64;
/// Ports that connections come from (RFC 6335, section 6).
const FIRST_PORT: u16 = 49152;
/// How long the end may take: until the others know of it.
const FAREWELL: Duration = Duration::from_millis(300);

pub(super) struct Worker {
    config: Config,
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    orders: Receiver<Order>,
    wakeups: UnixStream,
    began: Instant,
    port: u16,
    dialled: Vec<(SocketHandle, Connection)>,
    accepted: Vec<(SocketHandle, Connection)>,
    listening: Option<Listening>,
    /// Everything is to be over by then.
    end: Option<Instant>,
}

/// Where others connect to.
struct Listening {
    port: u16,
    queue: Sender<Accepted>,
    waker: UnixStream,
    sockets: Vec<SocketHandle>,
}

impl Worker {
    pub(super) fn new(
        mut link: Link,
        config: Config,
        orders: Receiver<Order>,
        wakeups: UnixStream,
        seed: u64,
    ) -> Worker {
        let mut settings = InterfaceConfig::new(link.mac().into());
        settings.random_seed = seed;
        let mut interface = Interface::new(settings, &mut link, smoltcp::time::Instant::ZERO);
        // All there is room for: one address, and as many routes as a configuration has.
        interface.update_ip_addrs(|addresses| {
            let own = Ipv4Cidr::new(config.address.addr(), config.address.prefix_len());
            let _ = addresses.push(IpCidr::Ipv4(own));
        });
        interface.routes_mut().update(|routes| {
            for route in &config.routes {
                let cidr = Ipv4Cidr::new(route.to.addr(), route.to.prefix_len());
                let _ = routes.push(smoltcp::iface::Route {
                    cidr: cidr.into(),
                    via_router: route.via.into(),
                    preferred_until: None,
                    expires_at: None,
                });
            }
        });
        Worker {
            config,
            link,
            interface,
            sockets: SocketSet::new(Vec::new()),
            orders,
            wakeups,
            began: Instant::now(),
            port: FIRST_PORT | (seed as u16),
            dialled: Vec::new(),
            accepted: Vec::new(),
            listening: None,
            end: None,
        }
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        loop {
            self.take_orders();
            let now = Instant::now();
            let is_over = self.dialled.is_empty() && self.accepted.is_empty();
            if self.end.is_some_and(|end| is_over || end <= now) {
                return;
            }
            self.receive(now);
            self.welcome();
            let all = self.dialled.iter_mut().chain(&mut self.accepted);
            for (socket, connection) in all {
                connection.turn(self.sockets.get_mut(*socket), now);
            }
            self.send(now);
            self.remove_closed();
            if self.wait().is_err() {
                return;
            }
            drain(&self.wakeups);
        }
    }

    fn take_orders(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Dial { to, end }) => self.dial(to, end),
                Ok(Order::Listen { port, queue, waker }) => {
                    self.stop_listening();
                    let sockets = Vec::new();
                    self.listening = Some(Listening { port, queue, waker, sockets });
                }
                Ok(Order::End) | Err(TryRecvError::Disconnected) => {
                    self.end.get_or_insert_with(|| Instant::now() + FAREWELL);
                    self.stop_listening();
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn dial(&mut self, to: SocketAddrV4, end: UnixStream) {
        if self.dialled.len() >= MOST_DIALLED {
            return;
        }
        let mut socket = DIALLED.socket();
        let (remote, local) = ((IpAddress::Ipv4(*to.ip()), to.port()), self.next_port());
        if socket.connect(self.interface.context(), remote, local).is_err() {
            return;
        }
        self.ask_for(to);
        self.dialled.push((self.sockets.add(socket), Connection::dialled(end)));
    }

    fn next_port(&mut self) -> u16 {
        self.port = FIRST_PORT | self.port.wrapping_add(1);
        self.port
    }

    fn ask_for(&mut self, to: SocketAddrV4) {
        if let Some(hop) = self.config.next_hop(*to.ip()) {
            self.link.ask_for(hop, self.config.address.addr());
        }
    }

    fn now(&self, now: Instant) -> smoltcp::time::Instant {
        let since = now.saturating_duration_since(self.began);
        smoltcp::time::Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn receive(&mut self, now: Instant) {
        let now = self.now(now);
        self.interface.poll_maintenance(now);
        for _ in 0..FRAMES_A_TURN {
            let came = self.interface.poll_ingress_single(now, &mut self.link, &mut self.sockets);
            if came == PollIngressSingleResult::None {
                return;
            }
        }
    }

    fn send(&mut self, now: Instant) {
        let now = self.now(now);
        let mut sent = PollResult::SocketStateChanged;
        while sent == PollResult::SocketStateChanged && !self.link.is_blocked() {
            sent = self.interface.poll_egress(now, &mut self.link, &mut self.sockets);
        }
    }

    /// Hands over the connections that others have made, and waits for more.
    fn welcome(&mut self) {
        let Some(listening) = &mut self.listening else { return };
        let mut is_wanted = true;
        listening.sockets.retain(|&handle| {
            let socket = self.sockets.get_mut::<tcp::Socket>(handle);
            let peer = match socket.state() {
                tcp::State::Listen | tcp::State::SynReceived => return true,
                tcp::State::Closed => None,
                _ => socket.remote_endpoint(),
            };
            let made = pair().ok().zip(peer).and_then(|((stream, end), peer)| {
                let peer = SocketAddr::new(peer.addr.into(), peer.port);
                let handed_over = listening.queue.send((OwnedFd::from(stream).into(), peer));
                is_wanted &= handed_over.is_ok();
                handed_over.ok().map(|()| Connection::accepted(end))
            });
            match made {
                Some(connection) => {
                    wake(&listening.waker);
                    self.accepted.push((handle, connection));
                }
                None => drop(self.sockets.remove(handle)),
            }
            false
        });
        if !is_wanted {
            return self.stop_listening();
        }
        while listening.sockets.len() < LISTENING
            && listening.sockets.len() + self.accepted.len() < MOST_ACCEPTED
        {
            let mut socket = ACCEPTED.socket();
            if socket.listen(listening.port).is_err() {
                return;
            }
            listening.sockets.push(self.sockets.add(socket));
        }
    }

    fn stop_listening(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        for socket in listening.sockets {
            self.sockets.remove(socket);
        }
    }

    /// Forgets connections that are over.
    fn remove_closed(&mut self) {
        let sockets = &mut self.sockets;
        let mut is_left = |(handle, connection): &(SocketHandle, Connection)| {
            let is_over = connection.is_over(sockets.get::<tcp::Socket>(*handle));
            if is_over {
                sockets.remove(*handle);
            }
            !is_over
        };
        self.dialled.retain(&mut is_left);
        self.accepted.retain(&mut is_left);
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let now = Instant::now();
        let mut fds = vec![
            PollFd::new(self.link.as_fd(), true, self.link.is_blocked()),
            PollFd::new(self.wakeups.as_fd(), true, false),
        ];
        let all = self.dialled.iter().chain(&self.accepted);
        fds.extend(all.clone().filter_map(|(handle, connection)| {
            connection.waits_for(self.sockets.get::<tcp::Socket>(*handle))
        }));
        let deadlines = all.filter_map(|(_, connection)| connection.deadline()).chain(self.end);
        let until = deadlines.min().map(|at| at.saturating_duration_since(now));
        // A blocked link's interface would say that it has something to send.
        let stack = if self.link.is_blocked() {
            None
        } else {
            self.interface.poll_delay(self.now(now), &self.sockets).map(Duration::from)
        };
        poll::wait(&mut fds, until.into_iter().chain(stack).min())
    }
}
