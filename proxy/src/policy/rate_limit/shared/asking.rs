//! The one task that asks for a lease while it is in use.
//!
//! Asks for a batch, halves what is refused, gives back what nobody used, and asks again now and then while the server does not answer. One task a lease: a key is
//! asked for once however many wait for it, and one that is answered late delays no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::SharedLimiter;
use super::lease::{Lease, Wish};
use super::server::Answer;

/// After this long without use leased tokens are given back.
const IDLE: Duration = Duration::from_millis(200);
/// A key that was refused is asked for again after this long at the latest, where others may have given something back.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two questions to a server that does not answer: the first time, and at most. ± 20 %.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn look_after(limit: Arc<SharedLimiter>, lease: Arc<Lease>) {
    let mut pause = PAUSE;
    // Tokens of a server that takes nothing back are good until then.
    let mut good_until = None;
    // It did not answer, and somebody would have wanted it to.
    let mut missed = false;
    loop {
        let now = limit.now();
        if let Some(until) = good_until
            && now >= until
        {
            lease.expire();
            good_until = None;
        }
        let wish = lease.wish(now, limit.batch(&lease), limit.allowed(&lease));
        // Nobody waits for a server that is away: it is asked on behalf of those who did not wait.
        let Some(wish) = wish.or(missed.then_some(Wish { hits: 1, least: 1 })) else {
            if rest(&limit, &lease, good_until).await {
                return;
            }
            continue;
        };
        missed = false;
        match ask(&limit, &lease, wish).await {
            Asked::Granted { good } => {
                pause = PAUSE;
                good_until = good;
            }
            Asked::Refused => pause = PAUSE,
            Asked::Failed => {
                lease.failed();
                let pause_now = pause.mul_f64(rand::random_range(0.8..1.2));
                sleep(pause_now).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                missed = lease.was_missed();
                if !missed && lease.rest() {
                    return;
                }
            }
        }
    }
}

enum Asked {
    /// `good`: until when, if they cannot be given back.
    Granted {
        good: Option<u64>,
    },
    Refused,
    Failed,
}

/// Asks for what is wished, or as much of it as there is.
async fn ask(limit: &SharedLimiter, lease: &Lease, wish: Wish) -> Asked {
    let mut hits = wish.hits;
    loop {
        let answer = limit.ask(lease, hits, false).await;
        let now = limit.now();
        match answer {
            Ok(Answer { fits: true, remaining, reset, takes_back }) => {
                let ends = now + reset;
                // Our own server says what there is: nobody has to ask to hear that there is nothing.
                let dry = if takes_back && remaining == 0 { now + limit.refill(lease) } else { now };
                lease.granted(hits, remaining, ends, dry);
                return Asked::Granted { good: (!takes_back).then_some(ends) };
            }
            Ok(Answer { remaining, takes_back, .. }) if hits > wish.least => {
                let half = hits / 2;
                let there = if takes_back { half.min(remaining.into()) } else { half };
                hits = there.max(wish.least);
            }
            Ok(Answer { reset, takes_back, .. }) => {
                let until = match takes_back {
                    true => reset.clamp(limit.refill(lease), AGAIN.as_nanos() as u64),
                    false => reset,
                };
                lease.denied(hits, now + until, now + reset.max(1));
                return Asked::Refused;
            }
            Err(_) => return Asked::Failed,
        }
    }
}

/// Waits until more is wanted. Whether there is nothing left to look after.
async fn rest(limit: &SharedLimiter, lease: &Lease, good_until: Option<u64>) -> bool {
    let until_bad = good_until.map(|until| Duration::from_nanos(until.saturating_sub(limit.now())));
    tokio::select! {
        () = lease.wanted.notified() => return false,
        () = sleep(until_bad.map_or(IDLE, |until| until.max(Duration::from_millis(1)))) => {}
    }
    if good_until.is_none() {
        let left = lease.take_idle(limit.now());
        // If it is not heard there is less for a while; nobody gets more than there may be.
        if left > 0 && limit.server.takes_back() {
            let _ = limit.ask(lease, left, true).await;
        }
    }
    lease.rest()
}
