//! A directory as a page of HTML, made in pieces: it may have very many entries.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::request::encode;
use crate::image::manifest::{Content, Entry};
use crate::image::path::{TreePath, shown};
use crate::limits::MAX_HTTP_BYTES;
use crate::serve::tree::{Node, ROOT, Tree};
use crate::units::bytes;

/// The piece of the listing of directory `dir` that begins with the entry `from`, which is `dir` itself
/// for the first one; and where the next begins, if there is one.
pub(super) fn page(tree: &Tree, dir: usize, from: usize) -> (String, Option<usize>) {
    let node = Node::Entry(dir);
    let mut text = String::new();
    let mut from = from;
    if from == dir {
        let path = tree.manifest().listing().path(dir).unwrap_or(TreePath::root());
        let path = escaped(&format!("/{}", shown(path.as_bytes())));
        let _ = writeln!(
            text,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{path}</title>\
             <link rel=\"stylesheet\" href=\"/.xget/page.css\"><h1>{path}</h1><table class=\"files\">"
        );
        if node != ROOT {
            text += "<tr><td><a href=\"../\">../</a><td><td>\n";
        }
        from += 1;
    }
    for index in tree.children(node, from) {
        if text.len() > MAX_HTTP_BYTES / 2 {
            return (text, Some(index));
        }
        if let Some(entry) = tree.entry(Node::Entry(index)) {
            row(&mut text, &entry);
        }
    }
    text += "</table>\n";
    (text, None)
}

fn row(text: &mut String, entry: &Entry) {
    let name = entry.path.name();
    let (slash, size) = match &entry.content {
        Content::Directory => ("/", String::new()),
        Content::File { bytes: size, .. } => ("", bytes(*size)),
        Content::Symlink { target } => ("", format!("→ {}", escaped(&shown(target)))),
    };
    let secs = Duration::from_secs(u64::try_from(entry.mtime.secs).unwrap_or(0));
    let date = UNIX_EPOCH.checked_add(secs).filter(|_| secs.as_secs() < LAST_SECOND);
    let date = date.map_or(String::new(), httpdate::fmt_http_date);
    let _ = writeln!(
        text,
        "<tr><td><a href=\"{}{slash}\">{}{slash}</a><td>{size}<td>{date}",
        encode(name),
        escaped(&shown(name)),
    );
}

/// The year 9999 ends; an HTTP date has no other.
pub(super) const LAST_SECOND: u64 = 253_402_300_800;

/// As text of HTML, which names of files must not break out of.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::image::manifest::tests::sample;
    use crate::image::manifest::{Listing, Manifest, Mtime};
    use crate::image::path::TreePath;

    #[test]
    fn a_listing_has_names_sizes_and_links() {
        let tree = Tree::new(Arc::new(sample()));
        let (text, more) = page(&tree, 0, 0);
        assert_eq!(more, None);
        assert!(text.contains("<a href=\"boot/\">boot/</a>"), "{text}");
        assert!(text.contains("<a href=\"boot.cfg\">boot.cfg</a><td>10 B"), "{text}");
        assert!(!text.contains("../"), "there is nothing above the root: {text}");
    }

    fn many(names: impl Iterator<Item = Vec<u8>>) -> Tree {
        let entry = |path: &[u8], content| Entry {
            path: TreePath::from_manifest(path).unwrap(),
            mode: 0o755,
            owner: None,
            mtime: Mtime { secs: i64::MAX, nanos: 0 },
            content,
        };
        let files = names.map(|name| entry(&name, Content::File { bytes: 0, image_offset: 0 }));
        let all = std::iter::once(entry(b".", Content::Directory)).chain(files).collect();
        Tree::new(Arc::new(Manifest::new(Listing::new(all).unwrap(), Vec::new()).unwrap()))
    }

    #[test]
    fn a_long_listing_comes_in_pieces_that_leave_nothing_out() {
        let tree = many((0..5000).map(|n| format!("file-{n:05}").into_bytes()));
        let (mut whole, mut next, mut pieces) = (String::new(), Some(0), 0);
        while let Some(from) = next {
            let (text, more) = page(&tree, 0, from);
            assert!(text.len() <= MAX_HTTP_BYTES);
            (next, pieces) = (more, pieces + 1);
            whole += &text;
        }
        assert!(pieces > 1);
        assert_eq!(whole.matches("<a href=").count(), 5000);
    }

    #[test]
    fn a_name_stays_text() {
        let tree = many(
            [b"\"><script>alert(1)</script>".map(|b| b.max(b'!'))]
                .map(|n| n.iter().copied().filter(|b| *b != b'/').collect())
                .into_iter(),
        );
        let (text, _) = page(&tree, 0, 0);
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("href=\"%22%3E%3Cscript"), "{text}");
    }
}
