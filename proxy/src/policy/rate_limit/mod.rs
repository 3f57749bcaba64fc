//! How much a workload takes on, and from whom.
//!
//! Owns the limits of the workload's ports and the state they are counted by: token buckets ([`gcra`]) and numbers of concurrent requests, one for each key
//! ([`keys`]). Shared by the workers, so that a limit is one limit however many there are. A request goes on if all limits let it; of one that does not nothing
//! stays taken. Limits that all instances of a Service share are counted by a server ([`shared`]); for that alone a request may have to wait, after all others let
//! it. Never looks at who may call: `access` did that before.

mod gcra;
mod headers;
mod key;
mod keys;
mod limiter;
mod shared;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use outrigger_config::model::access::Call;
use outrigger_config::model::{self, Cost, Limit, LimitHeaders, LimitMode, LimitUnit, Rate};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::body::Body;
use crate::exchange::Authority;
use crate::failure::{Failure, Reason};
use crate::identity::Peer;
use crate::telemetry::{Metrics, Record, Worker};
use headers::Advice;
pub use key::{Asked, Head};
use limiter::{Limiter, Place};
use shared::{Lease, Taken as Leased};
pub use shared::{Servers, Through};

/// Those of one port, made when its configuration is published.
#[derive(Debug)]
pub struct Limits {
    rates: Vec<RateRule>,
    caps: Vec<CapRule>,
    advice: Advice,
    /// One of them asks for the host.
    hosts: bool,
    home: Arc<str>,
}

#[derive(Debug)]
struct RateRule {
    rule: Rule<Rate>,
    unit: LimitUnit,
    cost: Cost,
}

#[derive(Debug)]
struct CapRule {
    rule: Rule<u32>,
}

/// When a limit counts, and what.
#[derive(Debug)]
struct Rule<A> {
    limit: Limit<A>,
    state: Arc<Limiter>,
}

/// The state of all limits in force, to be taken over by those that follow.
#[derive(Debug, Default)]
pub struct States(Vec<(Counting, Arc<Limiter>)>);

/// What a state is the state of. If it is the same, what was counted goes on to count.
#[derive(Clone, Debug, PartialEq)]
enum Counting {
    Rate(Box<model::RateLimit>),
    Concurrency(Limit<u32>),
}

impl States {
    /// The states of `ports`, taken over from `before` where they count the same.
    pub fn of<'m>(
        ports: impl Iterator<Item = &'m model::Limits>,
        before: &Self,
        metrics: &Arc<Metrics>,
        servers: &Servers,
    ) -> Self {
        let mut states = Self::default();
        for limits in ports {
            let rates = limits.rates.iter().map(Counting::of_rate);
            let caps = limits.concurrency.iter().map(Counting::of_cap);
            for counting in rates.chain(caps) {
                if states.find(&counting).is_none() {
                    let state =
                        before.find(&counting).unwrap_or_else(|| counting.new_state(metrics, servers));
                    states.0.push((counting, state));
                }
            }
        }
        states
    }

    fn find(&self, counting: &Counting) -> Option<Arc<Limiter>> {
        self.0.iter().find(|(known, _)| known == counting).map(|(_, state)| state.clone())
    }
}

impl Counting {
    fn of_rate(rate: &model::RateLimit) -> Self {
        let (limit, shared) = (Self::bare(&rate.limit), rate.shared.clone());
        let cost = Cost { fixed: 1, header: None, most: 1 };
        let rate = model::RateLimit { limit, unit: rate.unit, cost, headers: LimitHeaders::Always, shared };
        Self::Rate(Box::new(rate))
    }

    fn of_cap(cap: &Limit<u32>) -> Self {
        Self::Concurrency(Self::bare(cap))
    }

    /// Without what differs between the ports of one limit, and what may change while it counts on.
    fn bare<A: Clone>(limit: &Limit<A>) -> Limit<A> {
        Limit { matches: Vec::new(), mode: LimitMode::Enforce, ..limit.clone() }
    }

