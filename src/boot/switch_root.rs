//! Going on with the real root where xget is the first process, as switch_root(8) does elsewhere.

use std::env;
use std::fs;
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::root::INITS;
use crate::error::{Error, reason};
use crate::sys::mount::move_mount;

/// Mounts that go along.
const KEPT: [&str; 4] = ["dev", "proc", "sys", "run"];

/// Makes `new_root` the root and goes on as `init`, or as the usual one; returns only if that fails.
pub(super) fn switch_root(new_root: &Path, init: Option<&str>) -> Error {
    match enter(new_root) {
        Ok(()) => start(init),
        Err(error) => error,
    }
}

/// What is in the initramfs stays, beneath: little, and a resident may still need it.
fn enter(new_root: &Path) -> Result<(), Error> {
    for name in KEPT {
        let target = new_root.join(name);
        fs::create_dir_all(&target).map_err(Error::file("create directory", &target))?;
        move_mount(&Path::new("/").join(name), &target)
            .map_err(Error::file("move a mount to", &target))?;
    }
    env::set_current_dir(new_root)
        .and_then(|()| move_mount(Path::new("."), Path::new("/")))
        .and_then(|()| chroot("."))
        .and_then(|()| env::set_current_dir("/"))
        .map_err(Error::file("switch to the root", new_root))
}

/// With the arguments that the kernel has given to this one.
fn start(init: Option<&str>) -> Error {
    let usual = INITS.iter().map(|path| Path::new("/").join(path));
    let programs: Vec<PathBuf> = match init {
        Some(init) => vec![init.into()],
        None => usual.collect(),
    };
    let mut why = String::new();
    for program in programs {
        let error = Command::new(&program).args(env::args_os().skip(1)).exec();
        let comma = if why.is_empty() { "" } else { ", " };
        why += &format!("{comma}{}: {}", program.display(), reason(&error));
    }
    Error::Boot(format!("no init program starts in the root: {why}"))
}
