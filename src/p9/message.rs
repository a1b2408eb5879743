//! Every 9P message there is, in one table.
//!
//! The table below is the only list of messages: the enum, decoding, encoding and the printer that
//! `-D` uses are all made from it. Names and fields are those of intro(5), of the 9P2000.u draft and
//! of the 9P2000.L description kept with diod.

use std::fmt;

use super::wire::{
    Blob, DecodeError, Dialect, Field, IfPresent, List, NumericId, Problem, Qid, Reader, Stat,
    Text, UnixOnly, Writer,
};

/// The tag of Tversion, which has no other request to be told from (`NOTAG`).
pub const NOTAG: u16 = u16::MAX;
/// "No fid": Tattach's afid where no authentication is done (`NOFID`).
pub const NOFID: u32 = u32::MAX;
/// Bytes before a message's fields: size\[4\] type\[1\] tag\[2\].
pub const HEADER_BYTES: usize = 7;
/// The type number of Rread, whose data travels apart from its header.
pub const RREAD: u8 = 117;
/// Bytes of an Rread before its data: the header and count\[4\].
pub const RREAD_HEADER_BYTES: usize = 11;
/// What a read's count leaves free of msize, so that every reply fits (`P9_IOHDRSZ` in Linux).
pub const IO_HEADER_BYTES: u32 = 24;

/// A frame's header and its undecoded fields.
///
/// Kept apart from the message so that a request whose fields are bad still has a tag to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message's type number.
    pub kind: u8,
    /// The request's tag.
    pub tag: u16,
    /// The fields.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits a whole frame, its size field included and already checked to match.
    pub fn parse(frame: &'a [u8]) -> Result<Frame<'a>, DecodeError> {
        let r = &mut Reader::new("frame", frame, Dialect::Linux);
        u32::decode(r, "size")?;
        let kind = u8::decode(r, "type")?;
        let tag = u16::decode(r, "tag")?;
        Ok(Frame { kind, tag, body: r.bytes(r.left(), "body")? })
    }
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($field:ident: $type:ty),* })*) => {
        /// A decoded message; borrows its strings and data from the frame.
        #[allow(missing_docs, reason = "the fields are those of intro(5), by their names there")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message<'a> {
            $($(#[$doc])* $name { $($field: $type),* },)*
        }

        impl<'a> Message<'a> {
            /// The type number on the wire.
            pub fn kind(&self) -> u8 {
                match self { $(Message::$name { .. } => $kind,)* }
            }

            /// Decodes the fields of a message of type `kind`; bytes left over are an error.
            pub fn decode(kind: u8, body: &'a [u8], dialect: Dialect) -> Result<Message<'a>, DecodeError> {
                match kind {
                    $($kind => {
                        #[allow(unused_mut, reason = "a message may have no field")]
                        let mut r = Reader::new(stringify!($name), body, dialect);
                        $(let $field = <$type as Field>::decode(&mut r, stringify!($field))?;)*
                        r.finish()?;
                        Ok(Message::$name { $($field),* })
                    })*
                    _ => Err(DecodeError { message: "frame", field: "type", problem: Problem::UnknownType(kind) }),
                }
            }

            /// Appends the message to `out` as a whole frame.
            pub fn encode(&self, tag: u16, dialect: Dialect, out: &mut Vec<u8>) {
                let start = out.len();
                let w = &mut Writer::new(out, dialect);
                0u32.encode(w);
                self.kind().encode(w);
                tag.encode(w);
                match self {
                    $(Message::$name { $($field),* } => { $($field.encode(w);)* })*
                }
                let size = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
                if let Some(place) = out.get_mut(start..start + 4) {
                    place.copy_from_slice(&size.to_le_bytes());
                }
            }
        }

        /// One line a message, the same for requests and replies.
        impl fmt::Display for Message<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Message::$name { $($field),* } => {
                        write!(f, stringify!($name))?;
                        $(write!(f, " {} ", stringify!($field))?; $field.print(f)?;)*
                        Ok(())
                    })*
                }
            }
        }
    };
}

