//! What `/etc/hosts` and `/etc/resolv.conf` have in common: lines of words, and comments.

use std::fs;
use std::str::SplitWhitespace;

/// The text of a file; empty if it cannot be read.
pub(super) fn read_or_empty(path: &str) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The words of each line. A comment begins at any `#` or `;`, even within a word.
pub(super) fn lines_of_words(text: &str) -> impl Iterator<Item = SplitWhitespace<'_>> {
    let comment = ['#', ';'];
    text.lines().map(move |line| line.split(comment).next().unwrap_or_default().split_whitespace())
}
