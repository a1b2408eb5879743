//! Where a path leads when its symbolic links are followed, which stay within the tree.

use std::collections::VecDeque;
use std::fmt;

use super::Listing;
use super::entry::Content;
use crate::image::path::{TreePath, shown};
use crate::limits::MAX_LINKS;

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// There is nothing of that name.
    Missing,
    /// A link on the way.
    Link { link: TreePath, target: Box<[u8]>, why: &'static str },
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unresolved::Missing => f.write_str("missing"),
            Unresolved::Link { link, target, why } => {
                write!(f, "{link} is a symbolic link to {}, {why}", shown(target))
            }
        }
    }
}

impl Listing {
    /// The index of what is at `path`, with all symbolic links followed: what a file or directory is called
    /// does not matter. The tree is the root of those that begin with a slash, as for a client that has
    /// mounted nothing else.
    pub(crate) fn resolve(&self, path: &TreePath) -> Result<usize, Unresolved> {
        let mut rest: VecDeque<Vec<u8>> = path.elements().map(<[u8]>::to_vec).collect();
        let (mut at, mut found) = (TreePath::root(), self.find(&TreePath::root()));
        let mut last: Option<(TreePath, Box<[u8]>)> = None;
        let mut links = 0;
        let lost = |last: Option<(TreePath, Box<[u8]>)>, why| match last {
            Some((link, target)) => Unresolved::Link { link, target, why },
            None => Unresolved::Missing,
        };
        while let Some(name) = rest.pop_front() {
            let next = match &name[..] {
                b"" | b"." => continue,
                b".." => at.parent().ok_or("which leads out of what is served"),
                name => at.join(name).ok_or("which is too long"),
            };
            at = next.map_err(|why| lost(last.clone(), why))?;
            found = self.find(&at);
            match found.and_then(|index| self.entry(index)).map(|entry| entry.content) {
                Some(Content::Symlink { target }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(lost(last, "one of too many"));
                    }
                    let link = std::mem::replace(&mut at, TreePath::root());
                    if target.first() != Some(&b'/') {
                        at = link.parent().unwrap_or(at);
                    }
                    found = self.find(&at);
                    for name in target.split(|&b| b == b'/').rev() {
                        rest.push_front(name.to_vec());
                    }
                    last = Some((link, target));
                }
                Some(Content::File { .. }) if rest.iter().any(|name| !name.is_empty()) => {
                    found = None;
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        found.ok_or_else(|| lost(last, "which is not served"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    /// Where paths lead in a tree with releases.
    fn resolve(path: &str) -> Result<String, String> {
        let file = || Content::File { bytes: 1, image_offset: 0 };
        let link = |target: &str| Content::Symlink { target: target.as_bytes().into() };
        let listing = Listing::new(vec![
            entry(".", Content::Directory),
            entry("all", link(".")),
            entry("chain", link("latest")),
            entry("current", link("releases/7/")),
            entry("latest", link("/current/vmlinuz")),
            entry("loop", link("loop2")),
            entry("loop2", link("loop")),
            entry("nowhere", link("boot/vmlinuz")),
            entry("out", link("../vmlinuz")),
            entry("releases", Content::Directory),
            entry("releases/7", Content::Directory),
            entry("releases/7/up", link("../7/vmlinuz")),
            entry("releases/7/vmlinuz", file()),
        ]);
        let listing = listing.unwrap();
        let path = TreePath::from_user(path.as_bytes()).unwrap();
        let found = listing.resolve(&path).map_err(|why| why.to_string())?;
        Ok(listing.path(found).unwrap().to_string())
    }

    #[test]
    fn links_are_followed_within_the_tree() {
        for (path, target) in [
            ("releases/7/vmlinuz", "releases/7/vmlinuz"),
            ("current", "releases/7"),
            ("current/vmlinuz", "releases/7/vmlinuz"),
            ("current/up", "releases/7/vmlinuz"),
            ("chain", "releases/7/vmlinuz"),
            ("all", "."),
            ("all/all/current", "releases/7"),
            (".", "."),
        ] {
            assert_eq!(resolve(path).as_deref(), Ok(target), "{path}");
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_shown() {
        for (path, why) in [
            ("vmlinuz", "missing"),
            ("releases/7/vmlinuz/x", "missing"),
            ("nowhere", "nowhere is a symbolic link to boot/vmlinuz, which is not served"),
            ("current/initrd", "current is a symbolic link to releases/7/, which is not served"),
            ("out", "out is a symbolic link to ../vmlinuz, which leads out of what is served"),
        ] {
            assert_eq!(resolve(path), Err(why.into()), "{path}");
        }
        assert!(resolve("loop").unwrap_err().ends_with("one of too many"));
    }
}
