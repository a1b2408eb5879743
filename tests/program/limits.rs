//! A client that keeps a master waiting loses its connection. What counts as waiting, and for how long, is
//! tested with a clock that is passed in (`src/door.rs`); here one case runs in real time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::files::{Temp, assert_same_tree};
use crate::common::{Master, wait_for};
use xget::limits::GREETING;

/// Tversion: 64 KiB messages of 9P2000.L.
const VERSION: &[u8] = b"\x15\0\0\0\x64\xff\xff\0\0\x01\0\x08\x009P2000.L";
/// Tattach: fid 0, no afid, no names.
const ATTACH: &[u8] = b"\x17\0\0\0\x68\x01\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
/// Tgetattr of fid 0.
const GETATTR: &[u8] = b"\x13\0\0\0\x18\x02\0\0\0\0\0\xff\x07\0\0\0\0\0\0";

/// How much later than promised it may be noticed on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

/// Waits until the other side hangs up; how long that took.
fn hung_up(mut stream: TcpStream, most: Duration) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while began.elapsed() < most {
        match stream.read(&mut buffer) {
            Ok(0) => return began.elapsed(),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return began.elapsed(),
        }
    }
    panic!("still connected after {most:?}");
}

fn connected(master: &Master) -> TcpStream {
    TcpStream::connect(master.address).unwrap()
}

fn is_served(master: &Master, temp: &Temp) {
    let dest = temp.at("copy");
    master.fetch(&["."], &dest).succeeds();
    assert_same_tree(&temp.at("served"), &dest);
    std::fs::remove_dir_all(dest).unwrap();
}

#[test]
fn who_says_nothing_at_first_is_hung_up_on() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let after = hung_up(connected(&master), GREETING + SLACK);
    assert!(after >= GREETING / 2, "after {after:?}");
}

#[test]
fn a_client_that_asks_and_never_reads_does_not_keep_others_waiting() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut greedy = connected(&master);
    greedy.write_all(&[VERSION, ATTACH].concat()).unwrap();
    greedy.set_nonblocking(true).unwrap();
    // Until both sockets are full.
    let request = GETATTR.repeat(1000);
    let mut sent = 0;
    wait_for("the master to stop reading", || {
        match greedy.write(&request[sent % request.len()..]) {
            Ok(n) => {
                sent += n;
                None
            }
            Err(error) => (error.kind() == ErrorKind::WouldBlock && sent > 0).then_some(()),
        }
    });
    is_served(&master, &temp);
}

#[test]
fn who_is_not_allowed_is_hung_up_on_at_once() {
    let temp = Temp::new();
    let served = temp.tree();
    let others = Master::with(&["--allow", "10.9.0.0/16"], &served);
    assert!(hung_up(connected(&others), SLACK) < SLACK);
    let mine = Master::with(&["--allow", "10.9.0.0/16", "--allow", "127.0.0.1"], &served);
    is_served(&mine, &temp);
}
