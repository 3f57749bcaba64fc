//! Limits that all instances of a Service count together, at a server of Envoy's rate limit call.
//!
//! Owns the leases: tokens that the server has counted and requests use later ([`lease`]), so that a request waits for the server only where its key has none. One
//! task asks for each ([`asking`]), over one connection to each server ([`server`]). `strict` leases nothing and asks every time. Whoever is not answered in time
//! goes on or is refused, as the policy says. Never counts a request that waits for nothing but another limit: those are asked first.

mod asking;
mod door;
mod keys;
mod lease;
mod server;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::model::{KeyPart, Limit, LimitOverride, Rate, RateLimit, SharedLimit};
use outrigger_config::xds::pb::UInt64Value;
use outrigger_config::xds::pb::ratelimit_descriptor::RateLimitDescriptor;
use outrigger_config::xds::pb::ratelimit_descriptor::rate_limit_descriptor::{Entry, RateLimitOverride};
use outrigger_config::xds::rate_limit::{self, OVERFLOW};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::gcra::Level;
use super::key::{self, Asked, Values};
use super::limiter::Place;
use crate::telemetry::{LimitMetrics, Worker};
pub use door::Through;
use keys::Leases;
pub use lease::Lease;
use lease::Taken as Found;
pub use server::Servers;
use server::{Answer, Server, Unanswered};

#[derive(Debug)]
pub struct SharedLimiter {
    /// As the log says it.
    name: Arc<str>,
    settings: SharedLimit,
    /// The limit's own allowance and that of each override; `None`: no limit.
    allowed: Vec<Option<Allowed>>,
    /// What its descriptors begin with.
    entries: Vec<Entry>,
    /// How they call each part of the key.
    parts: Vec<Cow<'static, str>>,
    server: Arc<Server>,
    leases: Numbers,
    runtime: tokio::runtime::Handle,
    /// Zero of the leases' time.
    born: Instant,
    metrics: Arc<LimitMetrics>,
}

#[derive(Clone, Copy, Debug)]
struct Allowed {
    rate: Rate,
    wire: RateLimitOverride,
}

#[derive(Debug)]
enum Numbers {
    /// Everything is counted together.
    One(Arc<Lease>),
    Keyed(Leases),
}

/// What a request gets without waiting.
#[derive(Debug)]
pub enum Taken {
    Yes(Level),
    No {
        level: Level,
        wait: u64,
    },
    /// The server does not answer; what that means says [`SharedLimiter::open`].
    Undecided,
    /// It has to be asked for: [`SharedLimiter::wait`].
    Wait,
}

impl SharedLimiter {
    /// `shared` of `limit`, whose rates can be shared.
    pub fn new(
        name: Arc<str>,
        limit: &RateLimit,
        shared: &SharedLimit,
        servers: &Servers,
        metrics: Arc<LimitMetrics>,
    ) -> Arc<Self> {
        let allowed = |rate: Rate| {
            let wire = rate_limit::allowed(rate).expect("a shared limit's rates are of the call's units");
            Allowed { rate, wire }
        };
        let Limit { key, overrides, max_keys, .. } = &limit.limit;
        let given = overrides.iter().map(|given| given.allowed.map(allowed));
        Arc::new(Self {
            name,
            settings: shared.clone(),
            allowed: std::iter::once(Some(allowed(limit.limit.allowed))).chain(given).collect(),
            entries: rate_limit::entries(limit, shared),
            parts: key.iter().map(rate_limit::part).collect(),
            server: servers.of(&shared.server),
            leases: match key.is_empty() {
                true => Numbers::One(Arc::new(Lease::new([].into(), None))),
                false => Numbers::Keyed(Leases::new(*max_keys as usize, Lease::new([].into(), None))),
            },
            runtime: servers.runtime(),
            born: Instant::now(),
            metrics,
        })
    }

    /// Whether requests go on that the server did not decide on.
    pub fn open(&self) -> bool {
        self.settings.open
    }

    /// Where a request is counted; `None` where nothing limits it. `secret`: of the hash that stands for its key here and in the log.
    pub fn place(
        &self,
        parts: &[KeyPart],
        overrides: &[LimitOverride<Rate>],
        asked: Asked<'_>,
        home: &str,
        secret: &std::hash::RandomState,
        (now, worker): (Instant, Worker),
    ) -> Option<(Place, Arc<Lease>)> {
        let leases = match &self.leases {
            Numbers::One(lease) => return Some((Place::of(0, None), lease.clone())),
            Numbers::Keyed(leases) => leases,
        };
        let values = key::values(parts, asked, home);
        let given = key::overriding(overrides, &values);
        self.allowed[index(given)]?;
        let place = Place::of(key::hash(&values, secret), given);
        let (lease, overflow) = leases.of(place.hash, self.at(now), || Lease::new(texts(&values), given));
        if overflow {
            self.metrics.overflowed(worker);
        }
        // What keys without a place share is of the limit's own size.
        Some((Place::of(place.hash, lease.given), lease))
    }

