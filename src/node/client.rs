//! The client's command: fetches, then helps others for as long as it should.

// An initramfs has no use for it.
#[cfg(feature = "master")]
mod plain;

use std::cell::RefCell;
use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blake3::Hash;

use crate::cli::{self, Retries, ServeOn};
use crate::control::Control;
use crate::error::Error;
use crate::fetch::{self, Outcome};
use crate::image::manifest::{Manifest, ManifestError};
use crate::image::path::{TreePath, shown};
use crate::image::trust::Trust;
use crate::limits::{MAX_MANIFEST_BYTES, SILENCE};
use crate::net::call::{Call, CallError};
use crate::net::host_port::HostPort;
use crate::net::manifest::{Signed, read_manifest};
use crate::net::own::Stack;
use crate::net::resolve::resolve;
use crate::net::transport::{Listener, Transport};
use crate::node::driver::{Node, Start};
use crate::node::keys::keys;
use crate::node::plan::{DestIs, Plan, plan, source_paths};
use crate::node::resident::Resident;
use crate::node::store::{Store, StoreOptions};
use crate::process::background;
use crate::process::report::{Pace, Reporter};
use crate::serve::tree::Tree;
use crate::sys::process::{self, Detach};
use crate::units::{bytes, quantity, rate};

/// First wait before the server is called again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// How long a server may take to hear that something has gone wrong here, and how many are told.
const COMPLAINT: Duration = Duration::from_secs(2);
const MOST_TOLD: usize = 2;
/// How long the name servers may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);
/// First wait for a server whose files have changed to serve the new generation; doubled each time.
const CHANGE_FIRST: Duration = Duration::from_millis(250);
/// Longest such wait.
const CHANGE_MOST: Duration = Duration::from_secs(2);
/// All such waits together, unless the retries have no end. A master needs about a minute to leave
/// out a file that never stops changing.
const CHANGE_PATIENCE: Duration = Duration::from_secs(120);

/// Fetches what `options` asks for and serves it on.
pub fn get(options: &cli::FetchOptions) -> Result<(), Error> {
    let report = Reporter::new(options.logging);
    let trust = Trust { keys: keys(&options.keys)?, hash: options.hash };
    background::run(options.background, report, |detach| {
        let end = options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Its thread is one of the process that stays.
        let transport = match &options.own_net {
            Some(config) => Transport::Own(Stack::start(config, process::seed())?),
            None => Transport::Kernel,
        };
        Get { options, trust, report, end, detach, transport }.run()
    })
}

