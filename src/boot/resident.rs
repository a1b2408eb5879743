//! The resident: the process that fetches during the boot and then serves on, through the switch to
//! the real root and after it.
//!
//! It is an ordinary `xget -n ... -b`, whose command returns once the files are whole. Its name in the
//! process list begins with `@`: systemd spares such processes when it ends all others on the way from
//! one root to the next. Where systemd runs already it has to be a unit of its own as well, or it goes
//! with the one that started it; a unit in `/run`, as those of the initramfs's `/usr` end at the switch.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;

/// systemd runs where this is (sd_booted(3)).
const UNITS: &str = "/run/systemd/system";
const UNIT: &str = "xget-boot.service";
const NAME: &str = "@xget";
const SELF: &str = "/proc/self/exe";

/// Runs `xget ARGUMENTS`, which have `-b` among them, until it returns.
pub(super) fn run(arguments: &[OsString]) -> Result<(), Error> {
    let status = match Path::new(UNITS).exists() {
        true => unit(arguments)?,
        false => Command::new(SELF).arg0(NAME).args(arguments).stdin(Stdio::null()).status(),
    };
    let status = status.map_err(Error::system("start xget"))?;
    match status.success() {
        true => Ok(()),
        // It has said why.
        false => Err(Error::Boot("what was asked for could not be fetched".into())),
    }
}

fn unit(arguments: &[OsString]) -> Result<std::io::Result<std::process::ExitStatus>, Error> {
    let program = fs::read_link(SELF).map_err(Error::file("read", SELF))?;
    let text = unit_text(&program.to_string_lossy(), arguments);
    let path = Path::new(UNITS).join(UNIT);
    fs::write(&path, text).map_err(Error::file("write", &path))?;
    let systemctl =
        |verb: &[&str]| Command::new("systemctl").args(verb).stdin(Stdio::null()).status();
    Ok(systemctl(&["daemon-reload"]).and_then(|_| systemctl(&["start", UNIT])))
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
         Type=forking\n\
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
    fn the_unit_survives_the_switch_of_roots() {
        let text = unit_text("/usr/bin/xget", &["-n".into(), "head".into()]);
        assert!(text.contains("ExecStart=@/usr/bin/xget @xget \"-n\" \"head\"\n"), "{text}");
        assert!(text.contains("DefaultDependencies=no\nIgnoreOnIsolate=yes\n"), "{text}");
    }
}
