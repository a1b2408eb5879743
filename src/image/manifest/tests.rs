use super::*;
use crate::image::path::TreePath;

pub(crate) fn entry(path: &str, content: Content) -> Entry {
    Entry {
        path: TreePath::from_manifest(path.as_bytes()).unwrap(),
        mode: 0o755,
        owner: Some(Owner { uid: 0, gid: 0 }),
        mtime: Mtime { secs: 1_700_000_000, nanos: 5 },
        content,
    }
}

fn file(bytes: u64) -> Content {
    Content::File { bytes, image_offset: 0 }
}

pub(crate) fn sample() -> Manifest {
    let entries = vec![
        entry("boot/vmlinuz", file(70_000)),
        entry(".", Content::Directory),
        entry("boot.cfg", file(10)),
        entry("boot", Content::Directory),
        entry("boot/empty", file(0)),
        entry("boot/link", Content::Symlink { target: b"../a b\n".as_slice().into() }),
    ];
    let listing = Listing::new(entries).unwrap();
    let hashes = listing.layout().iter().map(|c| blake3::hash(&c.get().to_le_bytes())).collect();
    Manifest::new(listing, hashes).unwrap()
}

fn paths(listing: &Listing, of: impl Iterator<Item = usize>) -> Vec<String> {
    of.map(|i| listing.path(i).unwrap().to_string()).collect()
}

#[test]
fn a_printed_manifest_parses_to_the_same_manifest() {
    let manifest = sample();
    let back = Manifest::parse(&manifest.text()[..]).unwrap();
    assert_eq!(back.listing(), manifest.listing());
    assert_eq!(back.generation(), manifest.generation());
}

#[test]
fn entries_are_sorted_by_path_elements() {
    let manifest = sample();
    let listing = manifest.listing();
    let all = paths(listing, 0..listing.len());
    assert_eq!(all, [".", "boot", "boot/empty", "boot/link", "boot/vmlinuz", "boot.cfg"]);
}

#[test]
fn children_are_the_direct_entries_of_a_directory_and_can_be_resumed() {
    let manifest = sample();
    let listing = manifest.listing();
    assert_eq!(paths(listing, listing.children(0, 0)), ["boot", "boot.cfg"]);
    assert_eq!(paths(listing, listing.children(1, 3)), ["boot/link", "boot/vmlinuz"]);
    assert_eq!(paths(listing, listing.children(0, 6)), [] as [&str; 0]);
}

#[test]
fn segments_skip_empty_files_and_split_at_file_boundaries() {
    let manifest = sample();
    let segments: Vec<_> = manifest.listing().segments(69_990..70_005).collect();
    assert_eq!(
        segments,
        [Segment { entry: 4, offset: 69_990, len: 10 }, Segment { entry: 5, offset: 0, len: 5 }]
    );
}

#[test]
fn newlines_and_spaces_in_a_link_target_are_escaped() {
    let text = String::from_utf8(sample().text().to_vec()).unwrap();
    assert!(text.contains(r"boot/link ../a\x20b\x0a"), "{text}");
}

#[test]
fn a_damaged_manifest_is_refused_with_its_line_number() {
    let good = String::from_utf8(sample().text().to_vec()).unwrap();
    for (from, to, why) in [
        ("manifest 1", "manifest 2", "line 1: it does not begin"),
        ("f 0755", "q 0755", "line 5: malformed"),
        ("boot/empty", "boot/../../etc", "line 5: invalid path \"boot/../../etc\""),
        ("boot/empty", "nowhere/empty", "the directory of nowhere/empty is not listed"),
        (" 70000", " 70000000000000000000", "malformed"),
        (" 70000", " 18446744073709551615", "larger than 4 TiB"),
        ("0755", "755", "not in canonical form"),
        ("boot.cfg 10", "boot.cfg 10\nf 0755 0 0 1700000000.000000005 boot.cfg 10", "twice"),
        ("chunk 65536", "chunk 65535", "larger than 4 TiB"),
        ("hash ", "hash f", "malformed"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Manifest::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains(why), "{to}: {error}");
    }
    assert!(Manifest::parse(&good.as_bytes()[..good.len() - 1]).is_err());
}

#[test]
fn a_symbolic_link_cannot_have_children() {
    let link = entry("a", Content::Symlink { target: b"/etc".as_slice().into() });
    let entries = vec![entry(".", Content::Directory), link, entry("a/passwd", file(1))];
    assert!(matches!(Listing::new(entries), Err(Problem::NoParent(_))));
}
