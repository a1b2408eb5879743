//! The master: scans and hashes a tree, and serves it to everybody, many connections on one thread.

mod acceptor;
mod by_host;
pub mod cache;
mod confine;
mod connection;
mod diff;
mod files;
pub mod hash;
mod http;
mod listen;
mod proofs;
pub mod scan;
mod server;
mod shared;
mod signature;
mod watch;

use std::net::TcpListener;
use std::path::Path;

use crate::cli;
use crate::error::Error;
use crate::limits::MAX_DESCRIPTORS;
use crate::process::background;
use crate::process::notify::Manager;
use crate::process::report::Reporter;
use crate::sys::fs::effective_uid;
use crate::sys::process::DescriptorLimit;
use crate::units::{bytes, quantity};

use listen::{Handed, ListenSocket};
use scan::ScanOptions;
use signature::SignatureFile;
use watch::{State, Watcher};

/// Serves `options.path` until the process is ended.
pub fn serve(options: &cli::ServeOptions) -> Result<(), Error> {
    let report = Reporter::new(options.logging);
    let signature = SignatureFile::of(options, report)?;
    let handed = Handed::take()?;
    let socket = ListenSocket::find(handed.p9, Some((options.listen, options.port)))?;
    let http = http::Ports::bind(options, handed.http, handed.metrics)?;

    background::run(options.background, report, |detach| {
        let scanning = scanning(options.one_file_system, options.no_owner);
        let mut watcher = watcher(&options.path, scanning, &options.cache, report)?;
        watcher.signature = signature;
        let first = watcher.first()?;
        let _descriptors = DescriptorLimit::raise(MAX_DESCRIPTORS);
        let listeners = socket.open()?;
        say_what_is_served(&report, &options.path, &first, &listeners);
        let http = http.listen(&report)?;
        let manager = Manager::find();
        background::release(detach)?;
        let signature_dirs = watcher.signature.as_ref().map(SignatureFile::dirs);
        let signature_dirs = signature_dirs.unwrap_or_default();
        let missing = confine::confine(watcher.root(), &signature_dirs, watcher.cache_dir())
            .map_err(Error::system("give up privileges"))?;
        for what in missing {
            report.info(what);
        }
        server::run(listeners, http, first, watcher, options, report, manager)
    })
}

/// The manifest of `options.path`, byte for byte as it would be served.
pub fn manifest(options: &cli::ManifestOptions) -> Result<Vec<u8>, Error> {
    let report = Reporter::new(options.logging);
    let scanning = scanning(options.one_file_system, options.no_owner);
    let first = watcher(&options.path, scanning, &options.cache, report)?.first()?;
    Ok(first.manifest.text().to_vec())
}

fn scanning(one_file_system: bool, no_owners: bool) -> ScanOptions {
    ScanOptions { one_file_system, no_owners, ..ScanOptions::default() }
}

fn watcher(
    path: &Path,
    scanning: ScanOptions,
    cache: &cli::Cache,
    report: Reporter,
) -> Result<Watcher, Error> {
    // As it stays right when the current directory is left.
    let path = std::path::absolute(path).map_err(Error::file("find", path))?;
    let cache_path = cache::default_cache_path(&path, effective_uid() == 0);
    let cache_path = match cache {
        cli::Cache::None => None,
        cli::Cache::Default => cache_path,
        cli::Cache::Dir(dir) => {
            std::fs::create_dir_all(dir).map_err(Error::file("create directory", dir))?;
            cache_path.and_then(|path| Some(dir.join(path.file_name()?)))
        }
    };
    Ok(Watcher::new(path, scanning, cache_path, report))
}

fn say_what_is_served(report: &Reporter, path: &Path, state: &State, listeners: &[TcpListener]) {
    let counts = state.scan.counts();
    let layout = state.manifest.layout();
    let mut skipped = String::new();
    if counts.special > 0 {
        skipped = format!(
            ", {} left out (sockets, devices, fifos)",
            quantity(counts.special, "special file")
        );
    }
    let addresses: Vec<String> = listeners
        .iter()
        .filter_map(|listener| Some(listener.local_addr().ok()?.to_string()))
        .collect();
    report.notice(format_args!(
        "serving {} on {}: {}, {}, {}, {}{skipped}",
        crate::image::path::shown(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())),
        addresses.join(" and "),
        quantity(counts.files, "file"),
        quantity(counts.directories, "directory"),
        quantity(counts.symlinks, "link"),
        bytes(layout.image_bytes()),
    ));
    report.notice(format_args!("generation {}", state.manifest.generation().to_hex()));
}
