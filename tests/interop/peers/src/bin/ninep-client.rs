//! Looks at a served tree with the crate ninep: ninep-client PORT DIALECT DIR
//!
//! What it prints is described in ../../../look.py, and so is the tree.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ninep::fs::{Mode, Perm};
use ninep::sync::client::Client;

const LINK: &str = "etc/deep/to-file-1";
const TARGET: &str = "../file-1";
const LED_TO: &str = "etc/file-1";

const QTDIR: u8 = 0x80;

type Verdict = Result<String, String>;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, port, _, dir] = &args[..] else { panic!("usage: ninep-client PORT DIALECT DIR") };
    let dir = Path::new(dir);
    let client = connect(port);
    let mut paths = BTreeSet::new();
    local_paths(dir, "", &mut paths);
    let files: Vec<&String> =
        paths.iter().filter(|path| is_file(&dir.join(path.as_str()))).collect();

    say("list", lists(&client, &paths));
    say("read", reads(&client, dir, &files));
    say("stat", stats(&client, dir, &files));
    // What it has read it keeps open.
    say("link", follows_a_link(&connect(port), dir));
    for path in ["etc/no-such-file", "no/such/file", "etc/file-2/x"] {
        // A walk that ends early passes for one that does not, and then there is no such fid.
        let reasons = ["No such file", "Bad file descriptor"];
        say("missing", fails(path, client.stat(path), &reasons));
    }
    let client = connect(port);
    let refusal = &["Operation not permitted"];
    say("change", fails("writing", client.write("etc/file-1", 0, b"x"), refusal));
    let create = client.create("etc", "new", Perm::new(0o644), Mode::WRITE);
    say("change", fails("creating", create, refusal));
    say("change", fails("removing", client.remove("etc/file-1"), refusal));
}

fn connect(port: &str) -> Client {
    Client::new_tcp("nobody", format!("127.0.0.1:{port}"), "").expect("a server")
}

fn say(what: &str, verdict: Verdict) {
    let (word, text) = match verdict {
        Ok(text) => ("ok", text),
        Err(text) => ("bad", text),
    };
    println!("{word}\t{what}\t{}", text.replace(['\n', '\t'], " "));
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

fn local_paths(dir: &Path, below: &str, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir.join(below)).expect("a readable tree") {
        let entry = entry.expect("a readable tree");
        let name = entry.file_name().into_string().expect("names of text");
        let path = PathBuf::from(below).join(name).into_os_string().into_string().expect("text");
        paths.insert(path.clone());
        if entry.file_type().expect("a readable tree").is_dir() {
            local_paths(dir, &path, paths);
        }
    }
}

fn lists(client: &Client, expected: &BTreeSet<String>) -> Verdict {
    let mut found = BTreeSet::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in client.read_dir(dir.clone()).map_err(|e| format!("{dir}: {e:?}"))? {
            let path = format!("{dir}/{}", entry.name).trim_start_matches('/').to_owned();
            // Its perms have lost that bit.
            if entry.qid.ty.bits() & QTDIR != 0 {
                todo.push(path.clone());
            }
            if !found.insert(path.clone()) {
                return Err(format!("{path} is listed twice"));
            }
        }
    }
    match found == *expected {
        true => Ok(format!("lists all {} entries", found.len())),
        false => {
            let differ: Vec<_> = found.symmetric_difference(expected).take(5).collect();
            Err(format!("lists otherwise: {differ:?}"))
        }
    }
}

fn reads(client: &Client, dir: &Path, files: &[&String]) -> Verdict {
    for path in files {
        let theirs = client.read(path.as_str()).map_err(|e| format!("{path}: {e:?}"))?;
        if theirs != fs::read(dir.join(path)).expect("a readable tree") {
            return Err(format!("{path} differs"));
        }
    }
    Ok(format!("reads {} files, all the same as the master's", files.len()))
}

fn stats(client: &Client, dir: &Path, files: &[&String]) -> Verdict {
    for path in files {
        let theirs = client.stat(path.as_str()).map_err(|e| format!("{path}: {e:?}"))?;
        let ours = fs::metadata(dir.join(path)).expect("a readable tree");
        if (theirs.n_bytes, theirs.last_modified.as_second()) != (ours.len(), ours.mtime()) {
            return Err(format!("{path}: {theirs:?}"));
        }
    }
    Ok(format!("is told size and time of {} files", files.len()))
}

/// Plain 9P2000 knows no links: one is a file that holds its target.
fn follows_a_link(client: &Client, dir: &Path) -> Verdict {
    let target = client.read(LINK).map_err(|e| format!("{LINK}: {e:?}"))?;
    if target != TARGET.as_bytes() {
        return Err(format!("{LINK} leads to {target:?}"));
    }
    let theirs = client.read(LED_TO).map_err(|e| format!("{LED_TO}: {e:?}"))?;
    match theirs == fs::read(dir.join(LED_TO)).expect("a readable tree") {
        true => Ok("reads where a link leads, and what is there".into()),
        false => Err(format!("{LED_TO} differs")),
    }
}

fn fails<T>(what: &str, result: ninep::sync::client::Result<T>, reasons: &[&str]) -> Verdict {
    match result {
        Ok(_) => Err(format!("{what} is not refused")),
        Err(error) => {
            let text = format!("{error:?}");
            match reasons.iter().any(|reason| text.contains(reason)) {
                true => Ok(format!("is told of {what}: {text}")),
                false => Err(format!("{what}: {text}")),
            }
        }
    }
}
