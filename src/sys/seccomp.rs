//! A system call filter (seccomp(2)) for a process that only serves files.
//!
//! It is a deny list, and a denied call returns an error. With an allow list, or with SIGSYS, one call that the
//! next version of the C library makes would stop the master. Calls that are newer than the list return ENOSYS,
//! for which every caller has a fallback.

use std::io;
use std::mem::offset_of;

use libc::{c_long, seccomp_data, sock_filter};

use super::checked;

/// `AUDIT_ARCH_X86_64` or `AUDIT_ARCH_AARCH64` (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
/// The newest call that this list takes into account. Since Linux 5.1 new calls have the same number on all
/// architectures.
const NEWEST_CALL: c_long = libc::SYS_mseal;
/// The libc crate does not define it for all targets.
const SYS_FCHMODAT2: c_long = 452;

/// Executing programs, and access to other processes.
const PROCESS_CALLS: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];
/// Namespaces and mounts.
const NAMESPACE_CALLS: &[c_long] = &[
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
];
/// Large subsystems of the kernel that a server does not need.
const SUBSYSTEM_CALLS: &[c_long] = &[
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];
/// Outgoing connections and new listening sockets. The server accepts connections from a socket that listens
/// already.
const CONNECTION_CALLS: &[c_long] = &[libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];
/// Changes to files that landlock(7) does not restrict, or not in all its versions.
const FILE_CALLS: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_open_by_handle_at,
];
/// Older variants of these, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[c_long] = &[];

const REFUSED_CALLS: [&[c_long]; 6] =
    [PROCESS_CALLS, NAMESPACE_CALLS, SUBSYSTEM_CALLS, CONNECTION_CALLS, FILE_CALLS, OLDER_CALLS];

/// Calls that are denied for some values of one argument.
const REFUSED_ARGUMENTS: &[RefusedArgument] = &[
    // New processes; new threads are allowed.
    RefusedArgument {
        call: libc::SYS_clone,
        argument: 0,
        denied_if: Condition::LacksBits(libc::CLONE_THREAD as u32),
    },
    // All sockets except Unix sockets, which notify the service manager.
    RefusedArgument {
        call: libc::SYS_socket,
        argument: 0,
        denied_if: Condition::Differs(libc::AF_UNIX as u32),
    },
    // Executable memory.
    RefusedArgument {
        call: libc::SYS_mmap,
        argument: 2,
        denied_if: Condition::HasBits(libc::PROT_EXEC as u32),
    },
    RefusedArgument {
        call: libc::SYS_mprotect,
        argument: 2,
        denied_if: Condition::HasBits(libc::PROT_EXEC as u32),
    },
    // Input that appears to have been typed on the terminal.
    RefusedArgument {
        call: libc::SYS_ioctl,
        argument: 1,
        denied_if: Condition::Equals(libc::TIOCSTI as u32),
    },
    RefusedArgument {
        call: libc::SYS_ioctl,
        argument: 1,
        denied_if: Condition::Equals(libc::TIOCLINUX as u32),
    },
];

struct RefusedArgument {
    call: c_long,
    argument: u32,
    denied_if: Condition,
}

/// A condition on the lower 32 bits of an argument.
enum Condition {
    Equals(u32),
    Differs(u32),
    /// At least one of these bits is set.
    HasBits(u32),
    /// None of these bits is set.
    LacksBits(u32),
}

/// Installs the filter for the calling thread and all threads that it starts. The thread must have called
/// [`super::privileges::no_new_privileges`] before.
///
/// # Errors
///
/// `EINVAL` if the kernel has no seccomp filters.
pub(crate) fn install_filter() -> io::Result<()> {
    let mut program = program();
    let program = libc::sock_fprog {
        // A test checks that it is below the kernel's limit of 4096.
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    let (option, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER);
    // SAFETY: the program has the length that it states, and outlives the call, which copies it.
    checked(unsafe { libc::prctl(option, mode, &raw const program, 0, 0) })
}

/// The filter as a BPF program. A jump skips as many instructions as it states, depending on its test.
fn program() -> Vec<sock_filter> {
    let mut steps = Vec::new();
    load(&mut steps, offset_of!(seccomp_data, arch));
    steps.extend([jump(libc::BPF_JEQ, AUDIT_ARCH, 1, 0), error(libc::ENOSYS)]);
    load(&mut steps, offset_of!(seccomp_data, nr));
    steps.extend([jump(libc::BPF_JGT, NEWEST_CALL as u32, 0, 1), error(libc::ENOSYS)]);
    // A filter cannot read the flags of clone3, which are in memory. With ENOSYS the C library uses clone.
    steps.extend([jump(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1), error(libc::ENOSYS)]);
    for call in REFUSED_CALLS.into_iter().flatten() {
        steps.extend([jump(libc::BPF_JEQ, *call as u32, 0, 1), error(libc::EPERM)]);
    }
    for RefusedArgument { call, argument, denied_if } in REFUSED_ARGUMENTS {
        let test = match *denied_if {
            Condition::Equals(value) => jump(libc::BPF_JEQ, value, 0, 1),
            Condition::Differs(value) => jump(libc::BPF_JEQ, value, 1, 0),
            Condition::HasBits(bits) => jump(libc::BPF_JSET, bits, 0, 1),
            Condition::LacksBits(bits) => jump(libc::BPF_JSET, bits, 1, 0),
        };
        steps.push(jump(libc::BPF_JEQ, *call as u32, 0, 4));
        // The lower half comes first on these little-endian architectures.
        load(&mut steps, offset_of!(seccomp_data, args) + 8 * *argument as usize);
        steps.extend([test, error(libc::EPERM)]);
        load(&mut steps, offset_of!(seccomp_data, nr));
    }
    steps.push(step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW));
    steps
}