/// What the server says of its state and its nodes: the lines of its file `status`.
pub fn status(options: &cli::StatusOptions) -> Result<String, Error> {
    let server = Server::named(&options.server, options.port, Transport::Kernel)?;
    let report = Reporter::new(options.logging);
    let patience = Patience { retries: Retries::Times(0), longest_wait: RETRY_FIRST, end: None };
    let (text, _) = server.ask("status", &patience, &report, |address, progress| {
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
        && let Ok((addresses, _)) = server.addresses()
    {
        server.complain(&addresses, error);
    }
}

/// The server that was named, or several, any of which will do.
struct Server {
    /// As the user wrote it.
    name: String,
    hosts: Vec<(String, u16)>,
    transport: Transport,
    /// Why it took several attempts to reach it, for its log.
    late: RefCell<Option<String>>,
}

/// How long a server is tried for.
struct Patience {
    retries: Retries,
    /// Between two attempts.
    longest_wait: Duration,
    /// No attempt is made after this.
    end: Option<Instant>,
}

impl Server {
    fn named(text: &str, usual_port: u16, transport: Transport) -> Result<Server, Error> {
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
        Ok(Server { name: text.to_owned(), hosts, transport, late: RefCell::new(None) })
    }

    /// Those of all hosts that can be found, and why others cannot; the error of the last one if
    /// none can.
    fn addresses(&self) -> Result<(Vec<SocketAddr>, Vec<String>), Error> {
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
                Ok((addresses, missing.map(|error| error.to_string()).collect()))
            }
        }
    }

    /// Reads something there, with patience; and the addresses it has, first the one that has answered.
    fn ask<T>(
        &self,
        what: &str,
        patience: &Patience,
        report: &Reporter,
        mut read: impl FnMut(SocketAddr, &mut dyn FnMut(u64)) -> Result<T, CallError>,
    ) -> Result<(T, Vec<SocketAddr>), Error> {
        let mut failures = 0u32;
        loop {
            let error = match self.addresses() {
                Ok((mut addresses, missing)) => {
                    match self.ask_any(what, &addresses, missing, report, &mut read) {
                        Ok((content, answered)) => {
                            addresses.rotate_left(answered);
                            return Ok((content, addresses));
                        }
                        Err(error @ Error::Connect { .. }) => error,
                        Err(error) => return Err(error),
                    }
                }
                // A name that does not exist will hardly come to exist.
                Err(error) if patience.retries != Retries::Forever => return Err(error),
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            let wait = patience.wait(failures);
            let over = patience.end.is_some_and(|end| end <= Instant::now() + wait);
            if over || patience.is_over(failures) {
                return Err(error);
            }
            report.warning(format_args!("{error}; retrying in {:.1} s", wait.as_secs_f64()));
            let late = format!(
                "connected only after {}; the last one: {error}",
                quantity(failures.into(), "failure")
            );
            *self.late.borrow_mut() = Some(late);
            sleep_about(wait);
        }
    }

    /// Writes into its log that this fetch has failed. Nobody waits long for that.
    fn complain(&self, addresses: &[SocketAddr], error: &Error) {
        let line = error.to_string();
        let tell =
            |address: &SocketAddr| Call::connect(&self.transport, *address, COMPLAINT)?.log(&line);
        let _ = addresses.iter().take(MOST_TOLD).any(|address| tell(address).is_ok());
    }

    /// Asks one address after the other; the answer, and whose it is. Where nobody has one, the error
    /// says of each why, and is [`Error::Connect`] if that may pass.
    fn ask_any<T>(
        &self,
        what: &str,
        addresses: &[SocketAddr],
        missing: Vec<String>,
        report: &Reporter,
        read: &mut impl FnMut(SocketAddr, &mut dyn FnMut(u64)) -> Result<T, CallError>,
    ) -> Result<(T, usize), Error> {
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
                Ok(content) => return Ok((content, i)),
                Err(error) => {
                    match addresses.get(i + 1).filter(|_| self.hosts.len() > 1) {
                        Some(next) => {
                            report.warning(format_args!("{address}: {error}; trying {next}"))
                        }
                        None => report.info(format_args!("{address}: {error}")),
                    }
                    failures.push((*address, error));
                }
            }
        }
        Err(self.nobody(&failures, missing))
    }

    /// Why no address has answered, where `missing` are the hosts without one.
    ///
    /// It is [`Error::Connect`] if a network error was among the reasons, since that may pass; but a 9P
    /// server that is not xget's is one that can be fetched from.
    fn nobody(&self, failures: &[(SocketAddr, CallError)], missing: Vec<String>) -> Error {
        let host = self.name.clone();
        if failures.iter().any(|(_, error)| matches!(error, CallError::NotXget)) {
            return Error::NotXget { host };
        }
        let mut reasons: Vec<String> = failures.iter().map(|(_, e)| e.to_string()).collect();
        reasons.dedup();
        if self.hosts.len() > 1 || reasons.len() > 1 {
            let each = failures.iter().map(|(address, error)| format!("{address}: {error}"));
            reasons = each.chain(missing).collect();
        }
        let why = reasons.join(", ");
        let may_pass = failures.iter().any(|(_, error)| matches!(error, CallError::Network(_)));
        match may_pass {
            true => Error::Connect { host, why },
            false => Error::Peer { host, why },
        }
    }
}

impl Patience {
    /// How long to wait after so many failures in a row, of which the first is 1.
    fn wait(&self, failures: u32) -> Duration {
        let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        RETRY_FIRST.saturating_mul(doubled).min(self.longest_wait)
    }

    /// Were these failures in a row one too many?
    fn is_over(&self, failures: u32) -> bool {
        matches!(self.retries, Retries::Times(most) if failures > most)
    }
}

/// Sleeps about so long, so that those who failed together do not come back together.
fn sleep_about(wait: Duration) {
    thread::sleep(wait.mul_f64(0.75 + (process::seed() % 512) as f64 / 1024.0));
}

struct Get<'a> {
    options: &'a cli::FetchOptions,
    trust: Trust,
    report: Reporter,
    /// When to give up.
    end: Option<Instant>,
    /// Released when the files are whole.
    detach: &'a mut Option<Detach>,
    transport: Transport,
}

/// How far one generation has come.
enum Fetched {
    Whole(Box<Node>),
    /// The server serves another generation; the listening socket is kept for it.
    Stale(Option<Listener>),
}

