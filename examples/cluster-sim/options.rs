//! What is asked for.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;
use xget::sim::{Greed, Greedy};
use xget::swarm::rules::Rules;

pub(crate) const HELP: &str = "\
Simulates clusters that fetch an image, and prints how long it took.

usage: cluster-sim [--preset NAME] [OPTION...]

The cluster
  -n NODES[,NODES...]     how many nodes; several numbers are simulated in turn (16)
  --size BYTES            the image; its chunks are 64 KiB up to 128 MiB (64M)
  --rate BITS_PER_S       every link, both ways (100M)
  --up, --down BITS_PER_S the nodes' links, one way
  --master-rate BITS_PER_S the master's link
  --delay-us MICROSECONDS from one host to another (100)
  --slots NODES           how many nodes the master feeds at a time (4)
  --rack NODES            nodes in a rack, which share a /24; at most 250 (64)
  --uplink BITS_PER_S     from a rack to the others, and back (whatever comes)
What goes wrong
  --spread SECONDS        the nodes start within this time, not all at once
  --slow NODES            the first ones have a tenth of the rate
  --liars NODES           serve wrong bytes
  --misleading NODES      more nodes, which hold nothing and name 256 dead addresses each
  --greedy KIND=CONNECTIONS one more host, with many connections to the master from 1 s before the nodes start.
                          KIND is what each of them does: image (takes 2 KB/s of the image), readers
                          (takes all it gets), held (says that it holds everything), manifest (reads
                          its first byte, again and again), grants (joins, takes grants and fetches
                          nothing), mute (that, and answers nothing to nodes that connect to it)
  --kill NODES            lose their power; --stall NODES: do nothing for 5 s
  --at SECONDS            when they do (at random within S/B)
  --master-leaves         the master loses its power once every chunk is with some node
The simulation
  --seed SEED             the first seed (1)
  --seeds COUNT           how many seeds (1)
  --varied                an image of which no two blocks are alike: slower, and every byte is checked
  --rule NAME=VALUE       another value for one of the rules: peer_window, enough_in_flight,
                          master_window, max_dialled, max_peers, upload_slots, max_fetchers,
                          told_at_once, all_told_after_ms, have_delay_ms, grants_a_slot,
                          starved_after_ms, slow_factor, max_sources, near_sources, far_factor,
                          import_patience_factor, far_kept, report_every_ms, redir_most_ms,
                          redraw_chunks, redraw_every_ms
  --bar RATIO             fail if the last node takes longer than this times S/B
  --svg FILE              draw the results over the number of nodes
Presets, which other options may follow
  flat                    64 nodes, 4 seeds: within 1.08
  thousand                1,000 nodes: within 1.15
  ten-thousand            10,000 nodes: within 1.25
  racks                   20 racks of 50, uplinks 10:1 oversubscribed
  spread                  64 nodes start within S/B: within 1.2 each
  slow                    16 of 64 nodes have a tenth of the rate: the others within 1.25
  killed                  2 of 16 nodes die half-way: the others within 1.3
  master-leaves           16 nodes, the master dies once all is out: within 1.3

Numbers may end in K, M or G: powers of 1024 for bytes, of 1000 for rates. The same options have the
same results.

Columns: last and median time of the nodes that are neither slow nor killed, each counted from its
start, over S/B; bytes from the master over S; bytes from anybody over N*S; how often a chunk came
into a rack from elsewhere, on average; requests that the master answered in a second, on average and
in the busiest second.";

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) nodes: Vec<u64>,
    pub(crate) size: u64,
    pub(crate) rate: u64,
    pub(crate) up: Option<u64>,
    pub(crate) down: Option<u64>,
    pub(crate) master_rate: Option<u64>,
    pub(crate) delay: Duration,
    pub(crate) slots: usize,
    pub(crate) rack: usize,
    pub(crate) uplink: Option<u64>,
    pub(crate) spread: f64,
    pub(crate) slow: u64,
    pub(crate) liars: u64,
    pub(crate) misleading: u64,
    pub(crate) greedy: Option<Greedy>,
    pub(crate) kill: u64,
    pub(crate) stall: u64,
    pub(crate) at: Option<f64>,
    pub(crate) master_leaves: bool,
    pub(crate) seed: u64,
    pub(crate) seeds: u64,
    pub(crate) varied: bool,
    pub(crate) rules: Rules,
    pub(crate) bar: Option<f64>,
    pub(crate) svg: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            nodes: vec![16],
            size: 64 << 20,
            rate: 100_000_000,
            up: None,
            down: None,
            master_rate: None,
            delay: Duration::from_micros(100),
            slots: 4,
            rack: 64,
            uplink: None,
            spread: 0.0,
            slow: 0,
            liars: 0,
            misleading: 0,
            greedy: None,
            kill: 0,
            stall: 0,
            at: None,
            master_leaves: false,
            seed: 1,
            seeds: 1,
            varied: false,
            rules: Rules::default(),
            bar: None,
            svg: None,
        }
    }
}

impl Options {
    /// The time that one link takes for the image, in seconds.
    pub(crate) fn floor(&self) -> f64 {
        self.size as f64 * 8.0 / self.rate as f64
    }

