//! The conversation with a server of which nothing but 9P2000.L is expected.
//!
//! Such a server may carry out requests in any order, so that nothing is asked for that needs another
//! request before it has its reply. What makes up for it is that several files are asked for at once.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::ops::Range;
use std::sync::Arc;

use super::listing::{self, Attributes, Kind};
use super::reads::{Read, Reads};
use crate::error::Error;
use crate::fetch::control_client::CallError;
use crate::image::manifest::{Content, Entry};
use crate::image::path::{PARTIAL_PREFIX, TreePath};
use crate::limits::{MAX_ENTRIES, MAX_LINKS, MAX_WALK_ELEMENTS, SILENCE};
use crate::net::connection::{Connection, ROOT_FID};
use crate::net::transport::Transport;
use crate::p9::client::Event;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{List, Text};

/// How many files are looked at or read at once.
pub(super) const MOST_AT_ONCE: usize = 32;
/// Bytes asked for by one read.
const READ_BYTES: u32 = 256 << 10;
/// Bytes that are asked for and have not come, in at least two reads and at most so many.
const ON_THEIR_WAY_BYTES: u32 = 2 << 20;
const MOST_READS: u32 = 32;
/// Bytes of a directory asked for by one read.
const LISTED_BYTES: u32 = 64 << 10;

/// The fid of the directory that is listed.
const LISTED_FID: u32 = 1;
/// The first of as many as there are files at once.
const FIRST_FID: u32 = 2;

/// Takes bytes of a file: where in the image they belong, and which part of a buffer they are.
pub(super) type Take<'t> = dyn FnMut(u64, &Arc<Vec<u8>>, Range<usize>) -> Result<(), Error> + 't;

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
    connection: Connection,
    host: String,
}

impl Remote {
    /// Attaches to the tree `aname` of the server at `address`, which people call `host`.
    pub(super) fn open(
        transport: &Transport,
        address: SocketAddr,
        aname: &[u8],
        host: &str,
    ) -> Result<Remote, CallError> {
        let connection = Connection::open(transport, address, SILENCE, aname)?;
        Ok(Remote { connection, host: host.to_owned() })
    }

