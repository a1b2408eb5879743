//! Disks that are full or cannot be written to.

use std::process::Command;

use super::*;

/// A file system in memory; only root can mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<SmallDisk> {
        let dir = TempDir::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&dir.0);
        mount.status().is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-o", options]).arg(&self.0.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_of_a_file() {
    let Some(disk) = SmallDisk::new("size=256k") else {
        eprintln!("SKIPPED: a_full_disk_is_told: cannot mount a tmpfs");
        return;
    };
    let (a, b) = (noise(1, 100_000), noise(2, 400_000));
    let served = serve(&[(b"a", 0o644, Plain(&a)), (b"b", 0o644, Plain(&b))]);
    let mut store = served.open(".", &disk.0.0).unwrap();
    let error = served.send_all(&mut store).unwrap_err().to_string();
    let path = disk.0.path("b").display().to_string();
    assert_eq!(error, format!("cannot write {path}: No space left on device"));
    assert_eq!(fs::read(disk.0.path("a")).unwrap(), a);
    drop(store);
    let names = disk.0.names();
    assert!(
        names.len() == 2 && names[0].starts_with(".xget-part-") && names[1] == "a",
        "{names:?}"
    );

    disk.remount("remount,size=4m");
    let mut store = served.reopen(".", &disk.0.0, KEEP);
    assert_eq!(verify(&mut store)[..2], [0, 1]);
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(disk.0.path("b")).unwrap(), b);
}

#[test]
fn a_file_system_that_cannot_be_written_to_is_told() {
    let Some(disk) = SmallDisk::new("size=256k") else {
        eprintln!("SKIPPED: a_file_system_that_cannot_be_written_to_is_told: cannot mount a tmpfs");
        return;
    };
    disk.remount("remount,ro");
    let served = serve(&[(b"a", 0o644, Plain(b"x"))]);
    let mut store = served.open(".", &disk.0.0).unwrap();
    let error = served.send_all(&mut store).unwrap_err().to_string();
    let path = disk.0.path("a").display().to_string();
    assert_eq!(error, format!("cannot create {path}: Read-only file system"));
}

/// It gets an owner, so that it cannot be completed in place, and there is no room for it twice.
#[test]
fn a_temporary_file_that_is_moved_needs_no_more_room() {
    let disk = (effective_uid() == 0).then(|| SmallDisk::new("size=2m")).flatten();
    let Some(disk) = disk else {
        eprintln!("SKIPPED: a_temporary_file_that_is_moved_needs_no_more_room: not root");
        return;
    };
    let bytes = noise(1, 1_500_000);
    let served = serve(&[(b"a", 0o644, Plain(&bytes))]);
    let mut store = served.open(".", &disk.0.0).unwrap();
    for n in 0..20 {
        served.send(&mut store, served.chunk(n)).unwrap();
    }
    drop(store);
    let mut store = served.reopen(".", &disk.0.0, KEEP);
    assert_eq!(verify(&mut store).len(), 20);
    served.send_all(&mut store).unwrap();
    assert_eq!(fs::read(disk.0.path("a")).unwrap(), bytes);
    assert_eq!(fs::metadata(disk.0.path("a")).unwrap().uid(), 1234);
}
