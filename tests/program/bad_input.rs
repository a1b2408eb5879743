//! What users and file systems can throw at the program: it works, or it says in one line what is
//! wrong and where, and ends with the exit code that `xget(1)` names.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::path::Path;
use std::thread;

use crate::common::files::{Mount, Temp, assert_same_tree, names, noise, set_mode};
use crate::common::{
    MASTER, Master, NOBODY, Running, client, is_root, program, skipped, xget, xget_as_nobody,
};

// Serving.

#[test]
fn a_missing_directory_is_not_served() {
    let temp = Temp::new();
    let missing = temp.at("missing");
    let path = missing.to_str().unwrap();
    serve(&missing).fails(5, &[path, "No such file or directory"]);
}

#[test]
fn a_device_is_not_served() {
    serve("/dev/null").fails(5, &["/dev/null", "not a directory or regular file"]);
}

#[test]
fn the_manifest_of_a_missing_directory_is_an_error() {
    let temp = Temp::new();
    let missing = temp.at("missing");
    let path = missing.to_str().unwrap();
    xget(["--manifest", "--cache", "none", path]).fails(5, &[path]);
}

#[test]
fn a_missing_directory_is_an_error_of_a_background_master_too() {
    let temp = Temp::new();
    let missing = temp.at("missing");
    let mut command = program(MASTER);
    command.arg("-b").arg(&missing);
    Running::start(command).finish().fails(5, &[missing.to_str().unwrap()]);
}

#[test]
fn a_port_in_use_is_an_error() {
    let temp = Temp::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let mut command = program(["--listen", "127.0.0.1", "--cache", "none", "-p", &port]);
    command.arg(temp.tree());
    let run = Running::start(command).finish();
    run.fails(7, &[&address.to_string(), "in use"]);
}

#[test]
fn an_unreadable_file_is_left_out_with_a_warning() {
    let temp = Temp::new();
    let file = temp.file("served/secret", "x");
    set_mode(&file, 0o000);
    temp.file("served/open", "y");
    if !can_run_as_nobody() {
        return skipped("the program cannot be run as another user from where it is");
    }
    let served = temp.at("served");
    let run = xget_as_nobody(["--manifest", "--cache", "none", served.to_str().unwrap()]);
    let run = run.succeeds();
    run.says(&format!("{} is not served: Permission denied", file.display()));
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.text().contains(" open 1\n") && !run.text().contains("secret"));
}

#[test]
fn an_unreadable_directory_is_left_out_with_a_warning() {
    let temp = Temp::new();
    temp.file("served/closed/file", "x");
    set_mode(&temp.at("served/closed"), 0o000);
    if !can_run_as_nobody() {
        return skipped("the program cannot be run as another user from where it is");
    }
    let served = temp.at("served");
    let run = xget_as_nobody(["--manifest", "--cache", "none", served.to_str().unwrap()]);
    run.succeeds().says("closed is not served: Permission denied");
}

#[test]
fn a_file_called_like_the_control_files_is_left_out_with_a_warning() {
    let temp = Temp::new();
    temp.file("served/.xget/mine", "x");
    temp.file("served/file", "y");
    let master = Master::of(temp.at("served"));
    assert!(master.running.said().contains(".xget is not served"));
    master.fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(names(&temp.at("dest")), ["file"]);
}

// The command line.

#[test]
fn an_unknown_option_is_an_error() {
    xget(["--frobnicate"]).fails(2, &["--frobnicate"]);
    xget(["-Z"]).fails(2, &["-Z"]);
}

#[test]
fn an_empty_command_line_is_an_error() {
    let none: [&str; 0] = [];
    xget(none).fails(2, &["usage"]);
}

#[test]
fn a_source_without_a_destination_is_an_error() {
    xget(["-n", "127.0.0.1", "file"]).fails(2, &["SRC", "DEST"]);
}

#[test]
fn a_bad_number_is_an_error_that_names_it() {
    xget(["-p", "many", "/tmp"]).fails(2, &["many"]);
    xget(["-m", "0", "/tmp"]).fails(2, &["0"]);
    xget(["-n", "h", "--serve", "soon", "a", "b"]).fails(2, &["soon"]);
}

#[test]
fn a_bad_server_is_an_error_that_names_it() {
    xget(["-n", "host:99999", "-r", "0", ".", "x"]).fails(2, &["99999"]);
    xget(["-n", "[::1", "-r", "0", ".", "x"]).fails(2, &["[::1"]);
}

// The server.

