//! GRPCRoute: a call is a POST to `/SERVICE/METHOD`, so its matches become path matches.

use std::sync::Arc;

use crate::manifest::grpc_route::{
    GrpcBackendRef, GrpcFilter, GrpcMatch, GrpcMethodMatch, GrpcRoute, GrpcRule,
};
use crate::model::{PathMatch, Pattern, RouteMatch};
use crate::registry::route::{Backend, InlineTimeouts, Match, Rewrite, Route, RouteKind, Rule};
use crate::resolve::precedence::RouteRank;

use super::Identity;
use super::route::{backend, edits, header_matches, hostnames, mirror, parents, rule_field};

pub(in crate::registry) fn grpc_route(id: &Identity<'_>, manifest: &GrpcRoute) -> Route {
    let spec = &manifest.spec;
    Route {
        kind: RouteKind::Grpc,
        namespace: id.namespace.clone(),
        name: id.name(),
        seniority: id.seniority(),
        parents: parents(id, &spec.parent_refs),
        hostnames: hostnames(&spec.hostnames),
        rules: spec.rules.iter().enumerate().map(|(i, rule)| lower_rule(id, i, rule)).collect(),
        origin: id.origin(),
    }
}

fn lower_rule(id: &Identity<'_>, index: usize, manifest: &GrpcRule) -> Rule {
    let field = rule_field(index);
    let mut rule = Rule {
        name: manifest.name.as_ref().map(|name| name.shared()),
        matches: matches(id, index, &field, &manifest.matches),
        request_headers: Default::default(),
        response_headers: Default::default(),
        cors: None,
        mirrors: vec![],
        timeouts: InlineTimeouts::default(),
        retry: None,
        redirect: None,
        rewrite: Rewrite::default(),
        backends: vec![],
        field: field.clone(),
    };
    for (i, filter) in manifest.filters.iter().enumerate() {
        match filter {
            GrpcFilter::RequestHeaderModifier(modifier) => rule.request_headers = edits(modifier),
            GrpcFilter::ResponseHeaderModifier(modifier) => rule.response_headers = edits(modifier),
            GrpcFilter::RequestMirror(manifest) => {
                rule.mirrors.push(mirror(id, manifest, &format!("{field}.filters[{i}]")));
            }
        }
    }
    for (i, manifest) in manifest.backend_refs.iter().enumerate() {
        rule.backends.push(lower_backend(id, manifest, format!("{field}.backendRefs[{i}]")));
    }
    rule
}

fn lower_backend(id: &Identity<'_>, manifest: &GrpcBackendRef, field: String) -> Backend {
    let mut lowered = Backend {
        weight: manifest.to.weight.get(),
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
        to: backend(id, &manifest.to, field),
    };
    for filter in &manifest.filters {
        match filter {
            GrpcFilter::RequestHeaderModifier(modifier) => lowered.request_headers = edits(modifier),
            GrpcFilter::ResponseHeaderModifier(modifier) => lowered.response_headers = edits(modifier),
            // A manifest that gives it to one backend is refused.
            GrpcFilter::RequestMirror(_) => {}
        }
    }
    lowered
}

fn matches(id: &Identity<'_>, rule: usize, field: &Arc<str>, manifests: &[GrpcMatch]) -> Vec<Match> {
    let lower = |index: usize, manifest: &GrpcMatch, field: Arc<str>| {
        let headers = header_matches(&manifest.headers);
        let (service, method) = match &manifest.method {
            None => (None, None),
            Some(GrpcMethodMatch::Exact { service, method }) => (service.as_deref(), method.as_deref()),
            Some(GrpcMethodMatch::Regex { service, method }) => {
                (service.as_ref().map(Pattern::as_str), method.as_ref().map(Pattern::as_str))
            }
        };
        let rank = RouteRank::grpc(service, method, headers.len(), id.seniority(), rule, index);
        let path = path(manifest.method.as_ref());
        Match { matches: RouteMatch { path, method: None, headers, query: vec![] }, rank, field }
    };
    if manifests.is_empty() {
        return vec![lower(0, &GrpcMatch::default(), field.clone())];
    }
    manifests
        .iter()
        .enumerate()
        .map(|(i, manifest)| lower(i, manifest, format!("{field}.matches[{i}]").into()))
        .collect()
}

fn path(method: Option<&GrpcMethodMatch>) -> PathMatch {
    const ANY: &str = "[^/]+";
    match method {
        None => PathMatch::prefix("/"),
        Some(GrpcMethodMatch::Exact { service: Some(service), method: Some(method) }) => {
            PathMatch::Exact(format!("/{service}/{method}").into())
        }
        Some(GrpcMethodMatch::Exact { service: Some(service), method: None }) => {
            PathMatch::prefix(&format!("/{service}"))
        }
        Some(GrpcMethodMatch::Exact { service: None, method }) => {
            expression(ANY, &method.as_deref().map_or(ANY.into(), regex::escape))
        }
        Some(GrpcMethodMatch::Regex { service, method }) => expression(
            service.as_ref().map_or(ANY, Pattern::as_str),
            method.as_ref().map_or(ANY, Pattern::as_str),
        ),
    }
}

fn expression(service: &str, method: &str) -> PathMatch {
    match Pattern::new(&format!("/(?:{service})/(?:{method})")) {
        Ok(pattern) => PathMatch::Regex(pattern),
        // Each is within the limit alone, both together are not. Matching nothing is the safe reading: no call goes
        // where its author did not send it.
        Err(_) => PathMatch::Exact("".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_match_is_a_path_match() {
        let exact = |service: Option<&str>, method: Option<&str>| GrpcMethodMatch::Exact {
            service: service.map(|s| s.parse().unwrap()),
            method: method.map(|m| m.parse().unwrap()),
        };
        let regex = |service: Option<&str>, method: Option<&str>| GrpcMethodMatch::Regex {
            service: service.map(|s| Pattern::new(s).unwrap()),
            method: method.map(|m| Pattern::new(m).unwrap()),
        };
        for (method, call, want) in [
            (None, "/chat.Chat/Say", true),
            (Some(exact(Some("chat.Chat"), Some("Say"))), "/chat.Chat/Say", true),
            (Some(exact(Some("chat.Chat"), Some("Say"))), "/chat.Chat/SayAll", false),
            (Some(exact(Some("chat.Chat"), None)), "/chat.Chat/SayAll", true),
            (Some(exact(Some("chat.Chat"), None)), "/chat.ChatRoom/Say", false), // whole names
            (Some(exact(None, Some("Say"))), "/chat.Chat/Say", true),
            (Some(exact(None, Some("Say"))), "/chat.Chat/SayAll", false),
            (Some(regex(Some("chat\\..*|talk\\..*"), Some("S.y"))), "/talk.Talk/Say", true),
            (Some(regex(Some("chat|talk"), None)), "/talk/Say", true),
            (Some(regex(Some("chat|talk"), None)), "/talkative/Say", false),
            (Some(regex(None, Some("A|B"))), "/x/B", true),
        ] {
            assert_eq!(path(method.as_ref()).matches(call), want, "{method:?} on {call}");
        }
    }
}
