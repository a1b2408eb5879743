//! Sockets that the service manager has opened for this process (sd_listen_fds(3)).

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first of them: `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;
/// More are not looked at.
const MOST: i32 = 64;

/// The descriptors, in their order, each with its name (`FileDescriptorName=` of systemd.socket(5)); none
/// if they are meant for another process. Those that are not open are left out. A second call gets none.
pub fn descriptors() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    let count = count(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), std::process::id());
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let all_names = variable("LISTEN_FDNAMES");
    let named = names(&all_names).zip(FIRST..FIRST + count);
    named.filter_map(|(name, fd)| Some((name.to_owned(), take(fd)?))).collect()
}

fn count(pid: &str, fds: &str, own_pid: u32) -> i32 {
    let meant = pid.parse() == Ok(own_pid);
    fds.parse().ok().filter(|_| meant).unwrap_or(0).clamp(0, MOST)
}

/// The names of `LISTEN_FDNAMES`, and then empty ones for those that have none.
fn names(all: &str) -> impl Iterator<Item = &str> {
    all.split(':').chain(std::iter::repeat(""))
}

fn take(fd: i32) -> Option<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let is_open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } >= 0;
    // SAFETY: it is open, and, as the environment says, was given to this process from the start; it is
    // taken once.
    is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        assert_eq!(count("7", "2", 7), 2);
        assert_eq!(count("7", "2", 8), 0);
        assert_eq!(count("", "2", 8), 0);
    }

    #[test]
    fn names_are_in_the_order_of_the_descriptors() {
        assert!(names("xget-master.socket:http").take(3).eq(["xget-master.socket", "http", ""]));
        assert!(names("").take(2).eq(["", ""]), "as from a manager that gives no names");
    }

    #[test]
    fn nonsense_is_no_descriptor() {
        assert_eq!(count("7", "-1", 7), 0);
        assert_eq!(count("7", "two", 7), 0);
        assert_eq!(count("7", "1000000", 7), MOST);
    }
}
