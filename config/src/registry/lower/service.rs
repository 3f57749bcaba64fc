//! Service and EndpointSlice.

use std::net::IpAddr;
use std::sync::Arc;

use crate::manifest::endpoint_slice::{AddressType, EndpointSlice, SERVICE_NAME_LABEL};
use crate::manifest::field::IntOrString;
use crate::manifest::service::{Service as Manifest, ServiceType, TransportProtocol};
use crate::model::{Health, ServiceRef};
use crate::registry::instance::InstancePort;
use crate::registry::protocol::declared;
use crate::registry::service::{Backing, Service, ServicePort, TargetPort};

use super::Identity;

pub(in crate::registry) fn service(id: &Identity<'_>, manifest: &Manifest, cluster_domain: &str) -> Service {
    let spec = &manifest.spec;
    let reference = ServiceRef { namespace: id.namespace.clone(), name: id.name() };
    let backing = match (&spec.kind, &spec.external_name) {
        (ServiceType::ExternalName, Some(host)) => Backing::External(host.shared()),
        _ if spec.selector.is_empty() => Backing::Listed,
        _ => Backing::Selected(
            spec.selector.iter().map(|(key, value)| (key.shared(), value.shared())).collect(),
        ),
    };
    let ports = spec
        .ports
        .iter()
        .enumerate()
        // Others pass the mesh by, about which the manifest is warned.
        .filter(|(_, port)| port.protocol == TransportProtocol::Tcp)
        .map(|(i, port)| {
            let number = port.port.get();
            let target = match &port.target_port {
                // 0 is Kubernetes' way to write "absent".
                Some(IntOrString::Int(target)) => {
                    TargetPort::Number(u16::try_from(*target).ok().filter(|n| *n != 0).unwrap_or(number))
                }
                Some(IntOrString::String(name)) => TargetPort::Name(name.as_str().into()),
                None => TargetPort::Number(number),
            };
            let numbers = match target {
                TargetPort::Number(target) => vec![number, target],
                TargetPort::Name(_) => vec![number],
            };
            let protocol = declared(port.app_protocol.as_deref(), port.name.as_deref(), &numbers);
            let name = port.name.as_ref().map(|name| name.shared());
            ServicePort { number, name, protocol, target, field: format!("spec.ports[{i}]").into() }
        })
        .collect();
    Service {
        host: format!("{}.{}.svc.{cluster_domain}", reference.name, reference.namespace).into(),
        backing,
        ports,
        cluster_ips: manifest.addresses().map(|address| address.to_canonical()).collect(),
        publish_not_ready: spec.publish_not_ready_addresses,
        near: manifest.prefers_near(),
        origin: id.origin(),
        id: reference,
    }
}

/// An EndpointSlice: endpoints that share their ports.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::registry) struct Slice {
    pub service: ServiceRef,
    pub ports: Vec<InstancePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::registry) struct SliceEndpoint {
    pub address: IpAddr,
    pub health: Health,
    pub zone: Option<Arc<str>>,
    /// Sorted.
    pub for_zones: Vec<Arc<str>>,
    /// `NAMESPACE/NAME` of the Pod.
    pub pod: Option<Arc<str>>,
}

/// `None` where it belongs to no Service.
pub(in crate::registry) fn endpoint_slice(id: &Identity<'_>, manifest: &EndpointSlice) -> Option<Slice> {
    let service = ServiceRef::new(&id.namespace, id.metadata.label(SERVICE_NAME_LABEL)?);
    if manifest.address_type == AddressType::FQDN {
        return None;
    }
    let ports = manifest
        .ports
        .iter()
        .filter(|port| port.protocol == TransportProtocol::Tcp)
        .filter_map(|port| {
            let number = port.port?.get();
            let name = port.name.as_deref().filter(|name| !name.is_empty());
            let protocol = declared(port.app_protocol.as_deref(), name, &[number]);
            Some(InstancePort { number, name: name.map(Into::into), protocol })
        })
        .collect();
    let endpoints = manifest
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let conditions = endpoint.conditions;
            let health = match (conditions.is_terminating(), conditions.is_ready(), conditions.is_serving()) {
                (false, true, _) => Health::Healthy,
                // Terminating endpoints are never called ready; serving ones still finish what they have.
                (true, _, true) => Health::Draining,
                (false, false, _) | (true, _, false) => Health::Unhealthy,
            };
            let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            Some(SliceEndpoint {
                address: endpoint.address()?.to_canonical(),
                health,
                zone: endpoint.zone.as_deref().map(Into::into),
                for_zones: for_zones(endpoint),
                pod: pod.and_then(|pod| {
                    let namespace = id.namespace_or(pod.namespace.as_ref());
                    Some(format!("{namespace}/{}", pod.name.as_ref()?).into())
                }),
            })
        })
        .collect();
    Some(Slice { service, ports, endpoints })
}

fn for_zones(endpoint: &crate::manifest::endpoint_slice::SliceEndpoint) -> Vec<Arc<str>> {
    let hinted = endpoint.hints.iter().flat_map(|hints| &hints.for_zones);
    let mut zones: Vec<Arc<str>> = hinted.map(|zone| zone.name.as_str().into()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones
}
