//! A node and a master that answers it, or does not.

use super::*;
use crate::limits::{MANY_DEAD, MAX_DEAD_PORTS, MAX_UNANSWERED_AT_ONCE, MUTE, MUTE_HOME};
use crate::serve::hub::Hub;
use crate::serve::session::{Output, Session};
use crate::serve::tree::Tree;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 20_004))
}

/// What is said of [`address`] 2, which does not answer as a node does.
fn no_node(informant: Option<SocketAddr>, fault: Fault) -> Event {
    Event::NoNode { address: address(2), informant, fault }
}

/// A node that has nothing yet, and the master that it was told of.
struct Node {
    fetch: Fetch,
    master: Hub,
    session: Session,
    now: Instant,
}

const MASTER: Conn = Conn(2);

impl Node {
    fn new() -> Node {
        let (fetch, now) = (node(), Instant::now());
        let tree = Arc::new(Tree::new(fetch.manifest().clone()));
        let mut master = Hub::master(tree, 4, Rules::default(), 1);
        master.connected(MASTER, address(9), now);
        Node { fetch, master, session: Session::new(MASTER, address(9).ip(), false), now }
    }

    fn actions(&mut self) -> Vec<Action> {
        actions(&mut self.fetch, self.now)
    }

    /// The connections that it dials, all of which are made.
    fn dials(&mut self) -> Vec<(Conn, SocketAddr)> {
        let dialed = dials(&mut self.fetch, self.now);
        for (conn, _) in &dialed {
            self.fetch.connected(*conn, address(9).ip(), self.now);
        }
        dialed
    }

    /// It dials its master, and closes the connection after this time.
    fn hears_nothing_for(&mut self, patience: Duration) {
        let [(conn, _)] = self.dials()[..] else { panic!() };
        self.now += patience;
        assert!(self.closes(conn));
    }

    fn closes(&mut self, conn: Conn) -> bool {
        self.actions().contains(&Action::Close(conn))
    }

    /// It dials its master as soon as it may.
    fn dials_again(&mut self) -> Conn {
        self.actions();
        self.now = self.fetch.next_timeout().unwrap();
        let [(conn, _)] = self.dials()[..] else { panic!() };
        conn
    }

    /// The master answers all that it is asked on this connection, but sends nothing of the image.
    fn is_answered(&mut self, conn: Conn) {
        loop {
            self.actions();
            let Some(requests) = self.fetch.next_output(conn) else { return };
            self.session.receive(&requests);
            self.session.process(&mut self.master, self.now).unwrap();
            while let Some(sent) = self.session.next_output() {
                let Output::Reply(reply) = sent else { continue };
                let mut rest = &reply[..];
                while self.fetch.receive(conn, &mut rest, self.now).is_some() {}
            }
        }
    }
}

#[test]
fn trouble_is_told_to_the_server_once_it_can_be_reached() {
    let mut node = Node::new();
    node.fetch.trouble("cannot write /x:\n\x1b[2Jno space left");
    let [(master, _)] = node.dials()[..] else { panic!() };
    assert!(node.master.take_log().is_empty());
    node.is_answered(master);
    let told = [(address(9), "cannot write /x:  [2Jno space left".to_owned())];
    assert_eq!(node.master.take_log(), told);
    node.is_answered(master);
    assert!(node.master.take_log().is_empty(), "it is told once");
}

#[test]
fn so_much_trouble_waits_for_the_server_and_no_more() {
    let mut node = Node::new();
    let lines: Vec<String> = (0..2 * MAX_TROUBLES).map(|n| format!("trouble {n}")).collect();
    for line in &lines {
        node.fetch.trouble(line);
    }
    let [(master, _)] = node.dials()[..] else { panic!() };
    node.is_answered(master);
    let told: Vec<String> = node.master.take_log().into_iter().map(|(_, line)| line).collect();
    assert_eq!(told, lines[..MAX_TROUBLES]);
}

#[test]
fn a_source_that_says_nothing_is_dropped_for_another() {
    let mut node = Node::new();
    node.fetch.learn(address(2));
    let dialed = node.dials();
    let mute = dialed.iter().find(|(_, dialed)| *dialed == address(2)).unwrap().0;
    node.actions();
    assert!(node.fetch.next_timeout().is_some_and(|at| at <= node.now + MUTE));
    node.now += MUTE;
    let actions = node.actions();
    assert!(actions.contains(&Action::Close(mute)));
    assert!(actions.contains(&Action::Report(no_node(None, Fault::Silent))));
}

