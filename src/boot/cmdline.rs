//! The kernel command line: what it asks of xget.
//!
//! It is read here and nowhere else; `docs/cmdline.md` is its reference. [`Cmdline::parse`] takes the
//! text as `/proc/cmdline` has it: words between blanks, `"` around what holds blanks itself, as the
//! kernel reads them. Words that are not for xget are left to others; of a word that says one thing,
//! the last counts.

mod network;
#[cfg(test)]
mod tests;
mod url;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use blake3::Hash;

use crate::error::Error;
use crate::image::trust::Key;
use crate::net::host_port::HostPort;
pub use network::{Ip, Method, NetworkWish, Vlan};
pub(crate) use network::{StaticRoute, mac_of};
pub(crate) use url::Url;

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// `root=`, if xget is to bring it.
    pub(crate) root: Option<Root>,
    /// `init=`: the first program of that root, where xget is the initramfs's.
    pub(crate) init: Option<String>,
    /// `rd.xget.kernel=`: a kernel to go on with.
    pub(crate) kernel: Option<Kernel>,
    /// `rd.xget.server=`: who serves, the best first.
    pub(crate) servers: Vec<HostPort>,
    /// `rd.xget.key=`: public keys, one of which must have signed.
    pub(crate) keys: Vec<Key>,
    /// `rd.xget.hash=`: the only generation that is right.
    pub(crate) hash: Option<Hash>,
    /// `rd.xget.net=`: whose network it is.
    pub net: Net,
    /// `rd.xget.serve=`: how long to serve others.
    pub(crate) serve: Serve,
    /// `rd.xget.timeout=`: after how long without success to give up. None: never.
    pub timeout: Option<Duration>,
    /// `rd.xget.retry=`: the longest wait between two attempts.
    pub(crate) retry: Option<Duration>,
    /// `rd.xget.debug`: everything is told.
    pub debug: bool,
    /// What `ip=`, `BOOTIF=`, `nameserver=` and `vlan=` say.
    pub network: NetworkWish,
    /// Words that look like xget's and are not: a misspelling that is better told than passed over.
    pub(crate) unknown: Vec<String>,
    /// What cannot be understood of the network. Others read these words as well, and boot loaders make them of templates
    /// that may have nothing to put in.
    pub(crate) ignored: Vec<BadWord>,
    /// What it says of the network that only others can do.
    pub(crate) foreign: Vec<String>,
}

/// `root=xget://...` or `root=live:xget://...`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Where the image is.
    pub(crate) url: Url,
    /// dracut's livenet mounts it; xget only brings it.
    pub(crate) live: bool,
}

/// `rd.xget.kernel=`, `rd.xget.initramfs=` (or `rd.xget.initrd=`, which some loaders take for their own
/// `initrd=`), `rd.xget.append=`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel's path on the server.
    pub(crate) path: String,
    /// Those of its initrds, in order.
    pub(crate) initrds: Vec<String>,
    /// What its command line gets besides this one's words that are for every kernel.
    pub(crate) append: String,
}

/// Who brings up the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// Whoever has; else xget.
    #[default]
    Auto,
    /// Whoever has, or will: xget waits.
    Kernel,
    /// xget, which speaks TCP itself as well.
    Own,
}

/// How long others are served once the files are whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serve {
    /// Until the system stops it.
    #[default]
    Yes,
    /// Not even while they are fetched.
    No,
    /// This long after that.
    Seconds(u64),
}

/// A word that cannot be understood. Where it is xget's own the boot ends here: to go on without it would do something
/// else than was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadWord {
    /// The word, as it was given.
    pub(crate) word: String,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel command line: {}: {}", self.word, self.why)
    }
}

impl std::error::Error for BadWord {}

impl From<BadWord> for Error {
    fn from(bad: BadWord) -> Error {
        Error::Cmdline(bad.to_string())
    }
}

