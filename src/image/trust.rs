//! What must be true of a manifest before anything in it is believed.
//!
//! All that travels is checked against the manifest; this is about whose manifest it is. Without a key
//! and without a pinned hash it is that of whoever answers. With one of them neither the server nor the
//! network has to be trusted: [`Trust::check`] decides by the bytes of the manifest and of its
//! signature. There is no clock here, and so nothing expires.
//!
//! Signatures are those of minisign (<https://jedisct1.github.io/minisign/>), of both its kinds: over
//! the BLAKE2b hash of the manifest, and the older one over the manifest itself.

pub mod files;
#[cfg(test)]
mod tests;

use std::fmt;

use blake3::Hash;
use minisign_verify::{PublicKey, Signature};

/// A minisign public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it was given, in base64.
    text: String,
    id: KeyId,
    public: PublicKey,
}

/// What minisign tells keys apart by; it stands in the comment of a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(u64);

/// The keys in a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKeys {
    /// This line, counted from 1, is none, and no comment.
    Line(usize),
    /// There is none.
    Empty,
}

/// What is asked of a manifest. Of several keys one must have signed it; with a hash and keys, both
/// must be right. By default nothing is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The keys of which one must have signed.
    pub keys: Vec<Key>,
    /// The only generation that is right.
    pub hash: Option<Hash>,
}

/// Why a manifest is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It is another generation than the pinned one.
    OtherHash {
        /// What it is.
        found: Hash,
        /// What it should be.
        pinned: Hash,
    },
    /// There is no signature, and one by one of these keys is asked for.
    Unsigned(Vec<KeyId>),
    /// What stands for the signature is none of minisign's.
    Malformed,
    /// It is signed by a key that is not trusted.
    OtherKey {
        /// The key that signed, as the signature says.
        by: KeyId,
        /// Those that are trusted.
        trusted: Vec<KeyId>,
    },
    /// The signature names a trusted key and is not its signature of this manifest.
    Wrong(KeyId),
}

impl Key {
    /// Reads a key as `minisign -G` prints it: 56 characters of base64.
    pub fn parse(text: &str) -> Option<Key> {
        let public = PublicKey::from_base64(text).ok()?;
        Some(Key { text: text.to_owned(), id: KeyId::of(text)?, public })
    }

    /// Reads a file of keys: one or several, each on a line of its own, among lines that are empty or
    /// begin with `untrusted comment:` or `#`.
    pub fn parse_file(text: &[u8]) -> Result<Vec<Key>, BadKeys> {
        let mut keys = Vec::new();
        for (line, number) in text.split(|&b| b == b'\n').zip(1..) {
            let line = line.trim_ascii();
            let is_comment = line.starts_with(b"untrusted comment:") || line.starts_with(b"#");
            if !line.is_empty() && !is_comment {
                let key = std::str::from_utf8(line).ok().and_then(Key::parse);
                keys.push(key.ok_or(BadKeys::Line(number))?);
            }
        }
        if keys.is_empty() { Err(BadKeys::Empty) } else { Ok(keys) }
    }
}

impl KeyId {
    /// The id in a key or in the second line of a signature: both begin with two bytes for the
    /// algorithm and the eight of the id, the lowest first.
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
    /// Whether only some manifests are to be believed; else every one is.
    pub fn is_asked_for(&self) -> bool {
        self.hash.is_some() || !self.keys.is_empty()
    }

    /// Whether a manifest may be believed that came with this signature, and who signed it if that
    /// was asked.
    pub fn check(
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
        let (signature, by) = read(signature).ok_or(Distrust::Malformed)?;
        let mut named = self.keys.iter().filter(|key| key.id == by).peekable();
        if named.peek().is_none() {
            return Err(Distrust::OtherKey { by, trusted: trusted() });
        }
        match named.any(|key| key.public.verify(manifest, &signature, true).is_ok()) {
            true => Ok(Some(by)),
            false => Err(Distrust::Wrong(by)),
        }
    }
}

/// A signature, and which key it says that it is by.
fn read(signature: &[u8]) -> Option<(Signature, KeyId)> {
    let text = std::str::from_utf8(signature).ok()?;
    let by = KeyId::of(text.lines().nth(1)?)?;
    Some((Signature::decode(text).ok()?, by))
}

/// Where somebody has keys already, others may only choose among them. None: nobody has any.
///
/// # Errors
///
/// The first of the `chosen` ones that is not among them.
pub fn narrowed(among: Option<Vec<Key>>, chosen: &[Key]) -> Result<Vec<Key>, Key> {
    let Some(among) = among else { return Ok(chosen.to_vec()) };
    match chosen.iter().find(|key| !among.contains(key)) {
        Some(other) => Err(other.clone()),
        None if chosen.is_empty() => Ok(among),
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

impl fmt::Display for BadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKeys::Line(number) => write!(f, "line {number} is not a minisign public key"),
            BadKeys::Empty => write!(f, "it contains no key"),
        }
    }
}

impl std::error::Error for BadKeys {}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::OtherHash { found, pinned } => {
                write!(f, "its generation is {}, expected {}", found.to_hex(), pinned.to_hex())
            }
            Distrust::Unsigned(trusted) => write!(f, "it has no signature{}", Wanted(trusted)),
            Distrust::Malformed => write!(f, "its signature is not a minisign signature"),
            Distrust::OtherKey { by, trusted } => {
                write!(f, "it is signed with key {by}{}", Wanted(trusted))
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

/// The keys that a message says are asked for.
struct Wanted<'a>(&'a [KeyId]);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, n) in self.0.iter().zip(0..) {
            write!(f, "{}{id}", if n == 0 { ", expected key " } else { " or " })?;
        }
        Ok(())
    }
}
