//! Keys and signatures in files.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Key;
use crate::error::Error;
use crate::image::path::shown;

/// Longest file of keys that is read, in bytes.
const MAX_KEYS_BYTES: u64 = 64 << 10;

/// The keys that were given, each as itself or by the file that holds it.
pub fn keys(given: &[OsString]) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::new();
    for one in given {
        match one.to_str().and_then(Key::parse) {
            Some(key) => keys.push(key),
            None if !Path::new(one).exists() => {
                let one = shown(one.as_bytes());
                let text =
                    format!("--key: {one} is neither a minisign public key nor an existing file");
                return Err(Error::Usage(text));
            }
            None => keys.extend(key_file(Path::new(one))?),
        }
    }
    Ok(keys)
}

/// The keys in a file.
pub fn key_file(path: &Path) -> Result<Vec<Key>, Error> {
    let text = read_at_most(path, MAX_KEYS_BYTES);
    text.and_then(|text| Key::parse_file(&text).map_err(io::Error::other))
        .map_err(Error::file("read keys from", path))
}

/// All of a file, unless it has more than `most` bytes.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut content)?;
    match content.len() as u64 > most {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(content),
    }
}
