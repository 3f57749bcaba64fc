//! Which requests a rule is for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::decode::member_error;
use crate::manifest::path::FieldPath;
use crate::manifest::route::{HeaderMatch, ValueMatch, ValueMatchType, value_match};
use crate::manifest::value::{HttpMethod, QueryName, RequestPath, pattern};
use crate::model::Pattern;

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

impl Check for HttpMatch {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let (headers, query) = (at.key("headers"), at.key("queryParams"));
        findings.at_most(&headers, self.headers.len(), 16);
        findings.unique(&headers, &self.headers, "name", |header| Some(header.name.clone()));
        findings.at_most(&query, self.query_params.len(), 16);
        findings.unique(&query, &self.query_params, "name", |param| Some(param.name.clone()));
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
