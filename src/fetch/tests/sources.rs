//! A node and a master that answers it, or does not.

use super::*;
use crate::limits::{MUTE, MUTE_HOME};
use crate::serve::hub::Hub;
use crate::serve::session::{Output, Session};
use crate::serve::tree::Tree;

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 20_004))
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
    let dropped = Event::Dropped(address(2), Fault::Silent);
    assert!(actions.contains(&Action::Report(dropped)));
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
