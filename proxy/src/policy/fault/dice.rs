//! Which of the calls in a row are hit, and how hard: the same for the same seed, in every process.
//!
//! Each fault throws for itself, by the number of the call among those that meet its conditions. Nothing is remembered between two throws, so that
//! workers need to share no more than that number.

use std::time::Duration;

use outrigger_config::model::{FaultDelay, Fraction};

/// Of one fault.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

/// What was thrown for one call; gives one number after the other.
#[derive(Clone, Debug)]
pub struct Throw(u64);

impl Dice {
    /// `index`: its place among the faults of the policy.
    pub fn new(seed: u64, index: usize) -> Self {
        Self(mixed(seed ^ mixed(index as u64 + 1)))
    }

    /// For the call of this number, from 0.
    pub fn throw(self, number: u64) -> Throw {
        Throw(mixed(self.0.wrapping_add(number.wrapping_mul(GOLDEN))))
    }
}

impl Throw {
    /// Whether it is among `share` of all.
    pub fn hits(&mut self, share: Fraction) -> bool {
        let among = (u128::from(self.next()) * u128::from(Fraction::ALL.millionths())) >> 64;
        among < u128::from(share.millionths())
    }

    pub fn delay(&mut self, delay: FaultDelay) -> Duration {
        match delay {
            FaultDelay::Fixed(fixed) => fixed,
            FaultDelay::Uniform { min, max } => min + (max - min).mul_f64(self.unit()),
            FaultDelay::Exponential { mean, max } => {
                // By inversion; 1 - unit is never 0.
                let drawn = mean.as_secs_f64() * -(1.0 - self.unit()).ln();
                Duration::try_from_secs_f64(drawn).map_or(max, |drawn| drawn.min(max))
            }
        }
    }

    /// From 0, below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mixed(self.0)
    }
}

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): each bit of the result depends on each of the argument.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: u64 = 200_000;

    fn share(millionths: u32) -> Fraction {
        Fraction::new(millionths, 1_000_000).expect("at most one")
    }

    #[test]
    fn the_same_seed_hits_the_same_calls() {
        let list = |seed: u64, index: usize| -> Vec<u64> {
            let dice = Dice::new(seed, index);
            (0..1_000).filter(|number| dice.throw(*number).hits(share(100_000))).collect()
        };
        assert_eq!(list(42, 0), list(42, 0));
        assert_ne!(list(42, 0), list(43, 0), "another seed");
        assert_ne!(list(42, 0), list(42, 1), "another fault");
        // Written down: who repeats an experiment with a later release gets the same calls.
        assert_eq!(list(42, 0)[..4], FIRST_OF_42);
    }

    const FIRST_OF_42: [u64; 4] = [1, 23, 25, 31];

    /// Five standard deviations to both sides.
    fn within(found: u64, probability: f64) -> bool {
        let (n, p) = (CALLS as f64, probability);
        (found as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
    }

    #[test]
    fn as_many_are_hit_as_the_percentage_says() {
        for millionths in [0, 1, 100, 10_000, 250_000, 500_000, 999_900, 1_000_000] {
            for seed in 0..4 {
                let dice = Dice::new(seed, 0);
                let found =
                    (0..CALLS).filter(|number| dice.throw(*number).hits(share(millionths))).count() as u64;
                assert!(within(found, f64::from(millionths) / 1e6), "{found} of {CALLS} at {millionths}");
            }
        }
    }

    #[test]
    fn hits_come_neither_in_rows_nor_in_turn() {
        for seed in 0..4 {
            let dice = Dice::new(seed, 0);
            let hit = |number: u64| dice.throw(number).hits(Fraction::HALF);
            let both = (0..CALLS).filter(|number| hit(*number) && hit(number + 1)).count() as u64;
            assert!(within(both, 0.25), "{both} neighbours of {CALLS}");
        }
    }

    /// The share of drawn delays that are at most `at`.
    fn up_to(delay: FaultDelay, at: Duration) -> u64 {
        let dice = Dice::new(7, 0);
        (0..CALLS).filter(|number| dice.throw(*number).delay(delay) <= at).count() as u64
    }

    #[test]
    fn delays_have_the_shape_that_is_asked_for() {
        let ms = Duration::from_millis;
        let fixed = FaultDelay::Fixed(ms(7_000));
        assert_eq!((up_to(fixed, ms(6_999)), up_to(fixed, ms(7_000))), (0, CALLS));
        let uniform = FaultDelay::Uniform { min: ms(100), max: ms(300) };
        assert_eq!((up_to(uniform, ms(99)), up_to(uniform, ms(300))), (0, CALLS));
        for (at, probability) in [(120, 0.1), (200, 0.5), (250, 0.75)] {
            let found = up_to(uniform, ms(at));
            assert!(within(found, probability), "{found} uniform ones up to {at} ms");
        }
        let exponential = FaultDelay::Exponential { mean: ms(100), max: ms(300) };
        for at in [10, 69, 100, 200] {
            let found = up_to(exponential, ms(at));
            let probability = 1.0 - (-(at as f64) / 100.0).exp();
            assert!(within(found, probability), "{found} exponential ones up to {at} ms");
        }
        // What is longer is as long as the longest: e^-3 of all.
        assert_eq!(up_to(exponential, ms(300)), CALLS);
        let longest = CALLS - up_to(exponential, ms(300) - Duration::from_nanos(1));
        assert!(within(longest, (-3.0_f64).exp()), "{longest} of the longest");
    }

    #[test]
    fn how_long_and_whether_do_not_depend_on_each_other() {
        let (dice, uniform) =
            (Dice::new(9, 0), FaultDelay::Uniform { min: Duration::ZERO, max: Duration::from_secs(1) });
        let short = (0..CALLS)
            .map(|number| dice.throw(number))
            .filter_map(|mut throw| throw.hits(Fraction::HALF).then(|| throw.delay(uniform)))
            .filter(|delay| *delay < Duration::from_millis(500))
            .count() as u64;
        assert!(within(short, 0.25), "{short} of {CALLS}");
    }
}
