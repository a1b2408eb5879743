//! A node and a master that answers it, or does not.

use super::*;
use crate::serve::hub::Hub;
use crate::serve::session::{Conn, Output as Sent, Session};
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

const MASTER: Conn = Conn(1);

impl Node {
    fn new() -> Node {
        let (fetch, now) = (node(), Instant::now());
        let tree = Arc::new(Tree::new(fetch.manifest().clone()));
        let mut master = Hub::master(tree, 4, Rules::default(), 1);
        master.connected(MASTER, address(9), now);
        Node { fetch, master, session: Session::new(MASTER, false), now }
    }

    fn orders(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.fetch.poll(self.now)).collect()
    }

    /// Whom it calls, each of whom takes the call.
    fn calls(&mut self) -> Vec<(SourceId, SocketAddr)> {
        let calls = self.orders().into_iter().filter_map(|order| match order {
            Output::Dial { source, address } => Some((source, address)),
            Output::Close { .. } => None,
        });
        let calls: Vec<_> = calls.collect();
        let own = address(9).ip();
        calls.iter().for_each(|(source, _)| self.fetch.connected(*source, own, self.now));
        calls
    }

    /// It calls its master, and hangs up after this time.
    fn hears_nothing_for(&mut self, patience: Duration) {
        let [(source, _)] = self.calls()[..] else { panic!() };
        self.now += patience;
        assert_eq!(self.orders(), [Output::Close { source }]);
    }

    /// It calls its master as soon as it may.
    fn calls_again(&mut self) -> SourceId {
        self.now = self.fetch.deadline().unwrap();
        let [(source, _)] = self.calls()[..] else { panic!() };
        source
    }

    /// The master answers all that it is asked on this connection, but sends nothing of the image.
    fn is_answered(&mut self, source: SourceId) {
        loop {
            self.orders();
            let requests = std::mem::take(self.fetch.output(source).unwrap());
            if requests.is_empty() {
                return;
            }
            self.session.receive(&requests);
            self.session.process(&mut self.master, self.now).unwrap();
            while let Some(sent) = self.session.next_output() {
                let Sent::Reply(reply) = sent else { continue };
                let mut rest = &reply[..];
                while self.fetch.receive(source, &mut rest, self.now).is_some() {}
            }
        }
    }
}

#[test]
fn trouble_is_told_to_the_server_once_it_can_be_reached() {
    let mut node = Node::new();
    node.fetch.trouble("cannot write /x:\n\x1b[2Jno space left");
    let [(master, _)] = node.calls()[..] else { panic!() };
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
    lines.iter().for_each(|line| node.fetch.trouble(line));
    let [(master, _)] = node.calls()[..] else { panic!() };
    node.is_answered(master);
    let told: Vec<String> = node.master.take_log().into_iter().map(|(_, line)| line).collect();
    assert_eq!(told, lines[..MAX_TROUBLES]);
}

#[test]
fn who_takes_a_call_and_says_nothing_gives_its_place_to_another() {
    let mut node = Node::new();
    node.fetch.learn(address(2));
    let calls = node.calls();
    let mute = calls.iter().find(|(_, called)| *called == address(2)).unwrap().0;
    assert!(node.fetch.deadline().is_some_and(|at| at <= node.now + MUTE));
    node.now += MUTE;
    assert!(node.orders().contains(&Output::Close { source: mute }));
    assert_eq!(node.fetch.take_faults(), [(address(2), Fault::Silent)]);
}

#[test]
fn while_nobody_says_anything_more_time_is_given() {
    let mut node = Node::new();
    node.hears_nothing_for(MUTE_HOME);
    let again = node.calls_again();
    node.now += MUTE_HOME;
    assert_eq!(node.orders(), []);
    node.now += MUTE_HOME;
    assert_eq!(node.orders(), [Output::Close { source: again }]);
}

#[test]
fn once_somebody_has_spoken_no_more_time_is_given_than_before() {
    let mut node = Node::new();
    node.hears_nothing_for(MUTE_HOME);
    let again = node.calls_again();
    node.is_answered(again);
    node.fetch.closed(again, node.now);
    let third = node.calls_again();
    node.now += MUTE_HOME;
    assert!(node.orders().contains(&Output::Close { source: third }));
}

#[test]
fn a_source_that_names_its_chunks_over_and_over_is_not_listened_to() {
    let mut node = Node::new();
    let [(master, _)] = node.calls()[..] else { panic!() };
    node.is_answered(master);
    let mut says = || node.fetch.text(master, Control::Have, b"0-15\n", node.now);
    assert_eq!(says(), Ok(()));
    assert_eq!(says(), Err(Fault::Nonsense(Control::Have)));
}
