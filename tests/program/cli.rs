//! The program as its users run it: each form of the command, over real sockets on loopback.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::files::{
    Mount, Temp, assert_same_tree, mode, names, noise, set_mode, set_mtime,
};
use crate::common::resident::Resident;
use crate::common::road::Road;
use crate::common::{
    MASTER, Master, Running, address_in, client, node, program, skipped, wait_for, xget,
};
use xget::control::Control;
use xget::net::call::Call;
use xget::net::transport::Transport;

const MIB: usize = 1 << 20;

// What is fetched, and where it goes.

#[test]
fn everything_is_copied_with_modes_times_and_links() {
    let temp = Temp::new();
    let served = temp.tree();
    let run = Master::of(&served).fetch(&["."], temp.at("copy")).succeeds();
    assert_same_tree(&served, &temp.at("copy"));
    run.says("fetched 4 files");
}

#[test]
fn a_destination_that_is_missing_is_made_with_what_is_missing_above_it() {
    let temp = Temp::new();
    let served = temp.tree();
    let dest = temp.at("new/below/dest");
    Master::of(&served).fetch(&["."], &dest).succeeds();
    assert_same_tree(&served, &dest);
}

#[test]
fn one_file_goes_into_a_directory_under_its_own_name() {
    let temp = Temp::new();
    let served = temp.tree();
    let dest = temp.dir("dest");
    Master::of(&served).fetch(&["kernel"], &dest).succeeds();
    assert_eq!(names(&dest), ["kernel"]);
    assert_eq!(fs::read(dest.join("kernel")).unwrap(), noise(1, 300_000));
}

#[test]
fn any_of_several_servers_will_do() {
    let temp = Temp::new();
    let served = temp.tree();
    let master = Master::of(&served);
    // Nobody listens on port 1, and the first name does not exist.
    let servers = format!("no-such-host.invalid,127.0.0.1:1,{}", master.address);
    let mut command = program(["-n", &servers, "--serve", "no", "."]);
    command.arg(temp.at("copy"));
    Running::start(command).finish().succeeds();
    assert_same_tree(&served, &temp.at("copy"));
}

#[test]
fn ipv6_does_as_well() {
    let temp = Temp::new();
    let served = temp.tree();
    let master = Master::with(&["--listen", "::1"], &served);
    assert!(master.address.is_ipv6(), "{}", master.address);
    master.fetch(&["."], temp.at("copy")).succeeds();
    assert_same_tree(&served, &temp.at("copy"));
}

#[test]
fn what_must_fit_and_does_not_is_not_begun() {
    let temp = Temp::new();
    fs::write(temp.dir("served").join("image"), noise(1, 2 * MIB)).unwrap();
    let dest = temp.dir("dest");
    let Some(_mount) = Mount::in_memory(&dest, "size=1m") else {
        return skipped("nothing can be mounted here");
    };
    let master = Master::of(temp.at("served"));
    let run = master.fetch_with(&["--must-fit"], &["image"], &dest);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    run.says("need 2.0 MiB, have 1.0 MiB");
    assert!(names(&dest).is_empty(), "{:?}", names(&dest));
}

#[test]
fn several_sources_go_into_one_directory() {
    let temp = Temp::new();
    let dest = temp.at("dest");
    Master::of(temp.tree()).fetch(&["kernel", "images/tools/run", "link"], &dest).succeeds();
    assert_eq!(names(&dest), ["kernel", "link", "run"]);
}

#[test]
fn a_directory_lands_under_its_last_name() {
    let temp = Temp::new();
    let served = temp.tree();
    Master::of(&served).fetch(&["images/tools"], temp.at("dest")).succeeds();
    assert_eq!(names(&temp.at("dest")), ["tools"]);
    assert_same_tree(&served.join("images/tools"), &temp.at("dest/tools"));
}

#[test]
fn a_destination_that_is_a_file_is_replaced_by_the_one_source() {
    let temp = Temp::new();
    let dest = temp.file("dest", "what was here before");
    Master::of(temp.tree()).fetch(&["images/root"], &dest).succeeds();
    assert_eq!(fs::read(&dest).unwrap(), noise(2, 1_000_000));
}

