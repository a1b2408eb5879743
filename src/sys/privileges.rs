//! Gives up privileges, permanently.

use std::io;

use super::checked;

/// `CAP_DAC_READ_SEARCH` (linux/capability.h): read and search the files of other users.
const READ_SEARCH: u32 = 1 << 2;
/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h).
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct` (capset(2)).
#[repr(C)]
struct Header {
    version: u32,
    /// 0: the calling thread.
    pid: i32,
}

/// `struct __user_cap_data_struct`: one half, the lower or the upper 32 bits, of three sets.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Programs that this process executes from now on gain no privileges, not even set-user-ID programs
/// (PR_SET_NO_NEW_PRIVS, prctl(2)).
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: this option accesses no memory.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Drops all capabilities of the calling thread except `CAP_DAC_READ_SEARCH` (capabilities(7)). Threads that
/// it starts inherit the result.
pub(crate) fn keep_only_reading() -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: with version 3 the call writes two of these structures, and `sets` has two.
    checked(unsafe { libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) as i32 })?;
    let [low, high] = &mut sets;
    for set in [&mut low.effective, &mut low.permitted] {
        *set &= READ_SEARCH;
    }
    low.inheritable = 0;
    *high = Sets { effective: 0, permitted: 0, inheritable: 0 };
    // SAFETY: with version 3 the call reads two of these structures, and `sets` has two.
    checked(unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) as i32 })
}
