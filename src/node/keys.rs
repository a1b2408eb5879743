//! Reading key files and other small files that users give.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::Error;
use crate::image::path::shown;
use crate::image::trust::Key;

/// Longest key file that is read, in bytes.
const MAX_KEYS_BYTES: u64 = 64 << 10;

/// The keys of `--key` options: each is a key or the path of a key file.
pub(crate) fn keys(options: &[OsString]) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::new();
    for option in options {
        match option.to_str().and_then(Key::parse) {
            Some(key) => keys.push(key),
            None if !Path::new(option).exists() => {
                let option = shown(option.as_bytes());
                return Err(Error::Usage(format!(
                    "--key: {option} is neither a minisign public key nor an existing file"
                )));
            }
            None => keys.extend(key_file(Path::new(option))?),
        }
    }
    Ok(keys)
}

/// The keys in a file.
pub(crate) fn key_file(path: &Path) -> Result<Vec<Key>, Error> {
    let text = read_at_most(path, MAX_KEYS_BYTES);
    text.and_then(|text| Key::parse_file(&text).map_err(io::Error::other))
        .map_err(Error::file("read keys from", path))
}

/// All of a file, unless it has more than `limit` bytes.
pub(crate) fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}
