//! AccessPolicy.

use crate::manifest::access_policy::{AccessPolicy as Manifest, MtlsMode as Mode, MtlsSection as Section};
use crate::model::MtlsMode;
use crate::registry::access::{AccessPolicy, MtlsSection, PortMtls};

use super::Identity;

pub(in crate::registry) fn access_policy(id: &Identity<'_>, manifest: &Manifest) -> AccessPolicy {
    let spec = &manifest.spec;
    let labels = spec.selector.iter().flat_map(|selector| &selector.match_labels);
    AccessPolicy {
        namespace: id.namespace.clone(),
        seniority: id.seniority(),
        selector: labels.map(|(key, value)| (key.shared(), value.shared())).collect(),
        mtls: spec.mtls.as_ref().map(mtls).unwrap_or_default(),
        origin: id.origin(),
    }
}

fn mtls(section: &Section) -> MtlsSection {
    let port = |(i, port): (usize, &crate::manifest::access_policy::PortMtls)| PortMtls {
        port: port.port.get(),
        mode: mode(port.mode),
        field: format!("spec.mtls.ports[{i}]").into(),
    };
    MtlsSection { mode: section.mode.map(mode), ports: section.ports.iter().enumerate().map(port).collect() }
}

pub(in crate::registry) const fn mode(manifest: Mode) -> MtlsMode {
    match manifest {
        Mode::Strict => MtlsMode::Strict,
        Mode::Permissive => MtlsMode::Permissive,
        Mode::Disabled => MtlsMode::Disabled,
    }
}
