//! Going into the background, being ended, and what else a process does about itself.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// Which side of [`background`] this is.
#[derive(Debug)]
pub enum Side {
    /// The process that was started: it ends with the code that the other side reports.
    Foreground(u8),
    /// The process that does the work.
    Background(Detach),
}

/// Reports to the waiting foreground process.
#[derive(Debug)]
pub struct Detach(File);

/// Splits the process in two: the new one does the work, the old one waits for its report.
///
/// To be called while there is only one thread.
pub fn background() -> io::Result<Side> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors into the array that is given to it.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors were just made and nobody else owns them.
    let (from, to) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: there is one thread, so the child may go on as usual.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(from);
            // SAFETY: setsid takes nothing; a child that was just forked leads no group.
            unsafe { libc::setsid() };
            Ok(Side::Background(Detach(to.into())))
        }
        _ => {
            drop(to);
            let mut code = [0];
            let reported = File::from(from).read(&mut code)?;
            // The other side ended without a word: it was killed.
            Ok(Side::Foreground(if reported == 1 { code[0] } else { 1 }))
        }
    }
}

impl Detach {
    /// Lets the foreground process end with `code`, and lets go of the terminal.
    pub fn release(mut self, code: u8) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        for stream in 0..3 {
            // SAFETY: both descriptors are open; dup2 closes the terminal's.
            if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        self.0.write_all(&[code])
    }
}

/// What a signal that ends the process removes: names in an open directory.
static LEFT_BEHIND: OnceLock<(RawFd, &'static [&'static CStr])> = OnceLock::new();
const ENDING_SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// From now on SIGTERM and SIGINT remove `names` from `dir` before they end the process. Only the
/// first call in a process counts.
pub fn remove_when_terminated(dir: File, names: &'static [&'static CStr]) -> io::Result<()> {
    if LEFT_BEHIND.get().is_none() {
        // Never closed: the signal may come at any time.
        let _ = LEFT_BEHIND.set((dir.into_raw_fd(), names));
    }
    // Once the handler has run, the signal does what it did before.
    handle_ending_signals(on_end as *const () as libc::sighandler_t, libc::SA_RESETHAND)
}

/// From now on SIGTERM and SIGINT only end the process.
pub fn keep_when_terminated() -> io::Result<()> {
    handle_ending_signals(libc::SIG_DFL, 0)
}

fn handle_ending_signals(handler: libc::sighandler_t, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: all of its fields are numbers and pointers, for which zeros are values: no signal is
    // blocked besides.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    ENDING_SIGNALS.into_iter().try_for_each(|signal| {
        // SAFETY: the handler is the default, or `on_end`, which does what a handler may.
        let set = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        super::checked(set)
    })
}

/// Calls only what signal-safety(7) lists; to read a OnceLock that is set is to load from memory.
extern "C" fn on_end(signal: libc::c_int) {
    if let Some((dir, names)) = LEFT_BEHIND.get() {
        for name in *names {
            // SAFETY: the name is a C string, the directory is never closed.
            unsafe { libc::unlinkat(*dir, name.as_ptr(), 0) };
        }
    }
    // SAFETY: it takes no memory. The signal comes when this returns, and ends the process.
    unsafe { libc::raise(signal) };
}

/// Allows as many open files as the system lets this process have: one for each connection.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit to the place that it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit reads one rlimit. If it fails, fewer connections are possible.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

/// A number that differs from run to run: the seed of random choices.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Not libc::getrandom, which has no code in a static program made with fat LTO, and is called all
    // the same (rust-lang/rust#154439).
    // SAFETY: the pointer and the length are those of the array.
    let n = unsafe {
        libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), libc::GRND_NONBLOCK)
    };
    match n {
        8 => u64::from_le_bytes(bytes),
        // Early in the boot there may be no randomness yet; the process and the clock differ, too.
        _ => {
            let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
        }
    }
}
