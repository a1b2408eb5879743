//! What the tests of the program share: places to work in, runs of the program that always end,
//! trees to compare, and a slow road between a client and its master.

pub(crate) mod files;
pub(crate) mod resident;
pub(crate) mod road;

use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Nothing that is waited for may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether it has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A user without rights, as a rule called nobody.
pub(crate) const NOBODY: u32 = 65534;

/// Waits until `look` finds something; says what was missing if it never does.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// The program with arguments, not started yet.
pub(crate) fn program<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xget"));
    command.args(arguments);
    command
}

/// Runs the program to its end.
pub(crate) fn xget<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    Running::start(program(arguments)).finish()
}

/// Runs the program to its end as a user who may not do everything.
pub(crate) fn xget_as_nobody<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    let mut command = program(arguments);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Running::start(command).finish()
}

/// Do the tests run as root?
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Says that a test was not run, where everybody sees it.
pub(crate) fn skipped(why: &str) {
    use std::io::Write;
    // Not by the macro, whose output the test harness keeps to itself.
    let name = thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// What a run came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    /// Exit code 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Run {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// This exit code, and one line of error that holds all `words`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("xget: "), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        assert!(self.stderr.contains(words), "no {words:?} in: {}", self.stderr);
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// The program at work. It is killed at the latest when this goes.
pub(crate) struct Running {
    child: Child,
    stdout: Reader,
    stderr: Reader,
}

struct Reader {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(command: Command) -> Running {
        Running::start_reading(command, Stdio::null())
    }

    pub(crate) fn start_reading(mut command: Command, stdin: Stdio) -> Running {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Reader::new(child.stdout.take().unwrap());
        let stderr = Reader::new(child.stderr.take().unwrap());
        Running { child, stdout, stderr }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.text()
    }

    /// Waits until it has said `words`.
    #[track_caller]
    pub(crate) fn wait_until_it_says(&self, words: &str) -> String {
        wait_for(words, || {
            let said = self.said();
            assert!(!self.stderr.thread.is_finished() || said.contains(words), "{said}");
            said.contains(words).then_some(said)
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Stops it, as if it had stalled, or lets it go on.
    pub(crate) fn stall(&self, stalled: bool) {
        let signal = if stalled { "-STOP" } else { "-CONT" };
        let mut kill = Command::new("kill");
        kill.args([signal, &self.child.id().to_string()]);
        assert!(kill.status().unwrap().success());
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Run {
        let status = wait_for("the end of xget", || self.child.try_wait().unwrap());
        // What stays in the background lets go of both pipes.
        wait_for("the end of its output", || {
            (self.stdout.thread.is_finished() && self.stderr.thread.is_finished()).then_some(())
        });
        let stdout = self.stdout.bytes.lock().unwrap().clone();
        Run { code: status.code(), stdout, stderr: self.said() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Reader {
    fn new(mut from: impl Read + Send + 'static) -> Reader {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = bytes.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Reader { bytes, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}

/// A master on a free loopback port.
pub(crate) struct Master {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
}

/// How a master is started in these tests; options and what is served follow.
pub(crate) const MASTER: [&str; 6] = ["-p", "0", "--listen", "127.0.0.1", "--cache", "none"];

impl Master {
    /// Serves `path`, and looks for changes every second.
    pub(crate) fn of(path: impl AsRef<Path>) -> Master {
        Master::with(&["--rescan", "1"], path)
    }

    pub(crate) fn with(options: &[&str], path: impl AsRef<Path>) -> Master {
        let mut command = program(MASTER);
        command.args(options).arg(path.as_ref());
        let running = Running::start(command);
        let said = running.wait_until_it_says("generation ");
        Master { running, address: address_in(&said) }
    }

    /// A client that serves nobody, run to its end.
    pub(crate) fn fetch(&self, sources: &[&str], dest: impl AsRef<Path>) -> Run {
        self.fetch_with(&[], sources, dest)
    }

    pub(crate) fn fetch_with(
        &self,
        options: &[&str],
        sources: &[&str],
        dest: impl AsRef<Path>,
    ) -> Run {
        let mut command = client(self.address, options);
        command.args(sources).arg(dest.as_ref());
        Running::start(command).finish()
    }

    pub(crate) fn status(&self) -> String {
        let run = xget(["--status", "--raw", "-n", &self.address.to_string()]).succeeds();
        run.text().to_owned()
    }
}

/// A client that serves nobody; sources and destination are to follow.
pub(crate) fn client(server: SocketAddr, options: &[&str]) -> Command {
    let mut command = program(["-n", &server.to_string(), "--serve", "no"]);
    command.args(options);
    command
}

/// A client that fetches everything and serves on for ever, on a free loopback port.
pub(crate) fn node(server: SocketAddr, dest: impl AsRef<Path>) -> Running {
    let server = server.to_string();
    let mut command = program(["-p", "0", "--listen", "127.0.0.1", "--serve", "forever"]);
    command.args(["-n", &server, "."]).arg(dest.as_ref());
    Running::start(command)
}

/// The address in "serving PATH on ADDRESS: ...".
pub(crate) fn address_in(said: &str) -> SocketAddr {
    let host =
        ["127.0.0.1", "[::1]"].into_iter().find(|host| said.contains(&format!(" on {host}:")));
    let host = host.unwrap();
    let rest = said.split_once(&format!(" on {host}:")).unwrap().1;
    let port = rest.split(':').next().unwrap();
    format!("{host}:{port}").parse().unwrap()
}