messages! {
    Tversion = 100 { msize: u32, version: Text<'a> }
    Rversion = 101 { msize: u32, version: Text<'a> }
    Tauth = 102 { afid: u32, uname: Text<'a>, aname: Text<'a>, n_uname: NumericId }
    Rauth = 103 { aqid: Qid }
    Tattach = 104 { fid: u32, afid: u32, uname: Text<'a>, aname: Text<'a>, n_uname: NumericId }
    Rattach = 105 { qid: Qid }
    Rerror = 107 { ename: Text<'a>, errno: UnixOnly<u32> }
    Tflush = 108 { oldtag: u16 }
    Rflush = 109 {}
    Twalk = 110 { fid: u32, newfid: u32, wname: List<Text<'a>> }
    Rwalk = 111 { wqid: List<Qid> }
    Topen = 112 { fid: u32, mode: u8 }
    Ropen = 113 { qid: Qid, iounit: u32 }
    Tcreate = 114 { fid: u32, name: Text<'a>, perm: u32, mode: u8, extension: UnixOnly<Text<'a>> }
    Rcreate = 115 { qid: Qid, iounit: u32 }
    Tread = 116 { fid: u32, offset: u64, count: u32 }
    Rread = 117 { data: Blob<'a> }
    Twrite = 118 { fid: u32, offset: u64, data: Blob<'a> }
    Rwrite = 119 { count: u32 }
    Tclunk = 120 { fid: u32 }
    Rclunk = 121 {}
    Tremove = 122 { fid: u32 }
    Rremove = 123 {}
    Tstat = 124 { fid: u32 }
    Rstat = 125 { stat: Stat<'a> }
    Twstat = 126 { fid: u32, stat: Stat<'a> }
    Rwstat = 127 {}
    // 9P2000.L
    Rlerror = 7 { ecode: u32 }
    Tstatfs = 8 { fid: u32 }
    Rstatfs = 9 { fstype: u32, bsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, fsid: u64, namelen: u32 }
    Tlopen = 12 { fid: u32, flags: u32 }
    Rlopen = 13 { qid: Qid, iounit: u32 }
    Tlcreate = 14 { fid: u32, name: Text<'a>, flags: u32, mode: u32, gid: u32 }
    Rlcreate = 15 { qid: Qid, iounit: u32 }
    Tsymlink = 16 { fid: u32, name: Text<'a>, symtgt: Text<'a>, gid: u32 }
    Rsymlink = 17 { qid: Qid }
    Tmknod = 18 { dfid: u32, name: Text<'a>, mode: u32, major: u32, minor: u32, gid: u32 }
    Rmknod = 19 { qid: Qid }
    Trename = 20 { fid: u32, dfid: u32, name: Text<'a> }
    Rrename = 21 {}
    Treadlink = 22 { fid: u32 }
    Rreadlink = 23 { target: Text<'a> }
    Tgetattr = 24 { fid: u32, request_mask: u64 }
    Rgetattr = 25 { valid: u64, qid: Qid, mode: u32, uid: u32, gid: u32, nlink: u64, rdev: u64, size: u64, blksize: u64, blocks: u64, atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64, ctime_sec: u64, ctime_nsec: u64, btime_sec: u64, btime_nsec: u64, generation: u64, data_version: u64 }
    Tsetattr = 26 { fid: u32, valid: u32, mode: u32, uid: u32, gid: u32, size: u64, atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64 }
    Rsetattr = 27 {}
    Txattrwalk = 30 { fid: u32, newfid: u32, name: Text<'a> }
    Rxattrwalk = 31 { size: u64 }
    Txattrcreate = 32 { fid: u32, name: Text<'a>, attr_size: u64, flags: u32 }
    Rxattrcreate = 33 {}
    Treaddir = 40 { fid: u32, offset: u64, count: u32 }
    Rreaddir = 41 { data: Blob<'a> }
    Tfsync = 50 { fid: u32, datasync: IfPresent }
    Rfsync = 51 {}
    Tlock = 52 { fid: u32, kind: u8, flags: u32, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
    Rlock = 53 { status: u8 }
    Tgetlock = 54 { fid: u32, kind: u8, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
    Rgetlock = 55 { kind: u8, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
    Tlink = 70 { dfid: u32, fid: u32, name: Text<'a> }
    Rlink = 71 {}
    Tmkdir = 72 { dfid: u32, name: Text<'a>, mode: u32, gid: u32 }
    Rmkdir = 73 { qid: Qid }
    Trenameat = 74 { olddirfid: u32, oldname: Text<'a>, newdirfid: u32, newname: Text<'a> }
    Rrenameat = 75 {}
    Tunlinkat = 76 { dirfid: u32, name: Text<'a>, flags: u32 }
    Runlinkat = 77 {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const QID: Qid = Qid { kind: Qid::DIR, version: 7, path: 0x1122_3344_5566_7788 };

    fn stat() -> Stat<'static> {
        Stat {
            dev_type: 0,
            dev: 0,
            qid: QID,
            mode: 0o755,
            atime: 1,
            mtime: 2,
            length: 3,
            name: Text(b"vmlinuz"),
            uid: Text(b"0"),
            gid: Text(b"0"),
            muid: Text(b""),
            extension: UnixOnly(Text(b"")),
            numeric: [UnixOnly(0); 3],
        }
    }

    fn samples() -> Vec<Message<'static>> {
        let names = List::from_slice(&[Text(b"boot"), Text(b"a b")]).unwrap();
        vec![
            Message::Tversion { msize: 8192, version: Text(b"9P2000.L") },
            Message::Tattach {
                fid: 1,
                afid: NOFID,
                uname: Text(b"root"),
                aname: Text(b""),
                n_uname: NumericId(Some(0)),
            },
            Message::Twalk { fid: 1, newfid: 2, wname: names },
            Message::Rwalk { wqid: List::from_slice(&[QID]).unwrap() },
            Message::Rread { data: Blob(b"hello") },
            Message::Rstat { stat: stat() },
            Message::Tfsync { fid: 1, datasync: IfPresent(None) },
            Message::Tfsync { fid: 1, datasync: IfPresent(Some(1)) },
            Message::Rerror { ename: Text(b"no"), errno: UnixOnly(2) },
            Message::Rflush {},
        ]
    }

    fn encoded(message: &Message<'_>, dialect: Dialect) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(9, dialect, &mut out);
        out
    }

    #[test]
    fn a_message_survives_encoding_and_decoding() {
        for message in samples() {
            let bytes = encoded(&message, Dialect::Unix);
            assert_eq!(u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize, bytes.len());
            let frame = Frame::parse(&bytes).unwrap();
            assert_eq!(frame.tag, 9);
            assert_eq!(Message::decode(frame.kind, frame.body, Dialect::Unix), Ok(message));
        }
    }

    #[test]
    fn bytes_on_the_wire_are_those_of_intro_5() {
        let bytes =
            encoded(&Message::Tversion { msize: 8192, version: Text(b"9P2000") }, Dialect::Plain);
        assert_eq!(bytes, b"\x13\0\0\0\x64\x09\0\0\x20\0\0\x06\x009P2000");
    }

    #[test]
    fn every_truncation_is_refused_and_names_the_field() {
        for message in samples().into_iter().filter(|m| !matches!(m, Message::Tfsync { .. })) {
            let bytes = encoded(&message, Dialect::Unix);
            let body = &bytes[HEADER_BYTES..];
            for n in 0..body.len() {
                let error = Message::decode(message.kind(), &body[..n], Dialect::Unix).unwrap_err();
                assert_eq!(error.problem, Problem::Short, "{message} cut to {n}: {error}");
            }
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let error = Message::decode(120, b"\x01\0\0\0x", Dialect::Linux).unwrap_err();
        assert_eq!(error.to_string(), "Tclunk: 1 extra bytes after the last field");
    }

    #[test]
    fn seventeen_walk_elements_are_refused() {
        let mut body = vec![1, 0, 0, 0, 2, 0, 0, 0, 17, 0];
        body.extend([1, 0, b'a'].repeat(17));
        let error = Message::decode(110, &body, Dialect::Linux).unwrap_err();
        assert_eq!(error.problem, Problem::TooMany(17));
    }

    #[test]
    fn n_uname_is_absent_from_plain_9p2000() {
        let attach = &samples()[1];
        assert_eq!(
            encoded(attach, Dialect::Linux).len(),
            encoded(attach, Dialect::Plain).len() + 4
        );
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 1u64;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let len = (seed >> 33) as usize % 64;
            let body: Vec<u8> = (0..len).map(|i| (seed >> (i % 8 * 8)) as u8).collect();
            let _ = Message::decode((seed >> 20) as u8 % 128, &body, Dialect::Unix);
        }
    }

    #[test]
    fn the_printer_names_every_field() {
        let text = samples()[2].to_string();
        assert_eq!(text, r#"Twalk fid 1 newfid 2 wname ["boot" "a b"]"#);
    }
}
