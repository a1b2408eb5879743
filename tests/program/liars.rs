//! A node that lies, among honest ones: nothing of it is kept, it is dropped and reported to the master,
//! and the fetch finishes from the others.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::files::{Temp, assert_same_tree, noise};
use crate::common::road::Road;
use crate::common::{Master, Running, client, wait_for, xget};
use socket2::{Domain, SockAddr, Socket, Type};
use xget::conn::Conn;
use xget::control::Control;
use xget::image::chunks::ChunkSet;
use xget::image::manifest::Manifest;
use xget::limits::CONNECTING;
use xget::p9::client::Client;
use xget::p9::errno::Errno;
use xget::p9::message::Message;
use xget::p9::wire::Blob;
use xget::serve::hub::Hub;
use xget::serve::session::{At, Data, Host, Output, Session};
use xget::serve::tree::Tree;
use xget::swarm::rules::Rules;

const KIB: u64 = 1 << 10;

/// What is wrong with what a liar sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// A byte of each piece.
    WrongBytes,
    /// It sends the next piece of the image.
    OtherChunk,
    /// There is half of what was asked for.
    Short,
    /// There is a byte more than was asked for.
    TooMuch,
    /// The message says that it is of 4 GiB.
    HugeMessage,
    /// Of what it says that it has it has nothing.
    Refuses,
    /// It never comes.
    Silent,
    /// There are replies to requests that nobody has made.
    Unasked,
    /// It is a reply to a request of another type.
    WrongType,
    /// It is of another generation.
    OtherGeneration,
    /// It sends everybody to itself, and to nobody.
    Redirects,
}

/// A node that has joined a master, says that it has everything, and lies.
struct Liar {
    address: SocketAddr,
    /// It has joined as long as this is open.
    _joined: TcpStream,
}

impl Liar {
    fn of(master: &Master, served: &std::path::Path, lie: Lie) -> Liar {
        let manifest = Arc::new(manifest_of(served));
        let image: Arc<[u8]> = std::fs::read(served.join("image")).unwrap().into();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let joined = join(master, address.port(), &manifest);
        let own = Served { address, manifest, image, lie };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                thread::spawn(move || drop(own.serve(stream)));
            }
        });
        wait_for("the liar to be known", || {
            master.status().contains(&format!("node={address} ")).then_some(())
        });
        Liar { address, _joined: joined }
    }
}

fn manifest_of(served: &std::path::Path) -> Manifest {
    let arguments =
        ["--manifest".as_ref(), "--cache".as_ref(), "none".as_ref(), served.as_os_str()];
    Manifest::parse(xget(arguments).succeeds().stdout).unwrap()
}

/// Says to a master what an honest node reports: it serves.
fn join(master: &Master, port: u16, manifest: &Manifest) -> TcpStream {
    let mut stream = TcpStream::connect(master.address).unwrap();
    let mut client = Client::new(false);
    let text = format!("{port} {}\n", manifest.generation().to_hex());
    client.version(());
    client.attach((), 0, b"");
    client.open((), 0, 1, &[".xget", "avail"], 1);
    let write = Message::Twrite { fid: 1, offset: 0, data: Blob(text.as_bytes()) };
    client.send((), &write);
    stream.write_all(client.output()).unwrap();
    stream
}

#[derive(Clone)]
struct Served {
    address: SocketAddr,
    manifest: Arc<Manifest>,
    image: Arc<[u8]>,
    lie: Lie,
}

impl Served {
    /// Serves as an honest node does, but for the lie.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let all = ChunkSet::full(self.manifest.layout());
        let tree = Arc::new(Tree::new(self.manifest.clone()));
        let mut hub = Hub::node(tree, all.clone(), all, Rules::default(), 1);
        let conn = Conn(1);
        let mut session = Session::new(conn, Ipv4Addr::LOCALHOST.into(), false);
        hub.connected(conn, stream.peer_addr()?, Instant::now());
        if self.lie == Lie::Redirects {
            self.knows_itself_and_nobody(&mut hub);
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            session.receive(&buffer[..n]);
            loop {
                let now = Instant::now();
                session
                    .process(&mut hub, now)
                    .map_err(|hangup| hangup.to_string())
                    .map_err(std::io::Error::other)?;
                match session.next_output() {
                    None => break,
                    Some(Output::Reply(reply)) => stream.write_all(&self.reply(reply))?,
                    Some(Output::Data(data)) => {
                        match self.lie {
                            Lie::Refuses => session.refuse(&data, Errno::EIO),
                            _ => stream.write_all(&self.data(&data))?,
                        }
                        hub.sent(At { conn, now }, &data);
                    }
                }
            }
        }
    }

    /// In its `redir` are itself, and ports at which nobody listens.
    fn knows_itself_and_nobody(&self, hub: &mut Hub) {
        let (ip, generation) = (self.address.ip(), self.manifest.generation().to_hex());
        for (n, port) in [self.address.port(), 1, 2, 3, 4, 5, 6, 7].into_iter().enumerate() {
            let at = At { conn: Conn(2 + n as u64), now: Instant::now() };
            hub.connected(at.conn, SocketAddr::new(ip, 50_000), at.now);
            hub.write(at, Control::Avail, format!("{port} {generation}\n").as_bytes()).unwrap();
        }
    }

    fn reply(&self, mut reply: Vec<u8>) -> Vec<u8> {
        match self.lie {
            // An Rclunk under a tag that no client has come to.
            Lie::Unasked => reply.extend([7, 0, 0, 0, 121, 60, 0]),
            Lie::OtherGeneration => {
                let own = self.manifest.generation().to_hex();
                let at = reply.windows(own.len()).position(|part| part == own.as_bytes());
                if let Some(at) = at {
                    reply[at] = if reply[at] == b'0' { b'1' } else { b'0' };
                }
            }
            _ => {}
        }
        reply
    }

    fn data(&self, data: &Data) -> Vec<u8> {
        let (start, end) = (data.range.start as usize, data.range.end as usize);
        let mut bytes = self.image[start..end].to_vec();
        let mut header = data.header().to_vec();
        match self.lie {
            Lie::WrongBytes => bytes[0] ^= 1,
            Lie::OtherChunk => {
                bytes = self.image.iter().cycle().skip(end).take(end - start).copied().collect()
            }
            Lie::Short => bytes.truncate(bytes.len() / 2),
            Lie::TooMuch => bytes.push(0),
            Lie::Silent => return Vec::new(),
            Lie::WrongType => return [&[7, 0, 0, 0, 121], &header[5..7]].concat(),
            _ => {}
        }
        header[..4].copy_from_slice(&(bytes.len() as u32 + 11).to_le_bytes());
        header[7..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        if self.lie == Lie::HugeMessage {
            header[..4].fill(0xff);
        }
        header.extend(bytes);
        header
    }
}

