//! Which objects a resource came from, and which of them a proxy's complaint is about.

use std::collections::BTreeSet;

use outrigger_config::diagnostic::Position;
use outrigger_config::manifest::{Kind, ObjectKey};
use outrigger_config::model::{GatewayProtocol, Listener, Origin, Resource, RouteTable};
use outrigger_config::registry::Registry;
use outrigger_config::xds::Refusal;
use serde::Serialize;

/// The objects that had a say in a resource.
pub fn objects(resource: &Resource) -> BTreeSet<ObjectKey> {
    origins(resource).into_iter().filter_map(key).collect()
}

pub fn key(origin: &Origin) -> Option<ObjectKey> {
    Some(ObjectKey::new(Kind::from_name(&origin.kind)?, &origin.namespace, &origin.name))
}

fn origins(resource: &Resource) -> Vec<&Origin> {
    match resource {
        Resource::Listener(Listener::Destination(destination)) => {
            destination.origin.iter().chain(destination.tls.iter().map(|route| &route.origin)).collect()
        }
        Resource::Listener(Listener::Inbound(inbound)) => {
            inbound.ports.iter().filter_map(|port| port.origin.as_ref()).collect()
        }
        Resource::Listener(Listener::Gateway(gateway)) => gateway
            .ports
            .iter()
            .flat_map(|port| &port.listeners)
            .flat_map(|listener| {
                let routes = match &listener.protocol {
                    GatewayProtocol::TlsPassthrough { routes } => routes.as_slice(),
                    _ => &[],
                };
                std::iter::once(&listener.origin).chain(routes.iter().map(|route| &route.origin))
            })
            .collect(),
        Resource::RouteTable(table) => routes(table).collect(),
        Resource::Cluster(cluster) => cluster.origin.iter().collect(),
        Resource::Endpoints(_) | Resource::Secret(_) | Resource::TrustBundle(_) => Vec::new(),
    }
}

fn routes(table: &RouteTable) -> impl Iterator<Item = &Origin> {
    table.hosts.iter().flat_map(|host| &host.routes).map(|route| &route.origin)
}

/// What a refused resource comes down to for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blame {
    /// `HTTPRoute default/reviews`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What the proxy said.
    pub reason: String,
}

impl Blame {
    /// Where nothing is known of an origin.
    pub fn unknown(refusal: &Refusal) -> Self {
        Self { object: None, field: String::new(), file: None, line: None, reason: refusal.why() }
    }
}

/// The object and field behind the place in `resource` that the refusal names, or the first that had a say in it.
pub fn blame(refusal: &Refusal, resource: &Resource, registry: &Registry) -> Blame {
    let origin = match resource {
        Resource::RouteTable(table) => route_at(table, &refusal.path).or_else(|| routes(table).next()),
        other => origins(other).into_iter().next(),
    };
    let Some(origin) = origin else { return Blame::unknown(refusal) };
    let object = key(origin).and_then(|key| registry.object(&key));
    Blame {
        object: Some(match key(origin) {
            Some(key) => key.to_string(),
            None => format!("{} {}/{}", origin.kind, origin.namespace, origin.name),
        }),
        field: origin.field.to_string(),
        file: object.map(|object| object.source.file.to_string()),
        line: object.and_then(|object| object.source.locate(&origin.field)).map(|Position { line, .. }| line),
        reason: refusal.why(),
    }
}

/// `virtual_hosts[0].routes[2].…` of the encoded table is host 0, route 2 of the model's.
fn route_at<'t>(table: &'t RouteTable, path: &str) -> Option<&'t Origin> {
    let (host, rest) = path.strip_prefix("virtual_hosts[")?.split_once(']')?;
    let (route, _) = rest.strip_prefix(".routes[")?.split_once(']')?;
    let host = table.hosts.get(host.parse::<usize>().ok()?)?;
    Some(&host.routes.get(route.parse::<usize>().ok()?)?.origin)
}
