use std::time::Duration;

use super::*;
use crate::image::manifest::{Content, Entry, Listing, Manifest, Mtime};
use crate::image::path::TreePath;

const OTHERS: [Conn; 3] = [Conn(1), Conn(2), Conn(3)];

fn entry(path: TreePath, content: Content) -> Entry {
    Entry { path, mode: 0o755, owner: None, mtime: Mtime { secs: 0, nanos: 0 }, content }
}

struct Server {
    hub: Hub,
    now: Instant,
}

impl Server {
    fn of(make: impl FnOnce(Arc<Tree>) -> Hub) -> Server {
        let content = Content::File { bytes: 16 << 16, image_offset: 0 };
        let root = entry(TreePath::root(), Content::Directory);
        let file = entry(TreePath::root().join(b"image").unwrap(), content);
        let listing = Listing::new(vec![root, file]).unwrap();
        let hashes = listing.layout().iter().map(|_| blake3::hash(b"")).collect();
        let manifest = Arc::new(Manifest::new(listing, hashes).unwrap());
        let mut hub = make(Arc::new(Tree::new(manifest)));
        let now = Instant::now();
        for (conn, n) in OTHERS.into_iter().zip(1..) {
            hub.connected(conn, SocketAddr::from(([10, 0, 0, n], 50_000)), now);
        }
        Server { hub, now }
    }

    /// A node that wants everything and has nothing.
    fn node(rules: Rules) -> Server {
        Server::of(|tree| {
            let layout = *tree.manifest().layout();
            let (wanted, held) = (ChunkSet::full(&layout), ChunkSet::empty(&layout));
            Hub::node(tree, wanted, held, rules, 1)
        })
    }

    fn at(&self, conn: Conn) -> At {
        At { conn, now: self.now }
    }

    fn write(&mut self, conn: Conn, file: Control, text: &str) -> Result<(), Errno> {
        self.hub.write(self.at(conn), file, text.as_bytes())
    }

    fn joins(&mut self, conn: Conn) -> Result<(), Errno> {
        let generation = self.hub.tree.manifest().generation().to_hex();
        self.write(conn, Control::Avail, &format!("20004 {generation}\n"))?;
        self.write(conn, Control::Next, "want 0-15")
    }

    fn reads_manifest(&mut self, conn: Conn, count: usize) -> Answer<usize> {
        let at = self.at(conn);
        match self.hub.read(at, Control::Manifest, 0, count) {
            Answer::Now(bytes) => Answer::Now(bytes.len()),
            Answer::Wait => Answer::Wait,
            Answer::Error(errno) => Answer::Error(errno),
        }
    }

    fn waits_for_news(&mut self, conn: Conn) {
        let read = self.hub.have.len() as u64;
        let answer = self.hub.read(self.at(conn), Control::Have, read, 100);
        assert_eq!(answer, Answer::Wait);
    }

    /// Chunk `n` arrives here; who is told.
    fn holds(&mut self, n: u32) -> Vec<Conn> {
        let chunk = self.hub.layout().chunk(n).unwrap();
        self.hub.holds(chunk, self.now);
        self.now += self.hub.rules.have_delay;
        self.hub.tick(self.now);
        self.hub.take_wakes().into_iter().collect()
    }
}

#[test]
fn what_a_node_writes_into_the_log_is_told_by_where_it_serves_and_changes_nothing_else() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    for conn in OTHERS {
        server.joins(conn).unwrap();
    }
    let accused = "10.0.0.2:20004: sent chunks with wrong hashes";
    server.write(Conn(1), Control::Log, accused).unwrap();
    assert_eq!(server.hub.take_log(), [("10.0.0.1:20004".parse().unwrap(), accused.to_owned())]);
    server.hub.disconnected(Conn(1), server.now);
    let status = server.hub.status(server.now);
    let line = format!("log=10.0.0.1:20004 seconds=0.0 text={accused}");
    assert_eq!(status.lines().last(), Some(&*line), "also when it has gone");
    assert!(server.hub.redir(Conn(3)).contains("10.0.0.2!20004"), "its word alone proves nothing");
}

