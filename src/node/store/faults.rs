//! What goes wrong with disks, in tests: full ones, those that cannot be read, and programs that are
//! killed between two calls or in the middle of one.

use std::cell::Cell;
use std::io;

use crate::random::next_random;

/// What the store is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Read something.
    Read,
    /// Write so many bytes.
    Write(usize),
    /// Change anything else.
    Change,
}

/// The disk of one program.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    /// Drives how much of a write comes through that is cut short.
    pub(crate) random: u64,
    /// The program is killed at the change after so many; None: never.
    pub(crate) changes_left: Option<u32>,
    /// Bytes that may still be written; None: as many as come.
    pub(crate) room: Option<usize>,
    /// One read in so many fails; 0: none.
    pub(crate) bad_reads: u64,
    /// The program was killed: nothing that it does has any effect.
    pub(crate) killed: bool,
}

thread_local! {
    static DISK: Cell<Disk> = const { Cell::new(Disk {
        random: 0, changes_left: None, room: None, bad_reads: 0, killed: false,
    }) };
}

/// Does `work` with all of this thread's calls going to `disk`.
pub(crate) fn with<T>(disk: &mut Disk, work: impl FnOnce() -> T) -> T {
    let others = DISK.replace(*disk);
    let result = work();
    *disk = DISK.replace(others);
    result
}

/// How many bytes of a write come through, and what the call ends with after that.
pub(super) fn before(call: Call) -> (usize, io::Result<()>) {
    let mut disk = DISK.get();
    let outcome = disk.before(call);
    DISK.set(disk);
    outcome
}

impl Disk {
    fn before(&mut self, call: Call) -> (usize, io::Result<()>) {
        let killed = Err(io::Error::other("killed"));
        if self.killed {
            return (0, killed);
        }
        let bytes = match call {
            Call::Read => {
                let bad = self.bad_reads > 0 && self.below(self.bad_reads) == 0;
                return (
                    0,
                    if bad { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) },
                );
            }
            Call::Write(bytes) => bytes,
            Call::Change => 0,
        };
        match &mut self.changes_left {
            Some(0) => {
                self.killed = true;
                return (self.below(bytes as u64 + 1) as usize, killed);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut self.room {
            Some(room) if *room < bytes => {
                let count = std::mem::take(room);
                (count, Err(io::Error::from_raw_os_error(libc::ENOSPC)))
            }
            Some(room) => {
                *room -= bytes;
                (bytes, Ok(()))
            }
            None => (bytes, Ok(())),
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        (next_random(&mut self.random) >> 16) % n
    }
}
