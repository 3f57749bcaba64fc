//! `circuitBreaker`: how much may be under way to a Service, and when an endpoint of it gets nothing for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Cap, Consecutive, Duration, MinRequests, Percent};
use crate::model::{Ejection, SuccessRate};

use super::adaptive::AdaptiveSection;

/// Endpoints that fail are ejected without this section, too, as `circuitBreaker: {}` says; caps there are none but these. Each calling
/// process counts for itself. On a route or rule, only the caps on requests, pending requests and retries apply, to what takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreakerSection {
    #[serde(default)]
    pub mode: BreakerMode,
    /// Connections to all endpoints together, idle ones included. Default: no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<Cap>,
    /// Requests that wait for one of the connections maxConnections allows; without that cap, while theirs is being opened. Default: 1024
    /// where maxConnections is set, else no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<Cap>,
    /// Requests at a time, until their responses end. Default: no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<Cap>,
    /// Of these, those that are not sent for the first time. Default: no cap; the budget of `retry` holds in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<Cap>,
    /// A connection is closed after as many. Default: no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<Cap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<EjectionSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum BreakerMode {
    #[default]
    Enforce,
    /// Nothing is refused or ejected; what would be is counted.
    Observe,
}

/// Default: that of the section around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EjectionMode {
    Enforce,
    Observe,
    Disabled,
}

/// When an endpoint is taken out, for how long, and how it comes back: by one request that probes it, then with a rising share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EjectionSection {
    /// Default: that of the section around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EjectionMode>,
    #[serde(default)]
    pub errors: EjectionErrors,
    /// Failures in a row. Default 5; 0 for off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_errors: Option<Consecutive>,
    /// Connections in a row that could not be opened. Default 3; 0 for off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_failures: Option<Consecutive>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRateSection>,
    /// Default: however slow, an endpoint is not ejected for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<SlowCallsSection>,
    /// Of the first ejection; doubled with each that follows. Default 10s; 1ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_time: Option<Duration>,
    /// Default 5m, or baseTime where that is more; at most 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time: Option<Duration>,
    /// How far a time is moved at random, to both sides. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_percent: Option<Percent>,
    /// Of the endpoints that are ready, how many may be out at once. One always may, the last one never. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_percent: Option<Percent>,
    /// Until an endpoint that is back gets its full share. Default 10s; 0s for at once; at most 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Duration>,
}

/// What counts as an endpoint's failure, beside no answer at all. Default gateway-error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EjectionErrors {
    /// 502, 503 and 504, and gRPC's UNAVAILABLE.
    #[default]
    #[serde(rename = "gateway-error")]
    Gateway,
    /// Every 5xx, and of gRPC also UNKNOWN, INTERNAL and DATA_LOSS.
    #[serde(rename = "5xx")]
    Server,
}

/// Fewer than these of its calls succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuccessRateSection {
    /// Default 80; 0 for off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// Default 10s; 1s to 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// With fewer within interval nothing is concluded. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<MinRequests>,
}

/// At least these of its calls are slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowCallsSection {
    /// Until the response's headers; 1ms to 1h.
    pub longer_than: Duration,
    /// Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// Default 10s; 1s to 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// With fewer within interval nothing is concluded. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<MinRequests>,
}

impl CircuitBreakerSection {
    /// What a route has no use for: its rules share the connections and endpoints of the Services behind them.
    pub fn only_for_services(&self) -> Option<&'static str> {
        match self {
            Self { max_connections: Some(_), .. } => Some("maxConnections"),
            Self { max_requests_per_connection: Some(_), .. } => Some("maxRequestsPerConnection"),
            Self { ejection: Some(_), .. } => Some("ejection"),
            Self { adaptive: Some(_), .. } => Some("adaptive"),
            _ => None,
        }
    }
}

impl Check for CircuitBreakerSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(ejection) = &self.ejection {
            ejection.check(&at.key("ejection"), findings);
        }
        if let Some(adaptive) = &self.adaptive {
            adaptive.check(&at.key("adaptive"), findings);
        }
    }
}

impl Check for EjectionSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let hour = Ejection::MAX_TIME.as_millis();
        let slow = self.slow_calls.map(|slow| slow.longer_than);
        let slow_at = at.key("slowCalls");
        for (at, given, least) in [
            (at.key("baseTime"), self.base_time, 1),
            (at.key("maxTime"), self.max_time, 1),
            (at.key("ramp"), self.ramp, 0),
            (slow_at.key("longerThan"), slow, 1),
        ] {
            if let Some(given) = given
                && !(least..=hour).contains(&given.get().as_millis())
            {
                findings.error(at, format!("{given} is not within {least}ms and 1h"));
            }
        }
        if let (Some(base), Some(max)) = (self.base_time, self.max_time)
            && max < base
        {
            findings.error(at.key("maxTime"), format!("is less than baseTime, {base}"));
        }
        let rate = self.success_rate.and_then(|rate| rate.interval);
        let slow = self.slow_calls.and_then(|slow| slow.interval);
        for (name, given) in [("successRate", rate), ("slowCalls", slow)] {
            if let Some(given) = given
                && !Ejection::INTERVALS.contains(&given.get())
            {
                let text = format!("{given} is not an interval (1s to 5m)");
                findings.error(at.key(name).key("interval"), text);
            }
        }
        if let Some(slow) = self.slow_calls
            && slow.percent.is_some_and(|percent| percent.get() == 0)
        {
            findings.error(slow_at.key("percent"), "0 would eject for calls that are not slow");
        }
    }
}

const _: () = assert!(SuccessRate::MAX_REQUESTS == 10_000, "MinRequests says so");
