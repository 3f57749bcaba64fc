//! `scope: Service` of a rate limit: what all instances of a Service count together, and who counts it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::Findings;
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Duration, HostPort, LimitAmount, Name};
use crate::model::{LimitServer, SharedLimit};

use super::limit::{RateLimit, WrittenRate};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LimitScope {
    /// Each instance counts for itself.
    #[default]
    Instance,
    /// All instances of the Service count together.
    Service,
}

/// A server of `envoy.service.ratelimit.v3.RateLimitService`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitServerSection {
    /// Asked in plaintext. Default: the control plane, over the connection its proxies have to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<HostPort>,
    /// The domain that calls name. Default outrigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Name>,
}

impl LimitServerSection {
    pub fn lowered(&self) -> LimitServer {
        let default = LimitServer::default();
        LimitServer {
            address: self.address.as_ref().map(HostPort::shared),
            domain: self.domain.as_ref().map_or(default.domain, Name::shared),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharedSection {
    /// Ask the server for every request, instead of leasing from it what the next ones will use. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// What is leased at most at a time. Default: 2 % of the limit from our own server, and 1 from another one, which takes nothing back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<LimitAmount>,
    /// How long a request waits for the server at most. Default 100ms; 1ms to 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What becomes of requests on which the server did not decide in time: Open lets them go on, Closed refuses them with 503. Default Open.
    #[serde(default)]
    pub failure_mode: FailureMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum FailureMode {
    #[default]
    Open,
    Closed,
}

/// What a shared limit may say, and what only a shared one may.
pub(super) fn check(limit: &RateLimit, at: &FieldPath, findings: &mut Findings) {
    let Some(written) = limit.written() else { return };
    if limit.scope == LimitScope::Instance {
        if limit.shared.is_some() {
            findings.error(at.key("shared"), "goes with `scope: Service`");
        }
        return;
    }
    units(at, findings, written);
    for (i, given) in limit.overrides.iter().enumerate() {
        let at = at.key("overrides").index(i);
        given.written(written).into_iter().for_each(|written| units(&at, findings, written));
    }
    let Some(shared) = limit.shared else { return };
    let at = at.key("shared");
    if let Some(timeout) = shared.timeout
        && !SharedLimit::TIMEOUTS.contains(&timeout.get())
    {
        findings.error(at.key("timeout"), format!("{timeout} is no time to wait (1ms to 5s)"));
    }
    let most = limit.least_burst(written);
    if shared.strict && shared.batch.is_some() {
        findings.error(at.key("batch"), "does not go with strict, which leases nothing");
    } else if shared.batch.is_some_and(|batch| batch.get() > most) {
        findings.error(at.key("batch"), format!("a limit that allows {most} never has as much"));
    }
}

/// The call counts by whole units, each of which has its number at once.
fn units(at: &FieldPath, findings: &mut Findings, written: WrittenRate) {
    let Some(rate) = written.get() else { return };
    if rate.unit().is_none() {
        let text = "a limit that instances share is for each 1s, 1m, 1h or 24h: those are the units its server counts by";
        findings.error(at.key("per"), text);
    } else if rate.burst != rate.tokens {
        let text =
            "a limit that instances share has no burst of its own: what one `per` allows may come at once";
        findings.error(at.key("burst"), text);
    }
}
