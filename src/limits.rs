//! Every limit of what others can make this program hold, do or wait for, in one place.
//!
//! `docs/limits.md` says what happens at each, and which test shows it.

use std::time::Duration;

// ---- connections

/// Most connections of a master at a time, and of a node that serves others. A newcomer beyond them gets
/// a place of the host that has most of them, or none ([`crate::serve::admission`]).
pub const MASTER_CONNECTIONS: usize = 16_384;
/// Likewise of a node.
pub const NODE_CONNECTIONS: usize = 512;
/// Descriptors that a process asks for: connections, and those of its own.
pub const MAX_DESCRIPTORS: usize = 32_768;
/// Descriptors that are kept for files and the like, or half of those that there are.
pub const OWN_DESCRIPTORS: usize = 640;
/// Files that stay open between two uses, or a quarter of the descriptors that there are.
pub const MAX_OPEN_FILES: usize = 256;
/// Connections that may wait to be accepted: a whole cluster is powered on at once.
pub const BACKLOG: i32 = 4096;
/// How long a connection may stay without its first message.
pub const GREETING: Duration = Duration::from_secs(10);
/// How long a message may take from its first byte to its last, while no other becomes whole.
pub const MESSAGE: Duration = Duration::from_secs(30);
/// How long somebody may take nothing of what it has asked for.
pub const TAKING: Duration = Duration::from_secs(30);
/// How long a connection may take to send an HTTP request, and stay between two of them.
pub const REQUEST: Duration = Duration::from_secs(30);
/// A peer that has lost its power is noticed after about this long, though nothing is to be sent.
pub const KEEPALIVE: Duration = Duration::from_secs(20);
/// Bytes sent and not acknowledged for this long mean that the peer is gone.
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// How many connections there may be where so many descriptors may be open, at most `most`.
pub fn connections(descriptors: usize, most: usize) -> usize {
    descriptors.saturating_sub(OWN_DESCRIPTORS.min(descriptors / 2)).min(most)
}

/// How many files stay open where so many descriptors may be.
pub fn open_files(descriptors: usize) -> usize {
    (descriptors / 4).clamp(1, MAX_OPEN_FILES)
}

// ---- what is asked of a server

/// Largest message that is negotiated, in bytes: the largest chunk fits into one Rread.
pub const MAX_MSIZE: u32 = (4 << 20) + 24;
/// Smallest message size that is accepted, in bytes.
pub const MIN_MSIZE: u32 = 256;
/// Longest request that is read, in bytes, before a message size is negotiated and after. Only Twrite
/// could be longer, and nothing is written here.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Most fids on one connection. A kernel client holds one for each file it has in its cache.
pub const MAX_FIDS: usize = 1 << 18;
/// Bytes that a fid is counted for: itself and its place in a table.
pub const FID_BYTES: usize = 128;
/// Most bytes that all connections hold at a master: fids, the texts that some are read from, replies that were not
/// taken. One host may hold as much as is still free ([`crate::serve::session::Budget`]).
pub const MASTER_HELD_BYTES: usize = 128 << 20;
/// Likewise at a node.
pub const NODE_HELD_BYTES: usize = 32 << 20;
/// Bytes that a connection may hold in any case: all that a node wants.
pub const MIN_HELD_BYTES: usize = 4 << 10;
/// Most names that a Twalk goes down (intro(5)).
pub const MAX_WALK_ELEMENTS: usize = 16;
/// Bytes of requests that a master reads from one host in a second: a cluster may be behind one address.
pub const MASTER_REQUEST_BYTES_PER_S: u64 = 8 << 20;
/// Likewise a node, which has fewer clients, and whose link is to bring the image.
pub const NODE_REQUEST_BYTES_PER_S: u64 = 512 << 10;
/// Most requests of one connection that are answered before others have their turn.
pub const MAX_TURN_REQUESTS: usize = 64;
/// Most files that are opened for one connection before others have their turn.
pub const MAX_TURN_FILES: usize = 64;
/// Most requests of one connection that wait; more are refused, since to stop reading would keep out
/// the Tflush or Tclunk that ends the waiting.
pub const MAX_PARKED: usize = 1024;
/// Most replies of one connection that wait to be sent; no request is looked at meanwhile.
pub const MAX_OUTPUTS: usize = 64;
/// Most bytes of such replies, those of the image not counted: what a connection that asks and never
/// reads can make the server hold.
pub const MAX_OUTPUT_BYTES: usize = 128 << 10;
/// Longest reply that is built in memory, in bytes: of directories and control files.
pub const MAX_BUILT_BYTES: u32 = 64 << 10;

/// Most bytes of an HTTP request that are read, and of a reply that wait in memory.
pub const MAX_HTTP_BYTES: usize = 32 << 10;
/// Connections of one host that are sent files at a time, if no other host wants anything; else it is one.
pub const MAX_FLOWS: usize = 32;
/// Nothing more is sent to a host while so many bytes are on their way to it.
pub const MAX_FLOW_BYTES: u64 = 2 << 20;
/// Most symbolic links that a path is followed through, over HTTP or to what a fetch names.
pub const MAX_LINKS: usize = 16;

