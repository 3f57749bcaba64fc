//! A route table as the proxy runs on it: handles instead of names, an index instead of a scan.
//!
//! Owns the lookup. [`Table::find`] answers what `model::RouteTable::find` answers, in time that does not grow with the number of
//! routes where they match by exact path or prefix. Routes of one virtual host keep their order: the first match wins.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use outrigger_config::model::{
    self, BackendTarget, ClusterName, Fraction, HashOn, HeaderEdits, HostPattern, Origin, PathMatch,
    RequestHead, RouteMatch, RouteTableName, Timeouts,
};
use smallvec::SmallVec;

use super::cors::Cors;
use super::{Rewrite, Split};
use crate::policy::fault::Faults;
use crate::policy::retry::RetryPolicy;
use crate::telemetry::{Attempts, RouteMetrics};
use crate::upstream::{Cluster, RouteLimits};

/// The keys are the configuration's, never a request's: a fast hash cannot be attacked.
type Index<V> = HashMap<Box<str>, V, RandomState>;

#[derive(Debug)]
pub struct Table {
    pub name: RouteTableName,
    hosts: Hosts,
}

#[derive(Debug, Default)]
struct Hosts {
    /// Names in lower case.
    exact: Index<Arc<Routes>>,
    /// `.example.com`, in lower case; the longest first.
    suffixes: Vec<(Box<str>, Arc<Routes>)>,
    any: Option<Arc<Routes>>,
}

/// The routes of one virtual host, in order, and where to look for the one that matches.
#[derive(Debug, Default)]
struct Routes {
    routes: Vec<Arc<Route>>,
    paths: Option<Paths>,
}

/// Positions of routes by the path they match, each list in order.
#[derive(Debug, Default)]
struct Paths {
    exact: Index<Vec<u32>>,
    prefix: Index<Vec<u32>>,
    /// What has to be tried in any case: regular expressions, and the prefix `/`.
    other: Vec<u32>,
}

#[derive(Debug)]
pub struct Route {
    /// Stands in the `route` label.
    pub name: Arc<str>,
    pub metrics: Arc<RouteMetrics>,
    /// Shared with the records of its exchanges.
    pub origin: Arc<Origin>,
    /// `None` matches every request, also those without a path (`CONNECT`, `OPTIONS *`).
    pub matches: Option<RouteMatch>,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
    pub cors: Option<Cors>,
    pub mirrors: Vec<Mirror>,
    pub timeouts: Timeouts,
    pub retry: Option<RetryPolicy>,
    /// Of its own, beside those of the clusters it leads to.
    pub caps: Option<Arc<RouteLimits>>,
    /// What goes wrong on purpose.
    pub faults: Option<Arc<Faults>>,
    /// What requests are hashed by, where their cluster does not say it.
    pub hash: Vec<HashOn>,
    pub action: Action,
}

#[derive(Debug)]
pub enum Action {
    Forward(Forward),
    Redirect(model::Redirect),
}

#[derive(Debug)]
pub struct Forward {
    pub backends: Vec<Backend>,
    pub split: Split,
}

#[derive(Debug)]
pub struct Backend {
    pub target: Target,
    /// Applied after the route's own.
    pub request_headers: HeaderEdits,
    /// Applied before the route's own.
    pub response_headers: HeaderEdits,
    /// The backend's own, or else the route's.
    pub rewrite: Rewrite,
}

#[derive(Clone, Debug)]
pub enum Target {
    Cluster(Upstream),
    /// Answered with 500 `backend_invalid` and this reason in the log.
    Invalid(Arc<str>),
}

/// A cluster with the handles its attempts are counted by.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub cluster: Arc<Cluster>,
    pub attempts: Arc<Attempts>,
}

#[derive(Debug)]
pub struct Mirror {
    pub upstream: Upstream,
    pub fraction: Fraction,
}

/// Up to this many routes a scan is faster than an index.
const SCANNED: usize = 8;

impl Table {
    /// `upstream` gives the live handles of a cluster's name, `metrics` those of a route, `faults` those of an experiment.
    pub fn compile(
        model: &model::RouteTable,
        mut upstream: impl FnMut(&ClusterName) -> Upstream,
        mut metrics: impl FnMut(&model::Route) -> Arc<RouteMetrics>,
        mut faults: impl FnMut(&model::Route) -> Option<Arc<Faults>>,
    ) -> Self {
        let mut hosts = Hosts::default();
        for host in &model.hosts {
            let routes = host.routes.iter().map(|route| {
                Arc::new(Route {
                    faults: faults(route),
                    ..Route::compile(route, &mut upstream, &mut metrics)
                })
            });
            let routes = Arc::new(Routes::index(routes.collect()));
            for domain in &host.domains {
                match domain {
                    HostPattern::Any => hosts.any = Some(routes.clone()),
                    HostPattern::Exact(name) => {
                        hosts.exact.insert(name.to_ascii_lowercase().into(), routes.clone());
                    }
                    HostPattern::Suffix(suffix) => {
                        hosts.suffixes.push((suffix.to_ascii_lowercase().into(), routes.clone()));
                    }
                }
            }
        }
        hosts.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Self { name: model.name.clone(), hosts }
    }

