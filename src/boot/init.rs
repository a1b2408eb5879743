//! xget as `/init`, the first process, in an initramfs that holds little else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::cmdline::Cmdline;
use super::switch_root::switch_root;
use crate::cli::BootOptions;
use crate::error::reason;
use crate::process::log::{Level, LogFormat, Logging};
use crate::process::report::Reporter;
use crate::sys::kernel::{load_module, restart_machine};
use crate::sys::mount::{MountFlags, mount};
use crate::sys::terminal;

/// Modules that were put into the initramfs, in the order of their names.
const MODULES: &str = "/lib/modules/xget";
const RESCUE_SHELL: &str = "/bin/sh";
/// What is said before the kernel command line can tell how much.
const LOGGING: Logging = Logging { level: Level::Notice, progress: true, format: LogFormat::Kmsg };
/// How long a message can be read before the machine starts again.
const RESTART_AFTER: Duration = Duration::from_secs(60);

/// What the kernel starts an initramfs with, unless `rdinit=` names something else.
const INIT: &str = "/init";

/// Whether the kernel has started this process as `/init` of an initramfs. The first process of a
/// container has process id 1 as well, but another name.
pub fn is_init() -> bool {
    std::process::id() == 1 && std::env::args_os().next().is_some_and(|name| name == INIT)
}

/// Makes what every program expects of a system, then does what the kernel command line asks for, and
/// goes on in the root that was mounted. If something fails it says so and gives whoever sits there a
/// shell, or starts the machine again.
pub fn init() -> ! {
    prepare();
    let error = match super::boot(&BootOptions { url: None, logging: LOGGING }) {
        Ok(()) => switch_root(&super::new_root(), wanted_init().as_deref()),
        Err(error) => error,
    };
    report().error(error);
    rescue()
}

/// `init=` of the kernel command line, which could be understood before.
fn wanted_init() -> Option<String> {
    Cmdline::parse(&super::command_line().ok()?).ok()?.init
}

fn report() -> Reporter {
    Reporter::new(LOGGING)
}

fn prepare() {
    for (kind, target, options) in [
        ("proc", "/proc", ""),
        ("sysfs", "/sys", ""),
        ("devtmpfs", "/dev", ""),
        // It goes along into the real root, where not everybody may write to it.
        ("tmpfs", "/run", "mode=755"),
    ] {
        let made = fs::create_dir_all(target);
        let flags = MountFlags { no_privileges: kind != "devtmpfs", ..MountFlags::default() };
        let mounted =
            made.and_then(|()| mount(kind.as_ref(), Path::new(target), kind, flags, options));
        match mounted {
            // The kernel has mounted /dev by itself, or whoever started us has done all of it.
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => {
                report().warning(format_args!("cannot mount {target}: {}", reason(&error)));
            }
            _ => {}
        }
    }
    for path in modules() {
        if let Err(error) = File::open(&path).and_then(|file| load_module(&file)) {
            report().warning(format_args!(
                "cannot load the module {}: {}",
                path.display(),
                reason(&error)
            ));
        }
    }
}

fn modules() -> Vec<PathBuf> {
    let entries = fs::read_dir(MODULES).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ko"));
    paths.sort();
    paths
}

fn rescue() -> ! {
    if Path::new(RESCUE_SHELL).exists() {
        report().notice("starting a rescue shell; the machine restarts when it exits");
        if let Err(error) = run_shell() {
            report().error(format_args!("cannot run {RESCUE_SHELL}: {}", reason(&error)));
        }
    } else {
        report().notice(format_args!("the machine restarts in {} s", RESTART_AFTER.as_secs()));
        thread::sleep(RESTART_AFTER);
    }
    let error = restart_machine();
    report().error(format_args!("cannot restart the machine: {}", reason(&error)));
    loop {
        thread::sleep(RESTART_AFTER);
    }
}

/// Runs a shell until it ends; as a child, so that its end is not that of the first process.
fn run_shell() -> io::Result<()> {
    let mut shell = Command::new(RESCUE_SHELL);
    shell.arg0("-sh");
    // What it has from this process is /dev/console, where Ctrl-C is no more than a character.
    if let Some(terminal) = behind_console("console") {
        terminal::run_on(&mut shell, &terminal)?;
    }
    shell.status().map(drop)
}

/// The terminal behind `/dev/console`: the last one in its `active`, which may stand for another again,
/// as `tty0` for `tty1`.
fn behind_console(name: &str) -> Option<File> {
    match fs::read_to_string(format!("/sys/class/tty/{name}/active")) {
        Ok(active) => active.split_whitespace().last().and_then(behind_console),
        Err(_) => OpenOptions::new().read(true).write(true).open(Path::new("/dev").join(name)).ok(),
    }
}
