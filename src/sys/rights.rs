//! Who else can change a file or directory, as its owner and its mode say.
//!
//! Trusted are this user and root. A name in a directory stands for what this user put there only as long as
//! nobody else can rename it, and the content of a file is what this user wrote only if nobody else can write it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use super::fs::{effective_gid, effective_uid};

/// Write permission of the group and of everybody. With an access control list the group's bit stands for all
/// users and groups in the list (acl(5)).
pub(crate) const WRITE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Whether this is the effective user or root.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == effective_uid()
}

/// Whether a user who is not trusted can rename, remove or replace in this directory what a trusted user has made
/// there. In a directory with the sticky bit, such as `/tmp`, only the owner of the directory can.
pub(crate) fn others_can_rename_in(dir: &Metadata) -> bool {
    !is_trusted(dir.uid()) || is_written_by_others(dir) && dir.mode() & STICKY == 0
}

/// Whether a user who is not trusted can put something else in the place of `child`, which is in `dir`.
pub(crate) fn others_can_replace(dir: &Metadata, child: &Metadata) -> bool {
    others_can_rename_in(dir) || is_written_by_others(dir) && !is_trusted(child.uid())
}

/// Users have a group of their own on many systems, with the number of the user, and then let that group write.
fn is_written_by_others(dir: &Metadata) -> bool {
    let own_group = effective_uid() != 0
        && dir.gid() == effective_uid()
        && dir.gid() == effective_gid()
        && dir.mode() & 0o002 == 0;
    dir.mode() & WRITE_BY_OTHERS != 0 && !own_group
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let name = format!("xget-rights-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Dir(path)
        }

        fn with_mode(&self, mode: u32) -> Metadata {
            fs::set_permissions(&self.0, Permissions::from_mode(mode)).unwrap();
            fs::metadata(&self.0).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn others_can_rename_what_is_in_a_directory_that_they_can_write() {
        let dir = Dir::new("mode");
        for (mode, can) in [(0o700, false), (0o755, false), (0o757, true), (0o1777, false)] {
            assert_eq!(others_can_rename_in(&dir.with_mode(mode)), can, "{mode:o}");
        }
    }

    #[test]
    fn the_owner_of_a_directory_can_rename_all_that_is_in_it() {
        if effective_uid() != 0 {
            return eprintln!("SKIPPED: the_owner_of_a_directory_can_rename: not root");
        }
        let dir = Dir::new("owner");
        std::os::unix::fs::chown(&dir.0, Some(1234), None).unwrap();
        assert!(others_can_rename_in(&dir.with_mode(0o1700)));
    }

    #[test]
    fn a_sticky_directory_protects_what_is_ours_alone() {
        if effective_uid() != 0 {
            return eprintln!("SKIPPED: a_sticky_directory_protects_what_is_ours: not root");
        }
        let (above, below) = (Dir::new("sticky"), Dir::new("below"));
        let above = above.with_mode(0o1777);
        assert!(!others_can_replace(&above, &below.with_mode(0o755)));
        std::os::unix::fs::chown(&below.0, Some(1234), None).unwrap();
        assert!(others_can_replace(&above, &below.with_mode(0o755)));
    }
}
