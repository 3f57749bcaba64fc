//! App instances: Workloads that have an address, and the endpoints that EndpointSlices list.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::{Health, Origin, Protocol, ServiceRef, SpiffeId};

/// One address behind which an app instance listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub address: IpAddr,
    pub health: Health,
    /// 1 to 1,000,000
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    /// Zones it is meant for; empty where nobody says so.
    pub for_zones: Vec<Arc<str>>,
    /// What is known of the instance's Workload; EndpointSlices alone know none of it.
    pub workload: Option<Arc<Workload>>,
    /// `NAMESPACE/NAME` of the instance; for an EndpointSlice's endpoint that of the Pod it targets.
    pub name: Option<Arc<str>>,
    pub ports: Vec<InstancePort>,
    /// The Service whose EndpointSlice lists it; `None` for a Workload's own.
    pub listed_for: Option<ServiceRef>,
    /// The Workload or EndpointSlice.
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstancePort {
    pub number: u16,
    pub name: Option<Arc<str>>,
    pub protocol: Protocol,
}

/// A Workload, with or without an address (without one it is a template that `outrigger up` starts instances of).
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub service_account: Arc<str>,
    pub address: Option<IpAddr>,
    pub zone: Option<Arc<str>>,
    /// A sidecar stands before it.
    pub meshed: bool,
    pub ports: Vec<WorkloadPort>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadPort {
    pub port: InstancePort,
    /// Where the app itself listens, as its sidecar sees it; `None` for a template.
    pub app: Option<SocketAddr>,
    /// `spec.ports[0]`
    pub field: Arc<str>,
}

impl Workload {
    /// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`. `trust_domain` is the registry's.
    pub fn identity(&self, trust_domain: &str) -> SpiffeId {
        SpiffeId::new(trust_domain, &self.namespace, &self.service_account)
            .expect("manifests hold only trust domains, labels and names, which make valid ids")
    }
}

impl Instance {
    pub fn port(&self, number: u16) -> Option<&InstancePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    pub fn port_named(&self, name: &str) -> Option<&InstancePort> {
        self.ports.iter().find(|port| port.name.as_deref() == Some(name))
    }
}
