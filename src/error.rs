//! The one error type of the program, its texts and its exit codes.
//!
//! An error says what was wrong and where; `main` prints it on one line.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::image::manifest;
use crate::image::path::shown;
use crate::image::trust::Distrust;
use crate::units::bytes;

/// What ended a run.
#[derive(Debug)]
pub enum Error {
    /// The command line cannot be understood or asks for what makes no sense.
    Usage(String),
    /// A host name has no address.
    Resolve {
        /// The name as it was given.
        host: String,
        /// Why not.
        why: String,
    },
    /// Nobody could be reached there.
    Connect {
        /// Who was called.
        host: String,
        /// The last failure.
        why: String,
    },
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// What the service manager has handed over to listen on is something else.
    Handed,
    /// The other side does not have what was asked for.
    NotServed {
        /// The path that was asked for.
        path: String,
        /// Who was asked.
        host: String,
    },
    /// The other side said what cannot be right, or what its protocol forbids.
    Peer {
        /// Who.
        host: String,
        /// What.
        why: String,
    },
    /// The other side is a 9P server, but not xget's.
    NotXget {
        /// Who.
        host: String,
    },
    /// The manifest is not what the keys or the hash that were given ask for.
    Untrusted {
        /// Who serves it.
        host: String,
        /// What is wrong with it.
        why: Distrust,
    },
    /// The other side has no manifest, and the keys or the hash that were given ask for one.
    Unverifiable {
        /// Who.
        host: String,
    },
    /// The served tree cannot be described.
    Tree(manifest::Problem),
    /// A local file or directory.
    File {
        /// What was being done, as in "cannot ACTION PATH".
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The files do not fit where they should go.
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// What is missing there of them, in bytes.
        needed: u64,
        /// What there is room for, in bytes.
        room: u64,
    },
    /// The kernel command line cannot be understood: which word, and what is wrong with it.
    Cmdline(String),
    /// What the kernel command line asks for cannot be done.
    Boot(String),
    /// The process that was to fetch has failed, and has said why.
    Fetch {
        /// The exit code with which it ended, if that is known.
        code: Option<u8>,
    },
    /// A call of the operating system that has to do with no file.
    System {
        /// What was being done, as in "cannot ACTION".
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl Error {
    /// For `map_err` after a file operation: `.map_err(Error::file("open", path))`.
    pub fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::File { action, path: path.as_ref().to_owned(), error }
    }

    /// For `map_err` after any other system call.
    pub fn system(action: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::System { action, error }
    }

    /// The process's exit code; `xget(1)` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Cmdline(_) => 2,
            Error::Resolve { .. } | Error::Connect { .. } => 3,
            Error::NotServed { .. } => 4,
            Error::File { .. } | Error::System { .. } | Error::Tree(_) => 5,
            Error::NoRoom { .. } | Error::Boot(_) => 5,
            Error::Peer { .. } | Error::NotXget { .. } => 6,
            Error::Listen { .. } | Error::Handed => 7,
            Error::Untrusted { .. } | Error::Unverifiable { .. } => 8,
            Error::Fetch { code } => code.unwrap_or(5),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) => write!(f, "{text}; see xget --help"),
            Error::Resolve { host, why } => write!(f, "cannot resolve {host}: {why}"),
            Error::Connect { host, why } => write!(f, "cannot connect to {host}: {why}"),
            Error::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {}", reason(error))
            }
            Error::Handed => f.write_str(
                "socket activation passed something that is not a listening TCP socket; set \
                 ListenStream= in the socket unit to a port",
            ),
            Error::NotServed { path, host } => write!(f, "{host} does not serve {path}"),
            Error::Peer { host, why } => write!(f, "{host}: {why}"),
            Error::NotXget { host } => write!(f, "{host} is a 9P server, but not an xget master"),
            Error::Untrusted { host, why } => {
                write!(f, "the manifest from {host} is not trusted: {why}; nothing was used. ")?;
                f.write_str(match why {
                    Distrust::OtherHash { .. } => {
                        "Pin the generation that should be fetched, or serve the pinned one"
                    }
                    Distrust::OtherKey { .. } => {
                        "Sign it with a trusted key, or trust this key if it is the right one"
                    }
                    _ => {
                        "Sign the manifest that is served (xget --manifest, minisign -S) and \
                     start the master with --signature"
                    }
                })
            }
            Error::Unverifiable { host } => write!(
                f,
                "{host} is a 9P server, but not an xget master: its files cannot be verified, as \
                 --key and --hash require. Serve them with xget, or fetch without --key and \
                 --hash"
            ),
            Error::Tree(problem) => write!(f, "cannot serve this tree: {problem}"),
            Error::File { action, path, error } => {
                let path = shown(path.as_os_str().as_bytes());
                write!(f, "cannot {action} {path}: {}", reason(error))
            }
            Error::NoRoom { path, needed, room } => {
                let path = shown(path.as_os_str().as_bytes());
                let (needed, room) = (bytes(*needed), bytes(*room));
                write!(f, "not enough space in {path}: need {needed}, have {room}")
            }
            Error::Cmdline(text) | Error::Boot(text) => write!(f, "{text}"),
            Error::Fetch { .. } => write!(f, "the fetch failed; the messages above say why"),
            Error::System { action, error } => write!(f, "cannot {action}: {}", reason(error)),
        }
    }
}

impl std::error::Error for Error {}

impl From<manifest::Problem> for Error {
    fn from(problem: manifest::Problem) -> Error {
        Error::Tree(problem)
    }
}

/// The system's words without the number that Rust adds to them.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_error_says_what_where_and_why() {
        let error = Error::file("open", "/no/such\n")(io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.to_string(), "cannot open /no/such\\n: No such file or directory");
    }
}
