//! What stands on a command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use blake3::Hash;

use super::command::{
    Cache, Command, DEFAULT_PORT, HttpPort, LONGEST_WAIT, Logging, Retries, ServeOn,
};
use super::options::Opt;
use super::value::interval;
use crate::net::own;
use crate::serve::admission::Allowed;

/// What stands on a command line, each value sound by itself; starts as the defaults.
pub(super) struct Given {
    /// Help or version was asked for; nothing after that was looked at.
    pub(super) answer: Option<Command>,
    pub(super) status: bool,
    pub(super) manifest: bool,
    pub(super) boot: bool,
    pub(super) take_over: bool,
    pub(super) must_fit: bool,
    pub(super) server: Option<String>,
    pub(super) aname: Option<String>,
    pub(super) port: u16,
    pub(super) listen: Option<IpAddr>,
    pub(super) allowed: Allowed,
    pub(super) max_fed: NonZeroUsize,
    pub(super) max_upload: Option<NonZeroU64>,
    pub(super) one_file_system: bool,
    pub(super) no_owner: bool,
    pub(super) signature: Option<PathBuf>,
    pub(super) keys: Vec<OsString>,
    pub(super) hash: Option<Hash>,
    pub(super) no_mode: bool,
    pub(super) retries: Retries,
    pub(super) longest_wait: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) serve_on: ServeOn,
    pub(super) state: Option<PathBuf>,
    pub(super) cache: Cache,
    pub(super) rescan: Option<Duration>,
    pub(super) own_net: Option<own::Config>,
    pub(super) background: bool,
    pub(super) json: bool,
    pub(super) logging: Logging,
    pub(super) raw: bool,
    pub(super) watch: bool,
    pub(super) http: Option<HttpPort>,
    pub(super) metrics: Option<HttpPort>,
    pub(super) operands: Vec<OsString>,
    /// The options, each as it was written.
    pub(super) options: Vec<(&'static Opt, String)>,
}

impl Default for Given {
    fn default() -> Given {
        /// Four.
        const USUAL_MAX_FED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);
        Given {
            answer: None,
            status: false,
            manifest: false,
            boot: false,
            take_over: false,
            must_fit: false,
            server: None,
            aname: None,
            port: DEFAULT_PORT,
            listen: None,
            allowed: Allowed::default(),
            max_fed: USUAL_MAX_FED,
            max_upload: None,
            one_file_system: false,
            no_owner: false,
            signature: None,
            keys: Vec::new(),
            hash: None,
            no_mode: false,
            retries: Retries::Times(5),
            longest_wait: LONGEST_WAIT,
            timeout: None,
            serve_on: ServeOn::WhileWanted,
            state: None,
            cache: Cache::Usual,
            rescan: interval(2),
            own_net: None,
            background: false,
            json: false,
            logging: Logging::default(),
            raw: false,
            watch: false,
            http: None,
            metrics: None,
            operands: Vec::new(),
            options: Vec::new(),
        }
    }
}
