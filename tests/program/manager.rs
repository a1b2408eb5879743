//! What the service manager has of the program: it is told how far it is (sd_notify(3)), hands over
//! sockets (sd_listen_fds(3)), sends signals, and reads priorities (sd-daemon(3)).

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::files::{Temp, assert_same_tree, noise};
use crate::common::road::Road;
use crate::common::{MASTER, Master, Running, client, program, wait_for, xget};

const MIB: usize = 1 << 20;

// It is told how far the program is.

#[test]
fn a_master_is_ready_when_it_serves_and_says_what() {
    let (temp, manager) = (Temp::new(), Manager::new());
    let master = serve(&manager, &temp.tree());
    let told = manager.hears("READY=1");
    assert!(told.contains(&format!("MAINPID={}\n", master.id())), "{told}");
    assert!(told.contains("STATUS=serving 4 files, 1.2 MiB"), "{told}");
    master.wait_until_it_says("serving ");
}

#[test]
fn a_node_is_ready_when_its_files_are_whole() {
    let (temp, manager) = (Temp::new(), Manager::new());
    let master = Master::of(temp.tree());
    let mut command = client(master.address, &[]);
    command.env("NOTIFY_SOCKET", &manager.name).arg(".").arg(temp.at("copy"));
    let node = Running::start(command);
    manager.hears("READY=1");
    assert_same_tree(&temp.at("served"), &temp.at("copy"));
    node.finish().succeeds();
    manager.hears("STOPPING=1");
}

#[test]
fn where_there_is_nothing_to_take_over_that_is_done() {
    let (temp, manager) = (Temp::new(), Manager::new());
    let mut command = program(["--take-over".as_ref(), temp.at("state").as_os_str()]);
    command.env("NOTIFY_SOCKET", &manager.name);
    Running::start(command).finish().succeeds();
    manager.hears("READY=1");
}

#[test]
fn a_master_that_is_watched_says_that_it_does_not_hang() {
    let (temp, manager) = (Temp::new(), Manager::new());
    let mut command = program(MASTER);
    command.arg(temp.tree()).env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "200000");
    let _master = Running::start(command);
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
}

// It hands over sockets.

#[test]
fn clients_that_came_before_the_master_are_served() {
    let temp = Temp::new();
    let tree = temp.tree();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut early = client(address, &[]);
    early.arg(".").arg(temp.at("copy"));
    let early = Running::start(early);
    let master = activated(socket.as_fd(), &tree);
    early.finish().succeeds();
    assert_same_tree(&tree, &temp.at("copy"));
    master.wait_until_it_says(&format!("serving {} on {address}:", tree.display()));
}

#[test]
fn what_does_not_listen_is_refused() {
    let temp = Temp::new();
    let tree = temp.tree();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    activated(connected.as_fd(), &tree).finish().fails(7, &["not a listening TCP socket"]);
    let file = File::open(temp.at("served/kernel")).unwrap();
    activated(file.as_fd(), &tree).finish().fails(7, &["ListenStream="]);
}

#[test]
fn a_socket_named_http_serves_the_files_over_http_and_9p_has_its_own() {
    let temp = Temp::new();
    temp.file("served/kernel", "a kernel");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let master = handed(socket.as_fd(), "http", &temp.at("served"));
    master.wait_until_it_says(&format!("the status page on http://{address}/"));
    let mut http = TcpStream::connect(address).unwrap();
    let request = b"GET /kernel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut http, request).unwrap();
    let answer = std::io::read_to_string(http).unwrap();
    assert!(answer.ends_with("\r\n\r\na kernel"), "{answer}");
    let own = crate::common::address_in(&master.wait_until_it_says("generation "));
    assert_ne!(own.port(), address.port());
    let mut fetch = client(own, &[]);
    fetch.arg(".").arg(temp.at("copy"));
    Running::start(fetch).finish().succeeds();
}

// It sends signals.

#[test]
fn a_hangup_has_the_tree_looked_at_and_keeps_who_is_connected() {
    let (temp, manager) = (Temp::new(), Manager::new());
    let master = serve(&manager, &temp.tree());
    manager.hears("READY=1");
    let connected =
        TcpStream::connect(crate::common::address_in(&master.wait_until_it_says("generation ")))
            .unwrap();
    fs::remove_file(temp.at("served/kernel")).unwrap();
    temp.file("served/new", "new");
    signal(&master, "-HUP");
    let told = manager.hears("RELOADING=1");
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    assert!(manager.hears("READY=1").contains("serving 4 files"));
    master.wait_until_it_says("the tree has changed: generation ");
    master.wait_until_it_says("1 added, 1 removed, ");
    connected.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let error = std::io::Read::read(&mut &connected, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "still connected");
    signal(&master, "-HUP");
    master.wait_until_it_says("nothing has changed");
}

