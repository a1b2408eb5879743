//! What stands on a command line, and how its words become values.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use blake3::Hash;
use lexopt::{Arg, Parser};

use super::options::{Form, Opt, Takes, options};
use super::{
    Cache, Command, DEFAULT_PORT, HttpPort, LONGEST_WAIT, LogForm, Logging, Retries, ServeOn, usage,
};
use crate::error::Error;
use crate::image::path::shown;
use crate::net::own;
use crate::process::log::Level;
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
    options: Vec<(&'static Opt, String)>,
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

impl Given {
    /// Reads up to the end, or up to an option that asks for the help or the version.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Given, Error> {
        let mut given = Given::default();
        let mut parser = Parser::from_args(args);
        while given.answer.is_none()
            && let Some(arg) = parser.next().or_else(|_| no_value_taken(&given))?
        {
            let (option, written) = match arg {
                Arg::Value(operand) => {
                    given.operands.push(operand);
                    continue;
                }
                Arg::Short(c) => (options().find(|o| o.short == Some(c)), format!("-{c}")),
                Arg::Long(name) => (options().find(|o| o.long == name), format!("--{name}")),
            };
            let Some(option) = option else {
                return usage(format!("unknown option {}", shown(written.as_bytes())));
            };
            match option.takes {
                Takes::Nothing(set) => set(&mut given),
                Takes::Value { name, kind, set } => {
                    let value = parser.value().unwrap_or_default();
                    if value.is_empty() {
                        return usage(format!("{written} requires a value: {name}"));
                    }
                    if set(&mut given, &value).is_none() {
                        let value = shown(value.as_bytes());
                        return usage(format!("{written}: invalid value {value}: expected {kind}"));
                    }
                }
            }
            given.options.push((option, written));
        }
        // A variable that was never set, most likely; as a SRC it would mean everything.
        if given.operands.iter().any(|operand| operand.is_empty()) {
            return usage("empty argument");
        }
        Ok(given)
    }

    pub(super) fn check_options_of(&self, form: Form) -> Result<(), Error> {
        match self.options.iter().find(|(option, _)| !option.forms.contains(&form)) {
            None => Ok(()),
            Some((option, written)) => {
                let names: Vec<&str> = option.forms.iter().map(|form| form.name()).collect();
                usage(format!("{written} can only be used with {}", names.join(" or ")))
            }
        }
    }
}

/// The parser stumbles over one thing only: a value for an option, the last one, that takes none.
fn no_value_taken<T>(given: &Given) -> Result<T, Error> {
    let written = given.options.last().map_or("an option", |(_, written)| written);
    usage(format!("{written} takes no value"))
}

pub(super) fn parsed<T: FromStr>(value: &OsStr) -> Option<T> {
    value.to_str()?.parse().ok()
}

/// `[ADDR:]PORT`; an IPv6 address stands in brackets.
pub(super) fn http_port(value: &OsStr) -> Option<HttpPort> {
    let text = value.to_str()?;
    match text.parse() {
        Ok(port) => Some(HttpPort { ip: None, port }),
        Err(_) => {
            let address: SocketAddr = text.parse().ok()?;
            Some(HttpPort { ip: Some(address.ip()), port: address.port() })
        }
    }
}

/// At most `u32::MAX`, so that a deadline made of it cannot overflow.
pub(super) fn seconds(value: &OsStr) -> Option<u64> {
    parsed::<u32>(value).map(u64::from)
}

/// Bytes a second; K, M and G stand for powers of 1024.
pub(super) fn rate(value: &OsStr) -> Option<NonZeroU64> {
    let text = value.to_str()?;
    let (digits, unit) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        b'G' => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1),
    };
    NonZeroU64::new(digits.parse::<u64>().ok()?.checked_mul(unit)?)
}

/// 64 hexadecimal digits.
pub(super) fn hash(value: &OsStr) -> Option<Hash> {
    Hash::from_hex(value.as_bytes()).ok()
}

pub(super) fn interval(secs: u64) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs))
}

pub(super) fn cache(value: &OsStr) -> Option<Cache> {
    match value.as_bytes() {
        b"none" => Some(Cache::None),
        _ => Some(Cache::Dir(value.into())),
    }
}

pub(super) fn retries(value: &OsStr) -> Option<Retries> {
    match value.as_bytes() {
        b"forever" => Some(Retries::Forever),
        _ => parsed(value).map(Retries::Times),
    }
}

pub(super) fn serve_on(value: &OsStr) -> Option<ServeOn> {
    match value.as_bytes() {
        b"forever" => Some(ServeOn::Forever),
        b"no" => Some(ServeOn::No),
        _ => seconds(value).map(ServeOn::Seconds),
    }
}

/// Levels above the highest are the highest: nobody who asks for more means less.
pub(super) fn debug_level(value: &OsStr) -> Option<Level> {
    parsed::<u32>(value).map(|level| match level {
        0 => Level::Notice,
        1 => Level::Info,
        _ => Level::Debug,
    })
}

pub(super) fn log_form(value: &OsStr) -> Option<LogForm> {
    LogForm::ALL.into_iter().find(|form| value == form.name())
}
