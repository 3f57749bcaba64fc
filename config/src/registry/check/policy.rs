//! TrafficPolicies: targets that are not there, and policies that others decide instead of.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::manifest::mesh::MESH_NAME;
use crate::model::FaultAt;
use crate::registry::{PolicyTarget, Problem, Target, TrafficPolicy};

use super::{Report, State, key_of};

pub(super) fn check(report: &mut Report<'_>) {
    let policies: BTreeMap<_, _> = report.registry.policies.all.iter().collect();
    for policy in policies.values() {
        let found: Vec<&Target> =
            policy.targets.iter().filter(|target| target_exists(report, policy, target)).collect();
        without_effect(report, policy);
        if found.is_empty() {
            report.state(&policy.origin, State::Ignored("none of its targets exists".into()));
            continue;
        }
        let sections = SECTIONS.iter().filter(|(_, has)| has(policy));
        let mut losses = Vec::new();
        for ((name, has), target) in
            sections.clone().flat_map(|section| found.iter().map(move |t| (section, t)))
        {
            let Some((winner, why)) = decided_by(report, policy, target, *has) else { continue };
            let text = format!(
                "`{name}` is decided by TrafficPolicy {}/{} here: {why}",
                winner.origin.namespace, winner.origin.name
            );
            report.warning(&policy.origin, &target.field, text);
            losses.push((winner, why));
        }
        if losses.len() == found.len() * sections.count()
            && let Some((winner, why)) = losses.first()
            && let Some(by) = key_of(&winner.origin)
        {
            report.state(&policy.origin, State::Overridden { by, why: why.clone() });
        }
    }
}

/// The sections a policy may have, each of which is decided on its own.
const SECTIONS: [(&str, Has); 9] = [
    ("timeout", |policy| policy.timeout.is_some()),
    ("retry", |policy| policy.retry.is_some()),
    ("circuitBreaker", |policy| policy.circuit_breaker.is_some()),
    ("rateLimit", |policy| policy.rate_limit.is_some()),
    ("concurrency", |policy| policy.concurrency.is_some()),
    ("loadBalancing", |policy| policy.balance.is_some()),
    ("connection", |policy| policy.multiplex.is_some()),
    // Callers' experiments and callees' do not meet.
    ("fault", |policy| policy.fault.as_ref().is_some_and(|fault| fault.at != FaultAt::Callee)),
    ("fault", |policy| policy.fault.as_ref().is_some_and(|fault| fault.at == FaultAt::Callee)),
];

type Has = fn(&TrafficPolicy) -> bool;

fn target_exists(report: &mut Report<'_>, policy: &TrafficPolicy, target: &Target) -> bool {
    let registry = report.registry;
    let wrong = match &target.to {
        PolicyTarget::Service { service: id, port } => match (registry.services.get(id), port) {
            (None, _) => Some(("name", Problem::NoSuchService(id.clone()).to_string())),
            (Some(service), _) if !Arc::ptr_eq(service, registry.meant_by(service)) => {
                let meant = &registry.meant_by(service).id;
                let text = format!(
                    "Service {}/{} is another name for {}/{} (ExternalName); policies belong to that one",
                    id.namespace, id.name, meant.namespace, meant.name
                );
                Some(("name", text))
            }
            (Some(service), Some(port)) if service.port(*port).is_none() && service.external().is_none() => {
                Some(("port", Problem::no_such_port(service, *port).to_string()))
            }
            (Some(_), _) => None,
        },
        PolicyTarget::Route { kind, name, rule } => {
            match (registry.routes.get(&(*kind, policy.namespace.clone(), name.clone())), rule) {
                (None, _) => {
                    Some(("name", format!("{} {}/{name} does not exist", kind.as_str(), policy.namespace)))
                }
                (Some(route), Some(rule)) if !route.rules.iter().any(|r| r.name.as_ref() == Some(rule)) => {
                    let text =
                        format!("{} {}/{name} has no rule named {rule}", kind.as_str(), policy.namespace);
                    Some(("sectionName", text))
                }
                (Some(_), _) => None,
            }
        }
        PolicyTarget::Namespace(namespace) => {
            if !registry.services.keys().any(|service| service.namespace == *namespace) {
                report.warning(
                    &policy.origin,
                    &format!("{}.name", target.field),
                    format!("there is no Service in namespace {namespace}"),
                );
            }
            None
        }
        PolicyTarget::Mesh(name) if **name != *MESH_NAME => {
            Some(("name", format!("Mesh {name} does not exist; the one Mesh is called {MESH_NAME}")))
        }
        PolicyTarget::Mesh(_) => None,
    };
    match wrong {
        None => true,
        Some((member, text)) => {
            report.error(&policy.origin, &format!("{}.{member}", target.field), text);
            false
        }
    }
}

/// Connections and endpoints belong to a Service and are shared by the rules that lead to it.
fn without_effect(report: &mut Report<'_>, policy: &TrafficPolicy) {
    if !policy.targets.iter().any(|target| matches!(target.to, PolicyTarget::Route { .. })) {
        return;
    }
    if policy.timeout.is_some_and(|section| section.connect.is_some()) {
        let text = "has no effect on a route, whose rules share the connections of the Services behind them; \
                    give it to the Service";
        report.warning(&policy.origin, "spec.timeout.connect", text);
    }
    if let Some(field) = policy.only_for_services {
        let text = "has no effect on a route, whose rules share the connections and endpoints of the Services \
                    behind them; give it to the Service";
        report.warning(&policy.origin, &format!("spec.circuitBreaker.{field}"), text);
    }
    if policy.balance.is_some() {
        let text = "has no effect on a route, whose rules share the endpoints of the Services behind them; \
                    give it to the Service";
        report.warning(&policy.origin, "spec.loadBalancing", text);
    }
    if policy.multiplex.is_some() {
        let text = "has no effect on a route, whose rules share the connections of the Services behind them; \
                    give it to the Service";
        report.warning(&policy.origin, "spec.connection", text);
    }
}

/// The policy that has the same section, target and callers, and goes before this one.
fn decided_by(
    report: &Report<'_>,
    policy: &TrafficPolicy,
    target: &Target,
    has: Has,
) -> Option<(Arc<TrafficPolicy>, String)> {
    let registry = report.registry;
    let rivals = match &target.to {
        PolicyTarget::Service { service, .. } => registry.policies_for_service(service),
        PolicyTarget::Route { kind, name, .. } => registry.policies_for_route(*kind, &policy.namespace, name),
        PolicyTarget::Namespace(namespace) => registry.policies_for_namespace(namespace),
        PolicyTarget::Mesh(_) => registry.policies_for_mesh(),
    };
    let everyone = matches!(target.to, PolicyTarget::Mesh(_));
    let first = rivals
        .iter()
        .filter(|(rival, index)| {
            has(rival)
                && rival.targets[*index].to == target.to
                && (everyone || rival.namespace == policy.namespace)
        })
        .map(|(rival, _)| rival)
        .min_by(|a, b| a.seniority.cmp(&b.seniority))?;
    (first.seniority < policy.seniority)
        .then(|| (first.clone(), first.seniority.reason(&policy.seniority).to_string()))
}
