//! Configuration files of words.

use std::fs;
use std::str::SplitWhitespace;

/// The text of a file that may be missing, and then says nothing.
pub(super) fn text_of(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The lines of a configuration file as words, up to a comment; no word holds a `#` or `;`.
pub(super) fn lines_of_words(text: &str) -> impl Iterator<Item = SplitWhitespace<'_>> {
    let comment = ['#', ';'];
    text.lines().map(move |line| line.split(comment).next().unwrap_or_default().split_whitespace())
}
