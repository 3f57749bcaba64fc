//! The cross-checks: what refers to nothing, what hides what, what has no effect.
//!
//! They only speak: nothing is left out because of them that resolving would not leave out by itself, with the very same functions.

mod access;
mod gateway;
mod policy;
mod route;
mod service;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Severity};
use crate::manifest::{Kind, ObjectKey};
use crate::model::Origin;

use super::{Registry, State, Status};

pub(super) fn check(registry: &mut Registry) {
    let statuses = registry.objects.keys().map(|key| (key.clone(), Status::default())).collect();
    let mut report = Report { registry, statuses };
    service::check(&mut report);
    gateway::check(&mut report);
    route::check(&mut report);
    policy::check(&mut report);
    access::check(&mut report);
    let statuses = report.statuses;
    registry.diagnostics.extend(statuses.values().flat_map(|status| status.findings.iter().cloned()));
    registry.statuses = statuses;
}

/// What is found, each finding on the object that is to be changed.
struct Report<'r> {
    registry: &'r Registry,
    statuses: BTreeMap<ObjectKey, Status>,
}

impl Report<'_> {
    fn error(&mut self, object: &Origin, field: &str, message: impl Into<String>) {
        self.find(Severity::Error, object, field, message.into());
    }

    fn warning(&mut self, object: &Origin, field: &str, message: impl Into<String>) {
        self.find(Severity::Warning, object, field, message.into());
    }

    fn state(&mut self, object: &Origin, state: State) {
        if let Some(status) = key_of(object).and_then(|key| self.statuses.get_mut(&key)) {
            status.state = state;
        }
    }

    fn find(&mut self, severity: Severity, object: &Origin, field: &str, message: String) {
        let Some(key) = key_of(object) else { return };
        let (Some(object), Some(status)) = (self.registry.objects.get(&key), self.statuses.get_mut(&key))
        else {
            return;
        };
        let finding: Diagnostic = object.diagnostic(severity, field, message);
        // One reference may be wrong for two reasons of use, a Gateway's and the mesh's.
        if !status.findings.contains(&finding) {
            status.findings.push(finding);
        }
    }
}

pub(super) fn key_of(origin: &Origin) -> Option<ObjectKey> {
    Some(ObjectKey::new(Kind::from_name(&origin.kind)?, &origin.namespace, &origin.name))
}
