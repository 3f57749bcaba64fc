//! AccessPolicy.

use std::sync::Arc;

use crate::manifest::access_policy::{
    AccessPolicy as Manifest, AccessRule as Rule, Action, FromMatch, GrpcCall, HeaderRule, Mode as RulesMode,
    MtlsMode as Mode, MtlsSection as Section, PathRule, ToMatch,
};
use crate::manifest::value::{AccountName, HttpMethod, RuleHost};
use crate::model::{
    AccessAction, AccessMode, AccessPath, AccessRule, AccountRef, Among, CallMatch, HeaderMatch, HeaderTest,
    HostPattern, MtlsMode, PathTemplate, PeerMatch,
};
use crate::registry::access::{AccessPolicy, MtlsSection, PortMtls};

use super::Identity;
use super::route::string_match;

pub(in crate::registry) fn access_policy(id: &Identity<'_>, manifest: &Manifest) -> AccessPolicy {
    let spec = &manifest.spec;
    let labels = spec.selector.iter().flat_map(|selector| &selector.match_labels);
    AccessPolicy {
        namespace: id.namespace.clone(),
        seniority: id.seniority(),
        selector: labels.map(|(key, value)| (key.shared(), value.shared())).collect(),
        mtls: spec.mtls.as_ref().map(mtls).unwrap_or_default(),
        mode: match spec.mode {
            RulesMode::Enforce => AccessMode::Enforce,
            RulesMode::Audit => AccessMode::Audit,
        },
        rules: spec.rules.iter().flatten().enumerate().map(|(i, manifest)| rule(id, i, manifest)).collect(),
        origin: id.origin(),
    }
}

fn mtls(section: &Section) -> MtlsSection {
    let port = |(i, port): (usize, &crate::manifest::access_policy::PortMtls)| PortMtls {
        port: port.port.get(),
        mode: mode(port.mode),
        field: format!("spec.mtls.ports[{i}]").into(),
    };
    MtlsSection { mode: section.mode.map(mode), ports: section.ports.iter().enumerate().map(port).collect() }
}

pub(in crate::registry) const fn mode(manifest: Mode) -> MtlsMode {
    match manifest {
        Mode::Strict => MtlsMode::Strict,
        Mode::Permissive => MtlsMode::Permissive,
        Mode::Disabled => MtlsMode::Disabled,
    }
}

pub(in crate::registry) const fn action(manifest: Action) -> AccessAction {
    match manifest {
        Action::Allow => AccessAction::Allow,
        Action::Deny => AccessAction::Deny,
    }
}

fn rule(id: &Identity<'_>, index: usize, manifest: &Rule) -> AccessRule {
    let field = format!("spec.rules[{index}]");
    AccessRule {
        name: manifest.name.as_ref().map_or_else(|| field.as_str().into(), |name| name.shared()),
        action: action(manifest.action),
        from: manifest.from.iter().flatten().map(|from| peer(id, from)).collect(),
        to: manifest.to.iter().flatten().map(call).collect(),
        origin: id.origin().at(&field),
    }
}

fn among<M, T>(is: &[M], is_not: &[M], lower: impl Fn(&M) -> T) -> Among<T> {
    Among { is: is.iter().map(&lower).collect(), is_not: is_not.iter().map(&lower).collect() }
}

pub(super) fn peer(id: &Identity<'_>, from: &FromMatch) -> PeerMatch {
    let account = |account: &AccountName| {
        let (namespace, name) = account.split_once('/').unwrap_or((&*id.namespace, &**account));
        AccountRef { namespace: namespace.into(), name: name.into() }
    };
    PeerMatch {
        home: from.trust_domains.iter().map(|domain| domain.shared()).collect(),
        trust_domains: among(&from.trust_domains, &from.not_trust_domains, |domain| domain.shared()),
        namespaces: among(&from.namespaces, &from.not_namespaces, |namespace| namespace.shared()),
        accounts: among(&from.service_accounts, &from.not_service_accounts, account),
        identities: among(&from.identities, &from.not_identities, |pattern| pattern.compiled()),
        addresses: among(&from.addresses, &from.not_addresses, |cidr| cidr.get()),
    }
}

pub(super) fn call(to: &ToMatch) -> CallMatch {
    let method = |method: &HttpMethod| Arc::from(method.as_str());
    let host = |host: &RuleHost| {
        // An IPv6 address stands in brackets in a request.
        let text = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        HostPattern::parse(&text).expect("a rule's host is one")
    };
    CallMatch {
        ports: among(&to.ports, &to.not_ports, |port| port.get()),
        methods: among(&to.methods, &to.not_methods, method),
        paths: among(&to.paths, &to.not_paths, |path: &PathRule| path.compiled().clone()),
        calls: among(&to.grpc, &to.not_grpc, grpc),
        hosts: among(&to.hosts, &to.not_hosts, host),
        headers: among(&to.headers, &to.not_headers, header),
    }
}

/// A gRPC call is a POST to `/SERVICE/METHOD` (gRPC over HTTP/2, "Requests").
fn grpc(call: &GrpcCall) -> AccessPath {
    let part = |name: Option<&str>| name.unwrap_or("{*}").to_owned();
    let service = call.service.as_ref().map(|service| service.strip_prefix('.').unwrap_or(service));
    let template = format!("/{}/{}", part(service), part(call.method.as_deref()));
    AccessPath::Template(
        PathTemplate::new(&template).expect("names of services and methods are plain segments"),
    )
}

fn header(rule: &HeaderRule) -> HeaderTest {
    let Some(value) = &rule.value else { return HeaderTest::Present(rule.name.as_str().into()) };
    HeaderTest::Value(HeaderMatch {
        name: http::HeaderName::from_bytes(rule.name.as_bytes())
            .expect("a manifest's header name is a token"),
        value: string_match(value),
    })
}
