//! `adaptive`: a cap on requests that finds itself, for a caller (`circuitBreaker`) as for a workload (`concurrency`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::Cap;
use crate::model::Adaptive;

/// As many requests at a time as are answered without waiting for each other, found from their latencies; what comes on top gets 503
/// `overloaded`. `adaptive: {}` has the defaults. Default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdaptiveSection {
    /// Never fewer. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<Cap>,
    /// Never more. Default 1000, or minRequests where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<Cap>,
}

impl Check for AdaptiveSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(most) = self.max_requests
            && most.get() < self.min_requests.map_or(Adaptive::DEFAULT_LEAST, Cap::get)
        {
            let least = self.min_requests.map_or(Adaptive::DEFAULT_LEAST, Cap::get);
            findings
                .error(at.key("maxRequests"), format!("{} is less than minRequests, {least}", most.get()));
        }
    }
}
