//! What requests can go to, and how it is doing.

use serde_json::json;

use super::State;
use super::answer::{self, Answer, Asked};

pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let content = state.shared.mesh.inventory().lock();
    let clusters = content.clusters.iter().map(|(name, cluster)| {
        let endpoints = cluster.endpoints();
        let endpoints = endpoints.iter().map(|endpoint| {
            json!({
                "address": endpoint.address.to_string(),
                "health": format!("{:?}", endpoint.health()),
                "workload": endpoint.workload.as_deref(),
                "in_flight": endpoint.in_flight(),
            })
        });
        json!({"name": name, "endpoints": endpoints.collect::<Vec<_>>()})
    });
    answer::json(&json!({"clusters": clusters.collect::<Vec<_>>()}))
}
