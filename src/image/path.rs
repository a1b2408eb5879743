//! Paths below the served root, valid by construction.

use std::cmp::Ordering;
use std::fmt;

use crate::printable::is_printable;

/// Longest name of one path element, in bytes (`NAME_MAX`).
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// How the names of temporary files begin, which a fetch has not completed. A master does not serve
/// such files.
pub(crate) const PARTIAL_PREFIX: &[u8] = b".xget-part-";
/// Longest path below the root, in bytes (`PATH_MAX` less its NUL).
const MAX_PATH_BYTES: usize = 4095;

/// A path below the served root: names joined by `/`. The root itself is the empty path.
///
/// No name is empty, `.` or `..`, and none contains a NUL or a `/`, so that a path joined to a directory
/// never leads out of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Box<[u8]>);

/// Bytes that are not a path below the root, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPath {
    path: Box<[u8]>,
    why: &'static str,
}

impl TreePath {
    pub(crate) fn root() -> TreePath {
        TreePath(Box::default())
    }

    /// Checks a path as a manifest has it: `.` is the root, and every other path must be exact.
    pub(crate) fn from_manifest(path: &[u8]) -> Result<TreePath, BadPath> {
        if path == b"." {
            return Ok(TreePath::root());
        }
        let bad = |why| Err(BadPath { path: path.into(), why });
        if path.len() > MAX_PATH_BYTES {
            return bad("it is longer than 4095 bytes");
        }
        match path.split(|&b| b == b'/').find_map(|name| name_problem(name)) {
            Some(why) => bad(why),
            None => Ok(TreePath(path.into())),
        }
    }

    /// Checks a path that a user wrote: extra slashes and `.` elements are left out.
    pub(crate) fn from_user(path: &[u8]) -> Result<TreePath, BadPath> {
        let names: Vec<&[u8]> =
            path.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        if names.is_empty() {
            return Ok(TreePath::root());
        }
        TreePath::from_manifest(&names.join(&b'/'))
            .map_err(|bad| BadPath { path: path.into(), ..bad })
    }

    /// The path of `name` in this directory; None if `name` cannot be an element, or the path gets too
    /// long.
    pub(crate) fn join(&self, name: &[u8]) -> Option<TreePath> {
        if name_problem(name).is_some() || self.0.len() + 1 + name.len() > MAX_PATH_BYTES {
            return None;
        }
        let mut path = self.0.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Some(TreePath(path.into()))
    }

    /// The path of what is at `below` in this directory; None if it gets too long.
    pub(crate) fn join_all(&self, below: &TreePath) -> Option<TreePath> {
        if self.is_root() || below.is_root() {
            return Some(if self.is_root() { below } else { self }.clone());
        }
        let path = [&self.0, &b"/"[..], &below.0].concat();
        (path.len() <= MAX_PATH_BYTES).then_some(TreePath(path.into()))
    }

    /// The directory that it is in; None for the root.
    pub(crate) fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.0.get(..end).map(|path| TreePath(path.into()))
    }

    /// The last element; empty for the root.
    pub(crate) fn name(&self) -> &[u8] {
        self.elements().next_back().unwrap_or_default()
    }

    /// The elements from the root down.
    pub(crate) fn elements(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `dir` is the directory that it is in.
    pub(crate) fn is_directly_in(&self, dir: &TreePath) -> bool {
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        !self.is_root() && self.0.get(..end) == Some(&dir.0)
    }

    /// Whether it is `dir` itself or below it.
    pub(crate) fn is_within(&self, dir: &TreePath) -> bool {
        let mut mine = self.elements();
        dir.elements().all(|name| mine.next() == Some(name))
    }

    /// The path relative to `dir`; None unless it is `dir` itself or below it.
    pub(crate) fn relative_to(&self, dir: &TreePath) -> Option<TreePath> {
        let rest = self.0.strip_prefix(&*dir.0)?;
        if dir.is_root() || rest.is_empty() {
            return Some(TreePath(rest.into()));
        }
        rest.strip_prefix(b"/").map(|rest| TreePath(rest.into()))
    }

    /// The bytes; empty for the root.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes; `.` for the root.
    pub(crate) fn as_bytes_or_dot(&self) -> &[u8] {
        if self.is_root() { b"." } else { &self.0 }
    }
}

