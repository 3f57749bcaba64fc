//! What the proxy counts, and the handles by which it does.
//!
//! Owns the families of design.md section 3. Every handle is resolved when configuration is loaded ([`ServiceMetrics`],
//! [`RouteMetrics`]) or once a connection; an exchange adds to cells of its worker. No label value is ever taken from a request:
//! services and routes are the registry's, peers are verified workloads, codes and reasons are closed sets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_config::model::{BreakerMode, ServiceRef};
use parking_lot::Mutex;

use super::cells::{Counter, Histogram, Level, Worker};
use super::family::{Family, MAX_SERIES, OTHER};
use crate::failure::Reason;
use crate::identity::Cause;
use crate::policy::fault::Kind as Fault;
use crate::policy::retry::{Hedge, Suppressed};
use crate::upstream::{Cap, EjectionReason};

/// Which way a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Inbound,
    Outbound,
    Gateway,
}

impl Direction {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Gateway => "gateway",
        }
    }
}

/// How a connection that was accepted is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Plaintext, or TLS that goes through unopened.
    None,
    /// A listener's certificate, the client unverified.
    Server,
    /// Both sides verified.
    Mutual,
}

impl Tls {
    const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Server => "server",
            Self::Mutual => "mutual",
        }
    }
}

/// Which way bytes of a message or connection went: `request` is from the client, `response` to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    Request,
    Response,
}

/// Who called, as the `peer` label says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer(u32);

impl Peer {
    /// Nobody proved who it is.
    pub const UNKNOWN: Self = Self(0);
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub peer: Peer,
    /// Status sent to the client.
    pub code: u16,
    /// Present for gRPC.
    pub grpc: Option<u16>,
    /// Present if the proxy answered by itself, or cut the answer short.
    pub reason: Option<Reason>,
}

/// All families. One a proxy; handed down, never global.
#[derive(Debug)]
pub struct Metrics {
    pub(super) workers: usize,
    pub(super) requests: Family<Counter, 7>,
    pub(super) durations: Family<Histogram, 3>,
    pub(super) bytes: Family<Counter, 3>,
    pub(super) attempts: Family<Counter, 2>,
    pub(super) suppressed: Family<Counter, 2>,
    pub(super) ejections: Family<Counter, 3>,
    pub(super) probes: Family<Counter, 2>,
    pub(super) hedges: Family<Counter, 2>,
    pub(super) overflows: Family<Counter, 3>,
    pub(super) connections: Family<Level, 2>,
    pub(super) handshake_failures: Family<Counter, 2>,
    pub(super) access_denied: Family<Counter, 3>,
    pub(super) limited: Family<Counter, 3>,
    pub(super) limit_overflow: Family<Counter, 2>,
    pub(super) limit_asked: Family<Counter, 3>,
    pub(super) limit_undecided: Family<Counter, 3>,
    pub(super) faults: Family<Counter, 3>,
    pub(super) health_checks: Family<Counter, 2>,
    pub(super) passthrough_no_config: Counter,
    pub(super) access_log_dropped: Counter,
    peers: Mutex<Vec<Arc<str>>>,
}

