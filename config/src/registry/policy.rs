//! TrafficPolicies as the registry knows them: what each section says and what it is attached to.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Balance, CircuitBreaker, Limit, Origin, RateLimit, Retry, ServiceRef, Timeouts};
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
    pub rate_limit: Option<Arc<[RateLimit]>>,
    pub concurrency: Option<Arc<[Limit<u32>]>>,
    pub balance: Option<Arc<BalanceSection>>,
    pub origin: Origin,
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
