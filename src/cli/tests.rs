use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use super::args::{Args, Mode};
use super::options::Kind;
use super::*;
use crate::error::Error;
use crate::process::log::{Level, LogFormat, Logging};
use crate::serve::admission::Allowed;

fn run(line: &str) -> Result<Command, String> {
    parse_words(line.split_whitespace().map(OsString::from))
}

fn parse_words(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    parse(words).map_err(|error| match error {
        Error::Usage(text) => text,
        other => panic!("not a usage error: {other}"),
    })
}

fn fetch(line: &str) -> FetchOptions {
    match run(line) {
        Ok(Command::Fetch(fetch)) => fetch,
        other => panic!("{other:?}"),
    }
}

fn refused(line: &str, text: &str) {
    assert_eq!(run(line).expect_err(line), text);
}

#[test]
fn the_original_way_to_fetch_everything() {
    let expected = FetchOptions {
        server: "masterserver".to_owned(),
        port: 20004,
        listen: None,
        allowed: Allowed::default(),
        sources: vec![".".into()],
        dest: "/tmp/download".into(),
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
    };
    assert_eq!(run("-n masterserver . /tmp/download"), Ok(Command::Fetch(expected)));
}

#[test]
fn the_original_way_to_fetch_one_file() {
    let given = fetch("-n masterserver file1 /tmp/download");
    assert_eq!((given.sources, given.dest), (vec!["file1".into()], "/tmp/download".into()));
}

#[test]
fn the_tree_of_another_server_is_named() {
    let given = fetch("-n head:564 --aname=/srv/boot . /boot");
    assert_eq!(given.aname.as_deref(), Some("/srv/boot"));
    assert_eq!(fetch("-n head . /boot").aname, None);
}

#[test]
fn what_is_sent_a_second_can_be_limited() {
    for (written, bytes) in
        [("1000", 1000), ("800K", 800 << 10), ("50m", 50 << 20), ("1G", 1 << 30)]
    {
        let given = fetch(&format!("-n head --max-upload {written} . /boot"));
        assert_eq!(given.max_upload.map(u64::from), Some(bytes), "{written}");
    }
}

#[test]
fn a_limit_that_is_none_is_refused() {
    for written in ["0", "K", "-1", "1.5M", "99999999999G", "10MB"] {
        let refused = run(&format!("-n head --max-upload {written} . /boot")).unwrap_err();
        assert!(refused.to_string().contains("--max-upload"), "{refused}");
    }
}

#[test]
fn keys_add_up_and_may_be_files() {
    assert_eq!(fetch("-n head --key RWabc --key=/etc/key.pub . d").keys, ["RWabc", "/etc/key.pub"]);
}

#[test]
fn a_hash_has_64_hexadecimal_digits() {
    let hash = "0123456789abcdef".repeat(4);
    let given = fetch(&format!("-n head --hash {hash} . d")).hash;
    assert_eq!(given.map(|given| given.to_string()), Some(hash.clone()));
    for wrong in [&hash[1..], &format!("{hash}0"), "latest"] {
        let text =
            format!("--hash: invalid value {wrong}: expected a generation (64 hexadecimal digits)");
        refused(&format!("-n head --hash {wrong} . d"), &text);
    }
}

#[test]
fn every_original_option_of_a_client() {
    let given = fetch("-n head:99 -p 3333 -s -o -r 7 -D 1 a b /boot");
    assert_eq!((given.server.as_str(), given.port), ("head:99", 3333));
    assert!(given.no_mode && given.no_owner);
    assert_eq!((given.retries, given.logging.level), (Retries::Times(7), Level::Info));
    assert_eq!(given.sources, ["a", "b"]);
}

#[test]
fn short_options_combine() {
    let given = fetch("-son head . /x");
    assert!(given.no_mode && given.no_owner);
    assert_eq!(given.server, "head");
}

#[test]
fn a_value_may_stand_right_behind_its_option() {
    for line in ["--port=1 -n h . d", "--port 1 -n h . d", "-p1 -n h . d", "-p 1 -nh . d"] {
        assert_eq!(fetch(line).port, 1, "{line}");
    }
}

#[test]
fn options_may_stand_behind_operands() {
    assert!(fetch("-n h . d -s").no_mode);
}

#[test]
fn the_last_of_two_values_counts() {
    assert_eq!(fetch("-p 1 -n h -p 2 . d").port, 2);
}

#[test]
fn two_dashes_end_the_options() {
    let given = fetch("-n h -- -s -d");
    assert_eq!((given.sources, given.dest), (vec!["-s".into()], "-d".into()));
}

