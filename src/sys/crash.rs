//! What is said where this program is at fault.
//!
//! In the static programs a broken assumption runs into an instruction that does not exist, in place of
//! the standard library's message, whose machinery would make them half as large again. The address is
//! that of the instruction in the program's file: `addr2line` finds the line in one that was not
//! stripped.

use std::ptr;

use super::checked;

unsafe extern "C" {
    /// Where the program's file begins in memory; the linker knows.
    static __ehdr_start: u8;
}

/// Says what has happened when the processor refuses an instruction, then lets the process end by it.
pub fn say_when_at_fault() -> std::io::Result<()> {
    // SAFETY: an all-zero sigaction is one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = at_fault as *const () as usize;
    // Once: with the signal's usual effect restored the same instruction then ends the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // SAFETY: the action outlives the call; its function takes what SA_SIGINFO passes.
    checked(unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) })
}

extern "C" fn at_fault(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo whose address is that of the instruction.
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
    // SAFETY: write is one of the calls that a signal handler may make; the buffer is readable.
    let _ = unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
