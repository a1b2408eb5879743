//! The message about an internal error of the static programs.
//!
//! Their panics are compiled to an illegal instruction, because the standard library's panic messages would
//! make them half as large again. The address in the message is the instruction's offset in the program's
//! file: `addr2line` finds the source line, given a program that is not stripped.

use std::ptr;

use super::checked;

unsafe extern "C" {
    // Defined by the linker: where the program's ELF header is in memory. Only its address is used.
    static __ehdr_start: u8;
}

/// Installs a handler that prints the message when the process runs into an illegal instruction (SIGILL).
/// The signal ends the process afterwards.
pub fn report_illegal_instruction() -> std::io::Result<()> {
    // SAFETY: a sigaction consists of integers and nullable pointers, for which zeros are valid values.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_illegal_instruction as *const () as usize;
    // SA_RESETHAND restores the default action, so that the same instruction then ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // SAFETY: the action outlives the call, and its handler has the signature that SA_SIGINFO requires.
    checked(unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) })
}

extern "C" fn on_illegal_instruction(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid pointer; the address in it is not dereferenced.
    let address = unsafe { (*info).si_addr() } as usize;
    let offset = address.wrapping_sub(ptr::addr_of!(__ehdr_start) as usize);
    let mut line =
        *b"xget: internal error at 0x0000000000000000: please report this line and the output of \
         xget --version\n";
    if let Some(digits) = line.get_mut(26..42) {
        for (i, digit) in digits.iter_mut().rev().enumerate() {
            let value = (offset >> (4 * i)) & 0xf;
            *digit = b"0123456789abcdef".get(value).copied().unwrap_or(b'?');
        }
    }
    // SAFETY: write(2) is async-signal-safe, and the line is readable for the length passed.
    let _ = unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
