use std::process::{Command, Stdio};

use super::super::archive::{self, start};
use super::*;

/// A directory for one test, which goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("xget-unpack-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    /// Unpacks an archive below `root` in it.
    fn unpack(&self, archive: &[u8]) -> io::Result<PathBuf> {
        let (file, root) = (self.0.join("archive"), self.0.join("root"));
        fs::write(&file, archive)?;
        let mut unpacker = Unpacker::new(&root);
        archive::unpack(File::open(&file)?, &mut start, &mut unpacker)?;
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
    for format in
        ["--format=gnu", "--sparse-version=1.0", "--sparse-version=0.1", "--sparse-version=0.0"]
    {
        let tar = dir.0.join(format);
        let mut command = Command::new("tar");
        command.arg("-C").arg(&dir.0).args(["-S", format, "-cf"]).arg(&tar);
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
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, 5), "a", &b"hello"[..]).unwrap();
    let mut link = header(tar::EntryType::Link, 0o644, 0);
    tar.append_link(&mut link, "a", "./a").unwrap();
    let root = dir.unpack(&tar.into_inner().unwrap()).unwrap();
    assert_eq!(fs::read(root.join("a")).unwrap(), b"hello");
}

/// What a program makes of those bytes.
fn filtered(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    let (name, arguments) = command.split_first().unwrap();
    let mut program = Command::new(name);
    program.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = program.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut input = program.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || io::Write::write_all(&mut input, &bytes));
    let output = program.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Ways to compress, all that the kernel knows for initramfs images.
const COMPRESSED: [&[&str]; 8] = [
    &["gzip", "-c"],
    &["zstd", "-qc"],
    &["zstd", "-qc", "--no-check", "--ultra", "-22"],
    &["xz", "-c"],
    &["lzma", "-c"],
    &["bzip2", "-c"],
    &["lz4", "-qc"],
    &["lz4", "-lqc"],
];

#[test]
fn all_archives_in_a_file_are_unpacked() {
    let dir = Dir::new("several");
    let one = cpio_archive(&[("one", 1, 0o100644, b"1")]);
    let two = cpio_archive(&[("two", 1, 0o100644, b"2"), ("one", 2, 0o100644, b"new")]);
    let mut cases = vec![
        ("plain".to_owned(), [&one[..], &two].concat()),
        ("zeros between and behind".into(), [&one[..], &[0; 1000], &two, &[0; 515]].concat()),
        ("tar and cpio".into(), [&tar_archive()[..], &two].concat()),
        ("both in one stream".into(), filtered(COMPRESSED[0], &[&one[..], &[0; 8], &two].concat())),
    ];
    for how in COMPRESSED {
        let packed = |bytes: &[u8]| filtered(how, bytes);
        cases.push((format!("{how:?} behind plain"), [&one[..], &packed(&two)].concat()));
        if matches!(how[0], "gzip" | "zstd" | "lz4") {
            let (one, two) = (packed(&one), packed(&two));
            cases.push((format!("zeros between {how:?}"), [&one[..], &[0; 509], &two].concat()));
            let other = filtered(COMPRESSED[3], &cpio_archive(&[("one", 1, 0o100644, b"new")]));
            cases.push((format!("xz behind {how:?}"), [&two[..], &[0; 3], &other].concat()));
        }
        if !matches!(how[0], "lzma" | "bzip2") {
            cases.push((format!("zeros behind {how:?}"), [&packed(&two)[..], &[0; 3]].concat()));
        }
    }
    for (how, archive) in cases {
        let root = dir.unpack(&archive).unwrap_or_else(|error| panic!("{how}: {error}"));
        assert_eq!(fs::read(root.join("two")).unwrap(), b"2", "{how}");
        assert_eq!(fs::read(root.join("one")).unwrap(), b"new", "{how}");
        fs::remove_dir_all(root).unwrap();
    }
}

#[test]
fn one_archive_may_lie_in_several_streams() {
    let dir = Dir::new("streams");
    let archive = cpio_archive(&[("file", 1, 0o100644, &[7; 9000])]);
    for how in COMPRESSED {
        if how[0] == "lzma" {
            continue;
        }
        let (one, two) = archive.split_at(4567);
        let root = dir.unpack(&[filtered(how, one), filtered(how, two)].concat());
        assert_eq!(fs::read(root.unwrap().join("file")).unwrap(), [7; 9000], "{how:?}");
    }
}

#[test]
fn what_is_damaged_or_cut_off_or_no_archive_is_an_error() {
    let dir = Dir::new("damaged");
    let archive = cpio_archive(&[("file", 1, 0o100644, &[7; 900]), ("more", 2, 0o100644, b"1")]);
    let junk = [&archive[..], b"something"].concat();
    assert!(dir.unpack(&junk).unwrap_err().to_string().contains("follows"));
    for how in COMPRESSED {
        let packed = filtered(how, &archive);
        let rest = [&packed[..], b"\x01something that is no archive"].concat();
        let rest_inside = filtered(how, &junk);
        let other = filtered(how, b"no archive");
        for bytes in [&packed[..packed.len() - 9], &rest, &rest_inside, &other] {
            assert!(dir.unpack(bytes).is_err(), "{how:?}");
        }
    }
    // Its programs ignore what they cannot use, and return 0.
    let packed = filtered(&["bzip2", "-c"], &archive);
    assert!(dir.unpack(&[&packed[..], &[0; 100], &packed].concat()).is_err());
}