#[test]
fn what_else_is_in_the_destination_stays() {
    let temp = Temp::new();
    temp.file("dest/mine", "mine");
    Master::of(temp.tree()).fetch(&["kernel"], temp.at("dest")).succeeds();
    assert_eq!(fs::read(temp.at("dest/mine")).unwrap(), b"mine");
    assert_eq!(names(&temp.at("dest")), ["kernel", "mine"]);
}

#[test]
fn one_file_can_be_served() {
    let temp = Temp::new();
    let file = temp.file("root.img", noise(3, 200_000));
    temp.file("beside", "not served");
    Master::of(&file).fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(names(&temp.at("dest")), ["root.img"]);
    assert_eq!(fs::read(temp.at("dest/root.img")).unwrap(), noise(3, 200_000));
}

#[test]
fn a_second_fetch_takes_only_what_differs() {
    let temp = Temp::new();
    let served = temp.tree();
    let master = Master::of(&served);
    master.fetch(&["."], temp.at("dest")).succeeds();
    temp.file("dest/kernel", "spoiled");
    let again = master.fetch(&["."], temp.at("dest")).succeeds();
    again.says("already here");
    assert_same_tree(&served, &temp.at("dest"));
}

// What is kept of modes and owners, and what is left out.

#[test]
fn no_mode_leaves_modes_to_the_umask() {
    let temp = Temp::new();
    set_mode(&temp.file("served/secret", "x"), 0o4600);
    set_mode(&temp.dir("served/dir"), 0o700);
    let usual = mode(&temp.file("usual", ""));
    Master::of(temp.at("served")).fetch_with(&["-s"], &["."], temp.at("dest")).succeeds();
    assert_eq!(mode(&temp.at("dest/secret")), usual);
    assert_eq!(mode(&temp.at("dest/dir")), mode(&temp.dir("usual-dir")));
}

#[test]
fn root_keeps_numeric_owners() {
    let temp = Temp::new();
    let Some(served) = tree_of_somebody_else(&temp) else { return };
    Master::of(&served).fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(owner(&temp.at("dest/file")), (1234, 5678));
}

#[test]
fn no_owner_leaves_owners_alone_when_fetching() {
    let temp = Temp::new();
    let Some(served) = tree_of_somebody_else(&temp) else { return };
    Master::of(&served).fetch_with(&["-o"], &["."], temp.at("dest")).succeeds();
    assert_eq!(owner(&temp.at("dest/file")), owner(&temp.file("mine", "")));
}

#[test]
fn no_owner_leaves_owners_out_when_serving() {
    let temp = Temp::new();
    let Some(served) = tree_of_somebody_else(&temp) else { return };
    Master::with(&["-o"], &served).fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(owner(&temp.at("dest/file")), owner(&temp.file("mine", "")));
}

#[test]
fn one_file_system_leaves_out_what_is_mounted_below() {
    let temp = Temp::new();
    temp.file("served/file", "served");
    let below = temp.dir("served/below");
    let Some(_mount) = Mount::in_memory(&below, "size=1m") else {
        return crate::common::skipped("nothing can be mounted here");
    };
    temp.file("served/below/hidden", "not served");
    Master::with(&["-x"], temp.at("served")).fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(names(&temp.at("dest")), ["below", "file"]);
    assert!(names(&temp.at("dest/below")).is_empty());
    Master::of(temp.at("served")).fetch(&["."], temp.at("all")).succeeds();
    assert_eq!(names(&temp.at("all/below")), ["hidden"]);
}

#[test]
fn sockets_and_fifos_are_left_out_and_counted() {
    let temp = Temp::new();
    temp.file("served/file", "x");
    let _socket = std::os::unix::net::UnixListener::bind(temp.at("served/socket")).unwrap();
    let master = Master::of(temp.at("served"));
    master.fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(names(&temp.at("dest")), ["file"]);
    assert!(master.running.said().contains("1 special file left out"));
}

// What is said.

