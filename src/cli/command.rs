//! Commands as plain values.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use blake3::Hash;

use crate::net::own;
use crate::process::log::Logging;
use crate::serve::admission::Allowed;

/// The port of master and nodes unless another is named.
pub const DEFAULT_PORT: u16 = 20004;

/// Where a boot says what it serves on.
pub const DEFAULT_STATE_DIR: &str = "/run/xget";

/// Longest wait between two attempts to reach the master, unless something else is asked for.
pub const DEFAULT_MAX_RETRY_WAIT: Duration = Duration::from_secs(8);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print [`super::help`].
    Help,
    /// Print the version.
    Version,
    /// Print [`super::completions`] for that shell.
    Completions(Shell),
    /// Serve a tree as the master.
    Serve(ServeOptions),
    /// Fetch from a master, then serve other nodes.
    Fetch(FetchOptions),
    /// Print who holds what.
    Status(StatusOptions),
    /// Print the manifest of a local tree.
    Manifest(ManifestOptions),
    /// Do what the kernel command line asks for.
    Boot(BootOptions),
    /// Serve on in another process's place.
    TakeOver(TakeOverOptions),
}

impl Command {
    /// What is logged while this is done, and how.
    pub fn logging(&self) -> Logging {
        match self {
            Command::Help | Command::Version | Command::Completions(_) => Logging::default(),
            Command::Serve(serve) => serve.logging,
            Command::Fetch(fetch) => fetch.logging,
            Command::Status(status) => status.logging,
            Command::Manifest(manifest) => manifest.logging,
            Command::Boot(boot) => boot.logging,
            Command::TakeOver(take_over) => take_over.logging,
        }
    }
}

/// `xget --boot [URL]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootOptions {
    /// Only fetch this, from whom and as the kernel command line says, and print where it is.
    pub(crate) url: Option<String>,
    /// What is logged, and how.
    pub(crate) logging: Logging,
}

/// `xget --take-over [DIR]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeOverOptions {
    /// Where the other process says what it serves.
    pub(crate) state: PathBuf,
    /// What is logged, and how.
    pub(crate) logging: Logging,
}

/// `xget DIR|FILE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// The directory or file to serve.
    pub(crate) path: PathBuf,
    /// Port to listen on; 0 is any free one.
    pub(crate) port: u16,
    /// Address to listen on; None is all.
    pub(crate) listen: Option<IpAddr>,
    /// Who may connect.
    pub(crate) allowed: Allowed,
    /// How many nodes the master itself feeds at once.
    pub(crate) max_fed: NonZeroUsize,
    /// Most bytes a second that are sent.
    pub(crate) max_upload: Option<NonZeroU64>,
    /// Where the tree is served over HTTP.
    pub(crate) http: Option<HttpAddress>,
    /// Where metrics and the page of the swarm are served over HTTP, and no files.
    pub(crate) metrics: Option<HttpAddress>,
    /// Other file systems mounted below `path` are left out.
    pub(crate) one_file_system: bool,
    /// Owners are left out of the manifest.
    pub(crate) no_owner: bool,
    /// Where hashes are kept.
    pub(crate) cache: Cache,
    /// How often the tree is looked at for changes; None is never.
    pub(crate) rescan: Option<Duration>,
    /// How long all of it takes to be hashed again, over and over; None is never.
    pub(crate) rehash: Option<Duration>,
    /// The manifest's signature, if it is signed.
    pub(crate) signature: Option<PathBuf>,
    /// Who may have signed it: keys, or files of keys, as they were given; none without a signature.
    pub(crate) keys: Vec<OsString>,
    /// The command returns once the tree is served.
    pub(crate) background: bool,
    /// What is logged, and how.
    pub(crate) logging: Logging,
}

impl Default for ServeOptions {
    fn default() -> ServeOptions {
        /// Four.
        const MAX_FED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
        ServeOptions {
            path: PathBuf::new(),
            port: DEFAULT_PORT,
            listen: None,
            allowed: Allowed::default(),
            max_fed: MAX_FED,
            max_upload: None,
            http: None,
            metrics: None,
            one_file_system: false,
            no_owner: false,
            cache: Cache::Default,
            rescan: Some(Duration::from_secs(2)),
            rehash: None,
            signature: None,
            keys: Vec::new(),
            background: false,
            logging: Logging::default(),
        }
    }
}

/// `[ADDR:]PORT`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// Address to listen on; None leaves it to the option's default.
    pub(crate) ip: Option<IpAddr>,
    /// Port to listen on; 0 is any free one.
    pub(crate) port: u16,
}

