//! Nodes that went away before they had all they wanted: `status` shows them until they are back.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use super::members::Member;
use crate::limits::MAX_GONE;
use crate::units::seconds;

/// The last of them.
#[derive(Debug, Default)]
pub(super) struct Gone(VecDeque<Node>);

#[derive(Debug)]
struct Node {
    served: SocketAddr,
    held: u32,
    wanted: u32,
    at: Instant,
}

impl Gone {
    /// A node does not serve at this address any longer. Whoever was whole is not missed.
    pub(super) fn add(&mut self, served: SocketAddr, member: &Member, now: Instant) {
        let (held, lacks) = (member.held.len(), member.lacks.len());
        if lacks == 0 {
            return;
        }
        self.is_back(served);
        if self.0.len() >= MAX_GONE {
            self.0.pop_front();
        }
        self.0.push_back(Node { served, held, wanted: held.saturating_add(lacks), at: now });
    }

    /// It has joined again.
    pub(super) fn is_back(&mut self, served: SocketAddr) {
        self.0.retain(|node| node.served != served);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The lines of `status` that tell of them.
    pub(super) fn status(&self, now: Instant) -> String {
        let mut text = String::new();
        for Node { served, held, wanted, at } in &self.0 {
            let age = seconds(now.saturating_duration_since(*at));
            let _ = writeln!(text, "gone={served} held={held}/{wanted} quiet_seconds={age}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::Conn;
    use crate::image::chunks::Layout;
    use crate::serve::members::Members;
    use crate::swarm::rules::Rules;

    #[test]
    fn who_went_away_first_gives_way() {
        let layout = Layout::for_image(1 << 20);
        let now = Instant::now();
        let mut members = Members::new(layout, Rules::default(), 1);
        for n in 0..=MAX_GONE as u8 {
            let conn = Conn(u64::from(n));
            members.connected(conn, ([10, 0, 0, n], 50_000).into(), now);
            members.joined(conn, 20_004);
            members.wants(conn, layout.iter());
            members.disconnected(conn, now);
        }
        let status = members.status_of_gone(now);
        assert_eq!(status.lines().count(), MAX_GONE);
        assert!(!status.contains("gone=10.0.0.0:"), "{status}");
    }
}
