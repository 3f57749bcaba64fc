//! Gateways: listeners that cannot stand side by side, certificates that are not there.

use std::collections::BTreeMap;

use crate::registry::gateway::CLASS;
use crate::registry::{Gateway, Problem, RouteKind};

use super::{Report, State};

pub(super) fn check(report: &mut Report<'_>) {
    let gateways: BTreeMap<_, _> = report.registry.gateways.iter().collect();
    for gateway in gateways.values() {
        if !gateway.is_ours() {
            let text =
                format!("it belongs to gateway class {}; {CLASS} is the class of this mesh", gateway.class);
            report.state(&gateway.origin, State::Ignored(text));
            continue;
        }
        let usable: Vec<bool> = (0..gateway.listeners.len()).map(|i| listener(report, gateway, i)).collect();
        if !usable.contains(&true) {
            report.state(&gateway.origin, State::Ignored("none of its listeners can be used".into()));
        }
    }
}

/// Whether it can be used.
fn listener(report: &mut Report<'_>, gateway: &Gateway, index: usize) -> bool {
    let listener = &gateway.listeners[index];
    let origin = &gateway.origin;
    let mut usable = true;
    if let Some(other) = gateway.conflict(index) {
        let text = format!(
            "cannot share port {} with listener {}; neither is used (one port speaks HTTP, or TLS, or TCP, and serves a host once)",
            listener.port, other.name
        );
        report.error(origin, &listener.field, text);
        usable = false;
    }
    let mut certificates = 0;
    for reference in listener.certificates() {
        match report.registry.certificate(gateway, reference) {
            Ok(_) => certificates += 1,
            Err(problem) => {
                let member = match problem {
                    Problem::NotASecret { .. } => "kind",
                    Problem::NotGranted { .. } => "namespace",
                    _ => "name",
                };
                report.error(origin, &format!("{}.{member}", reference.field), problem.to_string());
            }
        }
    }
    if certificates == 0 && !listener.certificates().is_empty() {
        usable = false;
    }
    if !RouteKind::ALL.into_iter().any(|kind| listener.takes(kind)) {
        let field = format!("{}.allowedRoutes.kinds", listener.field);
        report.error(
            origin,
            &field,
            "none of these is a kind of route that the listener's protocol can carry",
        );
    }
    usable
}
