//! The words of HTTP and gRPC routes.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Pattern;
use crate::model::pattern::PATTERN_LIMIT;

use super::name::is_subdomain;
use super::{Checked, fits, quoted, text_value};

text_value! {
    /// A host name, possibly with `*` as its whole first label.
    Hostname,
    "a host name (lower case, no port, not an IP address; * only as the whole first label)",
    { "pattern": "^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "maxLength": 253 },
    |text| hostname(text.strip_prefix("*.").unwrap_or(text), text.len())
}

impl Hostname {
    /// What follows `*.`, if this is a wildcard.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.strip_prefix("*.")
    }
}

text_value! {
    /// A host name without a wildcard.
    PreciseHostname,
    "a host name (lower case, no port, no *, not an IP address)",
    { "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "maxLength": 253 },
    |text| hostname(text, text.len())
}

text_value! {
    /// A path to match or to write: absolute and unambiguous, as the Gateway API requires.
    RequestPath,
    "a path (beginning with /, at most 1024 characters)",
    { "pattern": "^/", "maxLength": 1024 },
    path
}

text_value! {
    /// What a matched path prefix is replaced with; the empty text removes it.
    PathReplacement,
    "empty, or a path (beginning with /, at most 1024 characters)",
    { "pattern": "^(/.*)?$", "maxLength": 1024 },
    |text| if text.is_empty() { Ok(()) } else { path(text) }
}

text_value! {
    /// The name of a header field, in lower case.
    LowerHeaderName,
    "a header name",
    { "pattern": "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$", "minLength": 1, "maxLength": 256 },
    |text| fits(is_header_name(text))
}

text_value! {
    /// A header field's value: visible ASCII, with spaces and tabs inside (RFC 9110 section 5.5).
    HeaderValue,
    "a header value (1 to 4096 characters of visible ASCII, spaces and tabs only between them)",
    { "pattern": "^[!-~]([\t -~]*[!-~])?$", "minLength": 1, "maxLength": 4096 },
    |text| fits((1..=4096).contains(&text.len()) && is_field_value(text))
}

text_value! {
    /// The name of a query parameter, compared as it is after percent-decoding. Its characters are those of a header name,
    /// as the Gateway API has it.
    QueryName,
    "a query parameter's name (1 to 256 of A-Z, a-z, 0-9 and !#$%&'*+-.^_`|~)",
    { "pattern": "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$", "minLength": 1, "maxLength": 256 },
    |text| fits(is_header_name(text))
}

text_value! {
    /// The name of a cookie (RFC 6265 section 4.1.1), which case is a part of.
    CookieName,
    "a cookie's name (1 to 256 of A-Z, a-z, 0-9 and !#$%&'*+-.^_`|~)",
    { "pattern": "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$", "minLength": 1, "maxLength": 256 },
    |text| fits(is_header_name(text))
}

text_value! {
    /// A gRPC service with its package: `helloworld.Greeter`.
    GrpcServiceName,
    "a gRPC service such as helloworld.Greeter",
    { "pattern": "^\\.?[A-Za-z_][A-Za-z_0-9]*(\\.[A-Za-z_][A-Za-z_0-9]*)*$", "minLength": 1, "maxLength": 1024 },
    |text| fits(
        (1..=1024).contains(&text.len()) && text.strip_prefix('.').unwrap_or(text).split('.').all(is_identifier)
    )
}

text_value! {
    /// A gRPC method: `SayHello`.
    GrpcMethodName,
    "a gRPC method such as SayHello",
    { "pattern": "^[A-Za-z_][A-Za-z_0-9]*$", "minLength": 1, "maxLength": 1024 },
    |text| fits((1..=1024).contains(&text.len()) && is_identifier(text))
}

text_value! {
    /// An origin of a cross-origin request (RFC 6454), `*` for any, or with `*.` for the first label of its host.
    Origin,
    "an origin such as https://example.com or https://*.example.com:8443, or *",
    { "pattern": "^(\\*|https?://.+)$", "minLength": 1, "maxLength": 253 },
    |text| fits(is_origin(text))
}

/// The name of a header field. Compared without case: held in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HeaderName(LowerHeaderName);

impl HeaderName {
    /// What is accepted, in words.
    pub const ACCEPTED: &'static str = LowerHeaderName::ACCEPTED;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text itself.
    pub fn shared(&self) -> std::sync::Arc<str> {
        self.0.shared()
    }
}

impl TryFrom<&str> for HeaderName {
    type Error = super::Rejected;

    fn try_from(text: &str) -> Result<HeaderName, super::Rejected> {
        LowerHeaderName::try_from(text)?;
        LowerHeaderName::try_from(&*text.to_ascii_lowercase()).map(HeaderName)
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<HeaderName, D::Error> {
        let name = LowerHeaderName::deserialize(deserializer)?;
        HeaderName::try_from(name.as_str()).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for HeaderName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HeaderName".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        LowerHeaderName::json_schema(generator)
    }
}

impl std::ops::Deref for HeaderName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for HeaderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for HeaderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

/// The methods a route may match: those of the Gateway API. Case matters (RFC 9110 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Connect => "CONNECT",
            HttpMethod::Options => "OPTIONS",
            HttpMethod::Trace => "TRACE",
            HttpMethod::Patch => "PATCH",
        }
    }
}

/// The compiled form of a regular expression, in the `regex` crate's syntax; its bounds are the model's.
pub fn pattern(text: &str) -> Result<Pattern, String> {
    const MAX_LENGTH: usize = 4096;
    if text.is_empty() || text.len() > MAX_LENGTH {
        return Err(format!("a regular expression has 1 to {MAX_LENGTH} characters"));
    }
    // Alone first: `a)(b` must not become valid by the group that anchors it.
    if let Err(error) = regex::RegexBuilder::new(text).size_limit(PATTERN_LIMIT).build() {
        return Err(format!("{} is not a regular expression: {}", quoted(text), reason(&error)));
    }
    Pattern::new(text).map_err(|error| format!("{} is not accepted: {}", quoted(text), last_line(&error)))
}

fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
        error => last_line(&error.to_string()).to_owned(),
    }
}

/// The lines before the last draw the expression, which the message has already quoted.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

fn hostname(text: &str, whole_length: usize) -> Checked {
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err("an IP address is not accepted here".to_owned());
    }
    fits(whole_length <= 253 && is_subdomain(text) && text.split('.').all(|label| label.len() <= 63))
}

fn path(text: &str) -> Checked {
    if !text.starts_with('/') || text.chars().count() > 1024 {
        return Err(String::new());
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if text.contains(part) {
            return Err(format!("{part} must not be in it"));
        }
    }
    if text.ends_with("/..") || text.ends_with("/.") {
        return Err("it must not end with a dot segment".to_owned());
    }
    let escaped = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(escaped) {
        return Err("% must be followed by two hexadecimal digits".to_owned());
    }
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"/-._~!$&'()*+,;=:@%".contains(*c)) {
        Some(c) => Err(format!("{c:?} must be percent-encoded")),
        None => Ok(()),
    }
}

fn is_header_name(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether a text can be a header field's value, or be compared with one.
pub fn is_field_value(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))
        && text.trim_matches([' ', '\t']).len() == text.len()
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let scheme_fits = matches!(scheme, "http" | "https");
    let name = host.strip_prefix("*.").unwrap_or(host).to_ascii_lowercase();
    let host_fits = host == "*" || is_subdomain(&name);
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    text.len() <= 253 && scheme_fits && host_fits && port_fits
}
