//! The client's command: fetches, then helps others for as long as it should.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blake3::Hash;

use crate::background;
use crate::cli::{self, Retries, ServeOn};
use crate::error::Error;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::net::call::{Call, CallError};
use crate::net::manifest::read_manifest;
use crate::net::resolve::{resolve, split_host_port};
use crate::net::tcp;
use crate::node::{Node, Start};
use crate::path::{TreePath, shown};
use crate::plan::{DestIs, Plan, plan};
use crate::report::{Pace, Reporter, bytes, rate};
use crate::store::{Store, StoreOptions};
use crate::sys::process::{self, Detach};
use crate::tree::{Control, Tree};

/// First wait before the server is called again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// How long a server may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the name servers may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);
/// A node that serves while it is wanted waits this long for somebody to want something.
const LINGER: Duration = Duration::from_secs(2);
/// Somebody who fetches from here and got nothing for this long does not count as wanting.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// First wait for a server whose files have changed to serve the new generation; doubled each time.
const CHANGE_FIRST: Duration = Duration::from_millis(250);
/// Longest such wait.
const CHANGE_MOST: Duration = Duration::from_secs(2);
/// All such waits together, unless the retries have no end. A master needs about a minute to leave
/// out a file that never stops changing.
const CHANGE_PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether anybody still wants something.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Fetches what `options` asks for and serves it on.
pub fn get(options: &cli::Fetch) -> Result<(), Error> {
    let report = Reporter::new(options.debug, options.quiet);
    background::run(options.background, report, |detach| {
        let end = options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Get { options, report, end, detach }.run()
    })
}

/// What the server says of its state and its nodes: the lines of its file `status`.
pub fn status(options: &cli::Status) -> Result<String, Error> {
    let server = Server::named(&options.server, options.port)?;
    let report = Reporter::new(options.debug, true);
    let patience = Patience { retries: Retries::Times(0), longest_wait: RETRY_FIRST, end: None };
    let (text, _) = server.ask(Control::Status, &patience, &report)?;
    // Whatever the server sends, it stays text on the terminal.
    let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| shown(line) + "\n").collect())
}

/// The server that was named, or several, any of which will do.
struct Server {
    /// As the user wrote it.
    name: String,
    hosts: Vec<(String, u16)>,
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
    fn named(text: &str, usual_port: u16) -> Result<Server, Error> {
        let mut hosts = Vec::new();
        for one in text.split(',') {
            let (host, port) = split_host_port(one).map_err(Error::Usage)?;
            let port = port.unwrap_or(usual_port);
            if port == 0 {
                return Err(Error::Usage(format!("the port of {one} is missing")));
            }
            hosts.push((host, port));
        }
        Ok(Server { name: text.to_owned(), hosts })
    }

    /// Those of all hosts that can be found; the error of the last one if none can.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let mut addresses = Vec::new();
        let mut missing = None;
        for (host, port) in &self.hosts {
            match resolve(host, Instant::now() + RESOLVE_TIMEOUT) {
                Ok(found) => {
                    addresses.extend(found.into_iter().map(|ip| SocketAddr::from((ip, *port))))
                }
                Err(error) => missing = Some(error),
            }
        }
        match missing.filter(|_| addresses.is_empty()) {
            Some(error) => Err(error),
            None => Ok(addresses),
        }
    }

    /// Reads one of its control files, with patience; and the addresses it has.
    fn ask(
        &self,
        file: Control,
        patience: &Patience,
        report: &Reporter,
    ) -> Result<(Vec<u8>, Vec<SocketAddr>), Error> {
        let mut failures = 0u32;
        let mut wait = RETRY_FIRST;
        loop {
            let error = match self.addresses() {
                Ok(addresses) => match self.ask_any(file, &addresses, report)? {
                    Ok(content) => return Ok((content, addresses)),
                    Err(why) => Error::Connect { host: self.name.clone(), why },
                },
                // A name that does not exist will hardly come to exist.
                Err(error) if patience.retries != Retries::Forever => return Err(error),
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            wait = wait.min(patience.longest_wait);
            let over = patience.end.is_some_and(|end| end <= Instant::now() + wait);
            if over || matches!(patience.retries, Retries::Times(most) if failures > most) {
                return Err(error);
            }
            report.say(format_args!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
            thread::sleep(wait.mul_f64(0.75 + (process::seed() % 512) as f64 / 1024.0));
            wait *= 2;
        }
    }

    /// Asks one address after the other. The inner error is one that may pass.
    fn ask_any(
        &self,
        file: Control,
        addresses: &[SocketAddr],
        report: &Reporter,
    ) -> Result<Result<Vec<u8>, String>, Error> {
        let mut why = "it has no address".to_owned();
        for address in addresses {
            let mut pace = Pace::new(report, Instant::now());
            let mut progress = |n| {
                if pace.is_due(Instant::now()) {
                    report.progress(format_args!("reading the {}: {}", file.name(), bytes(n)));
                }
            };
            let result = match file {
                Control::Manifest => read_manifest(*address, process::seed(), &mut progress),
                _ => Call::connect(*address, PATIENCE)
                    .and_then(|mut call| call.read(file, MAX_MANIFEST_BYTES, &mut progress)),
            };
            report.end_progress();
            match result {
                Ok(content) => return Ok(Ok(content)),
                Err(CallError::Network(error)) => {
                    why = CallError::Network(error).to_string();
                    report.event(format_args!("{address}: {why}"));
                }
                Err(error) => {
                    return Err(Error::Peer { host: self.name.clone(), why: error.to_string() });
                }
            }
        }
        Ok(Err(why))
    }
}

struct Get<'a> {
    options: &'a cli::Fetch,
    report: Reporter,
    /// When to give up.
    end: Option<Instant>,
    /// Released when the files are whole.
    detach: &'a mut Option<Detach>,
}

