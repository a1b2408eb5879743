//! Giving up what a process may do, for good.

use std::io;

use super::checked;

/// Reading and searching whatever belongs to others: `CAP_DAC_READ_SEARCH` of linux/capability.h.
const READ_SEARCH: u32 = 1 << 2;
/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const VERSION: u32 = 0x2008_0522;

/// What capset(2) takes: a header, then the low and the high half of three sets.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 is this thread.
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// No program that is run from now on gets more rights than this one has (prctl(2)).
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Gives up all capabilities of this thread but that of reading, if it has that (capabilities(7)).
/// Threads that it starts have no more.
pub fn keep_only_reading() -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 fills in both halves of the sets, which are writable.
    checked(unsafe { libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) as i32 })?;
    let [low, high] = &mut sets;
    for set in [&mut low.effective, &mut low.permitted] {
        *set &= READ_SEARCH;
    }
    low.inheritable = 0;
    *high = Sets { effective: 0, permitted: 0, inheritable: 0 };
    // SAFETY: version 3 reads both halves of the sets.
    checked(unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) as i32 })
}
