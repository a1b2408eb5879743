//! Every option of the program, once.

use std::ffi::OsStr;
use std::net::IpAddr;

use super::command::{Command, Shell};
use super::given::Given;
use super::value::{
    cache, debug_level, hash, http_port, interval, log_form, parsed, rate, retries, seconds,
    serve_on,
};
use Form::{Boot, Fetch, Manifest, Serve, Status, TakeOver};
use Takes::{Nothing, Value};

/// Whether this build can be a master. The node build only fetches, serves on and looks.
const HAS_MASTER: bool = cfg!(feature = "master");

/// The forms of the command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Serve,
    Fetch,
    Status,
    Manifest,
    Boot,
    TakeOver,
}

impl Form {
    pub(super) fn is_built_in(self) -> bool {
        HAS_MASTER || matches!(self, Fetch | Status | Boot | TakeOver)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Serve => "serving",
            Fetch => "fetching (-n)",
            Status => "--status",
            Manifest => "--manifest",
            Boot => "--boot",
            TakeOver => "--take-over",
        }
    }
}

/// One option.
pub(super) struct Opt {
    pub(super) short: Option<char>,
    pub(super) long: &'static str,
    pub(super) takes: Takes,
    /// The forms it goes with.
    pub(super) forms: &'static [Form],
    /// What the help says of it, in lines of at most 50 columns.
    pub(super) help: &'static str,
}

/// What follows an option, and what the option does to what is [`Given`].
pub(super) enum Takes {
    Nothing(fn(&mut Given)),
    Value {
        /// What the help calls it.
        name: &'static str,
        /// What it has to be, as in "VALUE is not ...".
        kind: &'static str,
        /// Stores it; None if it is not of that kind.
        set: fn(&mut Given, &OsStr) -> Option<()>,
    },
}

const EVERY_FORM: &[Form] = &[Serve, Fetch, Status, Manifest, Boot, TakeOver];

