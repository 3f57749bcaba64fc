//! Gateway API `HTTPRoute`: which request goes where, and what is changed on the way.
//!
//! Every field of the API's standard and experimental channels is known; those whose behaviour is not there yet are
//! refused by name.

use std::time::Duration as StdDuration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Pattern;

use super::check::{Check, Findings};
use super::decode::member_error;
use super::field::{Ignored, NOT_YET, NotYet};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::route::{
    FilteredBackend, HeaderMatch, HeaderModifier, Mirror, ParentRef, ValueMatch, ValueMatchType,
    check_backends, check_parents, value_match,
};
use super::union::chosen;
use super::value::{
    CorsMaxAge, Duration, HeaderName, Hostname, HttpMethod, Name, Origin, PathReplacement, Port,
    PreciseHostname, QueryName, RedirectStatus, RequestPath, pattern,
};

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
    pub retry: Option<NotYet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<NotYet>,
}

pub type HttpBackendRef = FilteredBackend<HttpFilter>;

/// All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// Default: prefix `/`.
    #[serde(default)]
    pub path: HttpPathMatch,
    /// All of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// All of them. Of a parameter given more than once the first value counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<QueryMatch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawPathMatch", into = "RawPathMatch")]
pub enum HttpPathMatch {
    Exact(RequestPath),
    /// By whole segments.
    Prefix(RequestPath),
    Regex(Pattern),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawQueryMatch", into = "RawQueryMatch")]
pub struct QueryMatch {
    pub name: QueryName,
    pub value: ValueMatch,
}

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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawHttpFilter", into = "RawHttpFilter")]
pub enum HttpFilter {
    RequestHeaderModifier(HeaderModifier),
    ResponseHeaderModifier(HeaderModifier),
    RequestMirror(Mirror),
    RequestRedirect(Redirect),
    UrlRewrite(UrlRewrite),
    Cors(Cors),
}

/// Absent parts are those of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirect {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<PreciseHostname>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// Absent: the well-known port of `scheme` if that is given, else the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Default 302.
    #[serde(default)]
    pub status_code: RedirectStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What the app is asked for instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlRewrite {
    /// The new Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<PreciseHostname>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawPathModifier", into = "RawPathModifier")]
pub enum PathModifier {
    Full(PathReplacement),
    /// Replaces what the rule's path prefix matched; only in rules that match by prefix alone.
    Prefix(PathReplacement),
}

/// Answers to cross-origin requests (Gateway API `HTTPCORSFilter`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cors {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_origins: Vec<Origin>,
    /// Default false.
    #[serde(default)]
    pub allow_credentials: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<CorsMethod>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<HeaderName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<HeaderName>,
    /// For how long a browser may keep the answer to a preflight; seconds, default 5, at least 1.
    #[serde(default)]
    pub max_age: CorsMaxAge,
}

/// A method, or `*` for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum CorsMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    #[serde(rename = "*")]
    Any,
}

impl CorsMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            CorsMethod::Get => "GET",
            CorsMethod::Head => "HEAD",
            CorsMethod::Post => "POST",
            CorsMethod::Put => "PUT",
            CorsMethod::Delete => "DELETE",
            CorsMethod::Connect => "CONNECT",
            CorsMethod::Options => "OPTIONS",
            CorsMethod::Trace => "TRACE",
            CorsMethod::Patch => "PATCH",
            CorsMethod::Any => "*",
        }
    }
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