impl Metrics {
    /// `workers`: how many threads count, each in cells of its own.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers,
            requests: Family::new(
                "outrigger_requests_total",
                ["direction", "service", "route", "peer", "code", "grpc_code", "reason"],
                1,
                "Requests that ended, by the status sent and, where the proxy answered by itself, the reason (docs/errors.md).",
            ),
            durations: Family::new(
                "outrigger_request_duration_seconds",
                ["direction", "service", "route"],
                1,
                "From the first byte of a request to the last byte of its response.",
            ),
            bytes: Family::new(
                "outrigger_bytes_total",
                ["direction", "service", "way"],
                1,
                "Bytes of bodies, tunnels and TCP connections; way is request (from the client) or response.",
            ),
            attempts: Family::new(
                "outrigger_attempts_total",
                ["service", "reason"],
                0,
                "Attempts to send a request or open a connection to an endpoint; reason is empty where one succeeded.",
            ),
            suppressed: Family::new(
                "outrigger_retries_suppressed_total",
                ["service", "cause"],
                0,
                "Requests that failed and were not sent again, although a policy names the failure or nothing was processed, by why not.",
            ),
            ejections: Family::new(
                "outrigger_ejections_total",
                ["service", "reason", "mode"],
                0,
                "Endpoints taken out for failing, by the rule; mode is enforce, observe (only counted) or spared (too few would be left).",
            ),
            probes: Family::new(
                "outrigger_probes_total",
                ["service", "result"],
                0,
                "Requests that found out whether an ejected endpoint is well again; result is success or failure.",
            ),
            hedges: Family::new(
                "outrigger_hedges_total",
                ["service", "outcome"],
                0,
                "Requests whose answer did not begin for as long as a policy waits before it asks a second endpoint, by what became of that.",
            ),
            overflows: Family::new(
                "outrigger_cap_overflow_total",
                ["service", "cap", "mode"],
                0,
                "Times a cap was reached: requests refused (of connections: made to wait), or in mode observe only counted.",
            ),
            connections: Family::new(
                "outrigger_connections",
                ["direction", "tls"],
                2,
                "Accepted connections that are open.",
            ),
            handshake_failures: Family::new(
                "outrigger_tls_handshake_failures_total",
                ["direction", "reason"],
                2,
                "Handshakes of mesh TLS that came to nothing: inbound those of callers, outbound those with endpoints.",
            ),
            access_denied: Family::new(
                "outrigger_access_denied_total",
                ["mode", "policy", "rule"],
                1,
                "Requests and TCP connections that an AccessPolicy refused (mode enforce), or would have refused (mode audit).",
            ),
            limited: Family::new(
                "outrigger_limited_total",
                ["mode", "policy", "limit"],
                1,
                "Requests and TCP connections that a rateLimit or concurrency refused (mode enforce), or would have refused (mode observe).",
            ),
            limit_overflow: Family::new(
                "outrigger_limit_overflow_total",
                ["policy", "limit"],
                0,
                "Requests and TCP connections counted together with others because a limit had as many keys as it may remember.",
            ),
            limit_asked: Family::new(
                "outrigger_limit_asked_total",
                ["result", "policy", "limit"],
                1,
                "Calls to the server of a shared limit; result is granted, refused or failed.",
            ),
            limit_undecided: Family::new(
                "outrigger_limit_undecided_total",
                ["outcome", "policy", "limit"],
                1,
                "Requests and TCP connections that the server of a shared limit did not decide on in time; outcome is passed or refused.",
            ),
            faults: Family::new(
                "outrigger_faults_total",
                ["policy", "fault", "kind"],
                0,
                "What faults of TrafficPolicies did to requests, attempts and connections; kind is delay, abort, reset, refuse, throttle, cut, trailers or accept.",
            ),
            health_checks: Family::new(
                "outrigger_health_checks_total",
                ["service", "result"],
                0,
                "Health checks of endpoints that nobody else watches; result is passed or failed.",
            ),
            passthrough_no_config: Counter::new(workers),
            access_log_dropped: Counter::new(workers),
            peers: Mutex::new(vec!["unknown".into()]),
        })
    }

    /// `service`: one of the registry; `None` counts as `passthrough`.
    pub fn service(
        self: &Arc<Self>,
        direction: Direction,
        service: Option<&ServiceRef>,
    ) -> Arc<ServiceMetrics> {
        let service: Arc<str> = service.map_or_else(|| PASSTHROUGH.into(), |s| s.to_string().into());
        let bytes = |way: &str| {
            let labels = [direction.label().into(), service.clone(), way.into()];
            self.bytes.series(labels, || Counter::new(self.workers))
        };
        Arc::new(ServiceMetrics {
            direction,
            request_bytes: bytes("request"),
            response_bytes: bytes("response"),
            metrics: self.clone(),
            service,
            unrouted: OnceLock::new(),
        })
    }

    /// `service` as in [`Self::service`].
    pub fn attempts(self: &Arc<Self>, service: Option<&ServiceRef>) -> Arc<Attempts> {
        let service = service.map_or_else(|| PASSTHROUGH.into(), |s| s.to_string().into());
        Arc::new(Attempts {
            metrics: self.clone(),
            service,
            cells: std::array::from_fn(|_| OnceLock::new()),
            suppressed: Default::default(),
            hedges: Default::default(),
        })
    }

    /// What circuit breakers of one service do; `service` as in [`Self::service`].
    pub fn circuit(self: &Arc<Self>, service: Option<&ServiceRef>) -> Arc<CircuitMetrics> {
        let service = service.map_or_else(|| PASSTHROUGH.into(), |s| s.to_string().into());
        Arc::new(CircuitMetrics { metrics: self.clone(), service, overflows: Default::default() })
    }

    /// The label of a verified workload, `NAMESPACE/NAME`; for each connection, not each request.
    pub fn peer(&self, workload: &str) -> Peer {
        let mut peers = self.peers.lock();
        let known = peers.iter().position(|peer| **peer == *workload);
        let index = known.unwrap_or_else(|| {
            // One place past the bound stands for everyone who came later.
            let name = if peers.len() < MAX_SERIES { workload } else { OTHER };
            if peers.len() <= MAX_SERIES {
                peers.push(name.into());
            }
            peers.len() - 1
        });
        Peer(u32::try_from(index).expect("bounded by MAX_SERIES"))
    }

    /// What one rule refuses, or would refuse if its policy were enforced. Resolved when the rules are compiled.
    pub fn denials(self: &Arc<Self>, policy: &str, rule: &str, audit: bool) -> Arc<Denials> {
        let mode = if audit { "audit" } else { "enforce" };
        let labels = [mode.into(), policy.into(), rule.into()];
        Arc::new(Denials { metrics: self.clone(), labels, counter: OnceLock::new() })
    }

    /// What one limit refuses. Resolved when limits are compiled.
    pub fn limit(self: &Arc<Self>, policy: &str, limit: &str) -> Arc<LimitMetrics> {
        Arc::new(LimitMetrics {
            metrics: self.clone(),
            policy: policy.into(),
            limit: limit.into(),
            refused: Default::default(),
            overflow: OnceLock::new(),
            asked: Default::default(),
            undecided: OnceLock::new(),
        })
    }

    /// What one fault does. Resolved when its policy is compiled.
    pub fn fault(self: &Arc<Self>, policy: &str, fault: &str) -> Arc<FaultMetrics> {
        let (policy, fault) = (policy.into(), fault.into());
        Arc::new(FaultMetrics { metrics: self.clone(), policy, fault, done: Default::default() })
    }

    /// An accepted connection, counted as open until the guard is dropped.
    pub fn connection(self: &Arc<Self>, worker: Worker, direction: Direction, tls: Tls) -> OpenConnection {
        let labels = [direction.label().into(), tls.label().into()];
        let level = self.connections.series(labels, || Level::new(self.workers));
        level.open(worker);
        OpenConnection { level, worker }
    }

    /// A handshake between proxies failed.
    pub fn handshake_failed(&self, worker: Worker, direction: Direction, cause: Cause) {
        let labels = [direction.label().into(), cause.word().into()];
        self.handshake_failures.series(labels, || Counter::new(self.workers)).add(worker, 1);
    }

    /// An endpoint of `service` was asked how it is; `None` as in [`Self::service`].
    pub fn health_check(&self, worker: Worker, service: Option<&ServiceRef>, passed: bool) {
        let service = service.map_or_else(|| PASSTHROUGH.into(), |s| s.to_string().into());
        let result = if passed { "passed" } else { "failed" };
        self.health_checks.series([service, result.into()], || Counter::new(self.workers)).add(worker, 1);
    }

    /// A connection to a destination nobody could be asked about went on to its original address.
    pub fn passed_without_config(&self, worker: Worker) {
        self.passthrough_no_config.add(worker, 1);
    }

    fn peer_label(&self, peer: Peer) -> Arc<str> {
        self.peers.lock().get(peer.0 as usize).cloned().unwrap_or_else(|| OTHER.into())
    }
}

