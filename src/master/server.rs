//! The async driver of a master: one task a connection, all on one thread and with the same [`Engine`].
//!
//! A task holds its socket and little else; the buffer that bytes are read into is shared, so that an idle
//! connection costs about two kilobytes. [`super::shared`] is what the tasks share.
//!
//! SIGHUP has the whole tree looked at and hashed, SIGTERM and SIGINT let every client have what it is being sent.

use std::future::{Future as _, poll_fn};
use std::io::{self, IsTerminal};
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::acceptor::Acceptor;
use super::connection::{self, Peer};
use super::diff::Change;
use super::files::ServedFiles;
use super::http;
use super::shared::Shared;
use super::watch::{Intervals, News, Outcome, State, Watcher, orders};
use crate::cli;
use crate::engine::Engine;
use crate::error::Error;
use crate::limits::{self, MASTER_CONNECTIONS};
use crate::net::adler32;
use crate::net::send::Files as _;
use crate::process::notify::{Manager, service};
use crate::process::report::Reporter;
use crate::serve::admission::Admission;
use crate::serve::hub::Hub;
use crate::serve::session::Host as _;
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;
use crate::sys::process::{self, descriptor_limit};
use crate::sys::signals::{Signal, Signals};
use crate::units::{bytes, quantity};

/// How long clients may take for what they are being sent when this process is told to end.
const LEAVE: Duration = Duration::from_secs(5);
/// Between two messages to the service manager about the nodes.
const STATUS_PAUSE: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
pub(super) fn run(
    listeners: Vec<TcpListener>,
    http: http::Listeners,
    first: State,
    watcher: Watcher,
    options: &cli::ServeOptions,
    report: Reporter,
    manager: Manager,
) -> Result<(), Error> {
    let (publish, news) = mpsc::unbounded_channel();
    let (orders, told) = orders();
    let tree = Arc::new(Tree::new(first.manifest.clone()));
    let mut files = ServedFiles::new(limits::open_files(descriptor_limit()));
    files.publish(tree.clone(), first.scan.clone());
    let signature = first.signature.clone();
    let intervals = Intervals { scan: options.rescan, rehash: options.rehash };
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || watcher.watch(&first, intervals, &told, |news| publish.send(news).is_ok()))
        .map_err(Error::system("start a thread"))?;
    let slots = options.max_fed.get();
    let mut hub = Hub::master(tree, slots, Rules::default(), process::seed());
    if let Some(most) = options.max_upload {
        hub.limit_upload(most);
    }
    hub.sign(signature);
    http::equip(&mut hub);
    let connections = limits::connections(descriptor_limit(), MASTER_CONNECTIONS);
    let admission = Admission::new(connections, options.allowed.clone());
    let engine = Engine::master(hub, admission, report.traces());
    let shared = Rc::new(Shared::new(engine, files, slots, orders, manager, report));
    let signals = Signals::watch(true).map_err(Error::system("wait for signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Sockets are looked at again after every batch of tasks.
        .event_interval(1)
        .build()
        .map_err(Error::system("start the event loop"))?;
    let served: Result<(), Error> = LocalSet::new().block_on(&runtime, async {
        let unusable = Error::system("use the listening socket");
        let listeners: io::Result<Vec<_>> =
            listeners.into_iter().map(tokio::net::TcpListener::from_std).collect();
        let listeners = listeners.map_err(unusable)?;
        let signals = UnixStream::from_std(signals.into_stream())
            .map_err(Error::system("wait for signals"))?;
        spawn_local(shared.clone().work());
        spawn_local(hear(shared.clone(), news));
        spawn_local(keep_time(shared.clone()));
        spawn_local(find_checksums(shared.clone()));
        spawn_local(tell_manager(shared.clone()));
        spawn_local(feed_watchdog(shared.clone()));
        let accept = |listener| spawn_local(accept(shared.clone(), listener));
        let mut acceptors: Vec<JoinHandle<()>> = listeners.into_iter().map(accept).collect();
        acceptors.extend(http.open(&shared)?);
        shared.manager.ready(&shared.status());
        serve_until_the_end(&shared, &signals).await;
        stop(&shared, &signals, &acceptors).await;
        Ok(())
    });
    // Nobody waits for a checksum any more.
    runtime.shutdown_background();
    served
}

/// Does what signals ask for, until one asks for the end.
async fn serve_until_the_end(shared: &Shared, signals: &UnixStream) {
    // A terminal that goes sends this signal as well.
    let had_terminal = io::stdin().is_terminal();
    loop {
        match next_signal(signals).await {
            Signal::Reload if !had_terminal || io::stdin().is_terminal() => {
                shared.manager.reloading("rescanning the tree");
                shared.orders.look();
            }
            Signal::Reload | Signal::End => return,
        }
    }
}

async fn next_signal(signals: &UnixStream) -> Signal {
    poll_fn(|cx| {
        loop {
            let mut byte = [0];
            match signals.try_read(&mut byte) {
                Ok(1) => return Poll::Ready(Signal::read_as(byte[0])),
                // To wait anew, unless one has come in between.
                _ if signals.poll_read_ready(cx).is_pending() => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await
}

/// Accepts no connection and no request from now on. Every client gets what it is being sent, as far as there
/// is time and no further signal.
async fn stop(shared: &Shared, signals: &UnixStream, acceptors: &[JoinHandle<()>]) {
    for acceptor in acceptors {
        acceptor.abort();
    }
    let n = shared.connections();
    let text = format!(
        "stopping: finishing the replies of {} for at most {} s",
        quantity(n as u64, "connection"),
        LEAVE.as_secs()
    );
    shared.report.notice(&text);
    shared.manager.stopping(&text);
    shared.engine.borrow_mut().stop();
    shared.act();
    let mut all_have_ended = pin!(async {
        while shared.connections() > 0 {
            shared.ended.notified().await;
        }
    });
    let mut signal = pin!(next_signal(signals));
    let end = poll_fn(|cx| {
        let ended = all_have_ended.as_mut().poll(cx).is_ready();
        if ended || signal.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    // What is not sent by then is not sent.
    let _ = tokio::time::timeout(LEAVE, end).await;
}

/// Tells the service manager how many nodes there are, when that changes.
async fn tell_manager(shared: Rc<Shared>) {
    loop {
        shared.nodes.notified().await;
        shared.manager.status(&shared.status());
        tokio::time::sleep(STATUS_PAUSE).await;
    }
}

/// Tells the service manager again and again that this thread, which does everything for clients, goes on.
async fn feed_watchdog(shared: Rc<Shared>) {
    let Some(pause) = service::watchdog() else { return };
    loop {
        shared.manager.alive();
        tokio::time::sleep(pause).await;
    }
}

async fn accept(shared: Rc<Shared>, listener: tokio::net::TcpListener) {
    let mut acceptor = Acceptor::new(listener);
    loop {
        let (stream, peer) = acceptor.next(&shared).await;
        let conn = shared.engine.borrow_mut().accept(peer, Instant::now());
        if let Some(conn) = conn {
            let client = shared.add(conn, Some(Peer::new(stream)));
            spawn_local(connection::serve(shared.clone(), conn, client));
        }
        shared.act();
        // Others want to be heard as well.
        tokio::task::yield_now().await;
    }
}

/// Publishes what the watcher finds.
async fn hear(shared: Rc<Shared>, mut news: mpsc::UnboundedReceiver<News>) {
    while let Some(news) = news.recv().await {
        match news {
            News::State(state, change) => publish(&shared, state, change),
            News::Rewritten(scan, files) => shared.files.borrow_mut().distrust(scan, files),
            News::Looked => {
                let tree = shared.engine.borrow().hub().tree().clone();
                let image_bytes = bytes(tree.manifest().layout().image_bytes());
                shared.report.notice(format_args!("rescan: hashing all {image_bytes} again"));
                shared.manager.ready(&shared.status());
            }
            News::Hashed(outcome) => {
                shared.report.notice(match outcome {
                    Outcome::Same => "rescan finished: nothing has changed",
                    Outcome::Changed => "rescan finished: the new generation is served",
                    Outcome::Failed => "rescan finished: not everything could be read",
                });
                shared.manager.ready(&shared.status());
            }
        }
    }
}

fn publish(shared: &Shared, State { manifest, signature, scan }: State, change: Change) {
    let served = shared.engine.borrow().hub().tree().clone();
    if manifest.generation() == served.manifest().generation() {
        shared.files.borrow_mut().publish(served, scan);
        shared.engine.borrow_mut().hub_mut().sign(signature);
        return;
    }
    let generation = manifest.generation().to_hex();
    shared.report.notice(format_args!("the tree has changed: generation {generation} ({change})"));
    let tree = Arc::new(Tree::new(manifest));
    shared.files.borrow_mut().publish(tree.clone(), scan);
    let seed = process::seed();
    let mut engine = shared.engine.borrow_mut();
    engine.hub_mut().publish(tree, shared.slots, seed, Instant::now());
    engine.hub_mut().sign(signature);
    drop(engine);
    shared.act();
    shared.nodes.notify_one();
}

/// Does what is due by the clock. Sleeps for good while nobody waits for anything; is woken when
/// something is due earlier than what it sleeps for.
async fn keep_time(shared: Rc<Shared>) {
    loop {
        let due = shared.engine.borrow().next_timeout(Instant::now());
        shared.asleep_until.set(due);
        let earlier = shared.earlier.notified();
        match due {
            None => earlier.await,
            Some(due) => _ = tokio::time::timeout_at(due.into(), earlier).await,
        }
        // Awake: what comes of this is looked at before it sleeps again.
        shared.asleep_until.set(Some(Instant::now()));
        shared.act();
    }
}

/// Finds out the checksums that classic clients wait for, one at a time and on another thread.
async fn find_checksums(shared: Rc<Shared>) {
    loop {
        shared.checksums.notified().await;
        loop {
            let next = shared.engine.borrow_mut().hub_mut().next_checksum();
            let Some((tree, segment)) = next else { break };
            let source = |shared: &Shared| shared.files.borrow_mut().source(&tree, &segment);
            let sum = match source(&shared) {
                Ok((file, offset)) => {
                    let read = move || adler32::of_file(&file, offset, segment.len);
                    tokio::task::spawn_blocking(read).await.ok().and_then(Result::ok)
                }
                Err(_) => None,
            };
            // The file is still what was read, or the sum is of no use.
            let sum = sum.filter(|_| source(&shared).is_ok());
            shared.engine.borrow_mut().hub_mut().checksum_found(&tree, segment.entry, sum);
            shared.act();
        }
    }
}
