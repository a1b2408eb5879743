//! The duties of a PID namespace's first process (pid_namespaces(7)): the kernel discards signals that
//! such a process does not handle, and orphans become its children, which it has to reap.

use std::io;
use std::process::exit;
use std::{mem, ptr};

use super::checked;

/// Passed on to the processes of the namespace, as a terminal or a container's runtime sends them.
const PASSED_ON: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Returns in a new child process, which does the work as an ordinary process. The calling process stays
/// behind: it passes signals on, reaps, and exits with the child's code (128 + n after signal n) once no
/// process of the namespace is left.
///
/// Must be called while there is only one thread.
pub fn work_in_child() -> io::Result<()> {
    let signals = signals_to_wait_for();
    let mut before = no_signals();
    // SAFETY: both sets are initialized, and live until the call returns.
    checked(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, &raw mut before) })?;
    // SAFETY: there is one thread, so the child may call anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            address_to_this_process();
            // SAFETY: the set is initialized; nobody asks for the old one.
            checked(unsafe {
                libc::sigprocmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut())
            })
        }
        child => exit(stay_behind(child, &signals)),
    }
}

/// What the service manager has addressed to process 1 is for the one that does the work
/// (sd_listen_fds(3), sd_watchdog_enabled(3)).
fn address_to_this_process() {
    for name in ["LISTEN_PID", "WATCHDOG_PID"] {
        if std::env::var(name).is_ok_and(|pid| pid == "1") {
            // SAFETY: there is one thread.
            unsafe { std::env::set_var(name, std::process::id().to_string()) };
        }
    }
}

fn stay_behind(child: libc::pid_t, signals: &libc::sigset_t) -> i32 {
    let mut code = 0;
    loop {
        // SAFETY: a siginfo_t is numbers, for which zeros are values.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: the set is initialized, and the call writes one siginfo_t.
        let signal = unsafe { libc::sigwaitinfo(signals, &raw mut info) };
        if signal != libc::SIGCHLD {
            // A terminal has sent its signal to the child too.
            if signal > 0 && info.si_code != libc::SI_KERNEL {
                // SAFETY: kill takes numbers; -1 is every process of the namespace but this one.
                unsafe { libc::kill(-1, signal) };
            }
            continue;
        }
        loop {
            let mut status = 0;
            // SAFETY: the call writes one number.
            match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
                0 => break,
                -1 => return code,
                pid if pid == child => code = code_of(status),
                _ => {}
            }
        }
    }
}

fn code_of(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

fn no_signals() -> libc::sigset_t {
    // SAFETY: a sigset_t is an array of numbers, for which zeros are values.
    let mut set = unsafe { mem::zeroed() };
    // SAFETY: the call writes to the set.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn signals_to_wait_for() -> libc::sigset_t {
    let mut set = no_signals();
    for signal in PASSED_ON.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: the set is initialized, and these are signals.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}
