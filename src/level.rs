//! How much a message matters.

/// The numbers are those of syslog(3), where less matters more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The operation failed.
    Error = 3,
    /// The operation goes on, but something needs an administrator's attention.
    Warning = 4,
    /// What an administrator wants to know of a run in which all goes well.
    Notice = 5,
    /// Connections, retries, sources.
    Info = 6,
    /// Every 9P message.
    Debug = 7,
}
