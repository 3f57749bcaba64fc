//! The configuration as it was received.

use serde_json::json;

use super::State;
use super::answer::{self, Answer, Asked};
use crate::mesh::Known;

/// Everything with its version, and how its source is doing. Never a private key.
pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let content = state.shared.mesh.inventory().lock();
    let resources = content.resources.iter().map(|((kind, name), known)| match known {
        Known::There { resource, version, stale } => {
            json!({"kind": kind, "name": name, "version": version.to_string(), "stale": stale, "resource": &**resource})
        }
        Known::Absent => json!({"kind": kind, "name": name, "absent": true}),
    });
    answer::json(&json!({"resources": resources.collect::<Vec<_>>()}))
}