impl Check for HttpMatch {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let (headers, query) = (at.key("headers"), at.key("queryParams"));
        findings.at_most(&headers, self.headers.len(), 16);
        findings.unique(&headers, &self.headers, "name", |header| Some(header.name.clone()));
        findings.at_most(&query, self.query_params.len(), 16);
        findings.unique(&query, &self.query_params, "name", |param| Some(param.name.clone()));
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

/// At most 16, each kind once but for mirrors, and not both a redirect and a rewrite.
fn check_filters(at: &FieldPath, filters: &[HttpFilter], findings: &mut Findings) {
    findings.at_most(at, filters.len(), 16);
    findings.unique(at, filters, "type", |filter| match filter {
        HttpFilter::RequestMirror(_) => None,
        filter => Some(filter.name()),
    });
    let rewrite = filters.iter().position(|f| matches!(f, HttpFilter::UrlRewrite(_)));
    let redirects = filters.iter().any(|f| matches!(f, HttpFilter::RequestRedirect(_)));
    if let (Some(i), true) = (rewrite, redirects) {
        findings.error(at.index(i).key("type"), "a rule that redirects cannot also rewrite");
    }
    for (i, filter) in filters.iter().enumerate() {
        let at = at.index(i);
        match filter {
            HttpFilter::RequestHeaderModifier(edits) => {
                edits.check(&at.key("requestHeaderModifier"), findings)
            }
            HttpFilter::ResponseHeaderModifier(edits) => {
                edits.check(&at.key("responseHeaderModifier"), findings);
            }
            HttpFilter::RequestMirror(mirror) => {
                mirror.backend.check(&at.key("requestMirror").key("backendRef"), findings);
            }
            HttpFilter::Cors(cors) => cors.check(&at.key("cors"), findings),
            HttpFilter::RequestRedirect(_) | HttpFilter::UrlRewrite(_) => {}
        }
    }
}

impl Check for Cors {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let origins = at.key("allowOrigins");
        findings.at_most(&origins, self.allow_origins.len(), 64);
        findings.unique(&origins, &self.allow_origins, "", |origin| Some(origin.clone()));
        let methods = at.key("allowMethods");
        findings.at_most(&methods, self.allow_methods.len(), 9);
        findings.unique(&methods, &self.allow_methods, "", |method| Some(method.as_str()));
        for (list, headers) in
            [("allowHeaders", &self.allow_headers), ("exposeHeaders", &self.expose_headers)]
        {
            findings.at_most(&at.key(list), headers.len(), 64);
            findings.unique(&at.key(list), headers, "", |name| Some(name.clone()));
        }
        let star_alone = |len: usize, star: bool| star && len > 1;
        if star_alone(self.allow_origins.len(), self.allow_origins.iter().any(|o| *o == "*")) {
            findings.error(origins, "* allows every origin; it stands alone");
        }
        if star_alone(self.allow_methods.len(), self.allow_methods.contains(&CorsMethod::Any)) {
            findings.error(methods, "* allows every method; it stands alone");
        }
        if star_alone(self.allow_headers.len(), self.allow_headers.iter().any(|h| h.as_str() == "*")) {
            findings.error(at.key("allowHeaders"), "* allows every header; it stands alone");
        }
    }
}

impl HttpFilter {
    /// As in `type`.
    pub const fn name(&self) -> &'static str {
        match self {
            HttpFilter::RequestHeaderModifier(_) => "RequestHeaderModifier",
            HttpFilter::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            HttpFilter::RequestMirror(_) => "RequestMirror",
            HttpFilter::RequestRedirect(_) => "RequestRedirect",
            HttpFilter::UrlRewrite(_) => "URLRewrite",
            HttpFilter::Cors(_) => "CORS",
        }
    }
}

impl Default for HttpPathMatch {
    fn default() -> HttpPathMatch {
        HttpPathMatch::Prefix(root_path())
    }
}

