//! `TrafficPolicy`: how calls to its targets behave.
//!
//! Each top-level section is taken as a whole from the policy that wins it: `section: {}` overrides with defaults, an
//! absent section inherits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::Ignored;
use super::metadata::Metadata;
use super::path::FieldPath;

mod adaptive;
mod circuit_breaker;
mod connection;
mod fault;
mod health_check;
mod limit;
mod limit_key;
mod load_balancing;
mod retry;
mod shared_limit;
mod target;
mod timeout;

pub use adaptive::AdaptiveSection;
pub use circuit_breaker::{
    BreakerMode, CircuitBreakerSection, EjectionErrors, EjectionMode, EjectionSection, SlowCallsSection,
    SuccessRateSection,
};
pub use connection::{ConnectionSection, MultiplexHttp1};
pub use fault::{
    AbortSection, AbortStatus, AtMost, ByHeadersSection, ByteCount, CutSection, DelaySection,
    ExponentialDelay, FaultAt, FaultItem, FaultSection, GrpcStatus, StopIfSection, ThrottleSection,
    UniformDelay,
};
pub use health_check::{GrpcHealthCheck, HealthCheckSection, HttpHealthCheck, Threshold};
pub use limit::{
    ConcurrencyLimit, ConcurrencyOverride, ConcurrencySection, CostSection, LimitHeaders, LimitMode,
    RateLimit, RateLimitSection, RateOverride, WrittenRate,
};
pub use limit_key::KeyPart;
pub use load_balancing::{
    BalancingAlgorithm, Choices, HashCookieKey, HashKey, LeastRequestSettings, LoadBalancingSection,
    MaglevSettings, Nothing, RingHashSettings, RingSize, SessionSection, SlowStartSection, TableSize, Zones,
};
pub use retry::{BackoffSection, BudgetSection, HedgeSection, RetryCondition, RetrySection};
pub use shared_limit::{FailureMode, LimitScope, LimitServerSection, SharedSection};
pub use target::TargetRef;
pub use timeout::TimeoutSection;

/// Our own API group.
pub const OUTRIGGER_GROUP: &str = "outrigger.dev";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficPolicy {
    pub metadata: Metadata,
    pub spec: TrafficPolicySpec,
    /// Written by the control plane, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficPolicySpec {
    /// What it is about; 1 to 16.
    pub target_refs: Vec<TargetRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeoutSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreakerSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancingSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultSection>,
    /// Enforced at the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSection>,
    /// Enforced at the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencySection>,
}

impl Check for TrafficPolicy {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        let targets = spec.key("targetRefs");
        findings.not_empty(&targets, self.spec.target_refs.len());
        findings.at_most(&targets, self.spec.target_refs.len(), 16);
        findings.unique(&targets, &self.spec.target_refs, "", |target| Some(target::described(target)));
        if let Some(timeout) = &self.spec.timeout {
            timeout.check(&spec.key("timeout"), findings);
        }
        if let Some(retry) = &self.spec.retry {
            retry.check(&spec.key("retry"), findings);
        }
        if let Some(breaker) = &self.spec.circuit_breaker {
            breaker.check(&spec.key("circuitBreaker"), findings);
        }
        if let Some(limits) = &self.spec.rate_limit {
            limits.check(&spec.key("rateLimit"), findings);
            self.at_the_callee("rateLimit", &targets, findings);
        }
        if let Some(limits) = &self.spec.concurrency {
            limits.check(&spec.key("concurrency"), findings);
            self.at_the_callee("concurrency", &targets, findings);
        }
        if let Some(fault) = &self.spec.fault {
            fault.check(&spec.key("fault"), findings);
            if fault.at == FaultAt::Callee {
                self.at_the_callee("fault at the Callee", &targets, findings);
            }
        }
        if let Some(balancing) = &self.spec.load_balancing {
            balancing.check(&spec.key("loadBalancing"), findings);
        }
        let sections = [
            self.spec.timeout.is_some(),
            self.spec.retry.is_some(),
            self.spec.circuit_breaker.is_some(),
            self.spec.load_balancing.is_some(),
            self.spec.connection.is_some(),
            self.spec.fault.is_some(),
            self.spec.rate_limit.is_some(),
            self.spec.concurrency.is_some(),
        ];
        if !sections.contains(&true) {
            findings.error(
                spec,
                "one of these is required: timeout, retry, circuitBreaker, loadBalancing, connection, fault, rateLimit, concurrency",
            );
        }
    }
}

impl TrafficPolicy {
    /// What a workload enforces before itself knows neither the rule its caller took nor whose wish it was.
    fn at_the_callee(&self, section: &str, targets: &FieldPath, findings: &mut Findings) {
        let (about, apart) = match section {
            "fault at the Callee" => ("is about", "name callers in `from`"),
            _ => ("counts", "count callers apart by `key: [{by: Namespace}]`"),
        };
        let own = self.metadata.namespace.as_deref().unwrap_or("default");
        for (i, target) in self.spec.target_refs.iter().enumerate() {
            let at = targets.index(i);
            match target {
                TargetRef::HttpRoute { .. } | TargetRef::GrpcRoute { .. } => {
                    let text = format!(
                        "{section} cannot be attached to a route: the workload that enforces it does not see which rule its \
                         caller took; attach it to the Service, and say in `match` which requests it {about}"
                    );
                    findings.error(at.key("kind"), text);
                }
                TargetRef::Service { namespace: Some(namespace), .. } if **namespace != *own => {
                    let text = format!(
                        "{section} is the business of whoever owns the Service: put the policy into namespace {namespace}, and \
                         {apart}"
                    );
                    findings.error(at.key("namespace"), text);
                }
                TargetRef::Namespace { name } if **name != *own => {
                    let text = format!(
                        "{section} is the business of whoever owns the Services: put the policy into namespace {name}"
                    );
                    findings.error(at.key("name"), text);
                }
                TargetRef::Service { .. } | TargetRef::Namespace { .. } | TargetRef::Mesh { .. } => {}
            }
        }
    }
}
