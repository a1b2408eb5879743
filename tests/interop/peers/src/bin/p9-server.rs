//! Serves a directory with the crate p9, crosvm's server library: p9-server ADDRESS DIR

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, dir] = &args[..] else { panic!("usage: p9-server ADDRESS DIR") };
    let listener = TcpListener::bind(address)?;
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut server = p9::Server::new(Path::new(dir), Default::default(), Default::default())?;
        thread::spawn(move || {
            // It writes field by field.
            let mut reply = Vec::new();
            while server.handle_message(&mut reader, &mut reply).is_ok() {
                if stream.write_all(&reply).is_err() {
                    break;
                }
                reply.clear();
            }
        });
    }
    Ok(())
}
