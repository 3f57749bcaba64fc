//! The endpoints of one cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::{ClusterName, Endpoint, Endpoints, Health, MtlsMode};
use crate::registry::{Instance, Registry};

use super::cluster::outbound;
use super::destination::Found;

impl Registry {
    /// The same for every subscriber.
    pub(super) fn endpoints(&self, name: &str) -> Option<Endpoints> {
        let (port, host) = outbound(name)?;
        let endpoints = match self.find_host(host, port)? {
            Found::Service { service, declared, .. } => {
                // Names outside the mesh are the resolver's.
                let declared = declared.filter(|_| service.external().is_none())?;
                let mut by_address = BTreeMap::new();
                for (instance, port) in self.members_of(service, declared) {
                    // Where two sources know an address, what they say of it is the same instance's; the first stays.
                    by_address.entry(address(instance.address, port)).or_insert_with(|| {
                        let ready_or_not = service.publish_not_ready && instance.health == Health::Unhealthy;
                        let health = if ready_or_not { Health::Healthy } else { instance.health };
                        self.endpoint(instance, port, health)
                    });
                }
                by_address.into_values().collect()
            }
            // Who asks for one instance wants that one, in whatever state it is.
            Found::Instance { instance, port } => vec![self.endpoint(instance, port, Health::Healthy)],
        };
        Some(Endpoints { cluster: ClusterName::outbound(port, "", host), endpoints })
    }

    fn endpoint(&self, instance: &Instance, port: u16, health: Health) -> Endpoint {
        let workload = instance.workload.as_ref();
        Endpoint {
            address: address(instance.address, port),
            health,
            weight: instance.weight,
            workload: instance.name.clone(),
            zone: instance.zone.clone(),
            for_zones: instance.for_zones.clone(),
            identity: workload.map(|workload| workload.identity(self.trust_domain())),
            // A port without mTLS is called without: nobody would open it there.
            meshed: workload.is_some_and(|workload| {
                workload.meshed && self.mtls(workload, Some(port)).mode != MtlsMode::Disabled
            }),
        }
    }
}

fn address(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
