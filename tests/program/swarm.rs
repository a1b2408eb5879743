//! Several nodes at once, on loopback: every copy is right, whoever it came from.

use std::net::SocketAddr;
use std::path::Path;

use crate::common::files::{Temp, assert_same_tree, noise};
use crate::common::road::Road;
use crate::common::{Master, Running, client, node, program, wait_for, xget};

const MIB: usize = 1 << 20;

#[test]
fn many_clients_at_once_all_get_right_copies() {
    let temp = Temp::new();
    let served = tree(&temp, 8 * MIB);
    let master = Master::of(&served);
    let clients: Vec<Running> =
        (0..12).map(|i| fetching(master.address, &temp.at(&format!("dest{i}")))).collect();
    for client in clients {
        client.finish().succeeds();
    }
    for i in 0..12 {
        assert_same_tree(&served, &temp.at(&format!("dest{i}")));
    }
}

#[test]
fn a_client_draws_from_a_node_that_is_whole() {
    let temp = Temp::new();
    let served = tree(&temp, 8 * MIB);
    let master = Master::of(&served);
    let first = node(master.address, temp.at("first"));
    first.wait_until_it_says("xget: fetched ");
    serving(master.address, 1);
    let run = fetching(master.address, &temp.at("second")).finish().succeeds();
    assert!(run.stderr.contains("from 1 node"), "{}", run.stderr);
    assert_same_tree(&served, &temp.at("second"));
}

#[test]
fn a_client_whose_master_dies_finishes_from_another_node() {
    let temp = Temp::new();
    let served = tree(&temp, 16 * MIB);
    let mut master = Master::of(&served);
    let whole = node(master.address, temp.at("whole"));
    whole.wait_until_it_says("xget: fetched ");
    serving(master.address, 1);
    // Stalled, so that the late one begins at the master.
    whole.stall(true);
    let road = Road::to(master.address, 2 * MIB as u64);
    let late = fetching(road.address, &temp.at("late"));
    road.wait_until_passed(MIB as u64);
    master.running.kill();
    whole.stall(false);
    late.finish().succeeds();
    assert_same_tree(&served, &temp.at("late"));
}

#[test]
fn a_node_can_be_named_as_the_server_when_the_master_is_gone() {
    let temp = Temp::new();
    let served = tree(&temp, 4 * MIB);
    let mut master = Master::of(&served);
    let first = node(master.address, temp.at("first"));
    first.wait_until_it_says("xget: fetched ");
    let address = serving(master.address, 1)[0];
    master.running.kill();
    fetching(address, &temp.at("second")).finish().succeeds();
    assert_same_tree(&served, &temp.at("second"));
}

#[test]
fn a_node_joins_through_another_that_is_still_fetching() {
    let temp = Temp::new();
    let served = tree(&temp, 8 * MIB);
    let master = Master::of(&served);
    let road = Road::to(master.address, 3 * MIB as u64);
    let first = node(road.address, temp.at("first"));
    let address = serving(master.address, 1)[0];
    let second = fetching(address, &temp.at("second"));
    first.wait_until_it_says("xget: fetched ");
    second.finish().succeeds();
    assert_same_tree(&served, &temp.at("first"));
    assert_same_tree(&served, &temp.at("second"));
}

#[test]
fn the_master_shows_who_is_gone_and_does_not_miss_who_was_whole() {
    let temp = Temp::new();
    let served = tree(&temp, 4 * MIB);
    let master = Master::of(&served);
    let mut whole = node(master.address, temp.at("whole"));
    // It says so to people a little before the master hears of it.
    wait_for("it to be whole", || {
        let status = master.status();
        let held = status.split("\nnode=").nth(1)?.split(" held=").nth(1)?.split(' ').next()?;
        held.split_once('/').filter(|(held, wanted)| held == wanted && *held != "0").map(|_| ())
    });
    let there = serving(master.address, 1)[0];
    whole.kill();
    wait_for("it to be gone", || (!master.status().contains("node=")).then_some(()));
    assert!(!master.status().contains("gone="), "{}", master.status());
    let road = Road::to(master.address, MIB as u64);
    let mut dies = node(road.address, temp.at("dies"));
    let dying = serving(master.address, 1)[0];
    assert_ne!(dying, there);
    road.wait_until_passed(MIB as u64);
    dies.kill();
    let gone = format!("gone={dying} held=");
    wait_for("it to be gone", || master.status().contains(&gone).then_some(()));
}

#[test]
fn a_killed_node_does_not_keep_others_from_finishing() {
    let temp = Temp::new();
    let served = tree(&temp, 12 * MIB);
    let master = Master::of(&served);
    let road = Road::to(master.address, 4 * MIB as u64);
    let mut dies = node(road.address, temp.at("dies"));
    serving(master.address, 1);
    let lives = fetching(road.address, &temp.at("lives"));
    road.wait_until_passed(4 * MIB as u64);
    dies.kill();
    lives.finish().succeeds();
    assert_same_tree(&served, &temp.at("lives"));
}

#[test]
fn nodes_that_ask_for_different_files_help_each_other() {
    let temp = Temp::new();
    let served = tree(&temp, 4 * MIB);
    let master = Master::of(&served);
    let mut everything = fetching(master.address, &temp.at("all"));
    let mut command = client(master.address, &[]);
    command.args(["sub/small", "image"]).arg(temp.at("part"));
    let part = Running::start(command);
    part.finish().succeeds();
    wait_for("the end of the other", || (!everything.is_running()).then_some(()));
    assert_same_tree(&served, &temp.at("all"));
    assert_eq!(crate::common::files::names(&temp.at("part")), ["image", "small"]);
}

// Helpers of these tests.

/// A large file and a few small ones.
fn tree(temp: &Temp, bytes: usize) -> std::path::PathBuf {
    temp.file("served/image", noise(1, bytes));
    temp.file("served/sub/small", "small");
    for i in 0..50 {
        temp.file(&format!("served/sub/{i}"), noise(i, 1000 * i as usize));
    }
    temp.at("served")
}

/// A client of everything that serves as long as it is wanted.
fn fetching(server: SocketAddr, dest: &Path) -> Running {
    let mut command = program(["-p", "0", "--listen", "127.0.0.1", "-n", &server.to_string()]);
    command.arg(".").arg(dest);
    Running::start(command)
}

/// Waits until a server knows so many nodes; where they serve.
fn serving(server: SocketAddr, nodes: usize) -> Vec<SocketAddr> {
    wait_for("nodes that serve", || {
        let run = xget(["--status", "--raw", "-n", &server.to_string()]).succeeds();
        let words = run.text().split_whitespace();
        let found: Vec<SocketAddr> =
            words.filter_map(|word| word.strip_prefix("node=")?.parse().ok()).collect();
        (found.len() >= nodes).then_some(found)
    })
}