impl Cmdline {
    /// Understands the whole command line, of which a NUL or a newline at the end is no part.
    pub fn parse(text: &[u8]) -> Result<Cmdline, BadWord> {
        let mut cmdline = Cmdline::default();
        let (mut kernel, mut initrds, mut append) = (None, Vec::new(), String::new());
        for word in words(text) {
            let Word { name, value, .. } = &word;
            let bad = |why: String| BadWord { word: word.to_string(), why };
            let value = || value.as_deref().filter(|value| !value.is_empty());
            let needed = || value().ok_or_else(|| bad("requires a value".into()));
            match name.as_str() {
                // Somebody else's root is none of ours.
                "root" => cmdline.root = value().map(root).transpose().map_err(bad)?.flatten(),
                "init" => cmdline.init = value().map(str::to_owned),
                "rd.xget.server" => {
                    let hosts = needed()?.split(',').map(HostPort::parse);
                    cmdline.servers = hosts.collect::<Result<_, _>>().map_err(bad)?;
                }
                "rd.xget.kernel" => kernel = Some(needed()?.to_owned()),
                "rd.xget.initramfs" | "rd.xget.initrd" => {
                    let paths = needed()?.split(',').filter(|path| !path.is_empty());
                    initrds.extend(paths.map(str::to_owned));
                }
                "rd.xget.append" => {
                    let space = if append.is_empty() { "" } else { " " };
                    append += &format!("{space}{}", value().unwrap_or_default());
                }
                "rd.xget.key" => cmdline.keys.push(key(needed()?).map_err(bad)?),
                "rd.xget.hash" => cmdline.hash = Some(hash(needed()?).map_err(bad)?),
                "rd.xget.net" => cmdline.net = net(needed()?).map_err(bad)?,
                "rd.xget.serve" => cmdline.serve = serve(needed()?).map_err(bad)?,
                "rd.xget.timeout" => cmdline.timeout = seconds(needed()?).map_err(bad)?,
                "rd.xget.retry" => cmdline.retry = seconds(needed()?).map_err(bad)?,
                "rd.xget.debug" => cmdline.debug = value().is_none_or(|value| value != "0"),
                "ip" | "BOOTIF" | "ifname" | "nameserver" | "rd.route" | "vlan" => {
                    let several = |c: char| c == ',' && name == "nameserver";
                    let parts = value().unwrap_or_default().split(several);
                    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
                    if parts.is_empty() {
                        cmdline.ignored.push(bad("it has no value".into()));
                    }
                    for part in parts {
                        let word = format!("{name}={part}");
                        match cmdline.network.add(name, part) {
                            Err(why) => cmdline.ignored.push(BadWord { word, why }),
                            Ok(left_out) => cmdline.ignored.extend(
                                left_out
                                    .into_iter()
                                    .map(|why| BadWord { word: format!("a part of {word}"), why }),
                            ),
                        }
                    }
                }
                "bond" | "bridge" | "team" | "rd.znet" => cmdline.foreign.push(word.to_string()),
                other if other.starts_with("rd.xget.") => cmdline.unknown.push(word.to_string()),
                _ => {}
            }
        }
        cmdline.kernel = match kernel {
            Some(path) => Some(Kernel { path, initrds, append }),
            None if initrds.is_empty() && append.is_empty() => None,
            None => {
                return Err(BadWord {
                    word: "rd.xget.kernel=".to_owned(),
                    why: "missing, but rd.xget.initramfs= or rd.xget.append= is set".into(),
                });
            }
        };
        let root = cmdline.root.as_ref().map(|root| root.url.clone());
        cmdline.serves(root.as_ref());
        Ok(cmdline)
    }

    /// Tells the network what is known of who serves what is at `url`.
    pub(crate) fn serves(&mut self, url: Option<&Url>) {
        let of_url = url.and_then(|url| url.host.as_ref()).into_iter();
        let hosts: Vec<&HostPort> =
            if self.servers.is_empty() { of_url.collect() } else { self.servers.iter().collect() };
        let of_ips: Vec<IpAddr> = self.network.ips.iter().filter_map(|ip| ip.server).collect();
        let network = &mut self.network;
        network.names_server = !hosts.is_empty() || !of_ips.is_empty();
        if hosts.is_empty() {
            network.by_ipv6 = of_ips.iter().any(IpAddr::is_ipv6);
            network.servers = of_ips;
        } else {
            network.by_ipv6 = hosts.iter().any(|host| host.may_be_ipv6());
            let addresses = hosts.iter().map(|host| host.host.parse().ok());
            network.servers = addresses.collect::<Option<_>>().unwrap_or_default();
        }
    }

