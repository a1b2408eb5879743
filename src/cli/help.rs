//! What `--help` prints.

use std::fmt::Write as _;

use super::args::Mode::{self, Boot, Fetch, Manifest, Serve, Status, TakeOver};
use super::options::{Kind, OptionSpec, SECTIONS};

static USAGE: &[(Mode, &str)] = &[
    (Serve, "xget [options] DIR|FILE                      serve as the master"),
    (Fetch, "xget -n HOST[:PORT] [options] SRC... DEST    fetch, then serve other nodes"),
    (Status, "xget --status -n HOST[:PORT] [--watch]       what each node holds"),
    (Manifest, "xget --manifest DIR|FILE [-x] [-o]           print the manifest"),
    (Boot, "xget --boot [URL]                            boot, in an initramfs"),
    (TakeOver, "xget --take-over [DIR]                       serve what the boot fetched"),
];

static EXAMPLES: &[(Mode, &str)] = &[
    (Serve, "xget /srv/boot                        serve /srv/boot and all below it"),
    (Fetch, "xget -n head . /tmp/boot              fetch everything from host head"),
    (Fetch, "xget -n head vmlinuz initrd /boot     fetch two files"),
    (Fetch, "xget -b -n '[fd00::1]:564' root /new  fetch root, serve in the background"),
    (Status, "xget --status -n head                 show the nodes"),
];

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  unexpected failure
  2  bad command line
  3  server not found or not reachable
  4  the server does not have it
  5  local file or system error
  6  invalid data from the server, or verification failed
  7  cannot listen
  8  a signature or a hash is missing or wrong
";

/// What `--help` prints.
pub fn help() -> String {
    let mut text = String::from("Puts files onto every node of a cluster, over 9P.\n\nUsage:\n");
    text += &lines(USAGE);
    for (title, options) in SECTIONS {
        let options: String = options.iter().filter(|o| o.is_built_in()).map(help_of).collect();
        if !options.is_empty() {
            let _ = write!(text, "\n{title}:\n{options}");
        }
    }
    text += "\nSRC is a path on the master; `.` is everything. DEST is created if missing.\n";
    text + "\n" + EXIT_CODES + "\nExamples:\n" + &lines(EXAMPLES)
}

fn lines(of: &[(Mode, &str)]) -> String {
    of.iter()
        .filter(|(mode, _)| mode.is_built_in())
        .map(|(_, line)| format!("  {line}\n"))
        .collect()
}

fn help_of(option: &OptionSpec) -> String {
    let short = option.short.map_or("    ".to_owned(), |c| format!("-{c}, "));
    let head = match option.kind {
        Kind::Switch(_) => format!("{short}--{}", option.long),
        Kind::Value { metavar, .. } => format!("{short}--{} {metavar}", option.long),
    };
    let text = option.help.replace('\n', &format!("\n{:28}", ""));
    match head.len() {
        ..26 => format!("  {head:26}{text}\n"),
        _ => format!("  {head}\n{:28}{text}\n", ""),
    }
}