#[test]
fn a_name_that_does_not_exist_is_an_error() {
    let temp = Temp::new();
    let mut command = program(["-n", "no-such-host.invalid", "-r", "0", "--serve", "no", "."]);
    command.arg(temp.at("dest"));
    Running::start(command).finish().fails(3, &["no-such-host.invalid"]);
    assert!(!temp.at("dest").exists());
}

#[test]
fn a_host_that_does_not_answer_is_an_error() {
    let temp = Temp::new();
    let address = closed_port();
    let mut command = client(address, &["-r", "0"]);
    command.arg(".").arg(temp.at("dest"));
    Running::start(command).finish().fails(3, &[&address.to_string(), "refused"]);
    assert!(!temp.at("dest").exists());
}

#[test]
fn each_retry_is_told_and_the_last_failure_is_the_error() {
    let temp = Temp::new();
    let mut command = client(closed_port(), &["-r", "1"]);
    command.arg(".").arg(temp.at("dest"));
    let run = Running::start(command).finish();
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    run.says("retrying in 0.5 s");
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
}

#[test]
fn whoever_has_waited_long_enough_gives_up() {
    let temp = Temp::new();
    let address = closed_port();
    let mut command = client(address, &["-r", "forever", "--timeout", "2"]);
    command.arg(".").arg(temp.at("dest"));
    let run = Running::start(command).finish();
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    run.says("retrying");
}

#[test]
fn the_status_of_a_host_that_does_not_answer_is_an_error() {
    let address = closed_port().to_string();
    xget(["--status", "-n", &address]).fails(3, &[&address]);
}

#[test]
fn a_server_that_speaks_something_else_is_an_error() {
    let temp = Temp::new();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in web.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let mut command = client(address, &["-r", "0"]);
    command.arg(".").arg(temp.at("dest"));
    Running::start(command).finish().fails(6, &[&address.to_string()]);
}

// Sources.

#[test]
fn a_source_that_is_not_served_is_an_error() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let run = master.fetch(&["kernel", "images/missing"], temp.at("dest"));
    run.fails(4, &["images/missing", &master.address.to_string()]);
    assert!(!temp.at("dest").exists());
}

#[test]
fn a_source_may_not_lead_upwards() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    master.fetch(&["../kernel"], temp.at("dest")).fails(2, &["../kernel"]);
    master.fetch(&["images/../kernel"], temp.at("dest")).fails(2, &["images/../kernel"]);
}

#[test]
fn a_source_may_not_lead_through_a_link() {
    let temp = Temp::new();
    symlink("/etc", temp.dir("served").join("etc")).unwrap();
    let master = Master::of(temp.at("served"));
    master.fetch(&["etc/passwd"], temp.at("dest")).fails(4, &["etc/passwd"]);
}

#[test]
fn two_sources_with_one_name_are_refused() {
    let temp = Temp::new();
    temp.file("served/a/file", "a");
    temp.file("served/b/file", "b");
    let master = Master::of(temp.at("served"));
    let run = master.fetch(&["a/file", "b/file"], temp.at("dest"));
    run.fails(2, &["a/file", "b/file", "dest/file"]);
}

// Destinations.

#[test]
fn several_sources_do_not_go_into_a_file() {
    let temp = Temp::new();
    let dest = temp.file("dest", "stays");
    let master = Master::of(temp.tree());
    master.fetch(&["kernel", "link"], &dest).fails(2, &[dest.to_str().unwrap(), "is a file"]);
    assert_eq!(fs::read(dest).unwrap(), b"stays");
}

#[test]
fn a_directory_does_not_replace_a_file() {
    let temp = Temp::new();
    let dest = temp.file("dest", "stays");
    let master = Master::of(temp.tree());
    master.fetch(&["images"], &dest).fails(2, &[dest.to_str().unwrap(), "is a file"]);
    assert_eq!(fs::read(dest).unwrap(), b"stays");
}

#[test]
fn a_destination_below_a_file_is_an_error() {
    let temp = Temp::new();
    let dest = temp.file("file", "x").join("below");
    let master = Master::of(temp.tree());
    master.fetch(&["."], &dest).fails(5, &[dest.to_str().unwrap(), "Not a directory"]);
}

#[test]
fn a_directory_in_the_way_of_a_file_is_an_error() {
    let temp = Temp::new();
    let way = temp.dir("dest/kernel");
    let master = Master::of(temp.tree());
    let run = master.fetch(&["kernel"], temp.at("dest"));
    run.fails(5, &[way.to_str().unwrap(), "a directory with this name exists"]);
}

