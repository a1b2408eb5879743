mod disks;
mod faults;
mod greedy;
mod hearsay;
// The rules are the same in both builds, and their comparisons take minutes.
#[cfg(feature = "master")]
mod rules;

use super::*;
use crate::random::next_random;
use crate::testing::for_seeds;

const MIB: u64 = 1 << 20;
/// 100 Mbit/s.
const RATE: u64 = 12_500_000;

fn link(rate: u64, delay_us: u64) -> HostLink {
    let delay = Duration::from_micros(delay_us);
    HostLink { up_bytes_per_s: rate, down_bytes_per_s: rate, delay }
}

fn cluster(nodes: usize, mib: u64, seed: u64) -> Scenario {
    let link_of_node = link(RATE, 50);
    let node = NodePlan {
        link: link_of_node,
        starts: Duration::ZERO,
        lies: false,
        dead_addresses: 0,
        greedy: None,
    };
    Scenario {
        seed,
        image_bytes: mib * MIB + 12_345,
        rules: Rules::default(),
        master_slots: 4,
        master: link(RATE, 50),
        blank: false,
        master_leaves: false,
        nodes: vec![node; nodes],
        racks: Racks { nodes: 64, uplink_bytes_per_s: None },
        events: Vec::new(),
        limit: Duration::from_secs(60),
    }
}

/// The time that one node's link alone would take.
fn floor(scenario: &Scenario) -> Duration {
    Duration::from_secs_f64(scenario.image_bytes as f64 / RATE as f64)
}

#[track_caller]
fn run(scenario: &Scenario) -> Outcome {
    match scenario.run(Instant::now()) {
        Ok(outcome) => outcome,
        Err(violation) => panic!("seed {}: {violation}", scenario.seed),
    }
}

/// The last node's time over S/B. All nodes must have finished.
fn ratio(scenario: &Scenario, outcome: &Outcome) -> f64 {
    let last = outcome.times.iter().map(|time| time.unwrap()).max().unwrap();
    last.as_secs_f64() / floor(scenario).as_secs_f64()
}

fn copies_from_master(scenario: &Scenario, outcome: &Outcome) -> f64 {
    outcome.master_bytes as f64 / scenario.image_bytes as f64
}

#[test]
fn one_node_is_as_fast_as_a_plain_download() {
    let scenario = cluster(1, 8, 1);
    let outcome = run(&scenario);
    assert!(ratio(&scenario, &outcome) < 1.02, "{outcome:?}");
    assert_eq!(outcome.master_bytes, scenario.image_bytes);
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let mut scenario = cluster(9, 4, 7);
    scenario.events.push((Duration::from_millis(200), ScenarioEvent::PowerOff(HostId(3))));
    let outcome = run(&scenario);
    assert_eq!(run(&scenario), outcome);
    scenario.seed = 8;
    assert_ne!(run(&scenario), outcome);
}

#[test]
fn many_nodes_take_little_longer_than_one() {
    for (nodes, mib, most) in [(2, 8, 1.1), (8, 8, 1.2), (32, 16, 1.3)] {
        let scenario = cluster(nodes, mib, 1);
        let outcome = run(&scenario);
        assert!(ratio(&scenario, &outcome) < most, "{nodes} nodes: {outcome:?}");
        assert!(copies_from_master(&scenario, &outcome) < 1.3, "{nodes} nodes: {outcome:?}");
    }
}

#[test]
fn a_node_that_starts_late_fetches_from_nodes_that_are_whole() {
    let mut scenario = cluster(8, 8, 1);
    for (i, node) in scenario.nodes.iter_mut().enumerate() {
        node.starts = Duration::from_millis(i as u64 * 400);
    }
    let outcome = run(&scenario);
    assert!(ratio(&scenario, &outcome) < 1.3, "{outcome:?}");
    assert!(copies_from_master(&scenario, &outcome) < 2.5, "{outcome:?}");
}

#[test]
fn nodes_that_lose_their_power_do_not_delay_the_others() {
    let mut scenario = cluster(10, 8, 1);
    for (host, at) in [(2, 150), (7, 400)] {
        scenario.events.push((Duration::from_millis(at), ScenarioEvent::PowerOff(HostId(host))));
    }
    let outcome = run(&scenario);
    assert_eq!(outcome.times.iter().flatten().count(), 8);
    assert!(outcome.end < Duration::from_secs(8), "{outcome:?}");
}

#[test]
fn nodes_finish_without_the_master_once_each_chunk_is_out() {
    for event in [ScenarioEvent::Kill(HostId::MASTER), ScenarioEvent::PowerOff(HostId::MASTER)] {
        let mut scenario = cluster(6, 8, 1);
        scenario.nodes[5].starts = Duration::from_millis(500);
        // By then every chunk is out once.
        scenario.events.push((floor(&scenario).mul_f64(1.15), event));
        let outcome = run(&scenario);
        assert_eq!(outcome.times.iter().flatten().count(), 6);
    }
}

