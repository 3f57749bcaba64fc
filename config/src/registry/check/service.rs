//! Services, EndpointSlices and Workloads.

use std::collections::{BTreeMap, HashMap};

use crate::manifest::endpoint_slice::SERVICE_NAME_LABEL;
use crate::manifest::{Kind, Manifest};
use crate::model::{Origin, ServiceRef};

use super::{Report, State};
use crate::registry::{Member, Service, TargetPort};

pub(super) fn check(report: &mut Report<'_>) {
    let services: BTreeMap<_, _> = report.registry.services.iter().collect();
    for (id, service) in services {
        cluster_ips(report, id, service);
        target_ports(report, service);
    }
    slices(report);
    addresses(report);
}

fn cluster_ips(report: &mut Report<'_>, id: &ServiceRef, service: &Service) {
    for address in &service.cluster_ips {
        let Some(owner) = report.registry.services_by_ip.get(address).filter(|owner| *owner != id) else {
            continue;
        };
        let text = format!(
            "{address} is Service {}/{}'s already; calls to it go there",
            owner.namespace, owner.name
        );
        report.warning(&service.origin, "spec.clusterIP", text);
    }
}

/// A port name that none of the workloads behind the Service has leads nowhere.
fn target_ports(report: &mut Report<'_>, service: &Service) {
    let members = report.registry.members.get(&service.id).map(Vec::as_slice).unwrap_or_default();
    let selected: Vec<_> = members
        .iter()
        .filter_map(|member| match member {
            Member::Selected(instance) => Some(instance),
            Member::Listed(_) => None,
        })
        .collect();
    for port in &service.ports {
        let TargetPort::Name(name) = &port.target else { continue };
        if !selected.is_empty() && selected.iter().all(|instance| instance.port_named(name).is_none()) {
            let text = format!("none of the workloads it selects has a port named {name}");
            report.error(&service.origin, &format!("{}.targetPort", port.field), text);
        }
    }
}

fn slices(report: &mut Report<'_>) {
    for (key, object) in &report.registry.objects {
        let Manifest::EndpointSlice(slice) = &object.manifest else { continue };
        let origin = Origin::new(Kind::EndpointSlice.as_str(), &key.namespace, &key.name, "");
        let Some(name) = slice.metadata.label(SERVICE_NAME_LABEL) else {
            // The manifest is warned about already.
            report.state(&origin, State::Ignored(format!("it has no label {SERVICE_NAME_LABEL}")));
            continue;
        };
        let ignored = match report.registry.service(&key.namespace, name) {
            None => format!("Service {}/{name} does not exist", key.namespace),
            Some(service) if service.external().is_some() => {
                format!("Service {}/{name} is a name outside the mesh (ExternalName)", key.namespace)
            }
            Some(_) => continue,
        };
        let field = format!("metadata.labels[\"{SERVICE_NAME_LABEL}\"]");
        report.warning(&origin, &field, ignored.clone());
        report.state(&origin, State::Ignored(ignored));
    }
}

/// Two instances at one address can be told apart by their ports alone.
fn addresses(report: &mut Report<'_>) {
    let mut taken: HashMap<_, &Origin> = HashMap::new();
    let workloads: BTreeMap<_, _> = report.registry.workloads.iter().collect();
    for workload in workloads.values() {
        let Some(address) = workload.address else { continue };
        for port in &workload.ports {
            match taken.get(&(address, port.port.number)) {
                None => {
                    taken.insert((address, port.port.number), &workload.origin);
                }
                Some(other) => {
                    let text = format!(
                        "Workload {}/{} has {address} and port {} as well; calls may reach either",
                        other.namespace, other.name, port.port.number
                    );
                    report.warning(&workload.origin, "spec.address", text);
                }
            }
        }
    }
}
