//! Going into the background, and what else a process does about itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// The limit on open descriptors (RLIMIT_NOFILE, getrlimit(2)), raised for as long as this lives: what is started
/// afterwards has the old one, beyond which some programs do not work.
#[derive(Debug)]
pub struct DescriptorLimit {
    before: libc::rlimit,
}

impl DescriptorLimit {
    /// Raises it to `most`, or as far as this process may.
    pub fn raise(most: usize) -> DescriptorLimit {
        let before = read_descriptor_limit();
        let raised = (most as libc::rlim_t).min(before.rlim_max).max(before.rlim_cur);
        set_descriptor_limit(raised, before.rlim_max);
        DescriptorLimit { before }
    }
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        set_descriptor_limit(self.before.rlim_cur, self.before.rlim_max);
    }
}

/// How many descriptors may be open in this process.
pub fn descriptor_limit() -> usize {
    usize::try_from(read_descriptor_limit().rlim_cur).unwrap_or(usize::MAX)
}

/// The limit of most systems.
const USUAL_DESCRIPTORS: libc::rlim_t = 1024;

fn read_descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes the structure that is given to it.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => limit,
        _ => libc::rlimit { rlim_cur: USUAL_DESCRIPTORS, rlim_max: USUAL_DESCRIPTORS },
    }
}

fn set_descriptor_limit(rlim_cur: libc::rlim_t, rlim_max: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur, rlim_max };
    // SAFETY: setrlimit reads the structure that is given to it. If it fails, fewer descriptors may be open.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Has the kernel end this thread's process when the one that started it ends, whatever ends that (prctl(2),
/// `PR_SET_PDEATHSIG`); `false` takes it back.
fn end_with_parent(ends: bool) {
    let signal = if ends { libc::SIGTERM } else { 0 };
    // SAFETY: this option of prctl takes a number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

/// Runs a command that is ended when this process ends before it.
pub fn status_while_here(command: &mut Command) -> io::Result<std::process::ExitStatus> {
    let before_exec = || {
        end_with_parent(true);
        Ok(())
    };
    // SAFETY: prctl may be called between fork and exec, and nothing else is done there.
    unsafe { command.pre_exec(before_exec) };
    command.status()
}

/// Splits the process in two: the new one does the work, the old one waits for its report. If the old one is ended
/// before that, so is the new one.
///
/// To be called while there is only one thread, which then calls [`Detach::release`].
pub fn background() -> io::Result<Side> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 writes two descriptors into the array that is given to it.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors were just made and nobody else owns them.
    let (from, to) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let parent = std::process::id();
    // SAFETY: there is one thread, so the child may go on as usual.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(from);
            // SAFETY: setsid takes nothing; a child that was just forked leads no group.
            unsafe { libc::setsid() };
            end_with_parent(true);
            if std::os::unix::process::parent_id() != parent {
                // It was ended before the kernel knew.
                std::process::exit(1);
            }
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
        end_with_parent(false);
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

/// The time of `CLOCK_MONOTONIC`, in microseconds (clock_gettime(2)).
pub fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec to the place that it is given; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000).saturating_add(time.tv_nsec as u64 / 1000)
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