#[test]
fn the_last_line_is_a_summary() {
    let temp = Temp::new();
    let run = Master::of(temp.tree()).fetch(&["."], temp.at("dest")).succeeds();
    let last = run.stderr.lines().last().unwrap();
    assert!(last.starts_with("xget: fetched 4 files: 1.2 MiB in "), "{last}");
    assert!(last.contains("from the server, 0 B from 0 nodes"), "{last}");
}

/// Takes a little more than the five seconds between two lines.
#[test]
fn progress_is_lines_where_there_is_no_terminal() {
    let temp = Temp::new();
    temp.file("served/image", noise(4, 24 * MIB));
    let master = Master::of(temp.at("served"));
    let road = Road::to(master.address, 3 * MIB as u64);
    let fetch = start_client(&road, &[], &temp.at("dest"));
    let said = fetch.wait_until_it_says(" left, ");
    road.free();
    let line = said.lines().last().unwrap();
    assert!(line.starts_with("xget: ") && line.contains(" % of 24.0 MiB, "), "{line}");
    assert!(!said.contains('\r') && !said.contains('\x1b'), "{said:?}");
    fetch.finish().succeeds();
}

#[test]
fn quiet_shows_no_progress() {
    let temp = Temp::new();
    temp.file("served/image", noise(5, 18 * MIB));
    let master = Master::of(temp.at("served"));
    let road = Road::to(master.address, 3 * MIB as u64);
    let run = start_client(&road, &["-q"], &temp.at("dest")).finish().succeeds();
    assert!(!run.stderr.contains(" % of "), "{}", run.stderr);
}

#[test]
fn help_lists_the_options_and_exit_codes_on_standard_output() {
    for option in ["-h", "--help"] {
        let run = xget([option]).succeeds();
        assert!(run.stderr.is_empty());
        for word in ["--manifest", "--status", "--background", "--serve", "Exit codes"] {
            assert!(run.text().contains(word), "{word}");
        }
    }
}

#[test]
fn version_names_the_program() {
    for option in ["-V", "--version"] {
        let run = xget([option]).succeeds();
        assert_eq!(run.text(), concat!("xget ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

// The manifest and the status.

// As the first process of a container, which is no machine's init.

#[test]
fn the_first_process_of_a_container_does_what_its_arguments_say() {
    let Some(mut command) = in_container() else { return };
    command.arg("--version");
    let run = Running::start(command).finish().succeeds();
    assert_eq!(run.text(), concat!("xget ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(run.stderr, "");
}

#[test]
fn the_first_process_of_a_container_passes_its_exit_code_on() {
    let Some(mut command) = in_container() else { return };
    command.arg("/no/such/directory");
    Running::start(command).finish().fails(5, &["/no/such/directory"]);
}

#[test]
fn a_master_that_is_the_first_process_of_a_container_ends_at_sigterm() {
    let Some(mut command) = in_container() else { return };
    let temp = Temp::new();
    command.args(MASTER).arg(temp.tree());
    let unshare = Running::start(command);
    unshare.wait_until_it_says("generation ");
    let first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id())).unwrap();
    assert!(Command::new("kill").args(["-TERM", first.trim()]).status().unwrap().success());
    unshare.finish().succeeds().says("stopping");
}

#[test]
fn the_manifest_is_what_the_master_serves() {
    let temp = Temp::new();
    let served = temp.tree();
    let printed = manifest(&served);
    let master = Master::of(&served);
    let patience = Duration::from_secs(10);
    let mut call = Call::connect(&Transport::Kernel, master.address, patience).unwrap();
    let read = call.read(Control::Manifest, 1 << 20, &mut |_| ()).unwrap();
    assert!(printed == read, "printed and served manifests differ");
}

#[test]
fn the_manifest_depends_on_the_tree_only() {
    let temp = Temp::new();
    let there = ["a", "b", "sub/c", "sub/d", "z"];
    for name in there {
        set_mtime(&temp.file(&format!("one/{name}"), name), 1_000_000_000);
    }
    for name in there.iter().rev() {
        set_mtime(&temp.file(&format!("other/{name}"), name), 1_000_000_000);
    }
    for dir in ["one/sub", "one", "other/sub", "other"] {
        set_mtime(&temp.at(dir), 1_000_000_000);
    }
    let one = manifest(&temp.at("one"));
    assert!(one == manifest(&temp.at("one")), "twice the same tree");
    assert!(one == manifest(&temp.at("other")), "made in another order");
}

#[test]
fn the_status_has_a_line_for_the_master_and_one_for_each_node() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let node = node(master.address, temp.at("dest"));
    node.wait_until_it_says("xget: fetched ");
    let status = wait_for("the node in the status", || {
        Some(master.status()).filter(|status| status.contains("held=20/20 sent"))
    });
    let lines: Vec<&str> = status.lines().collect();
    assert_eq!(lines.len(), 2, "{status}");
    assert!(lines[0].starts_with("generation="), "{status}");
    assert!(lines[0].contains("held=20/20 serving_nodes=1"), "{status}");
    assert!(lines[1].starts_with("node=127.0.0.1:"), "{status}");
}

#[test]
fn the_status_can_be_had_as_json() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let run = xget(["--status", "--json", "-n", &master.address.to_string()]).succeeds();
    let text = run.text();
    assert!(text.starts_with("{\"server\":{\"generation\":\""), "{text}");
    assert!(text.contains("\"image_bytes\":1300010,"), "{text}");
    assert!(text.ends_with("},\"nodes\":[],\"log\":[]}\n"), "{text}");
}

// Serving on, and the background.

#[test]
fn a_client_serves_for_as_many_seconds_as_it_is_told() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut command = program(["--listen", "127.0.0.1", "-p", "0", "--serve", "1", "-n"]);
    command.arg(master.address.to_string()).arg(".").arg(temp.at("dest"));
    let client = Running::start(command);
    client.wait_until_it_says("xget: fetched ");
    wait_for("the node in the status", || master.status().contains("node=").then_some(()));
    client.finish().succeeds();
}

#[test]
fn a_client_that_nobody_draws_from_ends_by_itself() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut command = program(["--listen", "127.0.0.1", "-p", "0", "-n"]);
    command.arg(master.address.to_string()).arg(".").arg(temp.at("dest"));
    Running::start(command).finish().succeeds();
}

