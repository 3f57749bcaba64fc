//! Route tables: which request goes where, and what is changed on the way (Gateway API `HTTPRoute`, `GRPCRoute`).
//!
//! Routes stand in the order of their precedence, which the resolver decides: whoever evaluates a table takes the first match.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Serialize, Serializer};

use super::{
    ClusterName, Faults, HashOn, HostPattern, Origin, PathMatch, Retry, RouteCaps, RouteTableName,
    StringMatch,
};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteTable {
    pub name: RouteTableName,
    /// The most specific domain that matches the request's host decides. Inside a mesh destination there is one, for every host.
    pub hosts: Vec<VirtualHost>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VirtualHost {
    /// Each domain stands in one virtual host of the table only.
    pub domains: Vec<HostPattern>,
    /// First match wins.
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Route {
    /// Stands in the `route` label: `NAME`, or `NAME/RULE` for a named rule; `default` where no route object exists.
    pub name: Arc<str>,
    /// The match that decides, `HTTPRoute/default/reviews spec.rules[0].matches[1]`.
    pub origin: Origin,
    pub matches: RouteMatch,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub cors: Option<Cors>,
    pub mirrors: Vec<Mirror>,
    pub timeouts: Timeouts,
    /// `None`: only what certainly was not processed is sent again.
    pub retry: Option<Arc<Retry>>,
    /// Where a policy is attached to the route or the rule itself.
    pub caps: Option<Arc<RouteCaps>>,
    /// Put in by the caller.
    pub faults: Option<Arc<Faults>>,
    /// What a request's hash is made of, where its cluster goes by one and does not say itself.
    pub hash: Vec<HashOn>,
    pub action: Action,
}

/// All of it has to hold. Everything empty and the path `/` matches every request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteMatch {
    pub path: PathMatch,
    #[serde(serialize_with = "as_option_str")]
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeaderMatch {
    #[serde(serialize_with = "as_str")]
    pub name: HeaderName,
    /// Repeated header lines are compared joined with `,` (RFC 9110 §5.3).
    pub value: StringMatch,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueryMatch {
    pub name: Arc<str>,
    /// Of a parameter given more than once, the first is compared.
    pub value: StringMatch,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forward {
    /// One is drawn by weight for each request. Empty, or all weights 0: 500 `no_backend` (Gateway API `backendRefs`).
    pub backends: Vec<Backend>,
    pub rewrite: Rewrite,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    pub target: BackendTarget,
    /// 0 to 1,000,000; default 1.
    pub weight: u32,
    /// Applied after the route's own.
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    /// Overrides the route's where present.
    pub rewrite: Option<Rewrite>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum BackendTarget {
    Cluster(ClusterName),
    /// The reference could not be resolved: its share of the requests gets 500 `backend_invalid` (Gateway API), with this reason in the log.
    Invalid(Arc<str>),
}

/// Order: remove, set, add (the API leaves it open; a name given to two of them is refused at the manifest).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HeaderEdits {
    #[serde(serialize_with = "as_strs")]
    pub remove: Vec<HeaderName>,
    #[serde(serialize_with = "as_pairs")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    #[serde(serialize_with = "as_pairs")]
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rewrite {
    /// Replaces the authority; the app sees it as Host.
    pub host: Option<Arc<str>>,
    pub path: Option<PathRewrite>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PathRewrite {
    /// The whole path; the query stays.
    Full(Arc<str>),
    /// What the route's prefix matched; only on routes that match by prefix.
    Prefix { matched: Arc<str>, replacement: Arc<str> },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308; default 302.
    #[serde(serialize_with = "as_status")]
    pub status: StatusCode,
    /// `http` or `https`; absent keeps the request's.
    pub scheme: Option<Arc<str>>,
    pub host: Option<Arc<str>>,
    /// Absent: the well-known port of `scheme` if one is given, else the listener's (Gateway API `HTTPRequestRedirectFilter.port`).
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirror {
    pub cluster: ClusterName,
    pub fraction: Fraction,
}

/// A share of requests, in millionths. 0 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Fraction(u32);

impl Fraction {
    pub const ZERO: Self = Self(0);
    pub const ALL: Self = Self(1_000_000);
    pub const ONE_FIFTH: Self = Self(200_000);
    pub const HALF: Self = Self(500_000);
    pub const FOUR_FIFTHS: Self = Self(800_000);

    /// `None` where the share is over one or `denominator` is 0.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        (denominator != 0 && numerator <= denominator)
            .then(|| Self((u64::from(numerator) * 1_000_000 / u64::from(denominator)) as u32))
    }

    pub fn millionths(self) -> u32 {
        self.0
    }
}

/// Cross-origin answers of the proxy itself (Gateway API `HTTPCORSFilter`, Fetch standard).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cors {
    /// `*`, `https://example.com`, `https://*.example.com`
    pub allow_origins: Vec<Arc<str>>,
    pub allow_credentials: bool,
    /// `*` allowed.
    pub allow_methods: Vec<Arc<str>>,
    pub allow_headers: Vec<Arc<str>>,
    pub expose_headers: Vec<Arc<str>>,
    /// Default 5 s.
    pub max_age: Duration,
}

/// `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timeouts {
    /// The whole exchange, all attempts included; ends at the response's headers for streams and upgrades.
    pub request: Option<Duration>,
    /// One attempt; at most `request`.
    pub backend_request: Option<Duration>,
    /// Between two events of a stream or tunnel; `None` never ends one.
    pub stream_idle: Option<Duration>,
    /// The whole exchange to its last byte, streams and tunnels included.
    pub stream: Option<Duration>,
}

fn as_str<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

fn as_strs<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

fn as_pairs<S: Serializer>(pairs: &[(HeaderName, HeaderValue)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(n, v)| (n.as_str(), String::from_utf8_lossy(v.as_bytes()))))
}

fn as_option_str<S: Serializer>(method: &Option<Method>, serializer: S) -> Result<S::Ok, S::Error> {
    method.as_ref().map(Method::as_str).serialize(serializer)
}

fn as_status<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
