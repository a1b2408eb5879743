//! Paths below the served root, valid by construction.

use std::cmp::Ordering;
use std::fmt;

/// Longest name of one path element, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// How the names of files begin that are not whole yet. A master does not serve such files.
pub const PARTIAL_PREFIX: &[u8] = b".xget-part-";
/// Longest path below the root, in bytes (`PATH_MAX` less its NUL).
const MAX_PATH_BYTES: usize = 4095;

/// A path below the served root: elements that are names, joined by `/`.
///
/// No element is empty, `.` or `..`, none contains a NUL or a `/`, so that joining one to a
/// directory never leads out of it. The root itself is the empty path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Box<[u8]>);

/// Why bytes are no path below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPath {
    /// The bytes.
    pub path: Box<[u8]>,
    /// What is wrong with them.
    pub why: &'static str,
}

impl TreePath {
    /// The root.
    pub fn root() -> TreePath {
        TreePath(Box::default())
    }

    /// Checks a path as a manifest writes it: `.` is the root, anything else must be exact.
    pub fn from_manifest(path: &[u8]) -> Result<TreePath, BadPath> {
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

    /// Checks a path as a person writes it: extra slashes and `.` elements are left out.
    pub fn from_user(path: &[u8]) -> Result<TreePath, BadPath> {
        let names: Vec<&[u8]> =
            path.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
        match names.is_empty() {
            true => Ok(TreePath::root()),
            false => TreePath::from_manifest(&names.join(&b'/'))
                .map_err(|bad| BadPath { path: path.into(), ..bad }),
        }
    }

    /// The path of `name` in this directory; None if `name` is no name.
    pub fn join(&self, name: &[u8]) -> Option<TreePath> {
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

    /// The directory it is in; None for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.0.get(..end).map(|path| TreePath(path.into()))
    }

    /// The last element; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.elements().next_back().unwrap_or_default()
    }

    /// The elements from the root down.
    pub fn elements(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// Is it the root?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Is it `dir` itself or below it?
    pub fn is_within(&self, dir: &TreePath) -> bool {
        let mut mine = self.elements();
        dir.elements().all(|name| mine.next() == Some(name))
    }

    /// The path as seen from `dir`; None unless it is `dir` itself or below it.
    pub fn seen_from(&self, dir: &TreePath) -> Option<TreePath> {
        let rest = self.0.strip_prefix(&*dir.0)?;
        match rest.strip_prefix(b"/") {
            Some(rest) if !dir.is_root() => Some(TreePath(rest.into())),
            _ if dir.is_root() || rest.is_empty() => Some(TreePath(rest.into())),
            _ => None,
        }
    }

    /// The bytes; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes; `.` for the root.
    pub fn as_bytes_or_dot(&self) -> &[u8] {
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

/// By elements, so that a directory is followed by all that is below it.
impl Ord for TreePath {
    fn cmp(&self, other: &TreePath) -> Ordering {
        self.elements().cmp(other.elements())
    }
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

/// Bytes as a console may show them: readable UTF-8 stays, control bytes and the rest are escaped.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Bytes as one word of a manifest: printable ASCII stays, the rest becomes `\xHH`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'!'..=b'~' if b != b'\\' => text.push(char::from(b)),
            _ => text += &format!("\\x{b:02x}"),
        }
    }
    text
}

/// Reverses [`escape`]; None if the word is not one that it makes.
pub fn unescape(word: &str) -> Option<Vec<u8>> {
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
    fn paths_that_would_leave_the_root_are_refused() {
        for bad in ["..", "a/..", "../a", "a//b", "/a", "a/", "", "a/./b", "a\0b"] {
            assert!(TreePath::from_manifest(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(TreePath::from_manifest(&[b'a'; 256]).is_err());
    }

    #[test]
    fn a_person_may_write_slashes_and_dots_but_not_go_up() {
        let path = |p: &str| TreePath::from_user(p.as_bytes()).map(|p| p.to_string());
        assert_eq!(path("./boot//vmlinuz/").as_deref(), Ok("boot/vmlinuz"));
        assert_eq!(path("/").as_deref(), Ok("."));
        assert!(path("a/../b").unwrap_err().to_string().contains("invalid path"));
    }

    #[test]
    fn a_directory_sorts_right_before_what_is_in_it() {
        let path = |p: &str| TreePath::from_manifest(p.as_bytes()).unwrap();
        assert!(path("boot") < path("boot/a"));
        assert!(path("boot/a") < path("boot-old"));
    }

    #[test]
    fn within_means_whole_elements() {
        let path = |p: &str| TreePath::from_manifest(p.as_bytes()).unwrap();
        assert!(path("boot/a").is_within(&path("boot")));
        assert!(!path("boot-old").is_within(&path("boot")));
        assert!(path("x").is_within(&TreePath::root()));
    }

    #[test]
    fn a_path_is_seen_from_the_directories_above_it_only() {
        let path = |p: &str| TreePath::from_manifest(p.as_bytes()).unwrap();
        let seen = |p: &str, dir: &str| path(p).seen_from(&path(dir)).map(|p| p.to_string());
        assert_eq!(seen("boot/a/b", "boot").as_deref(), Some("a/b"));
        assert_eq!(seen("boot/a", ".").as_deref(), Some("boot/a"));
        assert_eq!(seen("boot", "boot").as_deref(), Some("."));
        assert_eq!(seen("boot-old", "boot"), None);
        assert_eq!(seen("boot", "boot/a"), None);
    }

    #[test]
    fn any_bytes_survive_escaping() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)), Some(all));
        assert_eq!(unescape("\\x0"), None);
        assert_eq!(unescape("\\n"), None);
    }
}