#[test]
fn a_client_that_serves_for_ever_stays() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut first = node(master.address, temp.at("first"));
    first.wait_until_it_says("xget: fetched ");
    let address = serving_node(&master);
    drop(master);
    let mut from_node = client(address, &[]);
    from_node.arg(".").arg(temp.at("second"));
    Running::start(from_node).finish().succeeds();
    assert!(first.is_running());
}

#[test]
fn a_background_client_returns_when_the_files_are_whole_and_serves_on() {
    let temp = Temp::new();
    let served = temp.tree();
    let master = Master::of(&served);
    let mut command = program(["-b", "--listen", "127.0.0.1", "-p", "0", "--serve", "forever"]);
    command.arg("-n").arg(master.address.to_string()).arg(".").arg(temp.at("dest"));
    Running::start(command).finish().succeeds().says("fetched 4 files");
    assert_same_tree(&served, &temp.at("dest"));
    let address = serving_node(&master);
    let resident = Resident::on(address);
    drop(master);
    let mut from_resident = client(address, &[]);
    from_resident.arg(".").arg(temp.at("second"));
    Running::start(from_resident).finish().succeeds();
    assert_same_tree(&served, &temp.at("second"));
    assert!(resident.is_running());
}

#[test]
fn the_resident_of_a_background_client_ends_when_its_time_is_over() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut command = program(["-b", "--listen", "127.0.0.1", "-p", "0", "--serve", "2"]);
    command.arg("-n").arg(master.address.to_string()).arg(".").arg(temp.at("dest"));
    Running::start(command).finish().succeeds();
    let resident = Resident::on(serving_node(&master));
    wait_for("the end of the resident", || (!resident.is_running()).then_some(()));
}

#[test]
fn a_background_client_that_fails_says_so_and_leaves_nobody_behind() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    master.fetch_with(&["-b"], &["missing"], temp.at("dest")).fails(4, &["missing"]);
}

