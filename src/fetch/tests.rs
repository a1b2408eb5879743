mod sources;

use super::*;
use crate::image::manifest::{Content, Entry, Listing, Mtime};
use crate::image::path::TreePath;

const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 20004);
const ELSEWHERE: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 9, 9)), 20004);

/// A node that wants everything from `HOME`.
fn node() -> Fetch {
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
    let (all, none) = (ChunkSet::full(listing.layout()), ChunkSet::empty(listing.layout()));
    let hashes = listing.layout().iter().map(|_| blake3::hash(b"")).collect();
    let manifest = Arc::new(Manifest::new(listing, hashes).unwrap());
    Fetch::new(manifest, all, &none, vec![HOME], 20004, Rules::default(), 1)
}

/// Whom it calls next.
fn calls(fetch: &mut Fetch, now: Instant) -> Option<(SourceId, SocketAddr)> {
    match fetch.poll(now) {
        Some(Output::Dial { source, address }) => Some((source, address)),
        _ => None,
    }
}

#[test]
fn a_server_that_has_moved_is_called_where_it_is() {
    let (mut fetch, now) = (node(), Instant::now());
    let (source, address) = calls(&mut fetch, now).unwrap();
    assert_eq!(address, HOME);
    fetch.closed(source, now);
    fetch.found_home(vec![ELSEWHERE], now);
    assert_eq!(calls(&mut fetch, now).map(|(_, address)| address), Some(ELSEWHERE));
}

#[test]
fn a_server_that_has_not_moved_is_called_no_sooner() {
    let (mut fetch, now) = (node(), Instant::now());
    let (source, _) = calls(&mut fetch, now).unwrap();
    fetch.closed(source, now);
    fetch.found_home(vec![HOME], now);
    assert_eq!(calls(&mut fetch, now), None);
}

#[test]
fn so_many_addresses_are_remembered_and_no_more() {
    let mut fetch = node();
    for port in 1..=2 * MAX_ADDRESSES as u16 {
        fetch.learn(SocketAddr::new(ELSEWHERE.ip(), port));
    }
    assert_eq!(fetch.places.len(), MAX_ADDRESSES);
}
