//! The other side: serving on in the place of another process.
//!
//! The other process must belong to the same user: what it hands over are files of that user's choice, and whether
//! they are served tells what is in them. Not even then is it believed: the manifest must have the hash that it names,
//! and every chunk is hashed once more. Nobody waits for that, as the other process serves meanwhile.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Resident;
use super::directory::{SOCKET, TAKEN};
use super::offer::{Handed, Offer};
use crate::cli::{self, Command};
use crate::error::Error;
use crate::fetch::Patience;
use crate::limits::MAX_DESCRIPTORS;
use crate::net::transport::{Listener, Transport};
use crate::node::driver::{Node, Start};
use crate::node::plan::{DestIs, plan, source_paths};
use crate::node::store::Store;
use crate::process::notify::Manager;
use crate::process::report::Reporter;
use crate::serve::tree::Tree;
use crate::sys::descriptors::peer_user;
use crate::sys::fs::effective_uid;
use crate::sys::process::{self, DescriptorLimit};

/// How long the other process may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes over from whoever serves with this state directory, and serves on. With nobody there it does
/// nothing.
///
/// # Errors
///
/// There is somebody, but what it offers cannot be used; it serves on then.
pub fn take_over(options: &cli::TakeOverOptions) -> Result<(), Error> {
    let report = Reporter::new(options.logging);
    let _descriptors = DescriptorLimit::raise(MAX_DESCRIPTORS);
    let dir = &options.state;
    let unusable = |error: io::Error| Error::Peer {
        host: format!("the process that serves with {}", dir.display()),
        why: format!("hand-over failed: {error}"),
    };
    let (other, (offer, handed)) = loop {
        let Some(other) = call(dir).map_err(Error::file("connect to", dir.join(SOCKET)))? else {
            let text =
                format_args!("nothing to take over: no process serves with {}", dir.display());
            report.notice(text);
            // It was asked for, and it is done.
            Manager::find().ready("nothing to take over");
            return Ok(());
        };
        check_user(&other).map_err(unusable)?;
        match Offer::receive(other.as_fd()) {
            Ok(offered) => break (other, offered),
            // It ended before it answered (unix(7)): whoever is there now, if anybody, is asked.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(unusable(error)),
        }
    };
    let Command::Fetch(mut fetch) = cli::parse(offer.arguments.iter().cloned())? else {
        return Err(unusable(io::Error::other("the other process is not a node")));
    };
    fetch.state = Some(dir.clone());
    let whole = Instant::now().checked_sub(offer.served).unwrap_or_else(Instant::now);
    let arguments = offer.arguments.clone();
    let node = node(&fetch, offer, handed, &report)?;
    confirm(&other).map_err(unusable)?;
    report.notice(format_args!("took over from the previous process"));
    Resident::new(node, &fetch, arguments, whole, report).serve();
    Ok(())
}

/// Connects to the other process; None if there is none.
fn call(dir: &Path) -> io::Result<Option<Socket>> {
    let other = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
    other.set_read_timeout(Some(PATIENCE))?;
    match other.connect(&SockAddr::unix(dir.join(SOCKET))?) {
        Ok(()) => Ok(Some(other)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Root accepts nothing from other users either.
fn check_user(other: &Socket) -> io::Result<()> {
    match peer_user(other.as_fd())? == effective_uid() {
        true => Ok(()),
        false => Err(io::Error::other("it belongs to another user")),
    }
}

/// A node that serves what was handed over, as far as it is right.
fn node(
    fetch: &cli::FetchOptions,
    offer: Offer,
    mut handed: Handed,
    report: &Reporter,
) -> Result<Node, Error> {
    let manifest = handed.manifest(offer.generation).map_err(Error::system("take over"))?;
    let dest = &fetch.dest;
    let sources = source_paths(&fetch.sources)?;
    let plan = plan(&manifest, &sources, dest, DestIs::look(dest)?, &fetch.server)?;
    let tree = Tree::partial(manifest.clone(), |entry| plan.chosen(entry));
    let wanted = plan.wanted().len();
    let signature = handed.signature().map_err(Error::system("take over"))?;
    let store = Store::taken_over(plan, manifest.clone(), handed.files, &mut |_, _| {})?;
    let held = store.wanted().clone();
    match held.len() {
        0 if wanted > 0 => {
            let dir = dest.display();
            let text =
                format!("cannot take over: all files that were fetched into {dir} have changed");
            return Err(Error::Boot(text));
        }
        right if right < wanted => report.warning(format_args!(
            "{right} of {wanted} chunks match; the others belong to changed files and are not \
             served"
        )),
        _ => {}
    }
    let start = Start {
        manifest,
        signature,
        tree,
        store,
        held,
        origin: offer.origin,
        patience: Patience::default(),
        transport: Transport::Kernel,
        listener: Some(Listener::Kernel(handed.listener)),
        seed: process::seed(),
        max_upload: fetch.max_upload,
        allowed: fetch.allowed.clone(),
        // It may end at any time, as far as a client of 2009 can tell.
        serves_files: false,
    };
    Ok(Node::new(start, *report))
}

/// Says that all is here, and waits until the other process has let go of it.
fn confirm(other: &Socket) -> io::Result<()> {
    (&*other).write_all(TAKEN)?;
    match (&*other).read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("the other process sent invalid data")),
    }
}
