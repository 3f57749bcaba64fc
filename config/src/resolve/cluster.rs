//! A cluster: one port of a Service, one instance, or a name outside the mesh.

use std::sync::Arc;

use crate::model::{Balance, Cluster, ClusterName, Discovery, HashOn, Protocol, ServiceRef, UpstreamHttp};
use crate::registry::{self, BackendTo, Registry, TargetPort};

use super::Subscriber;
use super::destination::Found;
use super::policy::{Call, Callee};

impl Registry {
    pub(super) fn cluster(&self, who: &Subscriber, name: &str) -> Option<Cluster> {
        let (port, host) = outbound(name)?;
        let name = ClusterName::outbound(port, "", host);
        let (service, protocol, discovery, origin) = match self.find_host(host, port)? {
            Found::Service { service, port, declared } => {
                let discovery = match service.external() {
                    Some(host) => Discovery::Dns { host: host.clone(), port: external_port(port, declared) },
                    None => Discovery::Endpoints,
                };
                let protocol = declared.map_or(Protocol::Detect, |declared| declared.protocol);
                let origin = declared.map_or(service.origin.clone(), |d| service.origin.at(&d.field));
                (Some(service.id.clone()), protocol, discovery, Some(origin))
            }
            Found::Instance { instance, port } => {
                let protocol = instance.port(port).map_or(Protocol::Detect, |port| port.protocol);
                (None, protocol, Discovery::Endpoints, Some(instance.origin.clone()))
            }
        };
        let call = service.as_ref().map(|service| {
            let to = Callee::Service { service, port };
            Call { caller: who.namespace(), to, by: None }
        });
        let connect = call.and_then(|call| self.timeouts(&call).section()?.connect);
        let breaker = call.and_then(|call| self.circuit_breakers(&call).section().cloned());
        let multiplex = call.and_then(|call| self.multiplexing(&call).section().copied());
        let balance = service.as_ref().map(|id| self.balance(who, id, port)).unwrap_or_default();
        Some(Cluster {
            name,
            service,
            discovery,
            http: upstream_http(who, protocol),
            connect_timeout: connect.unwrap_or(Cluster::DEFAULT_CONNECT_TIMEOUT),
            idle_timeout: Cluster::DEFAULT_IDLE_TIMEOUT,
            multiplex: multiplex.unwrap_or_default(),
            circuit_breaker: breaker.unwrap_or_default(),
            balance: balance.into(),
            origin,
        })
    }
}

impl Registry {
    /// How the endpoints of a Service share the requests of this caller.
    fn balance(&self, who: &Subscriber, service: &ServiceRef, port: u16) -> Balance {
        let call = Call { caller: who.namespace(), to: Callee::Service { service, port }, by: None };
        let decided = self.balancing(&call);
        let section = decided.section();
        let origin = decided.winner.as_ref().map(|winner| winner.origin.clone());
        let near = section.and_then(|section| section.near).unwrap_or_else(|| {
            self.service(&service.namespace, &service.name).is_some_and(|service| service.near)
        });
        let zone = near.then(|| self.zone_of(who)).flatten();
        Balance { zone, origin, ..section.map(|section| section.balance.clone()).unwrap_or_default() }
    }

    /// `None` also for gateways, whose instances may be anywhere.
    fn zone_of(&self, who: &Subscriber) -> Option<Arc<str>> {
        match who {
            Subscriber::Sidecar { namespace, name } => self.workload(namespace, name)?.zone.clone(),
            Subscriber::Gateway { .. } => None,
        }
    }

    /// What the clusters behind these backends hash requests by, for routes that lead to them.
    pub(super) fn hash(&self, who: &Subscriber, backends: &[registry::Backend]) -> Vec<HashOn> {
        let mut hash = Vec::new();
        for backend in backends.iter().filter(|backend| backend.weight > 0) {
            let BackendTo::Service { service, port } = &backend.to.to else { continue };
            self.add_hash(who, service, *port, &mut hash);
        }
        hash
    }

    pub(super) fn add_hash(&self, who: &Subscriber, service: &ServiceRef, port: u16, hash: &mut Vec<HashOn>) {
        let Some(service) = self.service(&service.namespace, &service.name) else { return };
        let service = &self.meant_by(service).id;
        let call = Call { caller: who.namespace(), to: Callee::Service { service, port }, by: None };
        let decided = self.balancing(&call);
        for on in decided.section().into_iter().flat_map(|section| &section.balance.hash) {
            if !hash.contains(on) {
                hash.push(on.clone());
            }
        }
    }
}

/// Port and host of `outbound|PORT||HOST`, in the only spelling a cluster has.
pub(super) fn outbound(name: &str) -> Option<(u16, &str)> {
    let mut parts = name.split('|');
    let (direction, port, subset, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let number: u16 = port.parse().ok()?;
    let canonical = direction == "outbound" && subset.is_empty() && parts.next().is_none();
    (canonical && number != 0 && number.to_string() == port).then_some((number, host))
}

fn upstream_http(who: &Subscriber, protocol: Protocol) -> UpstreamHttp {
    match (protocol, who) {
        (Protocol::Http2, _) => UpstreamHttp::Http2,
        (_, Subscriber::Sidecar { .. }) => UpstreamHttp::AsReceived,
        (_, Subscriber::Gateway { .. }) => UpstreamHttp::Http1,
    }
}

/// The port outside: the target's number, where one is given; there is nobody to ask what a name would mean.
fn external_port(port: u16, declared: Option<&crate::registry::ServicePort>) -> u16 {
    match declared.map(|declared| &declared.target) {
        Some(TargetPort::Number(number)) => *number,
        Some(TargetPort::Name(_)) | None => port,
    }
}
