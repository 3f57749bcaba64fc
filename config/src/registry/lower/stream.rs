//! TCPRoute and TLSRoute: one rule, nothing to match but the server name.

use crate::manifest::stream_route::{StreamRule, TcpRoute, TlsRoute};
use crate::model::{PathMatch, RouteMatch};
use crate::registry::route::{Backend, InlineTimeouts, Match, Rewrite, Route, RouteKind, Rule};
use crate::resolve::precedence::RouteRank;

use super::Identity;
use super::route::{backend, hostnames, parents, rule_field};

pub(in crate::registry) fn tcp_route(id: &Identity<'_>, manifest: &TcpRoute) -> Route {
    Route {
        kind: RouteKind::Tcp,
        namespace: id.namespace.clone(),
        name: id.name(),
        seniority: id.seniority(),
        parents: parents(id, &manifest.spec.parent_refs),
        hostnames: vec![],
        rules: rules(id, &manifest.spec.rules),
        origin: id.origin(),
    }
}

pub(in crate::registry) fn tls_route(id: &Identity<'_>, manifest: &TlsRoute) -> Route {
    Route {
        kind: RouteKind::Tls,
        namespace: id.namespace.clone(),
        name: id.name(),
        seniority: id.seniority(),
        parents: parents(id, &manifest.spec.parent_refs),
        hostnames: hostnames(&manifest.spec.hostnames),
        rules: rules(id, &manifest.spec.rules),
        origin: id.origin(),
    }
}

fn rules(id: &Identity<'_>, manifests: &[StreamRule]) -> Vec<Rule> {
    let rule = |(i, manifest): (usize, &StreamRule)| {
        let field = rule_field(i);
        let everything =
            RouteMatch { path: PathMatch::prefix("/"), method: None, headers: vec![], query: vec![] };
        let rank = RouteRank::http(&everything, id.seniority(), i, 0);
        Rule {
            name: manifest.name.as_ref().map(|name| name.shared()),
            matches: vec![Match { matches: everything, rank, field: field.clone() }],
            request_headers: Default::default(),
            response_headers: Default::default(),
            cors: None,
            mirrors: vec![],
            timeouts: InlineTimeouts::default(),
            retry: None,
            redirect: None,
            rewrite: Rewrite::default(),
            backends: manifest
                .backend_refs
                .iter()
                .enumerate()
                .map(|(j, reference)| Backend {
                    weight: reference.weight.get(),
                    request_headers: Default::default(),
                    response_headers: Default::default(),
                    rewrite: None,
                    to: backend(id, reference, format!("{field}.backendRefs[{j}]")),
                })
                .collect(),
            field,
        }
    };
    manifests.iter().enumerate().map(rule).collect()
}
