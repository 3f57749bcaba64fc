//! `TrafficPolicy`: how calls to its targets behave.
//!
//! Each top-level section is taken as a whole from the policy that wins it: `section: {}` overrides with defaults, an
//! absent section inherits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::{Ignored, NOT_YET, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;

mod circuit_breaker;
mod retry;
mod target;
mod timeout;

pub use circuit_breaker::{
    BreakerMode, CircuitBreakerSection, EjectionErrors, EjectionMode, EjectionSection, SlowCallsSection,
    SuccessRateSection,
};
pub use retry::{BackoffSection, BudgetSection, RetryCondition, RetrySection};
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
    pub load_balancing: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<NotYet>,
    /// Enforced at the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NotYet>,
    /// Enforced at the callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NotYet>,
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
            findings.error(spec.key("circuitBreaker"), NOT_YET);
        }
        if self.spec.timeout.is_none() && self.spec.retry.is_none() && self.spec.circuit_breaker.is_none() {
            findings.error(spec, "one of these is required: timeout, retry, circuitBreaker");
        }
    }
}
