use super::locality::MIN_NEAR_SAMPLES;
use super::*;

const A: Conn = Conn(1);
const B: Conn = Conn(2);

struct Node {
    scheduler: Scheduler,
    layout: Layout,
    now: Instant,
}

impl Node {
    fn new(chunks: u64) -> Node {
        let layout = Layout::new(chunks << 16, 1 << 16).unwrap();
        let scheduler = Scheduler::new(layout, ChunkSet::full(&layout), Rules::default(), 5);
        Node { scheduler, layout, now: Instant::now() }
    }

    fn chunk(&self, n: u32) -> ChunkId {
        self.layout.chunk(n).unwrap()
    }

    fn peer(&mut self, id: Conn, has: impl IntoIterator<Item = u32>) {
        self.scheduler.add(id, Role::Node, true, self.now);
        for n in has {
            let chunk = self.chunk(n);
            self.scheduler.has(id, chunk, self.now);
        }
    }

    fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.scheduler.poll(self.now)).collect()
    }

    fn fetches(&mut self) -> Vec<(Conn, u32)> {
        self.commands()
            .into_iter()
            .filter_map(|command| match command {
                Command::Fetch { source, chunk } => Some((source, chunk.get())),
                _ => None,
            })
            .collect()
    }

    fn arrives(&mut self, source: Conn, n: u32) {
        let chunk = self.chunk(n);
        self.scheduler.ended(source, chunk, true, self.now);
    }

    /// `count` chunks took `millis` milliseconds each.
    fn measured(&mut self, source: Conn, millis: u64, count: u32) {
        for _ in 0..count {
            self.scheduler.measured(source, Duration::from_millis(millis));
        }
    }
}

#[test]
fn the_rarest_chunk_is_requested_first() {
    let mut node = Node::new(3);
    node.peer(A, [0, 1]);
    node.peer(B, [0, 1, 2]);
    let from_b: Vec<u32> =
        node.fetches().into_iter().filter(|(s, _)| *s == B).map(|(_, n)| n).collect();
    assert_eq!(from_b.first(), Some(&2), "only B has it");
}

#[test]
fn one_request_is_queued_behind_the_chunk_that_arrives() {
    let mut node = Node::new(10);
    node.peer(A, 0..10);
    assert_eq!(node.fetches().len(), node.scheduler.rules.peer_window);
}

#[test]
fn with_enough_requests_in_flight_none_is_queued_behind_another() {
    let mut node = Node::new(100);
    for source in 1..=20 {
        node.peer(Conn(source), 0..100);
    }
    let mut asked: Vec<Conn> = node.fetches().into_iter().map(|(id, _)| id).collect();
    asked.sort_unstable();
    assert_eq!(asked, (1..=20).map(Conn).collect::<Vec<_>>(), "one of each");
}

#[test]
fn with_enough_peers_none_is_queued_behind_another() {
    let mut node = Node::new(100);
    node.peer(A, 0..100);
    for source in 2..=8 {
        node.peer(Conn(source), []);
    }
    assert_eq!(node.fetches().len(), 1);
}

#[test]
fn no_chunk_is_requested_twice_before_all_are_requested() {
    let mut node = Node::new(8);
    node.peer(A, 0..8);
    node.peer(B, 0..8);
    let mut chunks: Vec<u32> = node.fetches().into_iter().map(|(_, n)| n).collect();
    chunks.sort_unstable();
    chunks.dedup();
    assert_eq!(chunks.len(), 2 * node.scheduler.rules.peer_window);
}

#[test]
fn near_the_end_a_late_chunk_is_requested_from_a_second_peer() {
    let mut node = Node::new(1);
    node.scheduler.measured(A, Duration::from_millis(100));
    node.peer(A, [0]);
    assert_eq!(node.fetches(), [(A, 0)]);
    node.peer(B, [0]);
    assert_eq!(node.fetches(), []);
    node.now += Duration::from_millis(110);
    assert_eq!(node.fetches(), [(B, 0)]);
}

#[test]
fn a_request_is_abandoned_when_another_source_has_brought_the_chunk() {
    let mut node = Node::new(1);
    node.scheduler.measured(A, Duration::from_millis(100));
    node.peer(A, [0]);
    node.peer(B, [0]);
    node.fetches();
    node.now += Duration::from_millis(110);
    node.fetches();
    node.arrives(B, 0);
    assert_eq!(node.commands(), [Command::Abandon { source: A, chunk: node.chunk(0) }]);
}

#[test]
fn a_stalled_request_is_made_to_another_source() {
    let mut node = Node::new(1);
    node.scheduler.measured(A, Duration::from_millis(100));
    node.peer(A, [0]);
    node.fetches();
    node.peer(B, [0]);
    node.now += Duration::from_millis(400);
    let commands = node.commands();
    assert_eq!(commands.first(), Some(&Command::Abandon { source: A, chunk: node.chunk(0) }));
    assert_eq!(commands.last(), Some(&Command::Fetch { source: B, chunk: node.chunk(0) }));
}

