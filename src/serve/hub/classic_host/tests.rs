//! Whom classic clients are sent to, told from the side of their connections.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::conn::Conn;
use crate::control::Control;
use crate::image::manifest::tests::sample;
use crate::image::manifest::{Entry, Listing, Manifest};
use crate::serve::session::Host;
use crate::serve::tree::Tree;
use crate::swarm::rules::Rules;

struct Cluster {
    hub: Hub,
    file: usize,
    now: Instant,
}

impl Cluster {
    /// A master with five connections, 10.0.0.1 to 10.0.0.5.
    fn new() -> Cluster {
        let tree = Arc::new(Tree::new(Arc::new(sample())));
        let Some(Node::Entry(file)) = tree.walk(crate::serve::tree::ROOT, b"boot.cfg") else {
            panic!()
        };
        let mut hub = Hub::master(tree, 4, Rules::default(), 1);
        let now = Instant::now();
        for n in 1..=5 {
            hub.connected(Conn(n), format!("10.0.0.{n}:5000").parse().unwrap(), now);
        }
        Cluster { hub, file, now }
    }

    fn at(&self, n: u64) -> At {
        At { conn: Conn(n), now: self.now }
    }

    fn redir(&mut self, n: u64) -> String {
        self.hub.classic_redirect(self.at(n), self.file)
    }

    /// Asks where to go, and offers the file as original clients do.
    fn fetch(&mut self, n: u64) -> String {
        let redir = self.redir(n);
        let text = format!("{} {redir}\0", 7000 + n);
        self.hub.classic_offer(self.at(n), self.file, text.as_bytes()).unwrap();
        redir
    }

    fn status(&mut self) -> String {
        let bytes = self.hub.open(self.at(9), Control::Status).unwrap().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

#[test]
fn the_address_is_the_connections_and_only_the_port_is_taken_from_the_text() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.fetch(1), "me");
    assert_eq!(cluster.redir(2), "10.0.0.1!7001");
}

#[test]
fn a_client_of_many_files_is_sent_to_one_address_for_a_few() {
    let mut cluster = Cluster::new();
    cluster.fetch(1);
    cluster.hub.classic_seen(cluster.at(2));
    let told: Vec<String> = (0..100).map(|_| cluster.redir(2)).collect();
    assert_eq!(told.iter().filter(|to| *to == "10.0.0.1!7001").count(), 10);
    assert_eq!(cluster.redir(3), "10.0.0.1!7001", "another one is sent there");
}

#[test]
fn clients_that_come_at_once_form_a_tree_and_not_a_chain() {
    let mut cluster = Cluster::new();
    let told: Vec<String> = (1..=5).map(|n| cluster.fetch(n)).collect();
    assert_eq!(told[0], "me");
    let mut sources = told.clone();
    sources.sort();
    sources.dedup();
    assert!(sources.len() < told.len(), "some have several clients: {told:?}");
}

#[test]
fn a_client_that_asks_again_is_not_sent_to_its_own_clients() {
    let mut cluster = Cluster::new();
    cluster.fetch(1);
    cluster.fetch(2);
    assert_eq!(cluster.redir(1), "me");
}

#[test]
fn a_client_that_withdraws_or_hangs_up_is_no_longer_named_or_counted() {
    let mut cluster = Cluster::new();
    cluster.fetch(1);
    assert!(cluster.status().contains("serves_files=1 serves=10.0.0.1:7001"));
    cluster.hub.classic_withdraw(cluster.at(1), cluster.file);
    assert!(cluster.status().contains("serves_files=0"));
    assert_eq!(cluster.fetch(2), "me");
    cluster.hub.disconnected(Conn(2), cluster.now);
    assert_eq!(cluster.redir(3), "me");
}

