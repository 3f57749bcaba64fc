//! One instance a request can go to, with what is known about how it answers.
//!
//! Owns the latency estimate, the count of requests in flight and whether it is ejected, as atomics shared by all workers. Never chooses
//! (that is `balance`) and never opens a connection (`connect`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use outrigger_config::model::{self, BreakerMode, Ejection, Health, SlowStart, SpiffeId};
use tokio::time::Instant;

use super::circuit::Circuit;
use super::ejection::{Breaker, EjectionReason, Outcome, Probe, Standing};

/// Unique in this process and never used again: connections and statistics of an instance that is gone
/// are never taken for those of a new one at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u64);

impl EndpointId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    /// A name outside the mesh, resolved when a connection is opened.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => fmt::Display::fmt(address, f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// What the proxy's own checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// It is not checked, or there is no answer yet.
    None,
    Passed,
    Failed,
}

/// Whether an endpoint is one of those that get requests, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    Yes,
    /// Only where no other is.
    Draining,
    NotReady,
    FailsChecks,
}

#[derive(Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub address: Address,
    /// `NAMESPACE/NAME` of the instance, where it is known.
    pub workload: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    /// Zones whose requests are meant for it, sorted; empty where nobody decided that.
    pub for_zones: Vec<Arc<str>>,
    /// SPIFFE id the instance proves itself with.
    pub identity: Option<SpiffeId>,
    /// Dialled with mTLS for exactly `identity`; otherwise in plaintext.
    pub meshed: bool,
    health: AtomicU8,
    /// The last word of the proxy's own checks.
    checks: AtomicU8,
    check_failure: ArcSwapOption<String>,
    /// When its share began to rise, in milliseconds of its clock; 0 where it has all of it.
    risen_since: AtomicU32,
    weight: AtomicU32,
    in_flight: AtomicU32,
    latency: Latency,
    pub(super) breaker: Breaker,
    circuit: Arc<Circuit>,
}

/// What came of the last failures of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejected {
    pub state: EjectedState,
    /// In Observe it is only said what would be.
    pub mode: BreakerMode,
    /// `None` where it is back.
    pub reason: Option<EjectionReason>,
    /// The part of its share of requests that it gets, 0 to 1.
    pub share: f32,
    /// When the next request may find out whether it is well again.
    pub next_probe: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EjectedState {
    /// It gets no requests.
    Ejected,
    /// It got one, which is not answered yet.
    Probing,
    /// It is back, with a rising share.
    Ramping,
}

impl EjectedState {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Ramping => "ramping",
        }
    }
}

impl Endpoint {
    /// `estimate` is what it is taken to need until it has shown it.
    pub(super) fn new(model: model::Endpoint, estimate: Duration, circuit: &Arc<Circuit>) -> Self {
        let endpoint = Self::at(Address::Socket(model.address), estimate, circuit);
        endpoint.update(&model);
        Self {
            workload: model.workload,
            zone: model.zone,
            for_zones: model.for_zones,
            identity: model.identity,
            meshed: model.meshed,
            ..endpoint
        }
    }

    /// An endpoint of which only the address is known.
    pub(super) fn at(address: Address, estimate: Duration, circuit: &Arc<Circuit>) -> Self {
        Self {
            id: EndpointId::next(),
            address,
            workload: None,
            zone: None,
            for_zones: Vec::new(),
            identity: None,
            meshed: false,
            health: AtomicU8::new(Health::Unknown as u8),
            checks: AtomicU8::new(Checks::None as u8),
            check_failure: ArcSwapOption::empty(),
            risen_since: AtomicU32::new(0),
            weight: AtomicU32::new(1),
            in_flight: AtomicU32::new(0),
            latency: Latency::new(estimate, circuit.born),
            breaker: Breaker::default(),
            circuit: Arc::clone(circuit),
        }
    }

    /// Whether `model` describes this very instance, so that its statistics and connections stay valid.
    pub(super) fn is(&self, model: &model::Endpoint) -> bool {
        self.address == Address::Socket(model.address)
            && self.workload == model.workload
            && self.zone == model.zone
            && self.for_zones == model.for_zones
            && self.identity == model.identity
            && self.meshed == model.meshed
    }

