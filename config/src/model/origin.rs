//! Where a rule comes from: the object and the field that decided it.
//!
//! Travels with the rule as kind/namespace/name and field path. File and line are looked up only where the files are (the control plane,
//! the CLI, the proxy's file mode): carried along, they would push everything again whenever a comment moves.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub kind: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Path of the deciding field, `spec.rules[0]`; empty for the object as a whole.
    pub field: Arc<str>,
}

impl Origin {
    pub fn new(kind: &str, namespace: &str, name: &str, field: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into(), field: field.into() }
    }

    /// The same object, another field.
    pub fn at(&self, field: &str) -> Self {
        Self { field: field.into(), ..self.clone() }
    }
}

/// `HTTPRoute/default/reviews spec.rules[0]`
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)?;
        if self.field.is_empty() { Ok(()) } else { write!(f, " {}", self.field) }
    }
}
