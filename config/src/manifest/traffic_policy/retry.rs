//! `retry`: which failures of a call are healed by sending it again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::route::HeaderMatch;
use crate::manifest::value::{Duration, HttpMethod, PerSecond, Percent, RetryAttempts, RetryStatus};
use crate::model::RetryOn;

/// A request that certainly was not processed (no connection, REFUSED_STREAM, unsent) is sent again without this section, too. `retry: {}`
/// adds gateway errors and resets of idempotent requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySection {
    /// After the first one. Default 2; 0 sends nothing twice, not even what was not processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<RetryAttempts>,
    /// Any of these. Default: gateway-error, connect-failure, reset, refused-stream, or none of them where `statusCodes` or
    /// `headers` say what a failure is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<RetryCondition>>,
    /// Responses of these statuses count as failures, too; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<RetryStatus>,
    /// So do responses with any of these headers; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Which requests may be processed twice. Default: the idempotent ones (GET, HEAD, OPTIONS, TRACE, PUT, DELETE). gRPC calls,
    /// which are all POST, follow the gRPC conditions of `on` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<HttpMethod>>,
    /// The wait before the next attempt: a random time up to base, doubled each time, at most max.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffSection>,
    /// What all retries of one calling process to one Service may add to its load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetSection>,
    /// The longest `Retry-After` or `grpc-retry-pushback-ms` that is waited for; a longer one ends the retries. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retry_after: Option<Duration>,
    /// Whether requests are sent again here that the hop before already sent again (`x-outrigger-attempt`). Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_retries: bool,
    /// Does not wait for a failure: asks a second endpoint while the first one is silent, and takes the first good answer. Only requests that `methods`
    /// (for gRPC `on`) lets be processed twice, and whose body has come whole. Counts as one of `attempts` and draws on the budget. Default: off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeSection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HedgeSection {
    /// Without the beginning of an answer; 1ms to 60s. What nineteen of twenty requests need is a good start. Beside `percentile` the least to
    /// wait, default 1ms; else required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
    /// After what so many of 100 requests to the Service did not exceed within the last minute; 50 to 99. While fewer than 100 were answered in that time,
    /// no second endpoint is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentile: Option<Percent>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackoffSection {
    /// Default 25ms; 1ms to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Duration>,
    /// Default 250ms, or base where that is more; at most 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BudgetSection {
    /// Of the requests within interval. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// On top of that. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_per_second: Option<PerSecond>,
    /// Default 10s; 1s to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

/// A failure that another attempt may heal. The last five are gRPC statuses, in the response's headers or trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum RetryCondition {
    /// Any 5xx response, or none at all.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// No connection to the endpoint.
    ConnectFailure,
    /// The connection or stream ended before the response.
    Reset,
    /// It ended before anything of the request was sent.
    ResetBeforeRequest,
    /// HTTP/2 REFUSED_STREAM.
    RefusedStream,
    Cancelled,
    DeadlineExceeded,
    ResourceExhausted,
    Internal,
    Unavailable,
}

impl From<RetryCondition> for RetryOn {
    fn from(condition: RetryCondition) -> RetryOn {
        match condition {
            RetryCondition::ServerError => RetryOn::ServerError,
            RetryCondition::GatewayError => RetryOn::GatewayError,
            RetryCondition::ConnectFailure => RetryOn::ConnectFailure,
            RetryCondition::Reset => RetryOn::Reset,
            RetryCondition::ResetBeforeRequest => RetryOn::ResetBeforeRequest,
            RetryCondition::RefusedStream => RetryOn::RefusedStream,
            RetryCondition::Cancelled => RetryOn::Cancelled,
            RetryCondition::DeadlineExceeded => RetryOn::DeadlineExceeded,
            RetryCondition::ResourceExhausted => RetryOn::ResourceExhausted,
            RetryCondition::Internal => RetryOn::Internal,
            RetryCondition::Unavailable => RetryOn::Unavailable,
        }
    }
}

impl Check for RetrySection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let word = |condition: &RetryCondition| Some(RetryOn::from(*condition).word());
        if let Some(on) = &self.on {
            findings.unique(&at.key("on"), on, "", word);
        }
        findings.at_most(&at.key("statusCodes"), self.status_codes.len(), 16);
        findings.unique(&at.key("statusCodes"), &self.status_codes, "", |status| Some(*status));
        findings.at_most(&at.key("headers"), self.headers.len(), 16);
        if let Some(methods) = &self.methods {
            findings.unique(&at.key("methods"), methods, "", |method| Some(method.as_str()));
        }
        let nothing = self.on.as_ref().is_some_and(Vec::is_empty);
        if nothing && self.status_codes.is_empty() && self.headers.is_empty() {
            let text = "names no failure; `attempts: 0` turns retries off";
            findings.error(at.key("on"), text);
        }
        if let Some(hedge) = self.hedge {
            if let Some(after) = hedge.after
                && !(1..=60_000).contains(&after.get().as_millis())
            {
                findings.error(at.key("hedge").key("after"), format!("{after} is not a delay (1ms to 60s)"));
            }
            if let Some(percentile) = hedge.percentile
                && !(50..=99).contains(&percentile.get())
            {
                let text = format!("{} is no percentile to wait for (50 to 99)", percentile.get());
                findings.error(at.key("hedge").key("percentile"), text);
            }
            if hedge.after.is_none() && hedge.percentile.is_none() {
                findings.error(at.key("hedge"), "one of these is required: after, percentile");
            }
            if self.attempts.is_some_and(|attempts| attempts.get() == 0) {
                findings.error(at.key("hedge"), "`attempts: 0` leaves no attempt for it");
            }
        }
        if let Some(backoff) = &self.backoff {
            backoff.check(&at.key("backoff"), findings);
        }
        if let Some(interval) = self.budget.and_then(|budget| budget.interval)
            && !(1_000..=60_000).contains(&interval.get().as_millis())
        {
            let text = format!("{interval} is not an interval (1s to 60s)");
            findings.error(at.key("budget").key("interval"), text);
        }
    }
}

impl Check for BackoffSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        for (name, given) in [("base", self.base), ("max", self.max)] {
            if let Some(given) = given
                && !(1..=60_000).contains(&given.get().as_millis())
            {
                findings.error(at.key(name), format!("{given} is not a backoff (1ms to 60s)"));
            }
        }
        if let (Some(base), Some(max)) = (self.base, self.max)
            && max < base
        {
            findings.error(at.key("max"), format!("is less than base, {base}"));
        }
    }
}
