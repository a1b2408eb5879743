//! What a server shows: names, qids and attributes, for real entries and control files alike.

#[cfg(feature = "classic")]
mod classic_file;
#[cfg(not(feature = "classic"))]
#[path = "tree/classic_file_off.rs"]
mod classic_file;

use std::sync::Arc;

use crate::control::Control;
use crate::image::manifest::{Content, Entry, Manifest, Mtime, Owner};
use crate::image::path::TreePath;
use crate::p9::wire::Qid;

pub use classic_file::ClassicFile;

/// Name of the directory in the root that holds the control files; it is never listed.
pub const CONTROL_DIR: &[u8] = b".xget";

/// File type bits of a mode, as stat(2) has them.
pub const S_IFDIR: u32 = 0o040_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// A place in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// An entry of the manifest, by its index; 0 is the root.
    Entry(usize),
    /// The directory of control files.
    ControlDir,
    /// A control file.
    Control(Control),
    /// What a classic client sees in the file of this index.
    Classic(usize, ClassicFile),
}

/// The root directory.
pub const ROOT: Node = Node::Entry(0);

/// What stat says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Identity and version.
    pub qid: Qid,
    /// Type and permission bits as stat(2) has them.
    pub mode: u32,
    /// Owner and group.
    pub owner: Owner,
    /// Bytes; 0 for directories and control files whose size nobody knows.
    pub bytes: u64,
    /// Last change.
    pub mtime: Mtime,
    /// Link count.
    pub links: u64,
}

/// One state of a served tree, or the part of it that a node has chosen to fetch.
#[derive(Debug)]
pub struct Tree {
    manifest: Arc<Manifest>,
    /// For each entry whether it is shown; None shows all.
    shown: Option<Vec<bool>>,
}

impl Tree {
    /// All of a manifest.
    pub fn new(manifest: Arc<Manifest>) -> Tree {
        Tree { manifest, shown: None }
    }

    /// The entries that `chosen` picks by index, and the directories that lead to them.
    pub fn partial(manifest: Arc<Manifest>, chosen: impl Fn(usize) -> bool) -> Tree {
        let listing = manifest.listing();
        let mut shown = vec![false; listing.len()];
        for i in (0..shown.len()).rev() {
            let below = i + 1..listing.subtree_end(i);
            let leads = shown.get(below).is_some_and(|below| below.contains(&true));
            if let Some(place) = shown.get_mut(i) {
                *place = i == 0 || leads || chosen(i);
            }
        }
        Tree { manifest, shown: Some(shown) }
    }

    /// The manifest that the tree is made from.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The entry behind a node; None for control files.
    pub fn entry(&self, node: Node) -> Option<Entry> {
        match node {
            Node::Entry(i) | Node::Classic(i, _) => self.manifest.listing().entry(i),
            _ => None,
        }
    }

    /// Is it a directory?
    pub fn is_dir(&self, node: Node) -> bool {
        match node {
            Node::Entry(i) | Node::Classic(i, _) => self.manifest.listing().is_dir(i),
            Node::ControlDir => true,
            Node::Control(_) => false,
        }
    }

    /// One step of a walk: `name` in directory `from`. `..` of the root is the root.
    pub fn walk(&self, from: Node, name: &[u8]) -> Option<Node> {
        match (from, name) {
            (_, b".") => Some(from),
            (Node::Control(_), b"..") => Some(Node::ControlDir),
            (Node::ControlDir, b"..") => Some(ROOT),
            (Node::ControlDir, _) => Control::named(name).map(Node::Control),
            (Node::Control(_), _) => None,
            (Node::Classic(i, _), b"..") => Some(Node::Entry(i)),
            (Node::Classic(..), _) => None,
            (ROOT, b"..") => Some(ROOT),
            (ROOT, CONTROL_DIR) => Some(Node::ControlDir),
            (Node::Entry(_), b"..") => self.find(&self.entry(from)?.path.parent()?),
            (Node::Entry(_), _) => self.find(&self.entry(from)?.path.join(name)?),
        }
    }

    /// A step into a regular file, which only classic clients take.
    pub fn walk_classic(&self, from: Node, name: &[u8]) -> Option<Node> {
        let Node::Entry(i) = from else { return None };
        let Content::File { .. } = self.entry(from)?.content else { return None };
        Some(Node::Classic(i, ClassicFile::named(name)?))
    }

    /// The node at a path.
    pub fn find(&self, path: &TreePath) -> Option<Node> {
        self.manifest.listing().find(path).filter(|&i| self.shows(i)).map(Node::Entry)
    }

    /// The same place in this tree as `node` was in `old`, by its path.
    pub fn same_place(&self, old: &Tree, node: Node) -> Option<Node> {
        let Some(entry) = old.entry(node) else { return Some(node) };
        match (self.find(&entry.path)?, node) {
            (file, Node::Classic(_, part)) => self.walk_classic(file, part.name().as_bytes()),
            (found, _) => Some(found),
        }
    }

