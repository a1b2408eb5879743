//! The last ten minutes of a swarm: samples at equal intervals, for the page's charts.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::limits::MAX_GONE;
use crate::serve::hub::totals::Totals;

/// Between two samples.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// Most samples that are kept, which take about 10 KiB.
pub(crate) const MOST: usize = 300;

/// Samples of a swarm, one for each interval of [`EVERY`]. An interval in which none was taken, because the
/// machine was suspended or too busy, has none.
#[derive(Debug)]
pub(crate) struct History {
    begun: Instant,
    /// The last of them, the newest at the end.
    samples: VecDeque<Option<Sample>>,
    /// The interval that the next sample is of, counted from the beginning.
    next: u32,
    /// What the newest sample was made of, and when.
    last: (Instant, Totals),
}

/// How fast bytes went since the sample before, in bytes a second, and what nodes there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sample {
    received: u64,
    sent: u64,
    nodes: usize,
    whole: usize,
    /// Another generation is served than at the sample before.
    changed: bool,
}

impl History {
    /// Begins with a first sample.
    pub(crate) fn new(now: Instant, totals: Totals) -> History {
        let mut samples = VecDeque::with_capacity(MOST);
        samples.push_back(Some(Sample::between((now, totals), (now, totals))));
        History { begun: now, samples, next: 1, last: (now, totals) }
    }

    /// When the next sample is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.begun + EVERY * self.next
    }

    /// Takes a sample if one is due by now.
    pub(crate) fn record(&mut self, now: Instant, totals: Totals) {
        let age = now.saturating_duration_since(self.begun);
        let interval = u32::try_from(age.as_millis() / EVERY.as_millis()).unwrap_or(u32::MAX - 1);
        let Some(missed) = interval.checked_sub(self.next) else { return };
        for _ in (0..missed).take(MOST) {
            self.push(None);
        }
        self.push(Some(Sample::between(self.last, (now, totals))));
        self.next = interval + 1;
        self.last = (now, totals);
    }

    fn push(&mut self, sample: Option<Sample>) {
        if self.samples.len() >= MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The newest totals, and all samples as lists of numbers, `null` where there is none.
    pub(crate) fn to_json(&self, now: Instant) -> String {
        let (at, totals) = self.last;
        let newest = self.samples.back().copied().flatten().unwrap_or_default();
        let age = now.saturating_duration_since(at).as_secs_f64();
        let left = totals.seconds_left.map_or("null".into(), |secs| secs.to_string());
        let mut json = format!(
            "{{\"generation\":\"{}\",\"image_bytes\":{},\"chunk_bytes\":{},\"chunks\":{},\
             \"only_here\":{},\"nodes\":{},\"whole\":{},\"fetching\":{},\"stalled\":{},\"left\":{},\
             \"left_limit\":{MAX_GONE},\"held_chunks\":{},\"wanted_chunks\":{},\"seconds_left\":{left},\"received_bytes\":{},\
             \"received_bytes_per_s\":{},\"sent_bytes\":{},\"sent_bytes_per_s\":{},\
             \"age_seconds\":{age:.1},\"history\":{{\"every_seconds\":{},\"most\":{MOST}",
            totals.generation.to_hex(),
            totals.image_bytes,
            totals.chunk_bytes,
            totals.chunks,
            totals.only_here,
            totals.nodes,
            totals.whole,
            totals.nodes.saturating_sub(totals.whole).saturating_sub(totals.stalled),
            totals.stalled,
            totals.left,
            totals.held_chunks,
            totals.wanted_chunks,
            totals.received_bytes,
            newest.received,
            totals.sent_bytes,
            newest.sent,
            EVERY.as_secs(),
        );
        let mut add = |name: &str, value: fn(&Sample) -> u64| {
            let _ = write!(json, ",\"{name}\":[{}]", self.list(value));
        };
        add("received_bytes_per_s", |sample| sample.received);
        add("sent_bytes_per_s", |sample| sample.sent);
        add("nodes", |sample| sample.nodes as u64);
        add("whole", |sample| sample.whole as u64);
        add("changed", |sample| u64::from(sample.changed));
        json + "}}\n"
    }

    fn list(&self, value: fn(&Sample) -> u64) -> String {
        let text = |sample: &Option<Sample>| match sample {
            Some(sample) => value(sample).to_string(),
            None => "null".to_owned(),
        };
        self.samples.iter().map(text).collect::<Vec<_>>().join(",")
    }
}

impl Sample {
    fn between(before: (Instant, Totals), now: (Instant, Totals)) -> Sample {
        let (then, past) = before;
        let (at, totals) = now;
        let time = at.saturating_duration_since(then);
        Sample {
            received: per_second(past.received_bytes, totals.received_bytes, time),
            sent: per_second(past.sent_bytes, totals.sent_bytes, time),
            nodes: totals.nodes,
            whole: totals.whole,
            changed: past.generation != totals.generation,
        }
    }
}

