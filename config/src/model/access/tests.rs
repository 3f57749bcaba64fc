//! Rules as people write them, and what becomes of calls: a corpus, and random rules against a slow reading of the same words.

mod corpus;
mod property;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Access, Ambiguity, Call, Caller, Decision, Refusal, canonical};
use crate::model::{Listener, Resource, ResourceKind, SpiffeId};
use crate::registry::tests::registry;
use crate::resolve::Subscriber;

/// The rules of a workload `w` in namespace `shop` that has port 80, a TCP port 90 and the label `app: w`.
fn access_of(policies: &str) -> Access {
    let workload = "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: w, namespace: shop, labels: {app: w}}\n\
        spec: {address: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}\n";
    let registry = registry(&format!("{workload}---\n{policies}"));
    match registry.resolve(&Subscriber::sidecar("shop", "w"), ResourceKind::Listener, "inbound") {
        Some(Resource::Listener(Listener::Inbound(inbound))) => Access::clone(&inbound.access),
        other => panic!("{other:?}"),
    }
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

/// `NAMESPACE/ACCOUNT` or a whole id, `-` for nobody; `@ADDRESS` where that matters.
fn caller(text: &str) -> (Option<SpiffeId>, IpAddr) {
    let (who, address) = text.split_once('@').unwrap_or((text, "10.0.0.9"));
    let identity = match who.split_once('/') {
        _ if who == "-" => None,
        _ if who.starts_with("spiffe:") => Some(who.parse().expect("an id")),
        Some((namespace, account)) => {
            Some(SpiffeId::new("cluster.local", namespace, account).expect("an id"))
        }
        None => panic!("{who:?} is no caller"),
    };
    (identity, address.parse().expect("an address"))
}

/// `METHOD PATH [host=HOST] [NAME=VALUE]…`
struct Request {
    method: Method,
    path: String,
    host: String,
    headers: HeaderMap,
}

impl Request {
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let method = words.next().expect("a method").parse().expect("a method");
        let path = words.next().expect("a path").to_owned();
        let (mut host, mut headers) = ("w.shop".to_owned(), HeaderMap::new());
        for word in words {
            let (name, value) = word.split_once('=').expect("NAME=VALUE");
            match name {
                "host" => host = value.to_owned(),
                name => {
                    let name: HeaderName = name.parse().expect("a header name");
                    headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
                }
            }
        }
        Self { method, path, host, headers }
    }

    fn call(&self) -> Call<'_> {
        Call { method: &self.method, path: &self.path, host: &self.host, headers: Some(&self.headers) }
    }
}

/// `yes`, or why not: a rule's name, `none` allows, `default`, `ambiguous`.
fn word(refusal: Option<&Refusal<'_>>) -> String {
    match refusal {
        None => "yes".into(),
        Some(Refusal::Denied { rule, .. }) => rule.name.to_string(),
        Some(Refusal::NotAllowed { .. }) => "none".into(),
        Some(Refusal::ByDefault { .. }) => "default".into(),
        Some(Refusal::Ambiguous { .. }) => "ambiguous".into(),
    }
}
