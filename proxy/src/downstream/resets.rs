//! Requests of one connection that are opened and reset as fast as may be (CVE-2023-44487).
//!
//! Owns what is too many. What comes and is reset within one turn the codec sees, and nobody else; this is for those that somebody has begun to work on, and that
//! cost an endpoint what they cost us. Never ends a connection.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Counts over [`PERIOD`] after [`PERIOD`].
#[derive(Debug)]
pub struct Resets {
    since: Cell<Instant>,
    begun: Cell<u32>,
    reset: Cell<u32>,
}

/// A request that is given up later has cost its client as much patience as us work.
const EARLY: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_secs(10);
/// In a period; more are taken of who lets as many requests be answered. Whoever gives up all that wait for a slow answer does so once.
const MOST: u32 = 500;

impl Default for Resets {
    fn default() -> Self {
        Self { since: Cell::new(Instant::now()), begun: Cell::new(0), reset: Cell::new(0) }
    }
}

impl Resets {
    /// A request is here.
    pub fn begin(&self) -> Instant {
        let now = Instant::now();
        if now.duration_since(self.since.get()) >= PERIOD {
            self.since.set(now);
            self.begun.set(0);
            self.reset.set(0);
        }
        self.begun.set(self.begun.get().saturating_add(1));
        now
    }

    /// Its client reset one before it was answered.
    pub fn reset(&self, begun: Instant) {
        if begun.elapsed() < EARLY {
            self.reset.set(self.reset.get().saturating_add(1));
        }
    }

    pub fn are_too_many(&self) -> bool {
        self.reset.get() > MOST && self.reset.get() > self.begun.get() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_early_resets_of_few_answers_are_too_many() {
        // Seconds until each is reset, of how many, with how many that are answered, over how many seconds.
        for (patience, given_up, answered, seconds, too_many) in [
            (0.0, 501, 0, 0, true),
            (0.0, 500, 0, 0, false),
            (0.9, 501, 0, 0, true),
            (1.1, 5_000, 0, 0, false),
            (0.0, 501, 501, 0, false),
            (0.0, 5_000, 4_000, 0, true),
            // Forty a second for good.
            (0.0, 40, 0, 60, false),
            (0.0, 60, 0, 60, true),
        ] {
            let resets = Resets::default();
            let mut met = false;
            for _ in 0..=seconds {
                for _ in 0..answered {
                    resets.begin();
                }
                let begun: Vec<_> = (0..given_up).map(|_| resets.begin()).collect();
                tokio::time::advance(Duration::from_secs_f64(patience)).await;
                begun.into_iter().for_each(|begun| resets.reset(begun));
                met |= resets.are_too_many();
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            assert_eq!(met, too_many, "{given_up} after {patience} s, {answered} answered, {seconds} s");
        }
    }
}
