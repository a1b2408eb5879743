//! Fetching from a 9P server that is not xget's. It has no manifest, so that what comes from it can
//! neither be verified nor served on.
//!
//! Its tree is listed into a manifest whose hashes are blank. From there on the plan and the store do
//! what they always do, so that names, attributes and half-written files are treated alike.

mod listing;
mod reads;
mod remote;

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use blake3::Hash;

use super::Get;
use crate::error::Error;
use crate::fetch::retry::{Retry, jittered};
use crate::image::manifest::{Content, Entry, Listing, Manifest, Problem};
use crate::image::path::TreePath;
use crate::node::plan::{DestIs, plan, refuse_collisions};
use crate::node::server::Server;
use crate::node::store::StoreOptions;
use crate::process::background;
use crate::process::notify::Manager;
use crate::process::report::Pace;
use crate::sys::process;
use crate::units::{bytes, quantity, rate};
use reads::{Reads, Unread};
use remote::{MOST_AT_ONCE, Remote};

/// Fetches `sources` from the tree that the server has under the name that the options give.
///
/// A connection that is lost is made again, and only what has not come is read again. Fails like a
/// verified fetch does, and besides if a file changes while it is read.
pub(super) fn fetch(
    get: &mut Get<'_>,
    server: &Server,
    sources: &[TreePath],
    retry: &Retry,
) -> Result<(), Error> {
    let (options, report) = (get.options, get.report);
    refuse_collisions(sources, &options.dest)?;
    let host = &server.name;
    report.warning(format_args!(
        "{host} is a 9P server, but not an xget master: its files are fetched without \
         verification and not served to others"
    ));
    let mut line = Line { get, server, retry, failures: 0, came: 0 };
    let mut remote = line.open()?;
    let began = Instant::now();
    let mut pace = Pace::new(&report, began);
    let found = loop {
        let listed = remote.list(sources, &mut |entries| {
            if pace.is_due(Instant::now()) {
                report.progress(format_args!("listing files: {}", quantity(entries, "entry")));
            }
            line.check_time()
        });
        match listed {
            Ok(found) => break found,
            Err(error) => remote = line.reopen(error, 0)?,
        }
    };
    let bad_tree = |problem: Problem| Error::Peer { host: host.clone(), why: problem.to_string() };
    let manifest = Arc::new(unhashed(found.entries).map_err(bad_tree)?);
    let dest = &options.dest;
    let plan = plan(&manifest, sources, dest, DestIs::look(dest)?, host)?;
    let chosen: Vec<(usize, Entry)> = plan
        .entries()
        .filter_map(|i| Some((i, manifest.listing().entry(i)?)))
        .filter(|(_, entry)| matches!(entry.content, Content::File { bytes, .. } if bytes > 0))
        .collect();
    let options = StoreOptions { keep_modes: !options.no_mode, keep_owners: !options.no_owner };
    let mut store = get.open_store(plan, manifest.clone(), options)?;
    let mut unread = Unread::new(manifest.layout(), chosen.iter().map(|(_, e)| e.image_range()));
    let wanted = unread.bytes();
    get.check_room(&store, wanted)?;

    let mut came = 0;
    for batch in chosen.chunks(MOST_AT_ONCE) {
        let sizes = batch.iter().map(|(_, entry)| entry.image_range());
        let mut reads = Reads::new(sizes.map(|range| range.end - range.start));
        loop {
            let done = remote.read(batch, &mut reads, &mut |image_offset, buffer, range| {
                came += range.len() as u64;
                if pace.is_due(Instant::now()) {
                    // What came in part when the connection was lost comes again.
                    let percent = came.min(wanted) as f64 * 100.0 / wanted.max(1) as f64;
                    let (of, rate) = (bytes(wanted), rate(came, began.elapsed()));
                    report.progress(format_args!("{percent:.1} % of {of}, {rate}"));
                }
                line.check_time()?;
                store.write(image_offset, buffer, range)
            });
            match done {
                Ok(()) => break,
                Err(error) => remote = line.reopen(error, came)?,
            }
            reads.lost();
        }
        while !store.is_written(store.ticket())? {
            store.wait_for_writing();
        }
        for (_, entry) in batch {
            for chunk in unread.read(entry.image_range()) {
                store.verified(chunk)?;
            }
        }
    }
    store.finish()?;
    report.end_progress();
    let (time, files) = (began.elapsed(), store.counts().files);
    let left_out = match found.left_out {
        0 => String::new(),
        n => format!(", {n} skipped (not a file, directory or link)"),
    };
    report.notice(format_args!(
        "fetched {}: {} in {:.2} s ({}), not verified{left_out}",
        quantity(files, "file"),
        bytes(wanted),
        time.as_secs_f64(),
        rate(wanted, time),
    ));
    background::release(get.detach)?;
    Manager::find().ready("all files are fetched");
    Ok(())
}

/// The way to the server, which may be lost and found again.
struct Line<'a, 'g> {
    get: &'a Get<'g>,
    server: &'a Server,
    retry: &'a Retry,
    /// How often it was lost since anything came.
    failures: u32,
    /// How many bytes of files had come when it was lost last.
    came: u64,
}

impl Line<'_, '_> {
    fn open(&self) -> Result<Remote, Error> {
        let (get, server) = (self.get, self.server);
        let aname = get.options.aname.as_deref().unwrap_or_default().as_bytes();
        server.ask("tree", self.retry, &get.report, |address, _| {
            Remote::open(&server.transport, address, aname, &server.name)
        })
    }

    fn check_time(&self) -> Result<(), Error> {
        if self.get.end.is_some_and(|end| end <= Instant::now()) {
            return Err(Error::Connect { host: self.server.name.clone(), why: "timed out".into() });
        }
        Ok(())
    }

    /// Another connection after `error`, if that was the loss of one, and was not one too many without
    /// anything coming in between; `came` is how many bytes of files have come so far.
    fn reopen(&mut self, error: Error, came: u64) -> Result<Remote, Error> {
        self.get.report.end_progress();
        if !matches!(error, Error::Connect { .. }) {
            return Err(error);
        }
        self.check_time()?;
        let got_on = came > self.came;
        self.came = came;
        self.failures = if got_on { 1 } else { self.failures.saturating_add(1) };
        let Some(wait) = self.retry.wait(self.failures, Instant::now()) else {
            return Err(error);
        };
        self.get.report.warning(format_args!("{error}; continuing with the missing files"));
        if !got_on {
            thread::sleep(jittered(wait, process::seed()));
        }
        self.open()
    }
}

/// A manifest of which the entries and the cut are of use, and the hashes are blank.
fn unhashed(entries: Vec<Entry>) -> Result<Manifest, Problem> {
    let listing = Listing::new(entries)?;
    let blank = listing.layout().iter().map(|_| Hash::from_bytes([0; blake3::OUT_LEN])).collect();
    Manifest::new(listing, blank)
}
