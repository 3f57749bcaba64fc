//! How long answers of late took: counts by length, from which percentiles are read.
//!
//! Owns two half-minutes of counts, shared by all workers, without a lock: 160 lengths from 64 µs to 67 s, an eighth of an octave each, so that what is read is at
//! most 12 % too long. The memory is 1.3 KB, whatever is counted. Never knows whose latencies these are nor what follows from them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outrigger_config::model::Fraction;
use smallvec::SmallVec;
use tokio::time::Instant;

#[derive(Debug)]
pub struct Latencies {
    /// The current half-minute and the one before, by turns.
    halves: [Half; 2],
    /// Zero of the clock.
    born: Instant,
}

#[derive(Debug, Default)]
struct Half {
    /// Which one, from 2; 0 where nothing was ever counted.
    number: AtomicU32,
    counts: Counts,
}

/// With fewer nothing is concluded: of these, one is beyond the 99th percentile.
const ENOUGH: u64 = 100;

const HALF: Duration = Duration::from_secs(30);

impl Latencies {
    pub fn new(now: Instant) -> Self {
        Self { halves: Default::default(), born: now }
    }

    pub fn add(&self, latency: Duration, now: Instant) {
        let number = self.number(now);
        let half = &self.halves[(number % 2) as usize];
        let counted = half.number.load(Ordering::Relaxed);
        let exchange = || half.number.compare_exchange(counted, number, Ordering::Relaxed, Ordering::Relaxed);
        // Whoever comes first in a new half-minute empties it; what others count in this moment may be lost.
        if counted != number && exchange().is_ok() {
            half.counts.clear();
        }
        half.counts.add(latency);
    }

    /// What this share of the answers of the last 30 to 60 s did not exceed; `None` where there are too few to say.
    pub fn percentile(&self, share: Fraction, now: Instant) -> Option<Duration> {
        let number = self.number(now);
        let fresh = |half: &&Half| number.wrapping_sub(half.number.load(Ordering::Relaxed)) <= 1;
        let halves: SmallVec<[_; 2]> = self.halves.iter().filter(fresh).map(|half| &half.counts).collect();
        percentile(&halves, share, ENOUGH)
    }

    /// From 2, so that nothing counted is older than the one before.
    fn number(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.born).as_millis() / HALF.as_millis();
        u32::try_from(since).unwrap_or(u32::MAX - 2) + 2
    }
}

/// Answers by the time they took.
#[derive(Debug)]
pub(super) struct Counts([AtomicU32; LENGTHS]);

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Counts {
    pub fn add(&self, latency: Duration) {
        self.0[length(latency)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// What this share of all these did not exceed; `None` where there are fewer than `enough`.
pub(super) fn percentile(of: &[&Counts], share: Fraction, enough: u64) -> Option<Duration> {
    let count =
        |at: usize| of.iter().map(|counts| u64::from(counts.0[at].load(Ordering::Relaxed))).sum::<u64>();
    let all: u64 = (0..LENGTHS).map(count).sum();
    if all < enough {
        return None;
    }
    let wanted = (all * u64::from(share.millionths())).div_ceil(1_000_000);
    let mut seen = 0;
    let at = (0..LENGTHS).find(|at| {
        seen += count(*at);
        seen >= wanted
    });
    // Others may have cleared some meanwhile.
    Some(longest(at.unwrap_or(LENGTHS - 1)))
}

/// Octaves from 2^6 µs on, in parts.
const OCTAVES: usize = 20;
const PARTS: usize = 8;
const LENGTHS: usize = OCTAVES * PARTS;
const FIRST: u32 = 6;

fn length(latency: Duration) -> usize {
    let most = (1_u64 << (FIRST as usize + OCTAVES)) - 1;
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).clamp(1 << FIRST, most);
    let octave = micros.ilog2();
    let part = (micros >> (octave - 3)) as usize % PARTS;
    (octave - FIRST) as usize * PARTS + part
}

/// The end of a length, which is the beginning of the next.
fn longest(at: usize) -> Duration {
    let octave = FIRST as usize + at / PARTS;
    let parts = (PARTS + at % PARTS + 1) as u64;
    Duration::from_micros(parts << (octave - 3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    fn percent(n: u32) -> Fraction {
        Fraction::new(n, 100).unwrap()
    }

    proptest! {
        /// Against sorting them: never too short, and at most an eighth too long.
        #[test]
        fn a_percentile_is_that_of_the_sorted(
            micros in proptest::collection::vec(64..60_000_000_u64, 100..400), share in 1..=100_u32
        ) {
            let now = Instant::now();
            let latencies = Latencies::new(now);
            micros.iter().for_each(|micros| latencies.add(Duration::from_micros(*micros), now));
            let mut sorted = micros.clone();
            sorted.sort_unstable();
            let exact = sorted[(micros.len() * share as usize).div_ceil(100) - 1] as f64;
            let found = latencies.percentile(percent(share), now).unwrap().as_micros() as f64;
            prop_assert!((exact..=exact * 1.126).contains(&found), "{found} for {exact}");
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_is_counted_at_the_ends() {
        assert_eq!((length(Duration::ZERO), length(Duration::MAX)), (0, LENGTHS - 1));
        assert_eq!(longest(LENGTHS - 1).as_secs(), 67);
        for at in 0..LENGTHS - 1 {
            assert_eq!(length(longest(at)), at + 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_of_few_nor_of_what_is_long_ago() {
        let latencies = Latencies::new(Instant::now());
        let median = || latencies.percentile(percent(50), Instant::now()).map(|time| time.as_millis());
        let add = |count: u64, ms: u64| {
            (0..count).for_each(|_| latencies.add(Duration::from_millis(ms), Instant::now()));
        };
        add(99, 10);
        assert_eq!(median(), None);
        add(1, 10);
        assert_eq!(median(), Some(10));
        // The next half-minute goes on where this one ends.
        tokio::time::advance(HALF).await;
        assert_eq!(median(), Some(10));
        add(300, 100);
        assert_eq!(median(), Some(106));
        tokio::time::advance(HALF).await;
        assert_eq!(median(), Some(106), "the slow ones alone");
        tokio::time::advance(HALF).await;
        assert_eq!(median(), None);
    }

    /// Who waits for the 95th percentile and counts what it gave up with the time it had waited, asks twice for a twentieth, however long that goes on.
    #[test]
    fn what_is_given_up_does_not_shorten_the_wait() {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut now = Instant::now();
        let latencies = Latencies::new(now);
        let (mut asked, mut twice) = (0, 0);
        for n in 0..100_000 {
            now += Duration::from_millis(10);
            let took = Duration::from_secs_f64(0.010 + 0.020 * rng.random::<f64>().powi(4));
            let wait = latencies.percentile(percent(95), now);
            let given_up = wait.filter(|wait| took > *wait);
            latencies
                .add(given_up.map_or(took, |wait| wait + Duration::from_millis(10).min(took - wait)), now);
            if n > 50_000 {
                asked += 1;
                twice += u32::from(given_up.is_some());
            }
        }
        let share = f64::from(twice) / f64::from(asked);
        assert!((0.01..=0.07).contains(&share), "{share}");
    }
}