#[test]
fn operands_may_be_any_bytes() {
    let odd = OsString::from_vec(b"a\xff\n".to_vec());
    let words = ["-n".into(), "h".into(), odd.clone(), odd.clone()];
    match parse_words(words) {
        Ok(Command::Fetch(fetch)) => {
            assert_eq!((fetch.sources, fetch.dest), (vec![odd.clone()], odd.into()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ipv6_server_is_kept_as_it_is() {
    assert_eq!(fetch("-n [fd00::1]:564 . d").server, "[fd00::1]:564");
}

#[test]
fn how_long_to_serve_on() {
    assert_eq!(fetch("-n h --serve=90 . d").serve_on, ServeOn::Seconds(90));
    assert_eq!(fetch("-n h --serve=forever . d").serve_on, ServeOn::Forever);
    assert_eq!(fetch("-n h --serve=no . d").serve_on, ServeOn::No);
}

#[test]
fn trying_again_for_ever() {
    assert_eq!(fetch("-n h -r forever . d").retries, Retries::Forever);
}

#[test]
fn how_long_to_try() {
    let given = fetch("-n h --timeout 90 --retry-wait 2 . d");
    assert_eq!(given.timeout, Some(Duration::from_secs(90)));
    assert_eq!(given.max_retry_wait, Duration::from_secs(2));
    refused(
        "-n h --retry-wait 0 . d",
        "--retry-wait: invalid value 0: expected a number of seconds, 1 or more",
    );
}

#[test]
fn booting_takes_one_url_or_nothing() {
    let logging = Logging { format: LogFormat::Kmsg, ..Logging::default() };
    assert_eq!(run("--boot"), Ok(Command::Boot(BootOptions { url: None, logging })));
    let url = Some("xget://head/root".to_owned());
    assert_eq!(run("--boot xget://head/root"), Ok(Command::Boot(BootOptions { url, logging })));
    refused("--boot a b", "--boot takes at most one URL");
    refused("--boot -n head", "-n can only be used with fetching (-n) or --status");
}

#[test]
fn one_address_to_listen_on() {
    assert_eq!(fetch("-n h --listen ::1 . d").listen, Some("::1".parse().unwrap()));
}

#[test]
fn more_debugging_than_there_is_is_all_there_is() {
    assert_eq!(fetch("-n h -D 9 . d").logging.level, Level::Debug);
}

#[test]
fn each_v_says_more() {
    assert_eq!(fetch("-n h -v . d").logging.level, Level::Info);
    assert_eq!(fetch("-n h -vv . d").logging.level, Level::Debug);
    assert_eq!(fetch("-n h --verbose -D 0 . d").logging.level, Level::Notice);
}

#[test]
fn the_form_of_the_log() {
    assert_eq!(fetch("-n h . d").logging.format, LogFormat::Auto);
    assert_eq!(fetch("-n h --log prefix . d").logging.format, LogFormat::Prefix);
    refused(
        "-n h --log loud . d",
        "--log: invalid value loud: expected auto, plain, prefix or kmsg",
    );
}

#[test]
fn a_status_as_json() {
    let logging = Logging { progress: false, ..Logging::default() };
    let format = StatusFormat::Json;
    let expected =
        StatusOptions { server: "h".to_owned(), port: 20004, format, watch: false, logging };
    assert_eq!(run("--status -n h --json"), Ok(Command::Status(expected)));
    refused("--status -n h --json --raw", "--json and --raw cannot be used together");
}

#[test]
fn help_and_version_need_nothing_else() {
    assert_eq!(run("-h"), Ok(Command::Help));
    assert_eq!(run("--version"), Ok(Command::Version));
}

#[test]
fn help_is_given_whatever_follows() {
    assert_eq!(run("-n h --help --nonsense"), Ok(Command::Help));
}

#[test]
fn an_unknown_option_is_named() {
    refused("--nonsense", "unknown option --nonsense");
    refused("-z", "unknown option -z");
}

#[test]
fn an_unknown_option_cannot_drive_the_terminal() {
    refused("--a\x1b[2J", "unknown option --a\\x1b[2J");
}

#[test]
fn a_missing_value_is_named() {
    refused("-n", "-n requires a value: HOST[:PORT][,...]");
    refused("--port", "--port requires a value: PORT");
    refused("-n h --serve= . d", "--serve requires a value: SECONDS|forever|no");
}

#[test]
fn a_value_that_nobody_wants_is_refused() {
    refused("-n h --no-mode=yes . d", "--no-mode takes no value");
    refused("-n h -s=yes . d", "-s takes no value");
}

#[test]
fn a_value_of_the_wrong_kind_is_shown() {
    refused("-n h -p 65536 . d", "-p: invalid value 65536: expected a port (0 to 65535)");
    refused("-n h -r often . d", "-r: invalid value often: expected a number or \"forever\"");
    refused("-m 0 d", "-m: invalid value 0: expected a number of nodes, 1 or more");
    refused("--listen host d", "--listen: invalid value host: expected an IP address");
    refused("-D much d", "-D: invalid value much: expected a level (0, 1 or 2)");
}

#[test]
fn seconds_beyond_any_clock_are_refused() {
    let error = run("-n h --serve 18446744073709551615 . d").expect_err("too long");
    assert!(error.starts_with("--serve: invalid value 18446744073709551615"), "{error}");
}

#[test]
fn fetching_without_operands_says_what_is_missing() {
    refused("-n h", "missing arguments: SRC (what to fetch) and DEST (where to)");
}

#[test]
fn fetching_with_one_operand_says_what_is_missing() {
    let text = "missing argument: both SRC (what to fetch) and DEST (where to) are required";
    refused("-n h file1", text);
}

#[test]
fn an_unset_variable_does_not_mean_everything() {
    let words = ["-n", "h", "", "/x"].map(OsString::from);
    assert_eq!(parse_words(words), Err("empty argument".to_owned()));
}

#[test]
fn an_option_of_another_form_is_refused() {
    refused("-n h -m 3 . d", "-m can only be used with serving");
    refused("-n h --json . d", "--json can only be used with --status");
    refused("--status -n h -s", "-s can only be used with fetching (-n)");
}

#[test]
fn a_status_needs_a_server_and_nothing_more() {
    refused("--status", "--status requires -n HOST[:PORT]");
    refused("--status -n h x", "--status takes no arguments");
}

#[test]
fn two_forms_at_once_are_refused() {
    refused("--status --manifest -n h", "--status and --manifest cannot be used together");
}

#[test]
fn an_option_sets_its_value_in_the_commands_of_its_modes_and_in_no_other() {
    let generation = "0".repeat(64);
    let samples = ["7", "10.0.0.7", "kmsg", "bash", "eth0,10.0.0.7/24", &generation];
    let initial = Args::default();
    for option in options::options() {
        let mut args = Args::default();
        match option.kind {
            Kind::Switch(set) => set(&mut args),
            Kind::Value { set, .. } => samples
                .iter()
                .find_map(|sample| set(&mut args, sample.as_ref()))
                .unwrap_or_else(|| panic!("--{}: no sample value fits", option.long)),
        }
        let set_in = [
            (Mode::Serve, args.serve != initial.serve),
            (Mode::Fetch, args.fetch != initial.fetch),
            (Mode::Status, args.status != initial.status),
            (Mode::Manifest, args.manifest != initial.manifest),
        ];
        let set_in: Vec<Mode> =
            set_in.iter().filter(|(_, set)| *set).map(|(mode, _)| *mode).collect();
        let is_common = args.immediate.is_some()
            || args.modes != initial.modes
            || args.server != initial.server
            || args.logging != initial.logging;
        let expected: &[Mode] = if is_common { &[] } else { option.modes };
        assert_eq!(set_in, expected, "--{}", option.long);
    }
}

#[test]
fn the_manual_has_every_option() {
    let manual = include_str!("../../docs/xget.1");
    for option in options::options() {
        let entry = match option.short {
            Some(short) => format!("\n.It Fl {short} , Fl -{}", option.long),
            None => format!("\n.It Fl -{}", option.long),
        };
        let is_there = manual
            .match_indices(&entry)
            .any(|(at, _)| manual[at + entry.len()..].starts_with([' ', '\n']));
        assert!(is_there, "docs/xget.1 lacks {entry}");
    }
}

#[test]
fn the_help_fits_a_terminal() {
    for line in help().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[cfg(feature = "master")]
mod with_a_master {
    use std::num::NonZeroUsize;

    use super::*;

    fn serve(line: &str) -> ServeOptions {
        match run(line) {
            Ok(Command::Serve(serve)) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_original_way_to_serve() {
        let expected = ServeOptions {
            path: "/tmp/dirtoserve".into(),
            port: 20004,
            listen: None,
            allowed: Allowed::default(),
            max_fed: NonZeroUsize::new(4).unwrap(),
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
        };
        assert_eq!(run("/tmp/dirtoserve"), Ok(Command::Serve(expected)));
    }

    #[test]
    fn a_port_for_http_may_have_an_address() {
        let port = |ip: Option<&str>, port| {
            Some(HttpAddress { ip: ip.map(|ip| ip.parse().unwrap()), port })
        };
        assert_eq!(serve("--http 80 /srv").http, port(None, 80));
        assert_eq!(serve("--http 10.0.0.1:80 /srv").http, port(Some("10.0.0.1"), 80));
        assert_eq!(serve("--metrics [::1]:9000 /srv").metrics, port(Some("::1"), 9000));
        refused(
            "--http host:80 /srv",
            "--http: invalid value host:80: expected a port, or an address and a port",
        );
        refused("-n h --metrics 80 . d", "--metrics can only be used with serving");
    }

    #[test]
    fn a_signature_is_served_with_a_key_that_it_fits() {
        let given = serve("--signature m.minisig --key RWabc /srv/boot");
        assert_eq!(given.signature, Some("m.minisig".into()));
        assert_eq!(given.keys, ["RWabc"]);
        for half in ["--signature m.minisig /srv/boot", "--key RWabc /srv/boot"] {
            let error = run(half).expect_err(half);
            assert!(error.contains("must be used together"), "{error}");
        }
    }

    #[test]
    fn every_original_option_of_a_master() {
        let given = serve("-p 3333 -m 7 -x -o -D 2 /srv/boot");
        assert_eq!((given.port, given.max_fed.get()), (3333, 7));
        assert!(given.one_file_system && given.no_owner);
        assert_eq!(given.logging.level, Level::Debug);
    }

    #[test]
    fn a_master_on_any_free_port() {
        assert_eq!(serve("-p 0 d").port, 0);
    }

    #[test]
    fn rescanning_can_be_turned_off() {
        assert_eq!(serve("--rescan 0 d").rescan, None);
    }

    #[test]
    fn all_is_hashed_again_where_that_is_asked_for() {
        assert_eq!(serve("--rehash 86400 d").rehash, Some(Duration::from_secs(86_400)));
        assert_eq!(serve("--rehash 0 d").rehash, None);
        refused("-n h --rehash 9 . d", "--rehash can only be used with serving");
    }

    #[test]
    fn hashes_are_kept_where_told() {
        assert_eq!(serve("--cache /var/x d").cache, Cache::Dir("/var/x".into()));
    }

    #[test]
    fn hashes_can_be_kept_nowhere() {
        assert_eq!(serve("--cache none d").cache, Cache::None);
    }

    #[test]
    fn a_manifest_of_a_directory() {
        let expected = ManifestOptions {
            path: "d".into(),
            one_file_system: true,
            no_owner: true,
            cache: Cache::Default,
            logging: Logging::default(),
        };
        assert_eq!(run("--manifest d -x -o"), Ok(Command::Manifest(expected)));
    }

    #[test]
    fn nothing_at_all_shows_both_usual_forms() {
        refused("", "usage: xget [options] DIR|FILE, or xget -n HOST[:PORT] SRC... DEST");
    }

    #[test]
    fn a_fetch_without_its_server_is_told_so() {
        refused("a b", "only one DIR or FILE can be served; to fetch, add -n HOST[:PORT]");
        refused("-s a b", "-s can only be used with fetching (-n)");
    }

    #[test]
    fn a_manifest_is_of_one_tree() {
        refused("--manifest", "--manifest requires a DIR or FILE");
        refused("--manifest a b", "--manifest takes one DIR or FILE");
    }

    #[test]
    fn the_help_has_every_option() {
        let help = help();
        for option in options::options() {
            let head = format!("--{}", option.long);
            let is_there = help.lines().any(|line| {
                line.split_whitespace().find(|word| word.starts_with("--")) == Some(&head)
            });
            assert!(is_there, "{head}");
        }
    }
}

#[cfg(not(feature = "master"))]
mod without_a_master {
    use super::*;

    #[test]
    fn serving_is_refused() {
        for line in ["", "d", "--manifest d", "-s a b"] {
            let error = run(line).expect_err(line);
            assert!(error.starts_with("this build of xget has no master"), "{error}");
        }
    }

    #[test]
    fn the_help_leaves_serving_out() {
        for gone in ["--max N", "--manifest", "Serving:", "DIR|FILE"] {
            assert!(!help().contains(gone), "{gone}");
        }
    }
}