    pub(crate) fn parse() -> Result<Options, lexopt::Error> {
        let mut options = Options::default();
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                Long("preset") => options = preset(&parser.value()?.string()?)?,
                Short('n') => {
                    let counts = parser.value()?.string()?;
                    let counts: Result<_, _> = counts.split(',').map(str::parse).collect();
                    options.nodes = counts.map_err(|_| "-n wants numbers")?;
                }
                Long("size") => options.size = number(&parser.value()?.string()?, 1024)?,
                Long("rate") => options.rate = rate(&mut parser)?,
                Long("up") => options.up = Some(rate(&mut parser)?),
                Long("down") => options.down = Some(rate(&mut parser)?),
                Long("master-rate") => options.master_rate = Some(rate(&mut parser)?),
                Long("delay-us") => options.delay = Duration::from_micros(parser.value()?.parse()?),
                Long("slots") => options.slots = parser.value()?.parse()?,
                Long("rack") => {
                    let nodes = parser.value()?.parse()?;
                    let possible = (1..=250).contains(&nodes);
                    options.rack = Some(nodes).filter(|_| possible).ok_or("--rack: 1 to 250")?;
                }
                Long("uplink") => options.uplink = Some(rate(&mut parser)?),
                Long("spread") => options.spread = parser.value()?.parse()?,
                Long("slow") => options.slow = parser.value()?.parse()?,
                Long("liars") => options.liars = parser.value()?.parse()?,
                Long("misleading") => options.misleading = parser.value()?.parse()?,
                Long("greedy") => options.greedy = Some(greedy(&parser.value()?.string()?)?),
                Long("kill") => options.kill = parser.value()?.parse()?,
                Long("stall") => options.stall = parser.value()?.parse()?,
                Long("at") => options.at = Some(parser.value()?.parse()?),
                Long("master-leaves") => options.master_leaves = true,
                Long("seed") => options.seed = parser.value()?.parse()?,
                Long("seeds") => options.seeds = parser.value()?.parse()?,
                Long("varied") => options.varied = true,
                Long("rule") => rule(&mut options.rules, &parser.value()?.string()?)?,
                Long("bar") => options.bar = Some(parser.value()?.parse()?),
                Long("svg") => options.svg = Some(parser.value()?.into()),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }
}

fn preset(name: &str) -> Result<Options, lexopt::Error> {
    let usual = Options { seeds: 4, ..Options::default() };
    let floor = usual.floor();
    Ok(match name {
        "flat" => Options { nodes: vec![64], bar: Some(1.08), ..usual },
        "thousand" => Options { nodes: vec![1000], seeds: 1, bar: Some(1.15), ..usual },
        "ten-thousand" => Options { nodes: vec![10_000], seeds: 1, bar: Some(1.25), ..usual },
        "racks" => {
            let uplink = Some(50 * usual.rate / 10);
            Options { nodes: vec![1000], seeds: 1, rack: 50, uplink, ..usual }
        }
        "spread" => Options { nodes: vec![64], spread: floor, bar: Some(1.2), ..usual },
        "slow" => Options { nodes: vec![64], slow: 16, bar: Some(1.25), ..usual },
        "killed" => Options { kill: 2, at: Some(floor / 2.0), bar: Some(1.3), ..usual },
        "master-leaves" => Options { master_leaves: true, bar: Some(1.3), ..usual },
        _ => return Err(format!("there is no preset {name}").into()),
    })
}

/// What a greedy host does, and on how many connections.
fn greedy(text: &str) -> Result<Greedy, lexopt::Error> {
    let (kind, connections) = text.split_once('=').ok_or("--greedy wants KIND=CONNECTIONS")?;
    let greed = match kind {
        "image" => Greed::Image,
        "readers" => Greed::Readers,
        "held" => Greed::Held,
        "mute" => Greed::Mute,
        "manifest" => Greed::Manifest,
        "grants" => Greed::Grants,
        _ => return Err(format!("--greedy does not know the kind {kind}").into()),
    };
    Ok(Greedy { greed, connections: number(connections, 1000)? as usize })
}

/// Changes one rule.
fn rule(rules: &mut Rules, text: &str) -> Result<(), lexopt::Error> {
    let (name, value) = text.split_once('=').ok_or("--rule wants NAME=VALUE")?;
    let value = number(value, 1000)?;
    let (count, time) = (value as usize, Duration::from_millis(value));
    match name {
        "peer_window" => rules.peer_window = count,
        "master_window" => rules.master_window = count,
        "max_peers" => rules.max_peers = count,
        "upload_slots" => rules.upload_slots = count,
        "enough_in_flight" => rules.enough_in_flight = count,
        "told_at_once" => rules.told_at_once = count,
        "all_told_after_ms" => rules.all_told_after = time,
        "max_dialled" => rules.max_dialled = count,
        "grants_a_slot" => rules.grants_a_slot = count,
        "max_sources" => rules.max_sources = count,
        "max_fetchers" => rules.max_fetchers = count,
        "slow_factor" => rules.slow_factor = value as u32,
        "near_sources" => rules.near_sources = count,
        "import_patience_factor" => rules.import_patience_factor = value as u32,
        "far_factor" => rules.far_factor = value as u32,
        "far_kept" => rules.far_kept = count,
        "have_delay_ms" => rules.have_delay = time,
        "report_every_ms" => rules.report_every = time,
        "starved_after_ms" => rules.starved_after = time,
        "redraw_chunks" => rules.redraw_chunks = count,
        "redraw_every_ms" => rules.redraw_every = time,
        "redir_most_ms" => rules.redir_most = time,
        _ => return Err(format!("there is no rule {name}").into()),
    }
    Ok(())
}

fn rate(parser: &mut lexopt::Parser) -> Result<u64, lexopt::Error> {
    number(&parser.value()?.string()?, 1000)
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
