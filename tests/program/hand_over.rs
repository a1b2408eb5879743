//! What a process that serves on says of itself in its state directory, and how another takes over
//! from it, as users see both.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::files::{Temp, assert_same_tree, names, noise};
use crate::common::resident::Resident;
use crate::common::road::Road;
use crate::common::{
    Master, NOBODY, Run, Running, client, is_root, program, wait_for, xget, xget_as_nobody,
};

const MIB: usize = 1 << 20;

// What it says of itself.

#[test]
fn the_state_file_says_who_serves_what_and_where() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["images", "kernel"], &[]);
    let state = served.state();
    for part in [
        format!("\"pid\":{}", served.resident.pid()),
        format!("\"port\":{}", served.address.port()),
        "\"until\":null".into(),
        format!("\"server\":\"{}\"", served.master.address),
        format!("{{\"path\":\"images\",\"file\":\"{}\"", temp.at("dest/images").display()),
        format!("\"file\":\"{}\",\"bytes\":300000}}", temp.at("dest/kernel").display()),
    ] {
        assert!(state.contains(&part), "no {part} in {state}");
    }
}

#[test]
fn the_state_goes_when_the_time_is_over() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &["--serve", "2"]);
    assert!(served.state().contains("\"until\":1"), "{}", served.state());
    wait_for("the end of the state", || names(&temp.at("state")).is_empty().then_some(()));
    wait_for("the end of the resident", || (!served.resident.is_running()).then_some(()));
}

#[test]
fn the_state_goes_when_the_process_is_told_to_end() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &[]);
    served.resident.end("-TERM");
    assert!(names(&temp.at("state")).is_empty());
}

#[test]
fn nobody_to_take_over_from_is_no_failure() {
    let temp = Temp::new();
    take_over(temp.at("state")).succeeds().says("nothing to take over");
}

#[test]
fn a_state_that_a_killed_process_left_is_no_failure_either() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &[]);
    served.resident.end("-KILL");
    assert!(temp.at("state/state.json").exists());
    take_over(temp.at("state")).succeeds().says("nothing to take over");
}

#[test]
fn a_process_does_not_overwrite_what_another_says_in_the_same_directory() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &[]);
    let before = served.state();
    let state = temp.at("state");
    let state = state.to_str().unwrap();
    let server = served.master.address.to_string();
    let second = temp.at("second");
    let second = second.to_str().unwrap();
    xget(["-n", &server, "-p", "0", "--serve", "1", "--state", state, ".", second])
        .succeeds()
        .says(&format!("process {} already uses it", served.resident.pid()));
    assert_eq!(served.state(), before);
    start_taking_over(&temp);
}

// Taking over.

#[test]
fn a_process_takes_over_the_port_and_the_files_and_the_one_before_it_ends() {
    let temp = Temp::new();
    let tree = temp.tree();
    let served = serve(&temp, &tree, &["."], &[]);
    let generation = "\"generation\":";
    let before = served.state();
    let next = start_taking_over(&temp);
    wait_for("the end of the resident", || (!served.resident.is_running()).then_some(()));
    let after = wait_for("its state", || served.try_state());
    assert!(after.contains(&format!("\"pid\":{}", next.id())), "{after}");
    assert_eq!(before.split(generation).nth(1), after.split(generation).nth(1));
    drop(served.master);
    fetch_from(served.address, &["."], temp.at("copy"));
    assert_same_tree(&tree, &temp.at("copy"));
}

#[test]
fn nobody_is_refused_meanwhile() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &[]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) || answers == 0 {
                xget(["--status", "-n", &served.address.to_string()]).succeeds();
                answers += 1;
            }
        });
        let mut nexts = Vec::new();
        for _ in 0..3 {
            nexts.push(start_taking_over(&temp));
        }
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap();
    });
}

#[test]
fn whoever_is_in_mid_fetch_finishes() {
    let temp = Temp::new();
    let tree = temp.dir("served");
    temp.file("served/image", noise(3, 16 * MIB));
    let served = serve(&temp, &tree, &["."], &[]);
    drop(served.master);
    let road = Road::to(served.address, 8 * MIB as u64);
    let mut fetch = client(road.address, &[]);
    let fetch = Running::start({
        fetch.arg(".").arg(temp.at("copy"));
        fetch
    });
    road.wait_until_passed(4 * MIB as u64);
    let _next = start_taking_over(&temp);
    fetch.finish().succeeds();
    assert_same_tree(&tree, &temp.at("copy"));
}

#[test]
fn one_that_took_over_is_taken_over_in_turn() {
    let temp = Temp::new();
    let tree = temp.tree();
    let served = serve(&temp, &tree, &["."], &[]);
    let first = start_taking_over(&temp);
    wait_for("its state", || served.try_state());
    let _second = start_taking_over(&temp);
    first.finish().succeeds();
    fetch_from(served.address, &["."], temp.at("copy"));
    assert_same_tree(&tree, &temp.at("copy"));
}

/// A chunk that the file shares with others is of no use without their bytes.
#[test]
fn what_was_fetched_besides_is_handed_over_too() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["kernel"], &[]);
    drop(served.master);
    let _next = start_taking_over(&temp);
    fetch_from(served.address, &["kernel"], temp.at("copy"));
    assert_eq!(fs::read(temp.at("copy/kernel")).unwrap(), noise(1, 300_000));
}

