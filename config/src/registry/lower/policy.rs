//! TrafficPolicy.

use std::sync::Arc;

use crate::manifest::traffic_policy::{
    ConnectionSection, MultiplexHttp1, TargetRef, TimeoutSection as Manifest, TrafficPolicy as PolicyManifest,
};
use crate::manifest::value::Duration;
use crate::model::{Multiplex, ServiceRef, Timeouts};
use crate::registry::policy::{PolicyTarget, Target, TimeoutSection, TrafficPolicy};
use crate::registry::route::RouteKind;

use super::{Identity, balance, circuit_breaker, fault, limit, retry};

/// `home`: the mesh's own trust domain.
pub(in crate::registry) fn traffic_policy(
    id: &Identity<'_>,
    manifest: &PolicyManifest,
    home: &Arc<str>,
) -> TrafficPolicy {
    let target = |(i, target): (usize, &TargetRef)| Target {
        to: match target {
            TargetRef::Service { namespace, name, port } => PolicyTarget::Service {
                service: ServiceRef { namespace: id.namespace_or(namespace.as_ref()), name: name.shared() },
                port: port.map(|port| port.get()),
            },
            TargetRef::HttpRoute { name, rule } => PolicyTarget::Route {
                kind: RouteKind::Http,
                name: name.shared(),
                rule: rule.as_ref().map(|rule| rule.shared()),
            },
            TargetRef::GrpcRoute { name, rule } => PolicyTarget::Route {
                kind: RouteKind::Grpc,
                name: name.shared(),
                rule: rule.as_ref().map(|rule| rule.shared()),
            },
            TargetRef::Namespace { name } => PolicyTarget::Namespace(name.shared()),
            TargetRef::Mesh { name } => PolicyTarget::Mesh(name.shared()),
        },
        field: format!("spec.targetRefs[{i}]").into(),
    };
    let breaker = manifest.spec.circuit_breaker.as_ref();
    TrafficPolicy {
        namespace: id.namespace.clone(),
        seniority: id.seniority(),
        targets: manifest.spec.target_refs.iter().enumerate().map(target).collect(),
        timeout: manifest.spec.timeout.as_ref().map(timeout),
        retry: manifest.spec.retry.as_ref().map(|manifest| Arc::new(retry::retry(manifest))),
        circuit_breaker: breaker.map(|manifest| {
            Arc::new(circuit_breaker::circuit_breaker(manifest, id.origin().at("spec.circuitBreaker")))
        }),
        only_for_services: breaker.and_then(|manifest| manifest.only_for_services()),
        rate_limit: manifest.spec.rate_limit.as_ref().map(|section| limit::rates(id, section)),
        concurrency: manifest.spec.concurrency.as_ref().map(|section| limit::concurrency(id, section)),
        adaptive: manifest.spec.concurrency.as_ref().map(|section| limit::adaptive(id, section)),
        fault: manifest.spec.fault.as_ref().map(|section| Arc::new(fault::faults(id, section, home))),
        balance: manifest.spec.load_balancing.as_ref().map(|manifest| Arc::new(balance::balance(manifest))),
        multiplex: manifest.spec.connection.as_ref().map(multiplex),
        origin: id.origin(),
    }
}

fn multiplex(manifest: &ConnectionSection) -> Multiplex {
    match manifest.multiplex_http1 {
        MultiplexHttp1::Never => Multiplex::Never,
        MultiplexHttp1::WhenBusy => Multiplex::WhenBusy,
        MultiplexHttp1::Always => Multiplex::Always,
    }
}

fn timeout(manifest: &Manifest) -> TimeoutSection {
    // `0s` and an absent field mean the same here: a section is taken as a whole, with its defaults.
    let limit = |given: Option<Duration>| given.map(Duration::get).filter(|duration| !duration.is_zero());
    TimeoutSection {
        exchange: Timeouts {
            request: limit(manifest.request),
            backend_request: limit(manifest.per_try),
            stream_idle: limit(manifest.idle),
            stream: limit(manifest.stream),
        },
        connect: manifest.connect.map(Duration::get),
    }
}
