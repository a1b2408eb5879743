//! The swarm's numbers in one place, each with its reason.
//!
//! The programs run with [`Rules::default`]. Simulations and tests change one number at a time, to see
//! what it is good for.

use std::time::Duration;

/// What the members of a swarm agree on. Nothing breaks where two nodes have different rules; it only
/// takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    // A node that fetches: `fetch` and its scheduler.
    /// A chunk from outside of a node's subnet (a far chunk) is late if it takes this many times as long as chunks
    /// from within usually do. Once more of them are late than not, as over a rack's narrow uplink, a chunk
    /// that no near node holds is imported by one node, and the others wait for it. 0: never.
    pub far_factor: u32,
    /// After this many times the usual time of a chunk a second node may import it as well, after
    /// twice that time four, and so on: the first may have died, or may know nobody that holds it.
    pub import_patience_factor: u32,
    /// Far sources that a node then keeps, although they bring least.
    pub far_kept: usize,
    /// Requests in flight to one node: the chunk that arrives, and one queued behind it, so that the
    /// round trip between the two costs nothing.
    pub peer_window: usize,
    /// With this many sources, or requests in flight to all of them together, none is queued behind
    /// another: the others fill the link meanwhile, and a choice that is made later is a better one.
    pub enough_in_flight: usize,
    /// Chunks in flight from a master, promised ones included.
    pub master_window: usize,
    /// Connections that a node makes to nodes which others named, besides the server given by the user.
    pub max_dialled: usize,
    /// Connections that a node makes in all: it connects back to nodes that fetch from it up to this number.
    /// Otherwise nobody fetches from a node that started last, and its uplink is wasted.
    pub max_peers: usize,
    /// A request may go without progress for this many times the usual time of a chunk, before it is made
    /// elsewhere.
    pub patience_factor: u32,
    /// Lower bound of that time: on fast links a chunk's usual time says little.
    pub min_patience: Duration,
    /// The same, before any chunk has arrived.
    pub first_patience: Duration,
    /// A source from which nothing at all arrives for this long, with requests in flight, is dropped.
    pub silence: Duration,
    /// A node reports what it has verified to each source at least this often.
    pub report_every: Duration,
    /// First and longest wait between two requests for more sources.
    pub redir_first: Duration,
    /// See `redir_first`.
    pub redir_most: Duration,
    /// After this many chunks the source that has brought least is replaced, so that no node stays with
    /// overloaded sources, or with those that it found first.
    pub redraw_chunks: usize,
    /// The same happens after this time, if fewer chunks have arrived.
    pub redraw_every: Duration,

    // The side that serves: `hub` and `uploads`.
    /// Chunks that a node sends at a time. A few at a high rate bring whole chunks into the swarm
    /// sooner than many slow ones.
    pub upload_slots: usize,
    /// How long a chunk may take to be sent before its slot is free for others, at least: on fast links its usual time
    /// says little.
    pub upload_turn: Duration,
    /// Clients that may read the manifest at a time, from the master or a node. If the master sent it to all
    /// nodes it would be 7 % of an image of 64 MiB for 64 nodes.
    pub manifest_readers: usize,
    /// Clients that may wait for it; others get it from nodes that have it.
    pub manifest_line: usize,
    /// A client that has read it for this long does not keep others from it.
    pub manifest_turn: Duration,
    /// Nodes that may fetch from one node at a time; others are sent elsewhere. Otherwise all of them
    /// fetch from the nodes that came first.
    pub max_fetchers: usize,
    /// How long news for readers of `have` are gathered before they are sent.
    pub have_delay: Duration,
    /// How many of them are told at once. Telling all of them of every chunk is most of a node's work
    /// where links are slow, and a node that lacks the chunk hears of it from others as well.
    pub told_at_once: usize,
    /// After this time all are told that still lack the chunk.
    pub all_told_after: Duration,

    // The master: `grants` and `members`.
    /// Grants in flight for each chunk that the master sends at a time: while one is sent, the
    /// requests for the next ones arrive, from nodes whose own links are busy.
    pub grants_a_slot: usize,
    /// Grants in flight to one node while others wait as well.
    pub shared_window: usize,
    /// Grants in flight to one node that is alone.
    pub lone_window: usize,
    /// A node that got nothing for this long, or for four times the usual time of a chunk, starves.
    pub starved_after: Duration,
    /// A grant that is not fetched within this time, or ten times the usual one, is taken back.
    pub grant_lifetime: Duration,
    /// A node whose chunks take this many times as long as others' is slow, and gets no fresh
    /// ones: the others would have to wait for them.
    pub slow_factor: u32,
    /// Most sources that one answer of `redir` names.
    pub max_sources: usize,
    /// How many of them are near the client, if there are as many; 0: distance does not matter.
    pub near_sources: usize,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            far_factor: 3,
            import_patience_factor: 128,
            far_kept: 4,
            peer_window: 2,
            enough_in_flight: 8,
            master_window: 6,
            max_dialled: 8,
            max_peers: 12,
            patience_factor: 4,
            min_patience: Duration::from_millis(250),
            first_patience: Duration::from_secs(2),
            silence: Duration::from_secs(4),
            report_every: Duration::from_millis(250),
            redir_first: Duration::from_millis(10),
            redir_most: Duration::from_secs(2),
            redraw_chunks: 64,
            redraw_every: Duration::from_millis(500),
            upload_slots: 4,
            upload_turn: Duration::from_secs(2),
            manifest_readers: 3,
            manifest_line: 6,
            manifest_turn: Duration::from_secs(1),
            max_fetchers: 16,
            have_delay: Duration::from_millis(5),
            told_at_once: 4,
            all_told_after: Duration::from_millis(50),
            grants_a_slot: 3,
            shared_window: 2,
            lone_window: 6,
            starved_after: Duration::from_millis(200),
            grant_lifetime: Duration::from_secs(1),
            slow_factor: 4,
            max_sources: 16,
            near_sources: 8,
        }
    }
}