/// The `service` label of what no registry knows.
pub const PASSTHROUGH: &str = "passthrough";

/// Handles of one service in one direction.
#[derive(Debug)]
pub struct ServiceMetrics {
    pub direction: Direction,
    metrics: Arc<Metrics>,
    service: Arc<str>,
    request_bytes: Arc<Counter>,
    response_bytes: Arc<Counter>,
    unrouted: OnceLock<Arc<RouteMetrics>>,
}

impl ServiceMetrics {
    /// The label: `name.namespace` or `passthrough`.
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// Resolved when a route table is compiled.
    pub fn route(self: &Arc<Self>, route: &str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics {
            duration: self.duration(route),
            route: route.into(),
            service: self.clone(),
            usual: OnceLock::new(),
            outcomes: ArcSwap::default(),
            growing: Mutex::new(()),
        })
    }

    pub fn bytes(&self, worker: Worker, way: Way, n: u64) {
        match way {
            Way::Request => self.request_bytes.add(worker, n),
            Way::Response => self.response_bytes.add(worker, n),
        }
    }

    /// Counts an exchange that no route took; its `route` label is empty.
    pub(super) fn ended_unrouted(&self, worker: Worker, outcome: Outcome, duration: Duration) {
        let unrouted = self.unrouted.get_or_init(|| {
            // A handle of its own instead of `self`, which would keep itself alive.
            let service = Arc::new(Self {
                direction: self.direction,
                metrics: self.metrics.clone(),
                service: self.service.clone(),
                request_bytes: self.request_bytes.clone(),
                response_bytes: self.response_bytes.clone(),
                unrouted: OnceLock::new(),
            });
            service.route("")
        });
        unrouted.ended(worker, outcome, duration);
    }

    fn duration(&self, route: &str) -> Arc<Histogram> {
        let labels = [self.direction.label().into(), self.service.clone(), route.into()];
        self.metrics.durations.series(labels, || Histogram::new(self.metrics.workers))
    }
}