#[test]
fn a_background_client_whose_command_is_ended_ends_too() {
    let temp = Temp::new();
    // Nobody answers there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = client(silent.local_addr().unwrap(), &["-b"]);
    command.arg(".").arg(temp.at("dest"));
    let mut running = Running::start(command);
    let children = format!("/proc/{0}/task/{0}/children", running.id());
    let child = wait_for("the process in the background", || {
        let children = fs::read_to_string(&children).ok()?;
        children.split_whitespace().next().map(|id| format!("/proc/{id}/stat"))
    });
    running.kill();
    wait_for("its end", || {
        let stat = fs::read_to_string(&child).unwrap_or_default();
        // Nobody may have asked how it has ended.
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn a_background_master_returns_once_it_serves() {
    let temp = Temp::new();
    let served = temp.tree();
    let mut command = program(MASTER);
    command.arg("-b").arg(&served);
    let run = Running::start(command).finish().succeeds();
    let address = address_in(&run.stderr);
    let resident = Resident::on(address);
    let mut fetch = client(address, &[]);
    fetch.arg(".").arg(temp.at("dest"));
    Running::start(fetch).finish().succeeds();
    assert_same_tree(&served, &temp.at("dest"));
    assert!(resident.is_running());
}

// A tree that changes.

#[test]
fn a_change_reaches_a_client_that_comes_later() {
    let temp = Temp::new();
    let served = temp.tree();
    let master = Master::of(&served);
    temp.file("served/added", "added");
    fs::remove_file(temp.at("served/kernel")).unwrap();
    master.running.wait_until_it_says("the tree has changed: generation ");
    master.fetch(&["."], temp.at("dest")).succeeds();
    assert_same_tree(&served, &temp.at("dest"));
}

#[test]
fn a_client_in_mid_fetch_goes_over_to_a_new_generation_and_says_so() {
    let temp = Temp::new();
    let served = temp.dir("served");
    temp.file("served/large", noise(6, 16 * MIB));
    temp.file("served/small", "old");
    let master = Master::of(&served);
    let road = Road::to(master.address, 4 * MIB as u64);
    let fetch = start_client(&road, &[], &temp.at("dest"));
    road.wait_until_passed(2 * MIB as u64);
    replace(&temp.at("served/small"), b"new");
    master.running.wait_until_it_says("the tree has changed");
    fetch.wait_until_it_says("serves a new generation");
    road.free();
    let run = fetch.finish().succeeds();
    run.says("already here");
    assert_same_tree(&served, &temp.at("dest"));
}

#[test]
fn a_file_that_is_rewritten_during_a_fetch_is_never_a_mixture() {
    let temp = Temp::new();
    let (old, new) = (noise(7, 12 * MIB), noise(8, 12 * MIB));
    let file = temp.file("served/image", &old);
    let dest = temp.at("dest/image");
    temp.file("dest/image", "before");
    let master = Master::of(temp.at("served"));
    let road = Road::to(master.address, 6 * MIB as u64);
    let fetch = start_client(&road, &[], &temp.at("dest"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let seen = fs::read(&dest).unwrap();
                assert!(seen == b"before" || seen == old || seen == new, "a mixture");
            }
        });
        road.wait_until_passed(3 * MIB as u64);
        let mut rewritten = fs::OpenOptions::new().write(true).open(&file).unwrap();
        rewritten.write_all(&new).unwrap();
        master.running.wait_until_it_says("the tree has changed");
        road.free();
        fetch.finish().succeeds();
        over.store(true, Ordering::Relaxed);
    });
    assert!(fs::read(&dest).unwrap() == new, "not the new content");
}

#[test]
fn a_change_that_is_not_published_yet_is_waited_for_with_one_message() {
    let temp = Temp::new();
    let file = temp.file("served/file", "old");
    let master = Master::with(&["--rescan", "2"], temp.at("served"));
    temp.file("served/file", "new");
    let run = master.fetch(&["."], temp.at("dest")).succeeds();
    assert_eq!(fs::read(temp.at("dest/file")).unwrap(), fs::read(file).unwrap());
    assert!(run.stderr.lines().count() <= 3, "{}", run.stderr);
}

