//! Routes as the registry knows them: every kind lowered to what it does, references still by name.
//!
//! HTTPRoute and GRPCRoute become the same thing here, since a gRPC method is a path; TCPRoute and TLSRoute another.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::model::{
    Cors, Fraction, HeaderEdits, HostPattern, Origin, PathMatch, PathRewrite, Retry, RouteMatch, ServiceRef,
};
use crate::resolve::precedence::{RouteRank, Seniority};

/// The kinds of route, in the order in which one of them goes before the others on the same port of a Service (GEP-1426,
/// "Route types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    Grpc,
    Http,
    Tls,
    Tcp,
}

impl RouteKind {
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Http, Self::Tls, Self::Tcp];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub kind: RouteKind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub seniority: Seniority,
    pub parents: Vec<Parent>,
    /// Empty means every host; always so for TCPRoute.
    pub hostnames: Vec<HostPattern>,
    pub rules: Vec<Rule>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    pub target: ParentTarget,
    pub section: Option<Arc<str>>,
    pub port: Option<u16>,
    /// `spec.parentRefs[0]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParentTarget {
    Service(ServiceRef),
    /// Namespace and name.
    Gateway(Arc<str>, Arc<str>),
    /// Another implementation's.
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Option<Arc<str>>,
    /// At least one; TCP and TLS rules have one that matches everything.
    pub matches: Vec<Match>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub cors: Option<Cors>,
    pub mirrors: Vec<Mirror>,
    pub timeouts: InlineTimeouts,
    pub retry: Option<Arc<Retry>>,
    pub redirect: Option<Redirect>,
    pub rewrite: Rewrite,
    pub backends: Vec<Backend>,
    /// `spec.rules[0]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub matches: RouteMatch,
    pub rank: RouteRank,
    /// `spec.rules[0].matches[1]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub to: BackendRef,
    /// 0 to 1,000,000
    pub weight: u32,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub rewrite: Option<Rewrite>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BackendRef {
    pub to: BackendTo,
    /// `spec.rules[0].backendRefs[1]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum BackendTo {
    Service {
        service: ServiceRef,
        port: u16,
    },
    /// Of a kind that is not known here.
    Unknown {
        group: Arc<str>,
        kind: Arc<str>,
        namespace: Arc<str>,
        name: Arc<str>,
    },
}

impl BackendRef {
    pub fn service(&self) -> Option<&ServiceRef> {
        match &self.to {
            BackendTo::Service { service, .. } => Some(service),
            BackendTo::Unknown { .. } => None,
        }
    }
}

/// The `timeouts` of a rule: what it sets, `Some(None)` being no limit (`0s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InlineTimeouts {
    pub request: Option<Option<Duration>>,
    pub backend_request: Option<Option<Duration>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub status: StatusCode,
    pub scheme: Option<Arc<str>>,
    pub host: Option<Arc<str>>,
    pub port: Option<u16>,
    pub path: Option<PathEdit>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rewrite {
    pub host: Option<Arc<str>>,
    pub path: Option<PathEdit>,
}

/// A change of the path, before it is known which match it goes with.
#[derive(Clone, Debug, PartialEq)]
pub enum PathEdit {
    Full(Arc<str>),
    Prefix(Arc<str>),
}

impl PathEdit {
    /// `None` for a prefix that no prefix was matched for; manifests that ask for it are refused.
    fn after(&self, matched: &PathMatch) -> Option<PathRewrite> {
        match (self, matched) {
            (Self::Full(path), _) => Some(PathRewrite::Full(path.clone())),
            (Self::Prefix(replacement), PathMatch::Prefix(matched)) => {
                Some(PathRewrite::Prefix { matched: matched.clone(), replacement: replacement.clone() })
            }
            (Self::Prefix(_), PathMatch::Exact(_) | PathMatch::Regex(_)) => None,
        }
    }
}

impl Redirect {
    pub fn after(&self, matched: &PathMatch) -> crate::model::Redirect {
        crate::model::Redirect {
            status: self.status,
            scheme: self.scheme.clone(),
            host: self.host.clone(),
            port: self.port,
            path: self.path.as_ref().and_then(|path| path.after(matched)),
        }
    }
}

impl Rewrite {
    pub fn after(&self, matched: &PathMatch) -> crate::model::Rewrite {
        crate::model::Rewrite {
            host: self.host.clone(),
            path: self.path.as_ref().and_then(|path| path.after(matched)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub to: BackendRef,
    pub fraction: Fraction,
}

impl Route {
    /// What stands in the `route` label: `NAME`, or `NAME/RULE` for a named rule.
    pub fn label(&self, rule: &Rule) -> Arc<str> {
        match &rule.name {
            None => self.name.clone(),
            Some(rule) => format!("{}/{rule}", self.name).into(),
        }
    }

    /// Every Service this route sends anything to.
    pub fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        self.rules.iter().flat_map(|rule| {
            rule.backends
                .iter()
                .map(|backend| &backend.to)
                .chain(rule.mirrors.iter().map(|mirror| &mirror.to))
        })
    }
}
