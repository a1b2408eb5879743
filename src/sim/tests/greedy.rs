//! One host with a thousand connections to the master, beside honest nodes that start when it has them.

use super::*;

const CONNECTIONS: usize = 1000;

/// The time of the last of so many honest nodes beside a greedy host, over its time without it.
fn delay(greed: Greed, honest: usize, seed: u64) -> f64 {
    let mut scenario = Scenario { blank: true, ..cluster(honest, 8, seed) };
    for node in &mut scenario.nodes {
        node.starts = Duration::from_secs(1);
    }
    let last = |scenario: &Scenario| {
        let times = run(scenario).times;
        times.iter().take(honest).map(|time| time.unwrap()).max().unwrap().as_secs_f64()
    };
    let alone = last(&scenario);
    let greedy = Some(Greedy { greed, connections: CONNECTIONS });
    scenario.nodes.push(NodePlan { greedy, starts: Duration::ZERO, ..scenario.nodes[0] });
    last(&scenario) / alone
}

#[track_caller]
fn assert_delays_little(greed: Greed) {
    for (honest, most) in [(1, 2.0), (16, 1.2)] {
        for seed in 1..=3 {
            let delay = delay(greed, honest, seed);
            assert!(delay <= most, "{greed:?}: {honest} honest nodes, seed {seed}: {delay}");
        }
    }
}

#[test]
fn readers_that_take_little_of_the_image_delay_the_others_a_little() {
    assert_delays_little(Greed::Image);
}

#[test]
fn readers_that_take_the_image_as_fast_as_it_comes_delay_the_others_a_little() {
    assert_delays_little(Greed::Readers);
}

#[test]
fn readers_that_never_end_the_manifest_delay_the_others_a_little() {
    assert_delays_little(Greed::Manifest);
}

#[test]
fn nodes_that_take_grants_and_fetch_nothing_delay_the_others_a_little() {
    assert_delays_little(Greed::Grants);
}

#[test]
fn a_host_that_says_that_it_holds_everything_delays_the_others_a_little() {
    assert_delays_little(Greed::Held);
}
