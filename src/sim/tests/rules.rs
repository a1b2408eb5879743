//! What each of [`Rules`] is good for: the same small clusters with it and without it.

use super::*;

/// The last node's time over S/B, from its own start, and the master's bytes over S: means over three
/// seeds.
fn mean(scenario: &Scenario, rules: Rules) -> (f64, f64) {
    let runs = (1..=3).map(|seed| {
        let scenario = Scenario { seed, rules, ..scenario.clone() };
        let outcome = run(&scenario);
        let sound = scenario.nodes.iter().zip(&outcome.times);
        let sound = sound.filter(|(node, _)| node.link.up_bytes_per_s == RATE);
        let last = sound.filter_map(|(_, time)| *time).max().unwrap();
        let floor = floor(&scenario).as_secs_f64();
        (last.as_secs_f64() / floor, copies_from_master(&scenario, &outcome))
    });
    let (last, copies): (Vec<f64>, Vec<f64>) = runs.unzip();
    (last.iter().sum::<f64>() / 3.0, copies.iter().sum::<f64>() / 3.0)
}

fn blank(nodes: usize, mib: u64) -> Scenario {
    Scenario { blank: true, ..cluster(nodes, mib, 1) }
}

/// The nodes start one after the other, the last one after S/B.
fn spread(mut scenario: Scenario) -> Scenario {
    let (count, floor) = (scenario.nodes.len() as u32, floor(&scenario));
    for (i, node) in (0..).zip(&mut scenario.nodes) {
        node.starts = floor * i / count;
    }
    scenario
}

/// Sources are never replaced.
fn never_redrawn() -> Rules {
    let redraw_every = Duration::from_secs(1000);
    Rules { redraw_chunks: usize::MAX, redraw_every, ..Rules::default() }
}

#[test]
fn without_a_queued_request_links_are_idle_for_a_round_trip() {
    let mut scenario = blank(2, 16);
    for link in scenario.nodes.iter_mut().map(|node| &mut node.link).chain([&mut scenario.master]) {
        link.delay = Duration::from_millis(5);
    }
    let (last, _) = mean(&scenario, Rules::default());
    let (last_without, _) = mean(&scenario, Rules { peer_window: 1, ..Rules::default() });
    assert!(last_without > last * 1.1, "{last} {last_without}");
}

#[test]
fn slow_nodes_delay_the_others_a_little_not_ten_times() {
    let mut scenario = blank(48, 16);
    for node in scenario.nodes.iter_mut().step_by(3) {
        node.link = link(RATE / 10, 50);
    }
    let (last, _) = mean(&scenario, Rules::default());
    assert!(last < 1.6, "{last}");
}

#[test]
fn nodes_that_never_replace_sources_are_slower() {
    let scenario = spread(blank(32, 16));
    let (last, _) = mean(&scenario, Rules::default());
    // Nor do nodes connect back to those that fetch from them, which helps against the same.
    let never = Rules { max_peers: Rules::default().max_dialled, ..never_redrawn() };
    let (last_without, _) = mean(&scenario, never);
    assert!(last_without > last * 1.1, "{last} {last_without}");
}

#[test]
fn without_connections_back_to_fetching_nodes_links_are_unused() {
    let scenario = spread(blank(32, 16));
    let (last, _) = mean(&scenario, Rules::default());
    let (last_without, _) =
        mean(&scenario, Rules { max_peers: Rules::default().max_dialled, ..Rules::default() });
    assert!(last_without > last * 1.1, "{last} {last_without}");
}

#[test]
fn telling_all_readers_of_have_at_once_is_no_faster() {
    let scenario = blank(32, 16);
    let (few, _) = mean(&scenario, Rules::default());
    let (all, _) = mean(&scenario, Rules { told_at_once: usize::MAX, ..Rules::default() });
    assert!((few / all - 1.0).abs() < 0.03, "{few} {all}");
}

#[test]
fn near_sources_reduce_the_traffic_between_racks() {
    let racks = Racks { nodes: 16, uplink_bytes_per_s: None };
    let scenario = Scenario { racks, ..blank(96, 4) };
    let into_racks = |rules: Rules| {
        let outcome = run(&Scenario { rules, ..scenario.clone() });
        outcome.image_bytes_into_racks.iter().sum::<u64>() as f64
    };
    let with = into_racks(Rules::default());
    let without = into_racks(Rules { near_sources: 0, ..Rules::default() });
    assert!(without > with * 1.15, "{with} {without}");
}

/// Four racks with uplinks of a tenth of their nodes' rates together.
fn narrow_racks() -> Scenario {
    let racks = Racks { nodes: 16, uplink_bytes_per_s: Some(16 * RATE / 10) };
    Scenario { racks, ..blank(64, 16) }
}

/// The last node's time in seconds, and the bytes that came into racks, in [`narrow_racks`].
fn narrow(rules: Rules) -> (f64, f64) {
    let outcome = run(&Scenario { rules, ..narrow_racks() });
    let into_racks = outcome.image_bytes_into_racks.iter().sum::<u64>() as f64;
    (outcome.times.into_iter().flatten().max().unwrap().as_secs_f64(), into_racks)
}

#[test]
fn behind_narrow_uplinks_few_nodes_import_a_chunk_into_their_rack() {
    let (last, copies) = narrow(Rules::default());
    let (last_without, copies_without) = narrow(Rules { far_factor: 0, ..Rules::default() });
    assert!(last_without > last * 1.15, "{last} {last_without}");
    assert!(copies_without > copies * 1.5, "{copies} {copies_without}");
}

#[test]
fn with_little_patience_more_nodes_import_a_chunk() {
    let (_, copies) = narrow(Rules::default());
    let impatient = Rules { import_patience_factor: 8, ..Rules::default() };
    let (_, copies_without) = narrow(impatient);
    assert!(copies_without > copies * 1.3, "{copies} {copies_without}");
}

#[test]
fn nodes_that_die_while_they_import_chunks_delay_the_others_a_little() {
    let at = |host| (Duration::from_millis(700), ScenarioEvent::PowerOff(HostId(host)));
    let events = [1, 5, 17, 21, 33, 37].map(at).to_vec();
    let scenario = Scenario { events, ..narrow_racks() };
    let (last, _) = narrow(Rules::default());
    let outcome = run(&scenario);
    let last_of_the_others = outcome.times.into_iter().flatten().max().unwrap().as_secs_f64();
    assert!(last_of_the_others < last * 2.0, "{last} {last_of_the_others}");
}

#[test]
fn nodes_that_keep_slow_far_sources_are_slower() {
    let (last, _) = narrow(Rules::default());
    let (last_without, _) = narrow(Rules { far_kept: usize::MAX, ..Rules::default() });
    assert!(last_without > last * 1.1, "{last} {last_without}");
}

#[test]
fn few_uploads_at_a_time_are_as_fast_as_many() {
    let scenario = blank(16, 16);
    let (few, _) = mean(&scenario, Rules { upload_slots: 2, ..Rules::default() });
    let (many, _) = mean(&scenario, Rules { upload_slots: 32, ..Rules::default() });
    assert!((few / many - 1.0).abs() < 0.05, "{few} {many}");
}