/// Two scans may be needed until the master has hashed it again, but a link is no change of the
/// tree: no new generation may be waited for.
#[test]
fn a_source_that_is_a_symbolic_link_is_fetched_as_what_it_leads_to() {
    let temp = Temp::new();
    temp.file("served/releases/7/vmlinuz", "seven");
    symlink("vmlinuz", temp.at("served/releases/7/latest")).unwrap();
    symlink("releases/7", temp.at("served/current")).unwrap();
    symlink("../outside", temp.at("served/out")).unwrap();
    let master = Master::of(temp.at("served"));
    for (source, dest) in [("current/vmlinuz", "a"), ("current/latest", "b"), ("current", "c")] {
        master.fetch(&[source], temp.dir(dest)).succeeds();
    }
    for path in ["a/vmlinuz", "b/latest", "c/current/vmlinuz"] {
        assert!(!fs::symlink_metadata(temp.at(path)).unwrap().is_symlink(), "{path}");
        assert_eq!(fs::read_to_string(temp.at(path)).unwrap(), "seven", "{path}");
    }
    assert!(fs::symlink_metadata(temp.at("c/current/latest")).unwrap().is_symlink());
    master.fetch(&["out"], temp.at("d")).fails(4, &["out is a symbolic link to ../outside"]);
    assert!(!temp.at("d").exists());
}

#[test]
fn a_served_file_that_gets_another_link_is_still_served() {
    let temp = Temp::new();
    let served = temp.tree();
    let master = Master::of(&served);
    fs::hard_link(temp.at("served/kernel"), temp.at("elsewhere")).unwrap();
    master.fetch(&["kernel"], temp.at("dest")).succeeds();
    assert_eq!(fs::read(temp.at("dest/kernel")).unwrap(), noise(1, 300_000));
}

// Interrupted fetches.

#[test]
fn a_killed_fetch_leaves_no_file_half_written_and_is_resumed() {
    let temp = Temp::new();
    let served = temp.dir("served");
    temp.file("served/image", noise(9, 16 * MIB));
    let master = Master::of(&served);
    let road = Road::to(master.address, 4 * MIB as u64);
    let mut fetch = start_client(&road, &[], &temp.at("dest"));
    road.wait_until_passed(6 * MIB as u64);
    fetch.kill();
    assert!(!temp.at("dest/image").exists());
    master.fetch(&["."], temp.at("dest")).succeeds().says(" MiB already here");
    assert_same_tree(&served, &temp.at("dest"));
}

// Helpers of these tests.

/// A client of everything, in mid-fetch.
fn start_client(road: &Road, options: &[&str], dest: &Path) -> Running {
    let mut command = client(road.address, options);
    command.arg(".").arg(dest);
    Running::start(command)
}

/// The one node that the master knows.
fn serving_node(master: &Master) -> std::net::SocketAddr {
    wait_for("a node that serves", || {
        let status = master.status();
        let (_, rest) = status.split_once("node=")?;
        rest.split(' ').next()?.parse().ok()
    })
}

/// The program as the first process of new namespaces; None if those cannot be made here.
fn in_container() -> Option<Command> {
    let in_namespaces = |program| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", program]);
        unshare
    };
    if !in_namespaces("true").status().is_ok_and(|status| status.success()) {
        skipped("namespaces cannot be made here");
        return None;
    }
    Some(in_namespaces(env!("CARGO_BIN_EXE_xget")))
}

fn manifest(dir: &Path) -> Vec<u8> {
    let arguments = ["--manifest", "--cache", "none", dir.to_str().unwrap()];
    xget(arguments).succeeds().stdout
}

fn tree_of_somebody_else(temp: &Temp) -> Option<std::path::PathBuf> {
    let file = temp.file("served/file", "x");
    symlink("file", temp.at("served/link")).unwrap();
    match chown(&file, Some(1234), Some(5678)) {
        Ok(()) => Some(temp.at("served")),
        Err(_) => {
            crate::common::skipped("only root can give files away");
            None
        }
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

/// Puts another file in the place of one, in one step.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, path).unwrap();
}