/// A generation of which the server can no longer send everything, as a file of it has changed.
struct Changed {
    generation: Hash,
    since: Instant,
    wait: Duration,
}

impl Get<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let server =
            Server::named(&self.options.server, self.options.port, self.transport.clone())?;
        let sources = source_paths(&self.options.sources)?;
        let mut listener = None;
        let mut changed = None;
        let (retries, longest_wait) = (self.options.retries, self.options.max_retry_wait);
        let patience = Patience { retries, longest_wait, end: self.end };
        if self.options.aname.is_some() {
            return self.fetch_unverified(&server, &sources, &patience);
        }
        loop {
            let asked = server.ask("manifest", &patience, &self.report, |address, progress| {
                read_manifest(&server.transport, address, process::seed(), progress)
            });
            let (Signed { text, signature }, origin) = match asked {
                Err(Error::NotXget { .. }) => {
                    return self.fetch_unverified(&server, &sources, &patience);
                }
                asked => asked?,
            };
            self.check_trust(&server, &text, signature.as_deref())?;
            let bad = |error: ManifestError| Error::Peer {
                host: server.name.clone(),
                why: error.to_string(),
            };
            let manifest = Arc::new(Manifest::parse(&text).map_err(bad)?);
            let generation = manifest.generation();
            changed = self.after_change(&server, changed, generation)?;
            let dest = &self.options.dest;
            let plan = plan(&manifest, &sources, dest, DestIs::look(dest)?, &server.name)?;
            if listener.is_none() {
                listener = self.listen()?;
            }
            let signature = signature.map(Arc::from);
            let fetched =
                self.fetch(&server, manifest, signature, plan, origin.clone(), listener.take());
            // Who cannot be reached cannot be told either.
            if let Err(error) = &fetched
                && !matches!(error, Error::Connect { .. })
            {
                server.complain(&origin, error);
            }
            match fetched? {
                Fetched::Whole(node) => {
                    let (options, arguments) = (self.options, env::args_os().skip(1).collect());
                    let resident =
                        Resident::new(*node, options, arguments, Instant::now(), self.report);
                    background::release(self.detach)?;
                    resident.serve();
                    return Ok(());
                }
                Fetched::Stale(kept) => {
                    listener = kept;
                    let (since, wait) = (Instant::now(), CHANGE_FIRST);
                    changed = changed.or(Some(Changed { generation, since, wait }));
                }
            }
        }
    }

    /// Every fetch of what cannot be verified comes through here.
    fn fetch_unverified(
        &mut self,
        server: &Server,
        sources: &[TreePath],
        patience: &Patience,
    ) -> Result<(), Error> {
        if self.trust.is_required() {
            return Err(Error::Unverifiable { host: server.name.clone() });
        }
        #[cfg(feature = "master")]
        return plain::fetch(self, server, sources, patience);
        #[cfg(not(feature = "master"))]
        {
            let _ = (sources, patience);
            Err(Error::NotXget { host: server.name.clone() })
        }
    }

    /// Nothing of a manifest is looked at before this.
    fn check_trust(
        &self,
        server: &Server,
        text: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<(), Error> {
        match self.trust.check(text, signature) {
            Ok(Some(by)) => self.report.info(format_args!("the manifest is signed with key {by}")),
            Ok(None) => {}
            Err(why) => return Err(Error::Untrusted { host: server.name.clone(), why }),
        }
        Ok(())
    }

    /// Says that there is a new generation, or waits a little if there is not one yet: files may
    /// have changed since the server looked at them last.
    fn after_change(
        &self,
        server: &Server,
        changed: Option<Changed>,
        generation: Hash,
    ) -> Result<Option<Changed>, Error> {
        let Some(changed) = changed else { return Ok(None) };
        if changed.generation != generation {
            let name = &server.name;
            let text = format_args!("{name} serves a new generation; unchanged data is kept");
            self.report.notice(text);
            return Ok(None);
        }
        if changed.wait == CHANGE_FIRST {
            let text = format_args!(
                "a served file has changed on {}; waiting for the new generation",
                server.name
            );
            self.report.notice(text);
        }
        if changed.since.elapsed() > CHANGE_PATIENCE && self.options.retries != Retries::Forever {
            let why =
                "a served file has changed, but the server publishes no new generation".to_owned();
            return Err(Error::Peer { host: server.name.clone(), why });
        }
        thread::sleep(changed.wait);
        Ok(Some(Changed { wait: (changed.wait * 2).min(CHANGE_MOST), ..changed }))
    }

    /// Where others fetch from us: the usual port, or any other if that is taken.
    fn listen(&self) -> Result<Option<Listener>, Error> {
        if self.options.serve_on == ServeOn::No {
            return Ok(None);
        }
        let listening = |port| self.transport.listen(self.options.listen, port);
        let port = self.options.port;
        let address = SocketAddr::new(self.options.listen.unwrap_or([0, 0, 0, 0].into()), port);
        listening(port)
            .or_else(|_| listening(0))
            .map(Some)
            .map_err(|error| Error::Listen { address, error })
    }

    fn fetch(
        &mut self,
        server: &Server,
        manifest: Arc<Manifest>,
        signature: Option<Arc<[u8]>>,
        plan: Plan,
        origin: Vec<SocketAddr>,
        listener: Option<Listener>,
    ) -> Result<Fetched, Error> {
        let report = self.report;
        report.info(format_args!("generation {}", manifest.generation().to_hex()));
        let stays = matches!(self.options.serve_on, ServeOn::WhileWanted | ServeOn::Forever);
        let serves_files = stays && (0..manifest.listing().entries().len()).all(|i| plan.chosen(i));
        let tree = Tree::partial(manifest.clone(), |entry| plan.chosen(entry));
        let options =
            StoreOptions { keep_modes: !self.options.no_mode, keep_owners: !self.options.no_owner };
        let mut store = Store::open(plan, manifest.clone(), options)?;
        let mut pace = Pace::new(&report, Instant::now());
        let held = store.verify(&mut |done, of| {
            if pace.is_due(Instant::now()) {
                let percent = done.saturating_mul(100) / of.max(1);
                report.progress(format_args!("verifying files that exist: {percent} %"));
            }
        })?;
        report.end_progress();
        let mut meter = Meter::new(&manifest, &store, &held);
        self.check_room(&store, meter.wanted.saturating_sub(meter.before))?;
        let (seed, max_upload) = (process::seed(), self.options.max_upload);
        let transport = self.transport.clone();
        let allowed = self.options.allowed.clone();
        let retries = match self.options.retries {
            Retries::Times(most) => Some(most),
            Retries::Forever => None,
        };
        let patience = fetch::Patience { retries, end: self.end };
        let start = Start {
            manifest,
            signature,
            tree,
            store,
            held,
            origin,
            patience,
            transport,
            listener,
            seed,
            max_upload,
            allowed,
            serves_files,
        };
        let mut node = Node::new(start, report);
        if let Some(why) = server.late.take() {
            node.trouble(&why);
        }
        let mut pace = Pace::new(&report, Instant::now());
        loop {
            let given_up = match node.outcome() {
                Outcome::Whole => break,
                Outcome::Stale => {
                    node.close();
                    return Ok(Fetched::Stale(node.into_listener()));
                }
                Outcome::Deceived => {
                    let why = "it sends chunks with wrong hashes, and no other source has them";
                    return Err(Error::Peer { host: server.name.clone(), why: why.into() });
                }
                Outcome::Unreachable => {
                    Some("it does not answer, and no other source has the missing chunks")
                }
                Outcome::TimedOut => Some("timed out"),
                Outcome::Going => None,
            };
            if let Some(why) = given_up {
                let (here, wanted) = (bytes(meter.here(&node)), bytes(meter.wanted));
                let why = format!("{why}; {here} of {wanted} are kept for the next attempt");
                return Err(Error::Connect { host: server.name.clone(), why });
            }
            if node.wants_origin() {
                let (found, _) = server.addresses().unwrap_or_default();
                node.set_origin(found);
            }
            if pace.is_due(Instant::now()) {
                report.progress(meter.line(&node));
            }
            node.turn(pace.deadline(), &[])?;
        }
        node.store().finish()?;
        report.end_progress();
        meter.summary(&node, &report);
        Ok(Fetched::Whole(Box::new(node)))
    }

    #[cfg(feature = "master")]
    fn check_time(&self, server: &Server) -> Result<(), Error> {
        match self.end.is_some_and(|end| end <= Instant::now()) {
            true => Err(Error::Connect { host: server.name.clone(), why: "timed out".into() }),
            false => Ok(()),
        }
    }

    fn check_room(&self, store: &Store, needed: u64) -> Result<(), Error> {
        if !self.options.must_fit {
            return Ok(());
        }
        match store.room()?.filter(|room| *room < needed) {
            Some(room) => Err(Error::NoRoom { path: self.options.dest.clone(), needed, room }),
            None => Ok(()),
        }
    }
}

