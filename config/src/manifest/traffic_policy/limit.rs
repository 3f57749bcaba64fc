//! `rateLimit` and `concurrency`: how much a workload takes on, and from whom. Enforced at the callee.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::access_policy::ToMatch;
use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{Duration, HeaderName, LimitAmount, MaxKeys, Name};
use crate::model::Rate;

use super::adaptive::AdaptiveSection;
use super::limit_key::KeyPart;
use super::shared_limit::{self, LimitScope, LimitServerSection, SharedSection};

/// Counted by each instance for itself, or by all of a Service together. `rateLimit: {}` takes the limits of less specific policies away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSection {
    /// Enforce, or Observe to count and log what would be refused. Default Enforce.
    #[serde(default)]
    pub mode: LimitMode,
    /// Which responses carry `RateLimit` and `RateLimit-Policy`: Always, Refused (only those), Never. Default Always.
    #[serde(default)]
    pub headers: LimitHeaders,
    /// Who counts limits of `scope: Service`. Default: what the Mesh says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<LimitServerSection>,
    /// All of them have to let a request pass; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<RateLimit>,
}

/// Requests that are answered at the same time, by each instance. `concurrency: {}` takes the limits of less specific policies away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConcurrencySection {
    /// Enforce, or Observe to count and log what would be refused. Default Enforce.
    #[serde(default)]
    pub mode: LimitMode,
    /// All of them have to let a request pass; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ConcurrencyLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LimitMode {
    #[default]
    Enforce,
    Observe,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LimitHeaders {
    #[default]
    Always,
    Refused,
    Never,
}

/// `requests` or `connections`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Stands in headers, logs and metrics. Default `limit-` and its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Counts requests that meet one of these, as they are received; absent: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<ToMatch>>,
    /// Instance: each instance counts for itself. Service: all instances of the Service count together, at a server. Default Instance.
    #[serde(default)]
    pub scope: LimitScope,
    /// For `scope: Service`: how the server is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedSection>,
    /// For each `per`, evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<LimitAmount>,
    /// Connections that carry anything but HTTP, for each `per`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<LimitAmount>,
    /// Default 1s; 1s to 24h, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
    /// How many may come at once. Default: as many as for one `per`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<LimitAmount>,
    /// What is counted apart; at most 4 parts, which count together. Absent: everything is counted together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<KeyPart>,
    /// Other rates for certain values of the key; the first that fits decides. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<RateOverride>,
    /// What a request counts as. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostSection>,
    /// Keys that are remembered; further ones are counted together until one of them has its whole burst again. Default 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<MaxKeys>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConcurrencyLimit {
    /// Stands in logs and metrics. Default `concurrency-` and its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Counts requests that meet one of these, as they are received; absent: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Vec<ToMatch>>,
    /// At the same time, from their head to the end of their response.
    pub requests: LimitAmount,
    /// What is counted apart; at most 4 parts, which count together. Absent: everything is counted together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<KeyPart>,
    /// Other numbers for certain values of the key; the first that fits decides. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<ConcurrencyOverride>,
    /// Keys that may have requests at the same time; further ones are counted together. Default 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<MaxKeys>,
}

/// Another rate, or `unlimited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateOverride {
    /// One value for each part of the limit's key, in its order; `*` is any.
    pub key: Vec<String>,
    /// Of what the limit counts. Absent: as the limit says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<LimitAmount>,
    /// Default: as the limit says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Duration>,
    /// Default: as many as for one `per`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<LimitAmount>,
    /// No limit at all. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
}

/// Another number, or `unlimited`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConcurrencyOverride {
    /// One value for each part of the limit's key, in its order; `*` is any.
    pub key: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<LimitAmount>,
    /// No limit at all. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
}

/// Whoever sets the header decides what a request costs: let it be set by a gateway, not by callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CostSection {
    /// Where the header is missing or no number. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<LimitAmount>,
    /// A whole number, 1 to max.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// Default: the least burst, at most which a request can cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<LimitAmount>,
}

/// A rate as it is written: of a limit, or of one of its overrides.
#[derive(Clone, Copy, Debug)]
pub struct WrittenRate {
    pub amount: LimitAmount,
    pub per: Option<Duration>,
    pub burst: Option<LimitAmount>,
}

impl WrittenRate {
    /// With its defaults; `None` outside the bounds.
    pub fn get(self) -> Option<Rate> {
        let per = self.per.map_or(std::time::Duration::from_secs(1), Duration::get);
        Rate::new(self.amount.get(), per, self.burst.unwrap_or(self.amount).get())
    }
}

impl RateLimit {
    /// `None` where nothing is said to count.
    pub fn written(&self) -> Option<WrittenRate> {
        let amount = self.requests.or(self.connections)?;
        Some(WrittenRate { amount, per: self.per, burst: self.burst })
    }
}

impl RateOverride {
    /// `None` where there is no limit.
    pub fn written(&self, limit: WrittenRate) -> Option<WrittenRate> {
        if self.unlimited {
            return None;
        }
        let per = self.per.or(limit.per);
        Some(match self.rate {
            Some(amount) => WrittenRate { amount, per, burst: self.burst },
            None => WrittenRate { amount: limit.amount, per, burst: self.burst.or(limit.burst) },
        })
    }
}

impl Check for RateLimitSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let at = at.key("limits");
        findings.at_most(&at, self.limits.len(), 16);
        findings.unique(&at, &self.limits, "name", |limit| limit.name.clone());
        findings.each(&at, &self.limits);
    }
}