    fn new_state(&self, metrics: &Arc<Metrics>, servers: &Servers) -> Arc<Limiter> {
        match self {
            Self::Rate(rate) => Limiter::rate(rate, metrics, servers),
            Self::Concurrency(limit) => Limiter::cap(limit, metrics),
        }
    }
}

impl Limits {
    /// `None` where there are none. `home`: the mesh's trust domain.
    pub fn new(model: &model::Limits, states: &States, home: &Arc<str>) -> Option<Arc<Self>> {
        // The adaptive cap is the cluster's.
        if model.rates.is_empty() && model.concurrency.is_empty() {
            return None;
        }
        let state = |counting: Counting| states.find(&counting).expect("made of the same ports");
        let rate = |rate: &model::RateLimit| RateRule {
            rule: Rule { limit: rate.limit.clone(), state: state(Counting::of_rate(rate)) },
            unit: rate.unit,
            cost: rate.cost.clone(),
        };
        let cap = |cap: &Limit<u32>| CapRule {
            rule: Rule { limit: cap.clone(), state: state(Counting::of_cap(cap)) },
        };
        Some(Arc::new(Self {
            rates: model.rates.iter().map(rate).collect(),
            caps: model.concurrency.iter().map(cap).collect(),
            advice: Advice::new(model),
            hosts: limits_hosts(model),
            home: home.clone(),
        }))
    }

    /// Counts a request; `Err` where one of the limits refuses it. What is returned beside it goes on to count until it is dropped, and knows what the
    /// response has to say; and whether a server has to be asked first ([`Counted::settled`]).
    pub fn request(
        self: &Arc<Self>,
        worker: Worker,
        peer: &Peer,
        request: &Request<Body>,
        record: &mut Record,
    ) -> (Counted, Result<(), Failure>) {
        let head = Head {
            method: request.method(),
            path: request.uri().path(),
            // Not looked for where nobody asks for it.
            host: if self.hosts { Authority::of(request).host() } else { "" },
            headers: request.headers(),
        };
        self.count(worker, Asked { peer, request: Some(head) }, record)
    }

    /// Counts a connection that carries bytes.
    pub async fn connection(
        self: &Arc<Self>,
        worker: Worker,
        peer: &Peer,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let (mut counted, passed) = self.count(worker, Asked { peer, request: None }, record);
        passed?;
        match counted.settled(worker, record) {
            Some(settled) => settled.await,
            None => Ok(()),
        }
    }

    fn count(
        self: &Arc<Self>,
        worker: Worker,
        asked: Asked<'_>,
        record: &mut Record,
    ) -> (Counted, Result<(), Failure>) {
        let now = record.begun();
        let mut counted = Counted {
            limits: self.clone(),
            taken: SmallVec::new(),
            held: SmallVec::new(),
            wait: None,
            open: Vec::new(),
        };
        for (index, rate) in self.rates.iter().enumerate().filter(|(_, rate)| rate.counts(asked)) {
            let Err(refusal) = rate.take(index, now, asked, worker, &self.home, &mut counted) else {
                continue;
            };
            if let Some(failure) = refusal.tell(&rate.rule, Reason::RateLimited, worker, record) {
                counted.refused(refusal.wait);
                return (counted, Err(failure));
            }
        }
        for (index, cap) in self.caps.iter().enumerate() {
            if !asked.request.is_some_and(|head| cap.rule.limit.concerns(&head.call())) {
                continue;
            }
            let Err(refusal) = cap.enter(index, asked, worker, &self.home, &mut counted) else { continue };
            if let Some(failure) = refusal.tell(&cap.rule, Reason::ConcurrencyLimited, worker, record) {
                counted.refused(None);
                return (counted, Err(failure));
            }
        }
        (counted, Ok(()))
    }
}

fn limits_hosts(model: &model::Limits) -> bool {
    let rates = model.rates.iter().flat_map(|rate| &rate.limit.matches);
    let caps = model.concurrency.iter().flat_map(|cap| &cap.matches);
    rates.chain(caps).any(|call| !call.hosts.is_empty())
}

/// What one limit said no to.
struct Refusal {
    key: u64,
    /// Nanoseconds until it would say yes.
    wait: Option<u64>,
    allowed: String,
}

