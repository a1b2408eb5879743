//! Client and server talk in memory, under a virtual clock, over a network that misbehaves.
//!
//! A run follows from its seed alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::Session;
use super::testing::{CLIENT, Random, TestHost, image_bytes, sent_bytes, tree};
use crate::conn::Conn;
use crate::p9::client::{Client, Event};
use crate::p9::message::Message;
use crate::testing::for_seeds;

/// A run that needs more steps than this is stuck.
const MOST_STEPS: usize = 200_000;
const ROOT_FID: u32 = 0;
const IMAGE_FID: u32 = 1;
const READS_AHEAD: usize = 4;

/// What the client remembers of a request: a Tread by its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Version,
    Attach,
    Open,
    Read { offset: u64, count: u32 },
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    AtServer(Vec<u8>),
    AtClient(Vec<u8>),
    /// The client gives up one of its reads and makes it again.
    Impatience,
    /// The server has something to give, or has nothing for a while.
    Turn {
        waits: bool,
    },
    Cut,
}

/// Both ends, and what is on its way between them.
struct Pair {
    random: Random,
    now: Instant,
    /// By time, then in the order of sending.
    events: BinaryHeap<Reverse<(Instant, u64, Arrival)>>,
    sent: u64,
    /// No byte overtakes another.
    last: [Instant; 2],
    /// How many bytes the connection lives for.
    lifetime: Option<u64>,
    cut: bool,
    client: Client<Token>,
    session: Session,
    host: TestHost,
    image: Vec<u8>,
    came: Vec<Option<u8>>,
    wanted: VecDeque<(u64, u32)>,
    /// Tag and count of the reads in flight, by their offsets.
    reading: BTreeMap<u64, (u16, u32)>,
    finished: u64,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let mut random = Random::new(seed);
        let now = Instant::now();
        let host = TestHost::new(tree());
        let image_len = host.tree.manifest().layout().image_bytes();
        let lifetime = random.chance(3).then(|| random.below(image_len));
        let mut pair = Pair {
            random,
            now,
            events: BinaryHeap::new(),
            sent: 0,
            last: [now; 2],
            lifetime,
            cut: false,
            client: Client::new(false),
            session: Session::new(Conn(1), CLIENT, false),
            host,
            image: image_bytes(0..image_len),
            came: vec![None; image_len as usize],
            wanted: VecDeque::new(),
            reading: BTreeMap::new(),
            finished: 0,
        };
        pair.client.version(Token::Version);
        for _ in 0..pair.random.below(4) {
            let stall = Duration::from_millis(pair.random.below(400));
            let end = stall + Duration::from_millis(pair.random.below(400));
            pair.later(stall, Arrival::Turn { waits: true });
            pair.later(end, Arrival::Turn { waits: false });
        }
        pair.later(Duration::from_secs(2), Arrival::Turn { waits: false });
        for _ in 0..pair.random.below(6) {
            let when = Duration::from_millis(pair.random.below(500));
            pair.later(when, Arrival::Impatience);
        }
        pair
    }

    fn later(&mut self, delay: Duration, arrival: Arrival) {
        self.sent += 1;
        self.events.push(Reverse((self.now + delay, self.sent, arrival)));
    }

    /// Sends bytes in pieces of any size, each with a delay of its own.
    fn transmit(&mut self, to: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let most = if self.random.chance(4) { 20 } else { 40_000 };
            let len = (self.random.below(most) as usize + 1).min(bytes.len());
            let (piece, rest) = bytes.split_at(len);
            bytes = rest;
            let delay = Duration::from_micros(self.random.below(20_000));
            self.last[to] = self.last[to].max(self.now + delay);
            let delay = self.last[to] - self.now;
            if let Some(left) = &mut self.lifetime {
                let Some(after) = left.checked_sub(len as u64) else {
                    let part = piece[..*left as usize].to_vec();
                    *left = 0;
                    self.arrive(to, delay, part);
                    self.later(delay, Arrival::Cut);
                    return;
                };
                *left = after;
            }
            self.arrive(to, delay, piece.to_vec());
        }
    }

    fn arrive(&mut self, to: usize, delay: Duration, bytes: Vec<u8>) {
        let arrival = if to == 0 { Arrival::AtServer(bytes) } else { Arrival::AtClient(bytes) };
        self.later(delay, arrival);
    }

    /// Runs until nothing is on its way any more.
    fn run(&mut self) {
        for _ in 0..MOST_STEPS {
            let said = std::mem::take(self.client.output());
            self.transmit(0, &said);
            if let Some(output) = self.session.next_output() {
                let bytes = sent_bytes(output, &mut self.host, self.now);
                self.transmit(1, &bytes);
                self.session.process(&mut self.host, self.now).unwrap();
                continue;
            }
            let Some(Reverse((when, _, arrival))) = self.events.pop() else { return };
            self.now = when;
            match arrival {
                Arrival::Cut => {
                    self.cut = true;
                    return;
                }
                Arrival::AtServer(bytes) => {
                    self.session.receive(&bytes);
                    self.session.process(&mut self.host, self.now).unwrap();
                }
                Arrival::AtClient(bytes) => self.client_hears(&bytes),
                Arrival::Turn { waits } => {
                    self.host.image_waits = waits;
                    self.session.resume(&mut self.host, self.now);
                }
                Arrival::Impatience => self.ask_again(),
            }
        }
        panic!("no end after {MOST_STEPS} steps");
    }

    fn client_hears(&mut self, mut bytes: &[u8]) {
        loop {
            let done = match self.client.receive(&mut bytes).unwrap() {
                None => return,
                Some(event) => match event {
                    Event::Data { token: Token::Read { offset, .. }, at, bytes } => {
                        let start = (offset + u64::from(at)) as usize;
                        for (place, byte) in self.came[start..].iter_mut().zip(bytes) {
                            *place = Some(*byte);
                        }
                        continue;
                    }
                    // The open's other half follows.
                    Event::Reply(Token::Open, Ok(Message::Rwalk { .. })) => continue,
                    Event::Reply(token, Ok(_)) => token,
                    Event::End(Token::Read { offset, count }, came) => {
                        assert_eq!(came, count, "a short read at {offset}");
                        Token::Read { offset, count }
                    }
                    other => panic!("{other:?}"),
                },
            };
            self.go_on(done);
        }
    }

    fn go_on(&mut self, done: Token) {
        match done {
            Token::Version => self.client.attach(Token::Attach, ROOT_FID, b""),
            Token::Attach => {
                let path = [".xget", "image"];
                assert!(self.client.open(Token::Open, ROOT_FID, IMAGE_FID, &path, 0));
            }
            Token::Open => self.begin(),
            Token::Read { offset, count } => {
                self.reading.remove(&offset);
                self.finished += u64::from(count);
                self.read_on();
            }
        }
    }

    fn begin(&mut self) {
        let (mut offset, end) = (0, self.image.len() as u64);
        while offset < end {
            let most = u64::from(self.client.max_read_bytes());
            let count = (self.random.below(40_000) + 1).min(most).min(end - offset);
            self.wanted.push_back((offset, count as u32));
            offset += count;
        }
        (0..READS_AHEAD).for_each(|_| self.read_on());
    }

    fn read_on(&mut self) {
        let Some((offset, count)) = self.wanted.pop_front() else { return };
        let request = Message::Tread { fid: IMAGE_FID, offset, count };
        let tag = self.client.send(Token::Read { offset, count }, &request);
        let tag = tag.expect("no more than a few are in flight");
        self.reading.insert(offset, (tag, count));
    }

    /// Flushes the read that lies first in the file. Its reply may be on its way already.
    fn ask_again(&mut self) {
        let Some((offset, (tag, count))) = self.reading.pop_first() else { return };
        self.client.flush(tag);
        self.wanted.push_front((offset, count));
        self.read_on();
    }
}

fn one_connection(seed: u64) -> bool {
    let mut pair = Pair::new(seed);
    pair.run();
    for (offset, byte) in pair.came.iter().enumerate().filter(|(_, byte)| byte.is_some()) {
        assert_eq!(*byte, Some(pair.image[offset]), "wrong byte at {offset}");
    }
    if !pair.cut {
        assert_eq!(pair.finished, pair.image.len() as u64);
        assert!(pair.came.iter().all(Option::is_some));
        assert_eq!(pair.client.in_flight(), 0);
    }
    pair.session.close(&mut pair.host, pair.now);
    pair.host.assert_balanced();
    pair.cut
}

#[test]
fn every_byte_arrives_whole_or_the_connection_was_cut() {
    let mut cut = 0;
    let seeds = for_seeds(100, |seed| cut += u64::from(one_connection(seed)));
    assert!(seeds == 1 || (1..seeds / 2).contains(&cut), "{cut} of {seeds} were cut");
}