/// `xget -n HOST SRC... DEST`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// The master, `HOST[:PORT]`, or several, separated by commas, as they were given.
    pub(crate) server: String,
    /// The master's port where `server` names none; also the port this node serves on, or any
    /// free one if that is taken.
    pub(crate) port: u16,
    /// Address to serve on; None is all.
    pub(crate) listen: Option<IpAddr>,
    /// Who may fetch from this node.
    pub(crate) allowed: Allowed,
    /// Paths on the master, at least one, as they were given.
    pub(crate) sources: Vec<OsString>,
    /// Where they go.
    pub(crate) dest: PathBuf,
    /// The server is not xget's, and this is what it calls the tree to fetch from.
    pub(crate) aname: Option<String>,
    /// Who must have signed the manifest: keys, or files of keys, as they were given. Any one will do.
    pub(crate) keys: Vec<OsString>,
    /// The only generation that may be fetched.
    pub(crate) hash: Option<Hash>,
    /// Modes are left alone.
    pub(crate) no_mode: bool,
    /// Owners are left alone.
    pub(crate) no_owner: bool,
    /// How often to try again to reach the master.
    pub(crate) retries: Retries,
    /// Longest wait between two attempts to reach the master.
    pub(crate) max_retry_wait: Duration,
    /// After how long to give up. None: the retries decide.
    pub(crate) timeout: Option<Duration>,
    /// How long to serve others once the files are whole.
    pub(crate) serve_on: ServeOn,
    /// Where it is said what is served on, and where another process may take over.
    pub(crate) state: Option<PathBuf>,
    /// Most bytes a second that are sent to other nodes.
    pub(crate) max_upload: Option<NonZeroU64>,
    /// Nothing is fetched for which there is no room; holes in files count as bytes.
    pub(crate) must_fit: bool,
    /// Everything goes over an own network; None: over the kernel's.
    pub(crate) own_net: Option<own::Config>,
    /// The command returns once the files are whole, while a resident serves on.
    pub(crate) background: bool,
    /// What is logged, and how.
    pub(crate) logging: Logging,
}

impl Default for FetchOptions {
    fn default() -> FetchOptions {
        FetchOptions {
            server: String::new(),
            port: DEFAULT_PORT,
            listen: None,
            allowed: Allowed::default(),
            sources: Vec::new(),
            dest: PathBuf::new(),
            aname: None,
            keys: Vec::new(),
            hash: None,
            no_mode: false,
            no_owner: false,
            retries: Retries::Times(5),
            max_retry_wait: DEFAULT_MAX_RETRY_WAIT,
            timeout: None,
            must_fit: false,
            serve_on: ServeOn::WhileWanted,
            state: None,
            max_upload: None,
            own_net: None,
            background: false,
            logging: Logging::default(),
        }
    }
}

/// `xget --status -n HOST`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusOptions {
    /// Who is asked, `HOST[:PORT]`, as it was given.
    pub(crate) server: String,
    /// The port where `server` names none.
    pub(crate) port: u16,
    /// What is printed.
    pub(crate) format: StatusFormat,
    /// It is printed again and again.
    pub(crate) watch: bool,
    /// What is logged, and how.
    pub(crate) logging: Logging,
}

impl Default for StatusOptions {
    fn default() -> StatusOptions {
        StatusOptions {
            server: String::new(),
            port: DEFAULT_PORT,
            format: StatusFormat::Table,
            watch: false,
            logging: Logging::default(),
        }
    }
}

/// How a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFormat {
    /// In columns, for people.
    Table,
    /// As the server writes it: a line each of words `NAME=VALUE`.
    Raw,
    /// JSON, for programs.
    Json,
}

/// `xget --manifest DIR|FILE`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestOptions {
    /// The directory or file to describe.
    pub(crate) path: PathBuf,
    /// Other file systems mounted below `path` are left out.
    pub(crate) one_file_system: bool,
    /// Owners are left out.
    pub(crate) no_owner: bool,
    /// Where hashes are kept.
    pub(crate) cache: Cache,
    /// What is logged, and how.
    pub(crate) logging: Logging,
}

/// How often to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// This many times beyond the first attempt.
    Times(u32),
    /// Until it works.
    Forever,
}

/// How long a node serves others once its own files are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeOn {
    /// As long as somebody draws from it.
    WhileWanted,
    /// This long, wanted or not; at most `u32::MAX`.
    Seconds(u64),
    /// Until it is killed.
    Forever,
    /// Not at all.
    No,
}

/// Where a master keeps the hashes of what it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// In the usual place.
    #[default]
    Default,
    /// In this directory.
    Dir(PathBuf),
    /// Nowhere.
    None,
}

/// A shell that has programmable completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash: a file for `/usr/share/bash-completion/completions`.
    Bash,
    /// zsh: a function `_xget` for a directory of `fpath`.
    Zsh,
    /// fish: a file for `/usr/share/fish/vendor_completions.d`.
    Fish,
}

impl Shell {
    pub(super) fn named(name: &OsStr) -> Option<Shell> {
        match name.as_encoded_bytes() {
            b"bash" => Some(Shell::Bash),
            b"zsh" => Some(Shell::Zsh),
            b"fish" => Some(Shell::Fish),
            _ => None,
        }
    }
}
