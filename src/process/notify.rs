//! Tells the service manager how far this process is (sd_notify(3)): datagrams to the socket that
//! `NOTIFY_SOCKET` names. Without a manager that waits for them nothing is sent.

#[cfg(feature = "master")]
pub(crate) mod service;

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The manager may take so long to have room for a datagram; it is not worth more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
///
/// It stays connected, also when this process has given up the right to connect, or has lost its root.
#[derive(Debug)]
pub struct Manager(Option<UnixDatagram>);

impl Manager {
    /// The one that has started this process, if it wants to be told.
    pub(crate) fn find() -> Manager {
        let name = std::env::var_os("NOTIFY_SOCKET");
        Manager(name.and_then(|name| connect(&name).ok()))
    }

    /// All that was to be prepared is done, and this process is the one that goes on. Each `status` is a
    /// line for people.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// This process is about to end.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.0 {
            // Best effort: ignored if the service manager is not listening.
            let _ = socket.send(state.as_bytes());
        }
    }
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
        Manager(connect(name.as_ref()).ok()).stopping("so far");
        let mut buffer = [0; 100];
        let n = here.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn a_socket_has_a_path_or_an_abstract_name() {
        let name = format!("xget-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        assert_eq!(sent_to(&address, &format!("@{name}")), "STOPPING=1\nSTATUS=so far");
        let path = std::env::temp_dir().join(name);
        let address = SocketAddr::from_pathname(&path).unwrap();
        assert_eq!(sent_to(&address, &path.to_string_lossy()), "STOPPING=1\nSTATUS=so far");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_name_that_is_no_socket_is_refused() {
        assert!(connect("relative".as_ref()).is_err());
        assert!(connect("vsock:2:1".as_ref()).is_err());
        assert!(connect("/nobody/is/there".as_ref()).is_err());
    }
}
