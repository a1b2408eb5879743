//! A filter of system calls (seccomp(2)): what this process never does from now on.
//!
//! It is a list of what is refused, and what is refused gets an error. A list of what is allowed, or an
//! end by SIGSYS, would turn a call that nobody thought of, of the C library's next version say, into a
//! master that is down. What a list of refusals cannot know, calls that are younger than it, is said not
//! to exist, for which every caller has another way.

use std::io;
use std::mem::offset_of;

use libc::{c_long, seccomp_data, sock_filter};

use super::checked;

/// What the kernel calls the processor that this is made for (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const PROCESSOR: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const PROCESSOR: u32 = 0xc000_00b7;
/// The youngest call that is known here; since Linux 5.1 all processors number them alike.
const YOUNGEST: c_long = libc::SYS_mseal;
/// In no libc yet for every processor.
const SYS_FCHMODAT2: c_long = 452;

/// Programs, processes, and what belongs to others.
const PROCESSES: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];
/// Other views of the system, and more rights in them.
const NAMESPACES: &[c_long] = &[
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
/// Large parts of the kernel that a server has no use for.
const KERNEL: &[c_long] = &[
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
/// Connections that it makes. It takes some, of a socket that listens already.
const CONNECTIONS: &[c_long] = &[libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];
/// Changes of files that landlock(7) knows nothing of, or not in all versions.
const FILES: &[c_long] = &[
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
/// The same, as older processors have them.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
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
const OLD: &[c_long] = &[];

const NEVER: [&[c_long]; 6] = [PROCESSES, NAMESPACES, KERNEL, CONNECTIONS, FILES, OLD];

/// Calls that are refused for one of their arguments.
const SOMETIMES: &[Sometimes] = &[
    // Threads may be made, and no processes.
    Sometimes {
        call: libc::SYS_clone,
        argument: 0,
        refused: Refused::Without(libc::CLONE_THREAD as u32),
    },
    // What tells a service manager how things are.
    Sometimes {
        call: libc::SYS_socket,
        argument: 0,
        refused: Refused::IsNot(libc::AF_UNIX as u32),
    },
    // Memory that holds code.
    Sometimes { call: libc::SYS_mmap, argument: 2, refused: Refused::With(libc::PROT_EXEC as u32) },
    Sometimes {
        call: libc::SYS_mprotect,
        argument: 2,
        refused: Refused::With(libc::PROT_EXEC as u32),
    },
    // What looks as if it was typed on the terminal.
    Sometimes { call: libc::SYS_ioctl, argument: 1, refused: Refused::Is(libc::TIOCSTI as u32) },
    Sometimes { call: libc::SYS_ioctl, argument: 1, refused: Refused::Is(libc::TIOCLINUX as u32) },
];

struct Sometimes {
    call: c_long,
    argument: u32,
    refused: Refused,
}

/// For which values of the lower half of an argument.
enum Refused {
    Is(u32),
    IsNot(u32),
    /// One of these bits is set.
    With(u32),
    /// None of them is.
    Without(u32),
}

/// Filters the system calls of this thread and of those that it starts, for good. It must have given up
/// getting new privileges before (prctl(2)).
///
/// # Errors
///
/// `EINVAL` where the kernel has no such filters.
pub fn filter() -> io::Result<()> {
    let mut program = program();
    let program = libc::sock_fprog {
        // Below the kernel's 4096, which has a test.
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    let (option, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER);
    // SAFETY: the program has the length that is given and outlives the call, which copies it.
    checked(unsafe { libc::prctl(option, mode, &raw const program, 0, 0) })
}

/// The filter in the kernel's language of filters: every step is an operation, where to go on (so many
/// steps further) if it holds and if it does not, and its operand.
fn program() -> Vec<sock_filter> {
    let mut steps = Vec::new();
    load(&mut steps, offset_of!(seccomp_data, arch));
    steps.extend([jump(libc::BPF_JEQ, PROCESSOR, 1, 0), error(libc::ENOSYS)]);
    load(&mut steps, offset_of!(seccomp_data, nr));
    steps.extend([jump(libc::BPF_JGT, YOUNGEST as u32, 0, 1), error(libc::ENOSYS)]);
    // Its arguments are in memory, where no filter can look: whoever wants a thread takes clone.
    steps.extend([jump(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1), error(libc::ENOSYS)]);
    for call in NEVER.into_iter().flatten() {
        steps.extend([jump(libc::BPF_JEQ, *call as u32, 0, 1), error(libc::EPERM)]);
    }
    for Sometimes { call, argument, refused } in SOMETIMES {
        let test = match *refused {
            Refused::Is(value) => jump(libc::BPF_JEQ, value, 0, 1),
            Refused::IsNot(value) => jump(libc::BPF_JEQ, value, 1, 0),
            Refused::With(bits) => jump(libc::BPF_JSET, bits, 0, 1),
            Refused::Without(bits) => jump(libc::BPF_JSET, bits, 1, 0),
        };
        steps.push(jump(libc::BPF_JEQ, *call as u32, 0, 4));
        // The lower half comes first on the processors that this is made for.
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

fn jump(test: u32, operand: u32, if_so: u8, if_not: u8) -> sock_filter {
    sock_filter { jt: if_so, jf: if_not, ..step(libc::BPF_JMP | test, operand) }
}

fn step(operation: u32, operand: u32) -> sock_filter {
    sock_filter { code: operation as u16, jt: 0, jf: 0, k: operand }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What a filtered thread finds.
    fn filtered(look: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(|| {
            super::super::privileges::no_new_privileges().unwrap();
            filter().unwrap();
            look();
        });
        thread.join().unwrap();
    }

    /// The error of a call with arguments that are good for nothing.
    fn call(number: c_long, arguments: [c_long; 3]) -> Option<i32> {
        let [a, b, c] = arguments;
        // SAFETY: the calls of these tests take no memory, or -1, at which there is none.
        let result = unsafe { libc::syscall(number, a, b, c, -1, -1, -1) };
        if result == 0 {
            // SAFETY: it is the child of a fork that was not refused, and touches nothing.
            unsafe { libc::_exit(1) };
        }
        (result < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }

    #[test]
    fn what_is_never_needed_is_refused() {
        filtered(|| {
            for number in NEVER.into_iter().flatten() {
                assert_eq!(call(*number, [-1; 3]), Some(libc::EPERM), "call {number}");
            }
        });
    }

    #[test]
    fn a_process_cannot_be_made_and_a_thread_can() {
        filtered(|| {
            let flags = libc::SIGCHLD.into();
            assert_eq!(call(libc::SYS_clone, [flags, 0, 0]), Some(libc::EPERM));
            assert_eq!(call(libc::SYS_clone3, [-1; 3]), Some(libc::ENOSYS));
            assert!(std::process::Command::new("/bin/true").status().is_err());
            assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
        });
    }

    #[test]
    fn sockets_are_those_of_this_machine() {
        filtered(|| {
            for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
                let arguments = [family.into(), libc::SOCK_DGRAM.into(), 0];
                assert_eq!(call(libc::SYS_socket, arguments), Some(libc::EPERM), "{family}");
            }
            assert!(std::os::unix::net::UnixDatagram::unbound().is_ok());
        });
    }

    #[test]
    fn memory_holds_no_new_code() {
        filtered(|| {
            let (rx, rw) = (libc::PROT_READ | libc::PROT_EXEC, libc::PROT_READ | libc::PROT_WRITE);
            for number in [libc::SYS_mmap, libc::SYS_mprotect] {
                assert_eq!(call(number, [0, 4096, rx.into()]), Some(libc::EPERM));
                assert_ne!(call(number, [-1, 4096, rw.into()]), Some(libc::EPERM));
            }
        });
    }

    #[test]
    fn nothing_can_be_typed_on_a_terminal() {
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
    fn calls_of_the_future_are_unknown() {
        filtered(|| assert_eq!(call(YOUNGEST + 1, [-1; 3]), Some(libc::ENOSYS)));
    }

    #[test]
    fn the_kernel_takes_a_program_of_that_length() {
        assert!(program().len() < 4096);
    }
}