    /// A table whose one route sends every request to one cluster: to the app behind an inbound port, or out of the mesh.
    pub fn forwarding(
        name: RouteTableName,
        upstream: Upstream,
        metrics: Arc<RouteMetrics>,
        origin: Origin,
        faults: Option<Arc<Faults>>,
    ) -> Self {
        let route = Route {
            name: metrics.route.clone(),
            metrics,
            origin: Arc::new(origin),
            matches: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            cors: None,
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            caps: None,
            faults,
            hash: Vec::new(),
            action: Action::Forward(Forward {
                split: Split::new([1]),
                backends: vec![Backend {
                    target: Target::Cluster(upstream),
                    request_headers: HeaderEdits::default(),
                    response_headers: HeaderEdits::default(),
                    rewrite: Rewrite::default(),
                }],
            }),
        };
        let routes = Routes { routes: vec![Arc::new(route)], paths: None };
        Self { name, hosts: Hosts { any: Some(Arc::new(routes)), ..Hosts::default() } }
    }

    /// The route that takes the request.
    pub fn find(&self, request: &RequestHead<'_>) -> Option<&Arc<Route>> {
        self.hosts.find(request.host)?.find(request)
    }
}

impl Hosts {
    fn find(&self, host: &str) -> Option<&Routes> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return self.any.as_deref();
        }
        let lower: SmallVec<[u8; 128]> = host.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
        let lower = str::from_utf8(&lower).unwrap_or(host);
        let below = || {
            let suffix = self.suffixes.iter().find(|(suffix, _)| {
                lower.len() > suffix.len() && lower.as_bytes().ends_with(suffix.as_bytes())
            });
            suffix.map(|(_, routes)| routes)
        };
        self.exact.get(lower).or_else(below).or(self.any.as_ref()).map(Arc::as_ref)
    }
}

impl Routes {
    fn index(routes: Vec<Arc<Route>>) -> Self {
        if routes.len() <= SCANNED {
            return Self { routes, paths: None };
        }
        let mut paths = Paths::default();
        for (position, route) in (0_u32..).zip(&routes) {
            match route.matches.as_ref().map(|matches| &matches.path) {
                Some(PathMatch::Exact(path)) => {
                    paths.exact.entry((**path).into()).or_default().push(position)
                }
                Some(PathMatch::Prefix(prefix)) if &**prefix != "/" => {
                    paths.prefix.entry((**prefix).into()).or_default().push(position);
                }
                Some(PathMatch::Prefix(_) | PathMatch::Regex(_)) | None => paths.other.push(position),
            }
        }
        Self { routes, paths: Some(paths) }
    }

    fn find(&self, request: &RequestHead<'_>) -> Option<&Arc<Route>> {
        let Some(paths) = &self.paths else {
            return self.routes.iter().find(|route| route.matches(request));
        };
        let mut best: Option<u32> = None;
        let mut consider = |positions: &[u32]| {
            let earlier = positions.iter().take_while(|position| best.is_none_or(|best| **position < best));
            for position in earlier {
                if self.routes[*position as usize].matches(request) {
                    best = Some(*position);
                    break;
                }
            }
        };
        if let Some(positions) = paths.exact.get(request.path) {
            consider(positions);
        }
        // Every prefix of whole segments, the longest first, as it is usually the one with precedence.
        let mut prefix = request.path;
        while !prefix.is_empty() {
            if let Some(positions) = paths.prefix.get(prefix) {
                consider(positions);
            }
            prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
        }
        consider(&paths.other);
        best.map(|position| &self.routes[position as usize])
    }
}

impl Route {
    fn matches(&self, request: &RequestHead<'_>) -> bool {
        self.matches.as_ref().is_none_or(|matches| matches.matches(request))
    }

    fn compile(
        model: &model::Route,
        upstream: &mut impl FnMut(&ClusterName) -> Upstream,
        metrics: &mut impl FnMut(&model::Route) -> Arc<RouteMetrics>,
    ) -> Self {
        let action = match &model.action {
            model::Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
            model::Action::Forward(forward) => Action::Forward(Forward {
                split: Split::new(forward.backends.iter().map(|backend| backend.weight)),
                backends: forward
                    .backends
                    .iter()
                    .map(|backend| Backend {
                        target: match &backend.target {
                            BackendTarget::Cluster(name) => Target::Cluster(upstream(name)),
                            BackendTarget::Invalid(reason) => Target::Invalid(reason.clone()),
                        },
                        request_headers: backend.request_headers.clone(),
                        response_headers: backend.response_headers.clone(),
                        rewrite: Rewrite::compile(backend.rewrite.as_ref().unwrap_or(&forward.rewrite)),
                    })
                    .collect(),
            }),
        };
        let mirrors = model.mirrors.iter();
        Self {
            metrics: metrics(model),
            name: model.name.clone(),
            origin: Arc::new(model.origin.clone()),
            matches: Some(model.matches.clone()),
            request_headers: model.request_headers.clone(),
            response_headers: model.response_headers.clone(),
            cors: model.cors.as_ref().map(Cors::compile),
            mirrors: mirrors
                .map(|mirror| Mirror { upstream: upstream(&mirror.cluster), fraction: mirror.fraction })
                .collect(),
            timeouts: model.timeouts,
            retry: model.retry.clone().map(RetryPolicy::compile),
            caps: model.caps.clone().map(RouteLimits::new),
            faults: None,
            hash: model.hash.clone(),
            action,
        }
    }
}

#[cfg(test)]
mod tests;
