//! Workload.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::manifest::workload::{Workload as Manifest, WorkloadState};
use crate::model::Health;
use crate::registry::instance::{Instance, InstancePort, Workload, WorkloadPort};
use crate::registry::protocol::declared;

use super::Identity;

/// On a Workload with a sidecar before it: `"true"`.
const MESHED: &str = "outrigger.dev/meshed";

/// The labels of an object, as selectors compare them.
pub(in crate::registry) type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// A Workload, the instance it is if it has an address, and its labels.
pub(in crate::registry) struct Lowered {
    pub workload: Arc<Workload>,
    pub instance: Option<Arc<Instance>>,
    pub labels: Labels,
}

pub(in crate::registry) fn workload(id: &Identity<'_>, manifest: &Manifest) -> Lowered {
    let spec = &manifest.spec;
    let address = spec.address.map(|address| address.get().to_canonical());
    let ports: Vec<_> = spec
        .ports
        .iter()
        .enumerate()
        .map(|(i, port)| {
            let number = port.port.get();
            WorkloadPort {
                port: InstancePort {
                    number,
                    name: port.name.as_ref().map(|name| name.shared()),
                    protocol: declared(port.app_protocol.as_deref(), port.name.as_deref(), &[number]),
                },
                app: port
                    .app_port()
                    .filter(|_| address.is_some())
                    .map(|app_port| SocketAddr::new(spec.app_address.get(), app_port.get())),
                field: format!("spec.ports[{i}]").into(),
            }
        })
        .collect();
    let annotated =
        |(key, value): (&crate::manifest::value::AnnotationKey, &String)| *key == MESHED && value == "true";
    let workload = Arc::new(Workload {
        namespace: id.namespace.clone(),
        name: id.name(),
        service_account: spec.service_account.shared(),
        address,
        zone: spec.zone.as_ref().map(|zone| zone.shared()),
        meshed: manifest.metadata.annotations.iter().any(annotated),
        ports,
        origin: id.origin(),
    });
    let instance = address.map(|address| {
        Arc::new(Instance {
            address,
            health: match manifest.status.map(|status| status.state) {
                None => Health::Unknown,
                Some(WorkloadState::Ready) => Health::Healthy,
                Some(WorkloadState::NotReady) => Health::Unhealthy,
                Some(WorkloadState::Draining) => Health::Draining,
            },
            weight: spec.weight.get(),
            zone: workload.zone.clone(),
            for_zones: vec![],
            name: Some(format!("{}/{}", workload.namespace, workload.name).into()),
            ports: workload.ports.iter().map(|port| port.port.clone()).collect(),
            listed_for: None,
            origin: workload.origin.clone(),
            workload: Some(workload.clone()),
        })
    });
    let labels = manifest.metadata.labels.iter().map(|(key, value)| (key.shared(), value.shared())).collect();
    Lowered { workload, instance, labels }
}