impl Refusal {
    /// Counts and notes it. `None` where the limit only observes.
    fn tell<A>(
        &self,
        rule: &Rule<A>,
        reason: Reason,
        worker: Worker,
        record: &mut Record,
    ) -> Option<Failure> {
        let observed = rule.limit.mode == LimitMode::Observe;
        rule.state.refused(worker, observed);
        record.limited(&rule.state.name, self.key, observed);
        (!observed).then(|| {
            let (name, origin) = (&rule.limit.name, &rule.limit.origin);
            Failure::new(reason, format!("limit {name} of {origin} allows {}", self.allowed))
        })
    }
}

impl RateRule {
    fn counts(&self, asked: Asked<'_>) -> bool {
        match (self.unit, asked.request) {
            (LimitUnit::Requests, Some(head)) => self.rule.limit.concerns(&head.call()),
            (LimitUnit::Connections, None) => true,
            _ => false,
        }
    }

    fn take(
        &self,
        index: usize,
        now: Instant,
        asked: Asked<'_>,
        worker: Worker,
        home: &str,
        counted: &mut Counted,
    ) -> Result<(), Refusal> {
        let Rule { limit, state } = &self.rule;
        let cost = asked.request.map_or(1, |head| self.cost(head.headers));
        if let Some(shared) = &state.shared {
            let place = state.shared_place(shared, limit, asked, home, (now, worker));
            let Some((place, lease)) = place else { return Ok(()) };
            let taken = shared.take(&lease, cost, now);
            let open = Open { index, place, cost, lease };
            return match taken {
                // A server that does not answer is judged with those that are asked.
                Leased::Wait | Leased::Undecided => {
                    counted.open.push(open);
                    Ok(())
                }
                Leased::Yes(level) => {
                    counted.taken.push(open.taken(level, true));
                    Ok(())
                }
                Leased::No { level, wait } => {
                    counted.taken.push(open.taken(level, false));
                    Err(self.refusal(place, wait))
                }
            };
        }
        let place = state.place(&limit.key, &limit.overrides, asked, home);
        let Some(pace) = state.pace(place.given) else { return Ok(()) };
        let (taken, place) = state.take(place, now, cost, pace, worker);
        let level = match taken {
            Ok(level) => level,
            Err(short) => short.level,
        };
        counted.taken.push(Taken { index, place, cost, level, kept: taken.is_ok(), lease: None });
        taken.map(drop).map_err(|short| self.refusal(place, short.wait))
    }

    fn refusal(&self, place: Place, wait: u64) -> Refusal {
        let limit = &self.rule.limit;
        let rate = place.given.and_then(|given| limit.overrides[given].allowed).unwrap_or(limit.allowed);
        let together = if self.rule.state.shared.is_some() { " by all instances together" } else { "" };
        let allowed = format!("{} per {:?}, {} at once{together}", rate.tokens, rate.per, rate.burst);
        Refusal { key: place.hash, wait: Some(wait), allowed }
    }

    fn cost(&self, headers: &HeaderMap) -> u32 {
        let given = self.cost.header.as_ref().and_then(|name| headers.get(name));
        let given = given.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        given.map_or(self.cost.fixed, |cost| cost.clamp(1, self.cost.most.into()) as u32)
    }
}

impl CapRule {
    fn enter(
        &self,
        index: usize,
        asked: Asked<'_>,
        worker: Worker,
        home: &str,
        counted: &mut Counted,
    ) -> Result<(), Refusal> {
        let Rule { limit, state } = &self.rule;
        let place = state.place(&limit.key, &limit.overrides, asked, home);
        let allowed = match place.given {
            Some(given) => limit.overrides[given].allowed,
            None => Some(limit.allowed),
        };
        let Some(most) = allowed else { return Ok(()) };
        let (entered, place) = state.enter(place, most, worker);
        if entered {
            counted.held.push((index, place));
            return Ok(());
        }
        Err(Refusal { key: place.hash, wait: None, allowed: format!("{most} at the same time") })
    }
}

