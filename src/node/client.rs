//! The client's command: fetches, then helps others for as long as it should.

#[cfg(feature = "plain")]
mod plain;
#[cfg(not(feature = "plain"))]
#[path = "client/no_plain.rs"]
mod plain;

use std::env;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use blake3::Hash;

use crate::cli::{self, Retries, ServeOn};
use crate::error::Error;
use crate::fetch::manifest::Found;
use crate::fetch::retry::Retry;
use crate::fetch::{Outcome, Patience};
use crate::image::manifest::{Manifest, ManifestError};
use crate::image::path::{TreePath, shown};
use crate::image::trust::Trust;
use crate::limits::MAX_DESCRIPTORS;
use crate::net::own::Stack;
use crate::net::transport::{Listener, Transport};
use crate::node::driver::{Node, Start};
use crate::node::keys::keys;
use crate::node::manifest::fetch_manifest;
use crate::node::plan::{DestIs, Plan, plan, source_paths};
use crate::node::progress::Meter;
use crate::node::resident::Resident;
use crate::node::server::Server;
use crate::node::store::{Store, StoreOptions};
use crate::process::background;
use crate::process::report::{Pace, Reporter};
use crate::serve::SERVES_CLASSIC;
use crate::serve::tree::Tree;
use crate::sys::process::{self, DescriptorLimit, Detach};
use crate::units::bytes;

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
        // For connections, and since a tree of many levels has a directory open for each.
        let _descriptors = DescriptorLimit::raise(MAX_DESCRIPTORS);
        Get { options, trust, report, end, detach, transport }.run()
    })
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
        let retry = Retry {
            times: self.retries(),
            longest_wait: self.options.max_retry_wait,
            end: self.end,
        };
        if self.options.aname.is_some() {
            return self.fetch_unverified(&server, &sources, &retry);
        }
        loop {
            let allowed = self.options.allowed.clone();
            let mut found = match fetch_manifest(&server, retry, allowed, &self.report) {
                Err(Error::NotXget { .. }) => {
                    return self.fetch_unverified(&server, &sources, &retry);
                }
                found => found?,
            };
            self.check_trust(&server, &found.text, found.signature.as_deref())?;
            let bad = |error: ManifestError| Error::Peer {
                host: server.name.clone(),
                why: error.to_string(),
            };
            let manifest = Arc::new(Manifest::parse(std::mem::take(&mut found.text)).map_err(bad)?);
            let generation = manifest.generation();
            changed = self.after_change(&server, changed, generation)?;
            let dest = &self.options.dest;
            let plan = plan(&manifest, &sources, dest, DestIs::look(dest)?, &server.name)?;
            if listener.is_none() {
                listener = self.listen()?;
            }
            let origin = found.origin.clone();
            let fetched = self.fetch(&server, manifest, found, plan, listener.take());
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

    /// How often in a row a failure is no reason to give up; None for always.
    fn retries(&self) -> Option<u32> {
        match self.options.retries {
            Retries::Times(most) => Some(most),
            Retries::Forever => None,
        }
    }

    /// Every fetch of what cannot be verified comes through here.
    fn fetch_unverified(
        &mut self,
        server: &Server,
        sources: &[TreePath],
        retry: &Retry,
    ) -> Result<(), Error> {
        if self.trust.is_required() {
            return Err(Error::Unverifiable { host: server.name.clone() });
        }
        plain::fetch(self, server, sources, retry)
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
        found: Found,
        plan: Plan,
        listener: Option<Listener>,
    ) -> Result<Fetched, Error> {
        let report = self.report;
        report.info(format_args!("generation {}", manifest.generation().to_hex()));
        let stays = matches!(self.options.serve_on, ServeOn::WhileWanted | ServeOn::Forever);
        let serves_files =
            SERVES_CLASSIC && stays && (0..manifest.listing().len()).all(|i| plan.chosen(i));
        let tree = Tree::partial(manifest.clone(), |entry| plan.chosen(entry));
        let options =
            StoreOptions { keep_modes: !self.options.no_mode, keep_owners: !self.options.no_owner };
        let mut store = self.open_store(plan, manifest.clone(), options)?;
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
        let patience = Patience { retries: self.retries(), end: self.end };
        let start = Start {
            manifest,
            signature: found.signature.map(Arc::from),
            tree,
            store,
            held,
            origin: found.origin,
            patience,
            transport,
            listener,
            seed,
            max_upload,
            allowed,
            serves_files,
        };
        let mut node = Node::new(start, report);
        if let Some(why) = found.late {
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
                node.set_origin(server.addresses().unwrap_or_default().addresses);
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

    /// Opens the store, and says so if its files are not safe from other users there.
    fn open_store(
        &self,
        plan: Plan,
        manifest: Arc<Manifest>,
        options: StoreOptions,
    ) -> Result<Store, Error> {
        let store = Store::open(plan, manifest, options)?;
        if let Some(dir) = store.exposed() {
            let [dir, dest] =
                [dir, &self.options.dest].map(|path| shown(path.as_os_str().as_bytes()));
            self.report.warning(format_args!(
                "other users can write to {dir}: they can replace what is stored in {dest}; use a \
                 directory that only its owner can write to"
            ));
        }
        Ok(store)
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
