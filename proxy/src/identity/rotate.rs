//! When a certificate is renewed: at half its life, and, where that fails, again and again.
//!
//! Owns the waiting; pure but for a random number. Never asks anybody (`ca`).

use std::time::{Duration, SystemTime};

use rand::RngExt;

use super::Leaf;

/// How long a certificate is used before a newer one is asked for: half its life, ±10 %, so that proxies that started together do not ask
/// together. `received` is when it came: its own beginning is dated back.
pub fn renewal(leaf: &Leaf, received: SystemTime, jitter: f64) -> SystemTime {
    let life = leaf.not_after.duration_since(received).unwrap_or_default();
    received + life.mul_f64(0.5 * (1.0 + 0.1 * jitter.clamp(-1.0, 1.0)))
}

/// A random number for [`renewal`].
pub fn jitter() -> f64 {
    rand::rng().random_range(-1.0..=1.0)
}

/// Pauses between attempts that fail.
#[derive(Debug, Default)]
pub struct Retry {
    failures: u32,
}

impl Retry {
    /// Doubles from 1 s to 150 s, each shortened by up to half at random; and never more than a tenth of the life that is `left`: of short-lived
    /// certificates several attempts have to fit in. Without a valid certificate at most 10 s.
    pub fn pause(&mut self, left: Duration, random: f64) -> Duration {
        let longest = SHORTEST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let tenth = if left.is_zero() { WITHOUT } else { (left / 10).max(SHORTEST) };
        longest.min(tenth).mul_f64(1.0 - 0.5 * random.clamp(0.0, 1.0))
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(150);
const WITHOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(life: Duration, received: SystemTime) -> Leaf {
        Leaf {
            id: "spiffe://td/ns/a/sa/b".parse().expect("an id"),
            serial: "1".into(),
            issuer: "".into(),
            not_before: received - Duration::from_secs(300),
            not_after: received + life,
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_half_its_life_give_or_take_a_tenth() {
        let now = SystemTime::now();
        for (life, jitter, after) in
            [(86_400, 0.0, 43_200), (86_400, 1.0, 47_520), (86_400, -1.0, 38_880), (10, 0.0, 5)]
        {
            let at = renewal(&leaf(Duration::from_secs(life), now), now, jitter);
            assert_eq!(at.duration_since(now).expect("later").as_secs(), after, "{life} s, {jitter}");
        }
        let expired = leaf(Duration::ZERO, now - Duration::from_secs(60));
        assert_eq!(renewal(&expired, now, 1.0), now, "one that has expired is renewed at once");
    }

    #[test]
    fn attempts_that_fail_come_ever_seldomer_but_often_enough() {
        let day = Duration::from_secs(43_200);
        let mut retry = Retry::default();
        let pauses: Vec<_> = (0..12).map(|_| retry.pause(day, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 150, 150, 150, 150]);
        retry.reset();
        assert_eq!(retry.pause(day, 1.0), Duration::from_millis(500));
        let mut short = Retry { failures: 9 };
        assert_eq!(short.pause(Duration::from_secs(30), 0.0), Duration::from_secs(3));
        assert_eq!(short.pause(Duration::from_secs(2), 0.0), Duration::from_secs(1));
        assert_eq!(short.pause(Duration::ZERO, 0.0), WITHOUT);
    }
}
