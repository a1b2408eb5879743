//! The conversation with a server of which nothing but 9P2000.L is expected.
//!
//! Such a server may carry out requests in any order, so that nothing is asked for that needs another
//! request before it has its reply. What makes up for it is that several files are asked for at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::listing::{self, Attributes, Kind};
use super::reads::{Read, Reads};
use crate::error::Error;
use crate::limits::{MAX_ENTRIES, MAX_WALK_ELEMENTS};
use crate::manifest::{Content, Entry};
use crate::net::call::CallError;
use crate::net::connection::{Connection, ROOT_FID};
use crate::p9::client::Event;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{List, Text};
use crate::path::{PARTIAL_PREFIX, TreePath};

/// How many files are looked at or read at once.
pub(super) const MOST_AT_ONCE: usize = 32;
/// Bytes asked for by one read.
const READ_BYTES: u32 = 256 << 10;
/// Bytes that are asked for and have not come, in at least two reads and at most so many.
const ON_THEIR_WAY_BYTES: u32 = 2 << 20;
const MOST_READS: u32 = 32;
/// Bytes of a directory asked for by one read.
const LISTED_BYTES: u32 = 64 << 10;
/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fid of the directory that is listed.
const LISTED_FID: u32 = 1;
/// The first of as many as there are files at once.
const FIRST_FID: u32 = 2;

/// Takes bytes of a file: where in the image they belong, and which part of a buffer they are.
pub(super) type Take<'t> = dyn FnMut(u64, &Arc<Vec<u8>>, Range<usize>) -> Result<(), Error> + 't;

#[derive(Clone, Copy)]
enum Token {
    /// One of the questions that were asked together, by its number.
    Question(usize),
    Read(Read),
}

/// Why an exchange ended: by the server, or by what was to be done with what it sent.
enum Failure {
    Call(CallError),
    Here(Error),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure::Call(error)
    }
}

/// What there is to fetch.
#[derive(Default)]
pub(super) struct Found {
    /// With all directories on the way from the root.
    pub(super) entries: Vec<Entry>,
    /// How many things there are besides that are neither directory, file nor link, or are another
    /// fetch's temporary files.
    pub(super) left_out: u64,
}

/// A connection to the server.
pub(super) struct Remote {
    connection: Connection<Token>,
    host: String,
}

impl Remote {
    /// Attaches to the tree `aname` of the server at `address`, which people call `host`.
    pub(super) fn open(address: SocketAddr, aname: &[u8], host: &str) -> Result<Remote, CallError> {
        let connection = Connection::open(address, PATIENCE, aname, Token::Question(0))?;
        Ok(Remote { connection, host: host.to_owned() })
    }

