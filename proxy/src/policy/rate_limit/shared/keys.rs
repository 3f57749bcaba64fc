//! Leases by key, a bounded number of them.
//!
//! A lease is forgotten only while it says nothing: what was used of its key the server knows. Where no place can be had all further keys share one lease, as with
//! limits that an instance counts for itself. Sharded: a shard's lock is held for one look-up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::lease::Lease;

#[derive(Debug)]
pub struct Leases {
    shards: Box<[Shard]>,
    len: AtomicUsize,
    most: usize,
    overflow: Arc<Lease>,
    /// Nobody looks for a place before.
    look_from: AtomicU64,
    /// Which shard is looked through next.
    turn: AtomicUsize,
}

type Shard = Mutex<HashMap<u64, Arc<Lease>>>;

/// Keys in a shard when the whole is full, about.
const A_SHARD: usize = 128;
/// Shards that are looked through at a time.
const ASKED: usize = 64;
/// Nanoseconds from one look for a place to the next, while there is none.
const PAUSE: u64 = 50_000_000;

impl Leases {
    /// `overflow`: what keys without a place share.
    pub fn new(most: usize, overflow: Lease) -> Self {
        let shards = most.div_ceil(A_SHARD).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            len: AtomicUsize::new(0),
            most,
            overflow: Arc::new(overflow),
            look_from: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    /// The lease of a key, made where there is none. The second says whether it is the shared one.
    pub fn of(&self, hash: u64, now: u64, new: impl FnOnce() -> Lease) -> (Arc<Lease>, bool) {
        let shard = &self.shards[(hash >> 24) as usize & (self.shards.len() - 1)];
        if let Some(known) = shard.lock().get(&hash) {
            return (known.clone(), false);
        }
        if !self.count_one() {
            self.find_places(now);
            if !self.count_one() {
                return (self.overflow.clone(), true);
            }
        }
        let mut leases = shard.lock();
        let known = leases.len();
        let lease = leases.entry(hash).or_insert_with(|| Arc::new(new())).clone();
        if leases.len() == known {
            // Another worker was faster.
            self.len.fetch_sub(1, Relaxed);
        }
        (lease, false)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    fn count_one(&self) -> bool {
        self.len.fetch_update(Relaxed, Relaxed, |len| (len < self.most).then_some(len + 1)).is_ok()
    }

    fn find_places(&self, now: u64) {
        let from = self.look_from.load(Relaxed);
        if now < from || self.look_from.compare_exchange(from, now + PAUSE, Relaxed, Relaxed).is_err() {
            return;
        }
        let asked = ASKED.min(self.shards.len());
        let first = self.turn.fetch_add(asked, Relaxed);
        for turn in first..first.wrapping_add(asked) {
            let mut leases = self.shards[turn & (self.shards.len() - 1)].lock();
            let before = leases.len();
            // Whoever waits, or may put something back, holds one more.
            leases.retain(|_, lease| Arc::strong_count(lease) > 1 || !lease.is_at_rest(now));
            self.len.fetch_sub(before - leases.len(), Relaxed);
        }
    }
}
