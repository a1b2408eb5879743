//! The calls by which the store reads and changes files. In tests any of them can fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::faults::{self, Call};

/// Makes one change to a file or a directory.
pub(super) fn change<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    faults::before(Call::Change).1?;
    make()
}

pub(super) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let (count, outcome) = faults::before(Call::Write(bytes.len()));
    file.write_all_at(bytes.get(..count).unwrap_or(bytes), at)?;
    outcome
}

pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    faults::before(Call::Read).1?;
    file.read_exact_at(bytes, at)
}
