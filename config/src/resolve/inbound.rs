//! The inbound side of one workload: its ports, what they speak and where the app listens.

use crate::model::{Inbound, InboundPort, WorkloadRef};
use crate::registry::Registry;

impl Registry {
    /// `None` for a workload the registry does not know, and for one without an address: a template of instances is not an instance.
    pub(super) fn inbound(&self, namespace: &str, name: &str) -> Option<Inbound> {
        let workload = self.workload(namespace, name)?;
        let ports = workload
            .ports
            .iter()
            .filter_map(|port| {
                let services = self.services_of(workload, &port.port);
                Some(InboundPort {
                    port: port.port.number,
                    protocol: port.port.protocol_behind(&services),
                    app: port.app?,
                    service: services.first().map(|(service, _)| service.id.clone()),
                    mtls: self.mtls(workload, Some(port.port.number)),
                    limits: self.limits(
                        services.iter().map(|(service, port)| (&service.id, port.number)),
                        port.port.number,
                    ),
                    faults: self.inbound_faults(
                        services.iter().map(|(service, port)| (&service.id, port.number)),
                        port.port.number,
                    ),
                    origin: Some(workload.origin.at(&port.field)),
                })
            })
            .collect();
        workload.address?;
        Some(Inbound {
            workload: WorkloadRef {
                namespace: workload.namespace.clone(),
                name: workload.name.clone(),
                service_account: workload.service_account.clone(),
            },
            ports,
            mtls: self.mtls(workload, None),
            access: self.access(workload).into(),
            settings: self.settings().clone(),
        })
    }
}
