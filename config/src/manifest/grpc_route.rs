//! Gateway API `GRPCRoute`: routes by gRPC service and method.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Pattern;

use super::check::{Check, Findings};
use super::decode::member_error;
use super::field::{Ignored, NOT_YET, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::route::{
    FilteredBackend, HeaderMatch, HeaderModifier, Mirror, ParentRef, ValueMatchType, check_backends,
    check_parents,
};
use super::union::chosen;
use super::value::{GrpcMethodName, GrpcServiceName, Hostname, Name, pattern};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcRoute {
    pub metadata: Metadata,
    pub spec: GrpcRouteSpec,
    /// Written by whoever implements the route, read by people.
    #[serde(default, skip_serializing)]
    pub status: Ignored,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteSpec {
    /// Where it applies: Services for calls inside the mesh, Gateways for those from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentRef>,
    /// Which hosts of a Gateway's listeners this is for; empty means all. Without effect where the parent is a Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<GrpcRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<NotYet>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRule {
    /// Unique in the route; policies name it by `sectionName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Any of them; empty matches every call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcMatch>,
    /// What is changed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<GrpcFilter>,
    /// One is drawn by weight for each call; none answers UNAVAILABLE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<GrpcBackendRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<NotYet>,
}

pub type GrpcBackendRef = FilteredBackend<GrpcFilter>;

/// All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcMatch {
    /// Absent: every method of every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    /// All of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// At least one of service and method is given; an absent one matches all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawMethodMatch", into = "RawMethodMatch")]
pub enum GrpcMethodMatch {
    Exact { service: Option<GrpcServiceName>, method: Option<GrpcMethodName> },
    Regex { service: Option<Pattern>, method: Option<Pattern> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawGrpcFilter", into = "RawGrpcFilter")]
pub enum GrpcFilter {
    RequestHeaderModifier(HeaderModifier),
    ResponseHeaderModifier(HeaderModifier),
    RequestMirror(Mirror),
}

impl GrpcFilter {
    /// As in `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            GrpcFilter::RequestHeaderModifier(_) => "RequestHeaderModifier",
            GrpcFilter::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            GrpcFilter::RequestMirror(_) => "RequestMirror",
        }
    }
}

impl Check for GrpcRoute {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        check_parents(&spec.key("parentRefs"), &self.spec.parent_refs, findings);
        findings.at_most(&spec.key("hostnames"), self.spec.hostnames.len(), 16);
        findings.unique(&spec.key("hostnames"), &self.spec.hostnames, "", |host| Some(host.clone()));
        let rules = spec.key("rules");
        findings.at_most(&rules, self.spec.rules.len(), 16);
        findings.unique(&rules, &self.spec.rules, "name", |rule| rule.name.clone());
        findings.each(&rules, &self.spec.rules);
        let matches: usize = self.spec.rules.iter().map(|rule| rule.matches.len()).sum();
        if matches > 128 {
            findings.error(rules, format!("{matches} matches in all rules are more than the 128 accepted"));
        }
    }
}

impl Check for GrpcRule {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let matches = at.key("matches");
        findings.at_most(&matches, self.matches.len(), 64);
        findings.each(&matches, &self.matches);
        check_filters(&at.key("filters"), &self.filters, findings);
        let backends = at.key("backendRefs");
        check_backends(&backends, self.backend_refs.iter().map(|backend| &backend.to), findings);
        for (i, backend) in self.backend_refs.iter().enumerate() {
            let filters = backends.index(i).key("filters");
            check_filters(&filters, &backend.filters, findings);
            for (j, _) in
                backend.filters.iter().enumerate().filter(|(_, f)| matches!(f, GrpcFilter::RequestMirror(_)))
            {
                let text = format!("RequestMirror for one backend {NOT_YET}; make it a filter of the rule");
                findings.error(filters.index(j).key("type"), text);
            }
        }
    }
}

impl Check for GrpcMatch {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let headers = at.key("headers");
        findings.at_most(&headers, self.headers.len(), 16);
        findings.unique(&headers, &self.headers, "name", |header| Some(header.name.clone()));
    }
}

