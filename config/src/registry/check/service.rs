//! Services, EndpointSlices and Workloads.

use std::collections::{BTreeMap, HashMap};

use crate::manifest::endpoint_slice::SERVICE_NAME_LABEL;
use crate::manifest::{Kind, Manifest};
use crate::model::{Origin, ServiceRef};

use super::{Report, State};
use crate::registry::{Backing, Service, TargetPort};

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

/// A Service whose calls would reach nobody. Of Pods nothing is known here, so nothing is said where there are no Workloads.
fn target_ports(report: &mut Report<'_>, service: &Service) {
    if !matches!(service.backing, Backing::Selected(_)) {
        return;
    }
    let Some(selected) = report.registry.selected.get(&service.id).cloned() else {
        let here = report.registry.workloads.keys().any(|(namespace, _)| *namespace == service.id.namespace);
        if here && !report.registry.members.contains_key(&service.id) {
            let text = format!("no Workload in namespace {} has these labels", service.id.namespace);
            report.warning(&service.origin, "spec.selector", text);
        }
        return;
    };
    let ports = || selected.iter().flat_map(|workload| &workload.ports).map(|port| &port.port);
    for port in &service.ports {
        let (reached, wanted) = match &port.target {
            TargetPort::Name(name) => {
                (ports().any(|p| p.name.as_ref() == Some(name)), format!("a port named {name}"))
            }
            TargetPort::Number(number) => (ports().any(|p| p.number == *number), format!("port {number}")),
        };
        if !reached {
            let mut numbers: Vec<_> = ports().map(|port| port.number.to_string()).collect();
            numbers.sort();
            numbers.dedup();
            let has = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
            let text = format!("none of the Workloads it selects has {wanted}; they have {has}");
            let field = format!("{}.targetPort", port.field);
            match &port.target {
                TargetPort::Name(_) => report.error(&service.origin, &field, text),
                // An app without a sidecar may well listen on what it does not declare.
                TargetPort::Number(_) => report.warning(&service.origin, &field, text),
            }
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
