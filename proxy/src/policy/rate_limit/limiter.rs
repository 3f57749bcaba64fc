//! The state of one limit: what each of its keys has used.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_config::model::{KeyPart, Limit, LimitOverride, Rate, RateLimit};
use tokio::time::Instant;

use super::gcra::{self, Level, Pace, Short};
use super::key::{self, Asked};
use super::keys::Keys;
use super::shared::{Lease, Servers, SharedLimiter};
use crate::telemetry::{LimitMetrics, Metrics, Worker};

#[derive(Debug)]
pub struct Limiter {
    /// `NAMESPACE/POLICY LIMIT`, as the log says it.
    pub name: Arc<str>,
    /// The limit's own pace and that of each override; `None`: no limit.
    paces: Vec<Option<Pace>>,
    numbers: Numbers,
    /// Counts instead, for all instances of a Service.
    pub shared: Option<Arc<SharedLimiter>>,
    secret: RandomState,
    /// Zero of the buckets' time.
    born: Instant,
    metrics: Arc<LimitMetrics>,
}

/// Buckets, or requests at the same time.
#[derive(Debug)]
enum Numbers {
    /// Everything is counted together.
    One(AtomicU64),
    Keyed(Keys),
}

/// Where a request is counted.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// 0 where everything is counted together.
    pub hash: u64,
    /// Which override fits it.
    pub given: Option<usize>,
    /// There was no room for a number of its own.
    shared: bool,
}

impl Place {
    pub fn of(hash: u64, given: Option<usize>) -> Self {
        Self { hash, given, shared: false }
    }
}

impl Limiter {
    pub fn rate(rate: &RateLimit, metrics: &Arc<Metrics>, servers: &Servers) -> Arc<Self> {
        let limit = &rate.limit;
        let Some(shared) = &rate.shared else {
            let given = limit.overrides.iter().map(|given| given.allowed.map(Pace::new));
            let paces = std::iter::once(Some(Pace::new(limit.allowed))).chain(given).collect();
            return Arc::new(Self::new(limit, paces, metrics));
        };
        let mut limiter = Self::new(limit, Vec::new(), metrics);
        // Nothing is counted here.
        limiter.numbers = Numbers::One(AtomicU64::new(0));
        let (name, metrics) = (limiter.name.clone(), limiter.metrics.clone());
        limiter.shared = Some(SharedLimiter::new(name, rate, shared, servers, metrics));
        Arc::new(limiter)
    }

    pub fn cap(limit: &Limit<u32>, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self::new(limit, Vec::new(), metrics))
    }

    fn new<A>(limit: &Limit<A>, paces: Vec<Option<Pace>>, metrics: &Arc<Metrics>) -> Self {
        let policy = limit.policy();
        Self {
            name: format!("{policy} {}", limit.name).into(),
            paces,
            numbers: match limit.key.is_empty() {
                true => Numbers::One(AtomicU64::new(0)),
                false => Numbers::Keyed(Keys::new(limit.max_keys as usize)),
            },
            shared: None,
            secret: RandomState::new(),
            born: Instant::now(),
            metrics: metrics.limit(&policy, &limit.name),
        }
    }

    /// Where `shared` counts this request; `None` where nothing limits it.
    pub fn shared_place(
        &self,
        shared: &SharedLimiter,
        limit: &Limit<Rate>,
        asked: Asked<'_>,
        home: &str,
        at: (Instant, Worker),
    ) -> Option<(Place, Arc<Lease>)> {
        shared.place(&limit.key, &limit.overrides, asked, home, &self.secret, at)
    }

    pub fn place<A>(
        &self,
        parts: &[KeyPart],
        overrides: &[LimitOverride<A>],
        asked: Asked<'_>,
        home: &str,
    ) -> Place {
        if parts.is_empty() {
            return Place { hash: 0, given: None, shared: false };
        }
        let values = key::values(parts, asked, home);
        let hash = key::hash(&values, &self.secret);
        Place { hash, given: key::overriding(overrides, &values), shared: false }
    }

    /// `None`: no limit.
    pub fn pace(&self, given: Option<usize>) -> Option<Pace> {
        self.paces[given.map_or(0, |given| given + 1)]
    }

    pub fn take(
        &self,
        place: Place,
        now: Instant,
        cost: u32,
        pace: Pace,
        worker: Worker,
    ) -> (Result<Level, Short>, Place) {
        let now = now.saturating_duration_since(self.born).as_nanos() as u64;
        self.with(place, now, worker, |bucket| gcra::take(bucket, now, cost, pace))
    }

    pub fn give_back(&self, place: Place, cost: u32) {
        let Some(pace) = self.pace(place.given) else { return };
        self.again(place, |bucket| gcra::give_back(bucket, cost, pace));
    }

    /// Counts one request more, unless there are as many as there may be.
    pub fn enter(&self, place: Place, most: u32, worker: Worker) -> (bool, Place) {
        let more = |now| (now < u64::from(most)).then_some(now + 1);
        self.with(place, 0, worker, |number| {
            number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        })
    }

    pub fn leave(&self, place: Place) {
        self.again(place, |number| {
            number.fetch_sub(1, Ordering::Relaxed);
        });
    }

    pub fn refused(&self, worker: Worker, observed: bool) {
        self.metrics.refused(worker, observed);
    }

    /// A server did not decide in time on something that goes on, or does not.
    pub fn undecided(&self, worker: Worker, passes: bool) {
        self.metrics.undecided(worker, passes);
    }

    /// Keys that are remembered.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        match &self.numbers {
            Numbers::One(_) => 0,
            Numbers::Keyed(keys) => keys.len(),
        }
    }

    fn with<R>(
        &self,
        place: Place,
        now: u64,
        worker: Worker,
        use_it: impl FnOnce(&AtomicU64) -> R,
    ) -> (R, Place) {
        let keys = match &self.numbers {
            Numbers::One(number) => return (use_it(number), place),
            Numbers::Keyed(keys) => keys,
        };
        let (result, shared) = keys.with(place.hash, now, use_it);
        if shared {
            self.metrics.overflowed(worker);
        }
        (result, Place { shared, ..place })
    }

    fn again(&self, place: Place, use_it: impl FnOnce(&AtomicU64)) {
        match &self.numbers {
            Numbers::One(number) => use_it(number),
            Numbers::Keyed(keys) if place.shared => use_it(keys.overflow()),
            Numbers::Keyed(keys) => keys.again(place.hash, use_it),
        }
    }
}
