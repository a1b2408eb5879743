//! What an open asks for, out of the modes and flags of the dialects.

/// What an open asks to be allowed.
pub(super) struct Access {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) truncate: bool,
    pub(super) remove_on_close: bool,
    pub(super) directory: bool,
}

impl Access {
    /// Whether something of the file would change.
    pub(super) fn changes(&self) -> bool {
        self.write || self.truncate || self.remove_on_close
    }

    /// Topen's mode (open(5)).
    pub(super) fn of_plan9(mode: u8) -> Access {
        Access {
            read: matches!(mode & 3, 0 | 2 | 3),
            write: matches!(mode & 3, 1 | 2),
            truncate: mode & 0x10 != 0,
            remove_on_close: mode & 0x40 != 0,
            directory: false,
        }
    }

    /// Tlopen's flags, those of open(2) on most Linux machines whatever the client's.
    pub(super) fn of_linux(flags: u32) -> Access {
        Access {
            read: matches!(flags & 3, 0 | 2),
            write: matches!(flags & 3, 1..=3),
            truncate: flags & 0o1000 != 0,
            remove_on_close: false,
            directory: flags & 0o200_000 != 0,
        }
    }
}
