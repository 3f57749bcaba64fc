//! Which objects make pods, and where in them the pod is.

use outrigger_config::manifest::path::FieldPath;
use serde_json::Value;

use super::annotations::INJECT;
use super::{Refused, Report};

/// Lists in lists beyond this are not looked into; Kubernetes has none.
const MAX_DEPTH: usize = 4;

/// The paths of the pods in `object`, each of a mapping with `metadata` and `spec`. An object that ought to have one and does not is
/// reported.
pub fn pods(object: &Value, report: &mut Report) -> Vec<FieldPath> {
    let mut found = Vec::new();
    look(object, &FieldPath::root(), 0, report, &mut found);
    found
}

fn look(object: &Value, at: &FieldPath, depth: usize, report: &mut Report, found: &mut Vec<FieldPath>) {
    let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if is_list(api_version, kind) && depth < MAX_DEPTH {
        let items = object.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            look(item, &at.key("items").index(index), depth + 1, report, found);
        }
        return;
    }
    let Some(way) = way_to_pod(api_version, kind) else { return };
    let mut pod = object;
    let mut path = at.clone();
    for key in way {
        path = path.key(*key);
        pod = match pod.get(key) {
            Some(inner @ Value::Object(_)) => inner,
            Some(_) => {
                let Refused = report.error(&path, "must be a mapping");
                return;
            }
            None => {
                let Refused = report.error(&path, format!("is required in a {kind}, and missing"));
                return;
            }
        };
    }
    if !way.is_empty() && object["metadata"]["annotations"].get(INJECT).is_some() {
        // A webhook sees the pods alone, so it would not see this either.
        let field = at.key("metadata").key("annotations").key(INJECT);
        let right = way.iter().fold(FieldPath::root(), |path, key| path.key(*key));
        report
            .warn(&field, format!("has no effect here; it belongs to the pod: {right}.metadata.annotations"));
    }
    found.push(path);
}

fn is_list(api_version: &str, kind: &str) -> bool {
    kind == "List" && api_version == "v1"
        || kind.strip_suffix("List").is_some_and(|kind| way_to_pod(api_version, kind).is_some())
}

/// From an object to its pod; `None` for what makes no pods.
fn way_to_pod(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let (group, _version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}