#[test]
fn the_time_to_serve_goes_on_from_when_the_files_were_whole() {
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &["--serve", "4"]);
    let until = |state: String| state.split("\"until\":").nth(1)?.split(',').next()?.parse().ok();
    let before: u64 = until(served.state()).unwrap();
    let next = start_taking_over(&temp);
    let after: u64 = until(wait_for("its state", || served.try_state())).unwrap();
    assert!(after.abs_diff(before) <= 1, "{before} {after}");
    next.finish().succeeds();
    assert!(names(&temp.at("state")).is_empty());
}

#[test]
fn files_that_have_changed_are_not_served_any_more() {
    let temp = Temp::new();
    let tree = temp.dir("served");
    temp.file("served/image", noise(3, MIB));
    temp.file("served/other", noise(4, MIB));
    let served = serve(&temp, &tree, &["."], &[]);
    temp.file("dest/image", noise(5, MIB));
    let next = start_taking_over(&temp);
    next.wait_until_it_says("the others belong to changed files");
    drop(served.master);
    fetch_from(served.address, &["other"], temp.at("copy"));
    assert_eq!(fs::read(temp.at("copy/other")).unwrap(), noise(4, MIB));
}

#[test]
fn where_nothing_is_left_to_serve_nothing_is_taken_over() {
    let temp = Temp::new();
    let tree = temp.dir("served");
    temp.file("served/image", noise(3, MIB));
    let served = serve(&temp, &tree, &["."], &[]);
    fs::remove_file(temp.at("dest/image")).unwrap();
    take_over(temp.at("state")).fails(5, &["cannot take over: all files that were fetched into"]);
    assert!(served.resident.is_running());
}

#[test]
fn another_user_cannot_take_over() {
    if !is_root() {
        return crate::common::skipped("only root can be another user");
    }
    let temp = Temp::new();
    let served = serve(&temp, temp.tree(), &["."], &[]);
    let socket = temp.at("state/take-over");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let state = temp.at("state");
    xget_as_nobody(["--take-over".as_ref(), state.as_os_str()])
        .fails(6, &["hand-over failed: it belongs to another user"]);
    assert!(served.resident.is_running());
}

/// What that user has fetched, and where, is that user's choice: root must not read it, nor serve it.
#[test]
fn root_does_not_take_over_from_another_user() {
    if !is_root() {
        return crate::common::skipped("only root can be another user");
    }
    let temp = Temp::new();
    let (tree, theirs) = (temp.tree(), temp.dir("theirs"));
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let master = Master::of(&tree);
    let state = temp.at("theirs/state");
    let (server, dest) = (master.address.to_string(), temp.at("theirs/dest"));
    let options = ["-b", "--listen", "127.0.0.1", "-p", "0", "--serve", "forever", "--state"];
    let mut command: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    command.extend([state.as_os_str(), "-n".as_ref(), server.as_ref(), ".".as_ref()]);
    command.push(dest.as_os_str());
    xget_as_nobody(command).succeeds();
    let resident = Resident::on(address_in_state(&temp.at("theirs/state/state.json")));
    take_over(state).fails(6, &["hand-over failed: it belongs to another user"]);
    assert!(resident.is_running());
}

#[test]
fn a_state_directory_that_others_can_write_is_not_used() {
    let temp = Temp::new();
    let (tree, state) = (temp.tree(), temp.dir("state"));
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let master = Master::of(&tree);
    let mut command = program(["--listen", "127.0.0.1", "-p", "0", "--serve", "forever"]);
    command.arg("--state").arg(&state).args(["-n", &master.address.to_string(), "."]);
    command.arg(temp.at("dest"));
    Running::start(command).wait_until_it_says("other users can write to it");
    assert!(names(&state).is_empty());
}

// Helpers of these tests.

/// A master, and who serves in the background what it has fetched from there.
struct Served {
    master: Master,
    address: SocketAddr,
    resident: Resident,
    state: PathBuf,
}

impl Served {
    fn try_state(&self) -> Option<String> {
        fs::read_to_string(&self.state).ok()
    }

    #[track_caller]
    fn state(&self) -> String {
        self.try_state().unwrap()
    }
}

#[track_caller]
fn serve(temp: &Temp, tree: impl AsRef<Path>, sources: &[&str], options: &[&str]) -> Served {
    let master = Master::of(tree);
    let mut command = program(["-b", "--listen", "127.0.0.1", "-p", "0", "--serve", "forever"]);
    command.arg("--state").arg(temp.at("state")).args(options);
    command.args(["-n", &master.address.to_string()]).args(sources).arg(temp.at("dest"));
    Running::start(command).finish().succeeds();
    let state = temp.at("state/state.json");
    let address = address_in_state(&state);
    Served { master, address, resident: Resident::on(address), state }
}

#[track_caller]
fn address_in_state(state: &Path) -> SocketAddr {
    let text = fs::read_to_string(state).unwrap();
    let port = text.split("\"port\":").nth(1).unwrap().split(',').next().unwrap();
    format!("127.0.0.1:{port}").parse().unwrap()
}

fn take_over(state: PathBuf) -> Run {
    xget(["--take-over".as_ref(), state.as_os_str()])
}

/// Who has taken over.
#[track_caller]
fn start_taking_over(temp: &Temp) -> Running {
    let state = temp.at("state");
    let next: Command = program(["--take-over".as_ref(), state.as_os_str()]);
    let next = Running::start(next);
    next.wait_until_it_says("took over from");
    next
}

#[track_caller]
fn fetch_from(address: SocketAddr, sources: &[&str], dest: PathBuf) {
    let mut command = client(address, &[]);
    command.args(sources).arg(dest);
    Running::start(command).finish().succeeds();
}