#[test]
fn while_no_source_says_anything_more_time_is_given() {
    let mut node = Node::new();
    node.hears_nothing_for(MUTE_HOME);
    let again = node.dials_again();
    node.now += MUTE_HOME;
    assert!(!node.closes(again));
    node.now += MUTE_HOME;
    assert!(node.closes(again));
}

#[test]
fn once_a_source_has_answered_no_more_time_is_given_than_before() {
    let mut node = Node::new();
    node.hears_nothing_for(MUTE_HOME);
    let again = node.dials_again();
    node.is_answered(again);
    node.fetch.closed(again, None, node.now);
    let third = node.dials_again();
    node.now += MUTE_HOME;
    assert!(node.closes(third));
}

#[test]
fn a_source_that_names_its_chunks_over_and_over_is_at_fault() {
    let mut node = Node::new();
    let [(master, _)] = node.dials()[..] else { panic!() };
    node.is_answered(master);
    let mut says = || node.fetch.text(master, Control::Have, b"0-15\n", node.now);
    assert_eq!(says(), Ok(()));
    assert_eq!(says(), Err(Fault::Malformed(Control::Have)));
}

impl Node {
    /// A node that the origin has named is dialed, and names these addresses; the connections that are made then, the
    /// one to the origin among them.
    fn hears_of(&mut self, named: &[SocketAddr]) -> BTreeMap<SocketAddr, Conn> {
        self.fetch.learn(address(3));
        let mut dialed = self.dials();
        let informant = dialed.iter().find(|(_, dialed)| *dialed == address(3)).unwrap().0;
        for address in named {
            self.fetch.named(*address, informant, self.now);
        }
        dialed.extend(self.dials());
        dialed.into_iter().map(|(conn, address)| (address, conn)).collect()
    }

    /// Whoever is there sends this; what the node reports then.
    fn is_told(&mut self, conn: Conn, mut bytes: &[u8]) -> Vec<String> {
        while self.fetch.receive(conn, &mut bytes, self.now).is_some() {}
        let reports = self.actions().into_iter().filter_map(|action| match action {
            Action::Report(event) => Some(event.to_string()),
            _ => None,
        });
        reports.collect()
    }

    /// What it has written into the log of its origin.
    fn tells(&mut self, origin: Conn) -> Vec<String> {
        self.is_answered(origin);
        self.master.take_log().into_iter().map(|(_, line)| line).collect()
    }
}

#[test]
fn nobody_learns_what_a_host_answers_that_only_another_node_has_named() {
    for banner in
        [&b"SSH-2.0-OpenSSH_9\r\n"[..], b"HTTP/1.0 400 Bad\r\n\r\n", b"\x13\0\0\0\x65\xff\xff"]
    {
        let mut node = Node::new();
        let conns = node.hears_of(&[address(2)]);
        let reports = node.is_told(conns[&address(2)], banner);
        let line = "10.0.0.3:20004: named 10.0.0.2:20004, where no xget node answers";
        assert!(reports.is_empty() || reports == [line], "{reports:?}");
        node.fetch.closed(conns[&address(2)], None, node.now);
        assert_eq!(node.tells(conns[&ORIGIN]), [""; 0]);
    }
}

#[test]
fn of_a_host_that_the_origin_names_the_origin_is_told_that_it_is_no_node_and_no_more() {
    let mut node = Node::new();
    node.fetch.learn(address(2));
    let conns: BTreeMap<_, _> = node.dials().into_iter().map(|(conn, a)| (a, conn)).collect();
    let line = "10.0.0.2:20004: no xget node answers";
    assert_eq!(node.is_told(conns[&address(2)], b"SSH-2.0-OpenSSH_9\r\n"), [line]);
    assert_eq!(node.tells(conns[&ORIGIN]), [line]);
}

#[test]
fn what_a_9p_server_answers_is_told_of_hosts_that_the_origin_names_alone() {
    let line = format!("{} node\n", blake3::hash(b"another tree").to_hex());
    for (is_seen, told) in [(true, "10.0.0.2:20004: serves another generation"), (false, "")] {
        let mut node = Node::new();
        let mut conns = node.hears_of(&[address(2)][usize::from(is_seen)..]);
        if is_seen {
            node.fetch.learn(address(2));
            conns.extend(node.dials().into_iter().map(|(conn, address)| (address, conn)));
        }
        let conn = conns[&address(2)];
        node.fetch.sources.get_mut(&conn).unwrap().speaks_9p = true;
        let fault = node.fetch.text(conn, Control::Have, line.as_bytes(), node.now);
        node.fetch.drop_source(conn, fault.unwrap_err(), node.now);
        assert_eq!(node.tells(conns[&ORIGIN]).concat(), told);
    }
}

