//! What only a service tells its manager: its state while it runs, and that it does not hang
//! (sd_watchdog_enabled(3)).

use std::time::Duration;

use super::Manager;
use crate::sys::process::monotonic_us;

impl Manager {
    /// What has changed for people.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// What is served is looked at anew; [`Manager::ready`] ends that.
    pub(crate) fn reloading(&self, status: &str) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS={status}", monotonic_us()));
    }

    /// This process does not hang: to be said as often as [`watchdog`] asks for it.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }
}

/// How often the manager wants to hear that this process does not hang: twice in the time after which it
/// would end it. None if it does not watch this process.
pub(crate) fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    let (usec, pid) = (variable("WATCHDOG_USEC")?, variable("WATCHDOG_PID"));
    twice_in(&usec, pid.as_deref(), std::process::id())
}

fn twice_in(usec: &str, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let meant = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let timeout = usec.parse().ok().filter(|usec| meant && *usec > 0)?;
    Some(Duration::from_micros(timeout) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_told_twice_within_its_timeout() {
        assert_eq!(twice_in("60000000", Some("7"), 7), Some(Duration::from_secs(30)));
        assert_eq!(twice_in("3000000", None, 7), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_process_that_is_not_watched_sends_nothing() {
        assert_eq!(twice_in("60000000", Some("8"), 7), None, "another process is meant");
        assert_eq!(twice_in("0", None, 7), None);
        assert_eq!(twice_in("soon", None, 7), None);
    }
}