/// Handles of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    pub service: Arc<ServiceMetrics>,
    pub route: Arc<str>,
    duration: Arc<Histogram>,
    /// The outcome seen first, which for most routes is nearly every one.
    usual: OnceLock<(Outcome, Arc<Counter>)>,
    /// The outcomes seen so far: a handful, so a scan is the fastest lookup.
    outcomes: ArcSwap<Vec<(Outcome, Arc<Counter>)>>,
    growing: Mutex<()>,
}

/// Outcomes a route remembers the series of. One beyond them costs a lookup in the family each time.
const REMEMBERED_OUTCOMES: usize = 64;

impl RouteMetrics {
    pub(super) fn ended(&self, worker: Worker, outcome: Outcome, duration: Duration) {
        self.duration.observe(worker, duration);
        if let Some((usual, counter)) = self.usual.get()
            && *usual == outcome
        {
            return counter.add(worker, 1);
        }
        let known = self.outcomes.load();
        match known.iter().find(|(known, _)| *known == outcome) {
            Some((_, counter)) => counter.add(worker, 1),
            None => self.first(outcome).add(worker, 1),
        }
    }

    fn first(&self, outcome: Outcome) -> Arc<Counter> {
        let metrics = &self.service.metrics;
        let number =
            |n: u16, max: u16| -> Arc<str> { if n <= max { n.to_string().into() } else { OTHER.into() } };
        let labels = [
            self.service.direction.label().into(),
            self.service.service.clone(),
            self.route.clone(),
            metrics.peer_label(outcome.peer),
            number(outcome.code, 599),
            outcome.grpc.map_or_else(|| "".into(), |code| number(code, 16)),
            outcome.reason.map_or("", Reason::word).into(),
        ];
        let counter = metrics.requests.series(labels, || Counter::new(metrics.workers));
        let _growing = self.growing.lock();
        let _ = self.usual.set((outcome, counter.clone()));
        let known = self.outcomes.load();
        if known.len() < REMEMBERED_OUTCOMES && known.iter().all(|(known, _)| *known != outcome) {
            let mut more = Vec::clone(&known);
            more.push((outcome, counter.clone()));
            self.outcomes.store(more.into());
        }
        counter
    }
}