#[test]
fn a_master_that_is_told_to_end_sends_to_the_end_what_it_is_sending() {
    let (temp, manager) = (Temp::new(), Manager::new());
    temp.file("served/image", noise(3, 4 * MIB));
    let mut master = serve(&manager, &temp.at("served"));
    manager.hears("READY=1");
    let address = crate::common::address_in(&master.wait_until_it_says("generation "));
    let road = Road::to(address, MIB as u64);
    let mut fetch = client(road.address, &["-r", "0"]);
    fetch.arg(".").arg(temp.at("copy"));
    let _fetch = Running::start(fetch);
    road.wait_until_passed(MIB as u64 / 4);
    signal(&master, "-TERM");
    manager.hears("STOPPING=1");
    wait_for("nobody to be let in", || TcpStream::connect(address).is_err().then_some(()));
    assert!(master.is_running(), "it is still sending");
    road.free();
    assert_eq!(master.finish().code, Some(0));
}

#[test]
fn a_master_with_a_client_that_takes_nothing_ends_all_the_same() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let _silent = TcpStream::connect(master.address).unwrap();
    signal(&master.running, "-TERM");
    assert_eq!(master.running.finish().code, Some(0));
}

#[test]
fn a_second_signal_ends_a_master_at_once() {
    use std::time::Instant;
    let temp = Temp::new();
    let mut master = Master::of(temp.tree());
    let _silent = TcpStream::connect(master.address).unwrap();
    master.status();
    signal(&master.running, "-TERM");
    master.running.wait_until_it_says("stopping");
    let told = Instant::now();
    signal(&master.running, "-INT");
    wait_for("its end", || (!master.running.is_running()).then_some(()));
    assert!(told.elapsed() < Duration::from_secs(4), "it did not wait for the silent client");
}

// It reads priorities.

#[test]
fn in_the_journal_each_line_begins_with_its_priority() {
    let temp = Temp::new();
    let log = temp.at("log");
    let file = File::create(&log).unwrap();
    let place = file.metadata().unwrap();
    let stream = format!("{}:{}", place.dev(), place.ino());
    let mut command = program(["-n", "127.0.0.1:1", "-r", "0", "--serve", "no", "."]);
    command.arg(temp.at("copy")).env("JOURNAL_STREAM", stream).stderr(file);
    assert_eq!(command.stdin(Stdio::null()).status().unwrap().code(), Some(3));
    let said = fs::read_to_string(log).unwrap();
    assert!(said.starts_with("<3>xget: cannot connect to 127.0.0.1:1"), "{said}");
}

#[test]
fn elsewhere_it_does_so_when_it_is_asked_to() {
    let fetch = ["-n", "127.0.0.1:1", "-r", "0", "--serve", "no", ".", "/nowhere"];
    let mut command = program(fetch);
    // What a unit's other processes were given.
    command.env("JOURNAL_STREAM", "1:1");
    let run = Running::start(command).finish();
    assert!(run.stderr.starts_with("xget: cannot connect to"), "{}", run.stderr);
    let run = xget(["--log", "prefix"].into_iter().chain(fetch));
    assert!(run.stderr.starts_with("<3>xget: cannot connect to"), "{}", run.stderr);
}

// Helpers of these tests.

/// A service manager that listens to what it is told.
struct Manager {
    name: String,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        use std::sync::atomic::{AtomicU32, Ordering};
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("xget-manager-{}-{number}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
        let socket = socket.unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Manager { name: format!("@{name}"), socket }
    }

    /// Waits for a message with this line in it; what comes before is of no interest.
    fn hears(&self, line: &str) -> String {
        loop {
            let mut message = [0; 1000];
            let n = self.socket.recv(&mut message).expect(line);
            let message = String::from_utf8_lossy(&message[..n]).into_owned();
            if message.lines().any(|told| told == line) {
                return message;
            }
        }
    }
}

/// A master that looks at its tree only when it is told to.
fn serve(manager: &Manager, tree: &Path) -> Running {
    let mut command = program(MASTER);
    command.args(["--rescan", "0"]).arg(tree).env("NOTIFY_SOCKET", &manager.name);
    Running::start(command)
}

/// A master that is given this descriptor as a service manager does it.
fn activated(fd: BorrowedFd<'_>, tree: &Path) -> Running {
    handed(fd, "xget-master.socket", tree)
}

/// The same with another name than a socket unit has by itself.
fn handed(fd: BorrowedFd<'_>, name: &str, tree: &Path) -> Running {
    let mut shell = Command::new("sh");
    // The shell becomes the program, and so has its number.
    shell.args(["-c", "exec 3<&0 < /dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]);
    shell.arg(env!("CARGO_BIN_EXE_xget")).args(MASTER).arg(tree).env("LISTEN_FDNAMES", name);
    Running::start_reading(shell, fd.try_clone_to_owned().unwrap().into())
}

fn signal(of: &Running, signal: &str) {
    let sent = Command::new("kill").args([signal, &of.id().to_string()]).status();
    assert!(sent.unwrap().success());
}