#[test]
fn a_link_in_the_way_of_a_directory_is_not_followed() {
    let temp = Temp::new();
    let elsewhere = temp.dir("elsewhere");
    symlink(&elsewhere, temp.dir("dest").join("images")).unwrap();
    let master = Master::of(temp.tree());
    let run = master.fetch(&["."], temp.at("dest"));
    run.fails(5, &["dest/images", "a symbolic link with this name exists"]);
    assert!(names(&elsewhere).is_empty());
}

#[test]
fn a_destination_that_may_not_be_written_is_an_error() {
    let temp = Temp::new();
    let dest = temp.dir("dest");
    set_mode(&dest, 0o555);
    if !can_run_as_nobody() {
        return skipped("the program cannot be run as another user from where it is");
    }
    let master = Master::of(temp.tree());
    let server = master.address.to_string();
    let run = xget_as_nobody(["-n", &server, "--serve", "no", ".", dest.to_str().unwrap()]);
    run.fails(5, &[dest.to_str().unwrap(), "Permission denied"]);
    set_mode(&dest, 0o755);
}

#[test]
fn somebody_who_is_not_root_fetches_without_owners() {
    let temp = Temp::new();
    let dest = temp.dir("dest");
    if !is_root() || !can_run_as_nobody() {
        return skipped("the program cannot be run as another user from where it is");
    }
    chown(&dest, Some(NOBODY), Some(NOBODY)).unwrap();
    let served = temp.tree();
    let master = Master::of(&served);
    let server = master.address.to_string();
    let run = xget_as_nobody(["-n", &server, "--serve", "no", ".", dest.to_str().unwrap()]);
    run.succeeds();
    assert_same_tree(&served, &dest);
    assert_eq!(fs::metadata(dest.join("kernel")).unwrap().uid(), NOBODY);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_part_under_a_final_name() {
    let temp = Temp::new();
    let dest = temp.dir("dest");
    let Some(_mount) = Mount::in_memory(&dest, "size=1m") else {
        return skipped("nothing can be mounted here");
    };
    temp.file("served/image", noise(1, 3 << 20));
    let master = Master::of(temp.at("served"));
    let run = master.fetch(&["."], &dest);
    run.fails(5, &[dest.join("image").to_str().unwrap(), "No space left on device"]);
    assert!(!dest.join("image").exists());
}

// Names and contents.

#[test]
fn names_may_be_any_bytes() {
    let temp = Temp::new();
    let served = temp.dir("served");
    for name in odd_names() {
        fs::write(served.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let dir = served.join(OsStr::from_bytes(b"dir \xff\n\\"));
    fs::create_dir(&dir).unwrap();
    symlink(OsStr::from_bytes(b"to \xfe\n \\x"), dir.join(OsStr::from_bytes(b"\x80"))).unwrap();
    Master::of(&served).fetch(&["."], temp.at("dest")).succeeds();
    assert_same_tree(&served, &temp.at("dest"));
}

#[test]
fn any_name_can_be_asked_for() {
    let temp = Temp::new();
    let served = temp.dir("served");
    for name in odd_names() {
        fs::write(served.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let master = Master::of(&served);
    for name in odd_names() {
        let mut command = client(master.address, &["--"]);
        command.arg(OsStr::from_bytes(name)).arg(temp.at("dest"));
        Running::start(command).finish().succeeds();
    }
    assert_same_tree(&served, &temp.at("dest"));
}

#[test]
fn an_odd_name_in_an_error_stays_on_one_line() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut command = client(master.address, &[]);
    command.arg(OsStr::from_bytes(b"no\nsuch \xff")).arg(temp.at("dest"));
    Running::start(command).finish().fails(4, &["no\\nsuch \\xff"]);
}

#[test]
fn the_longest_names_and_deep_directories_are_copied() {
    let temp = Temp::new();
    let deep = vec!["d"; 200].join("/");
    temp.file(&format!("served/{deep}/file"), "deep");
    temp.file(&format!("served/{}", "n".repeat(255)), "long");
    Master::of(temp.at("served")).fetch(&["."], temp.at("dest")).succeeds();
    assert_same_tree(&temp.at("served"), &temp.at("dest"));
}

#[test]
fn an_empty_directory_can_be_served() {
    let temp = Temp::new();
    let run = Master::of(temp.dir("served")).fetch(&["."], temp.at("dest")).succeeds();
    run.says("fetched 0 files");
    assert!(names(&temp.at("dest")).is_empty());
}

#[test]
fn empty_files_and_directories_are_copied() {
    let temp = Temp::new();
    temp.file("served/none", "");
    temp.file("served/dir/none", "");
    temp.dir("served/dir/empty/emptier");
    Master::of(temp.at("served")).fetch(&["."], temp.at("dest")).succeeds();
    assert_same_tree(&temp.at("served"), &temp.at("dest"));
}

#[test]
fn links_that_lead_in_circles_or_nowhere_are_copied_as_they_are() {
    let temp = Temp::new();
    let served = temp.dir("served");
    temp.file("served/dir/file", "x");
    for (target, name) in
        [("self", "self"), ("b", "a"), ("a", "b"), ("..", "dir/up"), ("/no/where", "nowhere")]
    {
        symlink(target, served.join(name)).unwrap();
    }
    Master::of(&served).fetch(&["."], temp.at("dest")).succeeds();
    assert_same_tree(&served, &temp.at("dest"));
}

// Size and number.

#[test]
fn twenty_thousand_small_files_are_copied() {
    let temp = Temp::new();
    for dir in 0..100 {
        let path = temp.dir(&format!("served/{dir}"));
        for file in 0..200 {
            fs::write(path.join(file.to_string()), format!("{dir} {file}\n")).unwrap();
        }
    }
    let master = Master::of(temp.at("served"));
    master.fetch(&["."], temp.at("dest")).succeeds().says("fetched 20000 files");
    assert_same_tree(&temp.at("served"), &temp.at("dest"));
}

#[test]
fn a_directory_of_ten_thousand_entries_is_copied() {
    let temp = Temp::new();
    let served = temp.dir("served");
    for file in 0..10_000 {
        fs::write(served.join(format!("{file:0>100}")), "x").unwrap();
    }
    Master::of(&served).fetch(&["."], temp.at("dest")).succeeds();
    assert_same_tree(&served, &temp.at("dest"));
}

/// Slow: both sides hash five gigabytes, nearly all of them zeros.
#[test]
fn a_sparse_file_of_more_than_four_gigabytes_is_copied_and_stays_sparse() {
    const GIB: u64 = 1 << 30;
    let temp = Temp::new();
    let data = [(0, 1), (GIB - 1, 2), (4 * GIB - 5, 100_000), (5 * GIB - 7, 7)];
    let file = File::create(temp.dir("served").join("disk")).unwrap();
    file.set_len(5 * GIB).unwrap();
    for (offset, len) in data {
        file.write_all_at(&noise(offset, len), offset).unwrap();
    }
    Master::of(temp.at("served")).fetch(&["."], temp.at("dest")).succeeds();
    let copy = File::open(temp.at("dest/disk")).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), 5 * GIB);
    for (offset, len) in data {
        let mut read = vec![0; len];
        copy.read_exact_at(&mut read, offset).unwrap();
        assert!(read == noise(offset, len), "at {offset}");
    }
    // All else is holes: the verification has found every byte right, and this few are stored.
    let stored = copy.metadata().unwrap().blocks() * 512;
    assert!(stored < 1 << 20, "{stored} bytes are stored");
}

// Helpers of these tests.

/// Names that shells, terminals and text formats are afraid of.
fn odd_names() -> [&'static [u8]; 8] {
    [
        b"new\nline",
        b"\xff\xfe",
        b" ",
        b"a b ",
        b"\\x0a",
        b"tab\t\x1b[31m",
        b"-n",
        "\u{e9}".as_bytes(),
    ]
}

fn serve(path: impl AsRef<Path>) -> crate::common::Run {
    let mut command = program(MASTER);
    command.arg(path.as_ref());
    Running::start(command).finish()
}

/// A loopback port that nobody listens on.
fn closed_port() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The program may stand in a directory that only its owner may enter.
fn can_run_as_nobody() -> bool {
    let path = Path::new(env!("CARGO_BIN_EXE_xget"));
    let open = |dir: &Path| fs::metadata(dir).is_ok_and(|found| found.mode() & 0o001 != 0);
    !is_root() || path.ancestors().all(open)
}

#[test]
fn a_master_of_2009_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            // What spfs answers to any version of 9P2000 that it does not know.
            let _ = connection.read(&mut [0; 100]);
            let _ = connection.write_all(b"\x13\0\0\0\x65\xff\xff\x18\x80\0\0\x06\x009P2000");
        }
    });
    let temp = Temp::new();
    let mut fetch = client(address, &[]);
    fetch.arg(".").arg(temp.at("copy"));
    Running::start(fetch).finish().fails(6, &["xget 1 (2009)"]);
}
