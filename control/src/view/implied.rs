//! What a client means that subscribes to everything: all that leads on from the one listener that is its own.
//!
//! Our proxy never asks so; Envoy, which knows no names to ask for, always does.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_config::model::{
    Action, BackendTarget, ClusterName, Gateway, GatewayProtocol, Listener, Resource, ResourceKind,
    RouteTable, RouteTableName, TcpForward,
};
use outrigger_config::resolve::Subscriber;

use super::View;

impl View {
    /// Names for a wildcard subscription to listeners or clusters; none for other kinds, which have no wildcard.
    pub fn implied(&self, who: &Subscriber, kind: ResourceKind) -> BTreeSet<Arc<str>> {
        let own: Arc<str> = match who {
            Subscriber::Sidecar { .. } => Listener::INBOUND.into(),
            Subscriber::Gateway { namespace, name } => Gateway::resource_name(namespace, name).into(),
        };
        match kind {
            ResourceKind::Listener => BTreeSet::from([own]),
            ResourceKind::Cluster => self.clusters_behind(who, &own),
            ResourceKind::RouteTable | ResourceKind::Endpoints | ResourceKind::Secret => BTreeSet::new(),
        }
    }

    fn clusters_behind(&self, who: &Subscriber, listener: &Arc<str>) -> BTreeSet<Arc<str>> {
        let mut clusters = BTreeSet::new();
        let Some(entry) = self.entry(who, ResourceKind::Listener, listener) else { return clusters };
        let Resource::Listener(Listener::Gateway(gateway)) = entry.resource() else { return clusters };
        let mut add = |name: &ClusterName| {
            clusters.insert(Arc::from(name.as_str()));
        };
        for listener in gateway.ports.iter().flat_map(|port| &port.listeners) {
            match &listener.protocol {
                GatewayProtocol::Http { routes } | GatewayProtocol::Https { routes, .. } => {
                    self.clusters_in(who, routes, &mut add);
                }
                GatewayProtocol::Tcp { forward } | GatewayProtocol::TlsTerminate { forward, .. } => {
                    clusters_of(forward, &mut add);
                }
                GatewayProtocol::TlsPassthrough { routes } => {
                    routes.iter().for_each(|route| clusters_of(&route.forward, &mut add));
                }
            }
        }
        clusters
    }

    fn clusters_in(&self, who: &Subscriber, table: &RouteTableName, add: &mut impl FnMut(&ClusterName)) {
        let Some(entry) = self.entry(who, ResourceKind::RouteTable, &table.as_str().into()) else { return };
        let Resource::RouteTable(RouteTable { hosts, .. }) = entry.resource() else { return };
        for route in hosts.iter().flat_map(|host| &host.routes) {
            route.mirrors.iter().for_each(|mirror| add(&mirror.cluster));
            if let Action::Forward(forward) = &route.action {
                for backend in &forward.backends {
                    if let BackendTarget::Cluster(cluster) = &backend.target {
                        add(cluster);
                    }
                }
            }
        }
    }
}

fn clusters_of(forward: &TcpForward, add: &mut impl FnMut(&ClusterName)) {
    forward.backends.iter().for_each(|backend| add(&backend.cluster));
}