impl Check for ConcurrencySection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.check(&at.key("adaptive"), findings);
        }
        let at = at.key("limits");
        findings.at_most(&at, self.limits.len(), 16);
        findings.unique(&at, &self.limits, "name", |limit| limit.name.clone());
        findings.each(&at, &self.limits);
    }
}

impl Check for RateLimit {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        match (self.requests, self.connections) {
            (Some(_), None) => {}
            (None, Some(_)) => self.check_connections(at, findings),
            (None, None) => findings.error(at.clone(), "one of these is required: requests, connections"),
            (Some(_), Some(_)) => {
                findings
                    .error(at.key("connections"), "does not go with requests; make it a limit of its own");
            }
        }
        conditions(at, findings, self.matches.as_deref(), &self.key);
        overrides(at, findings, &self.key, &self.overrides, |given| &given.key);
        shared_limit::check(self, at, findings);
        let Some(written) = self.written() else { return };
        bounds(at, findings, written);
        for (i, given) in self.overrides.iter().enumerate() {
            let at = at.key("overrides").index(i);
            let says = given.rate.is_some() || given.per.is_some() || given.burst.is_some();
            match (given.unlimited, says) {
                (true, true) => findings.error(at.key("unlimited"), "does not go with a rate"),
                (false, false) => {
                    findings.error(at, "one of these is required: rate, per, burst, unlimited");
                }
                _ => given.written(written).into_iter().for_each(|written| bounds(&at, findings, written)),
            }
        }
        let most = self.least_burst(written);
        if let Some(cost) = &self.cost {
            let at = at.key("cost");
            let too_much = |given: &Option<LimitAmount>, most: u32| given.filter(|given| given.get() > most);
            if too_much(&cost.max, most).is_some() {
                findings.error(at.key("max"), format!("a bucket that holds {most} never has as much"));
            }
            if too_much(&cost.fixed, cost.max.map_or(most, |max| max.get().min(most))).is_some() {
                findings.error(at.key("fixed"), format!("is more than a request may cost, {most} at most"));
            }
            if cost.max.is_some() && cost.header.is_none() {
                findings.error(at.key("max"), "is for what a header says");
            }
        }
    }
}

impl RateLimit {
    /// What no request may cost more than.
    pub fn least_burst(&self, written: WrittenRate) -> u32 {
        let burst = |written: WrittenRate| written.burst.unwrap_or(written.amount).get();
        let others = self.overrides.iter().filter_map(|given| given.written(written)).map(burst);
        others.fold(burst(written), u32::min)
    }

    fn check_connections(&self, at: &FieldPath, findings: &mut Findings) {
        for (i, to) in self.matches.iter().flatten().enumerate() {
            if !to.is_ports_only() {
                findings.error(at.key("match").index(i), "a connection is known by its port alone");
            }
        }
        for (i, part) in self.key.iter().enumerate().filter(|(_, part)| part.is_http()) {
            findings.error(at.key("key").index(i).key("by"), format!("connections have no {}", part.word()));
        }
        if self.cost.is_some() {
            findings.error(at.key("cost"), "is for requests; a connection counts once");
        }
    }
}

impl Check for ConcurrencyLimit {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        conditions(at, findings, self.matches.as_deref(), &self.key);
        overrides(at, findings, &self.key, &self.overrides, |given| &given.key);
        for (i, given) in self.overrides.iter().enumerate() {
            if given.unlimited == given.requests.is_some() {
                findings
                    .error(at.key("overrides").index(i), "either of these is required: requests, unlimited");
            }
        }
    }
}

fn conditions(at: &FieldPath, findings: &mut Findings, matches: Option<&[ToMatch]>, key: &[KeyPart]) {
    if let Some(matches) = matches {
        let at = at.key("match");
        findings.not_empty(&at, matches.len());
        findings.at_most(&at, matches.len(), 64);
        findings.each(&at, matches);
    }
    findings.at_most(&at.key("key"), key.len(), 4);
    findings.unique(&at.key("key"), key, "", |part| Some(part.described()));
}

fn overrides<T>(
    at: &FieldPath,
    findings: &mut Findings,
    key: &[KeyPart],
    overrides: &[T],
    of: impl Fn(&T) -> &Vec<String>,
) {
    let at = at.key("overrides");
    findings.at_most(&at, overrides.len(), 256);
    findings.unique(&at, overrides, "key", |given| Some(of(given).join(", ")));
    for (i, given) in overrides.iter().enumerate() {
        let (at, given) = (at.index(i).key("key"), of(given));
        if key.is_empty() {
            findings.error(at, "the limit has no key; an override is for a value of one");
        } else if given.len() != key.len() {
            let text = format!("{} values for a key of {}: {}", given.len(), key.len(), words(key));
            findings.error(at, text);
        } else if let Some(long) = given.iter().position(|value| value.len() > 4096) {
            findings.error(at.index(long), "has more than 4096 characters");
        }
    }
}

fn words(key: &[KeyPart]) -> String {
    key.iter().map(KeyPart::described).collect::<Vec<_>>().join(", ")
}

fn bounds(at: &FieldPath, findings: &mut Findings, written: WrittenRate) {
    if written.get().is_some() {
        return;
    }
    let per = written.per.map_or(std::time::Duration::from_secs(1), Duration::get);
    if let Some(given) = written.per
        && (per.subsec_nanos() != 0 || per.is_zero() || per > Rate::LONGEST)
    {
        findings.error(at.key("per"), format!("{given} is not a period (1s to 24h, in whole seconds)"));
    } else if u64::from(written.amount.get()) > Rate::FASTEST * per.as_secs() {
        findings.error(at.clone(), format!("is more than {} a second", Rate::FASTEST));
    } else {
        findings.error(at.key("burst"), "takes more than a year to fill");
    }
}
