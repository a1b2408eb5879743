//! Servers for the tests of those who call them: one that answers, one that says nothing, and one that
//! does not even take the call.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::conn::Conn;
use crate::image::manifest::Manifest;
use crate::serve::hub::Hub;
use crate::serve::session::{Output, Session};
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How much later than promised something may be noticed on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

/// A master of a few files.
pub(crate) fn master() -> Hub {
    let manifest = Manifest::parse(&include_bytes!("../../fuzz/manifest")[..]).unwrap();
    let tree = Arc::new(Tree::new(Arc::new(manifest)));
    Hub::master(tree, 4, Rules::default(), 1)
}

/// Answers whoever calls, one after the other, whatever needs no file's contents.
pub(crate) fn serves(mut hub: Hub) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (conn, stream) in (1..).zip(listener.incoming()) {
            // Callers hang up whenever they like.
            let _ = answer(stream.unwrap(), Conn(conn), &mut hub);
        }
    });
    address
}

fn answer(mut stream: TcpStream, conn: Conn, hub: &mut Hub) -> std::io::Result<()> {
    hub.connected(conn, stream.peer_addr()?, Instant::now());
    let mut session = Session::new(conn, Ipv4Addr::LOCALHOST.into(), false);
    let mut buffer = [0; 4096];
    while let n @ 1.. = stream.read(&mut buffer)? {
        session.receive(&buffer[..n]);
        session.process(hub, Instant::now()).unwrap();
        while let Some(Output::Reply(reply)) = session.next_output() {
            stream.write_all(&reply)?;
        }
    }
    session.close(hub, Instant::now());
    hub.disconnected(conn, Instant::now());
    Ok(())
}

/// Takes calls and never says anything, as long as it is kept.
pub(crate) fn mute() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Takes no calls, as long as it is kept: its line of those that wait is full.
pub(crate) struct Deaf {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _line: Vec<TcpStream>,
}

impl Deaf {
    pub(crate) fn new() -> Deaf {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(LOOPBACK)).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let wait = Duration::from_millis(200);
        let line = std::iter::from_fn(|| TcpStream::connect_timeout(&address, wait).ok());
        Deaf { address, _line: line.collect(), _listener: listener }
    }
}

/// That `wait` ends after about this time.
pub(crate) fn takes<T>(limit: Duration, wait: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = wait();
    let after = began.elapsed();
    assert!((limit / 2..limit + SLACK).contains(&after), "after {after:?}");
    result
}