#[test]
fn the_signature_is_there_as_long_as_the_manifest_has_one() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    let open = |server: &mut Server| server.hub.open(server.at(Conn(1)), Control::Signature);
    assert!(!server.hub.has(Control::Signature));
    assert_eq!(open(&mut server), Err(Errno::ENOENT));
    server.hub.sign(Some(b"signed"[..].into()));
    assert!(server.hub.has(Control::Signature));
    assert_eq!(open(&mut server), Ok(Some(b"signed"[..].into())));
    let (tree, now) = (server.hub.tree.clone(), server.now);
    server.hub.publish(tree, 4, 1, now);
    assert!(!server.hub.has(Control::Signature), "it is that of the generation before");
}

#[test]
fn how_fast_a_node_gets_and_sends_is_in_the_status() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    server.joins(Conn(1)).unwrap();
    server.write(Conn(1), Control::Next, "held 0-3\nsent 1000 2").unwrap();
    let chunk_bytes = server.hub.layout().chunk_bytes();
    let status = server.hub.status(server.now);
    assert!(
        status.contains("in_bytes_per_s=0 out_bytes_per_s=0 out_bytes=1000 sources=2"),
        "{status}"
    );
    server.now += Duration::from_secs(1);
    server.write(Conn(1), Control::Next, "held 4-5\nsent 3000 5").unwrap();
    server.now += Duration::from_secs(1);
    let words =
        format!("in_bytes_per_s={} out_bytes_per_s=2000 out_bytes=3000 sources=5", 2 * chunk_bytes);
    let status = server.hub.status(server.now);
    assert!(status.contains(&words), "{status}");
}

#[test]
fn what_makes_no_sense_of_sending_is_refused() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    for line in ["sent", "sent 1", "sent -1 2", "sent 1 x"] {
        assert_eq!(server.write(Conn(1), Control::Next, line), Err(Errno::EINVAL), "{line}");
    }
}

#[test]
fn there_are_metrics_where_somebody_makes_them_of_the_status() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    let open = |server: &mut Server| server.hub.open(server.at(Conn(1)), Control::Metrics);
    assert!(!server.hub.has(Control::Metrics));
    assert_eq!(open(&mut server), Err(Errno::ENOENT));
    server.hub.export(|status| format!("made of {status}"));
    assert!(server.hub.has(Control::Metrics));
    assert!(open(&mut server).unwrap().unwrap().starts_with(b"made of generation="));
    let (tree, now) = (server.hub.tree.clone(), server.now);
    server.hub.publish(tree, 4, 1, now);
    assert!(server.hub.has(Control::Metrics), "of the next generation, too");
}

#[test]
fn with_a_limit_a_read_waits_until_what_was_sent_is_paid_for() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    server.hub.limit_upload(NonZeroU64::new(1 << 20).unwrap());
    let tree = server.hub.tree.clone();
    let image = |server: &mut Server, n: u64| {
        let at = server.at(Conn(n));
        server.hub.image(at, &tree, &(0..1 << 20), false)
    };
    assert_eq!(image(&mut server, 1), Answer::Now(1 << 20));
    assert_eq!(image(&mut server, 2), Answer::Wait);
    let due = server.hub.deadline(server.now).unwrap();
    assert!(due > server.now);
    server.now = due;
    server.hub.tick(due);
    assert!(server.hub.take_wakes().contains(&Conn(2)));
    assert!(matches!(image(&mut server, 2), Answer::Now(_)));
}

#[test]
fn beside_others_a_long_read_gets_a_short_answer() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    let tree = server.hub.tree.clone();
    let image = |server: &mut Server, n: u64| {
        let at = server.at(Conn(n));
        server.hub.image(at, &tree, &(0..1 << 20), true)
    };
    assert_eq!(image(&mut server, 1), Answer::Now(1 << 20), "nobody else is there");
    assert_eq!(image(&mut server, 2), Answer::Now(64 << 10));
}

