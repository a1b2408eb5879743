//! Simulates a cluster and prints how long it took: `cargo run --release --example cluster-sim --
//! -n 16 --size 64M --rate 100M`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use xget::sim::{Event, HostId, Link, NodePlan, Outcome, Scenario};
use xget::swarm::members::next_random;
use xget::swarm::rules::Rules;

const USAGE: &str = "usage: cluster-sim [-n NODES[,NODES...]] [--size BYTES] [--rate BITS_PER_S]
    [--master-rate BITS_PER_S] [--delay-us MICROSECONDS] [--slots NODES] [--seed SEED]
    [--seeds COUNT] [--stagger SECONDS] [--kill NODES] [--slow NODES] [--liars NODES]
Numbers may end in K, M or G: powers of 1024 for bytes, of 1000 for rates.";

#[derive(Clone)]
struct Options {
    nodes: Vec<u64>,
    size: u64,
    rate: u64,
    master_rate: Option<u64>,
    delay: Duration,
    slots: usize,
    seed: u64,
    seeds: u64,
    stagger: Duration,
    kill: u64,
    slow: u64,
    liars: u64,
}

fn main() -> ExitCode {
    match options().map_err(Into::into).and_then(|options| simulate(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        nodes: vec![16],
        size: 64 << 20,
        rate: 100_000_000,
        master_rate: None,
        delay: Duration::from_micros(100),
        slots: 4,
        seed: 1,
        seeds: 1,
        stagger: Duration::ZERO,
        kill: 0,
        slow: 0,
        liars: 0,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            Short('n') => {
                let counts = parser.value()?.string()?;
                let counts: Result<_, _> = counts.split(',').map(str::parse).collect();
                options.nodes = counts.map_err(|_| "-n wants numbers")?;
            }
            Long("size") => options.size = number(&parser.value()?.string()?, 1024)?,
            Long("rate") => options.rate = number(&parser.value()?.string()?, 1000)?,
            Long("master-rate") => {
                options.master_rate = Some(number(&parser.value()?.string()?, 1000)?);
            }
            Long("delay-us") => options.delay = Duration::from_micros(parser.value()?.parse()?),
            Long("slots") => options.slots = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("seeds") => options.seeds = parser.value()?.parse()?,
            Long("stagger") => {
                options.stagger = Duration::from_secs_f64(parser.value()?.parse()?);
            }
            Long("kill") => options.kill = parser.value()?.parse()?,
            Long("slow") => options.slow = parser.value()?.parse()?,
            Long("liars") => options.liars = parser.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

/// A number, and after it perhaps a letter that stands for a power of `base`.
fn number(text: &str, base: u64) -> Result<u64, lexopt::Error> {
    let (digits, power) = match text.chars().last() {
        Some('K') => (text.trim_end_matches('K'), 1),
        Some('M') => (text.trim_end_matches('M'), 2),
        Some('G') => (text.trim_end_matches('G'), 3),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(base.pow(power)));
    number.ok_or_else(|| format!("{text} is no number").into())
}

fn simulate(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("nodes  seed  last/(S/B)  median/(S/B)  master/S  sent/(N*S)  messages/s  took");
    for &nodes in &options.nodes {
        let mut sum = 0.0;
        for seed in options.seed..options.seed + options.seeds {
            let began = Instant::now();
            let outcome = scenario(options, nodes, seed).run(began)?;
            sum += print(options, nodes, seed, &outcome, began.elapsed());
        }
        if options.seeds > 1 {
            println!("{nodes:5}  mean  {:10.3}", sum / options.seeds as f64);
        }
    }
    Ok(())
}

/// Prints a line; the time of the last node that is not slow, over S/B.
fn print(options: &Options, nodes: u64, seed: u64, outcome: &Outcome, took: Duration) -> f64 {
    let size = options.size as f64;
    let floor = size * 8.0 / options.rate as f64;
    let sound = outcome.times.iter().skip(options.slow as usize).flatten();
    let last = sound.max().copied().unwrap_or_default();
    let last = last.as_secs_f64() / floor;
    println!(
        "{nodes:5} {seed:5}  {last:10.3}  {:12.3}  {:8.2}  {:10.2}  {:10.0}  {:.1} s",
        outcome.median().as_secs_f64() / floor,
        outcome.master_bytes as f64 / size,
        outcome.sent_bytes as f64 / size / nodes as f64,
        outcome.master_messages.iter().sum::<u64>() as f64 / outcome.end.as_secs_f64(),
        took.as_secs_f64(),
    );
    last
}

fn scenario(options: &Options, nodes: u64, seed: u64) -> Scenario {
    let mut random = seed | 1;
    let mut below = |n: f64| next_random(&mut random) as f64 / u64::MAX as f64 * n;
    let link = |bits_per_s: u64| Link {
        up_bytes_per_s: bits_per_s / 8,
        down_bytes_per_s: bits_per_s / 8,
        delay: options.delay / 2,
    };
    let floor = options.size as f64 * 8.0 / options.rate as f64;
    let plan = |n: u64, starts: f64| NodePlan {
        link: link(if n < options.slow { options.rate / 10 } else { options.rate }),
        starts: Duration::from_secs_f64(starts),
        lies: (options.slow..options.slow + options.liars).contains(&n),
    };
    let stagger = options.stagger.as_secs_f64();
    Scenario {
        seed,
        image_bytes: options.size,
        blank: true,
        racks: xget::sim::Racks { nodes: 64, uplink_bytes_per_s: None },
        rules: Rules::default(),
        master_slots: options.slots,
        master: link(options.master_rate.unwrap_or(options.rate)),
        nodes: (0..nodes).map(|n| plan(n, below(stagger))).collect(),
        events: (0..options.kill.min(nodes))
            .map(|n| {
                let at = Duration::from_secs_f64(below(floor));
                (at, Event::PowerOff(HostId((nodes - n) as usize)))
            })
            .collect(),
        limit: Duration::from_secs_f64(stagger + 60.0 + floor * 20.0),
    }
}
