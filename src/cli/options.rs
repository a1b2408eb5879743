//! The table of all options, from which parsing, help and completions are made.
//!
//! A new option is a row here and a field of each command that has it (`command`).

use std::ffi::OsStr;

use super::args::{
    Args,
    Mode::{self, Boot, Fetch, Manifest, Serve, Status, TakeOver},
};
use super::command::{Command, Shell, StatusFormat};
use super::value::{
    cache, debug_level, hash, http_address, interval, log_format, network, parsed, rate, retries,
    seconds, serve_on,
};
use Kind::{Switch, Value};

/// One option.
pub(super) struct OptionSpec {
    pub(super) short: Option<char>,
    pub(super) long: &'static str,
    pub(super) kind: Kind,
    /// The modes that it can be used with. `kind` sets it in the commands of all these modes.
    pub(super) modes: &'static [Mode],
    /// In lines of at most 50 columns.
    pub(super) help: &'static str,
}

/// Whether an option has a value, and how it is stored.
pub(super) enum Kind {
    Switch(fn(&mut Args)),
    Value {
        /// What the help calls the value.
        metavar: &'static str,
        /// As in "invalid value: expected ...".
        expected: &'static str,
        /// Returns None if the value is not what is expected.
        set: fn(&mut Args, &OsStr) -> Option<()>,
    },
}

impl OptionSpec {
    /// Whether any of its modes is built in.
    pub(super) fn is_built_in(&self) -> bool {
        self.modes.iter().any(|mode| mode.is_built_in())
    }
}

pub(super) fn options() -> impl Iterator<Item = &'static OptionSpec> {
    SECTIONS.iter().flat_map(|(_, options)| *options)
}

const ALL_MODES: &[Mode] = &[Serve, Fetch, Status, Manifest, Boot, TakeOver];