#[test]
fn beside_a_node_that_was_granted_chunks_other_reads_pause() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    let tree = server.hub.tree.clone();
    server.joins(Conn(1)).unwrap();
    let at = server.at(Conn(1));
    assert_eq!(server.hub.read(at, Control::Next, 0, 64), Answer::Wait);
    server.hub.tick(server.now);
    assert!(matches!(server.hub.read(at, Control::Next, 0, 64), Answer::Now(_)));
    let chunk = server.hub.layout().chunk(0).unwrap();
    let image = |server: &mut Server, n: u64| {
        let at = server.at(Conn(n));
        let range = server.hub.layout().range(chunk);
        let answer = server.hub.image(at, &tree, &range, true);
        server.hub.file_piece_sent(at);
        answer
    };
    assert_eq!(image(&mut server, 2), Answer::Now(1 << 16));
    assert_eq!(image(&mut server, 2), Answer::Wait);
}

#[test]
fn who_has_read_the_manifest_makes_room_for_the_next_in_line() {
    let rules = Rules { manifest_readers: 1, manifest_line: 1, ..Rules::default() };
    let mut server = Server::node(rules);
    let answers = OTHERS.map(|conn| server.reads_manifest(conn, 10));
    assert_eq!(answers, [Answer::Now(10), Answer::Wait, Answer::Error(Errno::EBUSY)]);
    let whole = server.hub.tree.manifest().text().len();
    assert_eq!(server.reads_manifest(Conn(1), whole), Answer::Now(whole));
    assert!(!server.hub.take_wakes().contains(&Conn(2)), "it may still be on its way");
    let at = server.at(Conn(1));
    assert_eq!(server.hub.read(at, Control::Manifest, whole as u64, 10), Answer::Now(Vec::new()));
    assert!(server.hub.take_wakes().contains(&Conn(2)));
    assert_eq!(server.reads_manifest(Conn(2), 10), Answer::Now(10));
}

#[test]
fn the_end_of_the_manifest_is_told_without_a_turn() {
    let rules = Rules { manifest_readers: 0, manifest_line: 0, ..Rules::default() };
    let mut server = Server::node(rules);
    let end = server.hub.tree.manifest().text().len() as u64;
    let at = server.at(Conn(1));
    assert_eq!(server.hub.read(at, Control::Manifest, end, 10), Answer::Now(Vec::new()));
}

#[test]
fn a_node_feeds_so_many_and_sends_others_elsewhere() {
    let mut server = Server::node(Rules { max_fetchers: 2, ..Rules::default() });
    assert_eq!(OTHERS.map(|conn| server.joins(conn)), [Ok(()), Ok(()), Err(Errno::EBUSY)]);
}

#[test]
fn who_is_whole_does_not_count_as_fed() {
    let mut server = Server::node(Rules { max_fetchers: 1, ..Rules::default() });
    server.joins(Conn(1)).unwrap();
    server.write(Conn(1), Control::Next, "held 0-15").unwrap();
    assert_eq!(server.joins(Conn(2)), Ok(()));
}

#[test]
fn a_master_takes_everybody() {
    let rules = Rules { max_fetchers: 1, ..Rules::default() };
    let mut server = Server::of(|tree| Hub::master(tree, 4, rules, 1));
    assert_eq!(OTHERS.map(|conn| server.joins(conn)), [Ok(()); 3]);
}

#[test]
fn news_of_a_chunk_go_to_those_that_lack_it() {
    let mut server = Server::node(Rules::default());
    server.joins(Conn(1)).unwrap();
    server.joins(Conn(2)).unwrap();
    server.write(Conn(2), Control::Next, "held 7").unwrap();
    OTHERS.into_iter().for_each(|conn| server.waits_for_news(conn));
    assert_eq!(server.holds(7), [Conn(1), Conn(3)], "the third does not say what it lacks");
    assert_eq!(server.holds(8), [Conn(2)], "what it was not told of before comes with it");
}

