//! Many faults at once: nodes and the master are killed and start again with what is on their disks, disks
//! are full or cannot be read, connections break, reads and writes are short, sources stall and serve
//! wrong bytes. At every step files that were not verified have no final name, and a node holds what it
//! reports as held; in the end all nodes have all files.

use super::disks::Disks;
use super::*;
use crate::sim::cluster::Cluster;
use crate::sim::host::Served;

#[test]
fn under_all_faults_nothing_unverified_is_kept_and_nothing_verified_is_lost() {
    for_seeds(50, |seed| {
        if let Err(why) = run_with_disks(seed) {
            panic!("{why}");
        }
    });
}

#[test]
fn the_same_seed_has_the_same_outcome_with_disks_that_fail() {
    for seed in 1..=5 {
        assert_eq!(run_with_disks(seed), run_with_disks(seed));
    }
    assert_ne!(run_with_disks(1), run_with_disks(2));
}

/// Runs a scenario with a disk for each node.
fn run_with_disks(seed: u64) -> Result<Outcome, String> {
    let scenario = faulty_scenario(seed);
    let mut disks = Disks::new(seed);
    let start = Some(Box::new(|id: HostId, served: &Served| disks.start(id, served)) as _);
    let cluster = Cluster::new(&scenario, start, Instant::now());
    let mut cluster = cluster.map_err(|why| why.to_string())?;
    cluster.net.shorten_io(seed);
    let served = cluster.served.clone();
    let outcome = cluster.run().map_err(|why| format!("{why}\n{scenario:#?}"))?;
    for (id, time) in (1..).map(HostId).zip(&outcome.times) {
        if time.is_some() {
            disks.check_whole(id, &served).map_err(|why| format!("host {}: {why}", id.0))?;
        }
    }
    Ok(outcome)
}

/// A random scenario with a small image, in which most hosts that are killed start again.
fn faulty_scenario(seed: u64) -> Scenario {
    let mut scenario = random_scenario(seed);
    let mut state = seed.wrapping_mul(0xD1B5_4A32_D192_ED03) | 1;
    let mut below = |n: u64| (next_random(&mut state) >> 16) % n;
    scenario.image_bytes = below(14) * below(1 << 16) + below(1000);
    // A node behind 5 kB/s that ends and starts again has minutes of older data before it each time.
    scenario.limit = Duration::from_secs(1800);
    for node in &mut scenario.nodes {
        node.link.up_bytes_per_s = (node.link.up_bytes_per_s >> below(6)).max(100_000);
        node.link.down_bytes_per_s = (node.link.down_bytes_per_s >> below(6)).max(100_000);
    }
    let killed = scenario.events.clone().into_iter().filter_map(|(at, event)| match event {
        ScenarioEvent::Kill(host) | ScenarioEvent::PowerOff(host) => Some((at, host)),
        _ => None,
    });
    for (at, host) in killed.collect::<Vec<_>>() {
        if below(4) > 0 {
            let back = at + Duration::from_millis(below(3000));
            scenario.events.push((back, ScenarioEvent::Start(host)));
        }
    }
    for _ in 0..below(4) {
        let host = HostId(1 + below(scenario.nodes.len() as u64) as usize);
        let at = Duration::from_millis(below(1500));
        let event =
            if below(2) == 0 { ScenarioEvent::Start(host) } else { ScenarioEvent::Cut(host) };
        scenario.events.push((at, event));
    }
    scenario
}