/// All options, as the help groups them.
pub(super) static SECTIONS: &[(&str, &[Opt])] = &[
    (
        "Serving",
        &[
            Opt {
                short: Some('m'),
                long: "max",
                takes: Value {
                    name: "N",
                    kind: "a number of nodes, 1 or more",
                    set: |given, v| parsed(v).map(|max| given.max_fed = max),
                },
                forms: &[Serve],
                help: "feed at most N nodes at once (default 4); others\nfetch from those",
            },
            Opt {
                short: Some('x'),
                long: "one-file-system",
                takes: Nothing(|given| given.one_file_system = true),
                forms: &[Serve, Manifest],
                help: "leave out what is mounted below DIR",
            },
            Opt {
                short: None,
                long: "cache",
                takes: Value {
                    name: "DIR",
                    kind: "a directory",
                    set: |given, v| cache(v).map(|cache| given.cache = cache),
                },
                forms: &[Serve, Manifest],
                help: "keep the hashes of files here (default\n\
                       /var/cache/xget); \"none\" keeps none",
            },
            Opt {
                short: None,
                long: "rescan",
                takes: Value {
                    name: "SECONDS",
                    kind: "a number of seconds",
                    set: |given, v| seconds(v).map(|secs| given.rescan = interval(secs)),
                },
                forms: &[Serve],
                help: "how often to look for changes (default 2;\n\
                       0: never)",
            },
            Opt {
                short: None,
                long: "http",
                takes: Value {
                    name: "[ADDR:]PORT",
                    kind: "a port, or an address and a port",
                    set: |given, v| http_port(v).map(|port| given.http = Some(port)),
                },
                forms: &[Serve],
                help: "also serve the files over HTTP, with the pages\nof --metrics, on the \
                 address of --listen",
            },
            Opt {
                short: None,
                long: "metrics",
                takes: Value {
                    name: "[ADDR:]PORT",
                    kind: "a port, or an address and a port",
                    set: |given, v| http_port(v).map(|port| given.metrics = Some(port)),
                },
                forms: &[Serve],
                help: "serve a status page (/.xget/) and metrics\n(/metrics) over HTTP (default \
                 ADDR: 127.0.0.1)",
            },
        ],
    ),
    (
        "Fetching",
        &[
            Opt {
                short: Some('n'),
                long: "server",
                takes: Value {
                    name: "HOST[:PORT][,...]",
                    kind: "a host",
                    set: |given, v| parsed(v).map(|server| given.server = Some(server)),
                },
                forms: &[Fetch, Status],
                help: "the master; with several, any of them is used.\nIPv6 address and port: \
                 [ADDR]:PORT",
            },
            Opt {
                short: None,
                long: "aname",
                takes: Value {
                    name: "NAME",
                    kind: "a name",
                    set: |given, v| parsed(v).map(|aname| given.aname = Some(aname)),
                },
                forms: &[Fetch],
                help: "fetch from a 9P server other than xget that\nexports its tree under this \
                 name; not verified",
            },
            Opt {
                short: Some('s'),
                long: "no-mode",
                takes: Nothing(|given| given.no_mode = true),
                forms: &[Fetch],
                help: "do not set file modes",
            },
            Opt {
                short: Some('r'),
                long: "retries",
                takes: Value {
                    name: "N|forever",
                    kind: "a number or \"forever\"",
                    set: |given, v| retries(v).map(|retries| given.retries = retries),
                },
                forms: &[Fetch],
                help: "retry N times to connect to the master\n(default 5)",
            },
            Opt {
                short: None,
                long: "retry-wait",
                takes: Value {
                    name: "SECONDS",
                    kind: "a number of seconds, 1 or more",
                    set: |given, v| interval(seconds(v)?).map(|wait| given.longest_wait = wait),
                },
                forms: &[Fetch],
                help: "longest wait between two attempts (default 8)",
            },
            Opt {
                short: None,
                long: "timeout",
                takes: Value {
                    name: "SECONDS",
                    kind: "a number of seconds",
                    set: |given, v| seconds(v).map(|secs| given.timeout = interval(secs)),
                },
                forms: &[Fetch],
                help: "give up after this time (default: --retries\ndecide); fetched data is kept",
            },
            Opt {
                short: None,
                long: "must-fit",
                takes: Nothing(|given| given.must_fit = true),
                forms: &[Fetch],
                help: "fetch nothing unless there is space for all of\nit (holes in files count \
                 as data)",
            },
            Opt {
                short: None,
                long: "serve",
                takes: Value {
                    name: "SECONDS|forever|no",
                    kind: "a number of seconds, \"forever\" or \"no\"",
                    set: |given, v| serve_on(v).map(|serve_on| given.serve_on = serve_on),
                },
                forms: &[Fetch],
                help: "how long to serve other nodes after the fetch\n(default: while they fetch \
                 from this one)",
            },
            Opt {
                short: None,
                long: "state",
                takes: Value {
                    name: "DIR",
                    kind: "a directory",
                    set: |given, v| {
                        given.state = Some(v.into());
                        Some(())
                    },
                },
                forms: &[Fetch],
                help: "while serving, describe it in DIR/state.json\nand accept --take-over \
                 there",
            },
            Opt {
                short: None,
                long: "own-net",
                takes: Value {
                    name: "LINK,ADDR/PREFIX[,NETWORK/PREFIX=ROUTER]...",
                    kind: "a link, an IPv4 address with its prefix, and routes",
                    set: |given, v| parsed(v).map(|config| given.own_net = Some(config)),
                },
                forms: &[Fetch],
                help: "use xget's own TCP as ADDR on LINK, which must\nbe up and without address \
                 (needs root);\nmtu=BYTES may follow",
            },
        ],
    ),
    (
        "Trusting",
        &[
            Opt {
                short: None,
                long: "key",
                takes: Value {
                    name: "KEY|FILE",
                    kind: "a key or a file",
                    set: |given, v| {
                        given.keys.push(v.to_owned());
                        Some(())
                    },
                },
                forms: &[Serve, Fetch],
                help: "accept only manifests signed with this minisign\npublic key (RW...) or \
                 one of those in a file;\ncan be repeated: any of the keys is accepted",
            },
            Opt {
                short: None,
                long: "hash",
                takes: Value {
                    name: "GENERATION",
                    kind: "a generation (64 hexadecimal digits)",
                    set: |given, v| hash(v).map(|hash| given.hash = Some(hash)),
                },
                forms: &[Fetch],
                help: "fetch only this generation: the BLAKE3 hash of\n\
                       its manifest",
            },
            Opt {
                short: None,
                long: "signature",
                takes: Value {
                    name: "FILE",
                    kind: "a file",
                    set: |given, v| {
                        given.signature = Some(v.into());
                        Some(())
                    },
                },
                forms: &[Serve],
                help: "serve this minisign signature of the manifest,\nwhich --key verifies",
            },
        ],
    ),
    (
        "Booting",
        &[
            Opt {
                short: None,
                long: "boot",
                takes: Nothing(|given| given.boot = true),
                forms: &[Boot],
                help: "boot as the kernel command line says (in an\ninitramfs); with URL: only \
                 fetch that, and\nprint where it is",
            },
            Opt {
                short: None,
                long: "take-over",
                takes: Nothing(|given| given.take_over = true),
                forms: &[TakeOver],
                help: "take over from the process that serves with\n--state DIR (default \
                 /run/xget, as in a boot);\nif there is none, do nothing",
            },
        ],
    ),
    (
        "Looking",
        &[
            Opt {
                short: None,
                long: "status",
                takes: Nothing(|given| given.status = true),
                forms: &[Status],
                help: "print what each node holds and how fast it\nfetches",
            },
            Opt {
                short: None,
                long: "json",
                takes: Nothing(|given| given.json = true),
                forms: &[Status],
                help: "print the status as JSON",
            },
            Opt {
                short: None,
                long: "raw",
                takes: Nothing(|given| given.raw = true),
                forms: &[Status],
                help: "print it as the server sends it, NAME=VALUE",
            },
            Opt {
                short: None,
                long: "watch",
                takes: Nothing(|given| given.watch = true),
                forms: &[Status],
                help: "repeat every second",
            },
            Opt {
                short: None,
                long: "manifest",
                takes: Nothing(|given| given.manifest = true),
                forms: &[Manifest],
                help: "print the manifest of a tree, with its hashes",
            },
            Opt {
                short: None,
                long: "completions",
                takes: Value {
                    name: "bash|zsh|fish",
                    kind: "a shell (bash, zsh or fish)",
                    set: |given, v| {
                        given.answer = Some(Command::Completions(Shell::named(v)?));
                        Some(())
                    },
                },
                forms: &[Serve, Manifest],
                help: "print a completion script for that shell",
            },
            Opt {
                short: Some('h'),
                long: "help",
                takes: Nothing(|given| given.answer = Some(Command::Help)),
                forms: EVERY_FORM,
                help: "print this help",
            },
            Opt {
                short: Some('V'),
                long: "version",
                takes: Nothing(|given| given.answer = Some(Command::Version)),
                forms: EVERY_FORM,
                help: "print the version",
            },
        ],
    ),
    (
        "Common",
        &[
            Opt {
                short: Some('p'),
                long: "port",
                takes: Value {
                    name: "PORT",
                    kind: "a port (0 to 65535)",
                    set: |given, v| parsed(v).map(|port| given.port = port),
                },
                forms: &[Serve, Fetch, Status],
                help: "the master's port (default 20004); a node also\nserves on it, or on a \
                 free one if it is taken",
            },
            Opt {
                short: None,
                long: "listen",
                takes: Value {
                    name: "ADDR",
                    kind: "an IP address",
                    set: |given, v| parsed::<IpAddr>(v).map(|ip| given.listen = Some(ip)),
                },
                forms: &[Serve, Fetch],
                help: "serve on this address only (default: all)",
            },
            Opt {
                short: None,
                long: "allow",
                takes: Value {
                    name: "NETWORK",
                    kind: "a network such as 10.1.0.0/16, or an IP address",
                    set: |given, v| parsed(v).map(|network| given.allowed.0.push(network)),
                },
                forms: &[Serve, Fetch],
                help: "serve only hosts of this network (default:\nall); can be repeated",
            },
            Opt {
                short: None,
                long: "max-upload",
                takes: Value {
                    name: "RATE",
                    kind: "a number of bytes per second, such as 800K, 50M or 1G",
                    set: |given, v| rate(v).map(|rate| given.max_upload = Some(rate)),
                },
                forms: &[Serve, Fetch],
                help: "send at most this many bytes per second in\ntotal; K, M and G are powers \
                 of 1024",
            },
            Opt {
                short: Some('o'),
                long: "no-owner",
                takes: Nothing(|given| given.no_owner = true),
                forms: &[Serve, Fetch, Manifest],
                help: "leave owners out of the manifest; when\nfetching, do not set owners",
            },
            Opt {
                short: Some('b'),
                long: "background",
                takes: Nothing(|given| given.background = true),
                forms: &[Serve, Fetch],
                help: "return once the tree is served, or once all\nfiles are fetched, and serve \
                 in the background",
            },
            Opt {
                short: Some('q'),
                long: "quiet",
                takes: Nothing(|given| given.logging.progress = false),
                forms: &[Serve, Fetch, Manifest],
                help: "show no progress",
            },
            Opt {
                short: Some('D'),
                long: "debug",
                takes: Value {
                    name: "LEVEL",
                    kind: "a level (0, 1 or 2)",
                    set: |given, v| debug_level(v).map(|level| given.logging.level = level),
                },
                forms: EVERY_FORM,
                help: "0: important messages (default), 1: also\nconnections, 2: every 9P \
                 message",
            },
            Opt {
                short: Some('v'),
                long: "verbose",
                takes: Nothing(|given| given.logging.level = given.logging.level.more()),
                forms: EVERY_FORM,
                help: "same as -D 1; twice: -D 2",
            },
            Opt {
                short: None,
                long: "log",
                takes: Value {
                    name: "FORM",
                    kind: "auto, plain, prefix or kmsg",
                    set: |given, v| log_form(v).map(|form| given.logging.form = form),
                },
                forms: EVERY_FORM,
                help: "prefix: a priority before each line (default\nif the journal reads them); \
                 plain: no prefix;\nkmsg: also write to the kernel log",
            },
        ],
    ),
];

pub(super) fn options() -> impl Iterator<Item = &'static Opt> {
    SECTIONS.iter().flat_map(|(_, options)| *options)
}

impl Opt {
    pub(super) fn is_built_in(&self) -> bool {
        self.forms.iter().any(|form| form.is_built_in())
    }
}
