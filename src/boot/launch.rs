//! The resident: the process that fetches during the boot and then serves on, through the switch to
//! the real root and after it.
//!
//! It is an ordinary `xget -n ...`. Its name in the process list begins with `@`: systemd spares such
//! processes when it ends all others on the way from one root to the next. Where systemd runs already it
//! has to be a unit of its own as well, or it goes with the one that started it; a unit in `/run`, as
//! those of the initramfs's `/usr` end at the switch. It tells systemd when the files are whole;
//! elsewhere it is run with `-b`, and its command returns then.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::sys::process;

/// systemd runs where this is (sd_booted(3)).
const UNITS: &str = "/run/systemd/system";
const UNIT: &str = "xget-boot";
const NAME: &str = "@xget";
const SELF: &str = "/proc/self/exe";

/// Runs `xget ARGUMENTS` until the files are whole. For another `url` than that of the kernel command
/// line there is a unit of its own: to start one that runs already does nothing.
///
/// Fails with [`Error::Fetch`] if that fails, which has said why.
pub(super) fn run(arguments: &[OsString], url: Option<&OsStr>) -> Result<(), Error> {
    let code = if Path::new(UNITS).exists() {
        unit(arguments, &unit_name(url))?
    } else {
        let mut command = Command::new(SELF);
        command.arg0(NAME).arg("--background").args(arguments);
        let status = process::status_while_here(command.stdin(Stdio::null()));
        status.map_err(Error::system("start xget"))?.code()
    };
    match code {
        Some(0) => Ok(()),
        code => Err(Error::Fetch { code: code.and_then(|code| u8::try_from(code).ok()) }),
    }
}

/// The code with which the unit's process has ended; None if that is not known.
fn unit(arguments: &[OsString], name: &str) -> Result<Option<i32>, Error> {
    let program = fs::read_link(SELF).map_err(Error::file("read", SELF))?;
    let text = unit_text(&program.to_string_lossy(), arguments);
    let path = Path::new(UNITS).join(name);
    fs::write(&path, text).map_err(Error::file("write", &path))?;
    let systemctl = |verb: &[&str]| {
        let mut command = Command::new("systemctl");
        command.args(verb).stdin(Stdio::null()).stderr(Stdio::inherit()).output()
    };
    let started = systemctl(&["daemon-reload"]).and_then(|_| systemctl(&["start", name]));
    if started.map_err(Error::system("start xget"))?.status.success() {
        return Ok(Some(0));
    }
    let shown = systemctl(&["show", "--property=ExecStart", name]);
    Ok(shown.ok().and_then(|shown| ended_with(&String::from_utf8_lossy(&shown.stdout))))
}

/// The code in what systemctl(1) shows of `ExecStart`: `... ; code=exited ; status=8 }`.
fn ended_with(shown: &str) -> Option<i32> {
    let (before, status) = shown.trim_end().rsplit_once("status=")?;
    let exited = before.trim_end().ends_with("code=exited ;");
    status.strip_suffix('}')?.trim().parse().ok().filter(|_| exited)
}

fn unit_name(url: Option<&OsStr>) -> String {
    match url {
        None => format!("{UNIT}.service"),
        Some(url) => {
            let hash = blake3::hash(url.as_encoded_bytes()).to_hex();
            format!("{UNIT}-{}.service", hash.get(..8).unwrap_or_default())
        }
    }
}

/// The unit: it outlives the initramfs, and the real root's systemctl shows and stops it.
fn unit_text(program: &str, arguments: &[OsString]) -> String {
    let mut command = format!("@{program} {NAME}");
    for argument in arguments {
        let _ = write!(command, " {}", quoted(&argument.to_string_lossy()));
    }
    format!(
        "[Unit]\n\
         Description=xget: serves other nodes what this one was booted from\n\
         DefaultDependencies=no\n\
         IgnoreOnIsolate=yes\n\
         Conflicts=shutdown.target\n\
         Before=shutdown.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={command}\n\
         TimeoutStartSec=infinity\n\
         StandardError=journal+console\n"
    )
}

/// As systemd.service(5) wants it: quotes around it, and nothing in it that means something else.
fn quoted(text: &str) -> String {
    let escaped = text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            '%' | '$' => escaped.extend([c, c]),
            c => escaped.push(c),
        }
        escaped
    });
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_would_expand_is_escaped() {
        assert_eq!(quoted(r#"a "b" 100% $HOME \"#), r#""a \"b\" 100%% $$HOME \\""#);
    }

    #[test]
    fn every_url_has_a_unit_of_its_own() {
        let name = |url: &str| unit_name(Some(url.as_ref()));
        assert_eq!(unit_name(None), "xget-boot.service");
        assert_ne!(name("xget://head/a"), name("xget://head/b"));
        assert_eq!(name("xget://head/a"), name("xget://head/a"));
    }

    #[test]
    fn the_code_of_a_process_that_has_ended_is_found() {
        let shown =
            |end: &str| format!("ExecStart={{ path=/x ; argv[]=@xget status=3 ; {end} }}\n");
        assert_eq!(ended_with(&shown("pid=9 ; code=exited ; status=8")), Some(8));
        assert_eq!(ended_with(&shown("pid=9 ; code=killed ; status=9/KILL")), None);
        assert_eq!(ended_with(&shown("pid=0 ; code=(null) ; status=0/0")), None);
        assert_eq!(ended_with(""), None);
    }

    #[test]
    fn the_unit_survives_the_switch_of_roots() {
        let text = unit_text("/usr/bin/xget", &["-n".into(), "head".into()]);
        assert!(text.contains("ExecStart=@/usr/bin/xget @xget \"-n\" \"head\"\n"), "{text}");
        assert!(text.contains("DefaultDependencies=no\nIgnoreOnIsolate=yes\n"), "{text}");
    }
}
