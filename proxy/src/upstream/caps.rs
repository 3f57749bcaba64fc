//! Caps: how much may be under way to one cluster, or by one route, at a time.
//!
//! Owns the counts, shared by all workers, and the guards that hold a part of them. Where no cap is set nothing is counted, but for connections,
//! of which a cap that is set later has to know. Over a cap that only observes, everything goes on and is counted.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use outrigger_config::model::{BreakerMode, Caps, Origin, RouteCaps};

use super::circuit::Circuit;
use super::gate::Gate;
use crate::failure::{Failure, Reason};

/// What a cap is on. The `cap` label of `outrigger_cap_overflow_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    Connections,
    Pending,
    Requests,
    Retries,
    RoutePending,
    RouteRequests,
    RouteRetries,
    /// Requests under way, by what their latencies allow.
    Adaptive,
}

impl Cap {
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Pending,
        Self::Requests,
        Self::Retries,
        Self::RoutePending,
        Self::RouteRequests,
        Self::RouteRetries,
        Self::Adaptive,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
            Self::RoutePending => "route_pending",
            Self::RouteRequests => "route_requests",
            Self::RouteRetries => "route_retries",
            Self::Adaptive => "adaptive",
        }
    }

    /// The field of `circuitBreaker` that sets it.
    const fn field(self) -> &'static str {
        match self {
            Self::Connections => "maxConnections",
            Self::Pending | Self::RoutePending => "maxPendingRequests",
            Self::Requests | Self::RouteRequests => "maxRequests",
            Self::Retries | Self::RouteRetries => "maxRetries",
            Self::Adaptive => "adaptive",
        }
    }
}

/// What is counted alike for a cluster and for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pending,
    Requests,
    Retries,
}

/// How many there are of each [`Kind`].
#[derive(Debug, Default)]
struct Counts([AtomicU32; 3]);

impl Counts {
    fn enter(&self, kind: Kind, cap: u32) -> bool {
        let count = &self.0[kind as usize];
        count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < cap).then_some(n + 1)).is_ok()
    }

    fn force(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::AcqRel);
    }

    fn leave(&self, kind: Kind) {
        self.0[kind as usize].fetch_sub(1, Ordering::AcqRel);
    }

    fn now(&self, kind: Kind) -> u32 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }
}

/// With what those who wait count as pending.
type Queue = Gate<Option<Part>>;

/// The counts of a cluster.
#[derive(Debug, Default)]
pub(super) struct InUse {
    counts: Counts,
    /// HTTP/1 exchanges, each of which has a connection to itself. Idle connections have no place here.
    pub exchanges: Queue,
    /// Open connections.
    pub sockets: Queue,
}

/// One cap of a cluster, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub cap: Cap,
    pub limit: u32,
    pub now: u32,
}

impl InUse {
    /// Those that are set.
    pub fn all(&self, caps: &Caps) -> impl Iterator<Item = Use> {
        let count = |kind| self.counts.now(kind);
        [
            (Cap::Connections, caps.connections, self.sockets.taken()),
            (Cap::Pending, caps.pending, count(Kind::Pending)),
            (Cap::Requests, caps.requests, count(Kind::Requests)),
            (Cap::Retries, caps.retries, count(Kind::Retries)),
        ]
        .into_iter()
        .filter_map(|(cap, limit, now)| Some(Use { cap, limit: limit?, now }))
    }
}

/// A route's own caps, and what counts towards them.
#[derive(Debug)]
pub struct RouteLimits {
    caps: Arc<RouteCaps>,
    counts: Counts,
}

impl RouteLimits {
    pub fn new(caps: Arc<RouteCaps>) -> Arc<Self> {
        Arc::new(Self { caps, counts: Counts::default() })
    }

    fn cap(&self, kind: Kind) -> Option<u32> {
        match kind {
            Kind::Pending => self.caps.pending,
            Kind::Requests => self.caps.requests,
            Kind::Retries => self.caps.retries,
        }
    }
}

