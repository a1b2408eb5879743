//! Arguments to a command.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use lexopt::{Arg, Parser};

use super::command::{
    Boot, Command, Fetch, LogForm, Logging, ManifestOf, Serve, Status, StatusForm, TakeOver,
    USUAL_STATE,
};
use super::given::Given;
use super::options::{Form, Takes, options};
use crate::error::Error;
use crate::image::path::shown;

/// Understands a command line, given without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut given = Given::read(args)?;
    if let Some(answer) = given.answer.take() {
        return Ok(answer);
    }
    let form = form_of(&given)?;
    if !form.is_built_in() {
        return usage(
            "this build of xget has no master and can only fetch: -n HOST[:PORT] is missing",
        );
    }
    given.check_options_of(form)?;
    match form {
        Form::Serve => serve(given),
        Form::Fetch => fetch(given),
        Form::Status => status(given),
        Form::Manifest => manifest(given),
        Form::Boot => boot(given),
        Form::TakeOver => take_over(given),
    }
}

fn form_of(given: &Given) -> Result<Form, Error> {
    let usual = if given.server.is_some() { Form::Fetch } else { Form::Serve };
    let mut asked = [
        (given.status, Form::Status),
        (given.manifest, Form::Manifest),
        (given.boot, Form::Boot),
        (given.take_over, Form::TakeOver),
    ]
    .into_iter()
    .filter_map(|(is_asked, form)| is_asked.then_some(form));
    match (asked.next(), asked.next()) {
        (None, _) => Ok(usual),
        (Some(form), None) => Ok(form),
        (Some(one), Some(other)) => {
            usage(format!("{} and {} cannot be used together", one.name(), other.name()))
        }
    }
}

fn serve(mut given: Given) -> Result<Command, Error> {
    let Some(path) = given.operands.pop() else {
        return usage("usage: xget [options] DIR|FILE, or xget -n HOST[:PORT] SRC... DEST");
    };
    if !given.operands.is_empty() {
        return usage("only one DIR or FILE can be served; to fetch, add -n HOST[:PORT]");
    }
    if given.signature.is_none() != given.keys.is_empty() {
        return usage(
            "--signature and --key must be used together: the key verifies the signature",
        );
    }
    Ok(Command::Serve(Serve {
        path: path.into(),
        port: given.port,
        listen: given.listen,
        allowed: given.allowed,
        max_fed: given.max_fed,
        max_upload: given.max_upload,
        http: given.http,
        metrics: given.metrics,
        one_file_system: given.one_file_system,
        no_owner: given.no_owner,
        cache: given.cache,
        rescan: given.rescan,
        signature: given.signature,
        keys: given.keys,
        background: given.background,
        logging: given.logging,
    }))
}

fn fetch(given: Given) -> Result<Command, Error> {
    let (Some(server), mut sources) = (given.server, given.operands) else {
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
    Ok(Command::Fetch(Fetch {
        server,
        port: given.port,
        listen: given.listen,
        allowed: given.allowed,
        sources,
        dest: dest.into(),
        aname: given.aname,
        keys: given.keys,
        hash: given.hash,
        no_mode: given.no_mode,
        no_owner: given.no_owner,
        retries: given.retries,
        longest_wait: given.longest_wait,
        timeout: given.timeout,
        must_fit: given.must_fit,
        serve_on: given.serve_on,
        state: given.state,
        max_upload: given.max_upload,
        own_net: given.own_net,
        background: given.background,
        logging: given.logging,
    }))
}

fn status(given: Given) -> Result<Command, Error> {
    let Some(server) = given.server else {
        return usage("--status requires -n HOST[:PORT]");
    };
    if !given.operands.is_empty() {
        return usage("--status takes no arguments");
    }
    let form = match (given.json, given.raw) {
        (true, true) => return usage("--json and --raw cannot be used together"),
        (true, false) => StatusForm::Json,
        (false, true) => StatusForm::Raw,
        (false, false) => StatusForm::Table,
    };
    let logging = Logging { progress: false, ..given.logging };
    Ok(Command::Status(Status { server, port: given.port, form, watch: given.watch, logging }))
}

fn manifest(mut given: Given) -> Result<Command, Error> {
    let Some(path) = given.operands.pop() else {
        return usage("--manifest requires a DIR or FILE");
    };
    if !given.operands.is_empty() {
        return usage("--manifest takes one DIR or FILE");
    }
    Ok(Command::Manifest(ManifestOf {
        path: path.into(),
        one_file_system: given.one_file_system,
        no_owner: given.no_owner,
        cache: given.cache,
        logging: given.logging,
    }))
}

fn boot(given: Given) -> Result<Command, Error> {
    let url = match &given.operands[..] {
        [] => None,
        [url] => Some(
            url.to_str().ok_or_else(|| Error::Usage("the URL is not UTF-8".into()))?.to_owned(),
        ),
        _ => return usage("--boot takes at most one URL"),
    };
    // Whoever looks for what went wrong in a boot looks there.
    let form = match given.logging.form {
        LogForm::Auto => LogForm::Kmsg,
        form => form,
    };
    Ok(Command::Boot(Boot { url, logging: Logging { form, ..given.logging } }))
}

fn take_over(given: Given) -> Result<Command, Error> {
    let state = match &given.operands[..] {
        [] => USUAL_STATE.into(),
        [dir] => dir.into(),
        _ => return usage("--take-over takes at most one DIR"),
    };
    let logging = Logging { progress: false, ..given.logging };
    Ok(Command::TakeOver(TakeOver { state, logging }))
}

impl Given {
    /// Reads up to the end, or up to an option that asks for the help or the version.
    fn read(args: impl IntoIterator<Item = OsString>) -> Result<Given, Error> {
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

    fn check_options_of(&self, form: Form) -> Result<(), Error> {
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

fn usage<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Usage(text.into()))
}