/// How many nodes the JSON of the status shows in each state.
fn states(server: &Server) -> [usize; 4] {
    let json = crate::status::to_json(&server.hub.status(server.now));
    let count = |state| json.matches(&format!("\"state\":\"{state}\"")).count();
    ["whole", "fetching", "stalled", "gone"].map(count)
}

#[test]
fn the_totals_count_the_states_that_the_status_shows() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    server.hub.connected(Conn(4), "10.0.0.4:50000".parse().unwrap(), server.now);
    for conn in [Conn(1), Conn(2), Conn(3), Conn(4)] {
        server.joins(conn).unwrap();
    }
    server.write(Conn(1), Control::Next, "held 0-15").unwrap();
    server.write(Conn(2), Control::Next, "held 0-3").unwrap();
    server.hub.disconnected(Conn(4), server.now);
    server.now += Duration::from_secs(10);
    server.write(Conn(3), Control::Next, "held 0-7").unwrap();
    assert_eq!(states(&server), [1, 1, 1, 1]);
    let totals = server.hub.totals(server.now);
    assert_eq!((totals.nodes, totals.whole, totals.stalled, totals.left), (3, 1, 1, 1));
    assert_eq!((totals.held_chunks, totals.wanted_chunks), (16 + 4 + 8, 3 * 16));
    assert_eq!(totals.only_here, 0);
}

#[test]
fn what_nodes_received_counts_on_whoever_leaves_and_whatever_is_published() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    let chunk_bytes = server.hub.layout().chunk_bytes();
    let received = |server: &Server| server.hub.totals(server.now).received_bytes / chunk_bytes;
    server.joins(Conn(1)).unwrap();
    server.write(Conn(1), Control::Next, "held 0-3").unwrap();
    assert_eq!(received(&server), 0, "it had them before it came");
    server.write(Conn(1), Control::Next, "held 4-6\nheld 5-7").unwrap();
    assert_eq!(received(&server), 4, "none twice");
    server.joins(Conn(2)).unwrap();
    let at = server.at(Conn(2));
    assert_eq!(server.hub.read(at, Control::Next, 0, 10), Answer::Wait);
    server.write(Conn(2), Control::Next, "held 0").unwrap();
    assert_eq!(received(&server), 5, "it had asked for chunks before");
    server.hub.disconnected(Conn(1), server.now);
    assert_eq!(received(&server), 5);
    let (tree, now) = (server.hub.tree.clone(), server.now);
    server.hub.publish(tree, 4, 1, now);
    assert_eq!(received(&server), 5);
    assert_eq!(server.hub.totals(now).nodes, 0, "nobody has joined the new generation");
}

#[test]
fn the_totals_say_how_long_the_slowest_takes_that_is_not_stalled() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    for conn in OTHERS {
        server.joins(conn).unwrap();
        server.write(conn, Control::Next, "held 0").unwrap();
    }
    assert_eq!(server.hub.totals(server.now).seconds_left, None, "nothing comes yet");
    server.now += Duration::from_secs(20);
    server.write(Conn(1), Control::Next, "held 1-8").unwrap();
    server.write(Conn(2), Control::Next, "held 1-2").unwrap();
    server.now += Duration::from_secs(1);
    let totals = server.hub.totals(server.now);
    assert_eq!(totals.seconds_left, Some(13 / 2), "of the second, two chunks a second");
    assert_eq!(totals.stalled, 1);
}

#[test]
fn a_node_that_gets_nothing_for_long_does_not_keep_this_one_serving() {
    let mut server = Server::of(|tree| Hub::master(tree, 4, Rules::default(), 1));
    assert!(!server.hub.is_wanted(server.now), "nobody is there");
    server.joins(Conn(1)).unwrap();
    server.write(Conn(1), Control::Next, "want 0-3").unwrap();
    assert!(server.hub.is_wanted(server.now));
    server.now += GIVEN_UP;
    assert!(!server.hub.is_wanted(server.now), "it has given up, or is lost");
    server.write(Conn(1), Control::Next, "held 0").unwrap();
    assert!(server.hub.is_wanted(server.now), "it goes on");
}
