//! Tells the service manager how far this process is (sd_notify(3)), and that it does not hang
//! (sd_watchdog_enabled(3)): datagrams to the socket that `NOTIFY_SOCKET` names. Without a manager that waits
//! for them nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::sys::process::monotonic_us;

/// The manager may take so long to have room for a datagram; it is not worth more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
///
/// It stays connected, also when this process has given up the right to connect, or has lost its root.
#[derive(Debug)]
pub struct Manager(Option<UnixDatagram>);

impl Manager {
    /// The one that has started this process, if it wants to be told.
    pub fn find() -> Manager {
        let name = std::env::var_os("NOTIFY_SOCKET");
        Manager(name.and_then(|name| connect(&name).ok()))
    }

    /// All that was to be prepared is done, and this process is the one that goes on. Each `status` is a
    /// line for people.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// What has changed for people.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// What is served is looked at anew; [`Manager::ready`] ends that.
    pub fn reloading(&self, status: &str) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS={status}", monotonic_us()));
    }

    /// This process does not hang: to be said as often as [`watchdog`] asks for it.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// This process is about to end.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.0 {
            // Whoever wants to know and does not listen misses it.
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// How often the manager wants to hear that this process does not hang: twice in the time after which it
/// would end it. None if it does not watch this process.
pub fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    let (usec, pid) = (variable("WATCHDOG_USEC")?, variable("WATCHDOG_PID"));
    twice_in(&usec, pid.as_deref(), std::process::id())
}

fn twice_in(usec: &str, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    let meant = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
    let timeout = usec.parse().ok().filter(|usec| meant && *usec > 0)?;
    Some(Duration::from_micros(timeout) / 2)
}

/// A path, or with `@` before it a name of the abstract namespace (unix(7)).
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_to(address: &SocketAddr, name: &str) -> String {
        let here = UnixDatagram::bind_addr(address).unwrap();
        Manager(connect(name.as_ref()).ok()).status("so far");
        let mut buffer = [0; 100];
        let n = here.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn a_socket_has_a_path_or_an_abstract_name() {
        let name = format!("xget-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        assert_eq!(sent_to(&address, &format!("@{name}")), "STATUS=so far");
        let path = std::env::temp_dir().join(name);
        let address = SocketAddr::from_pathname(&path).unwrap();
        assert_eq!(sent_to(&address, &path.to_string_lossy()), "STATUS=so far");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_watchdog_hears_twice_in_its_time() {
        assert_eq!(twice_in("60000000", Some("7"), 7), Some(Duration::from_secs(30)));
        assert_eq!(twice_in("3000000", None, 7), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn who_is_not_watched_is_quiet() {
        assert_eq!(twice_in("60000000", Some("8"), 7), None, "another process is meant");
        assert_eq!(twice_in("0", None, 7), None);
        assert_eq!(twice_in("soon", None, 7), None);
    }

    #[test]
    fn what_is_no_socket_is_not_told() {
        assert!(connect("relative".as_ref()).is_err());
        assert!(connect("vsock:2:1".as_ref()).is_err());
        assert!(connect("/nobody/is/there".as_ref()).is_err());
    }
}
