//! `timeout`: how long a call may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::Duration;

/// `0s` means no limit, but for `connect`, which always has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeoutSection {
    /// The whole exchange, all attempts included; ends at the response's headers for streams and upgrades. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt, until the response's headers; at most `request`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Duration>,
    /// Until a connection to an endpoint stands, TLS included. Default 1s; 1ms to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// How long a stream, tunnel or TCP connection may carry nothing. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// An HTTP exchange from its first byte to its last, streams and tunnels included. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Duration>,
}

impl Check for TimeoutSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(connect) = self.connect
            && !(1..=60_000).contains(&connect.get().as_millis())
        {
            findings.error(at.key("connect"), format!("{connect} is not a connect timeout (1ms to 60s)"));
        }
        let limit = |given: Option<Duration>| given.filter(|given| !given.is_zero());
        if let (Some(request), Some(attempt)) = (limit(self.request), limit(self.per_try))
            && attempt > request
        {
            findings.error(at.key("perTry"), "one attempt cannot take longer than the whole request");
        }
        if let (Some(request), Some(stream)) = (limit(self.request), limit(self.stream))
            && stream < request
        {
            findings.error(
                at.key("stream"),
                "the answer cannot be awaited for longer than the whole of it lives",
            );
        }
    }
}
