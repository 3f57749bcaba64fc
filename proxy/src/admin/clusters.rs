//! What requests can go to, and how it is doing.

use outrigger_config::model::Fraction;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::State;
use super::answer::{self, Answer, Asked};
use crate::upstream::{Cluster, Ejected, EjectionReason, Endpoint, Latencies, Usable, Use};

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let content = state.shared.mesh.inventory().lock();
    let now = Instant::now();
    let clusters: Vec<_> = content.clusters.values().map(|one| cluster(one, now)).collect();
    answer::json(&json!({ "clusters": clusters }))
}

fn cluster(cluster: &Cluster, now: Instant) -> Value {
    let settings = cluster.settings();
    let endpoints: Vec<_> = cluster.endpoints().iter().map(|one| endpoint(one, now)).collect();
    let caps: serde_json::Map<_, _> = cluster.circuit().in_use().into_iter().map(cap).collect();
    json!({
        "name": settings.name,
        "service": settings.service.as_ref().map(ToString::to_string),
        // Without them a request waits; with none of them it fails.
        "endpoints_received": cluster.has_endpoints(),
        "connect_timeout_ms": settings.connect_timeout.as_millis() as u64,
        // Those that are set.
        "caps": caps,
        // Null where no policy asks for a percentile, or there were too few answers to tell one.
        "first_attempts_ms": cluster.known_latencies().and_then(|latencies| first_attempts(latencies, now)),
        "balancing": settings.balance.algorithm.word(),
        // Null where nobody says anything and the defaults hold.
        "balancing_by": settings.balance.origin.as_ref().map(ToString::to_string),
        "breaker_by": settings.circuit_breaker.origin.as_ref().map(ToString::to_string),
        "endpoints": endpoints,
    })
}

/// What that share of them took at most within the last minute: by this hedging knows how long to wait.
fn first_attempts(latencies: &Latencies, now: Instant) -> Option<Value> {
    let at = |percent: u32| {
        let share = Fraction::new(percent, 100)?;
        Some(latencies.percentile(share, now)?.as_micros() as f64 / 1000.0)
    };
    Some(json!({ "p50": at(50)?, "p90": at(90)?, "p95": at(95)?, "p99": at(99)? }))
}

/// `estimate_ms`: what it is expected to take to answer; a slow answer raises it at once, it sinks within 10 s.
fn endpoint(endpoint: &Endpoint, now: Instant) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "health": format!("{:?}", endpoint.health()),
        "usable": match endpoint.usable() {
            Usable::Yes => "yes",
            Usable::Draining => "draining",
            Usable::NotReady => "not ready",
            Usable::FailsChecks => "fails its health checks",
        },
        "check_failure": endpoint.check_failure().map(|failure| failure.as_str().to_owned()),
        "weight": endpoint.weight(),
        "in_flight": endpoint.in_flight(),
        "estimate_ms": endpoint.estimate(now).as_micros() as f64 / 1000.0,
        "workload": endpoint.workload.as_deref(),
        "zone": endpoint.zone.as_deref(),
        "identity": endpoint.identity.as_ref().map(ToString::to_string),
        "meshed": endpoint.meshed,
        // Null as long as it gets its full share.
        "ejection": endpoint.ejected(now).map(ejection),
    })
}

fn ejection(ejected: Ejected) -> Value {
    json!({
        "state": ejected.state.word(),
        // In observe it gets its requests all the same.
        "mode": ejected.mode.label(),
        "reason": ejected.reason.map(EjectionReason::word),
        "share": f64::from((ejected.share * 100.0).round()) / 100.0,
        "next_probe_ms": ejected.next_probe.map(|wait| wait.as_millis() as u64),
    })
}

fn cap(one: Use) -> (String, Value) {
    (one.cap.word().into(), json!({ "limit": one.limit, "in_use": one.now }))
}