/// At most 16, each kind once but for mirrors.
fn check_filters(at: &FieldPath, filters: &[GrpcFilter], findings: &mut Findings) {
    findings.at_most(at, filters.len(), 16);
    findings.unique(at, filters, "type", |filter| match filter {
        GrpcFilter::RequestMirror(_) => None,
        filter => Some(filter.name()),
    });
    for (i, filter) in filters.iter().enumerate() {
        let at = at.index(i);
        match filter {
            GrpcFilter::RequestHeaderModifier(edits) => {
                edits.check(&at.key("requestHeaderModifier"), findings)
            }
            GrpcFilter::ResponseHeaderModifier(edits) => {
                edits.check(&at.key("responseHeaderModifier"), findings);
            }
            GrpcFilter::RequestMirror(mirror) => {
                mirror.backend.check(&at.key("requestMirror").key("backendRef"), findings);
            }
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GRPCMethodMatch")]
struct RawMethodMatch {
    #[serde(rename = "type", default)]
    kind: ValueMatchType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
}

impl TryFrom<RawMethodMatch> for GrpcMethodMatch {
    type Error = String;

    fn try_from(raw: RawMethodMatch) -> Result<GrpcMethodMatch, String> {
        if raw.service.is_none() && raw.method.is_none() {
            return Err("one of these is required: service, method".to_owned());
        }
        match raw.kind {
            ValueMatchType::Exact => Ok(GrpcMethodMatch::Exact {
                service: each("service", raw.service, |text| GrpcServiceName::try_from(text))?,
                method: each("method", raw.method, |text| GrpcMethodName::try_from(text))?,
            }),
            ValueMatchType::RegularExpression => Ok(GrpcMethodMatch::Regex {
                service: each("service", raw.service, pattern)?,
                method: each("method", raw.method, pattern)?,
            }),
        }
    }
}

fn each<T, E: std::fmt::Display>(
    member: &str,
    text: Option<String>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, String> {
    text.map(|text| read(&text).map_err(|error| member_error(member, error))).transpose()
}

impl From<GrpcMethodMatch> for RawMethodMatch {
    fn from(typed: GrpcMethodMatch) -> RawMethodMatch {
        match typed {
            GrpcMethodMatch::Exact { service, method } => RawMethodMatch {
                kind: ValueMatchType::Exact,
                service: service.map(|s| s.to_string()),
                method: method.map(|m| m.to_string()),
            },
            GrpcMethodMatch::Regex { service, method } => RawMethodMatch {
                kind: ValueMatchType::RegularExpression,
                service: service.map(|s| s.as_str().to_owned()),
                method: method.map(|m| m.as_str().to_owned()),
            },
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "GRPCRouteFilter")]
struct RawGrpcFilter {
    /// Says which of the members below is set. ExtensionRef is not available yet.
    #[serde(rename = "type")]
    kind: GrpcFilterType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_header_modifier: Option<HeaderModifier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_header_modifier: Option<HeaderModifier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_mirror: Option<Mirror>,
    /// Not available yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension_ref: Option<NotYet>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum GrpcFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    ExtensionRef,
}

impl TryFrom<RawGrpcFilter> for GrpcFilter {
    type Error = String;

    fn try_from(raw: RawGrpcFilter) -> Result<GrpcFilter, String> {
        let members = [
            ("requestHeaderModifier", raw.request_header_modifier.is_some()),
            ("responseHeaderModifier", raw.response_header_modifier.is_some()),
            ("requestMirror", raw.request_mirror.is_some()),
        ];
        match raw.kind {
            GrpcFilterType::RequestHeaderModifier => {
                let edits = raw.request_header_modifier;
                chosen("RequestHeaderModifier", "requestHeaderModifier", edits, &members)
                    .map(GrpcFilter::RequestHeaderModifier)
            }
            GrpcFilterType::ResponseHeaderModifier => {
                let edits = raw.response_header_modifier;
                chosen("ResponseHeaderModifier", "responseHeaderModifier", edits, &members)
                    .map(GrpcFilter::ResponseHeaderModifier)
            }
            GrpcFilterType::RequestMirror => {
                chosen("RequestMirror", "requestMirror", raw.request_mirror, &members)
                    .map(GrpcFilter::RequestMirror)
            }
            GrpcFilterType::ExtensionRef => Err(member_error("type", format!("ExtensionRef {NOT_YET}"))),
        }
    }
}

impl From<GrpcFilter> for RawGrpcFilter {
    fn from(typed: GrpcFilter) -> RawGrpcFilter {
        let (kind, request_header_modifier, response_header_modifier, request_mirror) = match typed {
            GrpcFilter::RequestHeaderModifier(edits) => {
                (GrpcFilterType::RequestHeaderModifier, Some(edits), None, None)
            }
            GrpcFilter::ResponseHeaderModifier(edits) => {
                (GrpcFilterType::ResponseHeaderModifier, None, Some(edits), None)
            }
            GrpcFilter::RequestMirror(mirror) => (GrpcFilterType::RequestMirror, None, None, Some(mirror)),
        };
        RawGrpcFilter {
            kind,
            request_header_modifier,
            response_header_modifier,
            request_mirror,
            extension_ref: None,
        }
    }
}