/// Progress, rates and the summary.
struct Meter {
    started: Instant,
    /// Bytes of all chunks that are wanted.
    wanted: u64,
    /// Bytes that were there before.
    before: u64,
    files: u64,
    recent: (Instant, u64),
}

impl Meter {
    fn new(manifest: &Manifest, store: &Store, held: &crate::image::chunks::ChunkSet) -> Meter {
        let size = |set: &crate::image::chunks::ChunkSet| {
            let ranges = set.iter().map(|chunk| manifest.layout().range(chunk));
            ranges.map(|range| range.end - range.start).sum()
        };
        let now = Instant::now();
        Meter {
            started: now,
            wanted: size(store.wanted()),
            before: size(held),
            files: store.counts().files,
            recent: (now, 0),
        }
    }

    /// Bytes that are here and verified.
    fn here(&self, node: &Node) -> u64 {
        self.before + self.fetched(node)
    }

    fn fetched(&self, node: &Node) -> u64 {
        node.fetch().shares().values().map(|share| share.bytes).sum()
    }

    fn line(&mut self, node: &Node) -> String {
        let now = Instant::now();
        let fetched = self.fetched(node);
        let (since, then) = self.recent;
        let (time, came) = (now.saturating_duration_since(since), fetched.saturating_sub(then));
        self.recent = (now, fetched);
        let here = self.before + fetched;
        let percent = here as f64 * 100.0 / self.wanted.max(1) as f64;
        let left = self.wanted.saturating_sub(here) as f64;
        let average = fetched as f64 / now.saturating_duration_since(self.started).as_secs_f64();
        let left = match fetched {
            0 => "waiting".to_owned(),
            _ => format!("{:.0} s left", left / average.max(1.0)),
        };
        format!(
            "{percent:.1} % of {}, {}, {left}, {}",
            bytes(self.wanted),
            rate(came, time),
            quantity(node.fetch().sources() as u64, "source"),
        )
    }

