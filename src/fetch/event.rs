//! What a fetch tells those who read the log.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::control_client::CallError;
use crate::control::Control;
use crate::image::chunks::ChunkId;
use crate::level::Level;
use crate::p9::client::Broken;
use crate::p9::errno::Errno;

/// Something that an administrator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection ended, or could not be made.
    Closed(SocketAddr, String),
    /// A source is no longer used.
    Dropped(SocketAddr, Fault),
    /// No node of this generation answers at an address. The fault is for tests alone: it depends on what an arbitrary
    /// host has sent, which nobody is to read by way of this node.
    NoNode {
        /// The address.
        address: SocketAddr,
        /// Who has named it, if nobody but other nodes did.
        informant: Option<SocketAddr>,
        /// What was wrong with the answer.
        fault: Fault,
    },
    /// A node has named too many hosts at which there is none.
    Misled {
        /// That node.
        by: SocketAddr,
        /// How many.
        dead: u32,
        /// The last of them.
        last: SocketAddr,
    },
    /// A source sent a chunk with a wrong hash.
    WrongChunk(SocketAddr, ChunkId),
    /// A 9P message, both ways.
    Message(SocketAddr, String),
    /// An address of the origin has not sent the manifest.
    Unanswered(SocketAddr, CallError),
    /// Likewise, and another is asked.
    TryingNext(SocketAddr, CallError, SocketAddr),
    /// The manifest could not be had from anybody, which is tried again after this time.
    Retrying(String, Duration),
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Event::WrongChunk(..) | Event::TryingNext(..) | Event::Retrying(..) => Level::Warning,
            Event::Message(..) => Level::Debug,
            Event::Closed(..)
            | Event::Dropped(..)
            | Event::NoNode { .. }
            | Event::Misled { .. }
            | Event::Unanswered(..) => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Closed(address, why) => write!(f, "{address}: {why}"),
            Event::Dropped(address, fault) => {
                write!(f, "{address}: {fault}; no longer used as a source")
            }
            Event::NoNode { address, informant: None, .. } => {
                write!(f, "{address}: no xget node answers")
            }
            Event::NoNode { address, informant: Some(informant), .. } => {
                write!(f, "{informant}: named {address}, where no xget node answers")
            }
            Event::Misled { by, dead, last } => write!(
                f,
                "{by}: named {dead} hosts where no xget node answers, the last one {last}; not asked \
                 for addresses any more"
            ),
            Event::WrongChunk(address, chunk) => {
                write!(
                    f,
                    "{address} sent chunk {chunk} with a wrong hash; fetching it from another source"
                )
            }
            Event::Message(address, line) => write!(f, "{address} {line}"),
            Event::Unanswered(address, error) => write!(f, "{address}: {error}"),
            Event::TryingNext(address, error, next) => {
                write!(f, "{address}: {error}; trying {next}")
            }
            Event::Retrying(error, wait) => {
                write!(f, "{error}; retrying in {:.1} s", wait.as_secs_f64())
            }
        }
    }
}

/// Why a source is not used any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks the protocol.
    Broken(Broken),
    /// It refused something without which nothing can be had from it.
    Refused(Control, Errno),
    /// A line of a control file is malformed.
    Malformed(Control),
    /// It serves another generation.
    OtherGeneration,
    /// It sent wrong chunks.
    WrongChunks,
    /// It was asked for chunks, and nothing came.
    Silent,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Broken(broken) => write!(f, "{broken}"),
            Fault::Refused(file, errno) => write!(f, "refused .xget/{}: {errno}", file.name()),
            Fault::Malformed(file) => write!(f, "sent an invalid line in .xget/{}", file.name()),
            Fault::OtherGeneration => write!(f, "serves another generation"),
            Fault::WrongChunks => write!(f, "sent chunks with wrong hashes"),
            Fault::Silent => write!(f, "does not send requested chunks"),
        }
    }
}
