//! A slow road: a relay in front of a server that lets only so many bytes a second through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::wait_for;

/// A relay from a loopback port to a server.
pub(crate) struct Road {
    pub(crate) address: SocketAddr,
    traffic: Arc<Traffic>,
}

struct Traffic {
    server: SocketAddr,
    bytes_per_second: u64,
    /// Bytes that went to clients.
    passed: AtomicU64,
    /// No limit any more.
    free: AtomicBool,
    closed: AtomicBool,
}

impl Road {
    pub(crate) fn to(server: SocketAddr, bytes_per_second: u64) -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Arc::new(Traffic {
            server,
            bytes_per_second,
            passed: AtomicU64::new(0),
            free: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let shared = traffic.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(shared.server) else { continue };
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let traffic = shared.clone();
                thread::spawn(move || relay(up, server, |_| ()));
                thread::spawn(move || relay(down, client, |n| traffic.pace(n)));
            }
        });
        Road { address, traffic }
    }

    /// Waits until this many bytes have gone to clients.
    pub(crate) fn wait_until_passed(&self, bytes: u64) {
        wait_for("the middle of a fetch", || {
            (self.traffic.passed.load(Ordering::Relaxed) >= bytes).then_some(())
        });
    }

    /// Lifts the limit.
    pub(crate) fn free(&self) {
        self.traffic.free.store(true, Ordering::Relaxed);
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.free();
        self.traffic.closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Traffic {
    fn pace(&self, bytes: u64) {
        self.passed.fetch_add(bytes, Ordering::Relaxed);
        let due = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let end = Instant::now() + due;
        while !self.free.load(Ordering::Relaxed) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, pace: impl Fn(u64)) {
    let mut buffer = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        pace(n as u64);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
