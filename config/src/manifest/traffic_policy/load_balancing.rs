//! `loadBalancing`: how calls are spread over the endpoints of a Service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health_check::HealthCheckSection;
use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{
    CookieName, Duration, HeaderName, Percent, QueryName, RequestPath, number_value,
};
use crate::model;

/// Belongs to a Service, a Namespace or the Mesh: rules of routes share the endpoints of the Services behind them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancingSection {
    /// Default PeakEWMA.
    #[serde(default)]
    pub algorithm: BalancingAlgorithm,
    /// For LeastRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_request: Option<LeastRequestSettings>,
    /// For RingHash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHashSettings>,
    /// For Maglev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maglev: Option<MaglevSettings>,
    /// For RingHash and Maglev: what a request is hashed by; at most 8. The first that a request has decides, and one that has none goes
    /// anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hash: Vec<HashKey>,
    /// Whether endpoints in the caller's zone are preferred. Default Any, or what the Service's `trafficDistribution` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Zones>,
    /// New endpoints begin with a part of their share. Not for RingHash and Maglev. Absent: with all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStartSection>,
    /// The proxy gives clients a cookie, and their later requests go where the first one went. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionSection>,
    /// Asks endpoints whose readiness nobody watches (Workloads without a state, names outside the mesh). Absent: none is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum BalancingAlgorithm {
    /// The better of two by expected latency under load.
    #[default]
    #[serde(rename = "PeakEWMA")]
    PeakEwma,
    /// The one of two with fewer requests.
    LeastRequest,
    RoundRobin,
    Random,
    /// By a request's hash, on a ring of the endpoints' hashes.
    RingHash,
    /// By a request's hash, in a table of equal shares.
    Maglev,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeastRequestSettings {
    /// Endpoints compared. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Choices>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHashSettings {
    /// Places on the ring, at least; every endpoint has that many until there are maxSize. Default 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<RingSize>,
    /// Default 65536, or minSize where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<RingSize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaglevSettings {
    /// A prime, many times the number of endpoints. Default 65537.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<TableSize>,
}

/// One of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashKey {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<HashCookieKey>,
    /// The client's IP address; on a TCP connection the only one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<Nothing>,
    /// A query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryName>,
}

/// Written `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashCookieKey {
    pub name: CookieName,
    /// Present: the proxy gives this cookie to clients that bring none. `0s` lasts for the client's session. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Of the cookie the proxy gives. Absent: left to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RequestPath>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Zones {
    /// Zones do not matter.
    Any,
    /// Requests stay in the caller's zone while enough endpoints there can take them.
    PreferSameZone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowStartSection {
    /// Until it has all of its share. Default 30s; 1ms to 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// What it begins with. Default 10; 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_percent: Option<Percent>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionSection {
    /// Of the cookie. Default outrigger-session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CookieName>,
    /// Default `0s`: for as long as the client's session lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Default /.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RequestPath>,
}

number_value! {
    /// Endpoints that are compared for one request.
    Choices(u8), "a number of choices (2 to 10)", 2..=model::Algorithm::MAX_CHOICES
}

number_value! {
    /// Places of a hash ring.
    RingSize(u32), "a size of a ring (1 to 8388608)", 1..=model::Algorithm::LARGEST_RING
}

number_value! {
    /// Places of a Maglev table.
    TableSize(u32), "a size of a table (2 to 5000011)", 2..=model::Algorithm::LARGEST_TABLE
}

impl BalancingAlgorithm {
    /// Whether it goes by a request's hash.
    pub fn hashes(self) -> bool {
        matches!(self, BalancingAlgorithm::RingHash | BalancingAlgorithm::Maglev)
    }
}

impl HashKey {
    fn described(&self) -> String {
        let HashKey { header, cookie, source_address, query } = self;
        let header = header.iter().map(|name| format!("header {name}"));
        let cookie = cookie.iter().map(|cookie| format!("cookie {}", cookie.name));
        let query = query.iter().map(|name| format!("query {name}"));
        let source = source_address.iter().map(|_| "sourceAddress".to_owned());
        header.chain(cookie).chain(source).chain(query).collect::<Vec<_>>().join(" and ")
    }

    fn members(&self) -> usize {
        [self.header.is_some(), self.cookie.is_some(), self.source_address.is_some(), self.query.is_some()]
            .into_iter()
            .filter(|given| *given)
            .count()
    }
}

impl Check for LoadBalancingSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let algorithm = self.algorithm;
        let belongs = [
            ("leastRequest", self.least_request.is_some(), algorithm == BalancingAlgorithm::LeastRequest),
            ("ringHash", self.ring_hash.is_some(), algorithm == BalancingAlgorithm::RingHash),
            ("maglev", self.maglev.is_some(), algorithm == BalancingAlgorithm::Maglev),
            ("hash", !self.hash.is_empty(), algorithm.hashes()),
            ("slowStart", self.slow_start.is_some(), !algorithm.hashes()),
        ];
        for (member, given, fits) in belongs {
            if given && !fits {
                findings.error(at.key(member), format!("is not for the algorithm {}", word(algorithm)));
            }
        }
        let hash = at.key("hash");
        if algorithm.hashes() && self.hash.is_empty() {
            findings.error(hash.clone(), format!("is required, and missing; {} goes by it", word(algorithm)));
        }
        findings.at_most(&hash, self.hash.len(), 8);
        for (i, key) in self.hash.iter().enumerate() {
            if key.members() != 1 {
                let text = "takes one of header, cookie, sourceAddress and query";
                findings.error(hash.index(i), text);
            }
        }
        findings.unique(&hash, &self.hash, "", |key| Some(key.described()));
        if let Some(RingHashSettings { min_size: Some(min), max_size: Some(max) }) = self.ring_hash
            && max < min
        {
            findings.error(at.key("ringHash").key("maxSize"), format!("is less than minSize, {min}"));
        }
        if let Some(MaglevSettings { table_size: Some(size) }) = self.maglev
            && !model::Algorithm::is_table_size(size.get())
        {
            findings.error(at.key("maglev").key("tableSize"), format!("{size} is not a prime"));
        }
        if let Some(slow_start) = &self.slow_start {
            slow_start.check(&at.key("slowStart"), findings);
        }
        if let Some(check) = &self.health_check {
            check.check(&at.key("healthCheck"), findings);
        }
    }
}

impl Check for SlowStartSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(window) = self.window
            && !(1..=3_600_000).contains(&window.get().as_millis())
        {
            findings.error(at.key("window"), format!("{window} is not a window (1ms to 1h)"));
        }
        if self.min_percent.is_some_and(|percent| percent.get() == 0) {
            findings.error(at.key("minPercent"), "0 would never let it show how it does (1 to 100)");
        }
    }
}

fn word(algorithm: BalancingAlgorithm) -> &'static str {
    match algorithm {
        BalancingAlgorithm::PeakEwma => "PeakEWMA",
        BalancingAlgorithm::LeastRequest => "LeastRequest",
        BalancingAlgorithm::RoundRobin => "RoundRobin",
        BalancingAlgorithm::Random => "Random",
        BalancingAlgorithm::RingHash => "RingHash",
        BalancingAlgorithm::Maglev => "Maglev",
    }
}
