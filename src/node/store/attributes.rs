//! Modes, owners and times, as the manifest has them.

use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::time::{Duration, SystemTime};

use super::StoreOptions;
use super::calls::change;
use crate::image::manifest::{Entry, Mtime, Owner};
use crate::sys::fs::{effective_uid, set_link_mtime, set_link_owner, umask};
use crate::sys::rights::{WRITE_BY_OTHERS, is_trusted};

const SET_ID_BITS: u32 = 0o6000;

/// What is kept of the entries' attributes.
#[derive(Debug)]
pub(super) struct Attributes {
    modes: bool,
    owners: bool,
    /// The mode of files where modes are not kept.
    usual_mode: u32,
}

/// How a file came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This run made it.
    Made,
    /// An earlier run made it, and this one completed it.
    Completed,
    /// It was there with its final name, and is right.
    Kept,
}

impl Attributes {
    /// Owners are kept only where they can be: by root.
    pub(super) fn new(options: StoreOptions) -> Attributes {
        let StoreOptions { keep_modes, keep_owners } = options;
        let usual_mode = if keep_modes { 0o600 } else { 0o666 & !umask() };
        Attributes { modes: keep_modes, owners: keep_owners && effective_uid() == 0, usual_mode }
    }

    /// Are modes set at all?
    pub(super) fn keep_modes(&self) -> bool {
        self.modes
    }

    /// The mode to make a directory with: nobody else's until it is whole, or what the umask makes it.
    pub(super) fn first_dir_mode(&self) -> u32 {
        if self.modes { 0o700 } else { 0o777 }
    }

    /// Whether a file that this run did not make can stay: nobody has more rights to it than its entry gives them, and
    /// it needs neither an owner nor set-id bits.
    pub(super) fn may_stay(&self, found: &Metadata, entry: &Entry) -> bool {
        let mode = self.file_mode(entry);
        let owned = match self.owner(entry) {
            Some(Owner { uid, gid }) => (uid, gid) == (found.uid(), found.gid()),
            None => is_trusted(found.uid()),
        };
        let has_bits = mode & SET_ID_BITS == 0 || mode == found.mode() & 0o7777;
        owned && has_bits && found.mode() & WRITE_BY_OTHERS & !mode == 0
    }

    /// Whether nobody has more rights to a directory than its entry gives them.
    pub(super) fn is_as_meant(&self, found: &Metadata, entry: &Entry) -> bool {
        let owned = self.owner(entry).is_some_and(|owner| owner.uid == found.uid());
        let mode = if self.modes { entry.mode } else { self.usual_mode };
        (owned || is_trusted(found.uid())) && found.mode() & WRITE_BY_OTHERS & !mode == 0
    }

    /// Gives an open file the attributes of its entry; sets only what differs, so that a file of root's that is right
    /// already can stay.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` if the file needs an owner or set-id bits, and this run did not make it.
    pub(super) fn apply(&self, file: &File, entry: &Entry, origin: Origin) -> io::Result<()> {
        let found = file.metadata()?;
        if origin != Origin::Made && !self.may_stay(&found, entry) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let sets_mode = self.modes || origin != Origin::Kept;
        self.set(file, &found, entry, sets_mode.then(|| self.file_mode(entry)))
    }

    /// Gives an open directory the attributes of its entry. It gets an owner and set-id bits only if it `is_known`: else
    /// it may be any directory that somebody has moved there.
    pub(super) fn apply_to_dir(&self, dir: &File, entry: &Entry, is_known: bool) -> io::Result<()> {
        let found = dir.metadata()?;
        let has_owner = self.owner(entry).is_none_or(|owner| owner.uid == found.uid());
        let has_bits = !self.modes || entry.mode & SET_ID_BITS & !found.mode() == 0;
        let allowed = is_known || has_owner && has_bits;
        if !allowed {
            return Err(io::Error::other("other users can write to the directory that it is in"));
        }
        self.set(dir, &found, entry, self.modes.then_some(entry.mode))
    }

    fn set(
        &self,
        file: &File,
        found: &Metadata,
        entry: &Entry,
        mode: Option<u32>,
    ) -> io::Result<()> {
        let owner = self.owner(entry).filter(|o| (o.uid, o.gid) != (found.uid(), found.gid()));
        if let Some(Owner { uid, gid }) = owner {
            change(|| fchown(file, Some(uid), Some(gid)))?;
        }
        // After the owner, as changing that takes the set-id bits away.
        let mode = mode.filter(|mode| owner.is_some() || *mode != found.mode() & 0o7777);
        if let Some(mode) = mode {
            change(|| file.set_permissions(Permissions::from_mode(mode)))?;
        }
        let Mtime { secs, nanos } = entry.mtime;
        if (found.mtime(), found.mtime_nsec()) != (secs, i64::from(nanos)) {
            let times = FileTimes::new().set_modified(system_time(entry.mtime)?);
            change(|| file.set_times(times))?;
        }
        Ok(())
    }

    /// Whether a symbolic link that this run did not make has the owner of its entry.
    pub(super) fn owns_link(&self, found: &Metadata, entry: &Entry) -> bool {
        match self.owner(entry) {
            Some(Owner { uid, gid }) => (uid, gid) == (found.uid(), found.gid()),
            None => true,
        }
    }

    /// Gives the symbolic link `name` in `dir`, open as `link`, the attributes of its entry. A link has no mode.
    pub(super) fn apply_to_link(
        &self,
        dir: &File,
        name: &[u8],
        link: &File,
        entry: &Entry,
    ) -> io::Result<()> {
        let found = link.metadata()?;
        if let Some(owner) = self.owner(entry).filter(|_| !self.owns_link(&found, entry)) {
            change(|| set_link_owner(link, owner))?;
        }
        change(|| set_link_mtime(dir, name, entry.mtime))
    }

    fn owner(&self, entry: &Entry) -> Option<Owner> {
        entry.owner.filter(|_| self.owners)
    }

    /// A file keeps its set-id bits only together with its owner, as with `cp -p`: they are meant
    /// for the rights of that owner, and not of whoever fetches, who may be root.
    fn file_mode(&self, entry: &Entry) -> u32 {
        match self.owner(entry) {
            _ if !self.modes => self.usual_mode,
            Some(_) => entry.mode,
            None => entry.mode & !SET_ID_BITS,
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