/// All options, as the help groups them.
pub(super) static SECTIONS: &[(&str, &[OptionSpec])] = &[
    (
        "Serving",
        &[
            OptionSpec {
                short: Some('m'),
                long: "max",
                kind: Value {
                    metavar: "N",
                    expected: "a number of nodes, 1 or more",
                    set: |args, v| parsed(v).map(|max| args.serve.max_fed = max),
                },
                modes: &[Serve],
                help: "feed at most N nodes at once (default 4); others\nfetch from those",
            },
            OptionSpec {
                short: Some('x'),
                long: "one-file-system",
                kind: Switch(|args| {
                    args.serve.one_file_system = true;
                    args.manifest.one_file_system = true;
                }),
                modes: &[Serve, Manifest],
                help: "leave out what is mounted below DIR",
            },
            OptionSpec {
                short: None,
                long: "cache",
                kind: Value {
                    metavar: "DIR",
                    expected: "a directory",
                    set: |args, v| {
                        args.serve.cache = cache(v);
                        args.manifest.cache = cache(v);
                        Some(())
                    },
                },
                modes: &[Serve, Manifest],
                help: "keep the hashes of files here (default\n\
                       /var/cache/xget); \"none\" keeps none",
            },
            OptionSpec {
                short: None,
                long: "rescan",
                kind: Value {
                    metavar: "SECONDS",
                    expected: "a number of seconds",
                    set: |args, v| seconds(v).map(|secs| args.serve.rescan = interval(secs)),
                },
                modes: &[Serve],
                help: "how often to look for changes (default 2;\n\
                       0: never)",
            },
            OptionSpec {
                short: None,
                long: "rehash",
                kind: Value {
                    metavar: "SECONDS",
                    expected: "a number of seconds",
                    set: |args, v| seconds(v).map(|secs| args.serve.rehash = interval(secs)),
                },
                modes: &[Serve],
                help: "read all files again, slowly, once in this time\n\
                       (default 0: never)",
            },
            OptionSpec {
                short: None,
                long: "http",
                kind: Value {
                    metavar: "[ADDR:]PORT",
                    expected: "a port, or an address and a port",
                    set: |args, v| http_address(v).map(|address| args.serve.http = Some(address)),
                },
                modes: &[Serve],
                help: "also serve the files over HTTP, with the pages\nof --metrics, on the \
                 address of --listen",
            },
            OptionSpec {
                short: None,
                long: "metrics",
                kind: Value {
                    metavar: "[ADDR:]PORT",
                    expected: "a port, or an address and a port",
                    set: |args, v| {
                        http_address(v).map(|address| args.serve.metrics = Some(address))
                    },
                },
                modes: &[Serve],
                help: "serve a status page (/.xget/) and metrics\n(/metrics) over HTTP (default \
                 ADDR: 127.0.0.1)",
            },
        ],
    ),
    (
        "Fetching",
        &[
            OptionSpec {
                short: Some('n'),
                long: "server",
                kind: Value {
                    metavar: "HOST[:PORT][,...]",
                    expected: "a host",
                    set: |args, v| parsed(v).map(|server| args.server = Some(server)),
                },
                modes: &[Fetch, Status],
                help: "the master; with several, any of them is used.\nIPv6 address and port: \
                 [ADDR]:PORT",
            },
            OptionSpec {
                short: None,
                long: "aname",
                kind: Value {
                    metavar: "NAME",
                    expected: "a name",
                    set: |args, v| parsed(v).map(|aname| args.fetch.aname = Some(aname)),
                },
                modes: &[Fetch],
                help: "fetch from a 9P server other than xget that\nexports its tree under this \
                 name; not verified",
            },
            OptionSpec {
                short: Some('s'),
                long: "no-mode",
                kind: Switch(|args| args.fetch.no_mode = true),
                modes: &[Fetch],
                help: "do not set file modes",
            },
            OptionSpec {
                short: Some('r'),
                long: "retries",
                kind: Value {
                    metavar: "N|forever",
                    expected: "a number or \"forever\"",
                    set: |args, v| retries(v).map(|retries| args.fetch.retries = retries),
                },
                modes: &[Fetch],
                help: "retry N times to connect to the master\n(default 5)",
            },
            OptionSpec {
                short: None,
                long: "retry-wait",
                kind: Value {
                    metavar: "SECONDS",
                    expected: "a number of seconds, 1 or more",
                    set: |args, v| {
                        interval(seconds(v)?).map(|wait| args.fetch.max_retry_wait = wait)
                    },
                },
                modes: &[Fetch],
                help: "longest wait between two attempts (default 8)",
            },
            OptionSpec {
                short: None,
                long: "timeout",
                kind: Value {
                    metavar: "SECONDS",
                    expected: "a number of seconds",
                    set: |args, v| seconds(v).map(|secs| args.fetch.timeout = interval(secs)),
                },
                modes: &[Fetch],
                help: "give up after this time (default: --retries\ndecide); fetched data is kept",
            },
            OptionSpec {
                short: None,
                long: "must-fit",
                kind: Switch(|args| args.fetch.must_fit = true),
                modes: &[Fetch],
                help: "fetch nothing unless there is space for all of\nit (holes in files count \
                 as data)",
            },
            OptionSpec {
                short: None,
                long: "serve",
                kind: Value {
                    metavar: "SECONDS|forever|no",
                    expected: "a number of seconds, \"forever\" or \"no\"",
                    set: |args, v| serve_on(v).map(|serve_on| args.fetch.serve_on = serve_on),
                },
                modes: &[Fetch],
                help: "how long to serve other nodes after the fetch\n(default: while they fetch \
                 from this one)",
            },
            OptionSpec {
                short: None,
                long: "state",
                kind: Value {
                    metavar: "DIR",
                    expected: "a directory",
                    set: |args, v| {
                        args.fetch.state = Some(v.into());
                        Some(())
                    },
                },
                modes: &[Fetch],
                help: "while serving, describe it in DIR/state.json\nand accept --take-over \
                 there",
            },
            OptionSpec {
                short: None,
                long: "own-net",
                kind: Value {
                    metavar: "LINK,ADDR/PREFIX[,NETWORK/PREFIX=ROUTER]...",
                    expected: "a link, an IPv4 address with its prefix, and routes",
                    set: |args, v| parsed(v).map(|config| args.fetch.own_net = Some(config)),
                },
                modes: &[Fetch],
                help: "use xget's own TCP as ADDR on LINK, which must\nbe up and without address \
                 (needs root);\nmtu=BYTES may follow",
            },
        ],
    ),
    (
        "Trusting",
        &[
            OptionSpec {
                short: None,
                long: "key",
                kind: Value {
                    metavar: "KEY|FILE",
                    expected: "a key or a file",
                    set: |args, v| {
                        args.serve.keys.push(v.into());
                        args.fetch.keys.push(v.into());
                        Some(())
                    },
                },
                modes: &[Serve, Fetch],
                help: "accept only manifests signed with this minisign\npublic key (RW...) or \
                 one of those in a file;\ncan be repeated: any of the keys is accepted",
            },
            OptionSpec {
                short: None,
                long: "hash",
                kind: Value {
                    metavar: "GENERATION",
                    expected: "a generation (64 hexadecimal digits)",
                    set: |args, v| hash(v).map(|hash| args.fetch.hash = Some(hash)),
                },
                modes: &[Fetch],
                help: "fetch only this generation: the BLAKE3 hash of\n\
                       its manifest",
            },
            OptionSpec {
                short: None,
                long: "signature",
                kind: Value {
                    metavar: "FILE",
                    expected: "a file",
                    set: |args, v| {
                        args.serve.signature = Some(v.into());
                        Some(())
                    },
                },
                modes: &[Serve],
                help: "serve this minisign signature of the manifest,\nwhich --key verifies",
            },
        ],
    ),
    (
        "Booting",
        &[
            OptionSpec {
                short: None,
                long: "boot",
                kind: Switch(|args| args.modes.push(Boot)),
                modes: &[Boot],
                help: "boot as the kernel command line says (in an\ninitramfs); with URL: only \
                 fetch that, and\nprint where it is",
            },
            OptionSpec {
                short: None,
                long: "take-over",
                kind: Switch(|args| args.modes.push(TakeOver)),
                modes: &[TakeOver],
                help: "take over from the process that serves with\n--state DIR (default \
                 /run/xget, as in a boot);\nif there is none, do nothing",
            },
        ],
    ),
    (
        "Looking",
        &[
            OptionSpec {
                short: None,
                long: "status",
                kind: Switch(|args| args.modes.push(Status)),
                modes: &[Status],
                help: "print what each node holds and how fast it\nfetches",
            },
            OptionSpec {
                short: None,
                long: "json",
                kind: Switch(|args| args.status.format = StatusFormat::Json),
                modes: &[Status],
                help: "print the status as JSON",
            },
            OptionSpec {
                short: None,
                long: "raw",
                kind: Switch(|args| args.status.format = StatusFormat::Raw),
                modes: &[Status],
                help: "print it as the server sends it, NAME=VALUE",
            },
            OptionSpec {
                short: None,
                long: "watch",
                kind: Switch(|args| args.status.watch = true),
                modes: &[Status],
                help: "repeat every second",
            },
            OptionSpec {
                short: None,
                long: "manifest",
                kind: Switch(|args| args.modes.push(Manifest)),
                modes: &[Manifest],
                help: "print the manifest of a tree, with its hashes",
            },
            OptionSpec {
                short: None,
                long: "completions",
                kind: Value {
                    metavar: "bash|zsh|fish",
                    expected: "a shell (bash, zsh or fish)",
                    set: |args, v| {
                        args.immediate = Some(Command::Completions(Shell::named(v)?));
                        Some(())
                    },
                },
                modes: &[Serve, Manifest],
                help: "print a completion script for that shell",
            },
            OptionSpec {
                short: Some('h'),
                long: "help",
                kind: Switch(|args| args.immediate = Some(Command::Help)),
                modes: ALL_MODES,
                help: "print this help",
            },
            OptionSpec {
                short: Some('V'),
                long: "version",
                kind: Switch(|args| args.immediate = Some(Command::Version)),
                modes: ALL_MODES,
                help: "print the version",
            },
        ],
    ),
    (
        "Common",
        &[
            OptionSpec {
                short: Some('p'),
                long: "port",
                kind: Value {
                    metavar: "PORT",
                    expected: "a port (0 to 65535)",
                    set: |args, v| {
                        let port = parsed(v)?;
                        args.serve.port = port;
                        args.fetch.port = port;
                        args.status.port = port;
                        Some(())
                    },
                },
                modes: &[Serve, Fetch, Status],
                help: "the master's port (default 20004); a node also\nserves on it, or on a \
                 free one if it is taken",
            },
            OptionSpec {
                short: None,
                long: "listen",
                kind: Value {
                    metavar: "ADDR",
                    expected: "an IP address",
                    set: |args, v| {
                        let address = parsed(v)?;
                        args.serve.listen = Some(address);
                        args.fetch.listen = Some(address);
                        Some(())
                    },
                },
                modes: &[Serve, Fetch],
                help: "serve on this address only (default: all)",
            },
            OptionSpec {
                short: None,
                long: "allow",
                kind: Value {
                    metavar: "NETWORK",
                    expected: "a network such as 10.1.0.0/16, or an IP address",
                    set: |args, v| {
                        let network = network(v)?;
                        args.serve.allowed.0.push(network);
                        args.fetch.allowed.0.push(network);
                        Some(())
                    },
                },
                modes: &[Serve, Fetch],
                help: "serve only hosts of this network, and fetch\nfrom no others but the master \
                       (default: all);\ncan be repeated",
            },
            OptionSpec {
                short: None,
                long: "max-upload",
                kind: Value {
                    metavar: "RATE",
                    expected: "a number of bytes per second, such as 800K, 50M or 1G",
                    set: |args, v| {
                        let rate = rate(v)?;
                        args.serve.max_upload = Some(rate);
                        args.fetch.max_upload = Some(rate);
                        Some(())
                    },
                },
                modes: &[Serve, Fetch],
                help: "send at most this many bytes per second in\ntotal; K, M and G are powers \
                 of 1024",
            },
            OptionSpec {
                short: Some('o'),
                long: "no-owner",
                kind: Switch(|args| {
                    args.serve.no_owner = true;
                    args.fetch.no_owner = true;
                    args.manifest.no_owner = true;
                }),
                modes: &[Serve, Fetch, Manifest],
                help: "leave owners out of the manifest; when\nfetching, do not set owners",
            },
            OptionSpec {
                short: Some('b'),
                long: "background",
                kind: Switch(|args| {
                    args.serve.background = true;
                    args.fetch.background = true;
                }),
                modes: &[Serve, Fetch],
                help: "return once the tree is served, or once all\nfiles are fetched, and serve \
                 in the background",
            },
            OptionSpec {
                short: Some('q'),
                long: "quiet",
                kind: Switch(|args| args.logging.progress = false),
                modes: &[Serve, Fetch, Manifest],
                help: "show no progress",
            },
            OptionSpec {
                short: Some('D'),
                long: "debug",
                kind: Value {
                    metavar: "LEVEL",
                    expected: "a level (0, 1 or 2)",
                    set: |args, v| debug_level(v).map(|level| args.logging.level = level),
                },
                modes: ALL_MODES,
                help: "0: important messages (default), 1: also\nconnections, 2: every 9P \
                 message",
            },
            OptionSpec {
                short: Some('v'),
                long: "verbose",
                kind: Switch(|args| args.logging.level = args.logging.level.more()),
                modes: ALL_MODES,
                help: "same as -D 1; twice: -D 2",
            },
            OptionSpec {
                short: None,
                long: "log",
                kind: Value {
                    metavar: "FORM",
                    expected: "auto, plain, prefix or kmsg",
                    set: |args, v| log_format(v).map(|format| args.logging.format = format),
                },
                modes: ALL_MODES,
                help: "prefix: a priority before each line (default\nif the journal reads them); \
                 plain: no prefix;\nkmsg: also write to the kernel log",
            },
        ],
    ),
];
