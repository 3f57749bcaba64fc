//! Route tables of destinations: the rules of every route attached to one port of a Service, in order of precedence.

use std::sync::Arc;

use crate::model::{
    Action, Backend, BackendTarget, ClusterName, Forward, HeaderEdits, HostPattern, Mirror, Origin,
    PathMatch, Retry, Rewrite, Route, RouteMatch, RouteTable, Timeouts, VirtualHost,
};
use crate::registry::{self, Registry, RouteKind, Service};

use super::Subscriber;
use super::destination::{Found, table_name};
use super::policy::{Call, Callee};
use super::precedence::RouteRank;

impl Registry {
    pub(super) fn route_table(&self, who: &Subscriber, name: &str) -> Option<RouteTable> {
        if name.starts_with("gateway|") {
            return self.gateway_route_table(who, name);
        }
        let mut parts = name.strip_prefix("outbound|")?.split('|');
        let (port, host) = (parts.next()?.parse().ok()?, parts.next()?);
        let canonical = table_name(port, host);
        if canonical.as_str() != name {
            return None;
        }
        let routes = match self.find_host(host, port)? {
            Found::Service { service, port, .. } => self.service_routes(who, service, port),
            Found::Instance { instance, .. } => vec![default_route(port, host, instance.origin.clone())],
        };
        Some(RouteTable {
            name: canonical,
            hosts: vec![VirtualHost { domains: vec![HostPattern::Any], routes }],
        })
    }

    fn service_routes(&self, who: &Subscriber, service: &Service, port: u16) -> Vec<Route> {
        let to = Callee::Service { service: &service.id, port };
        let effective = self.effective_routes(service, port, who.namespace());
        let Some(effective) = effective.filter(|e| matches!(e.kind, RouteKind::Http | RouteKind::Grpc))
        else {
            let call = Call { caller: who.namespace(), to, by: None };
            let (timeouts, retry) = self.patience(&call);
            let faults = self.callers_faults(&call);
            let origin = match service.port(port) {
                Some(declared) => service.origin.at(&declared.field),
                None => service.origin.clone(),
            };
            let mut hash = Vec::new();
            self.add_hash(who, &service.id, port, &mut hash);
            return vec![Route {
                timeouts,
                retry,
                faults,
                hash,
                ..default_route(port, &service.host, origin)
            }];
        };
        let mut ranked: Vec<_> =
            effective.routes.iter().flat_map(|route| self.ranked(who, route, to)).collect();
        ranked.sort_by(|a, b| a.0.cmp(b.0));
        ranked.into_iter().map(|(_, route)| route).collect()
    }

    /// Every match of every rule as a route of its own.
    pub(super) fn ranked<'r>(
        &self,
        who: &Subscriber,
        route: &'r registry::Route,
        to: Callee<'_>,
    ) -> Vec<(&'r RouteRank, Route)> {
        let mut found = Vec::new();
        for rule in &route.rules {
            let call = Call { caller: who.namespace(), to, by: Some((route, rule)) };
            let (timeouts, retry) = self.patience(&call);
            let caps = self.route_caps(&call);
            let faults = self.callers_faults(&call);
            let hash = self.hash(who, &rule.backends);
            let in_mesh = matches!(to, Callee::Service { .. });
            for matched in &rule.matches {
                let lowered = Route {
                    name: route.label(rule),
                    origin: route.origin.at(&matched.field),
                    matches: matched.matches.clone(),
                    request_headers: rule.request_headers.clone(),
                    response_headers: rule.response_headers.clone(),
                    cors: rule.cors.clone(),
                    mirrors: self.mirrors(route, rule, in_mesh),
                    timeouts,
                    retry: retry.clone(),
                    caps: caps.clone(),
                    faults: faults.clone(),
                    hash: hash.clone(),
                    action: self.action(route, rule, &matched.matches.path, in_mesh),
                };
                found.push((&matched.rank, lowered));
            }
        }
        found
    }

    /// How long an exchange may take, and what is tried again meanwhile.
    fn patience(&self, call: &Call<'_>) -> (Timeouts, Option<Arc<Retry>>) {
        let timeouts = self.timeouts(call).section().map(|section| section.exchange).unwrap_or_default();
        (timeouts, self.retries(call).section().cloned())
    }

    fn action(
        &self,
        route: &registry::Route,
        rule: &registry::Rule,
        path: &PathMatch,
        in_mesh: bool,
    ) -> Action {
        if let Some(redirect) = &rule.redirect {
            return Action::Redirect(redirect.after(path));
        }
        let backend = |backend: &registry::Backend| Backend {
            target: match self.backend(route, &backend.to, in_mesh) {
                Ok(cluster) => BackendTarget::Cluster(cluster),
                Err(problem) => BackendTarget::Invalid(problem.to_string().into()),
            },
            weight: backend.weight,
            request_headers: backend.request_headers.clone(),
            response_headers: backend.response_headers.clone(),
            rewrite: backend.rewrite.as_ref().map(|rewrite| rewrite.after(path)),
        };
        Action::Forward(Forward {
            backends: rule.backends.iter().map(backend).collect(),
            rewrite: rule.rewrite.after(path),
        })
    }

    /// A mirror that leads nowhere is left out (Gateway API `HTTPRequestMirrorFilter.backendRef`).
    fn mirrors(&self, route: &registry::Route, rule: &registry::Rule, in_mesh: bool) -> Vec<Mirror> {
        rule.mirrors
            .iter()
            .filter_map(|mirror| {
                let cluster = self.backend(route, &mirror.to, in_mesh).ok()?;
                Some(Mirror { cluster, fraction: mirror.fraction })
            })
            .collect()
    }
}

/// Where no route is attached, everything goes to the Service or the instance itself.
fn default_route(port: u16, host: &str, origin: Origin) -> Route {
    let backend = Backend {
        target: BackendTarget::Cluster(ClusterName::outbound(port, "", host)),
        weight: 1,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        rewrite: None,
    };
    Route {
        name: "default".into(),
        origin,
        matches: RouteMatch { path: PathMatch::prefix("/"), method: None, headers: vec![], query: vec![] },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        mirrors: vec![],
        timeouts: Default::default(),
        retry: None,
        caps: None,
        faults: None,
        hash: vec![],
        action: Action::Forward(Forward { backends: vec![backend], rewrite: Rewrite::default() }),
    }
}
