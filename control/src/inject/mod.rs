//! Injection: puts a sidecar into the pods of a workload, and takes it out again.
//!
//! One pure function from an object of the Kubernetes API to the same object with sidecars. The command line shows it as YAML, an
//! admission webhook answers with the difference as a JSON patch; both thereby do the same. Reads no file, calls nobody.
//!
//! What was there stays: every change to what the user wrote is noted on the pod (`record`), so that [`remove`] gives back what came in,
//! and [`inject`] begins by removing. It can therefore run any number of times, with a newer version, or after another webhook added a
//! container, and a second run with the same settings changes nothing.

use outrigger_config::diagnostic::Severity;
use outrigger_config::manifest::path::{FieldPath, Segment};
use serde_json::{Map, Value};

mod annotations;
mod kinds;
mod pod;
mod probes;
mod record;
mod shape;
mod sidecar;

pub use annotations::{INJECT, Quantity, TUNABLES};
pub use probes::PROBES_ENV;
pub use record::RECORD;
pub use sidecar::{CAPTURE_CONTAINER, MESHED_LABEL, PROXY_CONTAINER};

/// What is the same for every pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the sidecar; its entry point is `outrigger-proxy`.
    pub proxy_image: String,
    /// Image of the init container that loads the redirection; its entry point is `outrigger`.
    pub capture_image: String,
    /// Where the control plane's replicas answer over TLS, `HOST:PORT`; at least one.
    pub control: Vec<String>,
    /// The config map in each namespace whose `roots.pem` holds the roots the control plane is believed by.
    pub roots: String,
}

/// An object after injection, and what there is to say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Equal to what came in where nothing was to be done. A pod with an error is as it was.
    pub object: Value,
    /// About fields of what came in.
    pub findings: Vec<Finding>,
}

impl Outcome {
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub field: FieldPath,
    pub message: String,
}

/// Puts a sidecar into each pod of `object`: a Pod, what makes pods (Deployment, Job ...), or a List of such. Anything else, and a pod
/// that opted out, comes back without one.
pub fn inject(object: &Value, settings: &Settings) -> Outcome {
    each_pod(object, |template, report| {
        record::remove(template, report)?;
        pod::inject(template, settings, report)
    })
}

/// Takes out what [`inject`] put in.
pub fn remove(object: &Value) -> Outcome {
    each_pod(object, record::remove)
}

/// A reason to leave a pod as it is was reported.
#[derive(Debug)]
struct Refused;

fn each_pod(
    object: &Value,
    mut change: impl FnMut(&mut Map<String, Value>, &mut Report) -> Result<(), Refused>,
) -> Outcome {
    let mut after = object.clone();
    let mut report = Report::default();
    for found in kinds::pods(object, &mut report) {
        let Some(Value::Object(template)) = at_mut(&mut after, &found) else { continue };
        report.base = found;
        let mut changed = template.clone();
        if change(&mut changed, &mut report).is_ok() {
            *template = changed;
        }
    }
    Outcome { object: after, findings: report.findings }
}

fn at_mut<'v>(value: &'v mut Value, path: &FieldPath) -> Option<&'v mut Value> {
    path.segments().iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(index),
    })
}

/// Collects findings; paths are given from the pod on.
#[derive(Debug, Default)]
struct Report {
    base: FieldPath,
    findings: Vec<Finding>,
}

impl Report {
    fn error(&mut self, field: &FieldPath, message: impl Into<String>) -> Refused {
        self.push(Severity::Error, field, message.into());
        Refused
    }

    fn warn(&mut self, field: &FieldPath, message: impl Into<String>) {
        self.push(Severity::Warning, field, message.into());
    }

    fn push(&mut self, severity: Severity, field: &FieldPath, message: String) {
        let field = self.base.segments().iter().chain(field.segments()).cloned().collect::<Vec<_>>();
        self.findings.push(Finding { severity, field: field.into(), message });
    }
}

#[cfg(test)]
mod tests;
