//! The swarm: which chunk travels next, between whom.
pub mod grants;
pub mod hub;
pub mod members;
pub mod scheduler;
pub mod uploads;
