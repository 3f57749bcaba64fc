//! HTTPRoute.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::manifest::http_route::{
    self, HttpFilter, HttpMatch, HttpPathMatch, HttpRoute, HttpRule, HttpTimeouts, PathModifier,
};
use crate::model::{Cors, PathMatch, QueryMatch, RouteMatch};
use crate::registry::route::{
    Backend, InlineTimeouts, Match, PathEdit, Redirect, Rewrite, Route, RouteKind, Rule,
};
use crate::resolve::precedence::RouteRank;

use super::Identity;
use super::retry;
use super::route::{backend, edits, header_matches, hostnames, mirror, parents, rule_field, string_match};

pub(in crate::registry) fn http_route(id: &Identity<'_>, manifest: &HttpRoute) -> Route {
    let spec = &manifest.spec;
    Route {
        kind: RouteKind::Http,
        namespace: id.namespace.clone(),
        name: id.name(),
        seniority: id.seniority(),
        parents: parents(id, &spec.parent_refs),
        hostnames: hostnames(&spec.hostnames),
        rules: spec.rules.iter().enumerate().map(|(i, rule)| lower_rule(id, i, rule)).collect(),
        origin: id.origin(),
    }
}

fn lower_rule(id: &Identity<'_>, index: usize, manifest: &HttpRule) -> Rule {
    let field = rule_field(index);
    let mut rule = Rule {
        name: manifest.name.as_ref().map(|name| name.shared()),
        matches: matches(id, index, &field, &manifest.matches),
        request_headers: Default::default(),
        response_headers: Default::default(),
        cors: None,
        mirrors: vec![],
        timeouts: manifest.timeouts.as_ref().map(timeouts).unwrap_or_default(),
        retry: manifest.retry.as_ref().map(|manifest| Arc::new(retry::inline(manifest))),
        redirect: None,
        rewrite: Rewrite::default(),
        backends: vec![],
        field: field.clone(),
    };
    for (i, filter) in manifest.filters.iter().enumerate() {
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => rule.request_headers = edits(modifier),
            HttpFilter::ResponseHeaderModifier(modifier) => rule.response_headers = edits(modifier),
            HttpFilter::RequestMirror(manifest) => {
                rule.mirrors.push(mirror(id, manifest, &format!("{field}.filters[{i}]")));
            }
            HttpFilter::RequestRedirect(manifest) => rule.redirect = Some(redirect(manifest)),
            HttpFilter::UrlRewrite(manifest) => rule.rewrite = rewrite(manifest),
            HttpFilter::Cors(manifest) => rule.cors = Some(cors(manifest)),
        }
    }
    for (i, manifest) in manifest.backend_refs.iter().enumerate() {
        let field = format!("{field}.backendRefs[{i}]");
        rule.backends.push(lower_backend(id, manifest, field));
    }
    rule
}

fn matches(id: &Identity<'_>, rule: usize, field: &Arc<str>, manifests: &[HttpMatch]) -> Vec<Match> {
    let lower = |index: usize, manifest: &HttpMatch, field: Arc<str>| {
        let matches = RouteMatch {
            path: match &manifest.path {
                HttpPathMatch::Exact(path) => PathMatch::Exact(path.shared()),
                HttpPathMatch::Prefix(path) => PathMatch::prefix(path),
                HttpPathMatch::Regex(pattern) => PathMatch::Regex(pattern.clone()),
            },
            method: manifest.method.map(|method| {
                Method::from_bytes(method.as_str().as_bytes()).expect("the methods of the API are tokens")
            }),
            headers: header_matches(&manifest.headers),
            query: manifest
                .query_params
                .iter()
                .map(|query| QueryMatch { name: query.name.shared(), value: string_match(&query.value) })
                .collect(),
        };
        let rank = RouteRank::http(&matches, id.seniority(), rule, index);
        Match { matches, rank, field }
    };
    if manifests.is_empty() {
        return vec![lower(0, &HttpMatch::default(), field.clone())];
    }
    manifests
        .iter()
        .enumerate()
        .map(|(i, manifest)| lower(i, manifest, format!("{field}.matches[{i}]").into()))
        .collect()
}

fn lower_backend(id: &Identity<'_>, manifest: &http_route::HttpBackendRef, field: String) -> Backend {
    let mut lowered = Backend {
        weight: manifest.to.weight.get(),
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
        to: backend(id, &manifest.to, field),
    };
    for filter in &manifest.filters {
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => lowered.request_headers = edits(modifier),
            HttpFilter::ResponseHeaderModifier(modifier) => lowered.response_headers = edits(modifier),
            HttpFilter::UrlRewrite(manifest) => lowered.rewrite = Some(rewrite(manifest)),
            // Filters of a whole rule; a manifest that gives them to one backend is refused.
            HttpFilter::RequestRedirect(_) | HttpFilter::Cors(_) | HttpFilter::RequestMirror(_) => {}
        }
    }
    lowered
}

fn timeouts(manifest: &HttpTimeouts) -> InlineTimeouts {
    // `0s` turns a limit off (Gateway API `HTTPRouteTimeouts`).
    let limit = |given: Option<crate::manifest::value::Duration>| {
        given.map(|duration| Some(duration.get()).filter(|duration| !duration.is_zero()))
    };
    InlineTimeouts { request: limit(manifest.request), backend_request: limit(manifest.backend_request) }
}

fn redirect(manifest: &http_route::Redirect) -> Redirect {
    Redirect {
        status: StatusCode::from_u16(manifest.status_code.get())
            .expect("the codes of the API are status codes"),
        scheme: manifest.scheme.map(|scheme| scheme.as_str().into()),
        host: manifest.hostname.as_ref().map(|host| host.shared()),
        port: manifest.port.map(|port| port.get()),
        path: manifest.path.as_ref().map(path_edit),
    }
}

fn rewrite(manifest: &http_route::UrlRewrite) -> Rewrite {
    Rewrite {
        host: manifest.hostname.as_ref().map(|host| host.shared()),
        path: manifest.path.as_ref().map(path_edit),
    }
}

fn path_edit(modifier: &PathModifier) -> PathEdit {
    match modifier {
        PathModifier::Full(path) => PathEdit::Full(path.shared()),
        PathModifier::Prefix(path) => PathEdit::Prefix(path.shared()),
    }
}

fn cors(manifest: &http_route::Cors) -> Cors {
    Cors {
        allow_origins: manifest.allow_origins.iter().map(|origin| origin.shared()).collect(),
        allow_credentials: manifest.allow_credentials,
        allow_methods: manifest.allow_methods.iter().map(|method| method.as_str().into()).collect(),
        allow_headers: manifest.allow_headers.iter().map(|name| name.as_str().into()).collect(),
        expose_headers: manifest.expose_headers.iter().map(|name| name.as_str().into()).collect(),
        max_age: Duration::from_secs(u64::from(manifest.max_age.get())),
    }
}
