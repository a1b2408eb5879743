use super::*;

struct Master {
    members: Members,
    grants: Grants,
    layout: Layout,
    now: Instant,
}

impl Master {
    fn new(nodes: u64, chunks: u64, slots: usize) -> Master {
        let layout = Layout::new(chunks << 16, 1 << 16).unwrap();
        let rules = Rules { grants_a_slot: 1, ..Rules::default() };
        let mut master = Master {
            members: Members::new(layout, rules, 1),
            grants: Grants::new(layout, slots, rules),
            layout,
            now: Instant::now(),
        };
        for n in 0..nodes {
            master.node(n, layout.iter());
        }
        master
    }

    fn node(&mut self, n: u64, wants: impl Iterator<Item = ChunkId>) {
        let address = format!("10.0.0.{}:5000", n + 1).parse().unwrap();
        self.members.connected(Conn(n), address, self.now);
        self.members.joined(Conn(n), 20_004);
        self.members.wants(Conn(n), wants);
        self.grants.reported(Conn(n), self.members.host(Conn(n)));
    }

    fn ask(&mut self, conn: u64) -> Option<u32> {
        let host = self.members.host(Conn(conn));
        self.grants.ask(Conn(conn), host, self.now).map(ChunkId::get)
    }

    fn assign(&mut self) -> Vec<u64> {
        self.grants.assign(&self.members, self.now).into_iter().map(|conn| conn.0).collect()
    }

    fn holds(&mut self, conn: u64, chunk: u32) {
        let new = self.members.has(Conn(conn), self.layout.chunk(chunk).into_iter(), self.now);
        self.grants.held(Conn(conn), self.members.host(Conn(conn)), &new, self.now);
    }

    /// A read that waits, and is tried again once something was handed out.
    fn serve(&mut self, conn: u64) -> Option<u32> {
        self.grants.cancel(Conn(conn));
        let chunk = self.ask(conn).or_else(|| {
            self.assign();
            self.grants.cancel(Conn(conn));
            self.ask(conn)
        });
        if let Some(chunk) = chunk.and_then(|chunk| self.layout.chunk(chunk)) {
            self.grants.sent(Conn(conn), chunk, self.now);
        }
        chunk
    }
}

#[test]
fn nothing_goes_out_twice_before_all_is_out_once() {
    let mut master = Master::new(2, 4, 8);
    let mut out: Vec<u32> = (0..4).filter_map(|i| master.serve(i % 2)).collect();
    out.sort_unstable();
    assert_eq!(out, [0, 1, 2, 3]);
}

#[test]
fn once_all_is_out_what_only_one_node_holds_goes_out_again() {
    let mut master = Master::new(3, 2, 4);
    assert_eq!((master.serve(0), master.serve(1)), (Some(0), Some(1)));
    assert_eq!((master.serve(2), master.serve(2)), (Some(0), Some(1)));
    assert_eq!(master.serve(0), None, "of each there are two copies to draw from");
}

#[test]
fn slots_limit_what_is_on_its_way() {
    let mut master = Master::new(3, 8, 2);
    for conn in 0..3 {
        master.ask(conn);
    }
    assert_eq!(master.assign().len(), 2);
    assert_eq!(master.assign(), [] as [u64; 0]);
}

#[test]
fn a_lone_node_gets_everything_without_waiting() {
    let mut master = Master::new(1, 4, 4);
    let out: Vec<u32> = (0..4).filter_map(|_| master.serve(0)).collect();
    assert_eq!(out, [0, 1, 2, 3]);
}

#[test]
fn what_only_a_dead_node_held_goes_out_again() {
    let mut master = Master::new(2, 2, 4);
    assert_eq!(master.serve(0), Some(0));
    master.holds(0, 0);
    assert_eq!(master.serve(1), Some(1));
    master.members.disconnected(Conn(0), Instant::now());
    master.grants.gone(Conn(0));
    assert_eq!(master.serve(1), Some(0));
}

#[test]
fn a_host_that_says_on_many_connections_that_it_holds_everything_holds_one_copy() {
    let mut master = Master::new(2, 4, 8);
    for conn in 10..20 {
        let address = format!("10.0.9.9:{}", 5000 + conn).parse().unwrap();
        master.members.connected(Conn(conn), address, master.now);
        (0..4).for_each(|chunk| master.holds(conn, chunk));
    }
    let mut out: Vec<u32> = (0..4).filter_map(|i| master.serve(i % 2)).collect();
    out.sort_unstable();
    assert_eq!(out, [0, 1, 2, 3], "all goes out all the same");
    (10..20).for_each(|conn| master.grants.gone(Conn(conn)));
    assert_eq!(master.serve(0), Some(1), "of each there is one copy again");
}

