//! Nodes that hold nothing and name 256 addresses each at which there is no host, half of which never answer.

use super::*;

const DEAD_ADDRESSES: usize = 256;

fn blank(nodes: usize) -> Scenario {
    Scenario { blank: true, ..cluster(nodes, 8, 1) }
}

fn misleading(scenario: &mut Scenario, nodes: usize) {
    let node = NodePlan { link: link(RATE, 50), ..scenario.nodes[0] };
    scenario.nodes.extend(vec![NodePlan { dead_addresses: DEAD_ADDRESSES, ..node }; nodes]);
}

/// The time of the last of the first `honest` nodes beside so many that mislead them, over its time without those.
fn delay(scenario: &Scenario, honest: usize, count: usize) -> f64 {
    let last = |scenario: &Scenario| {
        let times = run(scenario).times;
        times.iter().take(honest).map(|time| time.unwrap()).max().unwrap().as_secs_f64()
    };
    let mut beside = scenario.clone();
    misleading(&mut beside, count);
    last(&beside) / last(scenario)
}

#[test]
fn nodes_that_name_dead_addresses_delay_the_others_a_little() {
    for (honest, count, most) in [(1, 1, 1.1), (1, 4, 1.1), (16, 1, 1.2), (16, 4, 1.2)] {
        let delay = delay(&blank(honest), honest, count);
        assert!(delay < most, "{honest} beside {count}: {delay}");
    }
}

/// A node that starts when another is whole, and whose master dies soon after that.
#[test]
fn a_late_node_finds_the_one_whole_node_among_dead_addresses_after_the_master_has_died() {
    let mut scenario = blank(2);
    let starts = floor(&scenario) * 2;
    scenario.nodes[1].starts = starts;
    let dies = starts + Duration::from_millis(200);
    scenario.events.push((dies, ScenarioEvent::PowerOff(HostId::MASTER)));
    for count in [1, 4] {
        let delay = delay(&scenario, 2, count);
        assert!(delay < 1.5, "beside {count}: {delay}");
    }
}

/// A node has heard of all the dead addresses when the one comes that will be whole, and the master dies.
#[test]
fn a_slow_node_finds_a_node_that_comes_after_the_dead_addresses() {
    let mut scenario = blank(2);
    scenario.nodes[1].link = link(RATE / 8, 50);
    scenario.nodes[0].starts = Duration::from_millis(1000);
    scenario.events.push((Duration::from_millis(2500), ScenarioEvent::PowerOff(HostId::MASTER)));
    for count in [1, 4] {
        let delay = delay(&scenario, 2, count);
        assert!(delay < 1.5, "beside {count}: {delay}");
    }
}
