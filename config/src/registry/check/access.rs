//! AccessPolicies: those that are about nobody, ports nobody has, conditions that never hold where they stand, and modes others decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{AccessAction, AccessRule, Protocol};
use crate::registry::{AccessPolicy, Registry, State, Workload};

use super::{Report, key_of};

pub(super) fn check(report: &mut Report<'_>) {
    let registry = report.registry;
    let policies: BTreeMap<_, _> = registry.access.all.iter().collect();
    for policy in policies.into_values() {
        let about: Vec<&Arc<Workload>> = registry.workloads_under(policy).collect();
        if about.is_empty() {
            let (field, text) = match policy.selects() {
                true => {
                    ("spec.selector", format!("it selects no Workload of namespace {}", policy.namespace))
                }
                false => ("", format!("there is no Workload in namespace {}", policy.namespace)),
            };
            report.warning(&policy.origin, field, text);
            continue;
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            check_rule(report, policy, rule, &format!("spec.rules[{i}]"), &about);
        }
        for port in policy.mtls.ports.iter().filter(|port| !declared(&about, port.port)) {
            let field = format!("{}.port", port.field);
            report.warning(&policy.origin, &field, undeclared(port.port));
        }
        mtls_decided_by(report, policy, &about);
    }
}

fn check_rule(
    report: &mut Report<'_>,
    policy: &AccessPolicy,
    rule: &AccessRule,
    field: &str,
    about: &[&Arc<Workload>],
) {
    for (i, to) in rule.to.iter().enumerate() {
        for (list, ports) in [("ports", &to.ports.is), ("notPorts", &to.ports.is_not)] {
            for (j, port) in ports.iter().enumerate().filter(|(_, port)| !declared(about, **port)) {
                let field = format!("{field}.to[{i}].{list}[{j}]");
                report.warning(&policy.origin, &field, undeclared(*port));
            }
        }
        if !to.is_http() {
            continue;
        }
        // Ports it is certainly about and that certainly carry no HTTP.
        let tcp = to.ports.is.iter().find(|port| carries_bytes(report.registry, about, **port));
        if let Some(port) = tcp {
            let text = match rule.action {
                AccessAction::Allow => format!(
                    "port {port} carries TCP, where there are no requests: a rule with conditions on them allows nothing there"
                ),
                AccessAction::Deny => format!(
                    "port {port} carries TCP, where there are no requests: of this rule only `from` and `ports` count there"
                ),
            };
            report.warning(&policy.origin, &format!("{field}.to[{i}]"), text);
        }
    }
}

fn undeclared(port: u16) -> String {
    format!("no workload this policy is about has a port {port}")
}

fn declared(about: &[&Arc<Workload>], port: u16) -> bool {
    about.iter().any(|workload| workload.ports.iter().any(|own| own.port.number == port))
}

/// Whether every workload that has the port speaks no HTTP there.
fn carries_bytes(registry: &Registry, about: &[&Arc<Workload>], port: u16) -> bool {
    let mut protocols = about.iter().flat_map(|workload| {
        let ports = workload.ports.iter().filter(move |own| own.port.number == port);
        ports.map(move |own| own.port.protocol_behind(&registry.services_of(workload, &own.port)))
    });
    let all: Vec<Protocol> = protocols.by_ref().collect();
    !all.is_empty() && all.iter().all(|protocol| matches!(protocol, Protocol::Tcp | Protocol::Tls))
}

/// Another policy that says otherwise of all the same workloads.
fn mtls_decided_by(report: &mut Report<'_>, policy: &AccessPolicy, about: &[&Arc<Workload>]) {
    let Some(mode) = policy.mtls.mode else { return };
    let registry = report.registry;
    let mut winner = None;
    for workload in about {
        let decides = registry
            .access_policies(workload)
            .filter(|other| other.mtls.mode.is_some())
            .min_by_key(|other| !other.selects());
        match decides {
            Some(other) if other.origin != policy.origin && other.mtls.mode != Some(mode) => {
                winner.get_or_insert(other);
            }
            _ => return,
        }
    }
    let Some(winner) = winner else { return };
    let why = if winner.selects() && !policy.selects() {
        "it selects them".to_owned()
    } else {
        winner.seniority.reason(&policy.seniority).to_string()
    };
    let text = format!(
        "it is decided by AccessPolicy {}/{} for all workloads here: {why}",
        winner.origin.namespace, winner.origin.name
    );
    report.warning(&policy.origin, "spec.mtls.mode", text);
    if policy.rules.is_empty()
        && policy.mtls.ports.is_empty()
        && let Some(by) = key_of(&winner.origin)
    {
        report.state(&policy.origin, State::Overridden { by, why });
    }
}
