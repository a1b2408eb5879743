//! The state directory: what this process says there of itself, and the socket through which another
//! one comes to take over.
//!
//! The directory is held open: after a switch of the root file system its path may lead nowhere. It is
//! locked as well, so that two processes do not overwrite what the other says.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::state::pid_in;
use crate::error::Error;
use crate::sys::descriptors::peer_user;
use crate::sys::fs::{Lock, effective_uid, lock, open_at, rename_at, unlink_at};
use crate::sys::rights::others_can_rename_in;

const STATE: &CStr = c"state.json";
/// What becomes it once it is whole.
const NEW_STATE: &CStr = c".state.json.new";
/// Its beginning, which holds the pid.
const MAX_STATE_BYTES: u64 = 4096;
/// Packets keep the messages apart.
pub(super) const SOCKET: &str = "take-over";
/// What a guest sends once it has all it needs.
pub(super) const TAKEN: &[u8] = b"taken";
const MADE: &[&CStr] = &[STATE, c"take-over"];

/// What is in the directory is removed when this goes.
#[derive(Debug)]
pub(super) struct Directory {
    dir: File,
    socket: Socket,
    /// Who was offered to take over, and has not answered yet.
    guest: Option<Socket>,
}

impl Directory {
    /// Makes the directory if there is none, and everything in it.
    ///
    /// # Errors
    /// Another process serves with it, other users can put something else in the place of what is in it, or the
    /// system's.
    pub(super) fn open(path: &Path, state: &str) -> Result<Directory, Error> {
        fs::create_dir_all(path).map_err(Error::file("create directory", path))?;
        let dir = File::open(path).map_err(Error::file("open directory", path))?;
        let found = dir.metadata().map_err(Error::file("read the attributes of", path))?;
        if others_can_rename_in(&found) {
            let shared = io::Error::other("other users can write to it");
            return Err(Error::file("use", path)(shared));
        }
        lock(&dir, Lock::Exclusive).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::file("use", path)(taken_by(&dir)),
            _ => Error::file("lock", path)(error),
        })?;
        let at = path.join(SOCKET);
        let make_socket = || {
            // Of a process that was killed.
            unlink_at(&dir, SOCKET.as_bytes())?;
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SockAddr::unix(&at)?)?;
            socket.listen(1)?;
            Ok(socket)
        };
        let socket = make_socket().map_err(Error::file("create the socket", &at))?;
        let made = Directory { dir, socket, guest: None };
        made.write(state.as_bytes()).map_err(Error::file("write state.json in", path))?;
        Ok(made)
    }

    fn write(&self, state: &[u8]) -> io::Result<()> {
        // Of a process that was killed.
        unlink_at(&self.dir, NEW_STATE.to_bytes())?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        open_at(&self.dir, NEW_STATE.to_bytes(), flags, 0o644)?.write_all(state)?;
        rename_at(&self.dir, NEW_STATE.to_bytes(), STATE.to_bytes())
    }

    /// What there may be something to read from.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(&self.socket).chain(&self.guest).map(AsFd::as_fd).collect()
    }

    /// Somebody who has come to take over, in the place of an earlier one. Only a process of the same
    /// user may.
    pub(super) fn newcomer(&mut self) -> Option<&Socket> {
        let (guest, _) = self.socket.accept().ok()?;
        let may = peer_user(guest.as_fd()).is_ok_and(|user| user == effective_uid());
        if !may || guest.set_nonblocking(true).is_err() {
            return None;
        }
        Some(self.guest.insert(guest))
    }

    /// Ends the connection of whoever has come.
    pub(super) fn turn_away(&mut self) {
        self.guest = None;
    }

    /// Whether the guest says that it has taken over.
    pub(super) fn is_taken(&mut self) -> bool {
        let Some(guest) = &self.guest else { return false };
        let mut answer = [0; TAKEN.len()];
        match (&*guest).read(&mut answer) {
            Ok(_) if answer == TAKEN => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // It is gone, or something else.
            _ => {
                self.guest = None;
                false
            }
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for name in MADE {
            // There is nothing that could be done about it.
            let _ = unlink_at(&self.dir, name.to_bytes());
        }
        // From here on they are another's.
        let _ = lock(&self.dir, Lock::Free);
    }
}

/// Why a directory that is locked cannot be used.
fn taken_by(dir: &File) -> io::Error {
    let mut state = String::new();
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let read = open_at(dir, STATE.to_bytes(), flags, 0)
        .and_then(|file| file.take(MAX_STATE_BYTES).read_to_string(&mut state));
    let who = match read.ok().and_then(|_| pid_in(&state)) {
        Some(pid) => format!("process {pid}"),
        None => "another process".into(),
    };
    io::Error::other(format!("{who} already uses it"))
}
