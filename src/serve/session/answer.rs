//! Who asks a host, and what it answers.

use std::time::Instant;

use crate::conn::Conn;
use crate::p9::errno::Errno;

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The connection.
    pub conn: Conn,
    /// The present, by the driver's clock.
    pub now: Instant,
}

/// A host's answer to a request that may have to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The answer.
    Now(T),
    /// Not yet: the host will ask the driver to resume the session.
    Wait,
    /// The request fails.
    Error(Errno),
}

impl<T> Answer<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Answer::Now(answer) => Answer::Now(change(answer)),
            Answer::Wait => Answer::Wait,
            Answer::Error(errno) => Answer::Error(errno),
        }
    }
}
