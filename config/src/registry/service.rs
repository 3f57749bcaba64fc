//! Services as the registry knows them: how they are called, and who stands behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Origin, Protocol, ServiceRef};

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub id: ServiceRef,
    /// `NAME.NAMESPACE.svc.CLUSTER_DOMAIN`
    pub host: Arc<str>,
    pub backing: Backing,
    /// TCP ports, in the object's order.
    pub ports: Vec<ServicePort>,
    pub cluster_ips: Vec<IpAddr>,
    /// Endpoints that are not ready are used as well.
    pub publish_not_ready: bool,
    /// Endpoints in the caller's zone are preferred (`trafficDistribution`).
    pub near: bool,
    pub origin: Origin,
}

/// What a Service's endpoints are.
#[derive(Clone, Debug, PartialEq)]
pub enum Backing {
    /// Workloads of its namespace that carry all of these labels, and what EndpointSlices list.
    Selected(BTreeMap<Arc<str>, Arc<str>>),
    /// What EndpointSlices list.
    Listed,
    /// A name outside the mesh (`type: ExternalName`).
    External(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    pub number: u16,
    /// Absent only where the Service has one port.
    pub name: Option<Arc<str>>,
    pub protocol: Protocol,
    pub target: TargetPort,
    /// `spec.ports[0]`
    pub field: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TargetPort {
    Number(u16),
    /// A port name of the workload.
    Name(Arc<str>),
}

impl Service {
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    pub fn external(&self) -> Option<&Arc<str>> {
        match &self.backing {
            Backing::External(host) => Some(host),
            Backing::Selected(_) | Backing::Listed => None,
        }
    }
}
