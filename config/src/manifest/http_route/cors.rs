//! Answers to cross-origin requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::{CorsMaxAge, HeaderName, Origin};

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