/// The tree with another `boot.cfg`, or with nothing but another directory.
fn changed(file_too: bool) -> Arc<Tree> {
    let later = |mut entry: Entry| {
        let name = entry.path.name();
        if name == b"boot" || (file_too && name == b"boot.cfg") {
            entry.mtime.secs += 1;
        }
        entry
    };
    let old = sample();
    let entries = old.listing().entries().map(later).collect();
    let listing = Listing::new(entries).unwrap();
    let hashes = old.layout().iter().filter_map(|chunk| old.hash(chunk).copied()).collect();
    Arc::new(Tree::new(Arc::new(Manifest::new(listing, hashes).unwrap())))
}

#[test]
fn a_client_that_fetches_a_changed_file_from_another_client_is_hung_up_on() {
    let mut cluster = Cluster::new();
    cluster.fetch(1);
    cluster.hub.classic_checksum(cluster.at(1), cluster.file);
    let (tree, segment) = cluster.hub.next_checksum().unwrap();
    cluster.hub.checksum_found(&tree, segment.entry, Some(17));
    cluster.hub.classic_checksum(cluster.at(1), cluster.file);
    cluster.fetch(2);
    cluster.hub.publish(changed(true), 4, 1, cluster.now);
    // The first has the whole file, and has it right.
    let lost: Vec<u64> = (1..=5).filter(|n| cluster.hub.classic_is_lost(cluster.at(*n))).collect();
    assert_eq!(lost, [2]);
    cluster.hub.disconnected(Conn(2), cluster.now);
    assert!(!cluster.hub.classic_is_lost(cluster.at(2)));
}

#[test]
fn a_client_that_fetches_an_unchanged_file_from_another_client_goes_on() {
    let mut cluster = Cluster::new();
    cluster.fetch(1);
    cluster.hub.publish(changed(false), 4, 1, cluster.now);
    assert!(!cluster.hub.classic_is_lost(cluster.at(1)));
}

#[test]
fn a_new_node_is_named_once_it_holds_everything_and_serves_files() {
    for (files, named) in [(" files", "10.0.0.1!20004"), ("", "me")] {
        let mut cluster = Cluster::new();
        let generation = cluster.hub.tree().manifest().generation().to_hex();
        let text = format!("20004 {generation}{files}\n");
        cluster.hub.write(cluster.at(1), Control::Avail, text.as_bytes()).unwrap();
        assert_eq!(cluster.redir(2), "me");
        let held = format!("held 0-{}\n", cluster.hub.layout().count() - 1);
        cluster.hub.write(cluster.at(1), Control::Next, held.as_bytes()).unwrap();
        assert_eq!(cluster.redir(2), named);
    }
}

#[test]
fn a_new_node_is_never_told_of_a_classic_client() {
    let mut cluster = Cluster::new();
    cluster.fetch(1);
    let redir = cluster.hub.open(cluster.at(2), Control::Redir).unwrap().unwrap();
    assert_eq!(&redir[..], b"");
}

#[test]
fn a_checksum_is_computed_once_for_all_clients() {
    let mut cluster = Cluster::new();
    let (one, two) = (cluster.at(1), cluster.at(2));
    assert_eq!(cluster.hub.classic_checksum(one, cluster.file), Answer::Wait);
    assert_eq!(cluster.hub.classic_checksum(two, cluster.file), Answer::Wait);
    let (tree, segment) = cluster.hub.next_checksum().unwrap();
    assert!(cluster.hub.next_checksum().is_none());
    cluster.hub.checksum_found(&tree, segment.entry, Some(17));
    assert_eq!(cluster.hub.take_wakes(), [Conn(1), Conn(2)].into());
    assert_eq!(cluster.hub.classic_checksum(one, cluster.file), Answer::Now(17));
}

#[test]
fn a_malformed_offer_is_refused() {
    let mut cluster = Cluster::new();
    for text in [&b""[..], b"0 me\0", b"65536 me\0", b"\xff me\0", b"x"] {
        let refused = cluster.hub.classic_offer(cluster.at(1), cluster.file, text);
        assert_eq!(refused, Err(Errno::EINVAL), "{text:?}");
    }
}