#[test]
fn a_node_that_names_dead_addresses_is_told_on_once_and_not_asked_again() {
    let mut node = Node::new();
    let dead: Vec<SocketAddr> = (100..100 + MANY_DEAD as u8).map(address).collect();
    let mut conns = node.hears_of(&dead);
    while let Some(address) = conns.keys().find(|address| dead.contains(address)).copied() {
        let conn = conns.remove(&address).unwrap();
        node.fetch.closed(conn, Some("connection refused"), node.now);
        conns.extend(node.dials().into_iter().map(|(conn, address)| (address, conn)));
    }
    let told = node.tells(conns[&ORIGIN]);
    let [line] = &told[..] else { panic!("{told:?}") };
    assert!(line.starts_with("10.0.0.3:20004: named 8 hosts where no xget node answers"));
    node.fetch.named(address(200), conns[&address(3)], node.now);
    assert_eq!(node.dials(), []);
}

#[test]
fn a_node_dials_nobody_outside_of_the_allowed_networks() {
    let mut node = Node::new();
    node.fetch.allowed = Allowed(vec!["10.0.0.0/24".parse().unwrap()]);
    let conns = node.hears_of(&[ELSEWHERE, address(2)]);
    node.fetch.named(ELSEWHERE, conns[&ORIGIN], node.now);
    assert!(conns.contains_key(&address(2)) && !conns.contains_key(&ELSEWHERE));
    assert_eq!(node.dials(), []);
}

#[test]
fn ports_of_other_services_are_not_dialed_because_a_node_names_them() {
    let mut node = Node::new();
    let port = |port| SocketAddr::new(address(2).ip(), port);
    let conns = node.hears_of(&[port(22), port(80), port(1023), port(1024), port(20_004)]);
    let dialed = conns.keys().filter(|address| address.ip() == port(0).ip());
    assert_eq!(dialed.copied().collect::<Vec<_>>(), [port(1024), port(20_004)]);
    node.fetch.named(port(564), conns[&ORIGIN], node.now);
    assert_eq!(node.dials()[0].1, port(564), "the origin has seen it");
}

#[test]
fn the_usual_port_of_a_host_is_dialed_though_a_node_has_named_dead_ones_of_it() {
    let mut node = Node::new();
    let dead: Vec<_> = (1..=20).map(|n| SocketAddr::new(address(2).ip(), 30_000 + n)).collect();
    let mut conns = node.hears_of(&dead);
    let mut calls = 0;
    while let Some(next) = conns.keys().find(|address| dead.contains(address)).copied() {
        node.fetch.closed(conns.remove(&next).unwrap(), Some("connection refused"), node.now);
        calls += 1;
        conns.extend(node.dials().into_iter().map(|(conn, address)| (address, conn)));
    }
    assert!(calls < MAX_DEAD_PORTS + MAX_UNANSWERED_AT_ONCE, "{calls}");
    node.fetch.named(address(2), conns[&address(3)], node.now);
    assert_eq!(node.dials()[0].1, address(2));
}

#[test]
fn one_answer_of_a_node_names_so_many_others() {
    let mut node = Node::new();
    let many: Vec<SocketAddr> =
        (1..=250).map(|n| SocketAddr::from(([10, 0, 7, n], 20_004))).collect();
    let conns = node.hears_of(&many);
    assert!(
        conns.len() <= 2 + MAX_UNANSWERED_AT_ONCE,
        "the origin, the informant, half of the others"
    );
    for address in &many {
        node.fetch.named(*address, conns[&ORIGIN], node.now);
    }
    assert_eq!(node.dials().len() + conns.len(), 1 + Rules::default().max_dialled);
}

#[test]
fn of_hearsay_nothing_has_a_place_on_the_ring() {
    let mut node = Node::new();
    let conns = node.hears_of(&[address(2), address(4)]);
    assert_eq!(node.fetch.scheduler.ring().others(), 0);
    node.fetch.named(address(2), conns[&ORIGIN], node.now);
    assert_eq!(node.fetch.scheduler.ring().others(), 1);
}
