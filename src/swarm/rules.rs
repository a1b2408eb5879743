//! The swarm's numbers and rules in one place, each with its reason.
//!
//! Everybody runs with [`Rules::default`]. Simulations and tests change one of them at a time, to see
//! what it is good for.

use std::time::Duration;

/// What the members of a swarm agree on. Nothing breaks where two nodes have different ones; it only
/// takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    // A node that asks: `scheduler` and `fetch`.
    /// A chunk from outside of a node's subnet is late if it takes so many times as long as those from
    /// within usually do. Once more of them are late than not, as over a rack's narrow uplink, distance
    /// matters: what nobody near has is brought in by one, and the others wait for it. 0: it never does.
    pub far_factor: u32,
    /// After so many times the usual time of a chunk a second node may bring it in as well, after
    /// twice that time four, and so on: the first may be gone, or may know nobody that has it.
    pub import_patience_factor: u32,
    /// Sources outside of its subnet that a node then keeps, although they bring least.
    pub far_kept: usize,
    /// Requests in flight to one node: the chunk that comes, and one queued behind it, so that the
    /// way from the end of one to the beginning of the next costs nothing.
    pub peer_window: usize,
    /// With as many nodes to ask, or requests in flight to all of them together, none is queued behind
    /// another: the others fill the link meanwhile, and what is chosen later is chosen better.
    pub enough_in_flight: usize,
    /// Chunks in flight from a master, promised ones included.
    pub master_window: usize,
    /// Nodes that are dialled because somebody named them, besides the server that was named.
    pub max_dialled: usize,
    /// Nodes that are dialled in all: who fetches from here is dialled back up to this number.
    /// Otherwise nobody draws from a node that came last, and its link is wasted.
    pub max_peers: usize,
    /// How many times the usual time of a chunk a request may go without progress, before it is made
    /// elsewhere.
    pub patience_factor: u32,
    /// The shortest time that it may take; a chunk's usual time says little on fast links.
    pub min_patience: Duration,
    /// The same, before any chunk has come.
    pub first_patience: Duration,
    /// A source from which nothing comes at all for this long, with something asked, is dropped.
    pub silence: Duration,
    /// What has come is reported to a source at least this often.
    pub report_every: Duration,
    /// First and longest wait between two questions for more sources.
    pub redir_first: Duration,
    /// See `redir_first`.
    pub redir_most: Duration,
    /// After so many chunks the source that has brought least gives way to another, so that nobody
    /// stays with sources that many draw from, or with those that it found when it came first.
    pub redraw_chunks: usize,
    /// The same happens after this time, if fewer have come.
    pub redraw_every: Duration,

    // Whoever is asked: `hub` and `uploads`.
    /// Chunks that a node sends at a time. Few at a high rate bring whole chunks into the swarm
    /// sooner than many slow ones.
    pub upload_slots: usize,
    /// Who may read the manifest at a time, from the master or a node. Sent to everybody by the
    /// master it would be 7 % of an image of 64 MiB for 64 nodes.
    pub manifest_readers: usize,
    /// How many more may wait for it; others get it from those that have it.
    pub manifest_line: usize,
    /// Whoever has read it for so long keeps nobody from it.
    pub manifest_turn: Duration,
    /// Nodes that may fetch from one node at a time; others are sent elsewhere. Otherwise everybody
    /// draws from those that came first.
    pub max_fetchers: usize,
    /// How long news for readers of `have` are gathered before they are sent.
    pub have_delay: Duration,
    /// How many of them are told at once. To tell everybody of every chunk is most of a node's work
    /// where links are slow, and who lacks it hears of it from others as well.
    pub told_at_once: usize,
    /// After how long all are told that still lack it.
    pub all_told_after: Duration,

    // The master: `grants` and `members`.
    /// Grants on their way for each chunk that the master sends at a time: while one is sent, the
    /// requests for the next ones come, from nodes whose own links are busy.
    pub grants_a_slot: usize,
    /// Grants in flight to one node while others wait as well.
    pub shared_window: usize,
    /// Grants in flight to one node that is alone.
    pub lone_window: usize,
    /// A node that got nothing for this long, or for four times the usual chunk time, starves.
    pub starved_after: Duration,
    /// A grant that is not fetched within this time, or ten times the usual one, is taken back.
    pub grant_lifetime: Duration,
    /// A node whose chunks take this many times as long as everybody's is slow, and gets no fresh
    /// ones: the others would have to wait for them.
    pub slow_factor: u32,
    /// Most sources that one answer of `redir` names.
    pub max_sources: usize,
    /// How many of them are near whoever asks, if there are as many; 0: distance does not matter.
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
