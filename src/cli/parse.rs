//! Arguments to a command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use lexopt::{Arg, Parser};

use super::args::{Args, Mode};
use super::command::{
    BootOptions, Command, DEFAULT_STATE_DIR, FetchOptions, ManifestOptions, ServeOptions,
    StatusOptions, TakeOverOptions,
};
use super::options::{Kind, OptionSpec, options};
use crate::error::Error;
use crate::image::path::shown;
use crate::process::log::{LogFormat, Logging};

/// Parses a command line, given without the program's name.
///
/// # Errors
/// [`Error::Usage`].
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let line = CommandLine::read(words)?;
    if let Some(command) = line.args.immediate {
        return Ok(command);
    }
    let mode = mode(&line.args)?;
    if !mode.is_built_in() {
        return usage(
            "this build of xget has no master and can only fetch: -n HOST[:PORT] is missing",
        );
    }
    line.check_options(mode)?;
    match mode {
        Mode::Serve => serve(line).map(Command::Serve),
        Mode::Fetch => fetch(line).map(Command::Fetch),
        Mode::Status => status(line).map(Command::Status),
        Mode::Manifest => manifest(line).map(Command::Manifest),
        Mode::Boot => boot(line).map(Command::Boot),
        Mode::TakeOver => take_over(line).map(Command::TakeOver),
    }
}

fn mode(args: &Args) -> Result<Mode, Error> {
    let mut modes = args.modes.clone();
    modes.sort_unstable();
    modes.dedup();
    match modes[..] {
        [] if args.server.is_some() => Ok(Mode::Fetch),
        [] => Ok(Mode::Serve),
        [mode] => Ok(mode),
        [one, other, ..] => {
            usage(format!("{} and {} cannot be used together", one.name(), other.name()))
        }
    }
}

fn serve(line: CommandLine) -> Result<ServeOptions, Error> {
    let CommandLine { args, mut operands, .. } = line;
    let Some(path) = operands.pop() else {
        return usage("usage: xget [options] DIR|FILE, or xget -n HOST[:PORT] SRC... DEST");
    };
    if !operands.is_empty() {
        return usage("only one DIR or FILE can be served; to fetch, add -n HOST[:PORT]");
    }
    if args.serve.signature.is_none() != args.serve.keys.is_empty() {
        return usage(
            "--signature and --key must be used together: the key verifies the signature",
        );
    }
    Ok(ServeOptions { path: path.into(), logging: args.logging, ..args.serve })
}

fn fetch(line: CommandLine) -> Result<FetchOptions, Error> {
    let CommandLine { args, operands: mut sources, .. } = line;
    let Some(server) = args.server else {
        return usage("fetching requires -n HOST[:PORT]");
    };
    let Some(dest) = sources.pop() else {
        return usage("missing arguments: SRC (what to fetch) and DEST (where to)");
    };
    if sources.is_empty() {
        return usage(
            "missing argument: both SRC (what to fetch) and DEST (where to) are \
         required",
        );
    }
    Ok(FetchOptions { server, sources, dest: dest.into(), logging: args.logging, ..args.fetch })
}

fn status(line: CommandLine) -> Result<StatusOptions, Error> {
    let as_json_and_raw = line.has("json") && line.has("raw");
    let CommandLine { args, operands, .. } = line;
    let Some(server) = args.server else {
        return usage("--status requires -n HOST[:PORT]");
    };
    if !operands.is_empty() {
        return usage("--status takes no arguments");
    }
    if as_json_and_raw {
        return usage("--json and --raw cannot be used together");
    }
    let logging = Logging { progress: false, ..args.logging };
    Ok(StatusOptions { server, logging, ..args.status })
}

fn manifest(line: CommandLine) -> Result<ManifestOptions, Error> {
    let CommandLine { args, mut operands, .. } = line;
    let Some(path) = operands.pop() else {
        return usage("--manifest requires a DIR or FILE");
    };
    if !operands.is_empty() {
        return usage("--manifest takes one DIR or FILE");
    }
    Ok(ManifestOptions { path: path.into(), logging: args.logging, ..args.manifest })
}

