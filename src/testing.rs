//! What randomized tests share: which seeds they run.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one seed alone.
const ONLY: &str = "XGET_SEED";
/// Runs so many times as many seeds as usual.
const TIMES: &str = "XGET_SEEDS";

/// Runs `test` with each of `usual` seeds: few enough for a test that runs after every edit. A failure
/// names the seed to replay it. Returns how many seeds there were.
pub(crate) fn for_seeds(usual: u64, mut test: impl FnMut(u64)) -> u64 {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number(ONLY) {
        Some(seed) => seed..=seed,
        None => 1..=usual * number(TIMES).unwrap_or(1),
    };
    for seed in seeds.clone() {
        if catch_unwind(AssertUnwindSafe(|| test(seed))).is_err() {
            panic!("replay this with {ONLY}={seed}");
        }
    }
    seeds.end() - seeds.start() + 1
}
