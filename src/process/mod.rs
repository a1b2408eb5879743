//! What any long-running program does about itself: messages on standard error, the service manager, the
//! background.

pub mod background;
pub mod log;
pub mod notify;
pub mod report;
