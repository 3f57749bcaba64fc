//! Which resources a resource cannot do without.

use std::sync::Arc;

use outrigger_config::model::{
    Action, BackendTarget, Cluster, ClusterName, Destination, Discovery, Gateway, GatewayProtocol, Listener,
    Resource, ResourceKind, Route, RouteTable, RouteTableName, SecretName, TcpForward, TrustBundle,
};

use super::Key;

/// Calls `need` with each name that `resource` refers to; some more than once.
pub fn each(resource: &Resource, need: &mut impl FnMut(Key)) {
    match resource {
        Resource::Listener(Listener::Destination(destination)) => {
            need(table(&destination.routes));
            clusters_of(destination).for_each(|name| need(cluster(name)));
        }
        Resource::Listener(Listener::Inbound(_)) => {}
        Resource::Listener(Listener::Gateway(gateway)) => of_gateway(gateway, need),
        Resource::RouteTable(table) => clusters_in(table).for_each(|name| need(cluster(name))),
        Resource::Cluster(Cluster { name, discovery: Discovery::Endpoints, .. }) => need(endpoints(name)),
        Resource::Cluster(Cluster { discovery: Discovery::Dns { .. }, .. }) => {}
        Resource::Endpoints(_) | Resource::Secret(_) | Resource::TrustBundle(_) => {}
    }
}

fn of_gateway(gateway: &Gateway, need: &mut impl FnMut(Key)) {
    let clusters = |forward: &TcpForward, need: &mut dyn FnMut(Key)| {
        forward.backends.iter().for_each(|backend| need(cluster(&backend.cluster)));
    };
    for listener in gateway.ports.iter().flat_map(|port| &port.listeners) {
        match &listener.protocol {
            GatewayProtocol::Http { routes } => need(table(routes)),
            GatewayProtocol::Https { certificates, routes } => {
                certificates.iter().for_each(|name| need(secret(name)));
                need(table(routes));
            }
            GatewayProtocol::Tcp { forward } => clusters(forward, need),
            GatewayProtocol::TlsPassthrough { routes } => {
                routes.iter().for_each(|route| clusters(&route.forward, need));
            }
            GatewayProtocol::TlsTerminate { certificates, forward } => {
                certificates.iter().for_each(|name| need(secret(name)));
                clusters(forward, need);
            }
        }
    }
}

/// Clusters a destination sends connections to directly.
pub fn clusters_of(destination: &Destination) -> impl Iterator<Item = &ClusterName> {
    let tls = destination.tls.iter().flat_map(|route| &route.forward.backends);
    destination.tcp.backends.iter().chain(tls).map(|backend| &backend.cluster)
}

/// Clusters a route table sends requests to.
pub fn clusters_in(table: &RouteTable) -> impl Iterator<Item = &ClusterName> {
    table
        .hosts
        .iter()
        .flat_map(|host| &host.routes)
        .flat_map(|route| clusters_of_route(route).chain(route.mirrors.iter().map(|mirror| &mirror.cluster)))
}

/// Clusters a route forwards to.
pub fn clusters_of_route(route: &Route) -> impl Iterator<Item = &ClusterName> {
    let backends = match &route.action {
        Action::Forward(forward) => &forward.backends[..],
        Action::Redirect(_) => &[],
    };
    backends.iter().filter_map(|backend| match &backend.target {
        BackendTarget::Cluster(name) => Some(name),
        BackendTarget::Invalid(_) => None,
    })
}

pub fn table(name: &RouteTableName) -> Key {
    (ResourceKind::RouteTable, Arc::from(name.as_str()))
}

pub fn cluster(name: &ClusterName) -> Key {
    (ResourceKind::Cluster, Arc::from(name.as_str()))
}

pub fn endpoints(name: &ClusterName) -> Key {
    (ResourceKind::Endpoints, Arc::from(name.as_str()))
}

pub fn secret(name: &SecretName) -> Key {
    (ResourceKind::Secret, Arc::from(name.as_str()))
}

pub fn trust_bundle() -> Key {
    (ResourceKind::Secret, Arc::from(TrustBundle::NAME))
}
