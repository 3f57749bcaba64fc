//! The configuration as it was received.

use outrigger_config::model::Resource;
use serde_json::{Value, json};

use super::State;
use super::answer::{self, Answer, Asked};
use crate::mesh::{Content, Known, Link};

/// Everything with its version, what is kept for the time its source is away, and how the source is doing. Never a private key.
pub(super) fn answer(_: &Asked, state: &State) -> Answer {
    let content = state.shared.mesh.inventory().lock();
    answer::json(&json!({
        "source": source(&content.link),
        "resources": resources(&content),
        "expired": expired(&content),
    }))
}

/// How the source of the configuration is doing.
pub(super) fn source(link: &Link) -> Value {
    json!({
        "name": &*link.source,
        "connected": link.connected,
        "age_seconds": link.age().map(|age| age.as_secs()),
        "error": link.error.as_deref(),
    })
}

fn resources(content: &Content) -> Vec<Value> {
    let resources = content.resources.iter().map(|((kind, name), known)| match known {
        Known::There { resource, version, stale } => {
            let version = version.to_string();
            json!({"kind": kind, "name": name, "version": version, "stale": stale, "resource": &**resource})
        }
        Known::Absent => json!({"kind": kind, "name": name, "absent": true}),
    });
    resources.collect()
}

/// Destinations nobody used for a while, used again where nobody can be asked about them.
fn expired(content: &Content) -> Vec<Value> {
    let names = content.shelf.iter().map(|(name, shelved)| {
        let named = |resource: &Resource| json!({"kind": resource.kind(), "name": resource.name()});
        let made_of: Vec<_> = shelved.resources.iter().map(|(resource, _)| named(resource)).collect();
        let seconds = shelved.since.elapsed().unwrap_or_default().as_secs();
        json!({"name": name.to_string(), "seconds": seconds, "resources": made_of})
    });
    names.collect()
}