#[test]
fn the_program_that_is_missing_is_named() {
    let dir = Dir::new("missing");
    let file = dir.0.join("archive");
    fs::write(&file, filtered(&["zstd", "-qc"], &tar_archive())).unwrap();
    let mut unpacker = Unpacker::new(&dir.0.join("root"));
    let mut start = |_, input| start("zstd-that-is-not-there", input);
    let unpacked = archive::unpack(File::open(&file).unwrap(), &mut start, &mut unpacker);
    assert!(unpacked.unwrap_err().to_string().contains("no program zstd-that-is-not-there"));
}

#[test]
fn the_formats_of_tar_programs_come_out_the_same() {
    let dir = Dir::new("formats");
    let from = dir.0.join("from");
    fs::create_dir_all(from.join("etc/a directory")).unwrap();
    fs::write(from.join("etc/motd"), "hello").unwrap();
    symlink("motd", from.join("etc/link")).unwrap();
    fs::hard_link(from.join("etc/motd"), from.join("etc/same")).unwrap();
    for format in ["v7", "oldgnu", "gnu", "ustar", "pax"] {
        let archive = dir.0.join(format);
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&from).arg(format!("--format={format}")).arg("-cf").arg(&archive);
        assert!(tar.arg(".").status().unwrap().success(), "{format}");
        let root = dir.unpack(&fs::read(archive).unwrap()).unwrap();
        assert_eq!(fs::read(root.join("etc/same")).unwrap(), b"hello", "{format}");
        assert_eq!(fs::metadata(root.join("etc/motd")).unwrap().nlink(), 2, "{format}");
        assert_eq!(fs::read_link(root.join("etc/link")).unwrap(), Path::new("motd"), "{format}");
        assert!(root.join("etc/a directory").is_dir(), "{format}");
        fs::remove_dir_all(root).unwrap();
    }
}

/// A tar archive with a file `entry` behind such an extended header.
fn with_records(kind: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length = (rest.len()..).find(|all| rest.len() + all.to_string().len() == *all);
        bytes.extend(length.unwrap().to_string().into_bytes());
        bytes.extend(rest);
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut extended = header(tar::EntryType::new(kind), 0o644, bytes.len());
    tar.append_data(&mut extended, "records", &bytes[..]).unwrap();
    let mut file = header(tar::EntryType::Regular, 0o644, 2);
    tar.append_data(&mut file, "entry", &b"x\n"[..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn values_of_records_may_have_any_bytes() {
    let dir = Dir::new("values");
    let value = b"one\n=\0two\n\n";
    let root = dir.unpack(&with_records(b'x', &[("SCHILY.xattr.user.any", value)])).unwrap();
    let mut getfattr = Command::new("python3");
    getfattr
        .arg("-c")
        .arg("import os, sys; sys.stdout.buffer.write(os.getxattr(sys.argv[1], 'user.any'))");
    let found = getfattr.arg(root.join("entry")).output().unwrap();
    assert_eq!(found.stdout, value, "{}", String::from_utf8_lossy(&found.stderr));
}

#[test]
fn times_in_records_may_be_before_1970_and_for_all_entries() {
    let dir = Dir::new("times");
    for (kind, time, secs, nanos) in
        [(b'x', "-1.5", -2, 500_000_000), (b'x', "12.0000000019", 12, 1), (b'g', "77", 77, 0)]
    {
        let archive = with_records(kind, &[("mtime", time.as_bytes()), ("comment", b"none")]);
        let found = fs::metadata(dir.unpack(&archive).unwrap().join("entry")).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (secs, nanos), "{time}");
    }
    assert!(dir.unpack(&with_records(b'x', &[("mtime", b"noon")])).is_err());
}

#[test]
fn an_attribute_that_cannot_be_set_is_told_and_the_file_is_there() {
    let dir = Dir::new("lost");
    let file = dir.0.join("archive");
    let records: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.nonsense", b"x"), ("SCHILY.acl.access", b"user:lisa:r-x")];
    fs::write(&file, with_records(b'x', &records)).unwrap();
    let mut unpacker = Unpacker::new(&dir.0.join("root"));
    archive::unpack(File::open(&file).unwrap(), &mut start, &mut unpacker).unwrap();
    let missed: Vec<_> = unpacker.missed().collect();
    let lost = "extended attributes or access control lists: 2, the first at entry";
    assert_eq!(missed, [lost]);
    assert_eq!(fs::read(dir.0.join("root/entry")).unwrap(), b"x\n");
}

#[test]
fn a_tar_archive_without_an_end_is_told() {
    let dir = Dir::new("no-end");
    let file = dir.0.join("archive");
    let archive = tar_archive();
    fs::write(&file, &archive[..archive.len() - 1024]).unwrap();
    let mut unpacker = Unpacker::new(&dir.0.join("root"));
    archive::unpack(File::open(&file).unwrap(), &mut start, &mut unpacker).unwrap();
    assert_eq!(unpacker.missed().count(), 1);
}

#[test]
fn messages_tell_where_an_archive_is_damaged() {
    let dir = Dir::new("where");
    let mut archive = cpio_archive(&[("one", 1, 0o100644, b"1"), ("two", 1, 0o100644, b"2")]);
    let file = dir.0.join("archive");
    let second = archive[6..].windows(6).position(|six| six == b"070701").unwrap() + 6;
    archive[second] = b'x';
    fs::write(&file, archive).unwrap();
    let mut unpacker = Unpacker::new(&dir.0.join("root"));
    archive::unpack(File::open(&file).unwrap(), &mut start, &mut unpacker).unwrap_err();
    assert_eq!(unpacker.place(), "behind entry one");
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
    archive::unpack(File::open(&file).unwrap(), &mut start, &mut unpacker).unwrap();
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