/// How fast a counter went from one reading to another. One that has gone backwards stood still.
fn per_second(before: u64, now: u64, time: Duration) -> u64 {
    let more = u128::from(now.saturating_sub(before)) * 1000;
    u64::try_from(more.checked_div(time.as_millis()).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(received_bytes: u64, nodes: usize, whole: usize) -> Totals {
        Totals {
            generation: blake3::hash(b"first"),
            image_bytes: 1 << 20,
            chunk_bytes: 1 << 16,
            chunks: 16,
            only_here: 0,
            nodes,
            whole,
            stalled: 0,
            left: 0,
            held_chunks: 0,
            wanted_chunks: 0,
            seconds_left: None,
            received_bytes,
            sent_bytes: received_bytes / 10,
        }
    }

    /// A history, and the time of its last sample.
    struct Swarm {
        history: History,
        now: Instant,
    }

    impl Swarm {
        fn new() -> Swarm {
            let now = Instant::now();
            Swarm { history: History::new(now, totals(0, 0, 0)), now }
        }

        fn after(&mut self, seconds: f64, totals: Totals) {
            self.now += Duration::from_secs_f64(seconds);
            self.history.record(self.now, totals);
        }

        fn received(&self) -> String {
            self.history.list(|sample| sample.received)
        }

        fn whole(&self) -> String {
            self.history.list(|sample| sample.whole as u64)
        }
    }

    #[test]
    fn a_rate_is_what_came_since_the_sample_before() {
        let mut swarm = Swarm::new();
        swarm.after(2.0, totals(2000, 3, 0));
        swarm.after(2.5, totals(4500, 3, 1));
        swarm.after(1.5, totals(4500, 3, 3));
        assert_eq!(swarm.received(), "0,1000,1000,0");
        assert_eq!(swarm.whole(), "0,0,1,3");
    }

    #[test]
    fn a_sample_before_it_is_due_is_none() {
        let mut swarm = Swarm::new();
        assert_eq!(swarm.history.deadline(), swarm.now + EVERY);
        swarm.after(1.9, totals(1000, 1, 0));
        assert_eq!(swarm.received(), "0");
        swarm.after(0.1, totals(1000, 1, 0));
        assert_eq!(swarm.received(), "0,500");
        assert_eq!(swarm.history.deadline(), swarm.now + EVERY);
    }

    #[test]
    fn samples_that_were_missed_are_none_and_the_next_rate_is_that_of_all_the_time_since() {
        let mut swarm = Swarm::new();
        swarm.after(2.0, totals(2000, 1, 0));
        swarm.after(6.5, totals(8500, 1, 1));
        assert_eq!(swarm.received(), "0,1000,null,null,1000");
        assert_eq!(swarm.whole(), "0,0,null,null,1");
        swarm.after(1.5, totals(8500, 1, 1));
        assert_eq!(swarm.received(), "0,1000,null,null,1000,0", "at its time again");
    }

    #[test]
    fn after_a_night_asleep_nothing_is_left_but_the_newest() {
        let mut swarm = Swarm::new();
        swarm.after(2.0, totals(2000, 1, 0));
        swarm.after(30_000.0, totals(2000, 1, 1));
        assert_eq!(swarm.history.samples.len(), MOST);
        assert_eq!(swarm.history.samples.iter().flatten().count(), 1);
    }

    #[test]
    fn however_long_it_goes_on_so_many_are_kept_and_no_more() {
        let mut swarm = Swarm::new();
        for n in 1..=2000 {
            swarm.after(2.0, totals(n * 2, 1, 1));
        }
        assert_eq!(swarm.history.samples.len(), MOST);
        assert_eq!(swarm.received(), vec!["1"; MOST].join(","));
        assert!(swarm.history.samples.capacity() < 2 * MOST);
    }

    #[test]
    fn nodes_that_leave_are_fewer_nodes_and_no_rate() {
        let mut swarm = Swarm::new();
        swarm.after(2.0, totals(2000, 5, 5));
        swarm.after(2.0, totals(2000, 2, 2));
        swarm.after(2.0, totals(1000, 2, 2));
        assert_eq!(swarm.received(), "0,1000,0,0", "not even where a counter goes backwards");
        assert_eq!(swarm.whole(), "0,5,2,2");
    }

    #[test]
    fn another_generation_is_marked_once() {
        let mut swarm = Swarm::new();
        swarm.after(2.0, totals(2000, 5, 5));
        let next = Totals { generation: blake3::hash(b"second"), ..totals(2000, 0, 0) };
        swarm.after(2.0, next);
        swarm.after(2.0, Totals { nodes: 5, ..next });
        assert_eq!(swarm.history.list(|sample| u64::from(sample.changed)), "0,0,1,0");
    }

    #[test]
    fn the_json_has_the_newest_totals_and_all_samples() {
        let mut swarm = Swarm::new();
        let more = Totals { seconds_left: Some(7), stalled: 1, left: 2, ..totals(2000, 4, 1) };
        swarm.after(4.0, more);
        let json = swarm.history.to_json(swarm.now + Duration::from_millis(700));
        let generation = blake3::hash(b"first").to_hex();
        let expected = format!(
            "{{\"generation\":\"{generation}\",\"image_bytes\":1048576,\"chunk_bytes\":65536,\
             \"chunks\":16,\"only_here\":0,\"nodes\":4,\"whole\":1,\"fetching\":2,\"stalled\":1,\
             \"left\":2,\"left_limit\":64,\"held_chunks\":0,\"wanted_chunks\":0,\"seconds_left\":7,\
             \"received_bytes\":2000,\"received_bytes_per_s\":500,\"sent_bytes\":200,\
             \"sent_bytes_per_s\":50,\"age_seconds\":0.7,\"history\":{{\"every_seconds\":2,\
             \"most\":300,\"received_bytes_per_s\":[0,null,500],\"sent_bytes_per_s\":[0,null,50],\
             \"nodes\":[0,null,4],\"whole\":[0,null,1],\"changed\":[0,null,0]}}}}\n"
        );
        assert_eq!(json, expected);
    }
}