/// What a fetch comes to whose master is so slow that a node asks others too.
struct Fetched {
    master: Master,
    liar: Liar,
    _temp: Temp,
}

/// The fetch of an image next to a liar, at least this long.
#[track_caller]
fn fetch_beside(lie: Lie, seconds: u64) -> Fetched {
    let temp = Temp::new();
    let served = temp.at("served");
    std::fs::create_dir(&served).unwrap();
    std::fs::write(served.join("image"), noise(1, (2 << 20) + 12_345)).unwrap();
    let master = Master::of(&served);
    let liar = Liar::of(&master, &served, lie);
    let road = Road::to(master.address, 2048 * KIB / seconds);
    let mut command = client(road.address, &[]);
    command.arg(".").arg(temp.at("dest"));
    Running::start(command).finish().succeeds();
    assert_same_tree(&served, &temp.at("dest"));
    Fetched { master, liar, _temp: temp }
}

impl Fetched {
    /// The master says who lies, and why, in its log and in its status.
    #[track_caller]
    fn is_reported(&self, why: &str) {
        let line = format!("{}: {why}", self.liar.address);
        self.master.running.wait_until_it_says(&format!(" reports: {line}"));
        let status = self.master.status();
        assert!(status.contains(&format!(" text={line}")), "{status}");
    }
}

const WRONG: &str = "sent chunks with wrong hashes";

#[test]
fn a_node_that_sends_wrong_bytes_is_reported() {
    fetch_beside(Lie::WrongBytes, 3).is_reported(WRONG);
}

#[test]
fn a_node_that_sends_other_chunks_is_reported() {
    fetch_beside(Lie::OtherChunk, 3).is_reported(WRONG);
}

#[test]
fn a_node_that_sends_half_is_reported() {
    fetch_beside(Lie::Short, 3).is_reported(WRONG);
}

#[test]
fn a_node_that_sends_more_than_was_asked_for_is_reported() {
    fetch_beside(Lie::TooMuch, 3).is_reported("sent a reply with an invalid data size");
}

#[test]
fn a_node_that_announces_too_long_a_message_is_reported() {
    fetch_beside(Lie::HugeMessage, 3).is_reported("sent a ");
}

#[test]
fn a_node_that_has_nothing_of_what_it_says_it_has_is_reported() {
    fetch_beside(Lie::Refuses, 3).is_reported("refused .xget/image: ");
}

#[test]
fn a_node_that_never_sends_what_was_asked_for_is_reported() {
    fetch_beside(Lie::Silent, 12).is_reported("does not send requested chunks");
}

#[test]
fn a_node_that_answers_what_nobody_asked_is_reported() {
    fetch_beside(Lie::Unasked, 3).is_reported("sent a reply of type 121 to tag 60");
}

#[test]
fn a_node_that_answers_something_else_is_reported() {
    fetch_beside(Lie::WrongType, 3).is_reported("sent a reply of type 121 to tag ");
}

#[test]
fn a_node_that_has_joined_and_serves_another_generation_is_reported() {
    fetch_beside(Lie::OtherGeneration, 3).is_reported("serves another generation");
}

#[test]
fn a_node_that_does_not_take_a_call_is_given_up() {
    let temp = Temp::new();
    let served = temp.at("served");
    std::fs::create_dir(&served).unwrap();
    std::fs::write(served.join("image"), noise(1, 2 << 20)).unwrap();
    let master = Master::of(&served);
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(0).unwrap();
    let deaf = listener.local_addr().unwrap().as_socket().unwrap();
    // Its line of those that wait is full.
    let knock = || TcpStream::connect_timeout(&deaf, Duration::from_millis(200)).ok();
    let _line: Vec<TcpStream> = std::iter::from_fn(knock).collect();
    let _joined = join(&master, deaf.port(), &manifest_of(&served));
    let road = Road::to(master.address, 2048 * KIB / 15);
    let mut command = client(road.address, &["-D", "1"]);
    command.arg(".").arg(temp.at("dest"));
    let began = Instant::now();
    let running = Running::start(command);
    running.wait_until_it_says(&format!("{deaf}: connection timed out"));
    assert!(began.elapsed() > CONNECTING / 2, "after {:?}", began.elapsed());
    running.finish().succeeds();
    assert_same_tree(&served, &temp.at("dest"));
}

#[test]
fn who_is_sent_in_circles_arrives_all_the_same() {
    fetch_beside(Lie::Redirects, 3);
}
