//! The generic cell rate algorithm: a token bucket that is one number.
//!
//! The number is the moment at which the bucket will be full again; what it is short of is how far away that is. Taking tokens puts it off, time does
//! the rest. Told the time, in nanoseconds since a zero of the caller's choice; reads no clock. Any number of threads may take from one bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrigger_config::model::Rate;

/// A rate as a bucket counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Nanoseconds in which one token comes back. 1,000 or more, so that rounding it is at most half a thousandth.
    interval: u64,
    burst: u32,
}

/// What is left in a bucket that was taken from, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Whole tokens.
    pub left: u32,
    /// Nanoseconds until it is full.
    pub full_in: u64,
}

/// A bucket that has too few tokens. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    pub level: Level,
    /// Nanoseconds until it has enough of them, if nobody else takes any.
    pub wait: u64,
}

impl Pace {
    pub fn new(rate: Rate) -> Self {
        let (per, tokens) = (rate.per.as_nanos(), u128::from(rate.tokens));
        let interval = (per + tokens / 2) / tokens;
        Self { interval: u64::try_from(interval).expect("a day has less"), burst: rate.burst }
    }

    /// Until an empty bucket is full.
    fn whole(self) -> u64 {
        // A rate takes at most a year to fill, so that there is room for one on top of any time.
        self.interval * u64::from(self.burst)
    }

    fn level(self, full_in: u64) -> Level {
        let left = (self.whole().saturating_sub(full_in)) / self.interval;
        Level { left: u32::try_from(left).expect("at most the burst"), full_in }
    }
}

/// Takes `cost` tokens, at most the burst, from the bucket at `now`.
pub fn take(bucket: &AtomicU64, now: u64, cost: u32, pace: Pace) -> Result<Level, Short> {
    let price = pace.interval * u64::from(cost);
    let mut full_at = bucket.load(Ordering::Relaxed);
    loop {
        let full_in = full_at.saturating_sub(now);
        if full_in + price > pace.whole() {
            return Err(Short { level: pace.level(full_in), wait: full_in + price - pace.whole() });
        }
        let after = full_at.max(now) + price;
        match bucket.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(pace.level(full_in + price)),
            Err(changed) => full_at = changed,
        }
    }
}

/// Puts back what was just taken, for a request that was refused elsewhere.
pub fn give_back(bucket: &AtomicU64, cost: u32, pace: Pace) {
    let price = pace.interval * u64::from(cost);
    let _ = bucket
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| Some(full_at.saturating_sub(price)));
}

/// Whole seconds, the next one where there is a rest.
pub fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(Duration::from_secs(1).as_nanos() as u64)
}
