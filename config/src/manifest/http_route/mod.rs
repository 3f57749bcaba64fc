//! Gateway API `HTTPRoute`: which request goes where, and what is changed on the way.
//!
//! Every field of the API's standard and experimental channels is known; those whose behaviour is not there yet are
//! refused by name.

use std::time::Duration as StdDuration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::{Ignored, NOT_YET, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::route::{FilteredBackend, ParentRef, check_backends, check_parents};
use super::value::{Duration, Hostname, Name, RetryAttempts, RetryStatus};

mod cors;
mod filter;
mod matches;

pub use cors::{Cors, CorsMethod};
pub use filter::{HttpFilter, PathModifier, Redirect, Scheme, UrlRewrite};
pub use matches::{HttpMatch, HttpPathMatch, QueryMatch};

use filter::check_filters;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRoute {
    pub metadata: Metadata,
    pub spec: HttpRouteSpec,
    /// Written by whoever implements the route, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// Where it applies: Services for calls inside the mesh, Gateways for those from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// Which hosts of a Gateway's listeners this is for; empty means all. Without effect where the parent is a Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    /// Default: one rule that matches everything and has no backend.
    #[serde(default = "one_rule")]
    pub rules: Vec<HttpRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<NotYet>,
}

fn one_rule() -> Vec<HttpRule> {
    vec![HttpRule::default()]
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// Unique in the route; policies name it by `sectionName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Any of them; empty matches every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpMatch>,
    /// What is changed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HttpFilter>,
    /// One is drawn by weight for each request; none answers 500, unless the rule redirects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<HttpBackendRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<HttpTimeouts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<HttpRetry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<NotYet>,
}

pub type HttpBackendRef = FilteredBackend<HttpFilter>;

/// `0s` means no limit (Gateway API `HTTPRouteTimeouts`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpTimeouts {
    /// The whole exchange, all attempts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt; at most `request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// Idempotent requests that failed are sent again (Gateway API `HTTPRouteRetry`); TrafficPolicy.retry says more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRetry {
    /// Responses of these statuses are failures, besides connections that fail; at most 16. Default: 502, 503, 504.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<RetryStatus>,
    /// After the first one. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<RetryAttempts>,
    /// The wait before the next attempt is a random time up to this, doubled each time. Default 25ms; 1ms to 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

impl Check for HttpRoute {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        check_parents(&spec.key("parentRefs"), &self.spec.parent_refs, findings);
        findings.at_most(&spec.key("hostnames"), self.spec.hostnames.len(), 16);
        findings.unique(&spec.key("hostnames"), &self.spec.hostnames, "", |host| Some(host.clone()));
        let rules = spec.key("rules");
        findings.not_empty(&rules, self.spec.rules.len());
        findings.at_most(&rules, self.spec.rules.len(), 16);
        findings.unique(&rules, &self.spec.rules, "name", |rule| rule.name.clone());
        findings.each(&rules, &self.spec.rules);
        let matches: usize = self.spec.rules.iter().map(|rule| rule.matches.len()).sum();
        if matches > 128 {
            findings.error(rules, format!("{matches} matches in all rules are more than the 128 accepted"));
        }
    }
}

impl Check for HttpRule {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let matches = at.key("matches");
        findings.at_most(&matches, self.matches.len(), 64);
        findings.each(&matches, &self.matches);

        let filters = at.key("filters");
        check_filters(&filters, &self.filters, findings);
        let redirects = self.filters.iter().any(|f| matches!(f, HttpFilter::RequestRedirect(_)));
        let backends = at.key("backendRefs");
        if redirects && !self.backend_refs.is_empty() {
            findings.error(backends.clone(), "a rule that redirects has no backends");
        }
        check_backends(&backends, self.backend_refs.iter().map(|backend| &backend.to), findings);
        for (i, backend) in self.backend_refs.iter().enumerate() {
            let filters = backends.index(i).key("filters");
            check_filters(&filters, &backend.filters, findings);
            for (j, filter) in backend.filters.iter().enumerate() {
                if let HttpFilter::RequestRedirect(_) | HttpFilter::Cors(_) | HttpFilter::RequestMirror(_) =
                    filter
                {
                    let text =
                        format!("{} for one backend {NOT_YET}; make it a filter of the rule", filter.name());
                    findings.error(filters.index(j).key("type"), text);
                }
                self.check_prefix_replacement(&filters.index(j), filter, findings);
            }
        }
        for (i, filter) in self.filters.iter().enumerate() {
            self.check_prefix_replacement(&filters.index(i), filter, findings);
        }
        if let Some(timeouts) = &self.timeouts {
            timeouts.check(&at.key("timeouts"), findings);
        }
        if let Some(retry) = &self.retry {
            retry.check(&at.key("retry"), findings);
        }
    }
}

impl HttpRule {
    /// A prefix can be replaced only where the rule has matched by one.
    fn check_prefix_replacement(&self, at: &FieldPath, filter: &HttpFilter, findings: &mut Findings) {
        let (member, path) = match filter {
            HttpFilter::RequestRedirect(redirect) => ("requestRedirect", &redirect.path),
            HttpFilter::UrlRewrite(rewrite) => ("urlRewrite", &rewrite.path),
            _ => return,
        };
        // No match at all means one, of the prefix `/`.
        let by_prefix = match self.matches.as_slice() {
            [] => true,
            [only] => matches!(only.path, HttpPathMatch::Prefix(_)),
            _ => false,
        };
        if matches!(path, Some(PathModifier::Prefix(_))) && !by_prefix {
            let text =
                "takes a rule with exactly one match, by PathPrefix; split the rule, or use replaceFullPath";
            findings.error(at.key(member).key("path").key("replacePrefixMatch"), text);
        }
    }
}

impl Check for HttpRetry {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        findings.at_most(&at.key("codes"), self.codes.len(), 16);
        findings.unique(&at.key("codes"), &self.codes, "", |code| Some(*code));
        if let Some(backoff) = self.backoff
            && !(1..=60_000).contains(&backoff.get().as_millis())
        {
            findings.error(at.key("backoff"), format!("{backoff} is not a backoff (1ms to 60s)"));
        }
    }
}

impl Check for HttpTimeouts {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let limit = |d: Option<Duration>| d.map(Duration::get).filter(|d| *d > StdDuration::ZERO);
        if let (Some(request), Some(attempt)) = (limit(self.request), limit(self.backend_request))
            && attempt > request
        {
            findings.error(at.key("backendRequest"), "one attempt cannot take longer than the whole request");
        }
    }
}
