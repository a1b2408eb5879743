//! The number of a connection.

/// A connection of this process, by a number that is never used again. Those that were accepted have even
/// numbers, those that were dialed odd ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u64);

impl Conn {
    /// Before the first connection that is accepted.
    pub(crate) const ACCEPTED: Conn = Conn(0);
    /// Before the first one that is dialed.
    pub(crate) const DIALED: Conn = Conn(1);

    /// The next one of the same kind.
    pub(crate) fn next(self) -> Conn {
        Conn(self.0 + 2)
    }

    /// Whether it was dialed.
    pub(crate) fn is_dialed(self) -> bool {
        self.0 % 2 == 1
    }
}
