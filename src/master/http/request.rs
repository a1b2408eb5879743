//! What a request asks for: pure functions of its path and its header fields (RFC 9110).

use std::ops::Range;
use std::time::SystemTime;

use hyper::header::{
    HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};

use crate::image::path::TreePath;
use crate::percent;
use crate::serve::tree::Tree;

/// All but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The elements of a request's path, decoded. None if it cannot be one of a tree: it would lead
/// upwards, or its escapes make no sense.
pub(super) fn elements(path: &str) -> Option<Vec<Vec<u8>>> {
    let elements = path.split('/').filter(|element| !matches!(*element, "" | "."));
    let decoded: Option<Vec<Vec<u8>>> = elements.map(percent::decode).collect();
    let bad = |name: &Vec<u8>| {
        matches!(&name[..], b"" | b"." | b"..") || name.contains(&0) || name.contains(&b'/')
    };
    decoded.filter(|names| !names.iter().any(bad))
}

/// A name as one element of a URL's path.
pub(super) fn encode(name: &[u8]) -> PercentEncode<'_> {
    percent_encode(name, RESERVED)
}

/// The directory or file at a path, by its index. Symbolic links are followed within the tree.
pub(super) fn find(tree: &Tree, elements: &[Vec<u8>]) -> Option<usize> {
    let path = elements.iter().try_fold(TreePath::root(), |at, name| at.join(name))?;
    tree.manifest().listing().resolve(&path).ok().filter(|&index| tree.shows(index))
}

/// What tells one state of a file from another.
pub(super) struct Validators<'a> {
    /// Strong, with its quotes.
    pub(super) etag: &'a str,
    pub(super) modified: SystemTime,
}

/// What the conditions of a request come to (RFC 9110, section 13.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As if there were none.
    Proceed,
    /// The client has it already: 304.
    NotModified,
    /// It is not what the client wants to go on with: 412.
    Failed,
}

pub(super) fn verdict(headers: &HeaderMap, now: &Validators<'_>) -> Verdict {
    match (headers.contains_key(IF_MATCH), date(headers, IF_UNMODIFIED_SINCE)) {
        (true, _) if !lists(headers, IF_MATCH, now.etag, false) => return Verdict::Failed,
        (false, Some(since)) if whole_seconds(now.modified) > since => return Verdict::Failed,
        _ => {}
    }
    let unchanged = match (headers.contains_key(IF_NONE_MATCH), date(headers, IF_MODIFIED_SINCE)) {
        (true, _) => lists(headers, IF_NONE_MATCH, now.etag, true),
        (false, Some(since)) => whole_seconds(now.modified) <= since,
        (false, None) => false,
    };
    if unchanged { Verdict::NotModified } else { Verdict::Proceed }
}

/// Whether a list of entity tags has this one. Weak ones are as good where nothing is put together.
fn lists(headers: &HeaderMap, name: hyper::header::HeaderName, etag: &str, weakly: bool) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let tags = values.flat_map(|value| value.split(',')).map(str::trim);
    let strip = |tag: &'_ str| tag.strip_prefix("W/").filter(|_| weakly).is_some_and(|t| t == etag);
    tags.into_iter().any(|tag| tag == "*" || tag == etag || strip(tag))
}

fn date(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// As an HTTP date has it.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs())
}

/// The part of a file that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: no range, several, or one that makes no sense, which all may be answered so.
    Whole,
    /// These bytes; never none.
    Range(Range<u64>),
    /// A range beyond its end.
    Beyond,
}

/// The part of a file of so many bytes that the headers ask for (RFC 9110, section 14).
pub(super) fn part(headers: &HeaderMap, bytes: u64, now: &Validators<'_>) -> Part {
    let mut ranges = headers.get_all(RANGE).into_iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Part::Whole };
    let applies = headers.get(IF_RANGE).is_none_or(|value| {
        let same_date = || date(headers, IF_RANGE) == Some(whole_seconds(now.modified));
        value == now.etag || same_date()
    });
    let range = range.to_str().ok().filter(|_| applies);
    range.and_then(|range| one_range(range, bytes)).unwrap_or(Part::Whole)
}

/// None if it is not a single range of bytes.
fn one_range(text: &str, bytes: u64) -> Option<Part> {
    let (unit, range) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let range = match (position(first)?, position(last)?) {
        (None, None) => return None,
        (None, Some(suffix)) => bytes.saturating_sub(suffix)..bytes,
        (Some(first), None) => first..bytes,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        _ => return None,
    };
    Some(if range.is_empty() { Part::Beyond } else { Part::Range(range) })
}