    /// Whether there is anything for xget to do.
    pub(crate) fn asks(&self) -> bool {
        self.root.is_some() || self.kernel.is_some()
    }
}

/// The command line of the next kernel: what this one's has for every kernel, then `append`.
///
/// `console=` and the address of the card that was booted from stay true for the next one. `initrd=`
/// and `BOOT_IMAGE=` name this one's files, and `rd.xget.*` is done.
pub(crate) fn next_cmdline(text: &[u8], append: &str) -> String {
    let stays = |word: &Word| {
        matches!(word.name.as_str(), "console" | "earlycon" | "earlyprintk" | "BOOTIF" | "panic")
    };
    let mut next: Vec<String> =
        words(text).iter().filter(|word| stays(word)).map(Word::to_string).collect();
    next.extend(words(append.as_bytes()).iter().map(Word::to_string));
    next.join(" ")
}

/// `NAME` or `NAME=VALUE`, without the quotes.
struct Word {
    name: String,
    value: Option<String>,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blank = |text: &str| text.contains(|c: char| c.is_ascii_whitespace());
        match &self.value {
            None if blank(&self.name) => write!(f, "\"{}\"", self.name),
            None => write!(f, "{}", self.name),
            Some(value) if blank(value) => write!(f, "{}=\"{value}\"", self.name),
            Some(value) => write!(f, "{}={value}", self.name),
        }
    }
}

/// The words, as the kernel finds them: a quote begins or ends a part in which blanks do not count.
/// What is not UTF-8 is no word of ours, and comes out changed.
fn words(text: &[u8]) -> Vec<Word> {
    let text = String::from_utf8_lossy(text);
    let mut quoted = false;
    let between = |c: char| match c {
        '"' => {
            quoted = !quoted;
            false
        }
        '\0' | '\n' => true,
        c => c.is_ascii_whitespace() && !quoted,
    };
    let words = text.split(between).map(|word| word.replace('"', ""));
    let split = |word: String| match word.split_once('=') {
        Some((name, value)) => Word { name: name.to_owned(), value: Some(value.to_owned()) },
        None => Word { name: word, value: None },
    };
    words.filter(|word| !word.is_empty()).map(split).collect()
}

/// `root=`'s value, if it is for xget.
fn root(value: &str) -> Result<Option<Root>, String> {
    let (live, rest) = match value.strip_prefix("live:") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    if !rest.starts_with("xget:") {
        return Ok(None);
    }
    let url = Url::parse(rest)?;
    Ok(Some(Root { url, live }))
}

fn key(value: &str) -> Result<Key, String> {
    Key::parse(value)
        .ok_or_else(|| "expected a minisign public key (RW..., 56 characters)".to_owned())
}

fn hash(value: &str) -> Result<Hash, String> {
    Hash::from_hex(value).map_err(|_| "expected a generation (64 hexadecimal digits)".into())
}

fn net(value: &str) -> Result<Net, String> {
    match value {
        "auto" => Ok(Net::Auto),
        "kernel" => Ok(Net::Kernel),
        "own" => Ok(Net::Own),
        _ => Err("expected auto, kernel or own".into()),
    }
}

fn serve(value: &str) -> Result<Serve, String> {
    match value {
        "yes" | "forever" => Ok(Serve::Yes),
        "no" => Ok(Serve::No),
        number => number
            .parse::<u32>()
            .map(|seconds| Serve::Seconds(seconds.into()))
            .map_err(|_| "expected yes, no or a number of seconds".into()),
    }
}

/// A number of seconds; 0 is none.
fn seconds(value: &str) -> Result<Option<Duration>, String> {
    let seconds: u32 = value.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}
