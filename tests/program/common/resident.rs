//! What stays in the background: found by the port that it listens on.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::wait_for;

/// A process in the background. It is killed at the latest when this goes.
pub(crate) struct Resident(u32);

impl Resident {
    /// The process of this program that listens on a loopback address.
    #[track_caller]
    pub(crate) fn on(address: SocketAddr) -> Resident {
        Resident(wait_for("who listens there", || listener(address)))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0
    }

    /// Sends it this signal and waits for its end.
    pub(crate) fn end(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.to_string()]).status();
        assert!(sent.unwrap().success());
        wait_for("the end of the resident", || (!self.is_running()).then_some(()));
    }

    pub(crate) fn is_running(&self) -> bool {
        is_xget(self.0)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // Its number may be another's by now.
        if self.is_running() {
            let _ = Command::new("kill").args(["-9", &self.0.to_string()]).status();
        }
    }
}

fn listener(address: SocketAddr) -> Option<u32> {
    let socket = format!("socket:[{}]", inode(address.port())?);
    let holds = |pid: &u32| {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        links.into_iter().any(|link| link == Path::new(&socket))
    };
    let pids = fs::read_dir("/proc").unwrap();
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_xget(*pid))
        .find(holds)
}

/// The socket that listens on a port of 127.0.0.1.
fn inode(port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let listens = |fields: &Vec<&str>| fields[1] == local && fields[3] == "0A";
    let mut lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(listens).map(|fields| fields[9].to_owned())
}

fn is_xget(pid: u32) -> bool {
    let program = Path::new(env!("CARGO_BIN_EXE_xget")).canonicalize().unwrap();
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
}
