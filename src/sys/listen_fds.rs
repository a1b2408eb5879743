//! Sockets that the service manager passed to this process: socket activation (sd_listen_fds(3)).

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// `SD_LISTEN_FDS_START`, the number of the first descriptor.
const FIRST_FD: i32 = 3;
const MAX_FDS: i32 = 64;

/// The passed descriptors in order, each with its name (`FileDescriptorName=` of systemd.socket(5)); none if
/// they are meant for another process. Descriptors that are not open are left out. A second call returns
/// none, since the first caller owns them.
pub(crate) fn descriptors() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    let count = count(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), std::process::id());
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let all_names = variable("LISTEN_FDNAMES");
    let named = names(&all_names).zip(FIRST_FD..FIRST_FD + count);
    named.filter_map(|(name, fd)| Some((name.to_owned(), take(fd)?))).collect()
}

fn count(pid: &str, fds: &str, own_pid: u32) -> i32 {
    let for_this_process = pid.parse() == Ok(own_pid);
    fds.parse().ok().filter(|_| for_this_process).unwrap_or(0).clamp(0, MAX_FDS)
}

/// The names in `LISTEN_FDNAMES`, followed by empty ones for descriptors without a name.
fn names(all: &str) -> impl Iterator<Item = &str> {
    all.split(':').chain(std::iter::repeat(""))
}

fn take(fd: i32) -> Option<OwnedFd> {
    // SAFETY: F_SETFD accesses no memory.
    let is_open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } >= 0;
    // SAFETY: the descriptor is open. The service manager passed it for this purpose, so nothing else in
    // the process owns it, and `descriptors` takes it only once.
    is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_for_another_process_are_left_alone() {
        assert_eq!(count("7", "2", 7), 2);
        assert_eq!(count("7", "2", 8), 0);
        assert_eq!(count("", "2", 8), 0);
    }

    #[test]
    fn names_have_the_order_of_the_descriptors() {
        assert!(names("xget-master.socket:http").take(3).eq(["xget-master.socket", "http", ""]));
        assert!(names("").take(2).eq(["", ""]), "the service manager passed no names");
    }

    #[test]
    fn an_invalid_number_of_descriptors_counts_as_none() {
        assert_eq!(count("7", "-1", 7), 0);
        assert_eq!(count("7", "two", 7), 0);
    }

    #[test]
    fn the_number_of_descriptors_is_limited() {
        assert_eq!(count("7", "1000000", 7), MAX_FDS);
    }
}
