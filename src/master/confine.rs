//! Least privilege: what a master that has begun to serve can still do.
//!
//! It reads below the directory that holds what is served and in those of its signature, writes its
//! cache, and no more: no other file, no program, no connection to anybody. A mistake in what the network
//! reaches then opens nothing. landlock(7) sees to the files, and a filter of system calls
//! ([`crate::sys::seccomp`]) to the rest. Older kernels enforce what they know of it, or nothing.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use crate::sys::privileges;

/// The newest rights that are known here; a kernel that lacks some of them enforces the others.
const RIGHTS: ABI = ABI::V6;

/// Gives up, for this thread and those that it starts, whatever serving `served` does not need.
/// Returns what is not in force, for the log.
///
/// # Errors
///
/// The kernel refuses what it should be able to do.
pub(super) fn confine(
    served: &Path,
    signature_dirs: &[PathBuf],
    cache: Option<&Path>,
) -> io::Result<Vec<&'static str>> {
    privileges::no_new_privileges()?;
    match privileges::keep_only_reading() {
        // Whoever keeps this process from giving them up, as a filter of system calls may, has seen to
        // them.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => other?,
    }
    let read = [&readable(served), signature_dirs].concat();
    let status = restrict(&read, cache).map_err(io::Error::other)?;
    let files = match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => Some(
            "confinement is partial: this kernel supports \
         an older version of Landlock",
        ),
        RulesetStatus::NotEnforced => {
            Some("file access is not confined: this kernel has no Landlock")
        }
    };
    Ok([files, filter()].into_iter().flatten().collect())
}

/// Filters system calls; why not, if it cannot be.
fn filter() -> Option<&'static str> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return crate::sys::seccomp::install_filter()
        .err()
        .map(|_| "system calls are not filtered: this kernel has no seccomp");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Some("system calls are not filtered on this processor architecture")
}

/// The directories to read below: that above the served one, as trees are replaced as a whole, by a
/// rename or by another target of a link. That may not be everything.
fn readable(served: &Path) -> Vec<PathBuf> {
    let canonical = served.canonicalize().unwrap_or_else(|_| served.into());
    let above = |path: &Path| match path.parent() {
        Some(above) if above.parent().is_some() => above.to_owned(),
        _ => path.to_owned(),
    };
    vec![above(served), above(&canonical)]
}

fn restrict(read: &[PathBuf], cache: Option<&Path>) -> Result<RulesetStatus, RulesetError> {
    let cache_rights = AccessFs::from_read(RIGHTS)
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::Truncate;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let enforced = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(read, reading))?
        .add_rules(path_beneath_rules(cache, cache_rights))?
        .restrict_self()?;
    Ok(enforced.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// What a thread that is confined to serve `DIR/tree/served` finds of the rest of `DIR`.
    fn confined(name: &str, look: impl FnOnce(&Path) + Send) {
        let dir = std::env::temp_dir().join(format!("xget-confine-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("tree/served")).unwrap();
        fs::create_dir_all(dir.join("cache")).unwrap();
        fs::create_dir_all(dir.join("signature")).unwrap();
        for file in ["tree/served/kernel", "signature/minisig", "outside"] {
            fs::write(dir.join(file), "x").unwrap();
        }
        // On a kernel without all of it there is nothing to see.
        let enforced = thread::scope(|scope| {
            let confined = || {
                let signature_dirs = [dir.join("signature")];
                let cache = dir.join("cache");
                let not = confine(&dir.join("tree/served"), &signature_dirs, Some(&cache)).unwrap();
                if not.is_empty() {
                    look(&dir);
                }
                not
            };
            scope.spawn(confined).join().unwrap()
        });
        fs::remove_dir_all(&dir).unwrap();
        for why in &enforced {
            eprintln!("SKIP  {why}");
        }
    }

    #[test]
    fn what_is_served_can_be_read_and_not_written() {
        confined("read", |dir| {
            assert_eq!(fs::read(dir.join("tree/served/kernel")).unwrap(), b"x");
            assert_eq!(fs::read(dir.join("signature/minisig")).unwrap(), b"x");
            let error = fs::write(dir.join("tree/served/new"), "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        });
    }

    #[test]
    fn no_other_file_can_be_read_and_no_program_run() {
        confined("outside", |dir| {
            let error = File::open(dir.join("outside")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(std::process::Command::new("/bin/true").status().is_err());
        });
    }

    #[test]
    fn files_keep_their_attributes() {
        confined("attributes", |dir| {
            let file = dir.join("tree/served/kernel");
            let mode = fs::metadata(&file).unwrap().permissions();
            let error = fs::set_permissions(&file, mode).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        });
    }

    #[test]
    fn a_thread_can_be_started_and_serve_who_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        confined("serve", |dir| {
            let file = dir.join("tree/served/kernel");
            let serve = move || {
                let (mut stream, _) = listener.accept().unwrap();
                io::copy(&mut File::open(file).unwrap(), &mut stream).unwrap();
            };
            thread::spawn(serve).join().unwrap();
            assert_eq!(io::read_to_string(&mut client).unwrap(), "x");
        });
    }

    #[test]
    fn the_cache_can_be_replaced() {
        confined("cache", |dir| {
            let (new, cache) = (dir.join("cache/new"), dir.join("cache/hashes"));
            fs::write(&new, "x").unwrap();
            fs::rename(new, cache).unwrap();
        });
    }

    #[test]
    fn nobody_can_be_called() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        confined("net", |_| {
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        });
    }
}
