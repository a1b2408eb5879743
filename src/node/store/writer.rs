//! Writing to files in a second thread, so that receiving and hashing go on meanwhile.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::calls::write_all_at;

/// Pieces shorter than this are written at once where nothing waits: a slow link brings such, and
/// another thread's wake-up would cost more than the writing.
const MIN_PIECE_BYTES: usize = 64 << 10;
/// Most pieces that wait; each of them keeps a file open.
const MAX_WAITING: u64 = 64;

/// Bytes that are to be written: a part of a buffer that is left as it is meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    pub(super) buffer: &'a Arc<Vec<u8>>,
    pub(super) range: Range<usize>,
}

impl<'a> Piece<'a> {
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }

    /// The bytes from `start` to `end` of this piece; fewer if there are fewer.
    pub(super) fn part(&self, start: usize, end: usize) -> Piece<'a> {
        let place = |at: usize| self.range.start.saturating_add(at).min(self.range.end);
        Piece { buffer: self.buffer, range: place(start)..place(end) }
    }
}

/// Writes in the order in which it is told to.
#[derive(Debug, Default)]
pub(super) struct Writer {
    thread: Option<Thread>,
    /// How many pieces were handed to the thread, and how many of these are written.
    handed: u64,
    written: u64,
    /// What could not be written, and has not been reported yet.
    failure: Option<Failure>,
}

/// The entry whose file could not be written, or the spill, and why.
pub(super) type Failure = (Option<usize>, io::Error);

#[derive(Debug)]
struct Thread {
    jobs: Option<Sender<Job>>,
    results: Receiver<Result<(), Failure>>,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    entry: Option<usize>,
    file: Arc<File>,
    at: u64,
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Job {
    fn write(self) -> Result<(), Failure> {
        let bytes = self.buffer.get(self.range).unwrap_or_default();
        write_all_at(&self.file, bytes, self.at).map_err(|error| (self.entry, error))
    }
}

impl Writer {
    /// Writes a piece to a file, at once or later.
    pub(super) fn write(
        &mut self,
        entry: Option<usize>,
        file: &Arc<File>,
        at: u64,
        piece: Piece<'_>,
    ) -> io::Result<()> {
        // Never before what waits: it may be the garbage of an attempt that failed.
        if self.handed == self.written && piece.range.len() < MIN_PIECE_BYTES {
            return write_all_at(file, piece.bytes(), at);
        }
        let (file, buffer, range) = (file.clone(), piece.buffer.clone(), piece.range);
        self.hand_over(Job { entry, file, at, buffer, range })
    }

    /// A number that [`Writer::is_written`] takes, for all that was to be written so far.
    pub(super) fn ticket(&self) -> u64 {
        self.handed
    }

    /// Is everything written that was to be written when the ticket was taken?
    pub(super) fn is_written(&mut self, ticket: u64) -> Result<bool, Failure> {
        while self.handed > self.written {
            let Some(Ok(result)) = self.thread.as_ref().map(|t| t.results.try_recv()) else {
                break;
            };
            self.count(result);
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.written >= ticket),
        }
    }

    /// Waits until one more piece is written, if any is not.
    pub(super) fn wait(&mut self) {
        if self.handed > self.written
            && let Some(Ok(result)) = self.thread.as_ref().map(|t| t.results.recv())
        {
            self.count(result);
        }
    }

    fn count(&mut self, result: Result<(), Failure>) {
        self.written += 1;
        self.failure = self.failure.take().or(result.err());
    }

    fn hand_over(&mut self, job: Job) -> io::Result<()> {
        while self.handed - self.written >= MAX_WAITING {
            self.wait();
        }
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(Thread::start()?),
        };
        let handed = thread.jobs.as_ref().and_then(|jobs| jobs.send(job).ok());
        handed.ok_or(io::ErrorKind::BrokenPipe)?;
        self.handed += 1;
        Ok(())
    }
}

impl Thread {
    fn start() -> io::Result<Thread> {
        let (jobs, todo) = channel::<Job>();
        let (report, results) = channel();
        let work = move || todo.into_iter().try_for_each(|job| report.send(job.write()));
        let handle = thread::Builder::new().name("write".into()).spawn(move || drop(work()))?;
        Ok(Thread { jobs: Some(jobs), results, handle: Some(handle) })
    }
}

impl Drop for Thread {
    /// Nothing is written any more once this is gone.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(handle) = self.handle.take() {
            // It cannot have panicked in a way that could be dealt with here.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without a name that can be read, and written where `writable`.
    fn file(writable: bool) -> Arc<File> {
        let name = format!("xget-writer-{}-{:?}", std::process::id(), thread::current().id());
        let path = std::env::temp_dir().join(name);
        let mut file = File::create_new(&path).unwrap();
        if !writable {
            file = File::open(&path).unwrap();
        }
        std::fs::remove_file(path).unwrap();
        Arc::new(file)
    }

    fn finish(writer: &mut Writer) -> Result<(), Failure> {
        while !writer.is_written(writer.ticket())? {
            writer.wait();
        }
        Ok(())
    }

    #[test]
    fn what_is_written_last_is_what_stays() {
        let (file, mut writer) = (file(true), Writer::default());
        for byte in 1..=200 {
            let long = Arc::new(vec![0; MIN_PIECE_BYTES]);
            let short = Arc::new(vec![byte]);
            for buffer in [&long, &short] {
                let piece = Piece { buffer, range: 0..buffer.len() };
                writer.write(None, &file, 0, piece).unwrap();
            }
        }
        finish(&mut writer).unwrap();
        assert_eq!(file.metadata().unwrap().len(), MIN_PIECE_BYTES as u64);
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file));
        assert_eq!(std::fs::read(path).unwrap().first(), Some(&200));
    }

    #[test]
    fn a_write_that_fails_later_is_told_with_its_entry() {
        let (file, mut writer) = (file(false), Writer::default());
        let buffer = Arc::new(vec![1; MIN_PIECE_BYTES]);
        let piece = Piece { buffer: &buffer, range: 0..MIN_PIECE_BYTES };
        writer.write(Some(7), &file, 0, piece).unwrap();
        assert_eq!(finish(&mut writer).unwrap_err().0, Some(7));
    }
}
