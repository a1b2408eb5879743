//! The server that a user names, or several, any of which will do.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli;
use crate::control::Control;
use crate::error::Error;
use crate::fetch::Event;
use crate::fetch::control_client::CallError;
use crate::fetch::manifest::{ManifestStart, Resolved, unanswered};
use crate::fetch::retry::{Retry, jittered};
use crate::image::path::shown;
use crate::level::Level;
use crate::limits::{MAX_MANIFEST_BYTES, SILENCE};
use crate::net::call::Call;
use crate::net::host_port::HostPort;
use crate::net::resolve::resolve;
use crate::net::transport::Transport;
use crate::process::report::{Pace, Reporter};
use crate::serve::admission::Allowed;
use crate::sys::process;
use crate::units::bytes;

/// How long a server may take to hear that something has gone wrong here, and how many are told.
const COMPLAINT: Duration = Duration::from_secs(2);
const MOST_TOLD: usize = 2;
/// How long the name servers may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);

/// What the server says of its state and its nodes: the lines of its file `status`.
pub fn status(options: &cli::StatusOptions) -> Result<String, Error> {
    let server = Server::named(&options.server, options.port, Transport::Kernel)?;
    let report = Reporter::new(options.logging);
    let text = server.ask("status", &Retry::NEVER, &report, |address, progress| {
        Call::connect(&Transport::Kernel, address, SILENCE)?.read(
            Control::Status,
            MAX_MANIFEST_BYTES,
            progress,
        )
    })?;
    // Whatever the server sends, it stays text on the terminal.
    let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| shown(line) + "\n").collect())
}

/// Writes into the log of who serves, if anybody there can be reached soon, what has gone wrong here.
/// `server` is as a user gives it.
pub fn complain(server: &str, error: &Error) {
    let server = Server::named(server, cli::DEFAULT_PORT, Transport::Kernel);
    if let Ok(server) = server
        && let Ok(Resolved { addresses, .. }) = server.addresses()
    {
        server.complain(&addresses, error);
    }
}

/// The server that was named, or several, any of which will do.
pub(super) struct Server {
    /// As the user wrote it.
    pub(super) name: String,
    hosts: Vec<(String, u16)>,
    pub(super) transport: Transport,
}

impl Server {
    pub(super) fn named(
        text: &str,
        usual_port: u16,
        transport: Transport,
    ) -> Result<Server, Error> {
        let mut hosts = Vec::new();
        for one in text.split(',') {
            let HostPort { host, port } = HostPort::parse(one)
                .map_err(|why| Error::Usage(format!("-n: invalid value {one}: {why}")))?;
            let port = port.unwrap_or(usual_port);
            if port == 0 {
                return Err(Error::Usage(format!(
                    "-n {one} has no port, and -p 0 names none: write HOST:PORT"
                )));
            }
            hosts.push((host, port));
        }
        Ok(Server { name: text.to_owned(), hosts, transport })
    }

    /// What the search for its manifest begins with.
    pub(super) fn start(&self, retry: Retry, allowed: Allowed) -> ManifestStart {
        let (name, several) = (self.name.clone(), self.hosts.len() > 1);
        ManifestStart { name, several, retry, allowed, seed: process::seed() }
    }

    /// Those of all hosts that can be found, and why others cannot; the error of the last one if
    /// none can.
    pub(super) fn addresses(&self) -> Result<Resolved, Error> {
        let mut addresses = Vec::new();
        let mut missing = Vec::new();
        for (host, port) in &self.hosts {
            match resolve(&self.transport, host, Instant::now() + RESOLVE_TIMEOUT) {
                Ok(found) => {
                    addresses.extend(found.into_iter().map(|ip| SocketAddr::from((ip, *port))))
                }
                Err(error) => missing.push(error),
            }
        }
        match missing.pop() {
            Some(error) if addresses.is_empty() => Err(error),
            last => {
                let missing = missing.into_iter().chain(last);
                let missing = missing.map(|error| error.to_string()).collect();
                Ok(Resolved { addresses, missing })
            }
        }
    }

    /// Reads something there, and tries again as `retry` has it.
    pub(super) fn ask<T>(
        &self,
        what: &str,
        retry: &Retry,
        report: &Reporter,
        mut read: impl FnMut(SocketAddr, &mut dyn FnMut(u64)) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        let mut failures = 0u32;
        loop {
            let error = match self.addresses() {
                Ok(Resolved { addresses, missing }) => {
                    match self.ask_any(what, &addresses, missing, report, &mut read) {
                        Err(error @ Error::Connect { .. }) => error,
                        answer => return answer,
                    }
                }
                // A name that does not exist will hardly come to exist.
                Err(error) if retry.times.is_some() => return Err(error),
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            let Some(wait) = retry.wait(failures, Instant::now()) else { return Err(error) };
            report.say(Level::Warning, &Event::Retrying(error.to_string(), wait));
            thread::sleep(jittered(wait, process::seed()));
        }
    }

    /// Writes into its log that this fetch has failed. Nobody waits long for that.
    pub(super) fn complain(&self, addresses: &[SocketAddr], error: &Error) {
        let line = error.to_string();
        let tell =
            |address: &SocketAddr| Call::connect(&self.transport, *address, COMPLAINT)?.log(&line);
        let _ = addresses.iter().take(MOST_TOLD).any(|address| tell(address).is_ok());
    }

    /// Asks one address after the other. Where nobody answers, the error says of each why, and is
    /// [`Error::Connect`] if that may pass.
    fn ask_any<T>(
        &self,
        what: &str,
        addresses: &[SocketAddr],
        missing: Vec<String>,
        report: &Reporter,
        read: &mut impl FnMut(SocketAddr, &mut dyn FnMut(u64)) -> Result<T, CallError>,
    ) -> Result<T, Error> {
        let mut failures = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let mut pace = Pace::new(report, Instant::now());
            let mut progress = |n| {
                if pace.is_due(Instant::now()) {
                    report.progress(format_args!("reading the {what}: {}", bytes(n)));
                }
            };
            let result = read(*address, &mut progress);
            report.end_progress();
            match result {
                Ok(content) => return Ok(content),
                Err(error) => {
                    let event = match addresses.get(i + 1).filter(|_| self.hosts.len() > 1) {
                        Some(next) => Event::TryingNext(*address, error.clone(), *next),
                        None => Event::Unanswered(*address, error.clone()),
                    };
                    report.say(event.level(), &event);
                    failures.push((*address, error));
                }
            }
        }
        Err(unanswered(&self.start(Retry::NEVER, Allowed::default()), &failures, &missing))
    }
}
