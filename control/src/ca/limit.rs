//! How often somebody may ask: token buckets by key, a bounded number of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Keys remembered. Each takes some 100 bytes.
const MAX_KEYS: usize = 10_000;

#[derive(Debug)]
pub struct Limit<K> {
    /// A second.
    rate: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Eq + Hash> Limit<K> {
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, buckets: Mutex::default() }
    }

    /// Whether one more is within bounds; it counts then.
    pub fn admits(&self, key: K, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| self.refilled(bucket, now) < self.burst);
            if buckets.len() >= MAX_KEYS {
                return false;
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: self.burst, at: now });
        bucket.left = self.refilled(bucket, now);
        bucket.at = now;
        let admitted = bucket.left >= 1.0;
        if admitted {
            bucket.left -= 1.0;
        }
        admitted
    }

    fn refilled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + passed * self.rate).min(self.burst)
    }
}

/// Who may be told apart by address: one host has as many IPv6 addresses as it likes in its /64.
pub fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_key_has_a_burst_and_a_rate_of_its_own() {
        let limit = Limit::new(2.0, 3.0);
        let admitted = |key: u32| (0..10).filter(|_| limit.admits(key, Instant::now())).count();
        assert_eq!((admitted(1), admitted(2)), (3, 3));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((admitted(1), admitted(1)), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded_and_forgotten_when_they_mean_nothing() {
        let limit = Limit::new(1.0, 1.0);
        let admitted = |from: usize| {
            (from..from + MAX_KEYS + 5).filter(|key| limit.admits(*key, Instant::now())).count()
        };
        assert_eq!(admitted(0), MAX_KEYS);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(1_000_000), MAX_KEYS);
        assert!(limit.buckets.lock().len() <= MAX_KEYS);
    }

    #[test]
    fn one_host_is_one_key() {
        let host = |text: &str| host(text.parse().expect("an address"));
        assert_eq!(host("fd00:1:2:3:4::5"), host("fd00:1:2:3::9"));
        assert_ne!(host("fd00:1:2:3::9"), host("fd00:1:2:4::9"));
        assert_eq!(host("::ffff:10.0.0.1"), host("10.0.0.1"));
    }
}
