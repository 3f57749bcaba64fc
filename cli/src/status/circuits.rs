//! Endpoints that callers have ejected and caps that are reached, as each proxy says it on its admin port.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use outrigger_config::diagnostic::Severity;
use serde::Deserialize;

use super::problem::{Kind, Problem};
use crate::http::get_json;
use crate::up::MeshReport;

/// A proxy answers from memory. One that does not is among the problems already.
const PATIENCE: Duration = Duration::from_secs(2);

/// `/clusters` of a proxy, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Said {
    clusters: Vec<Cluster>,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    name: String,
    service: Option<String>,
    #[serde(default)]
    caps: BTreeMap<String, Cap>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Cap {
    limit: u32,
    in_use: u32,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    address: String,
    workload: Option<String>,
    ejection: Option<Ejection>,
}

#[derive(Debug, Deserialize)]
struct Ejection {
    state: String,
    mode: String,
    reason: Option<String>,
    next_probe_ms: Option<u64>,
    share: f64,
}

/// What the proxies of a mesh have ejected, and which of their caps are reached.
pub async fn problems(mesh: &MeshReport) -> Vec<Problem> {
    let asked = mesh.proxies().map(|(proxy, admin)| async move {
        match get_json::<Said>(admin, "/clusters", PATIENCE).await {
            Ok(said) => said.clusters.iter().flat_map(|cluster| of_cluster(&proxy, cluster)).collect(),
            Err(_) => Vec::new(),
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn of_cluster(caller: &str, cluster: &Cluster) -> Vec<Problem> {
    let service = cluster.service.as_deref().unwrap_or(&cluster.name);
    let problem =
        |severity, message| Problem { severity, kind: Kind::Circuit, place: caller.to_owned(), message };
    let mut problems = Vec::new();
    for endpoint in &cluster.endpoints {
        let Some(ejection) = &endpoint.ejection else { continue };
        let who = match &endpoint.workload {
            Some(workload) => format!("{} ({workload}) of {service}", endpoint.address),
            None => format!("{} of {service}", endpoint.address),
        };
        let (severity, verb) = match (ejection.mode.as_str(), ejection.state.as_str()) {
            ("observe", _) => (Severity::Note, "would send"),
            (_, "ramping") => (Severity::Note, "sends"),
            _ => (Severity::Warning, "sends"),
        };
        let why = ejection.reason.as_deref().unwrap_or("unknown");
        let message = match (ejection.state.as_str(), ejection.next_probe_ms) {
            ("ramping", _) => {
                format!(
                    "{verb} {who} {:.0} % of its share: it is back, and gets more",
                    ejection.share * 100.0
                )
            }
            ("probing", _) => {
                format!("{verb} {who} one request, to see whether it is well again; ejected for {why}")
            }
            (_, Some(wait)) => format!(
                "{verb} {who} nothing: ejected for {why}, next probe in {:.1} s",
                wait as f64 / 1000.0
            ),
            (_, None) => format!("{verb} {who} nothing: ejected for {why}"),
        };
        problems.push(problem(severity, message));
    }
    for (cap, Cap { limit, in_use }) in &cluster.caps {
        if in_use >= limit {
            let message = format!("has as many {cap} to {service} as its circuit breaker allows, {limit}");
            problems.push(problem(Severity::Warning, message));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ejections_and_full_caps_are_told_with_their_reason() {
        let ejection = |state: &str, mode: &str, wait: Option<u64>| json!({"state": state, "mode": mode, "reason": "slow_calls", "share": 0.3, "next_probe_ms": wait});
        let endpoint = |last: u8, ejection: serde_json::Value| json!({"address": format!("127.64.3.{last}:80"), "workload": "default/v2", "ejection": ejection});
        let said: Said = serde_json::from_value(json!({"clusters": [{
            "name": "outbound|80||reviews", "service": "reviews.default",
            "caps": {"requests": {"limit": 2, "in_use": 2}, "pending": {"limit": 2, "in_use": 1}},
            "endpoints": [
                endpoint(1, json!(null)),
                endpoint(2, ejection("ejected", "enforce", Some(1_500))),
                endpoint(3, ejection("ejected", "observe", Some(1_500))),
                endpoint(4, ejection("ramping", "enforce", None)),
            ],
        }]}))
        .expect("as a proxy says it");
        let found = of_cluster("default/web", &said.clusters[0]);
        let lines: Vec<_> = found.iter().map(|one| format!("{}: {one}", one.severity)).collect();
        assert_eq!(
            lines,
            [
                "warning: default/web: sends 127.64.3.2:80 (default/v2) of reviews.default nothing: ejected for slow_calls, \
                 next probe in 1.5 s",
                "note: default/web: would send 127.64.3.3:80 (default/v2) of reviews.default nothing: ejected for slow_calls, \
                 next probe in 1.5 s",
                "note: default/web: sends 127.64.3.4:80 (default/v2) of reviews.default 30 % of its share: it is back, and gets more",
                "warning: default/web: has as many requests to reviews.default as its circuit breaker allows, 2",
            ]
        );
    }
}
