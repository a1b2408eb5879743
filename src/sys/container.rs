//! The duties of the first process of a PID namespace, as in a container (pid_namespaces(7)): the kernel
//! discards signals that it does not handle, and orphans become its children, which it must reap.

use std::io;
use std::process::exit;
use std::{mem, ptr};

use super::checked;

/// Signals that a terminal or a container runtime sends to the first process, meant for all processes.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Returns in a new child process, which continues as an ordinary process. The calling process never
/// returns: it forwards signals, reaps, and exits with the child's exit code (128 + n after signal n) once
/// no other process of the namespace is left.
///
/// Must be called while the process has only one thread.
pub fn run_in_child() -> io::Result<()> {
    let signals = awaited_signals();
    let mut before = empty_set();
    // SAFETY: both sets are initialized and outlive the call.
    checked(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, &raw mut before) })?;
    // SAFETY: the process has one thread, so no lock is left held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            take_over_pid_variables();
            // SAFETY: the set is initialized, and a null pointer means that the old one is not returned.
            checked(unsafe {
                libc::sigprocmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut())
            })
        }
        child => exit(supervise(child, &signals)),
    }
}

/// What the service manager passed to process 1 is meant for the process that serves (sd_listen_fds(3),
/// sd_watchdog_enabled(3)).
fn take_over_pid_variables() {
    for name in ["LISTEN_PID", "WATCHDOG_PID"] {
        if std::env::var(name).is_ok_and(|pid| pid == "1") {
            // SAFETY: the process has one thread, so nothing reads the environment at the same time.
            unsafe { std::env::set_var(name, std::process::id().to_string()) };
        }
    }
}

fn supervise(child: libc::pid_t, signals: &libc::sigset_t) -> i32 {
    let mut code = 0;
    loop {
        // SAFETY: a siginfo_t consists of integers and pointers, for which zeros are valid values.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: the set is initialized, and `info` has room for what the call writes.
        let signal = unsafe { libc::sigwaitinfo(signals, &raw mut info) };
        if signal != libc::SIGCHLD {
            // SI_KERNEL: it came from the terminal, which has sent it to the child as well.
            if signal > 0 && info.si_code != libc::SI_KERNEL {
                // -1 is every process of the namespace except this one.
                // SAFETY: kill accesses no memory.
                unsafe { libc::kill(-1, signal) };
            }
            continue;
        }
        loop {
            let mut status = 0;
            // SAFETY: the call writes nothing but `status`.
            match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
                0 => break,
                -1 => return code,
                pid if pid == child => code = exit_code(status),
                _ => {}
            }
        }
    }
}

fn exit_code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: a sigset_t is an array of integers, for which zeros are valid values.
    let mut set = unsafe { mem::zeroed() };
    // SAFETY: the call writes nothing but the set.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn awaited_signals() -> libc::sigset_t {
    let mut set = empty_set();
    for signal in FORWARDED.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: the set is initialized, and the call writes nothing else.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}