fn boot(line: CommandLine) -> Result<BootOptions, Error> {
    let url = match &line.operands[..] {
        [] => None,
        [url] => Some(
            url.to_str().ok_or_else(|| Error::Usage("the URL is not UTF-8".into()))?.to_owned(),
        ),
        _ => return usage("--boot takes at most one URL"),
    };
    // The kernel log is where people look for the reason why a boot failed.
    let format = match line.args.logging.format {
        LogFormat::Auto => LogFormat::Kmsg,
        format => format,
    };
    Ok(BootOptions { url, logging: Logging { format, ..line.args.logging } })
}

fn take_over(line: CommandLine) -> Result<TakeOverOptions, Error> {
    let state = match &line.operands[..] {
        [] => DEFAULT_STATE_DIR.into(),
        [dir] => dir.into(),
        _ => return usage("--take-over takes at most one DIR"),
    };
    Ok(TakeOverOptions { state, logging: Logging { progress: false, ..line.args.logging } })
}

/// A command line, option by option: every value is valid by itself, but not yet for the mode.
struct CommandLine {
    args: Args,
    /// Each option with its name as it was written, for messages.
    options: Vec<(&'static OptionSpec, String)>,
    /// The arguments that belong to no option.
    operands: Vec<OsString>,
}

impl CommandLine {
    /// Reads up to the end, or up to an option that makes the rest irrelevant, such as `--help`.
    fn read(words: impl IntoIterator<Item = OsString>) -> Result<CommandLine, Error> {
        let mut line =
            CommandLine { args: Args::default(), options: Vec::new(), operands: Vec::new() };
        let mut parser = Parser::from_args(words);
        while line.args.immediate.is_none()
            // The parser has one error: the last option takes no value, and `=VALUE` follows it.
            && let Some(arg) = parser.next().or_else(|_| line.takes_no_value())?
        {
            match arg {
                Arg::Value(operand) => line.operands.push(operand),
                Arg::Short(c) => {
                    let option = options().find(|option| option.short == Some(c));
                    line.read_option(option, format!("-{c}"), &mut parser)?;
                }
                Arg::Long(name) => {
                    let option = options().find(|option| option.long == name);
                    let written = format!("--{name}");
                    line.read_option(option, written, &mut parser)?;
                }
            }
        }
        // Most likely a shell variable that was never set. As SRC it would mean everything.
        if line.operands.iter().any(|operand| operand.is_empty()) {
            return usage("empty argument");
        }
        Ok(line)
    }

    fn read_option(
        &mut self,
        option: Option<&'static OptionSpec>,
        written: String,
        parser: &mut Parser,
    ) -> Result<(), Error> {
        let Some(option) = option else {
            return usage(format!("unknown option {}", shown(written.as_bytes())));
        };
        match option.kind {
            Kind::Switch(set) => set(&mut self.args),
            Kind::Value { metavar, expected, set } => {
                let value = parser.value().unwrap_or_default();
                if value.is_empty() {
                    return usage(format!("{written} requires a value: {metavar}"));
                }
                if set(&mut self.args, &value).is_none() {
                    let value = shown(value.as_bytes());
                    return usage(format!("{written}: invalid value {value}: expected {expected}"));
                }
            }
        }
        self.options.push((option, written));
        Ok(())
    }

    fn takes_no_value<T>(&self) -> Result<T, Error> {
        let written = self.options.last().map_or("an option", |(_, written)| written);
        usage(format!("{written} takes no value"))
    }

    fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(option, _)| option.long == long)
    }

    /// Refuses options that cannot be used with `mode`.
    fn check_options(&self, mode: Mode) -> Result<(), Error> {
        let misplaced = self.options.iter().find(|(option, _)| !option.modes.contains(&mode));
        let Some((option, written)) = misplaced else { return Ok(()) };
        let names: Vec<&str> = option.modes.iter().map(|mode| mode.name()).collect();
        usage(format!("{written} can only be used with {}", names.join(" or ")))
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Usage(text.into()))
}
