//! A number for each key, and a bound on how many there are.
//!
//! Owns which keys are remembered. A key is forgotten only while its number says nothing (a bucket that is full, a count of zero), and only when its place is
//! wanted: whoever makes up new keys makes nobody's number disappear, least of all its own. Where no place can be had, all further keys share one number.
//! Holds hashes instead of keys, 8 bytes each, made with secrets of the process, so that nobody can choose keys that meet.
//!
//! Sharded: a shard's lock is held for one look-up and one change of a number. That is the exception to "nothing on the request path takes a lock", measured in
//! docs/architecture.md.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

#[derive(Debug)]
pub struct Keys {
    shards: Box<[Shard]>,
    len: AtomicUsize,
    most: usize,
    /// Stands for all keys that found no place.
    overflow: AtomicU64,
    /// Which shard is looked through next for another one's sake.
    turn: AtomicUsize,
    /// No number that is kept is at rest before this: until then a key without a place need not look for one.
    rest_from: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    numbers: Mutex<Numbers>,
    /// None of its numbers is at rest before this. Written under the lock.
    rest_from: AtomicU64,
}

type Numbers = HashMap<u64, AtomicU64, BuildHasherDefault<AsIs>>;

/// Keys in a shard when the whole is full, about.
const A_SHARD: usize = 128;

/// Other shards a key without a place asks for one: all of them for the default of 10,000 keys.
const ASKED: usize = 128;

impl Keys {
    pub fn new(most: usize) -> Self {
        let shards = most.div_ceil(A_SHARD).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            len: AtomicUsize::new(0),
            most,
            overflow: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            rest_from: AtomicU64::new(0),
        }
    }

    /// Uses the number of a key, 0 for a new one. A number is at rest while it is at most `now`. Returns whether it was the shared one.
    pub fn with<R>(&self, hash: u64, now: u64, use_it: impl FnOnce(&AtomicU64) -> R) -> (R, bool) {
        let shard = self.shard(hash);
        let mut numbers = shard.numbers.lock();
        if let Some(number) = numbers.get_mut(&hash) {
            let result = use_it(number);
            self.rests_from(shard, *number.get_mut());
            return (result, false);
        }
        if !self.find_place(shard, &mut numbers, now) {
            drop(numbers);
            return (use_it(&self.overflow), true);
        }
        let number = numbers.entry(hash).or_default();
        let result = use_it(number);
        self.rests_from(shard, *number.get_mut());
        (result, false)
    }

    /// Uses a key's number again, if it is still there: one that is not is at rest.
    pub fn again(&self, hash: u64, use_it: impl FnOnce(&AtomicU64)) {
        let shard = self.shard(hash);
        if let Some(number) = shard.numbers.lock().get_mut(&hash) {
            use_it(number);
            self.rests_from(shard, *number.get_mut());
        }
    }

    /// The number of those that found no place.
    pub fn overflow(&self) -> &AtomicU64 {
        &self.overflow
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn shard(&self, hash: u64) -> &Shard {
        // Not the bits that a map of one shard goes by.
        &self.shards[(hash >> 24) as usize & (self.shards.len() - 1)]
    }

    /// Counts one more key, after some that are at rest left if there has to be room.
    fn find_place(&self, own: &Shard, numbers: &mut Numbers, now: u64) -> bool {
        if self.count_one() {
            return true;
        }
        if now < self.rest_from.load(Ordering::Relaxed) {
            return false;
        }
        // Whoever changes a number meanwhile may lower it again.
        self.rest_from.store(u64::MAX, Ordering::Relaxed);
        self.forget(own, numbers, now);
        let asked = ASKED.min(self.shards.len());
        let first = self.turn.fetch_add(asked, Ordering::Relaxed);
        let mut next = own.rest_from.load(Ordering::Relaxed);
        for turn in first..first.wrapping_add(asked) {
            if self.count_one() {
                self.rest_from.store(0, Ordering::Relaxed);
                return true;
            }
            let other = &self.shards[turn & (self.shards.len() - 1)];
            // Its own is locked; another that is at this moment is passed over.
            if now >= other.rest_from.load(Ordering::Relaxed)
                && let Some(mut numbers) = other.numbers.try_lock()
            {
                self.forget(other, &mut numbers, now);
            }
            next = next.min(other.rest_from.load(Ordering::Relaxed));
        }
        // Shards that were not asked may have places.
        let all = asked == self.shards.len();
        self.rest_from.fetch_min(if all { next } else { 0 }, Ordering::Relaxed);
        self.count_one()
    }

    fn count_one(&self) -> bool {
        let more = |len| (len < self.most).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A number of the shard is at rest from then on.
    fn rests_from(&self, shard: &Shard, then: u64) {
        if then < shard.rest_from.load(Ordering::Relaxed) {
            shard.rest_from.store(then, Ordering::Relaxed);
        }
        if then < self.rest_from.load(Ordering::Relaxed) {
            self.rest_from.fetch_min(then, Ordering::Relaxed);
        }
    }

    fn forget(&self, shard: &Shard, numbers: &mut Numbers, now: u64) {
        if now < shard.rest_from.load(Ordering::Relaxed) {
            return;
        }
        let (before, mut next) = (numbers.len(), u64::MAX);
        numbers.retain(|_, number| {
            let number = *number.get_mut();
            if number > now {
                next = next.min(number);
            }
            number > now
        });
        shard.rest_from.store(next, Ordering::Relaxed);
        self.len.fetch_sub(before - numbers.len(), Ordering::Relaxed);
    }
}

/// The keys are hashes.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
