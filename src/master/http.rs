//! HTTP/1.1 beside 9P: what the master serves, read-only, for firmware and boot loaders that speak no 9P;
//! metrics; and a page of the swarm.
//!
//! It is a second kind of connection of the same server: numbered, let in and hung up on as those of
//! 9P are, on the same thread, under the same limit on what is sent. hyper speaks the protocol.

mod answer;
mod body;
mod index;
mod prove;
mod request;
mod socket;

use std::cell::RefCell;
use std::error::Error as _;
use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

use super::acceptor::Acceptor;
use super::listen::ListenSocket;
use super::shared::{Client, Shared};
use crate::cli;
use crate::conn::Conn;
use crate::error::Error;
use crate::limits::MAX_HTTP_BYTES;
use crate::net::tcp;
use crate::process::report::Reporter;
use crate::serve::admission::Wait;
use crate::serve::hub::Hub;
use crate::status::history::History;
use crate::status::metrics;
use answer::Site;
use socket::{Socket, Traffic};

/// Ports that are taken, before the long work of hashing, and whether the files are served there, too.
pub(super) struct Ports(Vec<(ListenSocket, bool)>);

impl Ports {
    /// Takes what was handed over for them, or the ports that `--http` and `--metrics` name. Without an
    /// address the first is that of the master, the other that of this machine alone.
    pub(super) fn bind(
        options: &cli::ServeOptions,
        http: Vec<TcpListener>,
        metrics: Vec<TcpListener>,
    ) -> Result<Ports, Error> {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let own_http = options.http.map(|own| (own.ip.or(options.listen), own.port));
        let own_metrics = options.metrics.map(|own| (own.ip.or(Some(here)), own.port));
        let http = ListenSocket::find(http, own_http)?;
        let metrics = ListenSocket::find(metrics, own_metrics)?;
        Ok(Ports(vec![(http, true), (metrics, false)]))
    }

    /// Lets connections come, and says where.
    pub(super) fn listen(self, report: &Reporter) -> Result<Listeners, Error> {
        let mut listeners = Vec::new();
        for (socket, files) in self.0 {
            let what = if files {
                "the files, metrics and the status page"
            } else {
                "metrics and the status page"
            };
            for listener in socket.open()? {
                let address =
                    listener.local_addr().map_err(Error::system("use the listening socket"))?;
                report.notice(format_args!("serving {what} on http://{address}/.xget/"));
                listeners.push((listener, files));
            }
        }
        Ok(Listeners(listeners))
    }
}

/// Where connections come in, and whether the files are served there, too.
pub(super) struct Listeners(Vec<(TcpListener, bool)>);

impl Listeners {
    /// Begins to serve there; the tasks that let others in, and the one that keeps the page's history.
    pub(super) fn open(self, shared: &Rc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let now = Instant::now();
        let history = History::new(now, shared.engine.borrow().hub().totals(now));
        let history = Rc::new(RefCell::new(history));
        let mut tasks = vec![spawn_local(record(shared.clone(), history.clone()))];
        for (listener, files) in self.0 {
            let listener = tokio::net::TcpListener::from_std(listener)
                .map_err(Error::system("use the listening socket"))?;
            let site = Rc::new(Site::new(shared.clone(), files, history.clone()));
            tasks.push(spawn_local(accept(site, listener)));
        }
        Ok(tasks)
    }
}

/// Gives the control directory what this module makes.
pub(super) fn equip(hub: &mut Hub) {
    hub.export(metrics::metrics);
}

/// Records the samples of the page's charts, also while nobody looks at it.
async fn record(shared: Rc<Shared>, history: Rc<RefCell<History>>) {
    loop {
        let due = history.borrow().deadline();
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let totals = shared.engine.borrow().hub().totals(now);
        history.borrow_mut().record(now, totals);
    }
}

async fn accept(site: Rc<Site>, listener: tokio::net::TcpListener) {
    let shared = &site.shared;
    let mut acceptor = Acceptor::new(listener);
    loop {
        let (stream, peer) = acceptor.next(shared).await;
        let conn = shared.engine.borrow_mut().server_mut().accept_http(peer, Instant::now());
        if let Some(conn) = conn {
            spawn_local(connection(site.clone(), stream, conn, shared.add(conn, None)));
        }
        shared.act();
        tokio::task::yield_now().await;
    }
}

async fn connection(site: Rc<Site>, stream: TcpStream, conn: Conn, client: Rc<Client>) {
    let end = serve(&site, stream, &client, conn).await;
    site.shared.end(conn, end.err());
}

/// Why a connection has ended. If an answer could not be sent to its end, that is what counts.
fn why(error: &hyper::Error) -> String {
    match error.source().filter(|_| error.is_user()) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Answers until one side closes the connection (Ok) or something goes wrong.
async fn serve(
    site: &Rc<Site>,
    stream: TcpStream,
    client: &Client,
    conn: Conn,
) -> Result<(), String> {
    let shared = &site.shared;
    let chunk_bytes = shared.engine.borrow().hub().layout().chunk_bytes();
    tcp::tune_for_sending(&stream, chunk_bytes).map_err(|error| crate::error::reason(&error))?;
    let traffic = Rc::new(Traffic::default());
    let service = service_fn(|request| {
        let answer = site.answer(conn, &traffic, &request);
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let mut http = http1::Builder::new();
    // The request's head has to fit, and no more than that is kept of a reply.
    http.max_buf_size(MAX_HTTP_BYTES);
    let mut http = pin!(http.serve_connection(Socket::new(stream, traffic.clone()), service));
    let mut news = pin!(client.news());
    let mut before = None;
    poll_fn(|cx| {
        // What there is news of is looked at here in any case.
        while news.as_mut().poll(cx).is_ready() {
            news.set(client.news());
        }
        if client.has_to_close() {
            return Poll::Ready(Ok(()));
        }
        if !client.takes_turn() {
            shared.ready(conn, client);
            return Poll::Pending;
        }
        let began = Instant::now();
        traffic.lets_read(shared.engine.borrow().wants_input(conn));
        if shared.engine.borrow().server().is_stopping() {
            // What is being sent is sent to its end, and nothing else is.
            http.as_mut().graceful_shutdown();
        }
        let polled = http.as_mut().poll(cx);
        let progress = Some(traffic.progress());
        let waits = match (traffic.is_blocked(), traffic.is_answering()) {
            (true, _) => Some(Wait::Taking),
            (false, true) => None,
            (false, false) => Some(Wait::Request),
        };
        let active = std::mem::replace(&mut before, progress) != progress;
        let now = Instant::now();
        let mut engine = shared.engine.borrow_mut();
        engine.server_mut().observe_http(conn, active, waits, now);
        engine.server_mut().took_in(conn, traffic.take_read_bytes(), now);
        if waits == Some(Wait::Request) {
            engine.hub_mut().answer_left(conn);
        }
        drop(engine);
        shared.turn_ended(conn, now.saturating_duration_since(began));
        polled.map_err(|error| why(&error))
    })
    .await
}
