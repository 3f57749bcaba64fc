//! What was changed on a pod, kept on the pod itself, and the way back.
//!
//! Whatever injection adds has a name of ours; whatever it changes of the user's is noted here, so that nothing else has to remember it.

use outrigger_config::manifest::path::FieldPath;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::probes::{self, PROBES_ENV, PortName};
use super::shape::{self, Object};
use super::sidecar::{self, CAPTURE_CONTAINER, MESHED_LABEL, PROXY_CONTAINER};
use super::{Refused, Report};

/// The annotation that marks an injected pod; its value is a [`Record`] as JSON.
pub const RECORD: &str = "outrigger.dev/injected";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Of the program that did it.
    pub version: String,
    /// The pod's grace period, where it was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Grace>,
    /// Containers whose stop was delayed by the drain window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed: Vec<String>,
    /// Rewritten probes whose port had a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_names: Vec<PortName>,
    /// Whether the annotations for Prometheus are ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scraped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grace {
    /// Absent: none was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<u64>,
    pub now: u64,
}

/// Takes out what injection put in, if the pod carries the record of one. What the user changed since then stays as it is.
pub fn remove(template: &mut Object, report: &mut Report) -> Result<(), Refused> {
    let root = FieldPath::root();
    let metadata_at = root.key("metadata");
    let Some(metadata) = shape::object(template, &root, "metadata", report)? else { return Ok(()) };
    let Some(annotations) = shape::object(metadata, &metadata_at, "annotations", report)? else {
        return Ok(());
    };
    let annotations_at = metadata_at.key("annotations");
    let Some(text) = shape::text(annotations, &annotations_at, RECORD, report)? else { return Ok(()) };
    let record: Record = match serde_json::from_str(text) {
        Ok(record) => record,
        Err(error) => {
            let message =
                format!("is not what an injection wrote ({error}); inject the original manifest instead");
            return Err(report.error(&annotations_at.key(RECORD), message));
        }
    };
    // Everything is looked at before anything is changed.
    shape::object(metadata, &metadata_at, "labels", report)?;
    if let Some(spec) = shape::object(template, &root, "spec", report)? {
        let spec_at = root.key("spec");
        for key in ["initContainers", "containers", "volumes"] {
            shape::objects(spec, &spec_at, key, report)?;
        }
    }
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        restore_spec(spec, &record);
    }
    restore_metadata(template, &record);
    Ok(())
}

fn restore_spec(spec: &mut Object, record: &Record) {
    if let Some(calls) = handed_calls(spec) {
        probes::restore(spec, &calls, &record.port_names);
    }
    let without = |spec: &mut Object, key: &str, names: &[&str]| {
        if let Some(Value::Array(list)) = spec.get_mut(key) {
            list.retain(|item| item["name"].as_str().is_none_or(|name| !names.contains(&name)));
            shape::drop_if_empty(spec, key);
        }
    };
    without(spec, "initContainers", &[PROXY_CONTAINER, CAPTURE_CONTAINER]);
    without(spec, "volumes", &sidecar::VOLUMES);
    for name in &record.delayed {
        let Some(container) = shape::container_mut(spec, name) else { continue };
        let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") else { continue };
        if lifecycle.get("preStop").is_some_and(|hook| hook["sleep"].is_object()) {
            lifecycle.shift_remove("preStop");
            shape::drop_if_empty(container, "lifecycle");
        }
    }
    let Some(grace) = &record.grace else { return };
    if spec.get(GRACE_PERIOD) == Some(&json!(grace.now)) {
        match grace.was {
            Some(seconds) => spec.insert(GRACE_PERIOD.to_owned(), seconds.into()),
            None => spec.shift_remove(GRACE_PERIOD),
        };
    }
}

pub const GRACE_PERIOD: &str = "terminationGracePeriodSeconds";

fn restore_metadata(template: &mut Object, record: &Record) {
    let Some(Value::Object(metadata)) = template.get_mut("metadata") else { return };
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.shift_remove(RECORD);
        if record.scraped {
            for (key, value) in sidecar::scrape_annotations() {
                if annotations.get(key).and_then(Value::as_str) == Some(&value) {
                    annotations.shift_remove(key);
                }
            }
        }
    }
    if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
        labels.shift_remove(MESHED_LABEL);
    }
    for key in ["annotations", "labels"] {
        shape::drop_if_empty(metadata, key);
    }
    shape::drop_if_empty(template, "metadata");
}

/// What the proxy on this pod was told of its probes.
fn handed_calls(spec: &mut Object) -> Option<Object> {
    let proxy = shape::container_mut(spec, PROXY_CONTAINER)?;
    let variable = proxy.get("env")?.as_array()?.iter().find(|variable| variable["name"] == PROBES_ENV)?;
    probes::read_handed(variable["value"].as_str()?)
}
