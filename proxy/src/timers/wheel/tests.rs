use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Wake;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn woken(wheel: &mut Wheel, now: Tick) -> usize {
    let mut count = 0;
    wheel.expire(now, |_| count += 1);
    count
}

/// Beside a list of all timers that is looked through each time: the same ones are due at the same moments, however far ahead they were set, and the
/// wheel is never looked after later than that.
#[test]
fn what_is_due_is_what_a_plain_list_says() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut wheel, mut list, mut now) = (Wheel::default(), BTreeMap::new(), 0);
        let mut number = 0u64;
        for _ in 0..500 {
            match rng.random_range(0..10) {
                0..5 => {
                    let ahead = 1 << rng.random_range(0..40);
                    let at = now + rng.random_range(0..ahead);
                    let (key, looks) = wheel.insert(at, Waker::noop().clone());
                    assert!(looks <= at, "seed {seed}: {looks} for {at}");
                    list.insert(number, (key, at));
                    number += 1;
                }
                5..7 if !list.is_empty() => {
                    let nth = rng.random_range(0..list.len());
                    let number = *list.keys().nth(nth).expect("there are that many");
                    let (key, _) = list.remove(&number).expect("it is there");
                    assert!(wheel.remove(key).is_some(), "seed {seed}: it was not due");
                }
                _ => {
                    let earliest = list.values().map(|(_, at)| *at).min();
                    match (wheel.next(), earliest) {
                        (next, Some(at)) => assert!(next.is_some_and(|next| next <= at), "seed {seed}"),
                        (next, None) => assert_eq!(next, None, "seed {seed}"),
                    }
                    let most = 1 << rng.random_range(0..30);
                    now = match rng.random_range(0..3) {
                        0 => now + rng.random_range(0..200),
                        1 => wheel.next().unwrap_or(now).max(now),
                        _ => now + rng.random_range(0..most),
                    };
                    let due: Vec<_> =
                        list.iter().filter(|(_, (_, at))| *at <= now).map(|(n, _)| *n).collect();
                    assert_eq!(woken(&mut wheel, now), due.len(), "seed {seed} at {now}");
                    for number in due {
                        let (key, _) = list.remove(&number).expect("it is there");
                        assert!(wheel.is_due(key), "seed {seed}");
                        assert!(wheel.remove(key).is_none(), "seed {seed}");
                    }
                    assert!(list.values().all(|(key, _)| !wheel.is_due(*key)), "seed {seed}");
                    assert_eq!(wheel.len(), list.len());
                }
            }
        }
    }
}

#[test]
fn the_one_who_asked_last_is_woken() {
    let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut wheel = Wheel::default();
    let (key, _) = wheel.insert(5, Arc::clone(&first).into());
    assert!(wheel.wake(key, &Arc::clone(&first).into()).is_none(), "it is the same one");
    assert!(wheel.wake(key, &Arc::clone(&second).into()).is_some());
    wheel.expire(5, Waker::wake);
    assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
}

#[test]
fn what_has_passed_already_is_due_at_once() {
    let mut wheel = Wheel::default();
    assert_eq!(woken(&mut wheel, 1_000), 0);
    let (key, looks) = wheel.insert(10, Waker::noop().clone());
    assert!(looks <= 1_000);
    assert_eq!(woken(&mut wheel, 1_000), 1);
    assert!(wheel.is_due(key));
}

/// A burst leaves no more behind than what is still set.
#[test]
fn room_is_given_back() {
    let mut wheel = Wheel::default();
    let keys: Vec<_> = (0..10_000).map(|n| wheel.insert(100 + n, Waker::noop().clone()).0).collect();
    keys[1..].iter().for_each(|key| drop(wheel.remove(*key)));
    wheel.expire(1, |_| {});
    assert!(wheel.entries.capacity() < 100, "{}", wheel.entries.capacity());
}

/// Every connection has one.
#[test]
fn a_timer_is_small() {
    assert!(size_of::<Entry>() <= 40, "{}", size_of::<Entry>());
}
