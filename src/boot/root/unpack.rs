//! Writes an archive's entries below a directory: with their modes, owners, times, links, devices and
//! extended attributes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use crate::image::manifest::{Mtime, Owner};
use crate::node::store::sparse::data_runs;
use crate::sys::fs::{make_node, set_mtime, set_xattr};

/// Written at a time.
const PIECE_BYTES: usize = 128 << 10;

/// What an entry is.
pub(super) enum Kind<'a> {
    Dir,
    /// With this content.
    File(&'a mut dyn Read),
    /// With this content here and there, and holes between: where each part goes, how long it is, and how
    /// long the file is.
    Sparse {
        content: &'a mut dyn Read,
        parts: Vec<(u64, u64)>,
        size: u64,
    },
    /// The content of a file that is there already.
    Content(&'a mut dyn Read),
    /// To this target, whatever it is.
    Symlink(&'a [u8]),
    /// Another name of the file at this path.
    HardLink(&'a [u8]),
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// What belongs to an entry of any kind.
pub(super) struct Attributes {
    /// Permissions; the bits of the type do not count.
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) mtime: Mtime,
    /// Names as `setxattr(2)` takes them, and values.
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// How many of something are missing, and where the first of them was.
#[derive(Default)]
struct Missed {
    count: u64,
    first: PathBuf,
}

impl Missed {
    fn add(&mut self, path: &Path) {
        if self.count == 0 {
            self.first = path.into();
        }
        self.count += 1;
    }

    fn said(&self, what: &str) -> Option<String> {
        let Missed { count, first } = self;
        (*count > 0).then(|| format!("{what}: {count}, the first at {}", first.display()))
    }
}

/// Writes entries below `base`.
///
/// Paths are taken as they are, through symbolic links: whoever cannot trust the archive confines the
/// thread to `base` first ([`crate::sys::mount::confine_thread`]). `..` is refused.
pub(super) struct Unpacker {
    base: PathBuf,
    /// Directories, whose times change with each entry in them and are set in the end.
    dirs: Vec<(PathBuf, Mtime)>,
    /// Bytes of files so far, without holes.
    bytes: u64,
    /// Where the entry that was the last to be begun is, for messages.
    last: PathBuf,
    /// Entries that are of no kind that can be unpacked.
    skipped: Missed,
    /// Extended attributes and access control lists that could not be set.
    lost: Missed,
    /// What is being written, a piece at a time.
    piece: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new(base: &Path) -> Unpacker {
        Unpacker {
            base: base.into(),
            dirs: Vec::new(),
            bytes: 0,
            last: PathBuf::new(),
            skipped: Missed::default(),
            lost: Missed::default(),
            piece: vec![0; PIECE_BYTES],
        }
    }

    /// An entry at this path comes next; messages name it.
    pub(super) fn begin(&mut self, path: &[u8]) -> io::Result<()> {
        // As it is written, as far as it is not as it should be.
        self.last = OsStr::from_bytes(path).into();
        self.last = relative(path)?;
        Ok(())
    }

    /// The entry that was begun is of no kind that can be unpacked.
    pub(super) fn skip(&mut self) {
        self.skipped.add(&self.last);
    }

    /// An attribute of the entry that was begun cannot be set.
    pub(super) fn lose_attribute(&mut self) {
        self.lost.add(&self.last);
    }

    /// What of the archive is missing in what was unpacked.
    pub(super) fn missed(&self) -> impl Iterator<Item = String> {
        let skipped = self.skipped.said("entries of an unknown type");
        let lost = self.lost.said("extended attributes or access control lists");
        [skipped, lost].into_iter().flatten()
    }

    /// Bytes of files written so far, without holes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The path, below the base, of the entry that was begun last.
    pub(super) fn last(&self) -> &Path {
        &self.last
    }

    /// Adds an entry; what has its path already gives way to it, unless both are directories.
    pub(super) fn add(
        &mut self,
        path: &[u8],
        kind: Kind<'_>,
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.last = relative(path)?;
        let place = self.base.join(&self.last);
        if let Kind::Content(content) = kind {
            let file = OpenOptions::new().write(true).truncate(true).open(&place)?;
            let size = self.write(content, &file, 0)?;
            file.set_len(size)?;
            return self.set_attributes(&place, false, attributes);
        }
        if let Kind::HardLink(target) = kind
            && is_same(&self.base.join(relative(target)?), &place)
        {
            return Ok(());
        }
        let is_dir = matches!(kind, Kind::Dir);
        make_way(&place, is_dir)?;
        if !is_dir {
            // An empty directory that was there has given way.
            self.dirs.retain(|(dir, _)| *dir != place);
        }
        let mut has_mode = true;
        match kind {
            Kind::Dir => {
                fs::create_dir_all(&place)?;
                self.dirs.push((place.clone(), attributes.mtime));
            }
            Kind::File(content) => {
                let file = File::create_new(&place)?;
                let size = self.write(content, &file, 0)?;
                file.set_len(size)?;
            }
            Kind::Sparse { content, parts, size } => {
                let file = File::create_new(&place)?;
                for (offset, length) in parts {
                    let end = offset.checked_add(length).filter(|&end| end <= size);
                    if Some(self.write(&mut content.take(length), &file, offset)?) != end {
                        return Err(io::Error::other(
                            "the parts of a sparse file do not match its size",
                        ));
                    }
                }
                file.set_len(size)?;
            }
            Kind::Symlink(target) => {
                symlink(OsStr::from_bytes(target), &place)?;
                has_mode = false;
            }
            // It has its attributes by its first name.
            Kind::HardLink(target) => {
                return fs::hard_link(self.base.join(relative(target)?), &place);
            }
            Kind::Device { block, major, minor } => {
                let kind = if block { libc::S_IFBLK } else { libc::S_IFCHR };
                make_node(&place, kind | 0o600, major, minor)?;
            }
            Kind::Fifo => make_node(&place, libc::S_IFIFO | 0o600, 0, 0)?,
            Kind::Content(_) => {}
        }
        self.set_attributes(&place, !has_mode, attributes)
    }

    fn set_attributes(
        &mut self,
        place: &Path,
        is_link: bool,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let Owner { uid, gid } = attributes.owner;
        lchown(place, Some(uid), Some(gid))?;
        if !is_link {
            // After the owner, as changing that takes the set-id bits away.
            fs::set_permissions(place, Permissions::from_mode(attributes.mode & 0o7777))?;
        }
        for (name, value) in &attributes.xattrs {
            match set_xattr(place, name, value) {
                // Not every file system and kernel has all kinds of them.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.lose_attribute();
                }
                other => other?,
            }
        }
        set_mtime(place, attributes.mtime)
    }

    /// Writes `content` at `offset`, where nothing is yet, and leaves holes where it has blocks of zeros; where
    /// it ends.
    fn write(&mut self, content: &mut dyn Read, file: &File, offset: u64) -> io::Result<u64> {
        let mut at = offset;
        loop {
            let count = match content.read(&mut self.piece) {
                Ok(0) => return Ok(at),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = self.piece.get(..count).unwrap_or_default();
            for run in data_runs(at, bytes) {
                let place = at.saturating_add(run.start as u64);
                let data = bytes.get(run).unwrap_or_default();
                file.write_all_at(data, place)?;
                self.bytes += data.len() as u64;
            }
            at = at.saturating_add(count as u64);
        }
    }

    /// Sets what can only be set when all entries are there.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.dirs.drain(..).rev().try_for_each(|(place, mtime)| set_mtime(&place, mtime))
    }
}

/// Whether both are names of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    file(one).is_some_and(|found| file(other) == Some(found))
}

/// Makes the directories above `place`, and removes what is there unless a directory stays one.
fn make_way(place: &Path, for_dir: bool) -> io::Result<()> {
    if let Some(above) = place.parent() {
        fs::create_dir_all(above)?;
    }
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() && for_dir => Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir(place)
            .map_err(|_| io::Error::other("a directory with this name exists, and is not empty")),
        // A directory that is a link elsewhere stays so.
        Ok(_) if for_dir && place.is_dir() => Ok(()),
        Ok(_) => fs::remove_file(place),
    }
}

/// A path below the base: `./usr`, `/usr` and `usr` are the same.
fn relative(path: &[u8]) -> io::Result<PathBuf> {
    let mut below = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("the path contains .."));
            }
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::archive::{Archive, Packing, head};
    use super::*;

    /// A directory for one test, which goes with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path =
                std::env::temp_dir().join(format!("xget-unpack-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Dir(path)
        }

        /// Unpacks an archive below `root` in it.
        fn unpack(&self, archive: &[u8]) -> io::Result<PathBuf> {
            let (file, root) = (self.0.join("archive"), self.0.join("root"));
            fs::write(&file, archive)?;
            let packing = Packing::of(&head(&mut File::open(&file)?)?).expect("an archive");
            let mut unpacker = Unpacker::new(&root);
            Archive::open(&file, packing)?.unpack(&mut unpacker)?;
            Ok(root)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000);
        header.set_size(size as u64);
        // Whoever runs the test may not give files away.
        let me = fs::metadata("/proc/self").unwrap();
        header.set_uid(me.uid().into());
        header.set_gid(me.gid().into());
        header
    }

    fn tar_archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let mut dir = header(Directory, 0o751, 0);
        tar.append_data(&mut dir, "./etc", io::empty()).unwrap();
        let mut file = header(Regular, 0o4755, 5);
        tar.append_data(&mut file, "./etc/motd", &b"hello"[..]).unwrap();
        tar.append_link(&mut header(Symlink, 0o777, 0), "etc/link", "/no/where").unwrap();
        tar.append_link(&mut header(Link, 0o644, 0), "etc/same", "./etc/motd").unwrap();
        tar.into_inner().unwrap()
    }

    fn cpio_archive(entries: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, ino, mode, content) in entries {
            let nlink = if mode & libc::S_IFMT == libc::S_IFREG { 2 } else { 1 };
            let me = fs::metadata("/proc/self").unwrap();
            let entry = ::cpio::newc::Builder::new(name).ino(*ino).mode(*mode).nlink(nlink);
            let entry = entry.uid(me.uid()).gid(me.gid()).mtime(1_000_000);
            let mut writer = entry.write(&mut bytes, content.len() as u32);
            io::Write::write_all(&mut writer, content).unwrap();
            writer.finish().unwrap();
        }
        ::cpio::newc::trailer(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_tar_archive_comes_out_with_modes_times_and_links() {
        let dir = Dir::new("tar");
        let root = dir.unpack(&tar_archive()).unwrap();
        assert_eq!(fs::read(root.join("etc/motd")).unwrap(), b"hello");
        let motd = fs::metadata(root.join("etc/motd")).unwrap();
        assert_eq!((motd.mode() & 0o7777, motd.mtime(), motd.nlink()), (0o4755, 1_000_000, 2));
        let etc = fs::metadata(root.join("etc")).unwrap();
        assert_eq!((etc.mode() & 0o7777, etc.mtime()), (0o751, 1_000_000));
        assert_eq!(fs::read_link(root.join("etc/link")).unwrap(), Path::new("/no/where"));
    }

    #[test]
    fn an_archive_packed_by_a_program_comes_out_the_same() {
        let dir = Dir::new("packed");
        let plain = dir.0.join("plain");
        fs::write(&plain, tar_archive()).unwrap();
        let packed = Command::new("gzip").arg("-c").arg(&plain).output().unwrap().stdout;
        let root = dir.unpack(&packed).unwrap();
        assert_eq!(fs::read(root.join("etc/motd")).unwrap(), b"hello");
        assert!(dir.unpack(&packed[..packed.len() / 2]).is_err());
    }

    #[test]
    fn both_names_of_a_file_in_a_cpio_archive_have_its_content() {
        let dir = Dir::new("cpio");
        // The content comes with the last of the names, as the newc format has it.
        let archive = cpio_archive(&[
            ("bin", 1, 0o40755, b""),
            ("bin/one", 2, 0o100755, b""),
            ("bin/two", 2, 0o100755, b"program"),
            ("bin/sh", 3, 0o120777, b"one"),
        ]);
        let root = dir.unpack(&archive).unwrap();
        for name in ["bin/one", "bin/two", "bin/sh"] {
            assert_eq!(fs::read(root.join(name)).unwrap(), b"program", "{name}");
        }
        assert_eq!(fs::metadata(root.join("bin/one")).unwrap().nlink(), 2);
    }

    #[test]
    fn holes_stay_holes() {
        let dir = Dir::new("holes");
        let mut content = vec![0; 1 << 20];
        content[500_000] = 7;
        let archive = cpio_archive(&[("lastlog", 1, 0o100600, &content)]);
        let lastlog = dir.unpack(&archive).unwrap().join("lastlog");
        assert!(fs::read(&lastlog).unwrap() == content);
        assert!(fs::metadata(&lastlog).unwrap().blocks() <= 16);
    }

    #[test]
    fn a_sparse_file_comes_out_of_what_gnu_tar_makes_of_it() {
        let dir = Dir::new("sparse");
        let lastlog = dir.0.join("lastlog");
        let file = File::create(&lastlog).unwrap();
        for (offset, text) in [(0, "first"), (700_000, "middle")] {
            file.write_all_at(text.as_bytes(), offset).unwrap();
        }
        file.set_len(1 << 30).unwrap();
        for format in ["gnu", "posix"] {
            let tar = dir.0.join(format);
            let mut command = Command::new("tar");
            command.arg("-C").arg(&dir.0).args(["-S", "--format", format, "-cf"]).arg(&tar);
            assert!(command.arg("lastlog").status().unwrap().success());
            assert!(fs::metadata(&tar).unwrap().len() < 100_000, "it was sparse");
            let unpacked = dir.unpack(&fs::read(&tar).unwrap()).unwrap().join("lastlog");
            let found = fs::metadata(&unpacked).unwrap();
            assert!(found.len() == 1 << 30 && found.blocks() <= 32, "{format}: {found:?}");
            let mut text = [0; 6];
            File::open(&unpacked).unwrap().read_exact_at(&mut text, 700_000).unwrap();
            assert_eq!(&text, b"middle", "{format}");
            fs::remove_file(unpacked).unwrap();
        }
    }

    #[test]
    fn another_name_of_a_file_may_be_its_own() {
        let dir = Dir::new("itself");
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, 5), "a", &b"hello"[..])
            .unwrap();
        let mut link = header(tar::EntryType::Link, 0o644, 0);
        tar.append_link(&mut link, "a", "./a").unwrap();
        let root = dir.unpack(&tar.into_inner().unwrap()).unwrap();
        assert_eq!(fs::read(root.join("a")).unwrap(), b"hello");
    }

    #[test]
    fn all_archives_in_a_file_are_unpacked() {
        let dir = Dir::new("several");
        let one = cpio_archive(&[("one", 1, 0o100644, b"1")]);
        let two = cpio_archive(&[("two", 1, 0o100644, b"2"), ("one", 2, 0o100644, b"new")]);
        let gzip = |bytes: &[u8]| {
            let plain = dir.0.join("plain");
            fs::write(&plain, bytes).unwrap();
            Command::new("gzip").arg("-c").arg(&plain).output().unwrap().stdout
        };
        for (how, archive) in [
            ("plain", [&one[..], &two].concat()),
            ("zeros between and behind", [&one[..], &[0; 1000], &two, &[0; 515]].concat()),
            ("members of gzip", [gzip(&one), gzip(&two)].concat()),
            ("a compressed one behind", [&one[..], &gzip(&two)].concat()),
        ] {
            let root = dir.unpack(&archive).unwrap();
            assert_eq!(fs::read(root.join("two")).unwrap(), b"2", "{how}");
            assert_eq!(fs::read(root.join("one")).unwrap(), b"new", "{how}");
            fs::remove_dir_all(root).unwrap();
        }
        let junk = [&one[..], b"something"].concat();
        assert!(dir.unpack(&junk).unwrap_err().to_string().contains("follows"));
    }

    #[test]
    fn an_empty_directory_gives_way_to_a_link_and_a_full_one_does_not() {
        let dir = Dir::new("gives-way");
        let archive = cpio_archive(&[("lib", 1, 0o40755, b""), ("lib", 2, 0o120777, b"usr/lib")]);
        let root = dir.unpack(&archive).unwrap();
        assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
        let archive = cpio_archive(&[
            ("etc", 1, 0o40755, b""),
            ("etc/a", 2, 0o100644, b"a"),
            ("etc", 3, 0o120777, b"usr/etc"),
        ]);
        assert!(dir.unpack(&archive).unwrap_err().to_string().contains("not empty"));
    }

    #[test]
    fn names_may_have_any_bytes() {
        let dir = Dir::new("bytes");
        let mut archive = cpio_archive(&[("caf-", 1, 0o100644, b"x")]);
        archive[113] = 0xe9;
        let root = dir.unpack(&archive).unwrap();
        assert!(root.join(OsStr::from_bytes(b"caf\xe9")).exists());
    }

    /// A tar archive with one entry of this type, changed by `change`.
    fn of_type(kind: u8, change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
        let mut header = header(tar::EntryType::new(kind), 0o1777, 0);
        change(&mut header);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, "entry", io::empty()).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn what_gnu_tar_alone_has_is_understood() {
        let dir = Dir::new("gnu");
        let root = dir.unpack(&of_type(b'D', |_| {})).unwrap();
        assert_eq!(fs::metadata(root.join("entry")).unwrap().mode() & 0o7777, 0o1777);
        let label = of_type(b'V', |header| header.as_old_mut().mode = [0; 8]);
        assert!(dir.unpack(&[&label[..1024 - 512], &tar_archive()].concat()).is_ok());
        let early = of_type(b'0', |header| {
            let time = &mut header.as_old_mut().mtime;
            *time = [0xff; 12];
            time[4..].copy_from_slice(&(-86_400_i64).to_be_bytes());
        });
        fs::remove_dir_all(&root).unwrap();
        let root = dir.unpack(&early).unwrap();
        assert_eq!(fs::metadata(root.join("entry")).unwrap().mtime(), -86_400);
    }

    #[test]
    fn an_entry_of_an_unknown_type_is_told() {
        let dir = Dir::new("unknown");
        let file = dir.0.join("archive");
        fs::write(&file, of_type(b'M', |_| {})).unwrap();
        let mut unpacker = Unpacker::new(&dir.0.join("root"));
        Archive::open(&file, Packing::Plain).unwrap().unpack(&mut unpacker).unwrap();
        let missed: Vec<_> = unpacker.missed().collect();
        assert_eq!(missed, ["entries of an unknown type: 1, the first at entry"]);
    }

    #[test]
    fn a_path_with_two_dots_is_refused() {
        let dir = Dir::new("dots");
        let archive = cpio_archive(&[("../outside", 1, 0o100644, b"x")]);
        let error = dir.unpack(&archive).unwrap_err().to_string();
        assert!(error.contains(".."), "{error}");
        assert!(!dir.0.join("outside").exists());
    }

    #[test]
    fn an_archive_that_is_cut_off_is_an_error() {
        let dir = Dir::new("cut");
        for whole in [tar_archive(), cpio_archive(&[("file", 1, 0o100644, &[7; 900])])] {
            assert!(dir.unpack(&whole[..whole.len().min(1400) - 600]).is_err());
        }
    }

    #[test]
    fn a_later_entry_takes_the_place_of_an_earlier_one() {
        let dir = Dir::new("later");
        let archive = cpio_archive(&[
            ("sbin/init", 1, 0o120777, b"busybox"),
            ("sbin/init", 2, 0o100755, b"systemd"),
        ]);
        let root = dir.unpack(&archive).unwrap();
        assert!(!fs::symlink_metadata(root.join("sbin/init")).unwrap().is_symlink());
        assert_eq!(fs::read(root.join("sbin/init")).unwrap(), b"systemd");
    }
}
