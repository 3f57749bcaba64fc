//! The metrics page. What is measured, and how a metric is spelled, is `telemetry`.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use outrigger_config::model::BreakerMode;
use tokio::time::Instant;

use super::State;
use super::answer::{Answer, Asked, text};
use crate::telemetry::{CONTENT_TYPE, Gauge, Text};
use crate::upstream::{Cluster, Ejected, Usable};
use crate::worker::Shared;

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    text(StatusCode::OK, CONTENT_TYPE, page(&state.shared))
}

fn page(shared: &Shared) -> String {
    let mut out = Text::default();
    out.metrics(&shared.telemetry.metrics);
    let endpoints = endpoints(shared);
    out.gauges(
        "outrigger_endpoints",
        "Endpoints known, by what the source says of them and, of the healthy ones, whether they are ejected.",
        &endpoints.by_state,
    );
    out.gauges(
        "outrigger_endpoints_ejected",
        "Endpoints that are out for failing, by the rule; in mode observe they only would be.",
        &endpoints.ejected,
    );
    out.gauges(
        "outrigger_next_probe_seconds",
        "Until a request may find out whether one of the ejected endpoints is well again.",
        &endpoints.next_probe,
    );
    out.gauges("outrigger_cap_limit", "Caps on what is sent to a service.", &endpoints.limits);
    out.gauges("outrigger_cap_in_use", "What counts towards each cap now.", &endpoints.in_use);
    if let Some(svid) = shared.identity.svid() {
        out.gauge(
            "outrigger_certificate_expiry_timestamp_seconds",
            "When the certificate of this proxy ends, in seconds since 1970.",
            svid.leaf.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        );
    }
    if let Some(age) = shared.mesh.inventory().lock().link.age() {
        out.gauge(
            "outrigger_config_age_seconds",
            "Since the source of the configuration was last there; 0 while it is.",
            age.as_secs_f64(),
        );
    }
    out.into_string()
}

/// What is told of the endpoints of each service.
#[derive(Default)]
struct Endpoints {
    by_state: Vec<Gauge>,
    ejected: Vec<Gauge>,
    next_probe: Vec<Gauge>,
    limits: Vec<Gauge>,
    in_use: Vec<Gauge>,
}

fn endpoints(shared: &Shared) -> Endpoints {
    let mut all = Endpoints::default();
    let now = Instant::now();
    let content = shared.mesh.inventory().lock();
    for cluster in content.clusters.values() {
        let Some(service) = cluster.settings().service.clone() else { continue };
        let service = service.to_string();
        let mut states = BTreeMap::from([("healthy", 0), ("draining", 0), ("unhealthy", 0)]);
        let mut reasons = BTreeMap::new();
        let mut next_probe: Option<Duration> = None;
        for endpoint in cluster.endpoints().iter() {
            let ejected = endpoint.ejected(now);
            let state = match (endpoint.usable(), &ejected) {
                (Usable::Yes, Some(Ejected { state, mode: BreakerMode::Enforce, .. })) => state.word(),
                (Usable::Yes, _) => "healthy",
                (Usable::Draining, _) => "draining",
                (Usable::NotReady | Usable::FailsChecks, _) => "unhealthy",
            };
            *states.entry(state).or_default() += 1;
            let Some(Ejected { mode, reason: Some(reason), next_probe: next, .. }) = ejected else {
                continue;
            };
            *reasons.entry((reason.word(), mode.label())).or_default() += 1;
            next_probe = next.into_iter().chain(next_probe).min();
        }
        all.caps(&service, cluster);
        for (state, count) in states {
            add(&mut all.by_state, vec![("service", service.clone()), ("state", state.into())], count);
        }
        for ((reason, mode), count) in reasons {
            let labels = vec![("service", service.clone()), ("reason", reason.into()), ("mode", mode.into())];
            add(&mut all.ejected, labels, count);
        }
        if let Some(wait) = next_probe {
            let labels = vec![("service", service)];
            let wait = wait.as_secs_f64();
            match all.next_probe.iter_mut().find(|gauge| gauge.labels == labels) {
                Some(gauge) => gauge.value = gauge.value.min(wait),
                None => all.next_probe.push(Gauge { labels, value: wait }),
            }
        }
    }
    drop(content);
    // What the app itself is sent has caps, too.
    let inbound = shared.mesh.inbound().borrow().clone();
    for port in inbound.iter().flat_map(|inbound| inbound.ports.values()) {
        let Some(destination) = port.destination.current() else { continue };
        let Some(service) = &destination.service else { continue };
        for upstream in destination.tcp.iter() {
            all.caps(&service.to_string(), &upstream.cluster);
        }
    }
    all
}

impl Endpoints {
    fn caps(&mut self, service: &str, cluster: &Cluster) {
        for one in cluster.circuit().in_use() {
            let labels = || vec![("service", service.to_owned()), ("cap", one.cap.word().into())];
            add(&mut self.limits, labels(), one.limit);
            add(&mut self.in_use, labels(), one.now);
        }
    }
}

/// Several ports of a service are one series.
fn add(gauges: &mut Vec<Gauge>, labels: Vec<(&'static str, String)>, count: u32) {
    match gauges.iter_mut().find(|gauge| gauge.labels == labels) {
        Some(gauge) => gauge.value += f64::from(count),
        None => gauges.push(Gauge { labels, value: f64::from(count) }),
    }
}
