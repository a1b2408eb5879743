//! What a process that serves sends to the one that takes over: a message, and the descriptors of the
//! listening socket, the directory of the files, the manifest, its signature (empty if there is none)
//! and, if there is one, the spill, in this order.
//!
//! The message is fields with a NUL between them: the heading; for how many seconds it has served
//! since its files were whole; the generation in hex; the addresses of the server it fetched from,
//! with commas between them; and each argument of its command line.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use blake3::Hash;

use crate::image::manifest::Manifest;
use crate::limits::{MAX_MANIFEST_BYTES, MAX_SIGNATURE_BYTES};
use crate::net::transport::Listener;
use crate::node::driver::Node;
use crate::node::store::WholeFiles;
use crate::sys::descriptors::{self, file_in_memory, is_readable};

/// Its number is the version of all this.
const HEADING: &str = "xget hand-over 1";
/// Longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What the message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// Since the files were whole.
    pub(super) served: Duration,
    pub(super) generation: Hash,
    pub(super) origin: Vec<SocketAddr>,
    pub(super) arguments: Vec<OsString>,
}

/// What comes with it.
pub(super) struct Handed {
    pub(super) listener: TcpListener,
    pub(super) files: WholeFiles,
    manifest: File,
    signature: File,
}

impl Offer {
    pub(super) fn new(node: &Node, served: Duration, arguments: &[OsString]) -> io::Result<Offer> {
        let fetch = node.fetch();
        let generation = fetch.manifest().generation();
        let offer = Offer {
            served,
            generation,
            origin: fetch.origin().to_vec(),
            arguments: arguments.to_vec(),
        };
        match offer.to_bytes().len() {
            ..=MAX_MESSAGE_BYTES => Ok(offer),
            _ => Err(io::Error::other("the command line of this process is too long")),
        }
    }

    pub(super) fn send(&self, to: BorrowedFd<'_>, node: &mut Node) -> io::Result<()> {
        let files = node.store().whole_files()?;
        let (mut manifest, mut signature) = (file_in_memory()?, file_in_memory()?);
        manifest.write_all(node.fetch().manifest().text())?;
        signature.write_all(node.hub().signature().map_or(&[], |signature| &signature[..]))?;
        let listener = match node.listener() {
            Some(Listener::Kernel(listener)) => listener.as_fd(),
            _ => {
                return Err(io::Error::other(
                    "this process uses its own TCP stack \
             (rd.xget.net=own), which cannot be handed over",
                ));
            }
        };
        let mut fds = vec![listener, files.directory.as_fd(), manifest.as_fd(), signature.as_fd()];
        fds.extend(files.spill.as_ref().map(AsFd::as_fd));
        descriptors::send(to, &self.to_bytes(), &fds)
    }

    pub(super) fn receive(from: BorrowedFd<'_>) -> io::Result<(Offer, Handed)> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let (message, fds) = descriptors::receive(from, &mut buffer)?;
        // Whoever opened what cannot be read had no right to read it, or needed none.
        for fd in &fds {
            if !is_readable(fd.as_fd())? {
                return Err(io::Error::other(
                    "the other process sent a file that is not open for reading",
                ));
            }
        }
        let mut fds = fds.into_iter();
        let four = (fds.next(), fds.next(), fds.next(), fds.next());
        let handed = match four {
            (Some(listener), Some(directory), Some(manifest), Some(signature)) => Handed {
                listener: listener.into(),
                files: WholeFiles {
                    directory: directory.into(),
                    spill: fds.next().map(File::from),
                },
                manifest: manifest.into(),
                signature: signature.into(),
            },
            _ => return Err(io::Error::other("the other process sent nothing")),
        };
        match Offer::parse(message) {
            Some(offer) => Ok((offer, handed)),
            None => {
                Err(io::Error::other("the other process is not xget, or another version of it"))
            }
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let served = self.served.as_secs().to_string();
        let origin: Vec<String> = self.origin.iter().map(SocketAddr::to_string).collect();
        let generation = self.generation.to_hex();
        let fields = [HEADING, &served, &generation, &origin.join(",")];
        let mut bytes = fields.join("\0").into_bytes();
        for argument in &self.arguments {
            bytes.push(0);
            bytes.extend_from_slice(argument.as_bytes());
        }
        bytes
    }

    fn parse(message: &[u8]) -> Option<Offer> {
        let mut fields = message.split(|&b| b == 0);
        let mut text = || std::str::from_utf8(fields.next()?).ok();
        if text()? != HEADING {
            return None;
        }
        let served = Duration::from_secs(text()?.parse::<u32>().ok()?.into());
        let generation = Hash::from_hex(text()?).ok()?;
        let origin = text()?.split(',').filter(|address| !address.is_empty());
        let origin =
            origin.map(|address| address.parse().ok()).collect::<Option<Vec<SocketAddr>>>()?;
        let arguments = fields.map(|argument| OsStr::from_bytes(argument).to_owned()).collect();
        Some(Offer { served, generation, origin, arguments })
    }
}

impl Handed {
    /// The manifest; it must be the one of this generation.
    pub(super) fn manifest(&mut self, generation: Hash) -> io::Result<Arc<Manifest>> {
        let text = read_all(&mut self.manifest, MAX_MANIFEST_BYTES)?;
        let manifest = Manifest::parse(text).map_err(io::Error::other)?;
        match manifest.generation() == generation {
            true => Ok(Arc::new(manifest)),
            false => Err(io::Error::other("the manifest does not match its generation")),
        }
    }

    /// The manifest's signature, as it was fetched; clients check it by themselves.
    pub(super) fn signature(&mut self) -> io::Result<Option<Arc<[u8]>>> {
        let signature = read_all(&mut self.signature, MAX_SIGNATURE_BYTES)?;
        Ok((!signature.is_empty()).then(|| signature.into()))
    }
}

/// At most `most` bytes of a file, from its beginning.
fn read_all(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn an_offer_is_read_as_it_was_written() {
        let mut odd = b"odd \xff\n,".to_vec();
        odd.push(b'"');
        let offer = Offer {
            served: Duration::from_secs(7),
            generation: blake3::hash(b"any"),
            origin: vec!["10.0.0.1:20004".parse().unwrap(), "[fd00::1]:1".parse().unwrap()],
            arguments: vec!["-n".into(), "head".into(), OsString::from_vec(odd), "".into()],
        };
        assert_eq!(Offer::parse(&offer.to_bytes()), Some(offer.clone()));
        let nobody = Offer { origin: Vec::new(), arguments: Vec::new(), ..offer };
        assert_eq!(Offer::parse(&nobody.to_bytes()), Some(nobody));
    }

    #[test]
    fn what_is_no_offer_is_refused() {
        let generation = "0".repeat(64);
        for text in [
            String::new(),
            HEADING.to_owned(),
            format!("xget hand-over 2\0{}\0{generation}\0", 1),
            format!("{HEADING}\0-1\0{generation}\0"),
            format!("{HEADING}\01\0abc\0"),
            format!("{HEADING}\01\0{generation}\0head"),
        ] {
            assert_eq!(Offer::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