    /// The entries in directory `dir` from index `from` on: where to resume is the index after the
    /// last one seen. The control directory and its files are never listed from the root.
    pub fn children(&self, dir: Node, from: usize) -> impl Iterator<Item = usize> + '_ {
        let dir = match dir {
            Node::Entry(i) => i,
            _ => usize::MAX - 1,
        };
        let from = self.child_from(dir, from).unwrap_or(from);
        self.manifest.listing().children(dir, from).filter(|&i| self.shows(i))
    }

    /// The first entry from `from` on that is directly in directory `dir`: right after a directory
    /// comes what is in it, and a client may make up where to go on from.
    fn child_from(&self, dir: usize, from: usize) -> Option<usize> {
        let listing = self.manifest.listing();
        let dir = listing.path(dir)?;
        let path = listing.path(from).filter(|path| path.is_within(&dir))?;
        let name = path.elements().nth(dir.elements().count())?;
        let child = listing.find(&dir.join(name)?)?;
        Some(if child < from { listing.subtree_end(child) } else { from })
    }

    /// What stat says of a node.
    pub fn attributes(&self, node: Node) -> Attributes {
        match (self.entry(node), node) {
            (Some(_), Node::Classic(_, file)) => self.classic_attributes(node, file),
            (Some(entry), _) => Some(entry_attributes(&entry)),
            (None, _) => None,
        }
        .unwrap_or_else(|| self.control_attributes(node))
    }

    pub(crate) fn shows(&self, index: usize) -> bool {
        self.shown.as_ref().is_none_or(|shown| shown.get(index) == Some(&true))
    }

    fn control_attributes(&self, node: Node) -> Attributes {
        let (mode, name, kind) = match node {
            Node::Control(control) => (S_IFREG | control.mode(), control.name(), Qid::FILE),
            _ => (S_IFDIR | 0o555, "", Qid::DIR),
        };
        let bytes = match node {
            Node::Control(Control::Manifest) => self.manifest.text().len() as u64,
            Node::Control(Control::Image) => self.manifest.layout().image_bytes(),
            _ => 0,
        };
        Attributes {
            qid: Qid { kind, version: 0, path: fingerprint(&[CONTROL_DIR, b"/", name.as_bytes()]) },
            mode,
            owner: Owner { uid: 0, gid: 0 },
            bytes,
            mtime: Mtime { secs: 0, nanos: 0 },
            links: 1,
        }
    }
}

fn entry_attributes(entry: &Entry) -> Attributes {
    let (format, kind, bytes, links) = match &entry.content {
        // One link means that nobody counts subdirectories, as find(1) would rely on.
        Content::Directory => (S_IFDIR, Qid::DIR, 0, 1),
        Content::File { bytes, .. } => (S_IFREG, Qid::FILE, *bytes, 1),
        Content::Symlink { target } => (S_IFLNK, Qid::SYMLINK, target.len() as u64, 1),
    };
    let Mtime { secs, nanos } = entry.mtime;
    let state = fingerprint(&[&secs.to_le_bytes(), &nanos.to_le_bytes(), &bytes.to_le_bytes()]);
    let path = fingerprint(&[entry.path.as_bytes_or_dot()]);
    Attributes {
        qid: Qid { kind, version: (state as u32).max(1), path },
        mode: format | entry.mode,
        owner: entry.owner.unwrap_or(Owner { uid: 0, gid: 0 }),
        bytes,
        mtime: entry.mtime,
        links,
    }
}

/// 64 bits that stand for some bytes: the same on every node and in every run.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::tests::sample;

    fn tree() -> Tree {
        Tree::new(Arc::new(sample()))
    }

    fn walk(tree: &Tree, path: &str) -> Option<Node> {
        path.split('/').try_fold(ROOT, |node, name| tree.walk(node, name.as_bytes()))
    }

    #[test]
    fn dot_dot_never_leaves_the_root() {
        let tree = tree();
        assert_eq!(walk(&tree, "../../.."), Some(ROOT));
        assert_eq!(walk(&tree, "boot/.."), Some(ROOT));
        assert_eq!(walk(&tree, ".xget/../boot"), walk(&tree, "boot"));
    }

    #[test]
    fn control_files_are_walked_to_but_not_listed() {
        let tree = tree();
        assert_eq!(walk(&tree, ".xget/image"), Some(Node::Control(Control::Image)));
        assert_eq!(walk(&tree, ".xget/nothing"), None);
        assert_eq!(tree.children(Node::ControlDir, 0).count(), 0);
        let listing = tree.manifest().listing();
        assert!(tree.children(ROOT, 0).all(|i| listing.path(i).unwrap().name() != CONTROL_DIR));
    }

    #[test]
    fn a_listing_that_is_resumed_after_a_directory_goes_on_beside_it() {
        let tree = tree();
        let names = |from| {
            let paths = tree.children(ROOT, from).map(|i| tree.entry(Node::Entry(i)).unwrap());
            paths.map(|entry| entry.path.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["boot", "boot.cfg"]);
        for inside_boot in 2..=5 {
            assert_eq!(names(inside_boot), ["boot.cfg"]);
        }
        assert_eq!(names(6), [""; 0]);
    }

    #[test]
    fn a_partial_tree_shows_what_was_chosen_and_the_way_there() {
        let manifest = Arc::new(sample());
        let chosen = manifest.listing().find(&TreePath::from_manifest(b"boot/vmlinuz").unwrap());
        let tree = Tree::partial(manifest, |i| Some(i) == chosen);
        assert!(walk(&tree, "boot/vmlinuz").is_some());
        assert_eq!(walk(&tree, "boot/empty"), None);
        assert_eq!(walk(&tree, "boot.cfg"), None);
    }

    #[test]
    fn qids_tell_files_apart_and_say_what_they_are() {
        let tree = tree();
        let qid = |path| tree.attributes(walk(&tree, path).unwrap()).qid;
        assert_eq!(qid("boot").kind, Qid::DIR);
        assert_eq!(qid("boot/link").kind, Qid::SYMLINK);
        assert_ne!(qid("boot/vmlinuz").path, qid("boot.cfg").path);
        assert_ne!(qid("boot.cfg").version, 0, "a cached file needs a version");
        assert_eq!(qid(".xget/have").version, 0, "a control file must not be cached");
    }
}