/// How far one generation has come.
enum Outcome {
    Whole(Box<Node>),
    /// The server serves another generation; the listening socket is kept for it.
    Stale(Option<TcpListener>),
}

/// A generation of which the server can no longer send everything, as a file of it has changed.
struct Changed {
    generation: Hash,
    since: Instant,
    wait: Duration,
}

impl Get<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let server = Server::named(&self.options.server, self.options.port)?;
        let sources: Vec<TreePath> = self
            .options
            .sources
            .iter()
            .map(|source| TreePath::from_user(source.as_bytes()))
            .collect::<Result<_, _>>()
            .map_err(|bad| Error::Usage(bad.to_string()))?;
        let mut listener = None;
        let mut changed = None;
        let (retries, longest_wait) = (self.options.retries, self.options.longest_wait);
        let patience = Patience { retries, longest_wait, end: self.end };
        loop {
            let (text, home) = server.ask(Control::Manifest, &patience, &self.report)?;
            let manifest = Arc::new(Manifest::parse(&text)?);
            let generation = manifest.generation();
            changed = self.after_change(&server, changed, generation)?;
            let dest = &self.options.dest;
            let plan = plan(&manifest, &sources, dest, DestIs::look(dest)?, &server.name)?;
            if listener.is_none() {
                listener = self.listen()?;
            }
            match self.fetch(&server, manifest, plan, home, listener.take())? {
                Outcome::Whole(node) => return self.serve_on(*node),
                Outcome::Stale(kept) => {
                    listener = kept;
                    let (since, wait) = (Instant::now(), CHANGE_FIRST);
                    changed = changed.or(Some(Changed { generation, since, wait }));
                }
            }
        }
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
            let text = format_args!("{name} serves a new generation; what did not change is kept");
            self.report.say(text);
            return Ok(None);
        }
        if changed.wait == CHANGE_FIRST {
            let text =
                format_args!("a file on {} has changed; waiting for its new state", server.name);
            self.report.say(text);
        }
        if changed.since.elapsed() > CHANGE_PATIENCE && self.options.retries != Retries::Forever {
            let why = "a file has changed there, and it serves no new generation".to_owned();
            return Err(Error::Peer { host: server.name.clone(), why });
        }
        thread::sleep(changed.wait);
        Ok(Some(Changed { wait: (changed.wait * 2).min(CHANGE_MOST), ..changed }))
    }

    /// Where others fetch from us: the usual port, or any other if that is taken.
    fn listen(&self) -> Result<Option<TcpListener>, Error> {
        if self.options.serve_on == ServeOn::No {
            return Ok(None);
        }
        let bind = |port| match self.options.listen {
            Some(ip) => tcp::bind((ip, port).into()),
            None => tcp::bind_everywhere(port),
        };
        let listening = |port| bind(port).and_then(tcp::start_listening);
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
        plan: Plan,
        home: Vec<SocketAddr>,
        listener: Option<TcpListener>,
    ) -> Result<Outcome, Error> {
        let report = self.report;
        report.event(format_args!("generation {}", manifest.generation().to_hex()));
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
                report.progress(format_args!("checking what is here: {percent} %"));
            }
        })?;
        report.end_progress();
        let mut meter = Meter::new(&manifest, &store, &held);
        self.check_room(&store, meter.wanted.saturating_sub(meter.before))?;
        let (seed, max_upload) = (process::seed(), self.options.max_upload);
        let start =
            Start { manifest, tree, store, held, home, listener, seed, max_upload, serves_files };
        let mut node = Node::new(start, report);
        let mut pace = Pace::new(&report, Instant::now());
        while !node.fetch().is_whole() {
            node.turn(pace.deadline().into_iter().chain(self.end).min())?;
            if node.is_stale() {
                node.close();
                return Ok(Outcome::Stale(node.into_listener()));
            }
            if node.fetch().is_deceived() {
                let why = "it sends wrong contents, and nobody else has the rest".into();
                return Err(Error::Peer { host: server.name.clone(), why });
            }
            let stranded = node.fetch().stranded(Instant::now());
            let given_up = match self.options.retries {
                Retries::Times(most) if stranded > most => {
                    Some("it does not answer, and nobody else has the rest")
                }
                _ if self.end.is_some_and(|end| end <= Instant::now()) => Some("the time is over"),
                _ => None,
            };
            if let Some(why) = given_up {
                let (here, wanted) = (bytes(meter.here(&node)), bytes(meter.wanted));
                let why =
                    format!("{why}; {here} of {wanted} are here and are kept for another try");
                return Err(Error::Connect { host: server.name.clone(), why });
            }
            if pace.is_due(Instant::now()) {
                report.progress(meter.line(&node));
            }
        }
        node.store().finish()?;
        report.end_progress();
        meter.summary(&node, &report);
        Ok(Outcome::Whole(Box::new(node)))
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

    fn serve_on(&mut self, mut node: Node) -> Result<(), Error> {
        background::release(self.detach)?;
        let whole = Instant::now();
        let mut wanted = whole;
        let mut sent = node.hub().sent_bytes();
        loop {
            let now = Instant::now();
            if node.hub().sent_bytes() != sent || is_wanted(&node, now) {
                sent = node.hub().sent_bytes();
                wanted = now;
            }
            let end = match self.options.serve_on {
                ServeOn::No => Some(whole),
                ServeOn::Forever => None,
                ServeOn::Seconds(seconds) => whole.checked_add(Duration::from_secs(seconds)),
                ServeOn::WhileWanted => Some(wanted + LINGER),
            };
            if end.is_some_and(|end| end <= now) {
                break;
            }
            let look = match self.options.serve_on {
                ServeOn::WhileWanted => Some(now + LOOK_EVERY),
                _ => end,
            };
            // The files are whole: what goes wrong from here on is nobody's loss.
            if let Err(error) = node.turn(look) {
                self.report.event(error);
            }
        }
        node.close();
        Ok(())
    }
}