fn root_path() -> RequestPath {
    RequestPath::try_from("/").expect("begins with a slash")
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HTTPPathMatch")]
struct RawPathMatch {
    /// PathPrefix: by whole segments. RegularExpression: the whole path.
    #[serde(rename = "type", default)]
    kind: PathMatchType,
    #[serde(default = "slash")]
    #[schemars(length(max = 1024))]
    value: String,
}

fn slash() -> String {
    "/".to_owned()
}

impl TryFrom<RawPathMatch> for HttpPathMatch {
    type Error = String;

    fn try_from(raw: RawPathMatch) -> Result<HttpPathMatch, String> {
        let path = || RequestPath::try_from(&*raw.value).map_err(|error| member_error("value", error));
        match raw.kind {
            PathMatchType::Exact => path().map(HttpPathMatch::Exact),
            PathMatchType::PathPrefix => path().map(HttpPathMatch::Prefix),
            PathMatchType::RegularExpression if raw.value.len() > 1024 => {
                Err(member_error("value", "a path is matched with at most 1024 characters"))
            }
            PathMatchType::RegularExpression => {
                pattern(&raw.value).map(HttpPathMatch::Regex).map_err(|error| member_error("value", error))
            }
        }
    }
}

impl From<HttpPathMatch> for RawPathMatch {
    fn from(typed: HttpPathMatch) -> RawPathMatch {
        let (kind, value) = match typed {
            HttpPathMatch::Exact(path) => (PathMatchType::Exact, path.to_string()),
            HttpPathMatch::Prefix(path) => (PathMatchType::PathPrefix, path.to_string()),
            HttpPathMatch::Regex(pattern) => (PathMatchType::RegularExpression, pattern.as_str().to_owned()),
        };
        RawPathMatch { kind, value }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HTTPQueryParamMatch")]
struct RawQueryMatch {
    #[serde(rename = "type", default)]
    kind: ValueMatchType,
    name: QueryName,
    #[schemars(length(min = 1, max = 1024))]
    value: String,
}

impl TryFrom<RawQueryMatch> for QueryMatch {
    type Error = String;

    fn try_from(raw: RawQueryMatch) -> Result<QueryMatch, String> {
        if !(1..=1024).contains(&raw.value.chars().count()) {
            return Err(member_error("value", "a query parameter is compared with 1 to 1024 characters"));
        }
        Ok(QueryMatch { name: raw.name, value: value_match(raw.kind, raw.value)? })
    }
}

impl From<QueryMatch> for RawQueryMatch {
    fn from(typed: QueryMatch) -> RawQueryMatch {
        let (kind, value) = typed.value.into_raw();
        RawQueryMatch { kind, name: typed.name, value }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "HTTPPathModifier")]
struct RawPathModifier {
    #[serde(rename = "type")]
    kind: PathModifierType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace_full_path: Option<PathReplacement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace_prefix_match: Option<PathReplacement>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

impl TryFrom<RawPathModifier> for PathModifier {
    type Error = String;

    fn try_from(raw: RawPathModifier) -> Result<PathModifier, String> {
        let members = [
            ("replaceFullPath", raw.replace_full_path.is_some()),
            ("replacePrefixMatch", raw.replace_prefix_match.is_some()),
        ];
        match raw.kind {
            PathModifierType::ReplaceFullPath => {
                chosen("ReplaceFullPath", "replaceFullPath", raw.replace_full_path, &members)
                    .map(PathModifier::Full)
            }
            PathModifierType::ReplacePrefixMatch => {
                chosen("ReplacePrefixMatch", "replacePrefixMatch", raw.replace_prefix_match, &members)
                    .map(PathModifier::Prefix)
            }
        }
    }
}

impl From<PathModifier> for RawPathModifier {
    fn from(typed: PathModifier) -> RawPathModifier {
        let (kind, replace_full_path, replace_prefix_match) = match typed {
            PathModifier::Full(path) => (PathModifierType::ReplaceFullPath, Some(path), None),
            PathModifier::Prefix(path) => (PathModifierType::ReplacePrefixMatch, None, Some(path)),
        };
        RawPathModifier { kind, replace_full_path, replace_prefix_match }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "HTTPRouteFilter")]
struct RawHttpFilter {
    /// Says which of the members below is set. ExternalAuth and ExtensionRef are not available yet.
    #[serde(rename = "type")]
    kind: HttpFilterType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_header_modifier: Option<HeaderModifier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_header_modifier: Option<HeaderModifier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_mirror: Option<Mirror>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_redirect: Option<Redirect>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url_rewrite: Option<UrlRewrite>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cors: Option<Cors>,
    /// Not available yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_auth: Option<NotYet>,
    /// Not available yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension_ref: Option<NotYet>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
enum HttpFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
}

impl TryFrom<RawHttpFilter> for HttpFilter {
    type Error = String;

    fn try_from(raw: RawHttpFilter) -> Result<HttpFilter, String> {
        let members = [
            ("requestHeaderModifier", raw.request_header_modifier.is_some()),
            ("responseHeaderModifier", raw.response_header_modifier.is_some()),
            ("requestMirror", raw.request_mirror.is_some()),
            ("requestRedirect", raw.request_redirect.is_some()),
            ("urlRewrite", raw.url_rewrite.is_some()),
            ("cors", raw.cors.is_some()),
        ];
        match raw.kind {
            HttpFilterType::RequestHeaderModifier => {
                let edits = raw.request_header_modifier;
                chosen("RequestHeaderModifier", "requestHeaderModifier", edits, &members)
                    .map(HttpFilter::RequestHeaderModifier)
            }
            HttpFilterType::ResponseHeaderModifier => {
                let edits = raw.response_header_modifier;
                chosen("ResponseHeaderModifier", "responseHeaderModifier", edits, &members)
                    .map(HttpFilter::ResponseHeaderModifier)
            }
            HttpFilterType::RequestMirror => {
                chosen("RequestMirror", "requestMirror", raw.request_mirror, &members)
                    .map(HttpFilter::RequestMirror)
            }
            HttpFilterType::RequestRedirect => {
                chosen("RequestRedirect", "requestRedirect", raw.request_redirect, &members)
                    .map(HttpFilter::RequestRedirect)
            }
            HttpFilterType::UrlRewrite => {
                chosen("URLRewrite", "urlRewrite", raw.url_rewrite, &members).map(HttpFilter::UrlRewrite)
            }
            HttpFilterType::Cors => chosen("CORS", "cors", raw.cors, &members).map(HttpFilter::Cors),
            HttpFilterType::ExternalAuth | HttpFilterType::ExtensionRef => {
                Err(member_error("type", format!("{:?} {NOT_YET}", raw.kind)))
            }
        }
    }
}

impl From<HttpFilter> for RawHttpFilter {
    fn from(typed: HttpFilter) -> RawHttpFilter {
        let mut raw = RawHttpFilter {
            kind: HttpFilterType::RequestHeaderModifier,
            request_header_modifier: None,
            response_header_modifier: None,
            request_mirror: None,
            request_redirect: None,
            url_rewrite: None,
            cors: None,
            external_auth: None,
            extension_ref: None,
        };
        match typed {
            HttpFilter::RequestHeaderModifier(edits) => raw.request_header_modifier = Some(edits),
            HttpFilter::ResponseHeaderModifier(edits) => {
                raw.kind = HttpFilterType::ResponseHeaderModifier;
                raw.response_header_modifier = Some(edits);
            }
            HttpFilter::RequestMirror(mirror) => {
                raw.kind = HttpFilterType::RequestMirror;
                raw.request_mirror = Some(mirror);
            }
            HttpFilter::RequestRedirect(redirect) => {
                raw.kind = HttpFilterType::RequestRedirect;
                raw.request_redirect = Some(redirect);
            }
            HttpFilter::UrlRewrite(rewrite) => {
                raw.kind = HttpFilterType::UrlRewrite;
                raw.url_rewrite = Some(rewrite);
            }
            HttpFilter::Cors(cors) => {
                raw.kind = HttpFilterType::Cors;
                raw.cors = Some(cors);
            }
        }
        raw
    }
}
