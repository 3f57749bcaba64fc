//! Whole sets of manifests: what is found in them, and what stays in force when they change.

mod changes;
mod check;
mod scale;
mod store;

use std::sync::Arc;

use crate::manifest::{Kind, ObjectKey};
use crate::source::Files;

use super::{Registry, State, Store};

/// The services, routes and policies of one text; panics where the manifest reader refuses any of it.
pub(crate) fn registry(text: &str) -> Arc<Registry> {
    let parsed = crate::manifest::parse(text.as_bytes(), "test.yaml");
    assert!(!parsed.has_errors(), "{:#?}", parsed.diagnostics);
    Store::new().update(&Files::from_iter([("test.yaml", text)]))
}

/// Services with port 80 and nothing behind them, by `NAMESPACE/NAME`.
pub(crate) fn services(names: &[&str]) -> String {
    names
        .iter()
        .map(|id| {
            let (namespace, name) = id.split_once('/').unwrap();
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{ports: [{{name: http, port: 80}}]}}\n---\n"
            )
        })
        .collect()
}

impl Registry {
    fn state_of(&self, kind: Kind, namespace: &str, name: &str) -> &State {
        &self.status(&ObjectKey::new(kind, namespace, name)).expect("the object is there").state
    }

    /// Every finding as it is printed.
    pub(crate) fn findings(&self) -> Vec<String> {
        self.diagnostics().iter().map(ToString::to_string).collect()
    }
}