    /// Lists the sources and all that is below them; `progress` hears the number of entries so far.
    pub(super) fn list(
        &mut self,
        sources: &[TreePath],
        progress: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Found, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut left_out = 0;
        let mut seen = 0u64;
        let mut todo = Vec::new();
        // A source that is a symbolic link is fetched as what it leads to.
        let mut sources: Vec<TreePath> = sources.to_vec();
        let (named, most) = (sources.len(), sources.len() + MAX_LINKS);
        let mut next = 0;
        while let Some(source) = sources.get(next).cloned() {
            next += 1;
            if sources.iter().take(next - 1).any(|earlier| *earlier == source) {
                continue;
            }
            let source = &source;
            let mut above = source.parent();
            while let Some(dir) = above {
                above = dir.parent();
                if !entries.iter().any(|entry| entry.path == dir) {
                    entries.push(listing::on_the_way(dir));
                }
            }
            match self.look_at(std::slice::from_ref(source))?.pop() {
                Some(Looked::Entry(entry)) => {
                    match &entry.content {
                        Content::Directory => todo.push(source.clone()),
                        Content::Symlink { target } if sources.len() < most => {
                            sources.extend(listing::target_of(source, target));
                        }
                        _ => {}
                    }
                    entries.push(entry);
                }
                // The link that led there is shown by whoever follows it.
                Some(Looked::Missing) if next > named => {}
                Some(Looked::Other) => {
                    return Err(self.bad(source, "is not a file, directory or link"));
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
                    let name = crate::image::path::shown(&name);
                    self.bad(&dir, &format!("contains an entry with an invalid name {name}"))
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
                            entries.push(entry);
                        }
                    }
                }
            }
        }
        // What a link leads to may be in another source.
        entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        entries.dedup_by(|a, b| a.path == b.path);
        Ok(Found { entries, left_out })
    }

    /// Reads what `reads` still lacks of files, at most [`MOST_AT_ONCE`], and hands over what comes with
    /// where in the image it belongs.
    pub(super) fn read(
        &mut self,
        files: &[(usize, Entry)],
        reads: &mut Reads,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let paths: Vec<&TreePath> = files.iter().map(|(_, entry)| &entry.path).collect();
        let fids: Vec<(u32, &TreePath)> = (FIRST_FID..).zip(paths.iter().copied()).collect();
        let walked = self.walk(&fids)?;
        self.succeeded(&paths, "find", walked)?;
        let opens: Vec<_> =
            fids.iter().map(|(fid, _)| Message::Tlopen { fid: *fid, flags: 0 }).collect();
        let opened = self.ask(&opens, &mut |_, _| true)?;
        self.succeeded(&paths, "open", opened)?;
        self.read_open(files, reads, take)?;
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

    fn read_open(
        &mut self,
        files: &[(usize, Entry)],
        reads: &mut Reads,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let ranges: Vec<Range<u64>> = files.iter().map(|(_, e)| e.image_range()).collect();
        let most_bytes = READ_BYTES.min(self.connection.client().max_read_bytes());
        let at_once = (ON_THEIR_WAY_BYTES / most_bytes.max(1)).clamp(2, MOST_READS);
        // Those on their way, by their tokens.
        let mut made: Vec<Read> =
            std::iter::from_fn(|| reads.next(most_bytes)).take(at_once as usize).collect();
        for (token, read) in (0..).zip(&made) {
            self.connection.client().send(token, &tread(*read));
        }
        let mut failed = None;
        let exchanged = self.connection.exchange(&mut |event, arrived| {
            let (Event::Data { token, .. } | Event::End(token, _) | Event::Reply(token, _)) = event;
            let Some(made) = made.get_mut(token as usize) else { return ControlFlow::Break(()) };
            let why = match event {
                Event::Data { at, bytes, .. } => {
                    let start = ranges.get(made.file).map_or(0, |range| range.start);
                    let at = start.saturating_add(made.offset).saturating_add(u64::from(at));
                    let range = arrived.end.saturating_sub(bytes.len())..arrived.end;
                    match take(at, arrived.buffer, range) {
                        Ok(()) => return ControlFlow::Continue(None),
                        Err(error) => {
                            failed = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
                Event::End(_, came) if reads.came(*made, came) => {
                    return ControlFlow::Continue(reads.next(most_bytes).map(|next| {
                        *made = next;
                        (token, tread(next))
                    }));
                }
                Event::End(..) => "was truncated while it was read".to_owned(),
                Event::Reply(_, Err(errno)) => format!("cannot be read: {errno}"),
                Event::Reply(_, Ok(_)) => "cannot be read".to_owned(),
            };
            let path = files.get(made.file).map(|(_, entry)| entry.path.to_string());
            let why = format!("{} {why}", path.unwrap_or_default());
            failed = Some(Error::Peer { host: self.host.clone(), why });
            ControlFlow::Break(())
        });
        exchanged.map_err(|error| self.lost(error))?;
        failed.map_or(Ok(()), Err)
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
        let opened =
            self.ask(&[Message::Tlopen { fid: LISTED_FID, flags: 0 }], &mut |_, _| true)?;
        self.succeeded(&[dir], "open", opened)?;
        let count = LISTED_BYTES.min(self.connection.client().max_read_bytes());
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let list = Message::Treaddir { fid: LISTED_FID, offset, count };
            let mut part = None;
            let listed = self.ask(&[list], &mut |_, reply| {
                part = listing::part(reply);
                part.is_some()
            })?;
            self.succeeded(&[dir], "list", listed)?;
            let Some(mut part) = part else { break };
            *seen = seen.saturating_add(part.names.len().max(1) as u64);
            progress(*seen)?;
            if *seen > MAX_ENTRIES {
                return Err(self.bad(dir, &format!("brings the tree above {MAX_ENTRIES} entries")));
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
        let mut targets = vec![None; links.len()];
        self.ask(&links, &mut |i, reply| {
            let target = listing::target(reply);
            let good = target.is_some();
            if let Some(place) = targets.get_mut(i) {
                *place = target;
            }
            good
        })?;
        let mut targets = targets.into_iter();
        self.clunk(&there)?;
        let mut stats = stats.into_iter();
        let mut looked = Vec::new();
        for (path, walked) in paths.iter().zip(walked) {
            looked.push(match walked {
                Err(Errno::ENOENT | Errno::ENOTDIR) => Looked::Missing,
                Err(errno) => return Err(self.failed(path, "read the attributes of", errno)),
                Ok(()) => {
                    let stat = stats.next().unwrap_or(Err(Errno::EPROTO));
                    let stat =
                        stat.map_err(|errno| self.failed(path, "read the attributes of", errno))?;
                    let target = match stat.kind {
                        Kind::Link => {
                            let target = targets.next().flatten();
                            Some(target.ok_or_else(|| {
                                self.bad(path, "is a symbolic link that cannot be read")
                            })?)
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
            let answers = self.ask(&walks, &mut |_, _| true)?;
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
        let mut found = vec![None; fids.len()];
        let answers = self.ask(&stats.collect::<Vec<_>>(), &mut |i, reply| {
            let attributes = Attributes::of(reply);
            let good = attributes.is_some();
            if let Some(place) = found.get_mut(i) {
                *place = attributes;
            }
            good
        })?;
        let found = answers.into_iter().zip(found);
        Ok(found.map(|(answer, found)| answer.and(found.ok_or(Errno::EPROTO))).collect())
    }

    fn clunk(&mut self, fids: &[u32]) -> Result<(), Error> {
        let clunks: Vec<_> = fids.iter().map(|fid| Message::Tclunk { fid: *fid }).collect();
        self.ask(&clunks, &mut |_, _| true).map(drop)
    }

    /// Asks several questions at once; in their order, whether each has a good answer: one that `take`,
    /// which is told the question's number, can use.
    fn ask(
        &mut self,
        questions: &[Message<'_>],
        take: &mut dyn FnMut(usize, &Message<'_>) -> bool,
    ) -> Result<Vec<Result<(), Errno>>, Error> {
        let mut answers = vec![Err(Errno::EPROTO); questions.len()];
        for (token, question) in (0..).zip(questions) {
            self.connection.client().send(token, question);
        }
        let asked = self.connection.exchange(&mut |event, _| {
            if let Event::Reply(token, reply) = event
                && let Some(answer) = answers.get_mut(token as usize)
            {
                *answer = match reply {
                    Ok(reply) if take(token as usize, &reply) => Ok(()),
                    Ok(_) => Err(Errno::EPROTO),
                    Err(errno) => Err(errno),
                };
            }
            ControlFlow::Continue(None)
        });
        asked.map(|()| answers).map_err(|error| self.lost(error))
    }

    /// Fails if one of the answers is not good.
    fn succeeded(
        &self,
        paths: &[&TreePath],
        action: &str,
        answers: Vec<Result<(), Errno>>,
    ) -> Result<(), Error> {
        let mut answers = answers.into_iter().zip(paths);
        answers.try_for_each(|(a, path)| a.map_err(|errno| self.failed(path, action, errno)))
    }

    fn failed(&self, path: &TreePath, action: &str, errno: Errno) -> Error {
        let why = format!("cannot {action} {path} on the server: {errno}");
        Error::Peer { host: self.host.clone(), why }
    }

    fn bad(&self, path: &TreePath, why: &str) -> Error {
        Error::Peer { host: self.host.clone(), why: format!("{path} {why}") }
    }

    fn lost(&self, error: CallError) -> Error {
        let (host, why) = (self.host.clone(), error.to_string());
        if error.may_pass() { Error::Connect { host, why } } else { Error::Peer { host, why } }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{master, serves};

    /// Lists the root of a server, where so many entries were seen elsewhere: how many that makes.
    fn listed(mut seen: u64) -> Result<u64, Error> {
        let mut remote = Remote::open(&Transport::Kernel, serves(master()), b"", "head").unwrap();
        remote.names(&TreePath::root(), &mut seen, &mut |_| Ok(()))?;
        Ok(seen)
    }

    #[test]
    fn a_tree_without_end_is_given_up() {
        let seen = listed(0).unwrap();
        assert_eq!(listed(MAX_ENTRIES - seen).unwrap(), MAX_ENTRIES);
        let error = listed(MAX_ENTRIES - seen + 1).unwrap_err().to_string();
        assert!(error.contains("brings the tree above"), "{error}");
    }
}