    fn summary(&self, node: &Node, report: &Reporter) {
        let time = self.started.elapsed();
        let (mut origin, mut nodes, mut others) = (0, 0, 0u32);
        for (address, share) in node.fetch().shares() {
            report.info(format_args!("{} from {address}", bytes(share.bytes)));
            if node.fetch().origin().contains(address) {
                origin += share.bytes;
            } else {
                nodes += share.bytes;
                others += u32::from(share.bytes > 0);
            }
        }
        let fetched = origin + nodes;
        let reused = match self.before {
            0 => String::new(),
            n => format!(", {} already here", bytes(n)),
        };
        report.notice(format_args!(
            "fetched {}: {} in {:.2} s ({}), {} from the server, {} from {}{reused}",
            quantity(self.files, "file"),
            bytes(fetched),
            time.as_secs_f64(),
            rate(fetched, time),
            bytes(origin),
            bytes(nodes),
            quantity(others.into(), "node"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::p9::errno::Errno;

    fn why(hosts: &str, failures: Vec<CallError>) -> Error {
        let server = Server::named(hosts, 20004, Transport::Kernel).unwrap();
        let addresses =
            ["10.0.0.1:1", "10.0.0.2:2"].map(|address| address.parse::<SocketAddr>().unwrap());
        let failures: Vec<_> = addresses.into_iter().zip(failures).collect();
        server.nobody(&failures, Vec::new())
    }

    fn silent() -> CallError {
        CallError::Network(io::ErrorKind::TimedOut.into())
    }

    #[test]
    fn of_several_servers_each_is_named_with_its_reason() {
        let error = why("a,b", vec![CallError::Refused(Errno::EIO), silent()]);
        let text = error.to_string();
        assert!(text.contains("10.0.0.1:1: ") && text.contains("10.0.0.2:2: timed out"), "{text}");
        assert_eq!(
            why("a", vec![silent(), silent()]).to_string(),
            "cannot connect to a: timed out"
        );
    }

    #[test]
    fn only_what_is_wrong_with_all_servers_is_for_good() {
        let nonsense = || CallError::TooLong(1);
        assert!(matches!(why("a,b", vec![nonsense(), silent()]), Error::Connect { .. }));
        assert!(matches!(why("a,b", vec![nonsense(), nonsense()]), Error::Peer { .. }));
    }

    #[test]
    fn a_9p_server_that_is_not_xgets_is_fetched_from_if_nobody_else_answers() {
        let error = why("a,b", vec![CallError::NotXget, silent()]);
        assert!(matches!(error, Error::NotXget { .. }));
    }
}