fn load(steps: &mut Vec<sock_filter>, offset: usize) {
    steps.push(step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32));
}

fn error(errno: i32) -> sock_filter {
    step(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | errno as u32)
}

fn jump(test: u32, operand: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { jt: if_true, jf: if_false, ..step(libc::BPF_JMP | test, operand) }
}

fn step(operation: u32, operand: u32) -> sock_filter {
    sock_filter { code: operation as u16, jt: 0, jf: 0, k: operand }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Runs `check` in a thread with the filter.
    fn filtered(check: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(|| {
            super::super::privileges::no_new_privileges().unwrap();
            install_filter().unwrap();
            check();
        });
        thread.join().unwrap();
    }

    /// The error of a call with invalid arguments.
    fn call(number: c_long, arguments: [c_long; 3]) -> Option<i32> {
        let [a, b, c] = arguments;
        // SAFETY: the calls access no memory: what the tests pass as a pointer is -1, which is not mapped.
        let result = unsafe { libc::syscall(number, a, b, c, -1, -1, -1) };
        if result == 0 {
            // SAFETY: this is the child of a fork that should have been denied; _exit ends it at once.
            unsafe { libc::_exit(1) };
        }
        (result < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }

    #[test]
    fn every_listed_call_is_denied() {
        filtered(|| {
            for number in REFUSED_CALLS.into_iter().flatten() {
                assert_eq!(call(*number, [-1; 3]), Some(libc::EPERM), "call {number}");
            }
        });
    }

    #[test]
    fn a_new_process_is_denied_and_a_new_thread_allowed() {
        filtered(|| {
            let flags = libc::SIGCHLD.into();
            assert_eq!(call(libc::SYS_clone, [flags, 0, 0]), Some(libc::EPERM));
            assert_eq!(call(libc::SYS_clone3, [-1; 3]), Some(libc::ENOSYS));
            assert!(std::process::Command::new("/bin/true").status().is_err());
            assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
        });
    }

    #[test]
    fn only_unix_sockets_are_allowed() {
        filtered(|| {
            for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
                let arguments = [family.into(), libc::SOCK_DGRAM.into(), 0];
                assert_eq!(call(libc::SYS_socket, arguments), Some(libc::EPERM), "{family}");
            }
            assert!(std::os::unix::net::UnixDatagram::unbound().is_ok());
        });
    }

    #[test]
    fn executable_memory_is_denied() {
        filtered(|| {
            let (rx, rw) = (libc::PROT_READ | libc::PROT_EXEC, libc::PROT_READ | libc::PROT_WRITE);
            for number in [libc::SYS_mmap, libc::SYS_mprotect] {
                assert_eq!(call(number, [0, 4096, rx.into()]), Some(libc::EPERM));
                assert_ne!(call(number, [-1, 4096, rw.into()]), Some(libc::EPERM));
            }
        });
    }

    #[test]
    fn simulated_terminal_input_is_denied() {
        filtered(|| {
            for number in [libc::TIOCSTI, libc::TIOCLINUX] {
                let arguments = [-1, number as c_long, -1];
                assert_eq!(call(libc::SYS_ioctl, arguments), Some(libc::EPERM));
            }
            assert_eq!(
                call(libc::SYS_ioctl, [-1, libc::FIONREAD as c_long, -1]),
                Some(libc::EBADF)
            );
        });
    }

    #[test]
    fn a_call_newer_than_the_list_does_not_exist() {
        filtered(|| assert_eq!(call(NEWEST_CALL + 1, [-1; 3]), Some(libc::ENOSYS)));
    }

    #[test]
    fn the_program_is_shorter_than_the_kernels_limit() {
        assert!(program().len() < 4096);
    }
}
