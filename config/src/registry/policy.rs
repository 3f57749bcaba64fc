//! TrafficPolicies as the registry knows them: what each section says and what it is attached to.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Adaptive, Balance, CircuitBreaker, Faults, Limit, LimitServer, Multiplex, Origin, RateLimit, Retry,
    ServiceRef, SharedLimit, Timeouts,
};
use crate::resolve::precedence::Seniority;

use super::route::RouteKind;

#[derive(Clone, Debug, PartialEq)]
pub struct TrafficPolicy {
    pub namespace: Arc<str>,
    pub seniority: Seniority,
    pub targets: Vec<Target>,
    pub timeout: Option<TimeoutSection>,
    pub retry: Option<Arc<Retry>>,
    pub circuit_breaker: Option<Arc<CircuitBreaker>>,
    /// A field of `circuitBreaker` that is set and has no effect on a route.
    pub only_for_services: Option<&'static str>,
    pub rate_limit: Option<Arc<[PolicyLimit]>>,
    pub concurrency: Option<Arc<[Limit<u32>]>>,
    /// Of the same section as `concurrency`; there with it.
    pub adaptive: Option<Option<Adaptive>>,
    pub fault: Option<Arc<Faults>>,
    pub balance: Option<Arc<BalanceSection>>,
    /// `connection`.
    pub multiplex: Option<Multiplex>,
    pub origin: Origin,
}

/// One of `rateLimit`, for whatever Service it is resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyLimit {
    limit: RateLimit,
    sharing: Option<Sharing>,
}

/// `scope: Service`, with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Sharing {
    /// `None`: the Mesh's.
    pub server: Option<LimitServer>,
    pub strict: bool,
    pub batch: Option<u32>,
    pub timeout: Duration,
    pub open: bool,
}

impl PolicyLimit {
    /// `limit` says nothing of how it is shared.
    pub fn new(limit: RateLimit, sharing: Option<Sharing>) -> Self {
        Self { limit, sharing }
    }

    /// As the instances of `service` have it. `server`: the Mesh's.
    pub fn of(&self, service: &ServiceRef, server: &LimitServer) -> RateLimit {
        let shared = self.sharing.as_ref().map(|sharing| SharedLimit {
            service: service.clone(),
            server: sharing.server.as_ref().unwrap_or(server).clone(),
            strict: sharing.strict,
            batch: sharing.batch,
            timeout: sharing.timeout,
            open: sharing.open,
        });
        RateLimit { shared, ..self.limit.clone() }
    }
}

/// `timeout`, with its defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeoutSection {
    /// Of exchanges.
    pub exchange: Timeouts,
    /// Of connections to endpoints; `None` is the default.
    pub connect: Option<Duration>,
}

/// `loadBalancing`, with its defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BalanceSection {
    /// Without a zone, which is each caller's own.
    pub balance: Balance,
    /// Whether the caller's zone is preferred; `None`: as the Service says.
    pub near: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub to: PolicyTarget,
    /// `spec.targetRefs[0]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PolicyTarget {
    Service {
        service: ServiceRef,
        port: Option<u16>,
    },
    /// Of the policy's own namespace.
    Route {
        kind: RouteKind,
        name: Arc<str>,
        rule: Option<Arc<str>>,
    },
    Namespace(Arc<str>),
    /// By its name, of which there is one.
    Mesh(Arc<str>),
}
