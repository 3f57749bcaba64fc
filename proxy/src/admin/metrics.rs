//! The metrics page. What is measured, and how a metric is spelled, is `telemetry`.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use http::StatusCode;
use outrigger_config::model::Health;

use super::State;
use super::answer::{Answer, Asked, text};
use crate::telemetry::{CONTENT_TYPE, Gauge, Text};
use crate::worker::Shared;

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    text(StatusCode::OK, CONTENT_TYPE, page(&state.shared))
}

fn page(shared: &Shared) -> String {
    let mut out = Text::default();
    out.metrics(&shared.telemetry.metrics);
    out.gauges(
        "outrigger_endpoints",
        "Endpoints known, by what the source says of them.",
        &endpoints(shared),
    );
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

fn endpoints(shared: &Shared) -> Vec<Gauge> {
    let mut gauges: Vec<Gauge> = Vec::new();
    let content = shared.mesh.inventory().lock();
    for cluster in content.clusters.values() {
        let Some(service) = cluster.settings().service.clone() else { continue };
        let mut states = BTreeMap::from([("healthy", 0), ("draining", 0), ("unhealthy", 0)]);
        for endpoint in cluster.endpoints().iter() {
            let state = match endpoint.health() {
                Health::Healthy => "healthy",
                Health::Draining => "draining",
                Health::Unhealthy => "unhealthy",
            };
            *states.entry(state).or_default() += 1;
        }
        for (state, count) in states {
            let labels = vec![("service", service.to_string()), ("state", state.to_owned())];
            // Several ports of a service are one series.
            match gauges.iter_mut().find(|gauge| gauge.labels == labels) {
                Some(gauge) => gauge.value += f64::from(count),
                None => gauges.push(Gauge { labels, value: f64::from(count) }),
            }
        }
    }
    gauges
}