    pub(super) fn update(&self, model: &model::Endpoint) {
        self.health.store(model.health as u8, Ordering::Relaxed);
        self.weight.store(model.weight.max(1), Ordering::Relaxed);
    }

    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            health if health == Health::Healthy as u8 => Health::Healthy,
            health if health == Health::Unknown as u8 => Health::Unknown,
            health if health == Health::Draining as u8 => Health::Draining,
            _ => Health::Unhealthy,
        }
    }

    pub fn checks(&self) -> Checks {
        match self.checks.load(Ordering::Relaxed) {
            checks if checks == Checks::Passed as u8 => Checks::Passed,
            checks if checks == Checks::Failed as u8 => Checks::Failed,
            _ => Checks::None,
        }
    }

    /// Whether it may be among those that are picked from. Changes are followed by a new set of endpoints.
    pub fn usable(&self) -> Usable {
        match (self.health(), self.checks()) {
            (Health::Unhealthy, _) => Usable::NotReady,
            (Health::Draining, _) => Usable::Draining,
            // Whose readiness somebody else watches is not asked.
            (Health::Unknown, Checks::Failed) => Usable::FailsChecks,
            (Health::Healthy, _) | (Health::Unknown, Checks::None | Checks::Passed) => Usable::Yes,
        }
    }

    /// Whether it may be picked right now, of those that are picked from. `ejects`: whether one that is ejected gets nothing.
    pub(super) fn may_be_picked(&self, ejects: bool) -> bool {
        !(ejects && self.breaker.is_out())
    }

    /// Whether requests from `zone` are meant for it.
    pub(super) fn is_for(&self, zone: &str) -> bool {
        self.for_zones.iter().any(|meant| **meant == *zone)
    }

    /// The part of its share that it gets, because it is new or was ejected until a moment ago; above 0 and at most 1.
    pub(super) fn part(&self, slow_start: Option<SlowStart>, now: Instant) -> f32 {
        self.share(now) * slow_start.map_or(1.0, |slow_start| self.risen(slow_start, now))
    }

    fn risen(&self, slow_start: SlowStart, now: Instant) -> f32 {
        let since = self.risen_since.load(Ordering::Relaxed);
        if since == 0 {
            return 1.0;
        }
        let least = f32::from(slow_start.min_percent) / 100.0;
        let Some(age) = age(since, self.latency.stamp(now)) else { return least };
        (age as f32 / slow_start.window.as_millis().max(1) as f32).clamp(least, 1.0)
    }

    /// It is new, or usable again.
    pub(super) fn rise(&self, now: Instant) {
        self.risen_since.store(self.latency.stamp(now).max(1), Ordering::Relaxed);
    }

    pub(super) fn checked(&self, checks: Checks, failure: Option<String>) {
        self.checks.store(checks as u8, Ordering::Relaxed);
        self.check_failure.store(failure.map(Arc::new));
    }

    /// Why its health checks fail, for people.
    pub fn check_failure(&self) -> Option<Arc<String>> {
        self.check_failure.load_full()
    }

    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Requests picked and not yet released, by all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The peak-sensitive average of how long it took to answer, aged to `now`.
    pub fn estimate(&self, now: Instant) -> Duration {
        duration(self.latency.aged(now))
    }

    /// Requests in flight for its weight, of which it has only `part`. Compared, never shown.
    pub(super) fn load(&self, part: f32) -> f32 {
        self.in_flight() as f32 / (self.weight() as f32 * part)
    }

    /// What a further request is expected to cost here rather than at `other`: latency × load. Compared, never shown.
    ///
    /// Of an endpoint that nobody asked for [`FORGOTTEN`] it is not known any more that it is the slower one. So one request goes to find out, and as long as
    /// that is under way no other.
    pub(super) fn cost(&self, other: &Self, part: f32, now: Instant) -> f32 {
        let mut latency = self.latency.aged(now);
        if self.in_flight() == 0 && self.latency.is_forgotten(now) {
            latency = latency.min(other.latency.aged(now));
        }
        latency * (1.0 + self.load(part))
    }

    pub(super) fn succeeded(&self, latency: Duration, now: Instant) {
        if !self.is_past(latency, now) {
            self.latency.observe(latency, now, true);
        }
    }

    pub(super) fn failed(&self, latency: Duration, now: Instant) {
        if !self.is_past(latency, now) {
            self.latency.observe(latency, now, false);
        }
    }

    /// An attempt ended; `outcome` says how, by the rules in force.
    pub(super) fn tell(
        &self,
        outcome: impl FnOnce(&Ejection) -> Outcome,
        latency: Duration,
        probe: Option<Probe>,
        now: Instant,
    ) {
        let rules = self.circuit.rules();
        let Some(rules) = rules.ejection.as_ref().filter(|_| !self.is_past(latency, now)) else { return };
        let slow = rules.slow_calls.is_some_and(|slow| latency > slow.longer_than);
        let (outcome, places) = (outcome(rules), &self.circuit.places);
        let now = (self.circuit.millis(now), rules);
        if let Some(change) = self.breaker.tell(outcome, slow, probe, now, places, rand::random::<f64>) {
            self.circuit.changed(change, self, rules);
        }
    }

    /// Whether what took `latency` until `now` began before it came back from its last ejection.
    fn is_past(&self, latency: Duration, now: Instant) -> bool {
        self.breaker.is_past(|| self.circuit.millis(now.checked_sub(latency).unwrap_or(now)))
    }

    /// Whether a call that took `elapsed` and was given up had been slow by the rules in force.
    pub(super) fn is_slow(&self, elapsed: Duration) -> bool {
        let rules = self.circuit.rules();
        let slow = rules.ejection.as_ref().and_then(|rules| rules.slow_calls);
        slow.is_some_and(|slow| elapsed > slow.longer_than)
    }

    /// The right to find out, by one request, whether it is well again.
    pub(super) fn probe(&self, now: Instant) -> Option<Probe> {
        let rules = self.circuit.rules();
        self.breaker.probe(self.circuit.millis(now), rules.ejection.as_ref()?, rand::random::<f64>)
    }

    pub(super) fn withdraw(&self, probe: Probe, now: Instant) {
        self.breaker.withdraw(probe, self.circuit.millis(now));
    }

    /// The part of its share of requests that it gets after it was ejected, above 0 and at most 1.
    pub fn share(&self, now: Instant) -> f32 {
        match self.breaker.standing() {
            Standing::Closed { back: 1.., .. } => {}
            _ => return 1.0,
        }
        let rules = self.circuit.rules();
        rules.ejection.as_ref().map_or(1.0, |rules| self.breaker.share(self.circuit.millis(now), rules))
    }

    /// `None` where it gets its full share.
    pub fn ejected(&self, now: Instant) -> Option<Ejected> {
        let rules = self.circuit.rules();
        let mode = rules.ejection.as_ref()?.mode;
        let out = |state, reason, next_probe| {
            Some(Ejected { state, mode, reason: Some(reason), share: 0.0, next_probe })
        };
        match self.breaker.standing() {
            Standing::Open { until, reason } => {
                out(EjectedState::Ejected, reason, Some(self.circuit.until(until, now)))
            }
            Standing::Probing { reason, .. } => out(EjectedState::Probing, reason, None),
            Standing::Closed { .. } => {
                let share = self.share(now);
                let ramping =
                    Ejected { state: EjectedState::Ramping, mode, reason: None, share, next_probe: None };
                (share < 1.0).then_some(ramping)
            }
            Standing::Gone => None,
        }
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes it to need `estimate` until it has shown what it needs.
    pub(super) fn restart(&self, estimate: Duration) {
        let at = self.latency.stamp(Instant::now());
        self.latency.packed.store(pack(micros(estimate), at), Ordering::Relaxed);
    }

    pub(super) fn raw_estimate(&self) -> Duration {
        duration(self.latency.unpacked().0)
    }
}

