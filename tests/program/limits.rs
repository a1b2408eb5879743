//! Clients that keep a master waiting lose their connections; those who only are silent do not, and
//! all others are served meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::Master;
use crate::common::files::{Temp, assert_same_tree};
use xget::limits::{GREETING, MESSAGE, TAKING};

/// A version request for 64 KiB messages of 9P2000.L: size, type, tag, msize, the string.
const VERSION: &[u8] = b"\x15\0\0\0\x64\xff\xff\0\0\x01\0\x08\x009P2000.L";
/// The same for `attach`: fid 0, no afid, no names.
const ATTACH: &[u8] = b"\x17\0\0\0\x68\x01\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
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

fn greeted(master: &Master) -> TcpStream {
    let mut stream = connected(master);
    stream.write_all(VERSION).unwrap();
    let mut reply = [0; 21];
    stream.read_exact(&mut reply).unwrap();
    stream
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
fn who_leaves_a_message_unfinished_is_hung_up_on_though_bytes_trickle() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut stream = greeted(&master);
    let began = Instant::now();
    // One byte a second of a long message.
    let mut bytes = b"\xff\0\0\0\x68\x01\0".iter().copied().chain(std::iter::repeat(7));
    while stream.write_all(&[bytes.next().unwrap()]).is_ok() {
        assert!(began.elapsed() < MESSAGE + SLACK, "still connected");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(began.elapsed() >= MESSAGE / 2);
}

#[test]
fn who_takes_nothing_of_what_it_asks_for_is_hung_up_on_and_others_are_served() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut stream = greeted(&master);
    stream.write_all(ATTACH).unwrap();
    // Tgetattr of the root, again and again, until the replies fill both sockets.
    stream.set_nonblocking(true).unwrap();
    let request = b"\x13\0\0\0\x18\x02\0\0\0\0\0\xff\x07\0\0\0\0\0\0".repeat(1000);
    let began = Instant::now();
    let mut last = Instant::now();
    let (mut sent, mut gone) = (0, false);
    while !gone && began.elapsed() < TAKING + 4 * SLACK {
        match stream.write(&request[sent % request.len()..]) {
            Ok(n) => (sent, last) = (sent + n, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(100));
                if last.elapsed() > Duration::from_secs(1)
                    && last.elapsed() < Duration::from_secs(2)
                {
                    is_served(&master, &temp);
                }
            }
            Err(_) => gone = true,
        }
    }
    assert!(gone, "still connected");
    is_served(&master, &temp);
}

#[test]
fn who_is_silent_between_two_messages_stays() {
    let temp = Temp::new();
    let master = Master::of(temp.tree());
    let mut stream = greeted(&master);
    std::thread::sleep(MESSAGE.max(TAKING) + Duration::from_secs(5));
    stream.write_all(VERSION).unwrap();
    stream.read_exact(&mut [0; 21]).unwrap();
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