/// A part of what is counted, of a cluster and of a route; given back when it is dropped.
#[derive(Debug)]
pub struct Part {
    kind: Kind,
    circuit: Option<Arc<Circuit>>,
    route: Option<Arc<RouteLimits>>,
}

impl Part {
    /// Takes one for what leads to `circuit`'s cluster by a route of these limits. The error says whose cap is reached.
    pub fn take(
        kind: Kind,
        circuit: &Arc<Circuit>,
        route: Option<&Arc<RouteLimits>>,
    ) -> Result<Self, Failure> {
        let mut part = Self { kind, circuit: None, route: None };
        if let Some(limits) = route
            && let Some(limit) = limits.cap(kind)
        {
            let cap = match kind {
                Kind::Pending => Cap::RoutePending,
                Kind::Requests => Cap::RouteRequests,
                Kind::Retries => Cap::RouteRetries,
            };
            if !limits.counts.enter(kind, limit) {
                let RouteCaps { mode, origin, .. } = &*limits.caps;
                circuit.overflowed(cap, *mode, limit, origin.as_ref())?;
                limits.counts.force(kind);
            }
            part.route = Some(Arc::clone(limits));
        }
        let rules = circuit.rules();
        let (limit, cap) = match kind {
            Kind::Pending => (rules.caps.pending, Cap::Pending),
            Kind::Requests => (rules.caps.requests, Cap::Requests),
            Kind::Retries => (rules.caps.retries, Cap::Retries),
        };
        if let Some(limit) = limit {
            if !circuit.in_use.counts.enter(kind, limit) {
                circuit.overflowed(cap, rules.caps.mode, limit, rules.origin.as_ref())?;
                circuit.in_use.counts.force(kind);
            }
            part.circuit = Some(Arc::clone(circuit));
        }
        Ok(part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(circuit) = &self.circuit {
            circuit.in_use.counts.leave(self.kind);
        }
        if let Some(route) = &self.route {
            route.counts.leave(self.kind);
        }
    }
}

/// A place behind one of the gates of a cluster; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    circuit: Arc<Circuit>,
    gate: fn(&InUse) -> &Queue,
    /// Whether it is taken.
    counts: Cell<bool>,
}

impl Place {
    pub fn of_exchange(circuit: &Arc<Circuit>) -> Self {
        Self::of(circuit, |in_use| &in_use.exchanges)
    }

    pub fn of_socket(circuit: &Arc<Circuit>) -> Self {
        Self::of(circuit, |in_use| &in_use.sockets)
    }

    fn of(circuit: &Arc<Circuit>, gate: fn(&InUse) -> &Queue) -> Self {
        Self { circuit: Arc::clone(circuit), gate, counts: Cell::new(true) }
    }

    /// Lets others have it for as long as what it stands for is of no use.
    pub fn lend(&self) {
        if self.counts.replace(false) {
            (self.gate)(&self.circuit.in_use).leave(self.circuit.most_connections());
        }
    }

    /// Takes it again, although there may be none.
    pub fn reclaim(&self) {
        if !self.counts.replace(true) {
            (self.gate)(&self.circuit.in_use).force();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lend();
    }
}

/// What a refused request is told.
pub(super) fn refusal(cap: Cap, limit: u32, origin: Option<&Origin>) -> Failure {
    let field = cap.field();
    let detail = match origin {
        // It names the very field.
        Some(origin) if cap == Cap::Adaptive => {
            format!("{origin} lets {limit} requests at a time pass by now")
        }
        Some(origin) => format!("{origin}.{field} is {limit}"),
        None => format!("{field} is {limit}"),
    };
    Failure::new(Reason::Overloaded, detail)
}

/// Whether what is over a cap is refused.
pub(super) fn refuses(mode: BreakerMode) -> bool {
    mode == BreakerMode::Enforce
}