#[test]
fn a_starving_node_gets_another_copy() {
    let mut master = Master::new(3, 1, 4);
    assert_eq!((master.serve(0), master.serve(1)), (Some(0), Some(0)));
    assert_eq!(master.serve(2), None);
    master.now += master.grants.rules.starved_after * 2;
    assert_eq!(master.assign(), [2]);
}

#[test]
fn a_slow_node_is_fed_when_it_starves_though_others_wait_too() {
    let mut master = Master::new(2, 8, 4);
    master.grants.arriving.add(Duration::from_millis(1));
    for conn in 0..2 {
        let host = master.members.host(Conn(conn));
        master.grants.asker(Conn(conn), host).usual = Some(Duration::from_millis(200));
        assert_eq!(master.ask(conn), None);
    }
    assert_eq!(master.assign(), [] as [u64; 0], "fresh chunks are for the others");
    master.now += master.grants.rules.starved_after;
    assert_eq!(master.assign(), [0, 1]);
}

#[test]
fn a_node_that_holds_grants_for_long_is_slow_before_it_reports_any() {
    let mut master = Master::new(2, 8, 4);
    master.grants.arriving.add(Duration::from_millis(20));
    master.ask(0);
    assert_eq!(master.assign(), [0]);
    master.now += Duration::from_millis(100);
    assert_eq!((master.ask(0), master.ask(0)), (Some(0), None));
    (0..3).for_each(|_| assert_eq!(master.ask(1), None));
    assert_eq!(master.assign(), [1], "others wait for none of what the slow one would get");
}

#[test]
fn what_most_nodes_need_is_not_the_usual_if_a_quarter_is_faster() {
    let mut times = Times::default();
    (0..300).for_each(|n| times.add(Duration::from_millis(if n % 3 == 0 { 10 } else { 100 })));
    assert_eq!(times.patience(), Duration::from_millis(40));
}

#[test]
fn a_node_that_gets_nothing_from_others_starves_once_not_for_each_chunk() {
    let mut master = Master::new(3, 8, 4);
    for chunk in 0..8 {
        master.holds(0, chunk);
        master.holds(2, chunk);
    }
    assert_eq!(master.serve(1), None, "the other nodes have all of it");
    master.now += master.grants.rules.starved_after * 2;
    assert!((0..8).all(|_| {
        let chunk = master.serve(1);
        chunk.into_iter().for_each(|chunk| master.holds(1, chunk));
        chunk.is_some()
    }));
}

#[test]
fn a_grant_that_is_never_fetched_is_taken_back() {
    let mut master = Master::new(2, 1, 1);
    master.ask(0);
    master.assign();
    master.now += master.grants.rules.grant_lifetime * 2;
    master.ask(1);
    assert_eq!(master.assign(), [1]);
}

#[test]
fn a_node_that_fetches_nothing_keeps_no_slot_from_the_others() {
    let mut master = Master::new(2, 8, 2);
    assert_eq!((master.ask(0), master.ask(0), master.ask(0)), (None, None, None));
    assert_eq!(master.assign(), [0]);
    assert_eq!((master.ask(1), master.ask(1), master.ask(1)), (None, None, None));
    assert_eq!(master.assign(), [] as [u64; 0]);
    master.now += master.grants.rules.starved_after * 2;
    assert_eq!(master.assign(), [1]);
    master.now += master.grants.rules.grant_lifetime * 2;
    assert_eq!(master.assign(), [] as [u64; 0], "it was silent for too long");
    assert_eq!(master.ask(0), Some(0));
    assert_eq!(master.assign(), [0], "it is there again");
}

#[test]
fn only_what_a_node_wants_is_granted() {
    let mut master = Master::new(0, 4, 4);
    let third = master.layout.chunk(2);
    master.node(0, third.into_iter());
    assert_eq!(master.serve(0), Some(2));
    master.holds(0, 2);
    assert_eq!(master.serve(0), None);
}

#[test]
fn nodes_that_lack_nothing_keep_nobody_awake() {
    let mut master = Master::new(1, 1, 4);
    let is_due = |master: &Master| master.grants.deadline().is_some();
    assert_eq!(master.serve(0), Some(0));
    assert_eq!(master.ask(0), None);
    assert!(is_due(&master), "it may starve");
    master.holds(0, 0);
    master.now += Rules::default().starved_after;
    master.assign();
    assert!(!is_due(&master), "its read of `next` waits all the same");
}
