//! Of a route.

use prost::{Enumeration, Message};

use super::{Caps, Origin};
use crate::model;
use crate::xds::{faults, pb};

/// On a route.
#[derive(Clone, PartialEq, Message)]
pub struct Route {
    #[prost(message, optional, tag = "1")]
    pub origin: Option<Origin>,
    /// What the route forwards to where no request can get there (no backend, no weight), which Envoy has no words for; on a
    /// redirect its mirrors and timeouts.
    #[prost(message, optional, tag = "2")]
    pub action: Option<pb::route::RouteAction>,
    /// Rewrites of path or host that Envoy does in another way.
    #[prost(message, optional, tag = "3")]
    pub rewrite: Option<Rewrite>,
    #[prost(message, repeated, tag = "4")]
    pub backends: Vec<Backend>,
    #[prost(message, optional, tag = "5")]
    pub retry: Option<Retry>,
    #[prost(message, optional, tag = "6")]
    pub caps: Option<Caps>,
    /// All of it: Envoy's filter says only a part.
    #[prost(message, optional, tag = "7")]
    pub faults: Option<faults::Faults>,
}

/// All of it, in our words: beside it, Envoy's policy says only a part.
#[derive(Clone, PartialEq, Message)]
pub struct Retry {
    #[prost(uint32, tag = "1")]
    pub attempts: u32,
    /// `model::RetryOn::word`
    #[prost(string, repeated, tag = "2")]
    pub on: Vec<String>,
    #[prost(uint32, repeated, tag = "3")]
    pub statuses: Vec<u32>,
    #[prost(message, repeated, tag = "4")]
    pub headers: Vec<pb::route::HeaderMatcher>,
    #[prost(enumeration = "RetryMethods", tag = "5")]
    pub methods: i32,
    #[prost(string, repeated, tag = "6")]
    pub listed_methods: Vec<String>,
    #[prost(message, optional, tag = "7")]
    pub backoff_base: Option<pb::Duration>,
    #[prost(message, optional, tag = "8")]
    pub backoff_max: Option<pb::Duration>,
    /// Millionths.
    #[prost(uint32, tag = "9")]
    pub budget_share: u32,
    #[prost(uint32, tag = "10")]
    pub budget_per_second: u32,
    #[prost(message, optional, tag = "11")]
    pub budget_interval: Option<pb::Duration>,
    #[prost(message, optional, tag = "12")]
    pub max_retry_after: Option<pb::Duration>,
    #[prost(bool, tag = "13")]
    pub of_retries: bool,
    #[prost(message, optional, tag = "14")]
    pub hedge_after: Option<pb::Duration>,
    /// Millionths; 0 for none.
    #[prost(uint32, tag = "15")]
    pub hedge_percentile: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RetryMethods {
    Idempotent = 0,
    Any = 1,
    Listed = 2,
}

/// What a weighted cluster leaves open.
#[derive(Clone, PartialEq, Message)]
pub struct Backend {
    /// Which of the weighted clusters.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// Why its reference could not be resolved.
    #[prost(string, optional, tag = "2")]
    pub invalid: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub rewrite: Option<Rewrite>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Rewrite {
    #[prost(string, optional, tag = "1")]
    pub host: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub full_path: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub prefix: Option<PrefixRewrite>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PrefixRewrite {
    #[prost(string, tag = "1")]
    pub matched: String,
    #[prost(string, tag = "2")]
    pub replacement: String,
}

impl From<&model::Rewrite> for Rewrite {
    fn from(rewrite: &model::Rewrite) -> Self {
        let (full_path, prefix) = match &rewrite.path {
            None => (None, None),
            Some(model::PathRewrite::Full(path)) => (Some(path.to_string()), None),
            Some(model::PathRewrite::Prefix { matched, replacement }) => {
                let prefix =
                    PrefixRewrite { matched: matched.to_string(), replacement: replacement.to_string() };
                (None, Some(prefix))
            }
        };
        Self { host: rewrite.host.as_deref().map(Into::into), full_path, prefix }
    }
}

impl From<Rewrite> for model::Rewrite {
    fn from(rewrite: Rewrite) -> Self {
        let prefix = rewrite.prefix.map(|prefix| model::PathRewrite::Prefix {
            matched: prefix.matched.into(),
            replacement: prefix.replacement.into(),
        });
        let path = rewrite.full_path.map(|path| model::PathRewrite::Full(path.into())).or(prefix);
        Self { host: rewrite.host.map(Into::into), path }
    }
}