    pub fn take(self: &Arc<Self>, lease: &Arc<Lease>, cost: u32, now: Instant) -> Taken {
        if self.settings.strict {
            return Taken::Wait;
        }
        match lease.take(self.at(now), cost) {
            Found::Yes { level, low } => {
                if low && lease.low() {
                    self.start(lease);
                }
                Taken::Yes(level)
            }
            Found::No { level, wait } => Taken::No { level, wait },
            Found::Undecided => Taken::Undecided,
            Found::Empty => Taken::Wait,
        }
    }

    /// As [`Self::take`], after the server was asked: never [`Taken::Wait`]. Waits at most for as long as the policy says.
    pub async fn wait(self: &Arc<Self>, lease: &Arc<Lease>, cost: u32) -> Taken {
        if self.settings.strict {
            return match self.ask(lease, cost.into(), false).await {
                Ok(Answer { fits: true, remaining, reset, .. }) => {
                    Taken::Yes(Level { left: remaining, full_in: reset })
                }
                Ok(Answer { remaining, reset, .. }) => {
                    let wait = reset.max(1);
                    Taken::No { level: Level { left: remaining, full_in: wait }, wait }
                }
                Err(_) => Taken::Undecided,
            };
        }
        match self.take(lease, cost, Instant::now()) {
            Taken::Wait => {}
            decided => return decided,
        }
        let deadline = Instant::now() + self.settings.timeout;
        let (waiting, start) = lease.wait(cost);
        if start {
            self.start(lease);
        }
        loop {
            let mut changed = std::pin::pin!(waiting.changed());
            // What happens from here on is not missed.
            changed.as_mut().enable();
            match self.take(lease, cost, Instant::now()) {
                Taken::Wait => {}
                decided => return decided,
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Taken::Undecided;
            }
            if lease.low() {
                self.start(lease);
            }
        }
    }

    /// What was taken is not used after all.
    pub fn put_back(self: &Arc<Self>, lease: &Arc<Lease>, cost: u32) {
        lease.put_back(cost);
        // Somebody has to give it back, if nobody uses it; of `strict` limits nothing is left to others.
        if lease.low() {
            self.start(lease);
        }
    }

    fn start(self: &Arc<Self>, lease: &Arc<Lease>) {
        self.runtime.spawn(asking::look_after(self.clone(), lease.clone()));
    }

    /// Asks the server for `hits`, or gives them back.
    async fn ask(&self, lease: &Lease, hits: u64, back: bool) -> Result<Answer, Unanswered> {
        let Some(Allowed { wire, .. }) = self.allowed[index(lease.given)] else {
            return Err(Unanswered::Nowhere);
        };
        let mut entries = self.entries.clone();
        if lease.values.len() == self.parts.len() {
            let parts = self.parts.iter().zip(&*lease.values);
            entries.extend(parts.map(|(part, value)| rate_limit::entry(part, value)));
        } else {
            entries.push(rate_limit::entry(OVERFLOW, "all"));
        }
        let descriptor = RateLimitDescriptor {
            entries,
            limit: Some(wire),
            hits_addend: Some(UInt64Value { value: hits }),
            is_negative_hits: back,
        };
        let answer = self.server.ask(&self.settings.server.domain, descriptor, self.settings.timeout).await;
        if let Err(why) = &answer {
            tracing::debug!(limit = %self.name, %why, "the server of a shared limit");
        }
        self.metrics.asked(answer.as_ref().map_or(None, |answer| Some(answer.fits)));
        answer
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_nanos() as u64
    }

    /// Tokens there are in one unit.
    fn allowed(&self, lease: &Lease) -> u64 {
        self.allowed[index(lease.given)].map_or(1, |allowed| allowed.rate.tokens.into())
    }

    /// Tokens of one lease at most.
    fn batch(&self, lease: &Lease) -> u64 {
        match self.settings.batch {
            Some(batch) => batch.into(),
            None if self.server.takes_back() => (self.allowed(lease) / SHARE).max(1),
            None => 1,
        }
    }

    /// Nanoseconds in which as much comes back as a lease has, at most a tenth of a second.
    fn refill(&self, lease: &Lease) -> u64 {
        let Some(Allowed { rate, .. }) = self.allowed[index(lease.given)] else { return 0 };
        let one = rate.per.as_nanos() / u128::from(rate.tokens);
        u64::try_from(one * u128::from(self.batch(lease))).unwrap_or(u64::MAX).min(LONGEST_REFILL)
    }
}

/// A lease has a fiftieth of the limit: 2 %.
const SHARE: u64 = 50;
const LONGEST_REFILL: u64 = Duration::from_millis(100).as_nanos() as u64;

fn index(given: Option<usize>) -> usize {
    given.map_or(0, |given| given + 1)
}

/// Longest value a server is told. Bytes.
const LONGEST_VALUE: usize = 256;

/// The values as texts; a hash of what is none, or long.
fn texts(values: &Values<'_>) -> Box<[String]> {
    let text = |value: &Cow<'_, [u8]>| match std::str::from_utf8(value) {
        Ok(text) if text.len() <= LONGEST_VALUE => text.to_owned(),
        _ => {
            let hash = Sha256::digest(value);
            hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
        }
    };
    values.iter().map(text).collect()
}
