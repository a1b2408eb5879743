//! Tread and Treaddir: what they ask for, and whether it is there.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::answer::Answer;
use super::classic;
use super::fids::Open;
use super::host::Host;
use super::output::Data;
use super::parked::{ParkedRead, Read};
use super::{Session, stat};
use crate::control::Control;
use crate::limits::MAX_BUILT_BYTES;
use crate::p9::errno::Errno;
use crate::p9::message::Message;
use crate::p9::wire::{Blob, Dialect};

impl Session {
    /// What a Tread asks for, or None where it is already answered.
    pub(super) fn read(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        count: u32,
    ) -> Result<Option<Read>, Errno> {
        let dialect = self.replies.dialect();
        let count = count.min(self.replies.max_data_bytes());
        let built = count.min(MAX_BUILT_BYTES) as usize;
        let classic = &self.classic;
        let fid = self.fids.get_mut(fid)?;
        let tree = fid.tree.clone();
        let part = |whole: Range<u64>| {
            let start = whole.start.saturating_add(offset).min(whole.end);
            start..start.saturating_add(u64::from(count)).min(whole.end)
        };
        let data = |range, paced| Ok(Some(Read::Data { tree: tree.clone(), range, paced }));
        let bytes = match &mut fid.open {
            Open::No => return Err(Errno::EBADF),
            Open::Classic(_, file) if !classic::is_readable(*file) => return Err(Errno::EBADF),
            Open::Classic(entry, file) => {
                let (entry, file) = (*entry, *file);
                return Ok(Some(Read::Classic { tree, entry, file, offset, count: built }));
            }
            Open::File => {
                let entry = fid.tree.entry(fid.node).ok_or(Errno::ESTALE)?;
                return data(part(entry.image_range()), false);
            }
            Open::Control { read: false, .. } => return Err(Errno::EBADF),
            Open::Control { file: Control::Image, .. } => {
                return data(part(0..tree.manifest().layout().image_bytes()), true);
            }
            Open::Control { file, bytes: None, .. } => {
                return Ok(Some(Read::Control { file: *file, tree, offset, count: built }));
            }
            Open::Control { bytes: Some(bytes), .. } | Open::Bytes(bytes) => bytes.clone(),
            Open::Dir { .. } if dialect == Dialect::Linux => return Err(Errno::EISDIR),
            Open::Dir { next, offset: expected } => {
                if offset == 0 {
                    (*next, *expected) = (0, 0);
                }
                if offset != *expected {
                    return Err(Errno::EINVAL);
                }
                let (records, after) =
                    stat::records(&tree, fid.node, *next, built, dialect, classic);
                *next = after;
                *expected += records.len() as u64;
                self.reply(tag, Ok(Message::Rread { data: Blob(&records) }));
                return Ok(None);
            }
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(built).min(bytes.len());
        let data = Blob(bytes.get(start..end).unwrap_or_default());
        self.reply(tag, Ok(Message::Rread { data }));
        Ok(None)
    }

    /// Carries out a read or parks it.
    pub(super) fn attempt(&mut self, request: ParkedRead, host: &mut impl Host, now: Instant) {
        let ParkedRead { tag, fid, mut read } = request;
        let at = self.at(now);
        let answer = match &mut read {
            Read::Control { tree, .. } | Read::Data { tree, paced: true, .. }
                if !Arc::ptr_eq(tree, host.tree()) =>
            {
                Answer::Error(Errno::ESTALE)
            }
            Read::Control { file, offset, count, .. } => host.read(at, *file, *offset, *count),
            Read::Classic { tree, entry, file, offset, count } => if Arc::ptr_eq(tree, host.tree())
            {
                classic::read(host, at, *entry, *file)
            } else {
                Answer::Error(Errno::ESTALE)
            }
            .map(|text| text.bytes().skip(*offset as usize).take(*count).collect()),
            Read::Data { range, .. } if range.is_empty() => Answer::Now(Vec::new()),
            Read::Data { tree, range, paced } => {
                self.classic.reading(host, at);
                host.image(at, tree, range, *paced).map(|end| {
                    range.end = end;
                    Vec::new()
                })
            }
        };
        match (answer, read) {
            (Answer::Wait, read) if self.parked.len() >= self.classic.max_parked() => {
                self.parked.cancel(&read, host, at);
                self.reply(tag, Err(Errno::EBUSY));
            }
            (Answer::Wait, read) => self.parked.push(ParkedRead { tag, fid, read }),
            (Answer::Error(errno), Read::Control { .. }) => self.reply(tag, Err(errno)),
            (Answer::Error(errno), _) => self.fail(tag, errno),
            (Answer::Now(_), Read::Data { tree, range, paced }) if !range.is_empty() => {
                self.replies.reply_image(Data { tag, tree, range, paced });
            }
            (Answer::Now(bytes), _) => self.reply(tag, Ok(Message::Rread { data: Blob(&bytes) })),
        }
    }

    pub(super) fn readdir(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        count: u32,
    ) -> Result<(), Errno> {
        let most = count.min(self.replies.max_data_bytes()).min(MAX_BUILT_BYTES);
        let fid = self.fids.get(fid)?;
        match fid.open {
            Open::Dir { .. } => {}
            Open::No => return Err(Errno::EBADF),
            _ => return Err(Errno::ENOTDIR),
        }
        let records = stat::dirents(&fid.tree, fid.node, offset, most as usize);
        self.reply(tag, Ok(Message::Rreaddir { data: Blob(&records) }));
        Ok(())
    }
}
