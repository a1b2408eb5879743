mod sources;

use super::*;
use crate::image::manifest::{Content, Entry, Listing, Mtime};
use crate::image::path::TreePath;

const ORIGIN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 20004);
const ELSEWHERE: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 9, 9)), 20004);

fn start() -> Start {
    let entry = |path, content| Entry {
        path,
        mode: 0o755,
        owner: None,
        mtime: Mtime { secs: 0, nanos: 0 },
        content,
    };
    let file = Content::File { bytes: 16 << 16, image_offset: 0 };
    let image = TreePath::root().join(b"image").unwrap();
    let root = entry(TreePath::root(), Content::Directory);
    let listing = Listing::new(vec![root, entry(image, file)]).unwrap();
    let (wanted, held) = (ChunkSet::full(listing.layout()), ChunkSet::empty(listing.layout()));
    let hashes = listing.layout().iter().map(|_| blake3::hash(b"")).collect();
    Start {
        manifest: Arc::new(Manifest::new(listing, hashes).unwrap()),
        wanted,
        held,
        origin: vec![ORIGIN],
        port: 20004,
        allowed: Allowed::default(),
        serves_files: false,
        rules: Rules::default(),
        patience: Patience::default(),
        seed: 1,
        traces: false,
    }
}

/// A node that wants everything from `ORIGIN`.
fn node() -> Fetch {
    Fetch::new(start())
}

fn actions(fetch: &mut Fetch, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| fetch.poll(now)).collect()
}

/// The connections that it dials.
fn dials(fetch: &mut Fetch, now: Instant) -> Vec<(Conn, SocketAddr)> {
    let dialed = actions(fetch, now).into_iter().filter_map(|action| match action {
        Action::Dial(conn, address) => Some((conn, address)),
        _ => None,
    });
    dialed.collect()
}

/// The origin does not answer when it is dialed next; when that was, and what the node does then.
fn fails_once(fetch: &mut Fetch, mut now: Instant) -> (Instant, Vec<Action>) {
    loop {
        if let [(conn, _)] = dials(fetch, now)[..] {
            fetch.closed(conn, Some("connection refused"), now);
            return (now, actions(fetch, now));
        }
        now = fetch.next_timeout().unwrap();
    }
}

#[test]
fn an_origin_that_has_moved_is_dialed_at_its_new_address() {
    let (mut fetch, now) = (node(), Instant::now());
    let [(conn, address)] = dials(&mut fetch, now)[..] else { panic!() };
    assert_eq!(address, ORIGIN);
    fetch.closed(conn, None, now);
    fetch.set_origin(vec![ELSEWHERE], now);
    assert!(matches!(dials(&mut fetch, now)[..], [(_, ELSEWHERE)]));
}

#[test]
fn an_origin_that_has_not_moved_is_dialed_no_sooner() {
    let (mut fetch, now) = (node(), Instant::now());
    let [(conn, _)] = dials(&mut fetch, now)[..] else { panic!() };
    fetch.closed(conn, None, now);
    fetch.set_origin(vec![ORIGIN], now);
    assert_eq!(dials(&mut fetch, now), []);
}

#[test]
fn the_name_of_an_origin_is_looked_up_again_from_the_second_failure_on() {
    let (mut fetch, mut now) = (node(), Instant::now());
    let mut resolves = Vec::new();
    for _ in 0..3 {
        let actions;
        (now, actions) = fails_once(&mut fetch, now);
        resolves.push(actions.contains(&Action::Resolve));
    }
    assert_eq!(resolves, [false, true, true]);
}

#[test]
fn a_fetch_with_two_retries_ends_at_the_third_failure() {
    let patience = Patience { retries: Some(2), end: None };
    let (mut fetch, mut now) = (Fetch::new(Start { patience, ..start() }), Instant::now());
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        (now, _) = fails_once(&mut fetch, now);
        outcomes.push(fetch.outcome(now));
    }
    assert_eq!(outcomes, [Outcome::Going, Outcome::Going, Outcome::Unreachable]);
}

#[test]
fn a_fetch_ends_when_its_time_is_over_and_is_woken_for_that() {
    let (now, ms) = (Instant::now(), Duration::from_millis(1));
    let patience = Patience { retries: None, end: Some(now + ms) };
    let mut fetch = Fetch::new(Start { patience, ..start() });
    assert!(dials(&mut fetch, now).len() == 1);
    assert_eq!(fetch.next_timeout(), Some(now + ms));
    assert_eq!(fetch.outcome(now + ms), Outcome::TimedOut);
}

#[test]
fn a_master_dials_nobody() {
    let mut fetch = Fetch::of_nothing(start().manifest);
    fetch.called_by(ELSEWHERE);
    assert_eq!(actions(&mut fetch, Instant::now()), []);
    assert_eq!(fetch.next_timeout(), None);
}