#[test]
fn nodes_finish_when_the_master_restarts() {
    let mut scenario = cluster(4, 8, 1);
    scenario.events.push((Duration::from_millis(200), ScenarioEvent::Kill(HostId::MASTER)));
    scenario.events.push((Duration::from_millis(1500), ScenarioEvent::Start(HostId::MASTER)));
    let outcome = run(&scenario);
    assert_eq!(outcome.times.iter().flatten().count(), 4);
}

#[test]
fn nothing_is_kept_from_a_node_that_serves_wrong_bytes() {
    let mut scenario = cluster(8, 8, 1);
    scenario.nodes[2].lies = true;
    let outcome = run(&scenario);
    assert_eq!(outcome.bytes_from.get(&HostId(3)).copied().unwrap_or(0), 0);
    assert!(ratio(&scenario, &outcome) < 1.6, "{outcome:?}");
}

#[test]
fn a_source_that_stalls_is_replaced() {
    let mut scenario = cluster(4, 8, 1);
    let stall = ScenarioEvent::Stall(HostId(2), Duration::from_secs(20));
    scenario.events.push((Duration::from_millis(300), stall));
    let outcome = run(&scenario);
    let others = outcome.times.iter().flatten().filter(|time| **time < Duration::from_secs(8));
    assert_eq!(others.count(), 3, "{outcome:?}");
}

#[test]
fn a_slow_node_does_not_slow_the_others() {
    let mut scenario = cluster(8, 8, 1);
    scenario.nodes[0].link = link(RATE / 10, 50);
    let outcome = run(&scenario);
    let others = outcome.times.iter().skip(1).map(|time| time.unwrap()).max().unwrap();
    assert!(others < floor(&scenario).mul_f64(1.4), "{outcome:?}");
}

/// The node has many sources, each of which is silent for long.
#[test]
fn a_node_with_a_very_slow_link_finishes() {
    let mut scenario = cluster(6, 1, 1);
    scenario.nodes[0].link = link(RATE / 2500, 50);
    scenario.limit = Duration::from_secs(600);
    let outcome = run(&scenario);
    assert_eq!(outcome.times.iter().flatten().count(), 6);
}

/// The first reply takes minutes to arrive: nodes that reconnected meanwhile would never get it.
#[test]
fn all_nodes_finish_behind_a_very_slow_link_of_the_master() {
    let mut scenario = cluster(8, 0, 1);
    scenario.image_bytes = 100;
    scenario.master.up_bytes_per_s = 10;
    scenario.limit = Duration::from_secs(3600);
    let outcome = run(&scenario);
    assert_eq!(outcome.times.iter().flatten().count(), 8);
}

#[test]
fn a_long_delay_costs_little() {
    for (delay_us, most) in [(100, 1.2), (1000, 1.25), (5000, 1.5)] {
        let mut scenario = cluster(4, 8, 1);
        scenario.master.delay = Duration::from_micros(delay_us / 2);
        for node in &mut scenario.nodes {
            node.link.delay = Duration::from_micros(delay_us / 2);
        }
        let outcome = run(&scenario);
        assert!(ratio(&scenario, &outcome) < most, "{delay_us} us: {outcome:?}");
    }
}

#[test]
fn all_nodes_get_the_right_bytes_in_random_scenarios() {
    for_seeds(15, |seed| {
        let scenario = random_scenario(seed);
        if let Err(violation) = scenario.run(Instant::now()) {
            panic!("{violation}\n{scenario:#?}");
        }
    });
}

/// A small cluster with random faults.
fn random_scenario(seed: u64) -> Scenario {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |n: u64| (next_random(&mut state) >> 16) % n;
    let nodes = 1 + below(6);
    let mut scenario = cluster(nodes as usize, 0, seed);
    scenario.image_bytes = below(3 * MIB);
    scenario.master_slots = 1 + below(6) as usize;
    scenario.limit = Duration::from_secs(300);
    let millis = Duration::from_millis;
    for node in &mut scenario.nodes {
        let rate = RATE / (1 + below(3) * below(5));
        node.link = link(rate, below(3000));
        node.starts = millis(below(2) * below(400));
        node.lies = below(8) == 0;
    }
    for _ in 0..below(5) {
        let host = HostId(below(nodes + 1) as usize);
        let event = match (host, below(6)) {
            (HostId::MASTER, 0..3) => {
                let back = millis(500 + below(8000));
                scenario.events.push((back, ScenarioEvent::Start(HostId::MASTER)));
                if below(2) == 0 {
                    ScenarioEvent::Kill(host)
                } else {
                    ScenarioEvent::PowerOff(host)
                }
            }
            (_, 0) => ScenarioEvent::Kill(host),
            (_, 1) => ScenarioEvent::PowerOff(host),
            (_, 2) => ScenarioEvent::Stall(host, millis(below(6000))),
            (_, 3) => ScenarioEvent::DivideRate(host, 2 + below(9)),
            (_, 4) => ScenarioEvent::Start(host),
            (_, _) => ScenarioEvent::Cut(host),
        };
        scenario.events.push((millis(below(400)), event));
    }
    scenario
}
