//! Whether a manifest is the one that the user wants.
//!
//! Everything else is verified against the manifest, so that this is where trust begins. Without a key
//! and without a pinned hash the manifest of any server that answers is used. With one of them neither
//! the server nor the network has to be trusted: [`Trust::check`] decides by the bytes of the manifest
//! and of its signature. Nothing expires, since a node in early boot has no clock.
//!
//! Signatures are those of minisign (<https://jedisct1.github.io/minisign/>), in both of its forms: over
//! the BLAKE2b hash of the manifest, and the older one over the manifest itself.

#[cfg(test)]
mod tests;

use std::fmt;

use blake3::Hash;
use minisign_verify::{PublicKey, Signature};

/// A minisign public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key as the user gave it, in base64.
    text: String,
    id: KeyId,
    public: PublicKey,
}

/// The number by which minisign tells keys apart; it stands in the comment of a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(u64);

/// Why a key file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFileError {
    /// This line, counted from 1, is neither a key nor a comment.
    Line(usize),
    /// No line is a key.
    Empty,
}

/// What a manifest must be. If there are keys, one of them must have signed it; if there is a hash, it
/// must be the manifest's. By default any manifest will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trust {
    pub(crate) keys: Vec<Key>,
    pub(crate) hash: Option<Hash>,
}

/// Why a manifest is not trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It is another generation than the pinned one.
    OtherHash {
        /// The manifest's hash.
        found: Hash,
        /// The hash that the user gave.
        pinned: Hash,
    },
    /// It has no signature; one by one of these keys is needed.
    Unsigned(Vec<KeyId>),
    /// The signature is not one of minisign's.
    Malformed,
    /// It is signed with a key that is not trusted.
    OtherKey {
        /// The key that the signature names.
        by: KeyId,
        /// The keys that are trusted.
        trusted: Vec<KeyId>,
    },
    /// The signature names this trusted key and does not match the manifest.
    Wrong(KeyId),
}

impl Key {
    /// Parses a key as `minisign -G` prints it: 56 characters of base64.
    pub(crate) fn parse(text: &str) -> Option<Key> {
        let public = PublicKey::from_base64(text).ok()?;
        Some(Key { text: text.to_owned(), id: KeyId::of(text)?, public })
    }

    /// Parses a file with one key or several, each on a line of its own. Empty lines and those that begin
    /// with `untrusted comment:` or `#` are skipped.
    pub(crate) fn parse_file(text: &[u8]) -> Result<Vec<Key>, KeyFileError> {
        let mut keys = Vec::new();
        for (line, number) in text.split(|&b| b == b'\n').zip(1..) {
            let line = line.trim_ascii();
            let is_comment = line.starts_with(b"untrusted comment:") || line.starts_with(b"#");
            if !line.is_empty() && !is_comment {
                let key = std::str::from_utf8(line).ok().and_then(Key::parse);
                keys.push(key.ok_or(KeyFileError::Line(number))?);
            }
        }
        if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
    }
}

impl KeyId {
    /// The id in a key or in the second line of a signature. Both begin with two bytes for the algorithm,
    /// then the eight bytes of the id, little-endian.
    fn of(base64: &str) -> Option<KeyId> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = base64.as_bytes().get(..14)?;
        let bits = digits.iter().try_fold(0u128, |bits, digit| {
            let value = DIGITS.iter().position(|known| known == digit)?;
            Some(bits << 6 | value as u128)
        })?;
        // 14 digits are 84 bits, 4 more than ten bytes.
        Some(KeyId(((bits >> 4) as u64).swap_bytes()))
    }
}

impl Trust {
    /// Whether the user gave a key or a hash; else any manifest will do.
    pub(crate) fn is_required(&self) -> bool {
        self.hash.is_some() || !self.keys.is_empty()
    }

    /// Checks a manifest and the signature that came with it. Returns the key that signed it, if a
    /// signature was needed.
    pub(crate) fn check(
        &self,
        manifest: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<Option<KeyId>, Distrust> {
        if let Some(pinned) = self.hash {
            let found = blake3::hash(manifest);
            if found != pinned {
                return Err(Distrust::OtherHash { found, pinned });
            }
        }
        if self.keys.is_empty() {
            return Ok(None);
        }
        let trusted = || self.keys.iter().map(|key| key.id).collect();
        let signature = signature.ok_or_else(|| Distrust::Unsigned(trusted()))?;
        let (signature, by) = parse_signature(signature).ok_or(Distrust::Malformed)?;
        let mut named = self.keys.iter().filter(|key| key.id == by).peekable();
        if named.peek().is_none() {
            return Err(Distrust::OtherKey { by, trusted: trusted() });
        }
        if named.any(|key| key.public.verify(manifest, &signature, true).is_ok()) {
            Ok(Some(by))
        } else {
            Err(Distrust::Wrong(by))
        }
    }
}

/// A signature, and the key that it names.
fn parse_signature(signature: &[u8]) -> Option<(Signature, KeyId)> {
    let text = std::str::from_utf8(signature).ok()?;
    let by = KeyId::of(text.lines().nth(1)?)?;
    Some((Signature::decode(text).ok()?, by))
}

/// The keys that may sign where an initramfs contains some (`built_in`) and its kernel command line
/// names others (`chosen`): the command line can select among the built-in keys and cannot add one.
///
/// # Errors
///
/// The first chosen key that is not built in.
pub(crate) fn select_keys(built_in: Option<Vec<Key>>, chosen: &[Key]) -> Result<Vec<Key>, Key> {
    let Some(built_in) = built_in else { return Ok(chosen.to_vec()) };
    match chosen.iter().find(|key| !built_in.contains(key)) {
        Some(other) => Err(other.clone()),
        None if chosen.is_empty() => Ok(built_in),
        None => Ok(chosen.to_vec()),
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFileError::Line(number) => write!(f, "line {number} is not a minisign public key"),
            KeyFileError::Empty => write!(f, "it contains no key"),
        }
    }
}

impl std::error::Error for KeyFileError {}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::OtherHash { found, pinned } => {
                write!(f, "its generation is {}, expected {}", found.to_hex(), pinned.to_hex())
            }
            Distrust::Unsigned(trusted) => write!(f, "it has no signature{}", Expected(trusted)),
            Distrust::Malformed => write!(f, "its signature is not a minisign signature"),
            Distrust::OtherKey { by, trusted } => {
                write!(f, "it is signed with key {by}{}", Expected(trusted))
            }
            Distrust::Wrong(by) => {
                write!(
                    f,
                    "the signature with key {by} does not match: it belongs to another \
                 manifest or is forged"
                )
            }
        }
    }
}

/// The end of a message that says which keys were expected.
struct Expected<'a>(&'a [KeyId]);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, n) in self.0.iter().zip(0..) {
            write!(f, "{}{id}", if n == 0 { ", expected key " } else { " or " })?;
        }
        Ok(())
    }
}
