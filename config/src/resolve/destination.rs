//! What a (host, port) that an app asks for means to it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    ClusterName, Destination, DestinationName, HostPattern, Protocol, RouteTableName, TcpForward, TlsRoute,
    WeightedCluster,
};
use crate::registry::protocol::declared;
use crate::registry::{
    BackendRef, BackendTo, Effective, Instance, Registry, Route, RouteKind, Service, ServicePort,
};

use super::Subscriber;
use super::policy::{Call, Callee};

/// What stands behind a name.
#[derive(Clone, Debug)]
pub(super) enum Found<'r> {
    Service {
        service: &'r Arc<Service>,
        port: u16,
        declared: Option<&'r ServicePort>,
    },
    /// One instance by its own address: the Service's routes and policies do not apply to it (GEP-1426, "Multiple routes for a Service").
    Instance {
        instance: &'r Arc<Instance>,
        port: u16,
    },
}

impl Registry {
    pub(super) fn destination(&self, who: &Subscriber, resource: &str) -> Option<Destination> {
        let name = DestinationName::from_resource_name(resource)?;
        match self.find(who, &name)? {
            Found::Service { service, port, declared } => {
                Some(self.service_destination(who, name, service, port, declared))
            }
            Found::Instance { instance, port } => Some(instance_destination(name, instance, port)),
        }
    }

    fn find(&self, who: &Subscriber, name: &DestinationName) -> Option<Found<'_>> {
        let Some(address) = name.as_ip() else {
            let service = self.service_called(name.host(), who.namespace())?;
            return self.found(self.meant_by(service), name.port());
        };
        if let Some(service) = self.service_by_ip(address) {
            return self.found(service, name.port());
        }
        self.instance_at(address, name.port()).map(|instance| Found::Instance { instance, port: name.port() })
    }

    /// What the host of a route table, cluster or endpoints name means: a full service name or an instance's address.
    pub(super) fn find_host(&self, host: &str, port: u16) -> Option<Found<'_>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.instance_at(address, port).map(|instance| Found::Instance { instance, port });
        }
        let service = self.service_by_host(host)?;
        // What an alias leads to has the names of the Service it means.
        if !Arc::ptr_eq(service, self.meant_by(service)) {
            return None;
        }
        self.found(service, port)
    }

    fn found<'r>(&'r self, service: &'r Arc<Service>, port: u16) -> Option<Found<'r>> {
        match service.port(port) {
            Some(declared) => Some(Found::Service { service, port, declared: Some(declared) }),
            // A name outside the mesh has whatever ports it has.
            None if service.external().is_some() && port != 0 => {
                Some(Found::Service { service, port, declared: None })
            }
            None => None,
        }
    }

    fn service_destination(
        &self,
        who: &Subscriber,
        name: DestinationName,
        service: &Arc<Service>,
        port: u16,
        declaration: Option<&ServicePort>,
    ) -> Destination {
        let effective = self.effective_routes(service, port, who.namespace());
        let call =
            Call { caller: who.namespace(), to: Callee::Service { service: &service.id, port }, by: None };
        let idle = self.timeouts(&call).section().and_then(|section| section.exchange.stream_idle);
        let faults = self.callers_faults(&call);
        let forward = |backends| TcpForward { backends, idle, faults: faults.clone() };
        let mut protocol =
            declaration.map_or_else(|| declared(None, None, &[port]), |declaration| declaration.protocol);
        let mut tls = vec![];
        let mut tcp = forward(only(ClusterName::outbound(port, "", &service.host)));
        match effective.as_ref().map(|effective| (effective.kind, effective.first())) {
            Some((RouteKind::Tcp, route)) => {
                protocol = Protocol::Tcp;
                tcp = forward(self.weighted(route, true));
            }
            Some((RouteKind::Tls, route)) => {
                protocol = Protocol::Tls;
                tls = vec![TlsRoute {
                    sni: HostPattern::Any,
                    forward: forward(self.weighted(route, true)),
                    origin: route.origin.clone(),
                }];
            }
            Some((RouteKind::Http | RouteKind::Grpc, _)) | None => {}
        }
        Destination {
            name,
            service: Some(service.id.clone()),
            protocol,
            routes: table_name(port, &service.host),
            tls,
            tcp,
            origin: Some(match declaration {
                Some(declaration) => service.origin.at(&declaration.field),
                None => service.origin.clone(),
            }),
        }
    }

    /// The backends of a TCPRoute or TLSRoute; such routes have one rule that takes everything.
    pub(super) fn weighted(&self, route: &Route, in_mesh: bool) -> Vec<WeightedCluster> {
        let backends = route.rules.first().map(|rule| &rule.backends[..]).unwrap_or_default();
        let all: Vec<_> = backends
            .iter()
            .map(|backend| WeightedCluster {
                cluster: self.backend(route, &backend.to, in_mesh).unwrap_or_else(|_| nowhere(&backend.to)),
                weight: backend.weight,
            })
            .collect();
        if all.is_empty() {
            // Without a backend every connection is refused (Gateway API `TCPRouteRule.backendRefs`).
            let cluster = ClusterName::outbound(0, "invalid", &route.name);
            return vec![WeightedCluster { cluster, weight: 0 }];
        }
        all
    }
}

/// A cluster that never resolves, for references that name nothing: connections it is drawn for are refused, others
/// are not.
fn nowhere(reference: &BackendRef) -> ClusterName {
    let name = match &reference.to {
        BackendTo::Service { service, .. } => service.to_string(),
        BackendTo::Unknown { namespace, name, .. } => format!("{name}.{namespace}"),
    };
    ClusterName::outbound(0, "invalid", &name)
}

pub(super) fn table_name(port: u16, host: &str) -> RouteTableName {
    RouteTableName::new(format!("outbound|{port}|{host}"))
}

fn instance_destination(name: DestinationName, instance: &Instance, port: u16) -> Destination {
    let host = instance.address.to_string();
    let protocol = instance.port(port).map_or_else(|| declared(None, None, &[port]), |port| port.protocol);
    Destination {
        name,
        service: None,
        protocol,
        routes: table_name(port, &host),
        tls: vec![],
        tcp: TcpForward { backends: only(ClusterName::outbound(port, "", &host)), idle: None, faults: None },
        origin: Some(instance.origin.clone()),
    }
}

fn only(cluster: ClusterName) -> Vec<WeightedCluster> {
    vec![WeightedCluster { cluster, weight: 1 }]
}

impl Effective<'_> {
    /// The one that decides where only one can.
    pub(super) fn first(&self) -> &Route {
        self.routes.first().expect("an effective set of routes is never empty")
    }
}
