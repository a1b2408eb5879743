//! Serving on once the files are whole: for as long as was asked for, or until another process takes
//! over.
//!
//! In a **state [`directory`]** others learn of it: [`state`] says what is served, and by a socket there
//! comes who wants to serve in its place ([`take_over`]). It is offered the listening socket
//! and the files, and looks at them while this process serves on; once it says that it has taken
//! them, this process takes no more clients, sends to the end what it is sending, and ends. The socket
//! listens all the time, so that nobody is refused meanwhile.

mod directory;
mod offer;
mod state;
mod take_over;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::cli::{self, ServeOn};
use crate::error::Error;
use crate::node::driver::Node;
use crate::process::notify::Manager;
use crate::process::report::Reporter;
use crate::sys::signals::{Signal, Signals};
use crate::units::quantity;
use directory::Directory;
use offer::Offer;
use state::State;
pub use take_over::take_over;

/// A node that serves while it is wanted waits this long for somebody to want something.
const LINGER: Duration = Duration::from_secs(2);
/// How often it is looked whether anybody still wants something.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the clients of a process that was taken over are answered still: who has connected to it a
/// moment ago, or has asked half of what it wants to know, is not to be cut off.
const ANSWER: Duration = Duration::from_secs(1);
/// How long they may then take for what they are being sent.
const LEAVE: Duration = Duration::from_secs(10);
/// The same where a signal has told this process to end.
const LEAVE_WHEN_TOLD: Duration = Duration::from_secs(5);

/// A node whose files are whole.
#[derive(Debug)]
pub struct Resident<'a> {
    node: Node,
    options: &'a cli::FetchOptions,
    report: Reporter,
    /// When the files were whole.
    whole: Instant,
    arguments: Vec<OsString>,
    directory: Option<Directory>,
    signals: Option<Signals>,
    manager: Manager,
}

impl Resident<'_> {
    /// Says in the state directory, if there is one, that it serves. `arguments` are the command line
    /// that `options` were made of.
    ///
    /// That nobody can learn of it or take over does not keep it from serving: it is only told.
    pub fn new(
        node: Node,
        options: &cli::FetchOptions,
        arguments: Vec<OsString>,
        whole: Instant,
        report: Reporter,
    ) -> Resident<'_> {
        // Where that cannot be arranged a signal ends it on the spot.
        let signals = Signals::watch(false).ok();
        let manager = Manager::find();
        let directory = None;
        let mut resident =
            Resident { node, options, report, whole, arguments, directory, signals, manager };
        if let Some(dir) = options.state.as_ref().filter(|_| resident.node.listener().is_some()) {
            match resident.open_directory(dir) {
                Ok(directory) => resident.directory = Some(directory),
                Err(error) => report.warning(format_args!("hand-over is not possible: {error}")),
            }
        }
        resident
    }

    /// Serves until the time is over, another process has taken over, or a signal ends it.
    pub fn serve(mut self) {
        let status = self.status();
        self.manager.ready(&status);
        let mut wanted = self.whole;
        let mut sent = self.node.hub().sent_bytes();
        loop {
            let now = Instant::now();
            if self.node.hub().sent_bytes() != sent || self.node.hub().is_wanted(now) {
                sent = self.node.hub().sent_bytes();
                wanted = now;
            }
            let end = match self.options.serve_on {
                ServeOn::WhileWanted => Some(wanted + LINGER),
                limit => end_of(limit, self.whole),
            };
            if end.is_some_and(|end| end <= now) {
                break;
            }
            let look = match self.options.serve_on {
                ServeOn::WhileWanted => Some(now + LOOK_EVERY),
                _ => end,
            };
            self.turn(look);
            if self.is_taken_over() {
                self.leave();
                break;
            }
            if self.is_told_to_end() {
                self.end();
                break;
            }
        }
        self.manager.stopping("stopped serving");
        self.node.close();
    }

    fn turn(&mut self, deadline: Option<Instant>) {
        let mut others: Vec<BorrowedFd<'_>> = self.signals.iter().map(AsFd::as_fd).collect();
        others.extend(self.directory.iter().flat_map(Directory::descriptors));
        // The files are whole: what goes wrong from here on is nobody's loss.
        if let Err(error) = self.node.turn(deadline, &others) {
            self.report.info(error);
        }
    }

    fn is_taken_over(&mut self) -> bool {
        let Some(directory) = &mut self.directory else { return false };
        if let Some(guest) = directory.newcomer() {
            let served = self.whole.elapsed();
            let offered = Offer::new(&self.node, served, &self.arguments)
                .and_then(|offer| offer.send(guest.as_fd(), &mut self.node));
            if let Err(error) = offered {
                self.report.warning(format_args!("hand-over failed: {error}"));
                directory.turn_away();
            }
        }
        directory.is_taken()
    }

    fn leave(&mut self) {
        self.report.notice("another process has taken over; exiting");
        self.node.stop_listening();
        // What this process left in the directory is removed before the other leaves its own there.
        self.directory = None;
        self.serve_clients_for(ANSWER);
        self.node.stop();
        self.serve_clients_for(LEAVE);
    }

    fn is_told_to_end(&self) -> bool {
        self.signals.as_ref().and_then(Signals::take) == Some(Signal::End)
    }

    fn end(&mut self) {
        let text = "stopping: finishing replies for at most 5 s";
        self.report.notice(text);
        self.manager.stopping(text);
        self.node.stop_listening();
        self.directory = None;
        self.node.stop();
        self.serve_clients_for(LEAVE_WHEN_TOLD);
    }

    /// Serves those who are connected, at most for so long, or until a signal ends that, too.
    fn serve_clients_for(&mut self, longest: Duration) {
        let end = Instant::now() + longest;
        while self.node.has_clients() && Instant::now() < end && !self.is_told_to_end() {
            self.turn(Some(end));
        }
    }

    fn status(&mut self) -> String {
        let files = quantity(self.node.store().counts().files, "file");
        let port = self.node.listener().map(|listener| listener.port());
        match port {
            Some(port) => format!("serving {files} to other nodes on port {port}"),
            None => format!("fetched {files}"),
        }
    }

    fn open_directory(&mut self, dir: &Path) -> Result<Directory, Error> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(self.whole.elapsed());
        let seconds_left = end_of(self.options.serve_on, self.whole)
            .map(|end| end.saturating_duration_since(self.whole));
        let port = self.node.listener().map_or(0, |listener| listener.port());
        let manifest = self.node.fetch().manifest().clone();
        let state = State {
            pid: std::process::id(),
            port,
            since_s: since.as_secs(),
            until_s: seconds_left.map(|left| (since + left).as_secs()),
            server: &self.options.server,
            sources: &self.options.sources,
            manifest: &manifest,
            plan: self.node.store().plan(),
        };
        Directory::open(dir, &state.to_json())
    }
}

/// When the serving ends that began at `whole`; None for never, or where that is not known yet.
fn end_of(limit: ServeOn, whole: Instant) -> Option<Instant> {
    match limit {
        ServeOn::No => Some(whole),
        ServeOn::Seconds(seconds) => whole.checked_add(Duration::from_secs(seconds)),
        ServeOn::Forever | ServeOn::WhileWanted => None,
    }
}
