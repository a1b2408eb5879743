//! DNS messages (RFC 1035): names, queries and answers as bytes.
//!
//! smoltcp reads and writes the messages. This module adds the checks that smoltcp leaves to its caller: it
//! checks a message's length before it reads any field; it stops at 255 bytes of a name and at the first error
//! in it (smoltcp's iterator returns that error without end); and it reads a limited number of records, because
//! each of them can follow thousands of compression pointers.

#[cfg(test)]
pub(super) mod tests;

use std::net::IpAddr;

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
    DnsRepr,
};

use crate::limits::{MAX_DNS_ALIASES, MAX_DNS_NAME_BYTES, MAX_DNS_RECORDS};

/// RFC 1035, section 2.3.4.
const MAX_LABEL_BYTES: u8 = 63;

/// A name in wire format (RFC 1035, section 3.1): each label after its length, a zero at the end, at most 255
/// bytes. In lower case, so that equal names are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(Vec<u8>);

impl Name {
    /// Parses a host name: labels of letters, digits, `-` and `_`, with or without a dot at the end.
    pub(super) fn new(text: &str) -> Option<Name> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let labels = text.split('.').map(|label| Some(label.as_bytes()));
        text.bytes().all(is_allowed).then(|| Name::from_labels(labels))?
    }

    /// Reads the name in `field` of a message, which may contain compression pointers.
    fn read(message: &DnsPacket<&[u8]>, field: &[u8]) -> Option<Name> {
        Name::from_labels(message.parse_name(field).map(Result::ok))
    }

    /// None if a label is None, empty or too long, or the name is too long.
    fn from_labels<'a>(labels: impl Iterator<Item = Option<&'a [u8]>>) -> Option<Name> {
        let mut name = Vec::new();
        for label in labels {
            let label = label?;
            let length = u8::try_from(label.len()).ok()?;
            if length == 0 || length > MAX_LABEL_BYTES {
                return None;
            }
            name.push(length);
            name.extend(label.iter().map(u8::to_ascii_lowercase));
            if name.len() >= MAX_DNS_NAME_BYTES {
                return None;
            }
        }
        name.push(0);
        Some(Name(name))
    }
}

/// A question to a name server.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) id: u16,
    pub(super) name: Name,
    pub(super) kind: DnsQueryType,
}

/// A server's answer to one query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Addresses(Vec<IpAddr>),
    /// The name exists, but has no address of this family.
    NoAddress,
    NoSuchName,
    /// The answer is too long for UDP; the query is to be repeated over TCP.
    Truncated,
    /// What the server does instead of answering, as in "the name server X ...".
    Failed(String),
}

impl Answer {
    pub(super) fn malformed() -> Answer {
        Answer::Failed("sends malformed answers".into())
    }
}

impl Query {
    /// The query as a message (RFC 1035, section 4.1).
    pub(super) fn encode(&self) -> Vec<u8> {
        let message = DnsRepr {
            transaction_id: self.id,
            opcode: DnsOpcode::Query,
            flags: DnsFlags::RECURSION_DESIRED,
            question: DnsQuestion { name: &self.name.0, type_: self.kind },
        };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut DnsPacket::new_unchecked(&mut bytes));
        bytes
    }

    /// Reads a message; None if it is not an answer to this query.
    pub(super) fn read_answer(&self, bytes: &[u8]) -> Option<Answer> {
        let message = DnsPacket::new_checked(bytes).ok()?;
        let (records, question) = DnsQuestion::parse(message.payload()).ok()?;
        let answers_this = message.transaction_id() == self.id
            && message.flags().contains(DnsFlags::RESPONSE)
            && message.opcode() == DnsOpcode::Query
            && message.question_count() == 1
            && question.type_ == self.kind
            && Name::read(&message, question.name)? == self.name;
        if !answers_this {
            return None;
        }
        Some(match message.rcode() {
            _ if message.flags().contains(DnsFlags::TRUNCATED) => Answer::Truncated,
            DnsRcode::NoError => {
                self.read_records(&message, records).unwrap_or_else(Answer::malformed)
            }
            DnsRcode::NXDomain => Answer::NoSuchName,
            DnsRcode::Refused => Answer::Failed("refuses the query".into()),
            DnsRcode::ServFail => Answer::Failed("reports a server failure".into()),
            other => Answer::Failed(format!("reports error {}", u8::from(other))),
        })
    }

    /// The addresses in an answer section, after following aliases (CNAME, RFC 1035, section 3.6.2); None if
    /// it is malformed.
    fn read_records(&self, message: &DnsPacket<&[u8]>, mut records: &[u8]) -> Option<Answer> {
        let (mut addresses, mut aliases) = (Vec::new(), Vec::new());
        for _ in 0..message.answer_record_count().min(MAX_DNS_RECORDS) {
            let (rest, record) = DnsRecord::parse(records).ok()?;
            records = rest;
            let name = Name::read(message, record.name)?;
            match record.data {
                DnsRecordData::A(address) => addresses.push((name, IpAddr::V4(address))),
                // smoltcp decodes AAAA only with its feature for IPv6, which nothing else here needs.
                DnsRecordData::Other(DnsQueryType::Aaaa, address) => {
                    let address = <[u8; 16]>::try_from(address).ok()?;
                    addresses.push((name, address.into()));
                }
                DnsRecordData::Cname(target) => aliases.push((name, Name::read(message, target)?)),
                DnsRecordData::Other(..) => {}
            }
        }
        let mut wanted = &self.name;
        for _ in 0..=MAX_DNS_ALIASES {
            let found = addresses.iter().filter(|(name, _)| name == wanted);
            let found: Vec<IpAddr> = found.map(|&(_, address)| address).collect();
            if !found.is_empty() {
                return Some(Answer::Addresses(found));
            }
            match aliases.iter().find(|(name, _)| name == wanted) {
                Some((_, target)) => wanted = target,
                None => return Some(Answer::NoAddress),
            }
        }
        Some(Answer::Failed("sends too many aliases (CNAME)".into()))
    }
}

/// Reads any bytes as an answer to a query for `kernel.example`.
#[cfg(fuzzing)]
pub fn fuzz_answer(bytes: &[u8]) {
    let name = Name::new("kernel.example").expect("a name");
    let query = Query { id: 0x4142, name, kind: DnsQueryType::A };
    query.read_answer(bytes);
}