#[test]
fn a_silent_source_is_dropped() {
    let mut node = Node::new(1);
    node.scheduler.add(A, Role::Master, true, node.now);
    node.scheduler.granted(A, node.chunk(0), node.now);
    node.commands();
    node.now += node.scheduler.rules.silence;
    assert_eq!(node.commands().first(), Some(&Command::Drop { source: A }));
}

#[test]
fn a_master_that_sends_nothing_and_answers_is_kept() {
    let mut node = Node::new(1);
    node.scheduler.add(A, Role::Master, true, node.now);
    node.scheduler.granted(A, node.chunk(0), node.now);
    node.commands();
    for _ in 0..100 {
        node.now += node.scheduler.rules.silence / 2;
        assert_eq!(node.commands(), [Command::Probe { source: A }]);
        assert_eq!(node.commands(), []);
        node.now += node.scheduler.rules.silence / 4;
        node.scheduler.answered(A, node.now);
    }
    node.now += node.scheduler.rules.silence;
    assert_eq!(node.commands().first(), Some(&Command::Drop { source: A }));
}

#[test]
fn a_master_is_asked_for_grants_up_to_the_window() {
    let mut node = Node::new(100);
    node.scheduler.add(A, Role::Master, true, node.now);
    assert_eq!(
        node.commands(),
        vec![Command::AskNext { source: A }; node.scheduler.rules.master_window]
    );
    node.scheduler.granted(A, node.chunk(7), node.now);
    assert_eq!(node.commands(), [Command::Fetch { source: A, chunk: node.chunk(7) }]);
}

#[test]
fn requests_to_a_source_that_disconnects_are_made_to_another() {
    let mut node = Node::new(1);
    node.peer(A, [0]);
    node.fetches();
    node.peer(B, [0]);
    assert_eq!(node.fetches(), []);
    node.scheduler.remove(A);
    assert_eq!(node.fetches(), [(B, 0)]);
}

/// One near source and one far one, which takes ten times as long, and 100 other nodes in the subnet.
fn node_with_a_slow_far_source(near_has: std::ops::Range<u32>) -> Node {
    let mut node = Node::new(1000);
    node.scheduler.add(A, Role::Node, true, node.now);
    node.scheduler.add(B, Role::Node, false, node.now);
    let address = |n: u8| std::net::SocketAddr::new([10, 0, 0, n].into(), 20_004);
    node.scheduler.ring().set_own(address(0));
    for n in 1..=100 {
        node.scheduler.ring().add(address(n));
    }
    node.measured(A, 10, MIN_NEAR_SAMPLES);
    node.measured(B, 100, MIN_NEAR_SAMPLES);
    for (source, chunks) in [(A, near_has), (B, 0..1000)] {
        for n in chunks {
            let chunk = node.chunk(n);
            node.scheduler.has(source, chunk, node.now);
        }
    }
    node
}

/// How many of 1,000 chunks are requested from the far source, if each arrives at once.
fn requested_from_far(node: &mut Node) -> usize {
    let mut count = 0;
    loop {
        let fetches = node.fetches();
        count += fetches.iter().filter(|(source, _)| *source == B).count();
        for (source, n) in &fetches {
            node.arrives(*source, *n);
        }
        if fetches.is_empty() {
            return count;
        }
    }
}

#[test]
fn chunks_that_near_peers_hold_are_not_requested_from_slow_far_ones() {
    assert_eq!(requested_from_far(&mut node_with_a_slow_far_source(0..1000)), 0);
}

#[test]
fn far_peers_are_not_slow_if_every_third_chunk_is_late() {
    let mut node = Node::new(1000);
    node.scheduler.add(A, Role::Node, true, node.now);
    node.scheduler.add(B, Role::Node, false, node.now);
    node.measured(A, 10, MIN_NEAR_SAMPLES);
    for _ in 0..100 {
        node.measured(B, 10, 2);
        node.measured(B, 100, 1);
    }
    assert!(!node.scheduler.far_is_slow());
    node.measured(B, 100, 20);
    assert!(node.scheduler.far_is_slow(), "an uplink that fills up later is seen as well");
}

#[test]
fn one_node_of_the_subnet_imports_a_chunk_that_no_near_peer_holds() {
    let count = requested_from_far(&mut node_with_a_slow_far_source(0..0));
    assert!((1..50).contains(&count), "{count} of 1,000, where 100 other nodes do the same");
}

#[test]
fn ever_more_nodes_may_import_a_chunk_that_does_not_arrive() {
    let mut node = node_with_a_slow_far_source(0..0);
    requested_from_far(&mut node);
    while !node.scheduler.missing().is_empty() {
        node.now = node.scheduler.deadline().expect("chunks are missing");
        requested_from_far(&mut node);
    }
}

#[test]
fn nothing_is_requested_for_a_while_from_a_source_that_sent_a_wrong_chunk() {
    let mut node = Node::new(2);
    node.peer(A, [0, 1]);
    node.fetches();
    let chunk = node.chunk(0);
    node.scheduler.ended(A, chunk, false, node.now);
    assert_eq!(node.fetches(), []);
    node.now += node.scheduler.rules.min_patience;
    assert_eq!(node.fetches().len(), 1);
}
