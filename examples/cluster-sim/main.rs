//! Simulates clusters and prints how long they took: `cargo run --release --features simulator
//! --example cluster-sim -- --preset flat`. `--help` lists the options.

mod chart;
mod options;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use xget::random::next_random;
use xget::sim::{HostId, HostLink, NodePlan, Outcome, Racks, Scenario, ScenarioEvent};

use chart::Dot;
use options::Options;

/// A greedy host has this long, in seconds, before the nodes start.
const HEAD_START: f64 = 1.0;
/// Each node that misleads others names so many.
const DEAD_ADDRESSES: usize = 256;

fn main() -> ExitCode {
    match Options::parse().map_err(Into::into).and_then(|options| simulate(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cluster-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everybody was in time.
fn simulate(options: &Options) -> Result<bool, Box<dyn Error>> {
    println!(
        "nodes  seed  last/(S/B)  median/(S/B)  master/S  sent/(N*S)  into rack  requests/s  \
         busiest  took"
    );
    let mut in_time = true;
    let mut dots = Vec::new();
    for &nodes in &options.nodes {
        let mut runs = Vec::new();
        for seed in options.seed..options.seed + options.seeds {
            let began = Instant::now();
            let outcome = scenario(options, nodes, seed).run(began)?;
            runs.push(print(options, nodes, seed, &outcome, began.elapsed()));
        }
        let dot = Dot::new(nodes, &runs);
        if options.seeds > 1 {
            println!("{nodes:5}  mean  {:10.3}  {:22.2}", dot.last, dot.master);
        }
        in_time &= options.bar.is_none_or(|bar| dot.worst <= bar);
        dots.push(dot);
    }
    if let Some(bar) = options.bar {
        println!("the bar is {bar}: {}", if in_time { "kept" } else { "MISSED" });
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, chart::draw(&dots))?;
    }
    Ok(in_time)
}

/// Prints a line; the last node's time over S/B, and the master's bytes over S.
fn print(
    options: &Options,
    nodes: u64,
    seed: u64,
    outcome: &Outcome,
    took: Duration,
) -> (f64, f64) {
    let size = options.size as f64;
    let sound = outcome.times.iter().take(nodes as usize).skip(options.slow as usize).flatten();
    let mut times: Vec<f64> = sound.map(|time| time.as_secs_f64() / options.floor()).collect();
    times.sort_by(f64::total_cmp);
    let last = times.last().copied().unwrap_or_default();
    let racks = nodes.div_ceil(options.rack as u64) as f64;
    let into_racks = outcome.image_bytes_into_racks.iter().sum::<u64>() as f64 / racks / size;
    let requests = &outcome.master_requests;
    let master = outcome.master_bytes as f64 / size;
    println!(
        "{nodes:5} {seed:5}  {last:10.3}  {:12.3}  {master:8.2}  {:10.2}  {into_racks:9.2}  {:10.0}  \
         {:7}  {:.1} s",
        times.get(times.len() / 2).copied().unwrap_or_default(),
        outcome.sent_bytes as f64 / size / nodes as f64,
        requests.iter().sum::<u64>() as f64 / outcome.end.as_secs_f64(),
        requests.iter().max().copied().unwrap_or_default(),
        took.as_secs_f64(),
    );
    (last, master)
}

fn scenario(options: &Options, nodes: u64, seed: u64) -> Scenario {
    let mut random = seed | 1;
    let mut below = |n: f64| next_random(&mut random) as f64 / u64::MAX as f64 * n;
    let link = |up: u64, down: u64| HostLink {
        up_bytes_per_s: up / 8,
        down_bytes_per_s: down / 8,
        delay: options.delay / 2,
    };
    let (up, down) = (options.up.unwrap_or(options.rate), options.down.unwrap_or(options.rate));
    let plan = |n: u64, starts: f64| NodePlan {
        link: if n < options.slow { link(up / 10, down / 10) } else { link(up, down) },
        starts: Duration::from_secs_f64(starts),
        lies: (options.slow..options.slow + options.liars).contains(&n),
        dead_addresses: if n < nodes { 0 } else { DEAD_ADDRESSES },
        greedy: None,
    };
    let spread = options.spread;
    let head_start = if options.greedy.is_some() { HEAD_START } else { 0.0 };
    let all = 0..nodes + options.misleading;
    let mut plans: Vec<_> = all.map(|n| plan(n, head_start + below(spread))).collect();
    let host = plan(nodes, 0.0);
    let greedy = options.greedy.map(|greedy| NodePlan { greedy: Some(greedy), ..host });
    plans.extend(greedy);
    let stall = |host| ScenarioEvent::Stall(host, Duration::from_secs(5));
    let faults = (0..options.kill + options.stall).take(nodes as usize).map(|n| {
        let host = HostId((nodes - n) as usize);
        let at = options.at.unwrap_or_else(|| below(options.floor()));
        let event = if n < options.kill { ScenarioEvent::PowerOff(host) } else { stall(host) };
        (Duration::from_secs_f64(at), event)
    });
    let events = faults.collect();
    let master_rate = options.master_rate.unwrap_or(options.rate);
    Scenario {
        seed,
        image_bytes: options.size,
        blank: !options.varied,
        rules: options.rules,
        master_slots: options.slots,
        master: link(master_rate, master_rate),
        master_leaves: options.master_leaves,
        nodes: plans,
        racks: Racks {
            nodes: options.rack,
            uplink_bytes_per_s: options.uplink.map(|bits_per_s| bits_per_s / 8),
        },
        events,
        limit: Duration::from_secs_f64(spread + 60.0 + options.floor() * 20.0),
    }
}