/// Handles for the attempts at the endpoints of one service.
#[derive(Debug)]
pub struct Attempts {
    metrics: Arc<Metrics>,
    service: Arc<str>,
    /// By reason; the last one is success.
    cells: [OnceLock<Arc<Counter>>; Reason::ALL.len() + 1],
    suppressed: [OnceLock<Arc<Counter>>; Suppressed::ALL.len()],
    hedges: [OnceLock<Arc<Counter>>; Hedge::ALL.len()],
}

impl Attempts {
    /// `failed` with a reason, or succeeded: the endpoint answered, whatever it answered.
    pub fn count(&self, worker: Worker, failed: Option<Reason>) {
        let index = failed.map_or(Reason::ALL.len(), |reason| reason as usize);
        let counter = self.cells[index].get_or_init(|| {
            let labels = [self.service.clone(), failed.map_or("", Reason::word).into()];
            self.metrics.attempts.series(labels, || Counter::new(self.metrics.workers))
        });
        counter.add(worker, 1);
    }
}

/// Handles of the circuit breakers of one service.
#[derive(Debug)]
pub struct CircuitMetrics {
    metrics: Arc<Metrics>,
    service: Arc<str>,
    /// By mode and cap: under overload these are no rare events.
    overflows: [[OnceLock<Arc<Counter>>; Cap::ALL.len()]; 2],
}

impl CircuitMetrics {
    pub fn overflowed(&self, cap: Cap, mode: BreakerMode) {
        let counter = self.overflows[mode as usize][cap as usize].get_or_init(|| {
            let labels = [self.service.clone(), cap.word().into(), mode.label().into()];
            self.metrics.overflows.series(labels, || Counter::new(self.metrics.workers))
        });
        counter.add(Worker::default(), 1);
    }

    /// `mode`: `enforce`, `observe` or `spared`.
    pub fn ejected(&self, reason: EjectionReason, mode: &'static str) {
        let labels = [self.service.clone(), reason.word().into(), mode.into()];
        let new = || Counter::new(self.metrics.workers);
        self.metrics.ejections.series(labels, new).add(Worker::default(), 1);
    }

    pub fn probed(&self, well: bool) {
        let labels = [self.service.clone(), if well { "success" } else { "failure" }.into()];
        let new = || Counter::new(self.metrics.workers);
        self.metrics.probes.series(labels, new).add(Worker::default(), 1);
    }
}

/// Handle of one rule. Its series begins with the first refusal.
#[derive(Debug)]
pub struct Denials {
    metrics: Arc<Metrics>,
    labels: [Arc<str>; 3],
    counter: OnceLock<Arc<Counter>>,
}

impl Denials {
    pub fn count(&self, worker: Worker) {
        let new = || {
            let metrics = &self.metrics;
            metrics.access_denied.series(self.labels.clone(), || Counter::new(metrics.workers))
        };
        self.counter.get_or_init(new).add(worker, 1);
    }
}