/// Longest line that is taken from a node's log, in bytes.
pub const MAX_LOG_LINE_BYTES: usize = 256;
/// Most lines of nodes' logs that are kept for the driver.
pub const MAX_LOG_LINES: usize = 64;
/// The time for which the lines that nodes write are counted.
pub const LOG_WINDOW: Duration = Duration::from_secs(60);
/// Most lines that one host writes in that time, and all of them together; the others are left out.
pub const MAX_WINDOW_LINES_OF_ONE: u32 = 60;
/// See [`MAX_WINDOW_LINES_OF_ONE`].
pub const MAX_WINDOW_LINES: u32 = 1200;
/// Most of the last lines that `status` shows, of one host and of all.
pub const MAX_LAST_LINES_OF_ONE: usize = 4;
/// See [`MAX_LAST_LINES_OF_ONE`].
pub const MAX_LAST_LINES: usize = 64;
/// Most chunks that nodes say are wrong and that wait to be read again, and most of one host.
pub const MAX_DOUBTS: usize = 256;
/// See [`MAX_DOUBTS`].
pub const MAX_DOUBTS_OF_ONE: usize = 16;
/// Most bytes of checksums that are kept of what is sent over HTTP.
pub const MAX_CHECKSUM_BYTES: usize = 16 << 20;
/// Most nodes that `status` shows of those that went away before they were whole.
pub const MAX_GONE: usize = 64;

// ---- what is asked of others

/// Most domains that count of a DHCP server's answer, and name servers of a DHCPv6 server's; of all that routers and servers say, twice that.
pub const MAX_DHCP_LIST: usize = 16;
/// Most different warnings of what DHCP servers say, of DHCPv4 and of DHCPv6.
pub const MAX_DHCP_WARNINGS: usize = 16;

/// Most requests on their way on one connection.
pub const MAX_IN_FLIGHT: usize = 64;
/// Longest reply that is taken, in bytes, but for those that carry file contents.
pub const MAX_REPLY_BYTES: usize = 128 << 10;
/// How long a connection may take to be made.
pub const CONNECTING: Duration = Duration::from_secs(5);
/// How long a server may be silent to a question that is answered at once.
pub const SILENCE: Duration = Duration::from_secs(10);
/// Likewise a node that is asked for the manifest, at least: there are others, and the origin.
pub const MIN_NODE_SILENCE: Duration = Duration::from_millis(500);
/// And at most.
pub const NODE_SILENCE: Duration = Duration::from_secs(2);
/// How long a source may take from a call to the first line of its `have`.
pub const MUTE: Duration = Duration::from_secs(15);
/// Likewise the named server, which may be the only one.
pub const MUTE_HOME: Duration = Duration::from_secs(60);
/// Those times double at most so often while nothing comes from anybody.
pub const MAX_MUTE_DOUBLINGS: u32 = 4;
/// Wrong chunks after which a source is not asked any more.
pub const MAX_WRONG_CHUNKS: u32 = 2;
/// Chunks in a row that a source says it has and refuses, after which it is not asked any more.
pub const MAX_REFUSED_CHUNKS: u32 = 4;
/// How long a source that sent wrong chunks, or serves something else, is left alone.
pub const BAN: Duration = Duration::from_secs(600);
/// Longest manifest that is read, in bytes: a million files take about 100 MB.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;
/// Most entries that are listed at a server that is not xget's: no tree is endless.
pub const MAX_ENTRIES: u64 = 4 << 20;
/// Longest signature that is read, in bytes. minisign's comments have at most 1024 and 8192.
pub const MAX_SIGNATURE_BYTES: u64 = 16 << 10;
/// Most bytes of a control file that are read for its first line.
pub const MAX_FIRST_LINE_BYTES: u64 = 256 << 10;
/// A line of `have` or `redir` is never longer, in bytes.
pub const MAX_LINE_BYTES: usize = 256;
/// Longest text of a report to the server, in bytes.
pub const MAX_REPORT_BYTES: usize = 4096;
/// Most lines for the server's log that wait until it can be reached.
pub const MAX_TROUBLES: usize = 8;
/// Addresses of nodes that are remembered.
pub const MAX_ADDRESSES: usize = 256;
/// Most of them that one host has named and that have not answered yet: an eighth.
pub const MAX_ADDRESSES_OF_ONE: usize = 32;
/// Connections at a time to addresses that one host has named, or that are its own, and have not answered yet. Half of
/// those that a node makes: the others are for what somebody else has named.
pub const MAX_UNANSWERED_AT_ONCE: usize = 4;
/// Calls to an address that other nodes name, none of which is answered as a node does. After them it is not called
/// again because of what nodes say.
pub const MAX_UNANSWERED_CALLS: u32 = 3;
/// Ports of one host at which no node answers. After them no others are tried that only other nodes name, but for the
/// usual one.
pub const MAX_DEAD_PORTS: usize = 4;
/// A host is asked for no more addresses once so many of the hosts that it has named are dead, and more than have
/// answered.
pub const MANY_DEAD: u32 = 8;
/// Likewise once so many are dead, however many have answered.
pub const MAX_DEAD_OF_ONE: u32 = 32;
/// Dead addresses that are remembered, and hosts that have named addresses.
pub const MAX_DEAD_ADDRESSES: usize = 1024;
/// See [`MAX_DEAD_ADDRESSES`].
pub const MAX_INFORMANTS: usize = 1024;
/// Most bytes of a DNS name on the wire, with its closing zero (RFC 1035, section 2.3.4).
pub const MAX_DNS_NAME_BYTES: usize = 255;
/// Most aliases between a name and its addresses.
pub const MAX_DNS_ALIASES: usize = 16;
/// Most records of one DNS answer that are looked at.
pub const MAX_DNS_RECORDS: u16 = 128;

// ---- the file system here

/// Most symbolic links on the way to a destination (path_resolution(7)).
pub const MAX_DEST_LINKS: usize = 40;
