//! How long to wait before trying again.

use std::time::Duration;

use rand::RngExt;

/// Exponential with full jitter (a thousand proxies that lost the same peer do not come back at once).
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

/// The first wait is at most this; each further one at most twice the one before.
const FIRST: Duration = Duration::from_millis(100);
/// No wait is longer, so that a peer which returns is found soon.
const LONGEST: Duration = Duration::from_secs(5);

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn next(&mut self) -> Duration {
        let longest = (FIRST * 2_u32.pow(self.failures.min(16))).min(LONGEST);
        self.failures += 1;
        longest.mul_f64(rand::rng().random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_spread_and_stay_bounded() {
        let longest: Vec<_> = (0..20)
            .map(|failures| (0..200).map(|_| Backoff { failures }.next()).max().expect("some"))
            .collect();
        assert!(longest[0] <= FIRST && longest[0] > FIRST / 2);
        assert!(longest[3] > FIRST * 4);
        assert!(longest.iter().all(|wait| *wait <= LONGEST) && longest[19] > LONGEST / 2);
        let mut backoff = Backoff { failures: 9 };
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