/// Handles of one limit. Its series begin with what they first count.
#[derive(Debug)]
pub struct LimitMetrics {
    metrics: Arc<Metrics>,
    policy: Arc<str>,
    limit: Arc<str>,
    /// Enforced, observed.
    refused: [OnceLock<Arc<Counter>>; 2],
    overflow: OnceLock<Arc<Counter>>,
    /// Granted, refused, failed.
    asked: [OnceLock<Arc<Counter>>; 3],
    undecided: OnceLock<Arc<Counter>>,
}

impl LimitMetrics {
    /// `observed`: it goes on nevertheless.
    pub fn refused(&self, worker: Worker, observed: bool) {
        let new = || {
            let mode = if observed { "observe" } else { "enforce" };
            let labels = [mode.into(), self.policy.clone(), self.limit.clone()];
            self.metrics.limited.series(labels, || Counter::new(self.metrics.workers))
        };
        self.refused[usize::from(observed)].get_or_init(new).add(worker, 1);
    }

    /// Counted by the number that all keys without a place share.
    pub fn overflowed(&self, worker: Worker) {
        let new = || {
            let labels = [self.policy.clone(), self.limit.clone()];
            self.metrics.limit_overflow.series(labels, || Counter::new(self.metrics.workers))
        };
        self.overflow.get_or_init(new).add(worker, 1);
    }

    /// A server was asked; `None`: it did not answer. Counted by the background runtime.
    pub fn asked(&self, granted: Option<bool>) {
        let (index, word) = match granted {
            Some(true) => (0, "granted"),
            Some(false) => (1, "refused"),
            None => (2, "failed"),
        };
        let new = || {
            let labels = [word.into(), self.policy.clone(), self.limit.clone()];
            self.metrics.limit_asked.series(labels, || Counter::new(1))
        };
        self.asked[index].get_or_init(new).add(Worker(0), 1);
    }

    /// A server did not decide in time.
    pub fn undecided(&self, worker: Worker, passed: bool) {
        let new = || {
            let outcome = if passed { "passed" } else { "refused" };
            let labels = [outcome.into(), self.policy.clone(), self.limit.clone()];
            self.metrics.limit_undecided.series(labels, || Counter::new(self.metrics.workers))
        };
        self.undecided.get_or_init(new).add(worker, 1);
    }
}

/// Handles of one fault. Its series begin with what it first does.
#[derive(Debug)]
pub struct FaultMetrics {
    metrics: Arc<Metrics>,
    policy: Arc<str>,
    fault: Arc<str>,
    done: [OnceLock<Arc<Counter>>; Fault::ALL.len()],
}

impl FaultMetrics {
    pub fn count(&self, kind: Fault, worker: Worker) {
        let new = || {
            let labels = [self.policy.clone(), self.fault.clone(), kind.word().into()];
            self.metrics.faults.series(labels, || Counter::new(self.metrics.workers))
        };
        self.done[kind as usize].get_or_init(new).add(worker, 1);
    }
}

impl Attempts {
    /// A request waited for long enough to be sent to a second endpoint.
    pub fn hedged(&self, worker: Worker, outcome: Hedge) {
        let counter = self.hedges[outcome as usize].get_or_init(|| {
            let labels = [self.service.clone(), outcome.label().into()];
            self.metrics.hedges.series(labels, || Counter::new(self.metrics.workers))
        });
        counter.add(worker, 1);
    }

    /// A request that failed is not sent again.
    pub fn suppressed(&self, worker: Worker, why: Suppressed) {
        let counter = self.suppressed[why as usize].get_or_init(|| {
            let labels = [self.service.clone(), why.label().into()];
            self.metrics.suppressed.series(labels, || Counter::new(self.metrics.workers))
        });
        counter.add(worker, 1);
    }
}

/// Counts as open until dropped.
#[derive(Debug)]
pub struct OpenConnection {
    level: Arc<Level>,
    worker: Worker,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.level.close(self.worker);
    }
}