/// A request that waits for a server.
pub type Settled<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// What a request took, and goes on to hold until it is over.
#[derive(Debug)]
pub struct Counted {
    limits: Arc<Limits>,
    taken: SmallVec<[Taken; 1]>,
    /// Caps by their place among those of the port.
    held: SmallVec<[(usize, Place); 1]>,
    /// Nanoseconds after which it may be tried again, where it was refused by a rate.
    wait: Option<u64>,
    /// What a server has to be asked for. Almost always empty, and then without memory of its own.
    open: Vec<Open>,
}

/// A shared limit that has not decided yet.
#[derive(Debug)]
struct Open {
    index: usize,
    place: Place,
    cost: u32,
    lease: Arc<Lease>,
}

impl Open {
    fn taken(self, level: gcra::Level, kept: bool) -> Taken {
        let Self { index, place, cost, lease } = self;
        Taken { index, place, cost, level, kept, lease: Some(lease) }
    }
}

/// From a rate, by its place among those of the port.
#[derive(Debug)]
struct Taken {
    index: usize,
    place: Place,
    cost: u32,
    level: gcra::Level,
    kept: bool,
    /// Of a shared limit.
    lease: Option<Arc<Lease>>,
}

impl Counted {
    /// Puts everything back that was taken, because the request does not go on.
    fn refused(&mut self, wait: Option<u64>) {
        self.wait = wait;
        for taken in self.taken.iter_mut().filter(|taken| taken.kept) {
            let state = &self.limits.rates[taken.index].rule.state;
            match (&state.shared, &taken.lease) {
                (Some(shared), Some(lease)) => shared.put_back(lease, taken.cost),
                _ => state.give_back(taken.place, taken.cost),
            }
            taken.level.left = taken.level.left.saturating_add(taken.cost);
        }
        self.leave();
    }

    /// Asks the servers of shared limits that have to be asked, and waits for them no longer than their policies say. `None` where there are none. Boxed, so
    /// that only those who wait have it.
    pub fn settled<'a>(&'a mut self, worker: Worker, record: &'a mut Record) -> Option<Settled<'a>> {
        (!self.open.is_empty()).then(|| Box::pin(self.settle(worker, record)) as _)
    }

    async fn settle(&mut self, worker: Worker, record: &mut Record) -> Result<(), Failure> {
        let limits = self.limits.clone();
        for open in std::mem::take(&mut self.open) {
            let rate = &limits.rates[open.index];
            let Rule { limit, state } = &rate.rule;
            let Some(shared) = &state.shared else { continue };
            let place = open.place;
            match shared.wait(&open.lease, open.cost).await {
                Leased::Yes(level) => self.taken.push(open.taken(level, true)),
                Leased::No { level, wait } => {
                    self.taken.push(open.taken(level, false));
                    let refusal = rate.refusal(place, wait);
                    if let Some(failure) = refusal.tell(&rate.rule, Reason::RateLimited, worker, record) {
                        self.refused(refusal.wait);
                        return Err(failure);
                    }
                }
                Leased::Wait | Leased::Undecided => {
                    let passes = shared.open() || limit.mode == LimitMode::Observe;
                    state.undecided(worker, passes);
                    if !passes {
                        self.refused(None);
                        let detail =
                            format!("the server of limit {} of {} did not answer", limit.name, limit.origin);
                        return Err(Failure::new(Reason::LimitUndecided, detail));
                    }
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self) {
        for (index, place) in self.held.drain(..) {
            self.limits.caps[index].rule.state.leave(place);
        }
    }

    /// Says to the caller what is left, and where it was refused when to come back.
    pub fn tell<B>(&self, response: &mut Response<B>) {
        self.limits.advice.tell(self, response);
    }

    fn headers(&self, taken: &Taken) -> bool {
        let rule = &self.limits.rates[taken.index].rule;
        let wanted = match self.limits.advice.headers(taken.index) {
            LimitHeaders::Always => true,
            LimitHeaders::Refused => self.wait.is_some(),
            LimitHeaders::Never => false,
        };
        wanted && rule.limit.mode == LimitMode::Enforce
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<'a> Head<'a> {
    fn call(&self) -> Call<'a> {
        Call { method: self.method, path: self.path, host: self.host, headers: Some(self.headers) }
    }
}
