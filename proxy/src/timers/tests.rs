use std::time::Duration;

use futures_util::poll;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::spawn_local;

use super::*;

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn each_is_due_when_it_said_and_never_before() {
    let timers = Timers::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let most = 1 << rng.random_range(1..24);
            let wait = millis(rng.random_range(0..most));
            let timers = Rc::clone(&timers);
            spawn_local(async move {
                let begun = Instant::now();
                timers.sleep(wait).await;
                let late = begun.elapsed().checked_sub(wait).expect("not before");
                assert!(late <= millis(2), "{late:?} after {wait:?}");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(timers.wheel.borrow().len(), 0);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn one_that_was_taken_back_wakes_nobody() {
    let timers = Timers::new();
    let mut sleep = timers.sleep(millis(100));
    assert!(poll!(&mut sleep).is_pending());
    drop(sleep);
    assert_eq!(timers.wheel.borrow().len(), 0);
    let begun = Instant::now();
    timers.sleep(millis(1_000)).await;
    assert!(begun.elapsed() >= millis(1_000));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn one_may_be_moved_both_ways() {
    let timers = Timers::new();
    let (begun, mut sleep) = (Instant::now(), timers.sleep(millis(50)));
    assert!(poll!(&mut sleep).is_pending());
    sleep.reset(begun + millis(5_000));
    assert!(poll!(&mut sleep).is_pending());
    timers.sleep(millis(4_990)).await;
    assert!(poll!(&mut sleep).is_pending());
    sleep.reset(begun + millis(4_995));
    sleep.await;
    assert!((millis(4_995)..millis(4_999)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn work_is_bounded() {
    let timers = Timers::new();
    let at = Instant::now() + millis(10);
    assert_eq!(timers.before(at, pin!(std::future::ready(7))).await, Some(7));
    assert_eq!(timers.before(at, pin!(timers.sleep(millis(5)))).await, Some(()));
    assert_eq!(timers.before(at, pin!(std::future::pending::<()>())).await, None);
    assert!(Instant::now() >= at);
    assert_eq!(timers.before(at, pin!(std::future::ready(7))).await, Some(7), "it is there, though late");
}

/// Limits that are met: the runtime's own timer is moved once in a while, not once for each of them.
#[tokio::test(flavor = "local", start_paused = true)]
async fn timers_that_are_set_and_taken_back_cost_the_runtime_nothing() {
    let timers = Timers::new();
    let mut looked = 0;
    for _ in 0..10_000 {
        let before = timers.looks.get();
        let work = timers.before(Instant::now() + millis(5_000), pin!(tokio::time::sleep(millis(1)))).await;
        assert_eq!(work, Some(()));
        looked += usize::from(timers.looks.get() != before);
    }
    assert!(looked < 100, "{looked} in 10 s");
}
