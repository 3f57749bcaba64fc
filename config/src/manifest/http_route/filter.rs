//! What is changed on the way, or answered instead.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::decode::member_error;
use crate::manifest::field::{NOT_YET, NotYet};
use crate::manifest::path::FieldPath;
use crate::manifest::route::{HeaderModifier, Mirror};
use crate::manifest::union::chosen;
use crate::manifest::value::{PathReplacement, Port, PreciseHostname, RedirectStatus};

use super::cors::Cors;

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

/// At most 16, each kind once but for mirrors, and not both a redirect and a rewrite.
pub(super) fn check_filters(at: &FieldPath, filters: &[HttpFilter], findings: &mut Findings) {
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
