//! Fetching from a 9P server that is not xget's. It has no manifest, so that what comes from it can
//! neither be verified nor served on.
//!
//! Its tree is listed into a manifest whose hashes are blank. From there on the plan and the store do
//! what they always do, so that names, attributes and half-written files are treated alike.

mod listing;
mod reads;
mod remote;

use std::sync::Arc;
use std::time::Instant;

use blake3::Hash;

use super::{Get, Patience, Server};
use crate::background;
use crate::error::Error;
use crate::manifest::{Content, Entry, Listing, Manifest, Problem};
use crate::path::TreePath;
use crate::plan::{DestIs, plan, refuse_collisions};
use crate::report::{Pace, bytes, rate};
use crate::store::{Store, StoreOptions};
use reads::Unread;
use remote::{MOST_AT_ONCE, Remote};

/// Fetches `sources` from the tree that the server has under the name that the options give.
///
/// Fails like a verified fetch does, and besides if a file changes while it is read.
pub(super) fn fetch(
    get: &mut Get<'_>,
    server: &Server,
    sources: &[TreePath],
    patience: &Patience,
) -> Result<(), Error> {
    let (options, report) = (get.options, get.report);
    refuse_collisions(sources, &options.dest)?;
    let aname = options.aname.as_deref().unwrap_or_default();
    let host = &server.name;
    report.say(format_args!(
        "{host} is a 9P server, but not xget's: its files are fetched without verification, and not \
         served on"
    ));
    let (mut remote, _) = server.ask("tree", patience, &report, |address, _| {
        Remote::open(&server.transport, address, aname.as_bytes(), host)
    })?;
    let began = Instant::now();
    let mut pace = Pace::new(&report, began);
    let found = remote.list(sources, &mut |entries| {
        if pace.is_due(Instant::now()) {
            report.progress(format_args!("listing what is there: {entries} entries"));
        }
        get.check_time(server)
    })?;
    let bad_tree = |problem: Problem| Error::Peer { host: host.clone(), why: problem.to_string() };
    let manifest = Arc::new(unhashed(found.entries).map_err(bad_tree)?);
    let dest = &options.dest;
    let plan = plan(&manifest, sources, dest, DestIs::look(dest)?, host)?;
    let chosen: Vec<(usize, Entry)> = plan
        .entries()
        .filter_map(|i| Some((i, manifest.listing().entry(i)?.clone())))
        .filter(|(_, entry)| matches!(entry.content, Content::File { bytes, .. } if bytes > 0))
        .collect();
    let options = StoreOptions { keep_modes: !options.no_mode, keep_owners: !options.no_owner };
    let mut store = Store::open(plan, manifest.clone(), options)?;
    let mut unread = Unread::new(manifest.layout(), chosen.iter().map(|(_, e)| e.image_range()));
    let wanted = unread.bytes();
    get.check_room(&store, wanted)?;

    let mut came = 0;
    for batch in chosen.chunks(MOST_AT_ONCE) {
        remote.read(batch, &mut |image_offset, buffer, range| {
            came += range.len() as u64;
            if pace.is_due(Instant::now()) {
                let (percent, wanted) = (came as f64 * 100.0 / wanted.max(1) as f64, bytes(wanted));
                let rate = rate(came, began.elapsed());
                report.progress(format_args!("{percent:.1} % of {wanted}, {rate}"));
            }
            get.check_time(server)?;
            store.write(image_offset, buffer, range)
        })?;
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
        n => format!(", {n} left out that are no files"),
    };
    report.say(format_args!(
        "{files} files whole: {} in {:.2} s ({}), not verified{left_out}",
        bytes(wanted),
        time.as_secs_f64(),
        rate(wanted, time),
    ));
    background::release(get.detach)
}

/// A manifest of which the entries and the cut are of use, and the hashes are blank.
fn unhashed(entries: Vec<Entry>) -> Result<Manifest, Problem> {
    let listing = Listing::new(entries)?;
    let blank = listing.layout().iter().map(|_| Hash::from_bytes([0; blake3::OUT_LEN])).collect();
    Manifest::new(listing, blank)
}