/// Peak EWMA: rises to a worse observation at once, sinks towards better ones within [`DECAY`].
///
/// An estimate nobody refreshes ages towards 0 at the same pace, so that a slow endpoint is tried again some time.
/// One word (microseconds as `f32`, milliseconds since `born` as `u32`), changed by compare-exchange: the workers share it.
#[derive(Debug)]
struct Latency {
    packed: AtomicU64,
    born: Instant,
}

/// design.md section 5.
pub(super) const DECAY: Duration = Duration::from_secs(10);

/// How long an estimate decides alone, and weighs in the next. By its decay one of half a second would keep an endpoint behind others of a millisecond for a minute,
/// and all the requests of a caller that sends few.
const FORGOTTEN: Duration = Duration::from_secs(20);

impl Latency {
    fn new(estimate: Duration, born: Instant) -> Self {
        let at = Instant::now().saturating_duration_since(born).as_millis() as u32;
        Self { packed: AtomicU64::new(pack(micros(estimate), at)), born }
    }

    fn unpacked(&self) -> (f32, u32) {
        let packed = self.packed.load(Ordering::Relaxed);
        (f32::from_bits((packed >> 32) as u32), packed as u32)
    }

    fn aged(&self, now: Instant) -> f32 {
        let (estimate, at) = self.unpacked();
        estimate * remains(at, self.stamp(now))
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        is_forgotten(self.unpacked().1, self.stamp(now))
    }

    fn observe(&self, latency: Duration, now: Instant, success: bool) {
        let (sample, stamp) = (micros(latency), self.stamp(now));
        let result = self.packed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (estimate, at) = (f32::from_bits((packed >> 32) as u32), packed as u32);
            let next = if sample > estimate {
                sample
            } else if success {
                let remains = if is_forgotten(at, stamp) { 0.0 } else { remains(at, stamp) };
                estimate * remains + sample * (1.0 - remains)
            } else {
                // An endpoint that fails fast must not look like a fast one.
                estimate
            };
            Some(pack(next, stamp))
        });
        debug_assert!(result.is_ok(), "the closure always returns a value");
    }

    /// Wraps after 49 days; [`remains`] compares across the wrap.
    fn stamp(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.born).as_millis() as u32
    }
}

/// The part of an estimate of time `at` that is left at `now`.
fn remains(at: u32, now: u32) -> f32 {
    match age(at, now) {
        None | Some(0) => 1.0,
        Some(age) => (-(age as f32) / DECAY.as_millis() as f32).exp(),
    }
}

fn is_forgotten(at: u32, now: u32) -> bool {
    age(at, now).is_some_and(|age| u128::from(age) >= FORGOTTEN.as_millis())
}

/// Milliseconds from `at` to `now`; `None` for what another worker saw a moment later than `now`.
fn age(at: u32, now: u32) -> Option<u32> {
    let age = now.wrapping_sub(at);
    // More than half the range: ahead, across the wrap.
    (age <= u32::MAX / 2).then_some(age)
}

fn micros(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1e6
}

fn duration(micros: f32) -> Duration {
    Duration::from_micros(micros.round() as u64)
}

fn pack(estimate: f32, at: u32) -> u64 {
    u64::from(estimate.to_bits()) << 32 | u64::from(at)
}