/// Whether anybody fetches from this node, or could while it is still fetching.
fn is_wanted(node: &Node, now: Instant) -> bool {
    node.hub().is_drawn_from(now)
        || node.hub().members().iter().any(|(_, member)| {
            !member.lacks.is_empty() && now.saturating_duration_since(member.progress) < GIVEN_UP
        })
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
    fn new(manifest: &Manifest, store: &Store, held: &crate::chunks::ChunkSet) -> Meter {
        let size = |set: &crate::chunks::ChunkSet| {
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
            "{percent:.1} % of {}, {}, {left}, {} sources",
            bytes(self.wanted),
            rate(came, time),
            node.fetch().sources(),
        )
    }

    fn summary(&self, node: &Node, report: &Reporter) {
        let time = self.started.elapsed();
        let (mut home, mut nodes, mut others) = (0, 0, 0u32);
        for (address, share) in node.fetch().shares() {
            report.event(format_args!("{} from {address}", bytes(share.bytes)));
            match node.fetch().is_home(address) {
                true => home += share.bytes,
                false => {
                    nodes += share.bytes;
                    others += u32::from(share.bytes > 0);
                }
            }
        }
        let fetched = home + nodes;
        let reused = match self.before {
            0 => String::new(),
            n => format!(", {} were here", bytes(n)),
        };
        report.say(format_args!(
            "{} files whole: {} in {:.2} s ({}), {} from the server, {} from {others} nodes{reused}",
            self.files,
            bytes(fetched),
            time.as_secs_f64(),
            rate(fetched, time),
            bytes(home),
            bytes(nodes),
        ));
    }
}
