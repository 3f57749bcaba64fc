//! How many repetitions a destination may get from this process: a share of its requests, plus a little.
//!
//! Counted over a sliding window of whole seconds, shared by all workers; one word a second, changed by compare-exchange. What is
//! allowed is a policy's to say, so that routes with different budgets share one count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrigger_config::model::RetryBudget;
use tokio::time::Instant;

/// What was sent to one destination in the last minute.
#[derive(Debug)]
pub struct Sent {
    seconds: [AtomicU64; SECONDS as usize],
    /// Zero of the clock.
    born: Instant,
}

/// Longest window; a slot is used again after as many seconds.
const SECONDS: u64 = 64;

/// One second: which one (24 bits), its requests (24 bits) and its repetitions (16 bits), both saturating.
#[derive(Clone, Copy)]
struct Second {
    at: u64,
    requests: u64,
    repeated: u64,
}

const AT: u64 = (1 << 24) - 1;
const REQUESTS: u64 = (1 << 24) - 1;
const REPEATED: u64 = (1 << 16) - 1;

impl Second {
    fn unpack(word: u64) -> Self {
        Self { at: word >> 40, requests: word >> 16 & REQUESTS, repeated: word & REPEATED }
    }

    fn pack(self) -> u64 {
        self.at << 40 | self.requests.min(REQUESTS) << 16 | self.repeated.min(REPEATED)
    }
}

impl Default for Sent {
    fn default() -> Self {
        Self { seconds: std::array::from_fn(|_| AtomicU64::new(0)), born: Instant::now() }
    }
}

impl Sent {
    /// A request is sent for the first time.
    pub fn request(&self, now: Instant) {
        self.add(now, |second| second.requests += 1);
    }

    /// Takes the right to repeat one, if there is one. Workers that ask in the same moment may each be granted the last one.
    pub fn repeat(&self, now: Instant, budget: &RetryBudget) -> bool {
        let (requests, repeated) = self.within(now, budget.interval);
        let share = requests.saturating_mul(budget.share.millionths().into()) / 1_000_000;
        let floor = u64::from(budget.per_second) * whole_seconds(budget.interval);
        let allowed = repeated < share + floor;
        if allowed {
            self.add(now, |second| second.repeated += 1);
        }
        allowed
    }

    fn add(&self, now: Instant, count: impl Fn(&mut Second)) {
        let at = self.stamp(now);
        let slot = &self.seconds[(at % SECONDS) as usize];
        let result = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let mut second = Second::unpack(word);
            if second.at != at {
                second = Second { at, requests: 0, repeated: 0 };
            }
            count(&mut second);
            Some(second.pack())
        });
        debug_assert!(result.is_ok(), "the closure always returns a value");
    }

    /// Requests and repetitions of the last seconds, the current one included.
    fn within(&self, now: Instant, interval: Duration) -> (u64, u64) {
        let at = self.stamp(now);
        let window = whole_seconds(interval);
        let seconds = self.seconds.iter().map(|word| Second::unpack(word.load(Ordering::Relaxed)));
        // A second of the future is one another worker began a moment ago.
        let recent = seconds.filter(|second| {
            let age = at.wrapping_sub(second.at) & AT;
            age < window || age == AT
        });
        recent.fold((0, 0), |(requests, repeated), second| {
            (requests + second.requests, repeated + second.repeated)
        })
    }

    /// From 1, so that an empty slot is none of a young process; wraps after half a year.
    fn stamp(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.born).as_secs() + SECONDS) & AT
    }
}

fn whole_seconds(interval: Duration) -> u64 {
    interval.as_secs().clamp(1, SECONDS - 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_config::model::Fraction;

    fn budget() -> RetryBudget {
        RetryBudget::default()
    }

    #[tokio::test(start_paused = true)]
    async fn at_total_failure_the_load_grows_by_a_fifth_and_ten_a_second() {
        for rate in [20u64, 200, 1_000] {
            let sent = Sent::default();
            let (mut requests, mut repeated) = (0, 0);
            for tick in 0..60 * rate {
                sent.request(Instant::now());
                requests += 1;
                // Each request would be repeated twice.
                for _ in 0..2 {
                    repeated += u64::from(sent.repeat(Instant::now(), &budget()));
                }
                let next = Duration::from_nanos(1_000_000_000 * (tick + 1) / rate);
                tokio::time::sleep_until(sent.born + next).await;
            }
            let bound = requests / 5 + 10 * 60 + (rate * 10 / 5 + 100);
            assert!(repeated <= bound, "{rate}/s: {repeated} repetitions of {requests}");
            assert!(repeated * 10 >= (requests / 5 + 600) * 9, "{rate}/s: only {repeated} of {requests}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_destination_gets_the_floor_of_one_window_and_no_more() {
        let sent = Sent::default();
        let granted = (0..1_000).filter(|_| sent.repeat(Instant::now(), &budget())).count();
        assert_eq!(granted, 100);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(sent.repeat(Instant::now(), &budget()));
        let none = RetryBudget { share: Fraction::ZERO, per_second: 0, ..budget() };
        assert!(!sent.repeat(Instant::now(), &none));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_the_window_does_not_count() {
        let sent = Sent::default();
        for _ in 0..1_000 {
            sent.request(Instant::now());
        }
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(sent.within(Instant::now(), Duration::from_secs(10)).0, 1_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(sent.within(Instant::now(), Duration::from_secs(10)).0, 0);
        // A slot used again forgets what it held.
        tokio::time::advance(Duration::from_secs(54)).await;
        sent.request(Instant::now());
        assert_eq!(sent.within(Instant::now(), Duration::from_secs(60)).0, 1);
    }
}
