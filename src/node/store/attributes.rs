//! Modes, owners and times, as the manifest has them.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::time::{Duration, SystemTime};

use super::StoreOptions;
use super::calls::change;
use crate::image::manifest::{Content, Entry, Mtime, Owner};
use crate::sys::fs::{effective_uid, set_link_mtime, set_link_owner};

const SET_ID_BITS: u32 = 0o6000;

/// What is kept of the entries' attributes.
#[derive(Debug)]
pub(super) struct Attributes {
    modes: bool,
    owners: bool,
}

impl Attributes {
    /// Owners are kept only where they can be: by root.
    pub(super) fn new(options: StoreOptions) -> Attributes {
        let StoreOptions { keep_modes, keep_owners } = options;
        Attributes { modes: keep_modes, owners: keep_owners && effective_uid() == 0 }
    }

    /// Are modes set at all?
    pub(super) fn keep_modes(&self) -> bool {
        self.modes
    }

    /// The mode to make a file with: nobody else's until it is whole, or what the umask makes it.
    pub(super) fn first_file_mode(&self) -> u32 {
        if self.modes { 0o600 } else { 0o666 }
    }

    /// The mode to make a directory with, likewise.
    pub(super) fn first_dir_mode(&self) -> u32 {
        if self.modes { 0o700 } else { 0o777 }
    }

    /// Gives an open file or directory the attributes of its entry; sets only what differs, so that
    /// a file of somebody else's that is right already can stay.
    pub(super) fn apply(&self, file: &File, entry: &Entry) -> io::Result<()> {
        let found = file.metadata()?;
        let owner = self.owner(entry).filter(|o| (o.uid, o.gid) != (found.uid(), found.gid()));
        if let Some(Owner { uid, gid }) = owner {
            change(|| fchown(file, Some(uid), Some(gid)))?;
        }
        // After the owner, as changing that takes the set-id bits away.
        let mode = self.mode(entry);
        if self.modes && (owner.is_some() || mode != found.mode() & 0o7777) {
            change(|| file.set_permissions(Permissions::from_mode(mode)))?;
        }
        let Mtime { secs, nanos } = entry.mtime;
        if (found.mtime(), found.mtime_nsec()) != (secs, i64::from(nanos)) {
            let times = FileTimes::new().set_modified(system_time(entry.mtime)?);
            change(|| file.set_times(times))?;
        }
        Ok(())
    }

    /// Gives the symbolic link `name` in `dir` the attributes of its entry. A link has no mode.
    pub(super) fn apply_to_link(&self, dir: &File, name: &[u8], entry: &Entry) -> io::Result<()> {
        if let Some(owner) = self.owner(entry) {
            change(|| set_link_owner(dir, name, owner))?;
        }
        change(|| set_link_mtime(dir, name, entry.mtime))
    }

    fn owner(&self, entry: &Entry) -> Option<Owner> {
        entry.owner.filter(|_| self.owners)
    }

    /// A file keeps its set-id bits only together with its owner, as with `cp -p`: they are meant
    /// for the rights of that owner, and not of whoever fetches, who may be root.
    fn mode(&self, entry: &Entry) -> u32 {
        match entry.content {
            Content::File { .. } if self.owner(entry).is_none() => entry.mode & !SET_ID_BITS,
            _ => entry.mode,
        }
    }
}

fn system_time(Mtime { secs, nanos }: Mtime) -> io::Result<SystemTime> {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let second = match secs < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(whole),
        false => SystemTime::UNIX_EPOCH.checked_add(whole),
    };
    let time = second.and_then(|second| second.checked_add(Duration::from_nanos(nanos.into())));
    time.ok_or_else(|| io::Error::other("its modification time is out of range"))
}
