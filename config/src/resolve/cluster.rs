//! A cluster: one port of a Service, one instance, or a name outside the mesh.

use crate::model::{Cluster, ClusterName, Discovery, Protocol, UpstreamHttp};
use crate::registry::{Registry, TargetPort};

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
        Some(Cluster {
            name,
            service,
            discovery,
            http: upstream_http(who, protocol),
            connect_timeout: connect.unwrap_or(Cluster::DEFAULT_CONNECT_TIMEOUT),
            idle_timeout: Cluster::DEFAULT_IDLE_TIMEOUT,
            circuit_breaker: breaker.unwrap_or_default(),
            origin,
        })
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