/// Digits, or nothing; more than any file has is as good as its end.
fn position(text: &str) -> Option<Option<u64>> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::image::manifest::tests::sample;

    /// A day and half a second after the epoch.
    fn now() -> Validators<'static> {
        Validators { etag: "\"now\"", modified: UNIX_EPOCH + Duration::from_millis(86_400_500) }
    }

    fn headers(lines: &[(hyper::header::HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn escapes_are_decoded_and_empty_elements_left_out() {
        let names = |path| elements(path).map(|names| names.join(&b"|"[..]));
        assert_eq!(names("/"), Some(vec![]));
        assert_eq!(names("//a%20b/./%ff%2e/"), Some(b"a b|\xff.".to_vec()));
    }

    #[test]
    fn what_leads_out_of_the_tree_or_makes_no_sense_is_no_path() {
        for path in ["/..", "/a/../b", "/%2e%2e/", "/a%2fb", "/%00", "/%", "/%4", "/%+1", "/%zz"] {
            assert_eq!(elements(path), None, "{path}");
        }
    }

    #[test]
    fn any_name_survives_its_way_into_a_link_and_back() {
        let name: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
        assert_eq!(elements(&encode(&name).to_string()), Some(vec![name]));
    }

    #[test]
    fn files_and_directories_are_found_and_nothing_below_a_file() {
        let tree = Tree::new(Arc::new(sample()));
        let find = |path| find(&tree, &elements(path).unwrap());
        assert_eq!(find("/"), Some(0));
        assert!(find("/boot/vmlinuz").is_some());
        assert_eq!(find("/boot/vmlinuz/x"), None);
        assert_eq!(find("/nothing"), None);
    }

    #[test]
    fn a_range_is_one_of_three_forms() {
        let part = |range| part(&headers(&[(RANGE, range)]), 100, &now());
        for (range, expected) in [
            ("bytes=0-9", Part::Range(0..10)),
            ("bytes=90-", Part::Range(90..100)),
            ("bytes=-10", Part::Range(90..100)),
            ("bytes=-1000", Part::Range(0..100)),
            ("bytes=99-99999999999999999999999", Part::Range(99..100)),
            ("bytes=100-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=9-0", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=0-9", Part::Whole),
        ] {
            assert_eq!(part(range), expected, "{range}");
        }
    }

    #[test]
    fn of_an_empty_file_no_range_can_be_had() {
        let asked = headers(&[(RANGE, "bytes=0-")]);
        assert_eq!(part(&asked, 0, &now()), Part::Beyond);
    }

    #[test]
    fn a_range_of_another_state_becomes_the_whole() {
        let asked = |etag| headers(&[(RANGE, "bytes=1-1"), (IF_RANGE, etag)]);
        assert_eq!(part(&asked("\"now\""), 9, &now()), Part::Range(1..2));
        assert_eq!(part(&asked("\"before\""), 9, &now()), Part::Whole);
        assert_eq!(part(&asked("Fri, 02 Jan 1970 00:00:00 GMT"), 9, &now()), Part::Range(1..2));
    }

    #[test]
    fn who_has_it_already_is_told_so() {
        let verdict = |name, value| verdict(&headers(&[(name, value)]), &now());
        assert_eq!(verdict(IF_NONE_MATCH, "\"a\", W/\"now\""), Verdict::NotModified);
        assert_eq!(verdict(IF_NONE_MATCH, "\"a\""), Verdict::Proceed);
        let (same, before) = ("Fri, 02 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(verdict(IF_MODIFIED_SINCE, same), Verdict::NotModified);
        assert_eq!(verdict(IF_MODIFIED_SINCE, before), Verdict::Proceed);
        assert_eq!(verdict(IF_MODIFIED_SINCE, "nonsense"), Verdict::Proceed);
        assert_eq!(verdict(IF_UNMODIFIED_SINCE, before), Verdict::Failed);
        assert_eq!(verdict(IF_MATCH, "\"a\""), Verdict::Failed);
        assert_eq!(verdict(IF_MATCH, "*"), Verdict::Proceed);
    }

    #[test]
    fn a_tag_counts_more_than_a_date() {
        let date = "Fri, 02 Jan 1970 00:00:00 GMT";
        let both = headers(&[(IF_NONE_MATCH, "\"a\""), (IF_MODIFIED_SINCE, date)]);
        assert_eq!(verdict(&both, &now()), Verdict::Proceed);
    }
}