fn name_problem(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("it has an empty element"),
        b"." | b".." => Some("it has an element . or .."),
        _ if name.len() > MAX_NAME_BYTES => Some("it has an element of more than 255 bytes"),
        _ if name.contains(&0) => Some("it contains a NUL byte"),
        _ if name.contains(&b'/') => Some("an element contains a slash"),
        _ => None,
    }
}

/// Compares element by element, so that a directory is followed by all that is below it.
impl Ord for TreePath {
    fn cmp(&self, other: &TreePath) -> Ordering {
        compare(&self.0, &other.0)
    }
}

/// How the paths with these bytes compare. A slash, which ends an element, comes before whatever goes on with one.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &TreePath) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.as_bytes_or_dot()))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid path \"{}\": {}", shown(&self.path), self.why)
    }
}

impl std::error::Error for BadPath {}

/// Bytes as text that is safe on a terminal: UTF-8 stays as it is if all of it is printable, anything else is
/// escaped.
pub(crate) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(is_printable) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Bytes as one word of a manifest: printable ASCII but for the backslash stays, the rest becomes `\xHH`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'!'..=b'~' if b != b'\\' => text.push(char::from(b)),
            _ => text += &format!("\\x{b:02x}"),
        }
    }
    text
}

/// Reverses [`escape`]; None if a backslash does not begin `\xHH`.
pub(crate) fn unescape(word: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut parts = word.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (hex, plain) = part.strip_prefix('x')?.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(plain.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_empty_or_dot_elements_is_refused() {
        for bad in ["..", "a/..", "../a", "a//b", "/a", "a/", "", "a/./b", "a\0b"] {
            assert!(TreePath::from_manifest(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(TreePath::from_manifest(&[b'a'; 256]).is_err());
    }

    #[test]
    fn a_user_may_write_extra_slashes_and_dots_but_not_dot_dot() {
        let path = |p: &str| TreePath::from_user(p.as_bytes()).map(|p| p.to_string());
        assert_eq!(path("./boot//vmlinuz/").as_deref(), Ok("boot/vmlinuz"));
        assert_eq!(path("/").as_deref(), Ok("."));
        assert!(path("a/../b").unwrap_err().to_string().contains("invalid path"));
    }

    #[test]
    fn a_directory_sorts_right_before_its_contents() {
        let path = |p: &str| TreePath::from_manifest(p.as_bytes()).unwrap();
        assert!(path("boot") < path("boot/a"));
        assert!(path("boot/a") < path("boot-old"));
    }

    #[test]
    fn is_within_compares_whole_elements() {
        let path = |p: &str| TreePath::from_manifest(p.as_bytes()).unwrap();
        assert!(path("boot/a").is_within(&path("boot")));
        assert!(!path("boot-old").is_within(&path("boot")));
        assert!(path("x").is_within(&TreePath::root()));
    }

    #[test]
    fn a_path_is_relative_only_to_directories_above_it() {
        let path = |p: &str| TreePath::from_manifest(p.as_bytes()).unwrap();
        let relative = |p: &str, dir: &str| path(p).relative_to(&path(dir)).map(|p| p.to_string());
        assert_eq!(relative("boot/a/b", "boot").as_deref(), Some("a/b"));
        assert_eq!(relative("boot/a", ".").as_deref(), Some("boot/a"));
        assert_eq!(relative("boot", "boot").as_deref(), Some("."));
        assert_eq!(relative("boot-old", "boot"), None);
        assert_eq!(relative("boot", "boot/a"), None);
    }

    #[test]
    fn a_name_that_hides_something_is_shown_escaped() {
        assert_eq!(shown("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(shown("a\u{202e}gpj.exe".as_bytes()), "a\\xe2\\x80\\xaegpj.exe");
        assert_eq!(shown("\u{200b}a\u{2028}".as_bytes()), "\\xe2\\x80\\x8ba\\xe2\\x80\\xa8");
        assert_eq!(shown(b"a\xff\x1b"), "a\\xff\\x1b");
    }

    #[test]
    fn escaped_bytes_unescape_to_the_same_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(unescape("\\x0"), None);
        assert_eq!(unescape("\\n"), None);
    }
}