    /// Lists the sources and all that is below them; `progress` hears the number of entries so far.
    pub(super) fn list(
        &mut self,
        sources: &[TreePath],
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Found, Error> {
        let mut entries = BTreeMap::new();
        let mut left_out = 0;
        let mut seen = 0u64;
        let mut todo = Vec::new();
        for source in sources {
            let mut above = source.parent();
            while let Some(dir) = above {
                above = dir.parent();
                entries.entry(dir.clone()).or_insert_with(|| listing::on_the_way(dir));
            }
            match self.look_at(std::slice::from_ref(source))?.pop() {
                Some(Looked::Entry(entry)) => {
                    if entry.content == Content::Directory {
                        todo.push(source.clone());
                    }
                    entries.insert(source.clone(), entry);
                }
                Some(Looked::Other) => {
                    return Err(self.bad(source, "is no file, directory or link"));
                }
                Some(Looked::Missing) | None => {
                    let (path, host) = (source.to_string(), self.host.clone());
                    return Err(Error::NotServed { path, host });
                }
            }
        }
        while let Some(dir) = todo.pop() {
            let names = self.names(&dir, &mut seen, progress)?;
            let mut paths = Vec::new();
            for name in names {
                if name.starts_with(PARTIAL_PREFIX) {
                    left_out += 1;
                    continue;
                }
                let path = dir.join(&name).ok_or_else(|| {
                    let name = crate::path::shown(&name);
                    self.bad(&dir, &format!("has an entry {name}, which no file can be called"))
                })?;
                paths.push(path);
            }
            for paths in paths.chunks(MOST_AT_ONCE) {
                for (path, found) in paths.iter().zip(self.look_at(paths)?) {
                    match found {
                        // It is gone again.
                        Looked::Missing => {}
                        Looked::Other => left_out += 1,
                        Looked::Entry(entry) => {
                            if entry.content == Content::Directory {
                                todo.push(path.clone());
                            }
                            entries.insert(path.clone(), entry);
                        }
                    }
                }
            }
        }
        Ok(Found { entries: entries.into_values().collect(), left_out })
    }

    /// Reads files whole, at most [`MOST_AT_ONCE`], and hands over what comes with where in the image
    /// it belongs.
    pub(super) fn read(
        &mut self,
        files: &[(usize, Entry)],
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let paths: Vec<&TreePath> = files.iter().map(|(_, entry)| &entry.path).collect();
        let fids: Vec<(u32, &TreePath)> = (FIRST_FID..).zip(paths.iter().copied()).collect();
        let walked = self.walk(&fids)?;
        self.succeeded(&paths, "find", walked)?;
        let opens: Vec<_> =
            fids.iter().map(|(fid, _)| Message::Tlopen { fid: *fid, flags: 0 }).collect();
        let opened = self.ask(&opens, |_| Some(()))?;
        self.succeeded(&paths, "open", opened)?;
        self.read_open(files, take)?;
        // Else parts of two states of a file would pass for a file.
        let fids: Vec<u32> = (FIRST_FID..).take(files.len()).collect();
        let after = self.attributes(&fids)?;
        for ((_, entry), after) in files.iter().zip(after) {
            let size = entry.image_range().end - entry.image_range().start;
            if !after.is_ok_and(|now| now.bytes == size && now.mtime == entry.mtime) {
                return Err(self.bad(&entry.path, "has changed while it was read; fetch it again"));
            }
        }
        self.clunk(&fids)
    }

    fn read_open(&mut self, files: &[(usize, Entry)], take: &mut Take<'_>) -> Result<(), Error> {
        let ranges: Vec<Range<u64>> = files.iter().map(|(_, e)| e.image_range()).collect();
        let most_bytes = READ_BYTES.min(self.connection.client().max_read_bytes());
        let mut reads = Reads::new(ranges.iter().map(|range| range.end - range.start), most_bytes);
        let at_once = (ON_THEIR_WAY_BYTES / most_bytes.max(1)).clamp(2, MOST_READS);
        for read in std::iter::from_fn(|| reads.next()).take(at_once as usize) {
            self.connection.client().send(Token::Read(read), &tread(read));
        }
        let host = self.host.clone();
        let bad = |read: Read, why: String| {
            let path = files.get(read.file).map(|(_, entry)| entry.path.to_string());
            let why = format!("{} {why}", path.unwrap_or_default());
            Failure::Here(Error::Peer { host: host.clone(), why })
        };
        let done = self.connection.exchange(&mut |event, arrived| match event {
            Event::Data { token: Token::Read(read), at, bytes } => {
                let start = ranges.get(read.file).map_or(0, |range| range.start);
                let at = start.saturating_add(read.offset).saturating_add(u64::from(at));
                let range = arrived.end.saturating_sub(bytes.len())..arrived.end;
                take(at, arrived.buffer, range).map(|()| None).map_err(Failure::Here)
            }
            Event::End(Token::Read(read), came) => match reads.came(read, came) {
                true => Ok(reads.next().map(|read| (Token::Read(read), tread(read)))),
                false => Err(bad(read, "has become shorter while it was read".into())),
            },
            Event::Reply(Token::Read(read), Err(errno)) => {
                Err(bad(read, format!("cannot be read: {errno}")))
            }
            _ => Ok(None),
        });
        done.map_err(|failure| match failure {
            Failure::Call(error) => self.lost(error),
            Failure::Here(error) => error,
        })
    }

    /// The names in a directory, `seen` more of all that were listed.
    fn names(
        &mut self,
        dir: &TreePath,
        seen: &mut u64,
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Vec<Box<[u8]>>, Error> {
        let walked = self.walk(&[(LISTED_FID, dir)])?;
        self.succeeded(&[dir], "find", walked)?;
        let opened = self.ask(&[Message::Tlopen { fid: LISTED_FID, flags: 0 }], |_| Some(()))?;
        self.succeeded(&[dir], "open", opened)?;
        let count = LISTED_BYTES.min(self.connection.client().max_read_bytes());
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let list = Message::Treaddir { fid: LISTED_FID, offset, count };
            let listed = self.ask(&[list], |reply| listing::part(&reply))?;
            let [part] = &mut self.succeeded(&[dir], "list", listed)?[..] else { break };
            *seen = seen.saturating_add(part.names.len().max(1) as u64);
            progress(*seen)?;
            if *seen > MAX_ENTRIES {
                return Err(self.bad(dir, "is one directory too many: the tree has no end"));
            }
            names.append(&mut part.names);
            match part.next {
                // A server that does not go on would list the same for ever.
                Some(next) if next != offset => offset = next,
                _ => break,
            }
        }
        self.clunk(&[LISTED_FID])?;
        Ok(names)
    }

    /// What there is at some paths, at most [`MOST_AT_ONCE`].
    fn look_at(&mut self, paths: &[TreePath]) -> Result<Vec<Looked>, Error> {
        let fids: Vec<(u32, &TreePath)> = (FIRST_FID..).zip(paths).collect();
        let walked = self.walk(&fids)?;
        let there = fids.iter().zip(&walked).filter(|(_, walked)| walked.is_ok());
        let there: Vec<u32> = there.map(|((fid, _), _)| *fid).collect();
        let stats = self.attributes(&there)?;
        let is_link = |stat: &Result<Attributes, Errno>| {
            stat.as_ref().is_ok_and(|stat| stat.kind == Kind::Link)
        };
        let links = there.iter().zip(&stats).filter(|(_, stat)| is_link(stat));
        let links: Vec<_> = links.map(|(fid, _)| Message::Treadlink { fid: *fid }).collect();
        let mut targets = self.ask(&links, |reply| listing::target(&reply))?.into_iter();
        self.clunk(&there)?;
        let mut stats = stats.into_iter();
        let mut looked = Vec::new();
        for (path, walked) in paths.iter().zip(walked) {
            looked.push(match walked {
                Err(Errno::ENOENT | Errno::ENOTDIR) => Looked::Missing,
                Err(errno) => return Err(self.failed(path, "look at", errno)),
                Ok(()) => {
                    let stat = stats.next().unwrap_or(Err(Errno::EPROTO));
                    let stat = stat.map_err(|errno| self.failed(path, "look at", errno))?;
                    let target = match stat.kind {
                        Kind::Link => {
                            let target = targets.next().unwrap_or(Err(Errno::EPROTO));
                            Some(target.map_err(|errno| self.failed(path, "read link", errno))?)
                        }
                        _ => None,
                    };
                    match stat.entry(path.clone(), target) {
                        Some(entry) => Looked::Entry(entry),
                        None => Looked::Other,
                    }
                }
            });
        }
        Ok(looked)
    }

    /// Walks each fid from the root to its path, in as many steps as the longest needs.
    fn walk(&mut self, fids: &[(u32, &TreePath)]) -> Result<Vec<Result<(), Errno>>, Error> {
        let mut results = vec![Ok(()); fids.len()];
        let mut step = 0;
        loop {
            let mut asked = Vec::new();
            let mut walks = Vec::new();
            for (i, (fid, path)) in fids.iter().enumerate() {
                let names = path.elements().skip(step * MAX_WALK_ELEMENTS).take(MAX_WALK_ELEMENTS);
                let wname: List<Text<'_>> = names.map(Text).collect();
                let goes_on = step == 0 || !wname.is_empty();
                if goes_on && results.get(i).is_some_and(Result::is_ok) {
                    let from = if step == 0 { ROOT_FID } else { *fid };
                    walks.push(Message::Twalk { fid: from, newfid: *fid, wname });
                    asked.push(i);
                }
            }
            if walks.is_empty() {
                return Ok(results);
            }
            let answers = self.ask(&walks, |_| Some(()))?;
            let mut stranded = Vec::new();
            for (i, result) in asked.into_iter().zip(answers) {
                if step > 0 && result.is_err() {
                    stranded.extend(fids.get(i).map(|(fid, _)| *fid));
                }
                if let Some(place) = results.get_mut(i) {
                    *place = result;
                }
            }
            // Half-way there: only a walk that begins at the root makes no fid when it fails.
            self.clunk(&stranded)?;
            step += 1;
        }
    }

    fn attributes(&mut self, fids: &[u32]) -> Result<Vec<Result<Attributes, Errno>>, Error> {
        /// All that stat(2) has (`P9_STATS_BASIC`).
        const BASIC: u64 = 0x7ff;
        let stats = fids.iter().map(|fid| Message::Tgetattr { fid: *fid, request_mask: BASIC });
        self.ask(&stats.collect::<Vec<_>>(), |reply| Attributes::of(&reply))
    }

    fn clunk(&mut self, fids: &[u32]) -> Result<(), Error> {
        let clunks: Vec<_> = fids.iter().map(|fid| Message::Tclunk { fid: *fid }).collect();
        self.ask(&clunks, |_| Some(())).map(drop)
    }

    /// Asks several questions at once; the answers in their order. An answer that `take` makes
    /// nothing of counts as an error.
    fn ask<R>(
        &mut self,
        questions: &[Message<'_>],
        take: impl Fn(Message<'_>) -> Option<R>,
    ) -> Result<Vec<Result<R, Errno>>, Error> {
        let mut answers: Vec<_> = questions.iter().map(|_| Err(Errno::EPROTO)).collect();
        for (i, question) in questions.iter().enumerate() {
            self.connection.client().send(Token::Question(i), question);
        }
        let asked = self.connection.exchange::<CallError>(&mut |event, _| {
            if let Event::Reply(Token::Question(i), reply) = event
                && let Some(answer) = answers.get_mut(i)
            {
                *answer = reply.and_then(|reply| take(reply).ok_or(Errno::EPROTO));
            }
            Ok(None)
        });
        asked.map(|()| answers).map_err(|error| self.lost(error))
    }

    /// The answers, if all of them are good.
    fn succeeded<R>(
        &self,
        paths: &[&TreePath],
        action: &str,
        answers: Vec<Result<R, Errno>>,
    ) -> Result<Vec<R>, Error> {
        let answers = answers.into_iter().zip(paths);
        answers.map(|(a, path)| a.map_err(|errno| self.failed(path, action, errno))).collect()
    }

    fn failed(&self, path: &TreePath, action: &str, errno: Errno) -> Error {
        let why = format!("cannot {action} {path} there: {errno}");
        Error::Peer { host: self.host.clone(), why }
    }

    fn bad(&self, path: &TreePath, why: &str) -> Error {
        Error::Peer { host: self.host.clone(), why: format!("{path} {why}") }
    }

    fn lost(&self, error: CallError) -> Error {
        let (host, why) = (self.host.clone(), error.to_string());
        match error {
            CallError::Network(_) => Error::Connect { host, why },
            _ => Error::Peer { host, why },
        }
    }
}

/// What there is at a path.
enum Looked {
    Missing,
    /// What cannot be fetched.
    Other,
    Entry(Entry),
}

fn tread(Read { file, offset, count }: Read) -> Message<'static> {
    Message::Tread { fid: FIRST_FID.saturating_add(file as u32), offset, count }
}
